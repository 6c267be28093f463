"""The life of a job: accepted, fetched, analysed, reported; and what becomes of it when the server stops or dies."""

import asyncio
import random
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from analysis_server import webhook
from analysis_server.accepted import Accepted, Kept
from analysis_server.errors import AnalysisError, ProblemError, StorageError
from analysis_server.job import Job
from analysis_server.references import Known, References
from analysis_server.storage import WRITE_SECONDS, Bucket
from analysis_server.webhook import Webhook
from analysis_server.workers import Workers
from chassis.periodic import Periodic

_log = structlog.get_logger()

LOOK_SECONDS = 10.0
"""How often a server looks for jobs that dead ones have left, and shows that it lives."""
_FIRST_LOOK_SECONDS = 1.0
"""The same until it has looked once."""
MOST_STARTS = 3
"""A job whose analysis began so often after it was taken over, and never ended, fails: it may be what kills servers."""
_RETRY_AFTER_S = 10
_NOT_FETCHED = {
    "missing": "There is no recording at the given S3 address.",
    "forbidden": "This server is not allowed to read the recording.",
    "too_large": "The recording's file is larger than {limit} bytes.",
    "unavailable": "The storage of the recording could not be reached.",
}
_NOT_COMPARED = {
    "code": "comparison_failed",
    "text": "The scripts and the reference were left out: comparing with them failed for a reason that is ours.",
}
_DIED = "The analysis server died several times while this recording was analysed, and gave it up."
_UNEXPECTED = "The analysis failed for a reason that is ours; the analysis server's log has it."


@dataclass(eq=False)
class _InHand:
    """A job, its task, once it is analysed the body for its webhook, and whether the webhook needs no more calls."""

    kept: Kept
    is_resumed: bool
    task: asyncio.Task[None] | None = None
    body: dict[str, Any] | None = None
    has_ended: bool = False
    is_start_counted: bool = False

    @property
    def job(self) -> Job:
        return self.kept.job


