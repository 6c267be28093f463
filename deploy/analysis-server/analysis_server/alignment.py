"""When each word and phone of a known English text was spoken: forced alignment by pocketsphinx."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from pocketsphinx import Decoder

from analysis_server.audio import SAMPLE_RATE

MAX_SECONDS = 120.0
"""The aligner's memory grows with length times text: 120 s of speech take about 400 MB for as long as it runs."""
MAX_SCRIPT = 3000
"""Characters; nobody reads more aloud in MAX_SECONDS."""

_FRAMES_PER_SECOND = 100
_PIECE = re.compile(r"[^\W_]+(?:'[^\W_]+)*'?")
_VARIANT = re.compile(r"\(\d+\)$")  # the aligner names a word's second pronunciation "the(2)"

# The default beams are for recognising speech fast and lose the one allowed path when a voice is unusual. The best-path
# search may give a phone fewer frames than its model has states, and the second pass then fails.
_SEARCH = {"lm": None, "bestpath": False, "beam": 1e-150, "pbeam": 1e-150, "wbeam": 1e-150, "loglevel": "FATAL"}


class NotAlignedError(Exception):
    """There are no times, for the reason given by a stable code and a sentence for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text


class Spoken(NamedTuple):
    """A word (as the script writes it) or a phone (ARPAbet, as CMUdict names it), and when it was spoken."""

    name: str
    start_s: float
    end_s: float


_Found = tuple[Spoken, list[Spoken]]  # a word as the aligner names it, and its phones


@dataclass(frozen=True)
class Alignment:
    """The script's words and their phones, in order."""

    words: list[Spoken]
    phones: list[Spoken]


def align(pcm: bytes, script: str) -> Alignment:
    """Align 16-bit mono samples at 16 kHz with the text spoken in them; times are multiples of 10 ms.

    Raises NotAlignedError `script_has_no_words`, `script_too_long`, `recording_too_long_to_align`,
    `script_language_unsupported`, `words_not_in_dictionary` or `alignment_failed`.
    """
    if len(script) > MAX_SCRIPT:
        raise NotAlignedError("script_too_long", f"Only scripts of up to {MAX_SCRIPT} characters are aligned.")
    if len(pcm) > MAX_SECONDS * SAMPLE_RATE * 2:
        raise NotAlignedError("recording_too_long_to_align", f"Only recordings of up to {MAX_SECONDS:g} s are aligned.")
    decoder = Decoder(samprate=SAMPLE_RATE, **_SEARCH)
    pieces = _pieces(script)
    _check_known(decoder, pieces)
    return _spoken(_two_passes(decoder, pcm, " ".join(piece.lower() for piece in pieces)), pieces)


def _pieces(script: str) -> list[str]:
    """Split a text into what is looked up: words without their punctuation, hyphenated ones apart."""
    return _PIECE.findall(script.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def _check_known(decoder: Decoder, pieces: list[str]) -> None:
    unknown = [piece for piece in dict.fromkeys(pieces) if decoder.lookup_word(piece.lower()) is None]
    if not pieces:
        raise NotAlignedError("script_has_no_words", "The script has no words in it.")
    if len(unknown) == len(set(pieces)):
        raise NotAlignedError("script_language_unsupported", "Only English scripts can be aligned.")
    if unknown:
        listed = ", ".join(unknown[:10]) + (", …" if len(unknown) > 10 else "")  # noqa: PLR2004 - enough to act on
        raise NotAlignedError("words_not_in_dictionary", f"Not in the English dictionary, so nothing aligned: {listed}")


def _two_passes(decoder: Decoder, pcm: bytes, text: str) -> list[_Found]:
    """Find the words, then their phones within them."""
    try:
        decoder.set_align_text(text)
        _hear(decoder, pcm)
        decoder.set_alignment()
        _hear(decoder, pcm)
        # Its entries point into the alignment's memory: they are read here and now, while it is held.
        entries = decoder.get_alignment()
        return [(_timed(entry), [_timed(phone) for phone in entry]) for entry in entries if entry.name[0] not in "<["]
    except (RuntimeError, IndexError):  # what its binding raises: no path through the text, or no samples at all
        raise _not_found() from None


def _hear(decoder: Decoder, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()


def _spoken(found: list[_Found], pieces: list[str]) -> Alignment:
    if [_VARIANT.sub("", word.name) for word, _ in found] != [piece.lower() for piece in pieces]:
        raise _not_found()
    words = [word._replace(name=piece) for (word, _), piece in zip(found, pieces, strict=True)]
    return Alignment(words, [phone for _, phones in found for phone in phones])


def _timed(entry: Any) -> Spoken:
    start, end = entry.start, entry.start + entry.duration
    return Spoken(entry.name, start / _FRAMES_PER_SECOND, end / _FRAMES_PER_SECOND)


def _not_found() -> NotAlignedError:
    return NotAlignedError("alignment_failed", "The script could not be found in the recording.")
