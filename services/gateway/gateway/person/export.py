"""All that is kept of a person's jobs as one ZIP, which is made while it is sent."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol
from zipfile import ZipFile, ZipInfo

from contracts import api
from contracts.failures import Language
from contracts.job import Job, progressed
from gateway.audio import AudioGoneError, StoredAudio
from gateway.jobs.listing import Cursor
from gateway.person.documents import OwnedJobs

JOBS_PER_PAGE = 10
"""How many jobs are in memory at once; each may have a result as large as MAX_RESULT_BYTES."""
_READABLE = 0o600 << 16
"""Unix permissions, where ZIP has them; without any, the files that come out could not be read."""


class AudioStore(Protocol):
    """Where recordings are read from."""

    async def find_audio(self, job_id: str) -> StoredAudio | None:
        """Return the recording that is kept for a job, None when there is none."""

    def read(self, audio: StoredAudio, first: int, last: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a range of audio; AudioGoneError when it is gone."""


async def exported(jobs: OwnedJobs, store: AudioStore, owner: str, language: Language) -> AsyncGenerator[bytes, None]:
    """Yield the archive: `jobs.json`, `results/<job_id>.json`, and `audio/<job_id>.<extension>`.

    What was removed while this went on is named in `missing.json`. Of each job there are only some hundred bytes in
    memory; recordings and results are passed on as they are read, and not compressed.
    """
    sink, listed, missing = _Sink(), set[str](), []
    with ZipFile(sink, "w") as archive:  # type: ignore[call-overload] # which wants tell(); ZipFile itself does not
        with archive.open(_member("jobs.json"), "w") as listing:
            listing.write(b'{"jobs":[')
            async for job in _each(jobs, owner):
                listing.write((b",\n" if listed else b"\n") + _described(job, language))
                listed.add(job.job_id)
                yield sink.taken()
            listing.write(b"\n]}\n")
        async for job in _each(jobs, owner):
            if job.job_id not in listed:
                continue  # it came meanwhile
            listed.discard(job.job_id)
            if job.result_json is not None:
                archive.writestr(_member(f"results/{job.job_id}.json", job.created_at), job.result_json)
                yield sink.taken()
            try:
                async with _opened(store, job.job_id) as (audio, chunks):
                    name = f"audio/{PurePosixPath(audio.key).name}"
                    with archive.open(_member(name, job.created_at, audio.size_bytes), "w") as member:
                        async for chunk in chunks:
                            member.write(chunk)
                            yield sink.taken()
            except AudioGoneError:
                if job.view.s3_url is not None:  # else it was never kept
                    missing.append(job.job_id)
        if missing or listed:
            gone = {"audio_removed": missing, "job_removed": sorted(listed)}
            archive.writestr(_member("missing.json"), json.dumps(gone))
    yield sink.taken()


class _Sink:
    """Takes what the archive writes, until it is sent on. It cannot be rewound, which ZipFile respects."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        written, self._written = self._written, []
        return b"".join(written)


async def _each(jobs: OwnedJobs, owner: str) -> AsyncIterator[Job]:
    after: Cursor | None = None
    while page := await jobs.page(owner, after, JOBS_PER_PAGE):
        for job in page:
            yield job
        after = Cursor(page[-1].created_at, page[-1].job_id)


@asynccontextmanager
async def _opened(store: AudioStore, job_id: str) -> AsyncIterator[tuple[StoredAudio, AsyncIterator[bytes]]]:
    """Open a job's recording; AudioGoneError when there is none."""
    audio = await store.find_audio(job_id)
    if audio is None:
        raise AudioGoneError
    async with store.read(audio, 0, audio.size_bytes - 1) as chunks:
        yield audio, chunks


def _described(job: Job, language: Language) -> bytes:
    seen = api.opaque(job.job_id, progressed(job, job.revision, job.view))
    return api.details_json(job, seen.model_copy(update={"result_json": None}), None, language)


def _member(name: str, at: datetime | None = None, size_bytes: int = 0) -> ZipInfo:
    """Return a member's head. Its size decides whether it needs ZIP64 (APPNOTE.TXT, section 4.3.9.2)."""
    member = ZipInfo(name) if at is None else ZipInfo(name, at.timetuple()[:6])
    member.file_size = size_bytes
    member.external_attr = _READABLE
    return member
