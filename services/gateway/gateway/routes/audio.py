"""The routes that give audio out, and that of a job's recording."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from contracts import api, problems
from contracts.problems import ProblemKind
from gateway.availability import Availability
from gateway.errors import AudioGoneError, ProblemError
from gateway.ranges import ByteRange, UnsatisfiableRangeError, requested_range
from gateway.routes.addresses import JobId, canonical
from gateway.routes.places import Places
from gateway.storage import Storage
from gateway.store import Jobs
from gateway.submissions import StoredAudio

_BYTES = {"audio/*": {"schema": {"type": "string", "format": "binary"}}}

Range = Annotated[str | None, Header(description="One range of bytes (RFC 9110); several are answered with the whole")]
IfRange = Annotated[str | None, Header(description="The `ETag` that a range is of; of any other one gets the whole")]


class Audio(StreamingResponse):
    """Bytes from S3; what is `held` for them is given back however the answer ends, and if it never begins."""

    def __init__(self, chunks: AsyncIterator[bytes], held: AsyncExitStack, code: int, headers: dict[str, str]) -> None:
        super().__init__(chunks, code, headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, and give back."""
        async with self._held:
            await super().__call__(scope, receive, send)


def audio_routes(jobs: Jobs, storage: Storage, back_ends: Availability, places: Places) -> APIRouter:
    """Return the routes of a job's recording."""

    async def found(job_id: JobId) -> StoredAudio:
        job_id = canonical(job_id)
        await back_ends.require("S3", "MongoDB")
        if await jobs.find(job_id) is None:
            raise ProblemError(problems.JOB_NOT_FOUND)
        audio = await storage.find_audio(job_id)
        if audio is None:
            raise ProblemError(problems.AUDIO_NOT_FOUND)
        return audio

    kind = Kind(
        "job_audio",
        api.JOBS_PATH + "/{job_id}/audio",
        "a job's recording",
        problems.JOB_NOT_FOUND,
        problems.AUDIO_NOT_FOUND,
    )
    router = APIRouter(tags=["jobs"])
    add_routes(router, kind, found, storage, places)
    return router


@dataclass(frozen=True)
class Kind:
    """A kind of audio that is given out: its route's name, its address, and what its absence is called."""

    name: str
    path: str
    what: str
    unknown: ProblemKind
    gone: ProblemKind


def add_routes(
    router: APIRouter, kind: Kind, found: Callable[..., Awaitable[StoredAudio]], storage: Storage, places: Places
) -> None:
    """Add the routes that give audio out; `found` is a dependency that reads which from the address."""
    Found = Annotated[StoredAudio, Depends(found)]  # noqa: N806 - a type

    @router.get(
        kind.path,
        name=kind.name,
        response_class=Response,
        summary=f"Read {kind.what}",
        responses={
            200: {"description": "All of it", "content": _BYTES},
            206: {"description": "The range that was asked for; `Content-Range` says which", "content": _BYTES},
            **api.problem_answers(
                kind.unknown, kind.gone, problems.RANGE_NOT_SATISFIABLE, problems.BUSY, problems.UNAVAILABLE
            ),
        },
    )
    async def read(
        audio: Found,
        range: Range = None,  # noqa: A002 - the header's name
        if_range: IfRange = None,
    ) -> Response:
        """Return the audio as it was sent, or a range of it; HEAD says how large it is."""
        part = _part(audio, range, if_range)
        whole = ByteRange(0, audio.size_bytes - 1, audio.size_bytes)
        headers = _headers(audio, part or whole)
        async with AsyncExitStack() as opened:
            opened.enter_context(places.taken())
            try:
                chunks = await opened.enter_async_context(storage.read(audio, (part or whole).asked))
            except AudioGoneError:
                raise ProblemError(kind.gone) from None
            held = opened.pop_all()
        if part is None:
            return Audio(chunks, held, 200, headers)
        return Audio(chunks, held, 206, {**headers, "Content-Range": part.content_range})

    # Ranges are for GET alone (RFC 9110, section 14.2).
    @router.head(kind.path, include_in_schema=False)
    async def head(audio: Found) -> Response:
        return Response(headers=_headers(audio, ByteRange(0, audio.size_bytes - 1, audio.size_bytes)))


def _part(audio: StoredAudio, asked: str | None, if_range: str | None) -> ByteRange | None:
    try:
        return requested_range(asked, if_range, audio.etag, audio.size_bytes)
    except UnsatisfiableRangeError:
        headers = {"Content-Range": f"bytes */{audio.size_bytes}"}
        raise ProblemError(problems.RANGE_NOT_SATISFIABLE, headers=headers) from None


def _headers(audio: StoredAudio, part: ByteRange) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Length": str(part.length),
        "Content-Type": audio.content_type,
        "ETag": audio.etag,
        # Users sent these bytes: no browser shall take them for a page of ours.
        "X-Content-Type-Options": "nosniff",
    }
