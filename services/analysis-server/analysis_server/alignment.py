"""Which words of a known English text were spoken, and when: a decoder that may leave words out, by pocketsphinx."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pocketsphinx import Alignment, Decoder

from analysis_server.audio import SAMPLE_RATE

MAX_SECONDS = 120.0
"""The aligner's memory grows with length times text."""
MAX_SCRIPT = 3000
"""Characters; nobody reads more aloud in MAX_SECONDS."""

_PIECE = re.compile(r"[^\W_]+(?:'[^\W_]+)*'?")
_VARIANT = re.compile(r"\(\d+\)$")  # the decoder names a word's second pronunciation "the(2)"
_ANY = "any-phone-"
_PHONES = re.findall(  # CMUdict's
    r"\w+", "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
)
_OTHER_SOUNDS = ["AA", "IY", "UW", "ER", "EY", "N", "S", "SH", "T", "K", "M", "L"]
"""Every other phone is near one of these: enough for sounds that are none of the text's, at a third of the time."""


_WIDE, _NARROW = 1e-200, 1e-110
"""How much worse than the best a path may be to be followed. The wide beam holds nearly all that the grammar allows,
but its memory and time grow with the square of the length and of the text: 330 MB and 7 s for 30 s, gigabytes and
minutes for 120 s."""
_WIDE_SECONDS, _WIDE_WORDS = 30.0, 50
_GAP_COST = 100.0  # nats: dearer than any word badly spoken, cheaper than a word where there is none
_PHONE_COST = 30.0  # of each phone that is no word's
_LONGEST_GAP = 6  # words, but for the beginning and the end, where any number may be missing


class NotAlignedError(Exception):
    """There are no times, for the reason given by a stable code and a sentence for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Text:
    """A text's words as it writes them, and which of them the dictionary lacks."""

    words: tuple[str, ...]
    unknown: frozenset[int]

    @property
    def known(self) -> list[int]:
        """Return the places of the words that the dictionary has."""
        return [at for at in range(len(self.words)) if at not in self.unknown]


def words_of(text: str) -> list[str]:
    """Split a text into what is looked up: words without their punctuation, hyphenated ones apart."""
    return _PIECE.findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def read(text: str) -> Text:
    """Look a text's words up.

    Raises NotAlignedError `script_has_no_words`, `script_too_long` or, when the dictionary lacks half of them or more,
    `script_language_unsupported`.
    """
    if len(text) > MAX_SCRIPT:
        raise NotAlignedError("script_too_long", f"Only scripts of up to {MAX_SCRIPT} characters are aligned.")
    words = words_of(text)
    if not words:
        raise NotAlignedError("script_has_no_words", "The script has no words in it.")
    unknown = frozenset(at for at, word in enumerate(words) if _decoder(_WIDE).lookup_word(word.lower()) is None)
    if 2 * len(unknown) >= len(words):
        raise NotAlignedError("script_language_unsupported", "Only English scripts can be aligned.")
    return Text(tuple(words), unknown)


def find(pcm: bytes, text: Text, *, with_more: bool) -> tuple[list[int | None], Alignment]:
    """Find the text in 16-bit mono samples at 16 kHz, of which pauses were cut out; words may be missing.

    With more, there may also be sounds before and after the text that are none of it.
    Returns the decoder's alignment, for `likelihood.judge`, and of each entry which word of the text it is, or None.
    It holds until the next call. At most MAX_SECONDS. Raises NotAlignedError `alignment_failed`.
    """
    known = text.known
    is_short = len(pcm) <= _WIDE_SECONDS * SAMPLE_RATE * 2 and len(known) <= _WIDE_WORDS
    decoder = _decoder(_WIDE if is_short else _NARROW)
    decoder.add_fsg("script", decoder.create_fsg("script", 0, len(known), list(_arcs(text, with_more=with_more))))
    decoder.activate_search("script")
    try:
        hear(decoder, pcm)
        names = [_VARIANT.sub("", segment.word) for segment in decoder.seg()]
        decoder.set_alignment()
        return _places(names, text), decoder.get_alignment()
    except (RuntimeError, TypeError, IndexError):  # what its binding raises: no path through the text, or no samples
        raise NotAlignedError("alignment_failed", "The script could not be found in the recording.") from None


def hear(decoder: Decoder, pcm: bytes) -> None:
    """Let a decoder hear samples as one utterance; raises RuntimeError."""
    decoder.start_utt()
    try:
        decoder.process_raw(pcm, full_utt=True)
    finally:
        decoder.end_utt()


