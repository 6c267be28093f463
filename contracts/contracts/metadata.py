"""The metadata of a recording: which JSON objects are taken, and the terms by which their jobs are found."""

import hashlib
import json
import math
from collections.abc import Iterator
from itertools import islice

from pydantic import JsonValue
from pydantic_core import from_json

from contracts.events import JsonObject

MAX_BYTES = 4096
MAX_TERMS = 64
"""The values by which a job is found, each a line of an index; those beyond it, in the order sent, find nothing."""
MAX_DEPTH = 16
"""How deep objects and arrays may be in one another: every reader of JSON can follow."""
TERM_CHARACTERS = 32
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parsed(text: bytes) -> JsonObject:
    """Return the metadata; ValueError when it is no JSON object (RFC 8259) of MAX_BYTES and MAX_DEPTH at most.

    A name that is there twice counts as its last. NaN, infinite numbers and lone surrogates are refused.
    """
    if len(text) > MAX_BYTES:
        raise ValueError("too large")
    metadata = from_json(text.removeprefix(_BYTE_ORDER_MARK), allow_inf_nan=False)
    if not isinstance(metadata, dict):
        raise ValueError("no object")  # noqa: TRY004 - whoever parses expects one kind of error
    _check(metadata, MAX_DEPTH)
    return metadata


def terms(metadata: JsonObject) -> list[str]:
    """Return what a job with this metadata is found by: each key at the top with its value, or with those in its list.

    The first MAX_TERMS count.

    Numbers and texts that are written alike are the same, as are 7 and 7.0: an address cannot tell them apart.
    """
    asked = ((key, _text(value)) for key, values in metadata.items() for value in _plain_values(values))
    return sorted(_term(key, text) for key, text in islice(dict.fromkeys(asked), MAX_TERMS))


def terms_asked(key: str, text: str) -> list[str]:
    """Return the terms of which a job has one if its metadata has `key` with the value that `text` stands for."""
    texts = {text}
    try:
        value = from_json(text, allow_inf_nan=False)
        if isinstance(value, int | float) and math.isfinite(value):
            texts.add(_text(value))
    except (ValueError, OverflowError):
        pass  # it is no number
    return sorted(_term(key, one) for one in texts)


def _check(value: JsonValue, depth: int) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("no finite number")
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("too deep")
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, depth - 1)


def _plain_values(value: JsonValue) -> Iterator[str | float | bool | None]:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict | list):
            yield one


def _term(key: str, text: str) -> str:
    """Return a digest: as text, terms would repeat their key, and come to many times the metadata."""
    return hashlib.sha256(json.dumps([key, text]).encode()).hexdigest()[:TERM_CHARACTERS]


def _text(value: str | float | bool | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
