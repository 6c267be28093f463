"""Aligns a known English text with speech by pocketsphinx: which words were spoken, and when. Words may be missing."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pocketsphinx import Alignment, Decoder

from analysis_server import script_words
from analysis_server.audio import SAMPLE_RATE
from analysis_server.pronunciation import Lookup, pronunciations
from analysis_server.script_words import MAX_CHARACTERS, ScriptWord
from analysis_server.spoken_numbers import Reading

MAX_SECONDS = 120.0
"""Longer recordings are not aligned: the aligner's memory grows with the length of the sound times that of the text."""

_VARIANT = re.compile(r"\(\d+\)$")  # the decoder names a word's second pronunciation "the(2)"
_ANY = "any-phone-"
_ADDED = "said:"
_PHONES = re.findall(  # the phones of CMUdict
    r"\w+", "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
)
_OTHER_SOUNDS = ["AA", "IY", "UW", "ER", "EY", "N", "S", "SH", "T", "K", "M", "L"]
"""The phones that stand for sounds outside the text. Every other phone is close to one of these, and using only these
takes a third of the time."""


_WIDE, _NARROW = 1e-200, 1e-110
"""Beam widths: the decoder drops a path whose probability relative to the best path is lower than this. The wide beam
keeps nearly every path that the grammar allows, but its memory and time grow with the square of the length and of the
text: 330 MB and 7 s for 30 s, gigabytes and minutes for 120 s."""
_WIDE_SECONDS, _WIDE_WORDS = 30.0, 50
_GAP_COST = 100.0  # nats; more than any badly spoken word costs, less than matching a word that was not spoken
_PHONE_COST = 30.0  # nats, for each phone that belongs to no word
_MOST_ADDED = 10_000  # entries, after which a new decoder is made: nothing can be removed from one
_MOST_WAYS = 6  # to say one word of a script
_ENOUGH_TO_TELL = 6  # words; a shorter line may well be of names alone
_LONGEST_GAP = 6  # words missing in the middle; at the beginning and at the end any number may be missing


