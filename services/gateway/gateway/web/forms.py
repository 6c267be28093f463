"""Reads one file out of a multipart/form-data body (RFC 7578) while it is still arriving."""

import base64
import binascii
from collections.abc import AsyncIterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from contracts import problems
from contracts.events import JsonObject
from contracts.metadata import MAX_BYTES, parsed
from gateway.web.dispositions import parameter, parameters
from gateway.web.pace import paced
from gateway.web.problems import ProblemError

FIELD = "file"
METADATA_FIELD = "metadata"
MAX_BOUNDARY_CHARACTERS = 256
MAX_PREAMBLE_BYTES = 1024
"""How much may come before the first boundary (RFC 2046, section 5.1.1): mail programs write a line there."""
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 128 * 1024
"""Room for a file name of 10,000 characters, each as an escape of several bytes."""
MAX_OTHER_FIELD_BYTES = 1024 * 1024
"""The limit for all other form fields together; they are ignored, whatever they are."""
FRAMING_BYTES = MAX_OTHER_FIELD_BYTES + 256 * 1024
"""How much larger than its file a form may be."""
_AS_IT_IS = {"", "7bit", "8bit", "binary", "identity"}


class FileForm:
    """The file in a form: the one part named `file` that has content. Other parts are no recordings, whatever they are.

    Iterate over `chunks` once; `filename` and `metadata` are final afterwards. The argument `metadata` is what came
    otherwise. Unless `reads_metadata`, a part of this name is like any other.
    """

    def __init__(
        self,
        content_type: str,
        body: AsyncIterator[bytes],
        max_bytes: int,
        metadata: JsonObject | None = None,
        *,
        reads_metadata: bool = True,
    ) -> None:
        if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
            raise ProblemError(problems.FILE_MISSING, close=True)
        boundary = parameters(content_type).get("boundary", "")
        if not 0 < len(boundary) <= MAX_BOUNDARY_CHARACTERS:
            raise _malformed()
        self.filename: str | None = None
        self.metadata = metadata
        self._body = body
        self._max_bytes = max_bytes
        self._parts = _Parts(boundary, metadata, {FIELD, METADATA_FIELD} if reads_metadata else {FIELD})

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes as they arrive; ProblemError as soon as the form is known to be wrong."""
        arrived = received = 0
        async for chunk in paced(self._body):
            arrived += len(chunk)
            pieces = self._parts.read(chunk)
            # Everything but the file: headers, other fields, and what is before, between and after the parts.
            if arrived - self._parts.file_bytes > FRAMING_BYTES:
                raise _malformed()
            for piece in pieces:
                received += len(piece)
                if received > self._max_bytes:
                    raise ProblemError(problems.UPLOAD_TOO_LARGE, close=True)
                yield piece
        self._parts.end()
        self.filename = self._parts.filename
        self.metadata = self._parts.metadata


class _Parts:
    """Tells the parts of a form apart."""

    def __init__(self, boundary: str, metadata: JsonObject | None, read: set[str]) -> None:
        self.filename: str | None = None
        self.metadata = metadata
        self._read = read
        self.file_bytes = 0
        """How many bytes of the body were the file's, as they were sent."""
        self._boundary = boundary.encode("latin-1", "replace")
        self._preamble: bytes | None = b""
        self._other_bytes = 0
        self._metadata_text = b""
        self._part = _Part([], read)
        self._named: _Part | None = None
        self._file: _Part | None = None
        try:
            self._parser = _Parser(
                self._boundary,
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER_BYTES,
                header_charset="latin-1",
            )
        except MultipartError:
            raise _malformed() from None

    def read(self, chunk: bytes) -> list[bytes]:
        """Return the pieces of the file that `chunk` ends or has."""
        self._check_preamble(chunk)
        pieces: list[bytes] = []
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    self._part = _Part(event.headerlist, self._read)
                    if self._part.name == FIELD:
                        self._named = self._part
                else:
                    pieces.append(self._taken(event))
        except (MultipartError, binascii.Error):
            raise _malformed() from None
        return [piece for piece in pieces if piece]

    def end(self) -> None:
        """Check that the form is whole, and has a file."""
        try:
            self._parser.close()
        except MultipartError:
            raise _malformed() from None
        if self._file is None:
            raise ProblemError(problems.FILE_MISSING if self._named is None else problems.FILE_EMPTY)

    def _check_preamble(self, chunk: bytes) -> None:
        if self._preamble is None:
            return
        self._preamble += chunk
        begins = self._preamble.find(self._boundary)
        if max(begins, len(self._preamble) - len(self._boundary) if begins < 0 else 0) > MAX_PREAMBLE_BYTES:
            raise _malformed()
        if begins >= 0:
            self._preamble = None

    def _taken(self, sent: bytes | None) -> bytes:
        """Return what these bytes of a part are of the file; None is the part's end."""
        if self._part.name not in self._read:
            self._pass_over(len(sent or b""))
            return b""
        content = self._part.end() if sent is None else self._part.decoded(sent)
        if self._part.name == METADATA_FIELD:
            self._add_metadata(content, ends=sent is None)
            return b""
        self.file_bytes += len(sent or b"")
        if content:
            if self._file not in {None, self._part}:
                raise ProblemError(problems.TOO_MANY_FILES, close=True)
            self._file = self._part
            self.filename = self._part.filename
        return content

    def _add_metadata(self, content: bytes, *, ends: bool) -> None:
        self._metadata_text += content
        if ends:
            self.metadata = metadata_of(self._metadata_text, self.metadata)
            self._metadata_text = b""
        elif len(self._metadata_text) > MAX_BYTES:
            raise ProblemError(problems.METADATA_INVALID, close=True)

    def _pass_over(self, size: int) -> None:
        self._other_bytes += size
        if self._other_bytes > MAX_OTHER_FIELD_BYTES:
            raise _malformed()


