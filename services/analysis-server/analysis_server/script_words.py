"""Splits a text into its words and says in which ways each is read aloud; nothing here knows a dictionary."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

from analysis_server import spoken_numbers
from analysis_server.spoken_numbers import Reading

MAX_CHARACTERS = 3000
"""Of a text. Nobody reads more than this aloud in the two minutes that are aligned."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\N{RIGHT SINGLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}ʼ＇`´", "'"))
_INVISIBLE = str.maketrans(dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff"))

_NUMBER = r"[0-9]+(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9])|[0-9]+(?:\.[0-9]+)*"
_END = r"(?![^\W_])"
_TOKEN = re.compile(
    rf"""
    (?P<dotted> (?<![\w.]) [A-Za-z] (?:\.[A-Za-z])+ \.? {_END} )
  | (?P<money> (?P<currency>[$£€¥₩]) [ ]? (?P<amount>{_NUMBER}) (?P<scale>[kK]|[mMbB]n?)? {_END} )
  | (?P<coins> (?P<many>{_NUMBER}) [ ]? (?P<coin>[¢€£₩]) )
  | (?P<clock> (?P<hours>[0-9]{{1,2}}) : (?P<minutes>[0-9]{{2}}) {_END} )
  | (?P<fraction> (?P<above>[0-9]{{1,3}}) [/⁄] (?P<below>[0-9]{{1,3}}) {_END} (?![/⁄]) )
  | (?P<share> (?P<part>{_NUMBER}) [ ]? (?P<sign>%|°[ ]?C\b|°[ ]?F\b|°) )
  | (?P<ordinal> (?P<place>[0-9][0-9,]*) (?:st|nd|rd|th|ST|ND|RD|TH) {_END} )
  | (?P<decade> (?P<tens>[0-9]+) '?s {_END} )
  | (?P<numbered> [#№] [ ]? (?P<index>{_NUMBER}) {_END} )
  | (?P<number> (?:(?<![^\W_]) (?<![-)\]]) [-−])? (?P<digits>{_NUMBER}) {_END} )
  | (?P<letters> [^\W_]+ (?:'[^\W_]+)* '? )
  | (?P<symbol> (?<![^\s\w]) [&@+=×] (?![^\s\w]) )
    """,
    re.VERBOSE,
)
_RUNS = re.compile(r"[0-9]+|[^\W\d_]+")
_SCALED = re.compile(r"\s+(?:hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_SCALES = {"hundred", "thousand", "million", "billion", "trillion"}
_SCALE_SIGNS = {"k": ("thousand",), "m": ("million",), "mn": ("million",), "b": ("billion",), "bn": ("billion",)}
_SIGNS = {"%": ("percent",), "°": ("degrees",), "°C": ("degrees", "celsius"), "°F": ("degrees", "fahrenheit")}
_SYMBOLS = {"&": ("and",), "@": ("at",), "+": ("plus",), "=": ("equals",), "×": ("times",)}
_UNITS: dict[str, Reading] = {  # after a number
    "km": ("kilometers",),
    "cm": ("centimeters",),
    "mm": ("millimeters",),
    "m": ("meters",),
    "ft": ("feet",),
    "kg": ("kilograms",),
    "mg": ("milligrams",),
    "g": ("grams",),
    "lb": ("pounds",),
    "lbs": ("pounds",),
    "oz": ("ounces",),
    "l": ("liters",),
    "ml": ("milliliters",),
    "mph": ("miles", "per", "hour"),
    "kmh": ("kilometers", "per", "hour"),
    "h": ("hours",),
    "hr": ("hours",),
    "hrs": ("hours",),
    "min": ("minutes",),
    "mins": ("minutes",),
    "sec": ("seconds",),
    "secs": ("seconds",),
    "gb": ("gigabytes",),
    "mb": ("megabytes",),
    "k": ("thousand",),
}
_TITLES: dict[str, Reading] = {  # with a full stop after them; the dictionary has Mr, Mrs, Ms, Dr, St, Jr and so on
    "prof": ("professor",),
    "capt": ("captain",),
    "lt": ("lieutenant",),
    "col": ("colonel",),
    "gen": ("general",),
    "sen": ("senator",),
    "rep": ("representative",),
    "gov": ("governor",),
    "rev": ("reverend",),
    "dept": ("department",),
    "approx": ("approximately",),
    "vs": ("versus",),
    "mt": ("mount",),
    "ft": ("fort",),
    "ave": ("avenue",),
    "rd": ("road",),
}
_MONTHS = {
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"),
    *("december", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
}
_LONGEST_DAY = 2  # digits
_MOST_OF_RUNS = 4
_SPELLED = 2  # letters beside digits up to which they are always spelled: "A4", "PS5"


class ScriptWord(NamedTuple):
    """A word as the text writes it, and the ways to read it aloud, likeliest first, each as one or more words.

    A letter that is named is written with a full stop, as CMUdict has it: ("f.", "b.", "i.").
    """

    word: str
    readings: tuple[Reading, ...]

    @property
    def letters(self) -> int:
        """Return how many letters the likeliest reading has."""
        return sum(map(len, self.readings[0]))


def split(text: str) -> list[ScriptWord]:
    """Return the words of a text's first MAX_CHARACTERS, without punctuation around them; hyphenated words are split.

    A number is one word with all that belongs to it ("$3.50", "10:30", "50%"), and so is an abbreviation with full
    stops ("U.S.").
    """
    text = unicodedata.normalize("NFC", text[:MAX_CHARACTERS]).translate(_INVISIBLE).translate(_APOSTROPHES)
    found: list[ScriptWord] = []
    last: re.Match[str] | None = None
    for match in _TOKEN.finditer(text):
        readings = (_after(last, match) if last else []) or _READ[str(match.lastgroup)](match)
        found.append(ScriptWord(_word(match), tuple(dict.fromkeys(readings))))
        last = match
    return found


def spoken_forms(text: str) -> set[str]:
    """Return every word that may be said when the text is read aloud, each as `folded` returns it."""
    return forms(split(text))


def forms(words: Iterable[ScriptWord]) -> set[str]:
    """Return every word of every reading, each as `folded` returns it."""
    return {folded(word) for one in words for reading in one.readings for word in reading}


def folded(word: str) -> str:
    """Return a word for comparing its spelling with others'."""
    return word.casefold().strip("'.")


def _word(match: re.Match[str]) -> str:
    """Return the word of a match, without an apostrophe that ends a quotation."""
    word, at = match[0], match.start()
    is_quoted = word.endswith("'") and at > 0 and match.string[at - 1] == "'"
    return word[:-1] if is_quoted else word


def _after(last: re.Match[str], match: re.Match[str]) -> list[Reading]:
    """Return the readings that a word has because of the word before it; none where that does not matter."""
    word, between = match[0], match.string[last.end() : match.start()]
    if last["currency"] and not last["scale"] and word.lower() in _SCALES:
        return [(word, spoken_numbers.money(last["currency"], amount)[0][-1]) for amount in ("2", "1")]
    if last["digits"] and word.lower() in _UNITS and between.isspace():
        return [_UNITS[word.lower()], (word,)]
    if match["digits"] and between in ("-", "\N{EN DASH}") and last[0][-1].isdigit():
        plain = _number(match)
        return [*plain, *(("to", *reading) for reading in plain[:2])]
    if match["digits"] and last[0].lower() in _MONTHS and len(word) <= _LONGEST_DAY:
        days = spoken_numbers.ordinal(match["digits"])
        return [*days, *(("the", *day) for day in days), *_number(match)]
    return []


def _letters(match: re.Match[str]) -> list[Reading]:
    word, rest = _word(match), match.string[match.end() :]
    plain: Reading = (word,)
    if rest.startswith(".") and word.lower() in _TITLES:
        return [_TITLES[word.lower()], plain]
    if word.lower() == "no" and re.match(r"\.\s?[0-9]", rest):
        return [("number",), plain]
    compatible = unicodedata.normalize("NFKC", word[-1])
    if "\N{FRACTION SLASH}" in compatible[:-1]:  # "⅟" has nothing below it
        return _mixed_number(word[:-1], *compatible.split("\N{FRACTION SLASH}"))
    return _of_runs(word) if re.search(r"[0-9]", word) and word.isascii() else [plain]


def _mixed_number(whole: str, above: str, below: str) -> list[Reading]:
    """Read "1½" or "½"."""
    parts = spoken_numbers.fraction(above, below)[:2]
    if not whole.isdecimal():
        return parts
    return [(*spoken_numbers.number(whole)[0], "and", *part) for part in reversed(parts)]


def _of_runs(word: str) -> list[Reading]:
    """Read letters and digits in one word: "A4", "MP3", "10am", "5km"."""
    runs = _RUNS.findall(word)
    units = _UNITS.get(runs[-1].lower()) if len(runs) == len(("5", "km")) and runs[0].isdigit() else None
    measured = [(*reading, *units) for reading in spoken_numbers.number(runs[0])[:2]] if units else []
    readings: list[Reading] = [()]
    for run in runs:
        ways = spoken_numbers.number(run)[:2] if run.isdigit() else [_named(run)]
        readings = [(*reading, *way) for reading in readings for way in ways][:_MOST_OF_RUNS]
    return [*measured, *readings]


def _named(run: str) -> Reading:
    """Read a few letters beside digits by their names, more as a word."""
    return tuple(f"{letter.lower()}." for letter in run) if len(run) <= _SPELLED else (run,)


def _dotted(match: re.Match[str]) -> list[Reading]:
    return [tuple(f"{letter.lower()}." for letter in match[0] if letter != ".")]


def _money(match: re.Match[str]) -> list[Reading]:
    if _SCALED.match(match.string, match.end()):  # "$5 million": the currency is said after the scale
        return spoken_numbers.number(match["amount"])
    scale: Reading = _SCALE_SIGNS[match["scale"].lower()] if match["scale"] else ()
    return spoken_numbers.money(match["currency"], match["amount"], scale)


def _share(match: re.Match[str]) -> list[Reading]:
    sign = _SIGNS[re.sub(r"\s", "", match["sign"])]
    return [(*reading, *sign) for reading in spoken_numbers.number(match["part"])]


def _number(match: re.Match[str]) -> list[Reading]:
    plain = spoken_numbers.number(match["digits"])
    if match[0][0].isdigit():
        return plain
    return [(sign, *reading) for reading in plain for sign in ("minus", "negative")]


_READ: dict[str, Callable[[re.Match[str]], list[Reading]]] = {
    "letters": _letters,
    "dotted": _dotted,
    "money": _money,
    "coins": lambda match: spoken_numbers.money(match["coin"], match["many"]),
    "clock": lambda match: spoken_numbers.clock(match["hours"], match["minutes"]),
    "fraction": lambda match: spoken_numbers.fraction(match["above"], match["below"]),
    "share": _share,
    "ordinal": lambda match: spoken_numbers.ordinal(match["place"]),
    "decade": lambda match: spoken_numbers.decade(match["tens"]),
    "numbered": lambda match: [("number", *reading) for reading in spoken_numbers.number(match["index"])],
    "number": _number,
    "symbol": lambda match: [_SYMBOLS[match[0]]],
}
