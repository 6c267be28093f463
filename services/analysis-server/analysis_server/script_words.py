"""Splits a text into its words and says in which ways each is read aloud; nothing here knows a dictionary."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

from analysis_server import spoken_numbers, units
from analysis_server.spoken_numbers import Reading

MAX_CHARACTERS = 3000
"""Of a text. Nobody reads more than this aloud in the two minutes that are aligned."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\N{RIGHT SINGLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}ʼ＇`´", "'"))
_INVISIBLE = str.maketrans(dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff"))

_WIDE = {  # full-width forms, and units and degrees of one character, to what they stand for
    code: unicodedata.normalize("NFKC", chr(code)).replace("\N{DIVISION SLASH}", "/")
    for code in (*range(0xFF01, 0xFF5F), *range(0xFFE0, 0xFFE7), *range(0x3380, 0x33E0), 0x2103, 0x2109)
} | dict.fromkeys(map(ord, "º˚"), "°")

_NUMBER = r"(?>[0-9]+(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9])|[0-9]+(?:\.[0-9]+)*|(?<![\w.])\.[0-9]+)"
_END = r"(?![^\W_])"
_DAY = r"(?:3[01]|[12][0-9]|0?[1-9])"
_TOKEN = re.compile(
    rf"""
    (?P<dotted> (?<![\w.]) [A-Za-z] (?:\.[A-Za-z])+ \.? {_END} )
  | (?P<date> (?P<one>{_DAY}) (?P<apart>[/.-]) (?P<two>{_DAY}) (?P=apart)
              (?P<end>[0-9]{{4}} | (?<=/)[0-9]{{2}}) {_END} (?!/) )
  | (?P<iso> (?P<year>[0-9]{{4}}) (?P<parted>[/.-]) (?P<month>1[0-2]|0?[1-9]) (?P=parted) (?P<day>{_DAY}) {_END} (?!/) )
  | (?P<ordinal> (?P<place>[0-9][0-9,]*) (?:st|nd|rd|th|ST|ND|RD|TH) {_END} )
  | (?P<decade> (?P<tens>[0-9]+) '?s {_END} )
  | (?P<numbered> [#№] [ ]? (?P<index>{_NUMBER}) {_END} )
  | (?P<minus> (?<![^\W_]) (?<![-.)\]%°$£€¥₩¢]) [-−] )?
    (?: (?P<money> (?P<currency>[$£€¥₩]) [ ]? (?P<amount>{_NUMBER}|\.[0-9]+) (?P<scale>[kK]|[mMbB]n?)? {_END} )
      | (?P<coins> (?P<many>{_NUMBER}) [ ]? (?P<coin>[¢€£₩$¥원] (?![0-9])) )
      | (?P<half_day> (?P<hour>[0-9]{{1,2}}) (?:[:.](?P<past>[0-9]{{2}}))? (?P<half>(?i:[ap]\.m\b\.?|[ap]m)) {_END} )
      | (?P<clock> (?P<hours>[0-9]{{1,2}}) (?: : | \.(?=[0-9]{{2}}[ ](?i:[ap]\.?m)\b) ) (?P<minutes>[0-9]{{2}}) {_END} )
      | (?P<fraction> (?P<above>[0-9]{{1,3}}) [/⁄] (?P<below>[0-9]{{1,3}}) {_END} (?![/⁄]) )
      | (?P<share> (?P<part>{_NUMBER}) [ ]? (?P<sign>%|°[ ]?C\b|°[ ]?F\b|°) )
      | (?P<measure> (?P<size>{_NUMBER}) (?P<unit>(?i:{units.UNIT})) {_END} )
      | (?P<number> (?P<digits>{_NUMBER}) {_END} )
    )
  | (?P<rate> (?<=[0-9][ ]) (?i:{units.RATE}) {_END} )
  | (?P<letters> {_NUMBER}? [^\W_]+ (?:'[^\W_]+)* '? )
  | (?P<symbol> (?<![^\s\w]) [&@+=×] (?![^\s\w]) )
    """,
    re.VERBOSE,
)
_RUNS = re.compile(rf"{_NUMBER}|[^\W\d_]+")
_SCALED = re.compile(r"\s+(?:hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_SCALES = {"hundred", "thousand", "million", "billion", "trillion"}
_SCALE_SIGNS = {"k": ("thousand",), "m": ("million",), "mn": ("million",), "b": ("billion",), "bn": ("billion",)}
_SIGNS = {"%": ("percent",), "°": ("degrees",), "°C": ("degrees", "celsius"), "°F": ("degrees", "fahrenheit")}
_SYMBOLS = {"&": ("and",), "@": ("at",), "+": ("plus",), "=": ("equals",), "×": ("times",)}
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
_SHORT_MONTHS = {name[:3]: name for name in spoken_numbers.MONTHS if name != "may"} | {"sept": "september"}
_MONTHS = {*spoken_numbers.MONTHS, *_SHORT_MONTHS}
_NEXT_MONTH = re.compile(rf"\s+(?:{'|'.join(sorted(name.title() for name in _MONTHS))})\b")
_ROMAN = re.compile(r"(?=[IVX])X{0,3}(?:IX|IV|V?I{0,3})")
_NUMBERED = {"war", "chapter", "part", "volume", "book", "act", "scene", "section", "phase", "type"}
_RANGED = {"money", "coins", "clock", "half_day", "share", "measure", "number"}
_LATIN: dict[str, Reading] = {"e.g": ("for", "example"), "i.e": ("that", "is")}
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

    A number is one word with all that belongs to it ("$3.50", "10:30", "50%", "5km", "2024-01-05"), and so is an
    abbreviation with full stops ("U.S."). Full-width letters, digits and signs are written as the usual ones.
    """
    text = unicodedata.normalize("NFC", text[:MAX_CHARACTERS]).translate(_INVISIBLE | _APOSTROPHES | _WIDE)
    found: list[ScriptWord] = []
    last: re.Match[str] | None = None
    for match in _TOKEN.finditer(text):
        readings = (_after(last, match) if last else []) or _read(match)
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


def _read(match: re.Match[str]) -> list[Reading]:
    readings = _READ[str(match.lastgroup)](match)
    return [(sign, *reading) for reading in readings for sign in ("minus", "negative")] if match["minus"] else readings


def _after(last: re.Match[str], match: re.Match[str]) -> list[Reading]:
    """Return the readings that a word has because of the word before it; none where that does not matter."""
    word, between = match[0], match.string[last.end() : match.start()]
    if last["currency"] and not last["scale"] and word.lower() in _SCALES:
        return [(word, spoken_numbers.money(last["currency"], amount)[0][-1]) for amount in ("2", "1")]
    if (last["digits"] or last["minutes"]) and between.isspace():
        unit = units.reading(word, last["digits"] or "")
        if unit:
            return [unit, (word,)] if word.isascii() and word.isalpha() else [unit]
    is_after_number = last.lastgroup in _RANGED or last[0][-1].isdigit()
    if match.lastgroup in _RANGED and is_after_number and between in ("-", "\N{EN DASH}"):
        plain = _read(match)
        return [*plain, *(("to", *reading) for reading in plain[:2])]
    if last[0].lower() in _MONTHS and match["digits"] and len(match["digits"]) <= _LONGEST_DAY:
        days = spoken_numbers.ordinal(match["digits"])
        return [*days, *(("the", *day) for day in days), *_number(match)]
    is_month = word.lower() in _SHORT_MONTHS and word[0].isupper() and (last["place"] or _is_day(last["digits"]))
    if between.isspace():
        return _month(word) if is_month else _roman(last, match)
    return []


def _is_day(digits: str | None) -> bool:
    return digits is not None and re.fullmatch(_DAY, digits) is not None


def _month(word: str) -> list[Reading]:
    return [(_SHORT_MONTHS[word.lower()],), (word,)]


def _roman(last: re.Match[str], match: re.Match[str]) -> list[Reading]:
    """Read "II" after a name, or "I" after "Chapter"."""
    word, before = match[0], last[0]
    is_numbered = before.lower() in _NUMBERED
    is_after_name = last["letters"] and before[0].isupper() and len(before) > 1
    if not (is_after_name and _ROMAN.fullmatch(word) and (is_numbered or len(word) > 1)):
        return []
    digits = spoken_numbers.roman(word)
    plain, rank = spoken_numbers.number(digits)[0], ("the", *spoken_numbers.ordinal(digits)[0])
    return [plain, rank, (word,)] if is_numbered else [rank, plain, (word,)]


def _letters(match: re.Match[str]) -> list[Reading]:
    word, rest = _word(match), match.string[match.end() :]
    plain: Reading = (word,)
    if rest.startswith(".") and word.lower() in _TITLES:
        return [_TITLES[word.lower()], plain]
    if word.lower() == "no" and re.match(r"\.\s?[0-9]", rest):
        return [("number",), plain]
    if word.lower() in _SHORT_MONTHS and re.match(r"\.?\s+[0-9]", rest):
        return _month(word)
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
    """Read letters and digits in one word: "A4", "MP3", "1.5B"."""
    readings: list[Reading] = [()]
    for run in _RUNS.findall(word):
        ways = [_named(run)] if run.isalpha() else spoken_numbers.number(run)[:2]
        readings = [(*reading, *way) for reading in readings for way in ways][:_MOST_OF_RUNS]
    return readings


def _named(run: str) -> Reading:
    """Read a few letters beside digits by their names, more as a word."""
    return tuple(f"{letter.lower()}." for letter in run) if len(run) <= _SPELLED else (run,)


def _dotted(match: re.Match[str]) -> list[Reading]:
    named = tuple(f"{letter.lower()}." for letter in match[0] if letter != ".")
    meant = _LATIN.get(match[0].lower().rstrip("."))
    return [named, meant] if meant else [named]


def _date(match: re.Match[str]) -> list[Reading]:
    """Read a date of digits; where two numbers may both be the month, either one."""
    if match["iso"]:
        return spoken_numbers.dates([(match["month"], match["day"])], match["year"])
    return spoken_numbers.dates([(match["one"], match["two"]), (match["two"], match["one"])], match["end"])


def _half_day(match: re.Match[str]) -> list[Reading]:
    hour, half = spoken_numbers.number(match["hour"])[0], (f"{match['half'][0].lower()}.", "m.")
    is_full = not (match["past"] or "").strip("0")
    times = [hour, (*hour, "o'clock")] if is_full else spoken_numbers.clock(match["hour"], match["past"])
    return [(*time, *half) for time in times]


def _money(match: re.Match[str]) -> list[Reading]:
    if _SCALED.match(match.string, match.end()):  # "$5 million": the currency is said after the scale
        return spoken_numbers.number(match["amount"])
    scale: Reading = _SCALE_SIGNS[match["scale"].lower()] if match["scale"] else ()
    return spoken_numbers.money(match["currency"], match["amount"], scale)


def _share(match: re.Match[str]) -> list[Reading]:
    first, *others = _SIGNS[re.sub(r"\s", "", match["sign"])]
    first = "degree" if first == "degrees" and match["part"] == "1" else first
    return [(*reading, first, *others) for reading in spoken_numbers.number(match["part"])]


def _measure(match: re.Match[str]) -> list[Reading]:
    unit = units.reading(match["unit"], match["size"])
    named = [_named(match["unit"])] if match["unit"].isalpha() else []
    sizes = spoken_numbers.number(match["size"])[:2]
    return [(*size, *way) for way in ([unit] if unit else []) + named for size in sizes]


def _number(match: re.Match[str]) -> list[Reading]:
    plain = spoken_numbers.number(match["digits"])
    if _is_day(match["digits"]) and _NEXT_MONTH.match(match.string, match.end()):
        day = spoken_numbers.ordinal(match["digits"])[0]
        return [("the", *day, "of"), day, ("the", *day), *plain]
    return plain


_READ: dict[str, Callable[[re.Match[str]], list[Reading]]] = {
    "letters": _letters,
    "dotted": _dotted,
    "date": _date,
    "iso": _date,
    "money": _money,
    "coins": lambda match: spoken_numbers.money(match["coin"], match["many"]),
    "half_day": _half_day,
    "clock": lambda match: spoken_numbers.clock(match["hours"], match["minutes"]),
    "fraction": lambda match: spoken_numbers.fraction(match["above"], match["below"]),
    "share": _share,
    "ordinal": lambda match: spoken_numbers.ordinal(match["place"]),
    "decade": lambda match: spoken_numbers.decade(match["tens"]),
    "numbered": lambda match: [("number", *reading) for reading in spoken_numbers.number(match["index"])],
    "measure": _measure,
    "number": _number,
    "rate": lambda match: [units.reading(match[0], "") or (match[0],)],
    "symbol": lambda match: [_SYMBOLS[match[0]]],
}
