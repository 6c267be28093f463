"""What is known of one voice that speaks the scripts, whether heard or marked by somebody; and its form as bytes."""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.01
"""Every track has one value each 10 ms; the first is centred on 5 ms."""

Floats = NDArray[np.float64]

_TRACKS = ("pitch_hz", "level_db", "mfcc", "likelihood_ratio")
_ENOUGH = 0.5
_CHANCE_WORDS = 2
_NEAR_S = 0.02
"""A pitch file's value counts for this many seconds around its time: files have one value each 5 to 20 ms."""


class Spoken(NamedTuple):
    """A word (as the script writes it) or a phone (ARPAbet, as CMUdict names it), and when it was spoken."""

    name: str
    start_s: float
    end_s: float


class DamagedVoiceError(ValueError):
    """The bytes are not a voice that this version wrote."""


@dataclass(frozen=True, eq=False)
class Voice:
    """One voice; whatever is not known of it is None.

    - `pitch_hz`: NaN where unvoiced
    - `level_db`: intensity, NaN in digital silence and at the edges
    - `mfcc`: frames x coefficients, without the 0th, as Praat gives them
    - `likelihood_ratio`: of the script's phone over the best of all phones, natural logarithm, at most about 0; NaN
      outside of words
    - `words`, `phones`: in order of time, without pauses; `words` is empty when the scripts were not found
    - `places`: for each word its index among the scripts' words
    - `unheard`: the indexes of the scripts' words that could not be listened for
    """

    duration_s: float
    pitch_hz: Floats | None = None
    level_db: Floats | None = None
    mfcc: Floats | None = None
    likelihood_ratio: Floats | None = None
    words: tuple[Spoken, ...] | None = None
    phones: tuple[Spoken, ...] | None = None
    places: tuple[int, ...] | None = None
    unheard: frozenset[int] = frozenset()

    def voice_in_words(self, without: Collection[int] = ()) -> float:
        """Return the share of the voiced frames that lie within words; words with a place in `without` do not count."""
        if self.pitch_hz is None or not self.words:
            return 0.0
        voiced = ~np.isnan(self.pitch_hz)
        within = np.zeros(len(voiced), dtype=bool)
        for at, word in enumerate(self.words):
            if self.places is None or self.places[at] not in without:
                within[round(word.start_s / FRAME_S) : round(word.end_s / FRAME_S)] = True
        return float((voiced & within).sum() / voiced.sum()) if voiced.any() else 0.0

    def evidence(self, told: int) -> float:
        """Return how strongly the words found show that scripts of `told` words were spoken: 0 not at all, 1 surely.

        Single words are found in any speech. The evidence is enough when most of the words are there, whatever else was
        said, or when most of the speech is words of the scripts, however few.
        """
        found = len(self.words or ())
        of_text = found / (told - len(self.unheard) + _CHANCE_WORDS) if found else 0.0
        of_speech = self.voice_in_words() * found / (found + 1)
        return min(1.0, max(of_text, of_speech) / _ENOUGH)

    def with_words(self, words: Sequence[Spoken], phones: Sequence[Spoken]) -> Self:
        """Return this voice with words and phones that somebody marked, in place of those found; times in seconds.

        Where only words were marked, the phones are those found.
        """
        end = max((word.end_s for word in words), default=0.0)
        duration = max(self.duration_s, end)
        return replace(self, words=tuple(words), phones=tuple(phones) or self.phones, places=None, duration_s=duration)

    def with_pitch(self, times_s: Sequence[float], hz: Sequence[float | None]) -> Self:
        """Return this voice with its pitch replaced by these values; `times_s` ascend, None and 0 are unvoiced."""
        if not times_s:
            return replace(self, pitch_hz=None)
        given, values = np.array(times_s), np.array([value or np.nan for value in hz], dtype=np.float64)
        duration = max(self.duration_s, float(given[-1]))
        times = (np.arange(int(duration / FRAME_S)) + 0.5) * FRAME_S
        nearest = np.rint(np.interp(times, given, np.arange(len(given)))).astype(int)
        near = np.abs(given[nearest] - times) <= _NEAR_S
        return replace(self, pitch_hz=np.where(near, values[nearest], np.nan), duration_s=duration)

    def to_bytes(self) -> bytes:
        """Return it as a compressed NumPy archive, for `from_bytes`."""
        known = {name: getattr(self, name) for name in _TRACKS if getattr(self, name) is not None}
        arrays: dict[str, NDArray[Any]] = {name: track.astype(np.float32) for name, track in known.items()}
        for name in ("words", "phones"):
            spoken: tuple[Spoken, ...] | None = getattr(self, name)
            if spoken is not None:
                arrays[f"{name}_names"] = np.array([one.name for one in spoken], dtype=np.str_)
                arrays[f"{name}_times"] = np.array([one[1:] for one in spoken], dtype=np.float64).reshape(-1, 2)
        arrays["unheard"] = np.array(sorted(self.unheard), dtype=np.int64)
        if self.places is not None:
            arrays["places"] = np.array(self.places, dtype=np.int64)
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, duration_s=np.float64(self.duration_s), **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return what `to_bytes` wrote; raises DamagedVoiceError. Nothing in the bytes is ever run as code."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                tracks = {name: kept[name].astype(np.float64) for name in _TRACKS if name in kept}
                words, phones = _spoken(kept, "words"), _spoken(kept, "phones")
                places = tuple(kept["places"].tolist()) if "places" in kept else None
                unheard = frozenset(kept["unheard"].tolist())
                duration_s = float(kept["duration_s"])
                return cls(duration_s, words=words, phones=phones, places=places, unheard=unheard, **tracks)
        except Exception as error:  # noqa: BLE001 - damaged bytes raise whatever zip, zlib and NumPy raise
            raise DamagedVoiceError(str(error)) from None


def _spoken(kept: "np.lib.npyio.NpzFile", name: str) -> tuple[Spoken, ...] | None:
    if f"{name}_names" not in kept:
        return None
    names, times = kept[f"{name}_names"].tolist(), kept[f"{name}_times"].tolist()
    return tuple(Spoken(one, *when) for one, when in zip(names, times, strict=True))
