"""Finds how a word is pronounced: from the dictionary where it can be, else from its parts or its letters."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from analysis_server import letters_to_sounds

Lookup = Callable[[str], str | None]
"""Returns the phones (ARPAbet, separated by spaces) of an entry of the dictionary."""

_MOST = 3  # ways to say one word: with each more it is found more easily where something else was said
_LONGEST_SPELLED = 6  # letters of an abbreviation
_LEAST_PART = 3  # letters of each part of a compound
_LETTERS_APART = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"}
    | {"ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "ı": "i"}
)
_ENDINGS = {"n't": "AH N T", "'ll": "AH L", "'ve": "AH V", "'re": "ER", "'d": "D", "'m": "M", "'em": "AH M"}
_HISSING, _VOICELESS = {"S", "Z", "SH", "ZH", "CH", "JH"}, {"P", "T", "K", "F", "TH"}


def pronunciations(word: str, lookup: Lookup) -> list[str]:
    """Return up to three ways to say a word, likeliest first; none of one that is not written in Latin letters.

    Each is its phones (ARPAbet without stress), separated by spaces.
    """
    return _of_dictionary(word.lower(), lookup) or _of_others(word, lookup)


def _of_others(word: str, lookup: Lookup) -> list[str]:
    latin = _in_latin(word)
    if latin is None:
        return []
    return _as_written(latin, lookup) or _with_ending(latin, lookup) or _of_letters(latin, lookup)


def _as_written(latin: str, lookup: Lookup) -> list[str]:
    lower = latin.lower()
    return _of_dictionary(lower, lookup) or _of_dictionary(lower.rstrip("'"), lookup)


def _of_letters(latin: str, lookup: Lookup) -> list[str]:
    letters = latin.replace("'", "")
    if not letters:
        return []
    found = _of_dictionary(letters.lower(), lookup) or _shortened(letters.lower(), lookup)
    return found or list(dict.fromkeys(_guessed(letters, lookup)))[:_MOST]


def _in_latin(word: str) -> str | None:
    """Return the word in the letters a to z and apostrophes; None where it has other letters, or digits."""
    plain = unicodedata.normalize("NFKD", word.translate(_LETTERS_APART))
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    return plain if re.fullmatch(r"[A-Za-z']+", plain) else None


def _of_dictionary(word: str, lookup: Lookup) -> list[str]:
    first = lookup(word) if word else None
    others = (lookup(f"{word}({number})") for number in range(2, _MOST + 1)) if first is not None else ()
    return [phones for phones in (first, *others) if phones is not None]


def _with_ending(word: str, lookup: Lookup) -> list[str]:
    """Return the pronunciations of a word with one contraction or genitive, which the dictionary lacks for names."""
    lower = word.lower()
    if lower.endswith("'s"):
        return [f"{stem} {_s_after(stem)}" for stem in _of_stem(word[:-2], lookup)]
    for ending, phones in _ENDINGS.items():
        if lower.endswith(ending):
            return [f"{stem} {phones}" for stem in _of_stem(word[: -len(ending)], lookup)]
    return []


def _of_stem(stem: str, lookup: Lookup) -> list[str]:  # without a second ending: a text may have a thousand
    return _as_written(stem, lookup) or _of_letters(stem, lookup)


def _s_after(phones: str) -> str:
    last = phones.rsplit(" ", 1)[-1]
    return "IH Z" if last in _HISSING else "S" if last in _VOICELESS else "Z"


def _shortened(word: str, lookup: Lookup) -> list[str]:
    """Return the pronunciations of a word that is written drawn out: "nooooo", "cooool"."""
    shorter = [re.sub(r"(.)\1{2,}", kept, word) for kept in (r"\1", r"\1\1")]
    return [phones for one in shorter if one != word for phones in _of_dictionary(one, lookup)][:_MOST]


def _guessed(word: str, lookup: Lookup) -> Iterator[str]:
    is_short = len(word) <= _LONGEST_SPELLED
    lower = re.sub(r"(.)\1{2,}", r"\1", word.lower())
    is_sayable = re.search(r"[aeiouy]", lower) is not None
    if is_short and word.isupper():
        yield _spelled(word, lookup)
    yield from _compound(lower, lookup)
    if is_short and not is_sayable:
        yield _spelled(word, lookup)
    if len(lower) <= letters_to_sounds.MOST_LETTERS and (phones := letters_to_sounds.phones_of(lower)):
        yield " ".join(phones)


def _spelled(word: str, lookup: Lookup) -> str:
    return " ".join(lookup(f"{letter}.") or "" for letter in word.lower())


def _compound(word: str, lookup: Lookup) -> Iterator[str]:
    """Yield the phones of two words that make up this one: of all ways to part it the most even one."""
    places = range(_LEAST_PART, len(word) - _LEAST_PART + 1)
    for place in sorted(places, key=lambda at: abs(len(word) - 2 * at)):
        first, second = lookup(word[:place]), lookup(word[place:])
        if first is not None and second is not None:
            yield f"{first} {second}"
            return