class JobsInHand:
    """All jobs in hand, each kept in S3 until it has ended. New ones are refused from `limit` on.

    One more than there are workers may be fetched or analysed at a time.
    """

    def __init__(
        self,
        storage: Bucket,
        accepted: Accepted,
        references: References,
        workers: Workers,
        callbacks: Webhook,
        *,
        limit: int,
        at_once: int,
        max_audio_bytes: int,
    ) -> None:
        self._storage = storage
        self._accepted = accepted
        self._references = references
        self._max_audio_bytes = max_audio_bytes
        self._workers = workers
        self._webhook = callbacks
        self._limit = limit
        # One more than the workers can analyse, so that the next recording is fetched while the workers are busy.
        self._slots = asyncio.Semaphore(at_once + 1)
        self._one_suspect = asyncio.Lock()
        self._in_hand: dict[str, _InHand] = {}
        self._arriving: dict[str, asyncio.Task[str]] = {}
        self._stopping = False
        self._looks = Periodic(self._look, seconds=self._pause, waiting="looking-for-jobs-waits", at_once=True)

    def __len__(self) -> int:
        return len(self._in_hand)

    def start(self) -> None:
        """Begin to take over what this server or others have left behind."""
        self._looks.start()

    async def accept(self, job: Job) -> str:
        """Accept a job, whose outcome goes to its webhook, and return its id: that of the same one, if it is under way.

        Raises ProblemError `busy`, `stopping` or `storage_away`, all 503.
        """
        key = self._accepted.key_of(job)
        mine = self._in_hand.get(key)
        if mine is not None and not mine.has_ended:
            _log.info("job-joined", job_id=mine.job.job_id)
            return mine.job.job_id
        if key not in self._arriving:
            self._refuse_more()
            arriving = asyncio.create_task(self._arrive(key, job))
            self._arriving[key] = arriving
            arriving.add_done_callback(lambda _: self._arriving.pop(key))
        # A caller that hangs up must not take the others with it that wait for the same job.
        return await asyncio.shield(self._arriving[key])

    async def stop(self, seconds: float) -> None:
        """Accept no more jobs, give those in hand `seconds` to finish, then call back once more with finished results.

        A job that was not analysed is not reported: it has not failed, and whoever finds it in S3 goes on with it.
        """
        self._stopping = True
        await self._looks.stop()
        await asyncio.gather(*self._arriving.values(), return_exceptions=True)
        left = list(self._in_hand.values())
        tasks = [mine.task for mine in left if mine.task]
        if tasks:
            _log.info("jobs-draining", in_hand=len(tasks))
            _, unfinished = await asyncio.wait(tasks, timeout=seconds)
            left = [mine for mine in left if mine.task in unfinished]
        for mine in left:
            if mine.task:
                mine.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._references.stop()
        await asyncio.gather(*(self._report_at_last(mine) for mine in left))
        await self._accepted.leave()

    def _refuse_more(self) -> None:
        if self._stopping:
            raise ProblemError(503, "stopping", "Stopping", "This server is stopping. Send it again.", _RETRY_AFTER_S)
        if len(self._in_hand) + len(self._arriving) >= self._limit:
            detail = "There are as many recordings waiting as this server takes. Send it again later."
            raise ProblemError(503, "busy", "Busy", detail, _RETRY_AFTER_S)

    async def _arrive(self, key: str, job: Job) -> str:
        """Keep a job, unless it is kept already, and begin with it."""
        try:
            await self._let_the_last_one_go(key)
            kept = await self._accepted.find(key)
            if kept is None:
                kept = await self._accepted.keep(job)
            elif not self._accepted.is_mine(kept):
                # It is under way at another server, or left by a dead one and soon taken over.
                _log.info("job-joined", job_id=kept.job.job_id)
                return kept.job.job_id
        except StorageError as error:
            _log.error("job-not-kept", fault=error.fault, exc_info=error.__cause__)
            detail = "The storage in which accepted recordings are kept does not answer. Send it again later."
            raise ProblemError(503, "storage_away", "Storage away", detail, _RETRY_AFTER_S) from None
        self._begin(kept, is_resumed=False)
        return kept.job.job_id

    async def _let_the_last_one_go(self, key: str) -> None:
        """Wait until the same job, which has ended, is deleted: deleting it later would delete the new one."""
        if (last := self._in_hand.get(key)) and last.task:
            _, unfinished = await asyncio.wait([last.task], timeout=WRITE_SECONDS)
            if unfinished:
                raise StorageError("unavailable")

    def _begin(self, kept: Kept, *, is_resumed: bool) -> None:
        key = kept.key
        if key in self._in_hand:
            return
        mine = _InHand(kept, is_resumed)
        self._in_hand[key] = mine
        mine.task = asyncio.create_task(self._run(mine))
        mine.task.add_done_callback(lambda _: self._in_hand.pop(key))
        event = "job-resumed" if is_resumed else "job-accepted"
        job = kept.job
        _log.info(event, job_id=job.job_id, video_id=job.video_id, in_hand=len(self._in_hand))

    def _pause(self) -> float:
        """Return the seconds until the next look. Looks of several servers must not fall together."""
        return LOOK_SECONDS * random.uniform(0.9, 1.1) if self._accepted.has_looked else _FIRST_LOOK_SECONDS  # noqa: S311 - no secret

    async def _look(self) -> None:
        """Show that this server lives, as long as it has jobs, and go on with what dead ones have left.

        What was accepted is not refused: these jobs are taken beyond the limit, too.
        """
        if self._in_hand or not self._accepted.has_looked:
            await self._accepted.show_life()
        await self._accepted.take_over(
            lambda: self._in_hand.keys() | self._arriving.keys(), lambda kept: self._begin(kept, is_resumed=True)
        )

    async def _run(self, mine: _InHand) -> None:
        with structlog.contextvars.bound_contextvars(job_id=mine.job.job_id, **_trace(mine.job)):
            mine.body = await self._outcome(mine)
            try:
                await self._webhook.deliver(mine.job, mine.body)
            except Exception:  # noqa: BLE001 - nobody awaits this task: what is not logged here is lost
                _log.exception("webhook-given-up")
            mine.has_ended = True
            await self._accepted.forget(mine.kept)

    async def _report_at_last(self, mine: _InHand) -> None:
        with structlog.contextvars.bound_contextvars(job_id=mine.job.job_id):
            if mine.body is None:
                _log.warning("job-left")
            elif mine.has_ended or await self._webhook.call_once(mine.job, mine.body):
                await self._accepted.forget(mine.kept, patiently=False)

    async def _outcome(self, mine: _InHand) -> dict[str, Any]:
        """Return the webhook's body; it reports any failure, so nothing is raised."""
        job, is_suspect = mine.job, mine.kept.starts > 0
        if mine.kept.starts >= MOST_STARTS:
            _log.error("job-failed", code="server_died", starts=mine.kept.starts)
            return webhook.failed(job, _DIED)
        try:
            async with self._one_suspect if is_suspect else nullcontext():
                # Before it takes a place: many jobs may wait for one reference, and others must not wait for it.
                known = await self._references.known(job, partial(self._count_start, mine))
                async with self._slots:
                    await self._count_start(mine)
                    result = await self._analysed(job, known)
        except AnalysisError as error:
            _log.warning("job-failed", code=error.code, exc_info=error.__cause__)
            return webhook.failed(job, error.sentence)
        except Exception:  # noqa: BLE001 - the task's last resort: the caller must hear of every job
            _log.exception("job-failed", code="unexpected")
            return webhook.failed(job, _UNEXPECTED)
        _log.info("job-analysed", duration_s=result["duration_s"], warnings=[w["code"] for w in result["warnings"]])
        return webhook.completed(job, result)

    async def _count_start(self, mine: _InHand) -> None:
        """Count that work for a job that was taken over begins, once: its own, or its reference's."""
        if mine.is_resumed and not mine.is_start_counted:
            await self._accepted.count_start(mine.kept)
            mine.is_start_counted = True

    async def _analysed(self, job: Job, known: Known) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="sori-analysis-") as folder:
            path = Path(folder, "recording")
            await self._fetched(job, path)
            _log.info("recording-fetched")
            result = await self._compared(job, path, known.voice)
            return {**result, "warnings": [*known.warnings, *result["warnings"]]}

    async def _fetched(self, job: Job, path: Path) -> None:
        limit = self._max_audio_bytes
        try:
            await self._storage.fetch(job.key, path, limit)
        except StorageError as error:
            raise AnalysisError(
                f"audio_{error.fault}", _NOT_FETCHED[error.fault].format(limit=limit)
            ) from error.__cause__

    async def _compared(self, job: Job, path: Path, reference: bytes | None) -> dict[str, Any]:
        """Return the result. If the comparison fails unexpectedly, the result lacks only that and has a warning."""
        try:
            return await self._workers.analyse(path, job.scripts, reference)
        except AnalysisError:
            raise
        except Exception:
            if reference is None and not job.scripts:
                raise
            _log.exception("comparison-failed")
        result = await self._workers.analyse(path, (), None)
        return {**result, "warnings": [_NOT_COMPARED, *result["warnings"]]}


def _trace(job: Job) -> dict[str, str]:
    """Return the trace id: the second part of a W3C traceparent."""
    return {"trace_id": job.traceparent.split("-")[1]} if job.traceparent else {}
