"""Giving audio out: what the routes of a job's recording and of a token's reference audio share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from contracts import api, problems
from contracts.audio import extension
from contracts.problems import ProblemKind
from gateway.audio import AudioGoneError, StoredAudio
from gateway.storage import Bucket
from gateway.web.file_names import inline
from gateway.web.pace import sent_at_a_pace
from gateway.web.problems import ProblemError
from gateway.web.ranges import ByteRange, UnsatisfiableRangeError, requested_range
from gateway.web.slots import Slots

_BYTES = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}

Range = Annotated[str | None, Header(description="One range of bytes (RFC 9110); several are answered with the whole")]
IfRange = Annotated[str | None, Header(description="The `ETag` that a range is of; of any other one gets the whole")]

_REFUSALS = (problems.RANGE_NOT_SATISFIABLE, problems.TOO_MANY_AT_ONCE, problems.BUSY, problems.UNAVAILABLE)


@dataclass(frozen=True)
class Reader:
    """Who asks for audio: the client, the slots of which it needs one, and what it is told when the audio is gone."""

    slots: Slots
    client: str
    gone: ProblemKind


def audio_answers(*not_found: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of a route's answers; `not_found` are those of its own."""
    return {
        200: {"description": "All of it", "content": _BYTES},
        206: {"description": "The range that was asked for; `Content-Range` says which", "content": _BYTES},
        **api.problem_answers(*not_found, *_REFUSALS),
    }


async def audio_response(
    bucket: Bucket, reader: Reader, audio: StoredAudio, *, asked: str | None, if_range: str | None, name: str
) -> Response:
    """Return the answer to GET: the whole, or the range that the Range header asks for.

    Whoever saves it is offered `name`, with the extension of its media type.
    """
    part = _part(audio, asked, if_range)
    whole = ByteRange(0, audio.size_bytes - 1, audio.size_bytes)
    headers = _headers(audio, part or whole, name)
    async with AsyncExitStack() as opened:
        opened.enter_context(reader.slots.taken(reader.client))
        try:
            body = bucket.read(audio, (part or whole).first, (part or whole).last)
            chunks = await opened.enter_async_context(body)
        except AudioGoneError:
            raise ProblemError(reader.gone) from None
        held = opened.pop_all()
    if part is None:
        return _AudioResponse(chunks, held, 200, headers)
    return _AudioResponse(chunks, held, 206, {**headers, "Content-Range": part.content_range})


def audio_head(audio: StoredAudio, *, name: str) -> Response:
    """Return the answer to HEAD. Ranges are for GET alone (RFC 9110, section 14.2)."""
    return Response(headers=_headers(audio, ByteRange(0, audio.size_bytes - 1, audio.size_bytes), name))


class _AudioResponse(StreamingResponse):
    """Sends bytes from S3, and releases what it holds however the answer ends, even if it never begins."""

    def __init__(self, chunks: AsyncIterator[bytes], held: AsyncExitStack, code: int, headers: dict[str, str]) -> None:
        super().__init__(chunks, code, headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await sent_at_a_pace(super().__call__, scope, receive, send)


def _part(audio: StoredAudio, asked: str | None, if_range: str | None) -> ByteRange | None:
    try:
        return requested_range(asked, if_range, audio.etag, audio.size_bytes)
    except UnsatisfiableRangeError:
        headers = {"Content-Range": f"bytes */{audio.size_bytes}"}
        raise ProblemError(problems.RANGE_NOT_SATISFIABLE, headers=headers) from None


def _headers(audio: StoredAudio, part: ByteRange, name: str) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": inline(name, extension(audio.content_type)),
        "Content-Length": str(part.length),
        "Content-Type": audio.content_type,
        "ETag": audio.etag,
    }
