"""Reads one file out of a multipart/form-data body (RFC 7578) while it is still arriving."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import parse_options_header

from contracts import problems
from gateway.web.problems import ProblemError

FIELD = "file"
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 128 * 1024
"""Room for a file name of 10,000 characters, each as an escape of several bytes."""
MAX_OTHER_FIELD_BYTES = 64 * 1024
"""The limit for all other form fields together; they are ignored."""
FRAMING_BYTES = 256 * 1024
"""How much larger than its file a form may be."""
IDLE_SECONDS = 30.0
"""How long a client may send nothing."""
LEAST_BYTES_PER_SECOND = 1024
"""The least average speed after IDLE_SECONDS: every upload holds one of few slots."""


def file_body(description: str) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that `file_form` reads."""
    file = {"type": "string", "format": "binary", "description": description}
    form = {"type": "object", "required": ["file"], "properties": {"file": file}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def file_form(request: Request, max_bytes: int) -> "FileForm":
    """Return the form that a request sends; ProblemError when its headers alone show that it cannot be taken in."""
    length = request.headers.get("content-length", "")
    # Too large even if the multipart framing took no bytes.
    if length.isdecimal() and int(length) > max_bytes + FRAMING_BYTES:
        raise ProblemError(problems.UPLOAD_TOO_LARGE, close=True)
    return FileForm(request.headers.get("content-type", ""), request.stream(), max_bytes)


class FileForm:
    """The file in a form. Iterate over `chunks` once; `filename` is final afterwards."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes], max_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data":
            raise ProblemError(problems.FILE_MISSING, close=True)
        if not boundary:
            raise ProblemError(problems.FORM_MALFORMED, close=True)
        self.filename: str | None = None
        self._body = body
        self._max_bytes = max_bytes
        self._parts = _Parts()
        try:
            self._parser = MultipartParser(
                boundary,
                self._parts.callbacks(),  # type: ignore[arg-type] # a TypedDict of the library's own
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER_BYTES,
            )
        except FormParserError:
            raise ProblemError(problems.FORM_MALFORMED, close=True) from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes as they arrive; ProblemError as soon as the form is known to be wrong."""
        received = around = 0
        started = time.monotonic()
        while chunk := await self._next_chunk():
            pieces = self._parse(chunk)
            # Everything but the file: headers, other fields, and what is before, between and after the parts.
            around += len(chunk) - sum(map(len, pieces))
            if around > FRAMING_BYTES:
                raise ProblemError(problems.FORM_MALFORMED, close=True)
            for piece in pieces:
                received += len(piece)
                if received > self._max_bytes:
                    raise ProblemError(problems.UPLOAD_TOO_LARGE, close=True)
                yield piece
            elapsed = time.monotonic() - started
            if elapsed > IDLE_SECONDS and received + around < elapsed * LEAST_BYTES_PER_SECOND:
                raise ProblemError(problems.UPLOAD_TOO_SLOW, close=True)
        self._check_complete(received)
        self.filename = self._parts.filename

    async def _next_chunk(self) -> bytes:
        """Return bytes, or none at the end of the body."""
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                # The server also passes on empty chunks, which do not end the body.
                while True:
                    chunk = await anext(self._body)
                    if chunk:
                        return chunk
        except StopAsyncIteration:
            return b""
        except TimeoutError:
            raise ProblemError(problems.UPLOAD_TOO_SLOW, close=True) from None

    def _parse(self, chunk: bytes) -> list[bytes]:
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise ProblemError(problems.FORM_MALFORMED, close=True) from None
        return self._parts.taken()

    def _check_complete(self, received: int) -> None:
        if not self._parts.ended:
            raise ProblemError(problems.FORM_MALFORMED, close=True)
        if not self._parts.has_file:
            raise ProblemError(problems.FILE_MISSING)
        if not received:
            raise ProblemError(problems.FILE_EMPTY)


class _Parts:
    """The parser's callbacks: they gather the pieces of the one file, and refuse a second file."""

    def __init__(self) -> None:
        self.has_file = False
        self.ended = False
        self.filename: str | None = None
        self._pieces: list[bytes] = []
        self._files = 0
        self._other_bytes = 0
        self._in_file = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""

    def callbacks(self) -> dict[str, object]:
        """Return the parser's callbacks."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }

    def taken(self) -> list[bytes]:
        """Return the pieces of the file since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def _on_part_begin(self) -> None:
        self._header_name = self._header_value = self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        is_file = b"filename" in options
        self._files += is_file
        if self._files > 1:
            raise ProblemError(problems.TOO_MANY_FILES, close=True)
        self._in_file = is_file and options.get(b"name") == FIELD.encode()
        if self._in_file:
            self.has_file = True
            self.filename = options[b"filename"].decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])
            return
        self._other_bytes += end - start
        if self._other_bytes > MAX_OTHER_FIELD_BYTES:
            raise ProblemError(problems.FILE_MISSING if self._files else problems.FORM_MALFORMED, close=True)

    def _on_end(self) -> None:
        self.ended = True
