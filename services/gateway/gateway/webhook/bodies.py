"""How a call's body comes: read and unpacked up to a bound, then as a JSON object, whole or only its beginning."""

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from contracts import json_text
from contracts.events import JsonObject
from contracts.json_text import UnreadableError

GZIP_MAGIC = b"\x1f\x8b"
_AUTO, _RAW = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
"""Kinds of compressed data: gzip or zlib, as its header says; and without a header."""
MOST_MEMBERS = 100
"""Gzip files in a row that are read as one; each costs a copy of what follows it."""


class UnsupportedEncodingError(ValueError):
    """The body's Content-Encoding is none that is known."""


@dataclass(frozen=True)
class Body:
    """A JSON object; unless it is `whole`, it was larger than the bound, and this is what its beginning has."""

    content: JsonObject
    whole: bool


async def read_body(chunks: AsyncIterator[bytes], encoding: str, bound: int) -> tuple[bytes, str]:
    """Return a body's bytes as they came, and their packing; a little more than `bound` of a larger one.

    UnsupportedEncodingError.
    """
    packing = _packing(encoding)
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > bound:
            break
    return bytes(content), packing


def parsed(content: bytes, packing: str, bound: int) -> Body:
    """Return the body that these bytes are; UnreadableError with what is wrong."""
    whole = len(content) <= bound
    unpacked = _unpacked(content, packing, bound, whole=whole)
    whole = whole and len(unpacked) <= bound
    text = json_text.decoded(unpacked, whole=whole)
    return Body(json_text.read_object(text) if whole else json_text.read_beginning(text), whole)


def _packing(encoding: str) -> str:
    """Return what a Content-Encoding header says, of several layers none of which changes the body."""
    layers = [layer for name in encoding.lower().split(",") if (layer := name.strip()) not in {"", "identity", "none"}]
    packing = layers[0].removeprefix("x-") if layers else ""
    if len(layers) > 1 or packing not in {"", "gzip", "deflate"}:
        raise UnsupportedEncodingError
    return packing


def _unpacked(content: bytes, packing: str, bound: int, *, whole: bool) -> bytes:
    """Return the body unpacked, not much further than `bound`.

    The bytes are believed rather than the header: proxies unpack without a word, and libraries pack without one.
    """
    if not content.startswith(GZIP_MAGIC) and (packing != "deflate" or _is_plain(content)):
        return content
    for bits in (_AUTO, _RAW):
        try:
            return _inflated(content, bits, bound, whole=whole)
        except zlib.error:
            continue
    raise UnreadableError("damaged")


def _is_plain(content: bytes) -> bool:
    return content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _inflated(content: bytes, bits: int, bound: int, *, whole: bool) -> bytes:
    """Inflate one member after another, as gzip allows (RFC 1952, section 2.2); zlib.error when it ends too early."""
    unpacked = b""
    for _ in range(MOST_MEMBERS):
        inflating = zlib.decompressobj(bits)
        unpacked += inflating.decompress(content, bound + 1 - len(unpacked))
        content = inflating.unused_data
        if len(unpacked) > bound:
            return unpacked
        if not inflating.eof and whole:
            raise zlib.error
        if not content.startswith(GZIP_MAGIC):
            return unpacked
    raise zlib.error
