"""The life of a job: accepted, fetched, analysed, reported; and what becomes of it when the server stops."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from analysis_server import webhook
from analysis_server.errors import AnalysisError, ProblemError, StorageError
from analysis_server.job import Job
from analysis_server.references import References
from analysis_server.storage import Bucket
from analysis_server.webhook import Webhook
from analysis_server.workers import Workers

_log = structlog.get_logger()

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
_UNEXPECTED = "The analysis failed for a reason that is ours; the analysis server's log has it."


@dataclass(eq=False)
class _InHand:
    """A job and, once it is analysed, the body for its webhook."""

    job: Job
    body: dict[str, Any] | None = None


class JobsInHand:
    """All jobs in hand, at most `limit`. One more than there are workers may be fetched or analysed at a time."""

    def __init__(
        self,
        storage: Bucket,
        references: References,
        workers: Workers,
        callbacks: Webhook,
        *,
        limit: int,
        at_once: int,
        max_audio_bytes: int,
    ) -> None:
        self._storage = storage
        self._references = references
        self._max_audio_bytes = max_audio_bytes
        self._workers = workers
        self._webhook = callbacks
        self._limit = limit
        # One more than the workers can analyse, so that the next recording is fetched while the workers are busy.
        self._slots = asyncio.Semaphore(at_once + 1)
        self._in_hand: dict[asyncio.Task[None], _InHand] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._in_hand)

    def accept(self, job: Job) -> None:
        """Accept a job, whose outcome goes to its webhook; raises ProblemError `busy` or `stopping`, both 503."""
        if self._stopping:
            raise ProblemError(503, "stopping", "Stopping", "This server is stopping. Send it again.", _RETRY_AFTER_S)
        if len(self._in_hand) >= self._limit:
            detail = "There are as many recordings waiting as this server takes. Send it again later."
            raise ProblemError(503, "busy", "Busy", detail, _RETRY_AFTER_S)
        mine = _InHand(job)
        task = asyncio.create_task(self._run(mine))
        self._in_hand[task] = mine
        task.add_done_callback(self._in_hand.pop)
        _log.info("job-accepted", job_id=job.job_id, video_id=job.video_id, in_hand=len(self._in_hand))

    async def stop(self, seconds: float) -> None:
        """Accept no more jobs, give those in hand `seconds` to finish, then call back once more with finished results.

        A job that was not analysed is not reported: it has not failed, and its caller asks again when nothing comes.
        """
        self._stopping = True
        if self._in_hand:
            _log.info("jobs-draining", in_hand=len(self._in_hand))
            await asyncio.wait(self._in_hand, timeout=seconds)
        left = dict(self._in_hand)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._references.stop()
        await asyncio.gather(*(self._report_at_last(mine) for mine in left.values()))

    async def _run(self, mine: _InHand) -> None:
        with structlog.contextvars.bound_contextvars(job_id=mine.job.job_id, **_trace(mine.job)):
            mine.body = await self._outcome(mine.job)
            try:
                await self._webhook.deliver(mine.job, mine.body)
            except Exception:  # noqa: BLE001 - nobody awaits this task: what is not logged here is lost
                _log.exception("webhook-given-up")

    async def _report_at_last(self, mine: _InHand) -> None:
        with structlog.contextvars.bound_contextvars(job_id=mine.job.job_id):
            if mine.body is None:
                _log.warning("job-left")
            else:
                await self._webhook.call_once(mine.job, mine.body)

    async def _outcome(self, job: Job) -> dict[str, Any]:
        """Return the webhook's body; it reports any failure, so nothing is raised."""
        try:
            async with self._slots:
                result = await self._analysed(job)
        except AnalysisError as error:
            _log.warning("job-failed", code=error.code, exc_info=error.__cause__)
            return webhook.failed(job, error.sentence)
        except Exception:  # noqa: BLE001 - the task's last resort: the caller must hear of every job
            _log.exception("job-failed", code="unexpected")
            return webhook.failed(job, _UNEXPECTED)
        _log.info("job-analysed", duration_s=result["duration_s"], warnings=[w["code"] for w in result["warnings"]])
        return webhook.completed(job, result)

    async def _analysed(self, job: Job) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="sori-analysis-") as folder:
            path = Path(folder, "recording")
            await self._fetched(job, path)
            _log.info("recording-fetched")
            known = await self._references.known(job)
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
