"""The two ways to send a file: in a form, or as the whole body of a request with an audio media type."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request

from contracts import problems
from contracts.events import JsonObject
from gateway.audio import ArrivingFile
from gateway.web.dispositions import parameter
from gateway.web.forms import FRAMING_BYTES, METADATA_FIELD, FileForm, metadata_of
from gateway.web.pace import paced
from gateway.web.problems import ProblemError

_FILE_TYPES = ("audio/", "video/", "application/ogg", "application/octet-stream")
"""How the media type of a body that is a file begins. Recorders name containers after video, even without any."""


def file_body(description: str, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that `arriving_file` reads, and of the form's other fields."""
    file = {"type": "string", "format": "binary", "description": description}
    form = {"type": "object", "required": ["file"], "properties": {"file": file, **(others or {})}}
    content = {"multipart/form-data": {"schema": form}, "audio/*": {"schema": file}}
    return {"requestBody": {"required": True, "content": content}}


def arriving_file(request: Request, max_bytes: int, *, reads_metadata: bool) -> ArrivingFile:
    """Return the file that a request sends; ProblemError when its headers alone show that it cannot be taken in.

    Unless `reads_metadata`, whatever is called so is ignored.
    """
    content_type = request.headers.get("content-type", "")
    is_file = content_type.strip().lower().startswith(_FILE_TYPES)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > (max_bytes if is_file else _most_form_bytes(max_bytes)):
        raise ProblemError(problems.UPLOAD_TOO_LARGE, close=True)
    refuse_compressed(request)
    metadata = _metadata_asked(request) if reads_metadata else None
    if is_file:
        return FileBody(request.headers.get("content-disposition", ""), request.stream(), max_bytes, metadata)
    return FileForm(content_type, request.stream(), max_bytes, metadata, reads_metadata=reads_metadata)


def _most_form_bytes(max_bytes: int) -> int:
    """Return how long a form with such a file may be: in base64, in lines of 60 characters or more."""
    return max_bytes * 4 // 3 * 31 // 30 + FRAMING_BYTES


def _metadata_asked(request: Request) -> JsonObject | None:
    metadata: JsonObject | None = None
    for text in request.query_params.getlist(METADATA_FIELD):
        metadata = metadata_of(text.encode("utf-8", "replace"), metadata)
    return metadata


def refuse_compressed(request: Request) -> None:
    """Raise ProblemError when the body is in an encoding: nothing here would bound what it unpacks to."""
    if request.headers.get("content-encoding", "").strip().lower() not in {"", "identity"}:
        raise ProblemError(problems.ENCODING_UNSUPPORTED, close=True, headers={"Accept-Encoding": "identity"})


class FileBody:
    """A body that is a file; `Content-Disposition: attachment; filename="…"` may name it."""

    def __init__(
        self, disposition: str, body: AsyncIterator[bytes], max_bytes: int, metadata: JsonObject | None = None
    ) -> None:
        self.filename = parameter(disposition, "filename")
        self.metadata = metadata
        self._body = body
        self._max_bytes = max_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes as they arrive; ProblemError when there are none, or too many."""
        received = 0
        async for chunk in paced(self._body):
            received += len(chunk)
            if received > self._max_bytes:
                raise ProblemError(problems.UPLOAD_TOO_LARGE, close=True)
            yield chunk
        if not received:
            raise ProblemError(problems.FILE_EMPTY)