class _Part:
    """One part: its names, and how its content is encoded."""

    def __init__(self, headers: list[tuple[str, str]], read: set[str]) -> None:
        by_name = {name.lower(): value for name, value in headers}
        disposition = by_name.get("content-disposition", "")
        self.name = parameter(disposition, "name")
        self.filename = parameter(disposition, "filename")
        encoding = by_name.get("content-transfer-encoding", "").strip().lower()
        compression = by_name.get("content-encoding", "").strip().lower()
        self._is_base64 = encoding == "base64"
        # RFC 7578 forbids encodings; what Python's email package writes is in base64.
        if self.name in read and not {encoding, compression} <= _AS_IT_IS | {"base64" if self._is_base64 else ""}:
            raise ProblemError(problems.ENCODING_UNSUPPORTED, close=True)
        self._left = b""

    def decoded(self, sent: bytes) -> bytes:
        """Return the bytes that were meant; binascii.Error when they are not base64, although the part says so."""
        if not self._is_base64:
            return sent
        text = self._left + sent.translate(None, b" \t\r\n")
        whole = len(text) - len(text) % 4
        self._left = text[whole:]
        return base64.b64decode(text[:whole], validate=True)

    def end(self) -> bytes:
        """Return what was left of a part whose base64 is not padded."""
        left, self._left = self._left, b""
        return base64.b64decode(left + b"=" * (-len(left) % 4), validate=True)


class _Parser(PushMultipartParser):  # type: ignore[misc] # the library ships no types
    """Also reads parts that are of no use: without a Content-Disposition, or with another one than form-data."""

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> MultipartSegment:
        # A part's own Content-Length must be ignored (RFC 7578, section 4.8), so it is no limit.
        self._segment_limit = -1
        return MultipartSegment(headerlist)


def metadata_of(text: bytes, before: JsonObject | None = None) -> JsonObject | None:
    """Return a recording's metadata, `before` for nothing; ProblemError if it cannot be kept, or some was `before`."""
    if not text.strip():
        return before
    if before is not None:
        raise ProblemError(problems.METADATA_INVALID, close=True)
    try:
        return parsed(text)
    except ValueError:
        raise ProblemError(problems.METADATA_INVALID, close=True) from None


def _malformed() -> ProblemError:
    return ProblemError(problems.FORM_MALFORMED, close=True)
