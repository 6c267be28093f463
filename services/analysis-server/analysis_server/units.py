"""How a unit after a number is said."""

import re

from analysis_server.spoken_numbers import Reading

_NAMES = {
    "km": "kilometer",
    "cm": "centimeter",
    "mm": "millimeter",
    "m": "meter",
    "ft": "foot",
    "kg": "kilogram",
    "mg": "milligram",
    "g": "gram",
    "lb": "pound",
    "lbs": "pound",
    "oz": "ounce",
    "l": "liter",
    "ml": "milliliter",
    "mph": "mile per hour",
    "kmh": "kilometer per hour",
    "h": "hour",
    "hr": "hour",
    "hrs": "hour",
    "min": "minute",
    "mins": "minute",
    "sec": "second",
    "secs": "second",
    "gb": "gigabyte",
    "mb": "megabyte",
}
_UNCOUNTED: dict[str, Reading] = {"k": ("thousand",), "x": ("times",), "am": ("a.", "m."), "pm": ("p.", "m.")}
_TIMES = {"h": "hour", "hr": "hour", "min": "minute", "s": "second", "sec": "second"}
_POWERS = {"²": "square", "2": "square", "³": "cubic", "3": "cubic"}

_NAME = rf"(?:{'|'.join(_NAMES)})(?:(?<=m)[²³23])?"
RATE = rf"(?:{_NAME}/(?:{'|'.join(_TIMES)}))"
"""A pattern of "km/h"; without regard to case, as the next one."""
UNIT = rf"(?:{RATE}|{_NAME}|{'|'.join(_UNCOUNTED)})"
"""A pattern of any unit: "km", "m²", "km/h"."""


def reading(unit: str, amount: str) -> Reading | None:
    """Read a unit after an amount in digits: "kilometer" after "1", else "kilometers"; None of what is no unit."""
    lower = unit.lower()
    if lower in _UNCOUNTED:
        return _UNCOUNTED[lower]
    if not re.fullmatch(UNIT, lower):
        return None
    name, _, time = lower.partition("/")
    stem = name.rstrip("²³23")
    first, *others = _NAMES[stem].split()
    power = [_POWERS[name[-1]]] if name != stem else []
    per = ["per", _TIMES[time]] if time else []
    return (*power, first if amount == "1" else _plural(first), *others, *per)


def _plural(name: str) -> str:
    return "feet" if name == "foot" else f"{name}s"