class NotAlignedError(Exception):
    """The text could not be aligned; `code` is a stable reason, `text` a sentence for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Text:
    """The words of a text as written, and the dictionary's entry for each, None for one that cannot be pronounced.

    `added` has the entries that the dictionary does not have by itself, each with the phones of every way to say it.
    """

    words: tuple[ScriptWord, ...]
    entries: tuple[str | None, ...]
    added: Mapping[str, Sequence[str]]

    @property
    def unknown(self) -> frozenset[int]:
        """Return the indexes of the words that cannot be listened for."""
        return frozenset(at for at, entry in enumerate(self.entries) if entry is None)

    @property
    def known(self) -> list[tuple[int, str]]:
        """Return the index and the entry of each word that can be listened for."""
        return [(at, entry) for at, entry in enumerate(self.entries) if entry is not None]


def read(text: str) -> Text:
    """Split a text into words, and find out how each is pronounced.

    Raises NotAlignedError `script_has_no_words`, `script_too_long` or, when half of the words or more cannot be
    pronounced, or are all but unknown in English, `script_language_unsupported`.
    """
    if len(text) > MAX_CHARACTERS:
        raise NotAlignedError("script_too_long", f"Only scripts of up to {MAX_CHARACTERS} characters are aligned.")
    words = script_words.split(text)
    if not words:
        raise NotAlignedError("script_has_no_words", "The script has no words in it.")
    lookup, added = _decoder(_WIDE).lookup_word, dict[str, Sequence[str]]()
    entries = tuple(_entry(word, lookup, added) for word in words)
    if not _is_english(words, entries, lookup):
        raise NotAlignedError("script_language_unsupported", "Only English scripts can be aligned.")
    return Text(tuple(words), entries, added)


def _entry(word: ScriptWord, lookup: Lookup, added: dict[str, Sequence[str]]) -> str | None:
    """Return the dictionary's entry for a word; one that it lacks is put into `added`.

    However many words a number is read as, it has one entry, so that it is one word to the decoder.
    """
    plain = _plain(word)
    if plain is not None and lookup(plain) is not None:
        return plain
    ways = [way for reading in word.readings for way in _ways(reading, lookup)]
    ways = list(dict.fromkeys(ways))[:_MOST_WAYS]
    if not ways:
        return None
    entry = _ADDED + "/".join(ways).lower().replace(" ", ".")
    added[entry] = ways
    return entry


def _plain(word: ScriptWord) -> str | None:
    """Return the one word that a word is read as, None if it is read as several or in several ways."""
    return word.readings[0][0].lower() if len(word.readings) == 1 and len(word.readings[0]) == 1 else None


def _ways(reading: Reading, lookup: Lookup) -> list[str]:
    """Return the phones of each way to say one reading, or of one way if it has several words."""
    of_words = [pronunciations(word, lookup) for word in reading]
    if not all(of_words):
        return []
    return of_words[0] if len(of_words) == 1 else [" ".join(ways[0] for ways in of_words)]


def _is_english(words: Sequence[ScriptWord], entries: Sequence[str | None], lookup: Lookup) -> bool:
    silent = sum(entry is None for entry in entries)
    strange = sum((plain := _plain(word)) is not None and lookup(plain) is None for word in words)
    return 2 * silent < len(words) and (len(words) < _ENOUGH_TO_TELL or 2 * strange < len(words))


def find(pcm: bytes, text: Text, *, with_more: bool) -> tuple[list[int | None], Alignment]:
    """Find the text in 16-bit mono samples at 16 kHz, MAX_SECONDS at most, from which pauses were cut out.

    Words may be missing. With `with_more`, sounds that are not part of the text may come before and after it.
    Returns for each entry of the decoder's alignment the index of its word in the text, or None, and the alignment
    itself, for `likelihood.judge`. The alignment is valid until the next call.
    Raises NotAlignedError `alignment_failed`.
    """
    known = text.known
    is_short = len(pcm) <= _WIDE_SECONDS * SAMPLE_RATE * 2 and len(known) <= _WIDE_WORDS
    decoder = _decoder_with(_WIDE if is_short else _NARROW, text.added)
    decoder.add_fsg("script", decoder.create_fsg("script", 0, len(known), list(_arcs(text, with_more=with_more))))
    decoder.activate_search("script")
    try:
        hear(decoder, pcm)
        names = [_VARIANT.sub("", segment.word) for segment in decoder.seg()]
        decoder.set_alignment()
        return _places(names, text), decoder.get_alignment()
    except (RuntimeError, TypeError, IndexError):  # raised by the binding: no path through the text, or no samples
        raise NotAlignedError("alignment_failed", "The script could not be found in the recording.") from None


def _decoder_with(beam: float, added: Mapping[str, Sequence[str]]) -> Decoder:
    """Return a decoder with these entries, too. They stay for later texts until there are too many."""
    if len(_added(beam)) >= _MOST_ADDED:
        _decoder.cache_clear()
        _added.cache_clear()
    decoder, known = _decoder(beam), _added(beam)
    for entry in added.keys() - known:
        for number, phones in enumerate(added[entry], start=1):
            decoder.add_word(entry if number == 1 else f"{entry}({number})", phones, False)
        known.add(entry)
    return decoder


@cache
def _added(_beam: float) -> set[str]:
    """Return the entries that were added to the decoder of this beam."""
    return set()


def hear(decoder: Decoder, pcm: bytes) -> None:
    """Decode samples as one utterance; raises RuntimeError."""
    decoder.start_utt()
    try:
        decoder.process_raw(pcm, full_utt=True)
    finally:
        decoder.end_utt()


def new_decoder(**settings: Any) -> Decoder:
    """Return a decoder with the US English model. Noise removal is off: it mistakes steady vowels for noise."""
    decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", lm=None, bestpath=False, **settings)
    decoder.config["remove_noise"] = False  # the model's own feat.params turns it on, whatever the constructor is given
    decoder.reinit_feat(decoder.config)
    return decoder


@cache
def _decoder(beam: float) -> Decoder:
    # The default beams favour speed, and lose the one allowed path when a voice is unusual. Fillers are off: pauses
    # were cut out before, and where the grammar allows fillers everywhere, the broad model of silence swallows words.
    decoder = new_decoder(fsgusefiller=False, beam=beam, pbeam=beam, wbeam=beam)
    for phone in _PHONES:  # all of them: the decoder models a word's edges by its possible neighbours
        decoder.add_word(_ANY + phone.lower(), phone, phone == _PHONES[-1])
    return decoder


def _arcs(text: Text, *, with_more: bool) -> Iterator[tuple[int, int, float, str]]:
    """Yield the arcs of the grammar: from state, to state, probability, word.

    State n means "the first n known words are over". The state after the last one means "other sounds come first".
    Only the beginning of the text can be reached from it, because each way into a word costs time. No arc is empty:
    set_alignment needs a word on each.
    """
    known = text.known
    places, unknown = [at for at, _ in known], text.unknown
    last = len(known)
    gap = _probability(_GAP_COST)
    for state in range(1, last + 1):
        if _has_unknown(unknown, places, state) or (with_more and state == last):
            yield from _any_sounds(state, state)
    if with_more or _has_unknown(unknown, places, 0):
        yield from _any_sounds(0, last + 1)
        yield from _any_sounds(last + 1, last + 1)
        for place, (_, entry) in enumerate(known[: _LONGEST_GAP + 1]):
            yield last + 1, place + 1, gap if place else 1.0, entry
    for place, (_, entry) in enumerate(known):
        yield place, place + 1, 1.0, entry
        if place + 1 < last:
            yield place, last, gap, entry
        first = max(1, place - _LONGEST_GAP)
        yield from ((state, place + 1, gap, entry) for state in {0, *range(first, place)} if state < place)


def _any_sounds(state: int, to: int) -> Iterator[tuple[int, int, float, str]]:
    return ((state, to, _probability(_PHONE_COST), _ANY + phone.lower()) for phone in _OTHER_SOUNDS)


def _probability(cost: float) -> float:
    return math.exp(-cost)


def _has_unknown(unknown: frozenset[int], known: list[int], state: int) -> bool:
    """Tell whether unknown words lie between the first `state` known words and the next known word."""
    before = known[state - 1] if state else -1
    after = known[state] if state < len(known) else before + 1 + len(unknown)
    return any(before < at < after for at in unknown)


def _places(names: list[str], text: Text) -> list[int | None]:
    """Return for each decoded name the index of its word in the text, None for other sounds.

    A text may have a word twice: the mapping with the fewest gaps is the one that the decoder took.
    """
    known = text.known
    spoken = [name for name in names if name[0] != "<" and not name.startswith(_ANY)]
    chosen = iter(_fewest_gaps(spoken, [entry for _, entry in known]))
    return [None if name.startswith(_ANY) or name[0] == "<" else known[next(chosen)][0] for name in names]


def _fewest_gaps(names: list[str], words: list[str]) -> list[int]:
    """Return an index into `words` for each name: ascending, with the fewest gaps."""
    far = len(words) + len(names) + 2
    costs = [0 if not place else 1 for place in range(len(words))]  # what the first name costs at each index
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
    """Return what the next name costs at each index, and its predecessor: the word before, or one across a gap."""
    after, came = [len(costs) * 2 + 2], [0]
    best = 0
    for place in range(1, len(costs)):
        adjacent, over_gap = costs[place - 1], costs[best] + 1
        after.append(min(adjacent, over_gap))
        came.append(place - 1 if adjacent <= over_gap else best)
        best = place if costs[place] < costs[best] else best
    return after, came
