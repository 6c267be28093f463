"""How numbers in a text are said: every function returns the usual ways, likeliest first, each as lower-case words."""

from collections.abc import Iterable, Iterator

from num2words import num2words

Reading = tuple[str, ...]

_LONGEST = 15  # digits; nobody says a longer number other than digit by digit
_MOST = 5  # readings of one number: each more is one more that may be found by chance
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_EARLIEST_YEAR, _LATEST_YEAR = 1100, 2099
_CENTURIES = ("20", "19")
_TURN = 69  # two digits of a year from which it is of the last century, as in POSIX's strptime
MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"),
    "december",
)
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¢": ("cent", "cents", "", ""),
    "¥": ("yen", "yen", "", ""),
    "₩": ("won", "won", "", ""),
    "원": ("won", "won", "", ""),
}
_FRACTIONS = {"2": ("half", "halves"), "4": ("quarter", "quarters")}


def number(text: str) -> list[Reading]:
    """Read a number of digits, with commas and points: "1984", "20,000", "3.5", ".5", "1.2.3", "007"."""
    whole, *parts = text.split(".")
    if parts:
        decimals = [word for part in parts for word in ("point", *_digit_by_digit(part))]
        wholes = _cardinals(whole.replace(",", "") or "0")
        with_whole = [(*reading, *decimals) for reading in wholes]
        without = [tuple(decimals)] if whole in ("0", "") else []
        return _few(with_whole + without if whole else without + with_whole)
    if "," in whole:
        return _few(_cardinals(whole.replace(",", "")))
    return _few(_plain(whole))


def year(text: str) -> Reading:
    """Read four digits in two pairs: "nineteen eighty four"."""
    return _words(num2words(int(text), to="year"))


def ordinal(text: str) -> list[Reading]:
    """Read "1", "22" or "1,000" as the first, the twenty second, the thousandth."""
    digits = text.replace(",", "")
    if len(digits) > _LONGEST:
        return [_digit_by_digit(digits)]
    reading = _words(num2words(int(digits), to="ordinal"))
    return _few([_without_and(reading), reading])


def decade(text: str) -> list[Reading]:
    """Read the digits of "1990s", "90s" or "100s"."""
    is_year = len(text) == len("1990") and text[-1] == "0"
    *before, last = year(text) if is_year else number(text)[0]
    return [(*before, last[:-1] + "ies" if last.endswith("y") else last + ("es" if last.endswith("x") else "s"))]


def money(symbol: str, amount: str, scale: Reading = ()) -> list[Reading]:
    """Read an amount of a currency; with a scale ("million"), the currency comes after it."""
    one, many, cent, cents = _CURRENCIES[symbol]
    whole, _, part = amount.replace(",", "").partition(".")
    if scale or (part and not (cent and len(part) == len("50"))):
        return _few((*reading, *scale, many) for reading in number(amount))
    wholes = [(*reading, one if whole.lstrip("0") == "1" else many) for reading in _cardinals(whole or "0")]
    if not part.strip("0"):
        return _few(wholes)
    small = _cardinals(part.lstrip("0"))[0]
    named = (*small, cent if int(part) == 1 else cents)
    if not whole.strip("0"):
        return [named]
    said = ("oh", *small) if part[0] == "0" else small
    return _few([(*wholes[0], "and", *named), (*wholes[0], *named), (*wholes[0], *said), (*wholes[0][:-1], *said)])


def clock(hours: str, minutes: str) -> list[Reading]:
    """Read "10:30", "10:05" or "10:00"; also what else has a colon between numbers, such as a score."""
    hour = _cardinals(hours)[0]
    if minutes == "00":
        return [(*hour, "o'clock"), hour, (*hour, "hundred")]
    minute = _cardinals(minutes)[0]
    return (
        [(*hour, "oh", *minute), (*hour, *minute)] if minutes[0] == "0" else [(*hour, *minute), (*hour, "to", *minute)]
    )