def new_decoder(**settings: Any) -> Decoder:
    """Return a decoder of the US English model, without the noise removal that takes steady vowels for noise."""
    decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", lm=None, bestpath=False, **settings)
    decoder.config["remove_noise"] = False  # the model's own feat.params set it, whatever the caller asks for
    decoder.reinit_feat(decoder.config)
    return decoder


@cache
def _decoder(beam: float) -> Decoder:
    # The default beams are for recognising speech fast and lose the one allowed path when a voice is unusual. Pauses
    # were cut out before: where the grammar allows fillers everywhere, the broad model of silence swallows words.
    decoder = new_decoder(fsgusefiller=False, beam=beam, pbeam=beam, wbeam=beam)
    for phone in _PHONES:  # all, for the decoder finds words' edges by what may stand beside them
        decoder.add_word(_ANY + phone.lower(), phone, phone == _PHONES[-1])
    return decoder


def _arcs(text: Text, *, with_more: bool) -> Iterator[tuple[int, int, float, str]]:
    """Yield the grammar: state n is "the first n known words are over", the one after the last "other sounds first".

    From the latter only the text's beginning is reached, for each way into a word costs time. No arc is empty, for
    set_alignment's sake.
    """
    known = text.known
    last = len(known)
    gap = _probability(_GAP_COST)
    for state in range(1, last + 1):
        if _has_unknown(text.unknown, known, state) or (with_more and state == last):
            yield from _any_sounds(state, state)
    if with_more or _has_unknown(text.unknown, known, 0):
        yield from _any_sounds(0, last + 1)
        yield from _any_sounds(last + 1, last + 1)
        for place, at in enumerate(known[: _LONGEST_GAP + 1]):
            yield last + 1, place + 1, gap if place else 1.0, text.words[at].lower()
    for place, at in enumerate(known):
        word = text.words[at].lower()
        yield place, place + 1, 1.0, word
        if place + 1 < last:
            yield place, last, gap, word
        first = max(1, place - _LONGEST_GAP)
        yield from ((state, place + 1, gap, word) for state in {0, *range(first, place)} if state < place)


def _any_sounds(state: int, to: int) -> Iterator[tuple[int, int, float, str]]:
    return ((state, to, _probability(_PHONE_COST), _ANY + phone.lower()) for phone in _OTHER_SOUNDS)


def _probability(cost: float) -> float:
    return math.exp(-cost)


def _has_unknown(unknown: frozenset[int], known: list[int], state: int) -> bool:
    """Say whether unknown words stand before the known word of this state."""
    before = known[state - 1] if state else -1
    after = known[state] if state < len(known) else before + 1 + len(unknown)
    return any(before < at < after for at in unknown)


def _places(names: list[str], text: Text) -> list[int | None]:
    """Say which word each name is, with the fewest gaps, as the decoder had it: a text may have a word twice."""
    known = text.known
    spoken = [name for name in names if name[0] != "<" and not name.startswith(_ANY)]
    chosen = iter(_fewest_gaps(spoken, [text.words[at].lower() for at in known]))
    return [None if name.startswith(_ANY) or name[0] == "<" else known[next(chosen)] for name in names]


def _fewest_gaps(names: list[str], words: list[str]) -> list[int]:
    """Return an ascending place for each name."""
    far = len(words) + len(names) + 2
    costs = [0 if not place else 1 for place in range(len(words))]  # of a first name there
    steps: list[list[int]] = []
    for index, name in enumerate(names):
        if index:
            costs, came = _next_costs(costs)
            steps.append(came)
        costs = [cost if word == name else far for cost, word in zip(costs, words, strict=True)]
    if not names:
        return []
    place = min(range(len(words)), key=lambda at: costs[at] + (at + 1 < len(words)))
    places = [place]
    for came in reversed(steps):
        place = came[place]
        places.append(place)
    return places[::-1]


def _next_costs(costs: list[int]) -> tuple[list[int], list[int]]:
    """Return the cost of each place for the next name, and from where it comes: the word before, or over a gap."""
    after, came = [len(costs) * 2 + 2], [0]
    best = 0
    for place in range(1, len(costs)):
        adjacent, over_gap = costs[place - 1], costs[best] + 1
        after.append(min(adjacent, over_gap))
        came.append(place - 1 if adjacent <= over_gap else best)
        best = place if costs[place] < costs[best] else best
    return after, came
