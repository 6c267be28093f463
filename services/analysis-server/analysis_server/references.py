"""Provides what a recording is compared with: analyses a reference's files once, and keeps the outcome in S3."""

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self, get_args

import structlog
from pydantic import BaseModel

import analysis_server
import decoding
from analysis_server.errors import AnalysisError, StorageError
from analysis_server.job import Job, Part, Script
from analysis_server.omissions import Warnings, all_left_out, left_out
from analysis_server.settings import Settings
from analysis_server.storage import Bucket
from analysis_server.workers import EXHAUSTED, LATE, Workers
from contracts.addresses import UNDERSTOOD, AddressError, Addresses, OtherBucketError

_log = structlog.get_logger()

_LISTENERS = ("praat-parselmouth", "pocketsphinx", "av", "numpy")
_MAX_KEPT_BYTES = 64 * 1024 * 1024
_MAX_MARKS_BYTES = 4 * 1024 * 1024  # a TextGrid or a pitch file of half an hour

_REASONS = {
    "missing": "There is no file at its S3 address.",
    "forbidden": "This server is not allowed to read it.",
    "too_large": "Its file is too large.",
    "unavailable": "The storage could not be reached.",
}


class Known(NamedTuple):
    """What is known of a reference: the actor's voice as bytes, or None, and warnings about what was left out."""

    voice: bytes | None
    warnings: Warnings

    def to_bytes(self) -> bytes:
        """Return a header line of JSON and then the voice, for `from_bytes`."""
        voice = self.voice or b""
        header = {"sha256": hashlib.sha256(voice).hexdigest(), "warnings": self.warnings}
        return json.dumps(header).encode() + b"\n" + voice

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return what `to_bytes` wrote; raises ValueError for any other bytes."""
        line, _, voice = content.partition(b"\n")
        header = _Header.model_validate_json(line, strict=True)
        if hashlib.sha256(voice).hexdigest() != header.sha256:
            raise ValueError("damaged")
        return cls(voice or None, header.warnings)


class _Header(BaseModel):
    sha256: str
    warnings: Warnings


class Source(NamedTuple):
    """A file of the reference: its key, and the ETag that S3 gives its bytes."""

    key: str
    etag: str


Sources = dict[Part, Source]
Begins = Callable[[], Awaitable[None]]


class References:
    """The actors' voices. Each is analysed once for all servers, and never twice at a time by this one."""

    def __init__(self, storage: Bucket, addresses: Addresses, workers: Workers, settings: Settings) -> None:
        self._storage = storage
        self._addresses = addresses
        self._workers = workers
        self._max_bytes: dict[Part, int] = {
            "reference": settings.max_audio_bytes,
            "textgrid": _MAX_MARKS_BYTES,
            "pitch": _MAX_MARKS_BYTES,
        }
        # Everything besides the files and the scripts that could change the outcome.
        self._circumstances = [_code(), [version(name) for name in _LISTENERS], settings.max_audio_seconds]
        self._under_way: dict[str, asyncio.Task[Known]] = {}
        # References that take long must not keep all recordings waiting, and their files are large.
        self._places = asyncio.Semaphore(max(1, settings.workers - 1))

    async def known(self, job: Job, begins: Begins) -> Known:
        """Return what the job's recording can be compared with; an error of the reference becomes a warning.

        `begins` is awaited when the files are about to be fetched and analysed for this job, not for one that waits for
        the same files, nor when their outcome was kept.
        """
        try:
            sources, warnings = await self._found(job)
            if not sources:
                return Known(None, warnings)
            voice, more = await self._shared(sources, job.scripts, begins)
            return Known(voice, warnings + more)
        except StorageError as error:
            _log.warning("reference-left-out", fault=error.fault, exc_info=error.__cause__)
            return Known(None, [all_left_out(error.fault, _REASONS[error.fault])])
        except AnalysisError as error:
            if error.code != LATE:
                raise
            _log.warning("reference-left-out", fault=error.code)
            return Known(None, [all_left_out("too_slow", "Listening to it took too long, several times.")])
        except Exception:  # noqa: BLE001 - whatever it is, the recording can still be measured by itself
            _log.exception("reference-left-out")
            return Known(None, [all_left_out("failed", "Its analysis failed for a reason that is ours.")])

    async def stop(self) -> None:
        """Cancel the analyses under way, and with them the jobs that wait for them."""
        under_way = list(self._under_way.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _found(self, job: Job) -> tuple[Sources, Warnings]:
        """Look up the objects of all parts at the same time; raises StorageError `unavailable`."""
        looks = await asyncio.gather(*(self._look(part, address) for part, address in job.reference.items()))
        found = dict(zip(job.reference, looks, strict=True))
        sources = {part: look for part, look in found.items() if isinstance(look, Source)}
        return sources, [look for look in looks if not isinstance(look, Source)]

    async def _look(self, part: Part, address: str) -> Source | dict[str, str]:
        try:
            key = self._addresses.key_of(address)
            return Source(key, await self._storage.look(key, self._max_bytes[part]))
        except AddressError:
            return left_out(part, "address_invalid", "Its address is no s3:// or https:// address of a file.")
        except OtherBucketError:
            return left_out(part, "not_in_bucket", "Its address is not in the bucket that this server reads.")
        except StorageError as error:
            if error.fault == "unavailable":
                raise
            return left_out(part, error.fault, _REASONS[error.fault])

    async def _shared(self, sources: Sources, scripts: Sequence[Script], begins: Begins) -> Known:
        """Run one task for all jobs that want the same reference meanwhile; it goes on if one of them is cancelled."""
        digest = self.digest(sources, scripts)
        task = self._under_way.get(digest)
        if task is None:
            task = asyncio.create_task(self._found_out(digest, sources, scripts, begins))
            self._under_way[digest] = task
            task.add_done_callback(lambda _: self._under_way.pop(digest))
        return await asyncio.shield(task)

    def digest(self, sources: Sources, scripts: Sequence[Script]) -> str:
        """Return a digest that differs whenever something differs that could change the outcome."""
        told = [self._circumstances, sources, [asdict(script) for script in scripts]]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    async def _found_out(self, digest: str, sources: Sources, scripts: Sequence[Script], begins: Begins) -> Known:
        first = next(sources[part] for part in get_args(Part) if part in sources)
        key = f"{UNDERSTOOD}{first.key}.{digest}"
        kept = await self._kept(key)
        if kept is not None:
            return kept
        async with self._places:
            await begins()
            known, is_current = await self._understood(sources, scripts)
        if is_current:
            await self._keep(key, known)
        return known

    async def _kept(self, key: str) -> Known | None:
        try:
            return Known.from_bytes(await self._storage.read(key, _MAX_KEPT_BYTES))
        except StorageError:  # missing; AWS says forbidden when listing the bucket is not allowed
            return None
        except ValueError:
            _log.warning("reference-damaged", key=key)
            return None

    async def _keep(self, key: str, known: Known) -> None:
        try:
            await self._storage.write(key, known.to_bytes())
        except StorageError as error:
            _log.warning("reference-not-kept", fault=error.fault, exc_info=error.__cause__)

    async def _understood(self, sources: Sources, scripts: Sequence[Script]) -> tuple[Known, bool]:
        """Return what the files say, and whether they are still the versions that were looked up."""
        with tempfile.TemporaryDirectory(prefix="sori-reference-") as folder:
            files = {part: Path(folder, part) for part in sources}
            etags = [
                await self._storage.fetch(source.key, files[part], self._max_bytes[part])
                for part, source in sources.items()
            ]
            known = await self._listened(files, scripts)
        _log.info("reference-understood", key=[source.key for source in sources.values()])
        return known, etags == [source.etag for source in sources.values()]

    async def _listened(self, files: dict[Part, Path], scripts: Sequence[Script]) -> Known:
        """Return what the files say. That listening to them takes too much is worth knowing, too: it always will."""
        try:
            return Known(*await self._workers.understand(files, scripts))
        except AnalysisError as error:
            if error.code != EXHAUSTED:
                raise
            return Known(None, [all_left_out("too_complex", "Listening to it takes more than it may.")])


def _code() -> str:
    """Return a digest of this server's code: somebody would have to remember to raise a version number."""
    modules = [module for package in (analysis_server, decoding) for module in _modules(package)]
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()


def _modules(package: ModuleType) -> list[Path]:
    return sorted(Path(package.__path__[0]).glob("*.py"))