def dates(orders: Iterable[tuple[str, str]], year_digits: str) -> list[Reading]:
    """Read a date of which month and day are the first or the second of `orders`, and the year has two or four digits.

    A pair whose first number is no month is passed over; without any other, three numbers are read.
    """
    orders = list(dict.fromkeys(orders))
    known = [(MONTHS[int(month) - 1], ordinal(day)[0]) for month, day in orders if int(month) <= len(MONTHS)]
    if len(year_digits) == len("24"):
        year_digits = _CENTURIES[int(year_digits) >= _TURN] + year_digits
    said, *others = _of_four(year_digits) if year_digits[0] != "0" else [_digit_by_digit(year_digits)]
    usual = [way for month, day in known for way in ((month, *day, *said), ("the", *day, "of", month, *said))]
    more = [way for month, day in known for way in ((month, "the", *day, *said), *((month, *day, *o) for o in others))]
    return _few(usual + more) or [(*_cardinals(orders[0][0])[0], *_cardinals(orders[0][1])[0], *said)]


def roman(numeral: str) -> str:
    """Return in digits what a Roman numeral of I, V and X stands for."""
    values = [{"I": 1, "V": 5, "X": 10}[sign] for sign in numeral]
    return str(sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True)))


def fraction(above: str, below: str) -> list[Reading]:
    """Read "1/2", "3/4" or "9/11"."""
    upper, lower = _cardinals(above)[0], _cardinals(below)[0]
    one, many = _FRACTIONS.get(below, (_ordinal_name(below), _ordinal_name(below) + "s"))
    part = (*upper, *(one if int(above) == 1 else many).split())
    short = ("a", *part[1:]) if int(above) == 1 else part
    return _few([part, short, (*upper, *lower), (*upper, "over", *lower), (*upper, "slash", *lower)])


def _ordinal_name(digits: str) -> str:
    return " ".join(ordinal(digits)[0])


def _plain(digits: str) -> Iterator[Reading]:
    """Read digits without a comma: a year where it may be one, digit by digit where that is usual."""
    if digits[0] == "0" and len(digits) > 1:
        yield from _spelled(digits)
        return
    if len(digits) == len("1984"):
        yield from _of_four(digits)
    else:
        yield from _cardinals(digits)
    if len(digits) == len("911"):
        yield (*_cardinals(digits[0])[0], *_two(digits[1:]))
    if len(digits) >= len("911"):
        yield _digit_by_digit(digits)
    if digits == "0":
        yield ("oh",)


def _of_four(digits: str) -> Iterator[Reading]:
    if _EARLIEST_YEAR <= int(digits) <= _LATEST_YEAR:
        yield year(digits)
        yield (*_cardinals(digits[:2])[0], *_two(digits[2:]))
        yield from _cardinals(digits)
    else:
        yield from _cardinals(digits)
        yield (*_cardinals(digits[:2])[0], *_two(digits[2:]))


def _two(digits: str) -> Reading:
    """Read the second half of a number that is said in two: "hundred", "oh five", "eighty four"."""
    if digits == "00":
        return ("hundred",)
    return (*(("oh",) if digits[0] == "0" else ()), *_cardinals(digits.lstrip("0"))[0])


def _cardinals(digits: str) -> list[Reading]:
    """Read a whole number, without and with "and"; "a hundred" beside "one hundred"."""
    if len(digits) > _LONGEST:
        return [_digit_by_digit(digits)]
    reading = _words(num2words(int(digits)))
    readings = [_without_and(reading), reading]
    is_round = reading[0] == "one" and len(reading) == len(("one", "hundred"))
    return _few([*readings, *(("a", *one[1:]) for one in readings if is_round)])


def _spelled(digits: str) -> list[Reading]:
    named = _digit_by_digit(digits)
    said = tuple("oh" if word == "zero" else word for word in named)
    double = ("double", "oh", *said[2:]) if digits.startswith("00") else said
    return [named, said, double]


def _digit_by_digit(digits: str) -> Reading:
    return tuple(_DIGITS[int(digit)] for digit in digits)


def _words(said: str) -> Reading:
    return tuple(said.replace("-", " ").replace(",", "").split())


def _without_and(reading: Reading) -> Reading:
    return tuple(word for word in reading if word != "and")


def _few(readings: Iterable[Reading]) -> list[Reading]:
    return list(dict.fromkeys(readings))[:_MOST]
