"""What becomes of a stored recording: answered from the cache, asked for, asked for again, ended once or stopped."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import structlog

from analyzer_bridge import SERVICE
from analyzer_bridge.analysis import Analysis, AnalysisStatus, Outcome
from analyzer_bridge.errors import (
    AnalysisChangedError,
    AnalysisNotTakenError,
    AnalysisRefusedError,
    AnalysisServerFailedError,
    AnalysisServerUnavailableError,
)
from contracts import events, webhook
from contracts.events import (
    AnalysisCompleted,
    AnalysisCompletedData,
    AnalysisDelayed,
    AnalysisDelayedData,
    AnalysisFailed,
    AnalysisFailedData,
    AnalysisRequested,
    AnalysisRequestedData,
    AnalysisWebhookIgnored,
    AnalysisWebhookIgnoredData,
    AnalysisWebhookReceived,
    AudioStored,
    Event,
    JobCancelled,
    JobExpired,
    JobPurged,
    JobPurgedData,
    Reference,
)
from contracts.failures import FailureCode

log = structlog.get_logger()

LEASE = timedelta(seconds=30)
"""How long one replica has to ask again for an overdue analysis before another may; longer than a request takes."""
PAUSE = timedelta(seconds=5)
"""How long an overdue analysis waits when the server turned out to be away, unless that asked for more."""
CLOCKS = timedelta(minutes=5)
"""How far the clocks of two hosts may be apart, and a recording on its way into storage."""


class Analyses(Protocol):
    """The `analyses` collection."""

    async def prepare(self) -> None:
        """Create the indexes."""

    async def insert(self, analysis: Analysis) -> bool:
        """Keep a new analysis; False when the job has one."""

    async def find(self, job_id: str) -> Analysis | None:
        """Return the job's analysis."""

    async def cached(self, cache_key: str) -> str | None:
        """Return the result, as JSON text, of an earlier analysis under this key."""

    async def describe(self, analysis: Analysis) -> None:
        """Say what an analysis is of whose webhook overtook its recording; not of one that was purged meanwhile."""

    async def reschedule(self, analysis: Analysis, *, attempt: int, deadline: datetime | None) -> bool:
        """Set attempt and deadline of a pending analysis; False when its deadline is not that of `analysis` now."""

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of a pending analysis and return it; None when none was pending: there is one winner."""

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses whose deadline has passed, or whose outcome was not announced."""

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""

    async def forget(self, job_id: str) -> None:
        """Replace whatever is kept of the job by a mark that it was purged; the mark goes after some days."""


class AnalysisServer(Protocol):
    """Who does the work."""

    def away_for(self) -> float:
        """Return for how many seconds it is not to be asked anything; 0 when it may be."""

    async def request(
        self, job_id: str, token_id: str, s3_url: str, attempt: int, reference: Reference | None = None
    ) -> None:
        """Ask for an analysis, and for a comparison when there is a reference."""


class Bridge:
    """Turns events about a job and passed deadlines into what is to be published; safe to repeat at any point."""

    def __init__(
        self, analyses: Analyses, server: AnalysisServer, *, timeout: timedelta, attempts: int, version: str
    ) -> None:
        self._analyses = analyses
        self._server = server
        self._timeout = timeout
        self._attempts = attempts
        self._version = version

    async def begin(self, event: AudioStored) -> Event | None:
        """Have a recording analysed, or answer from the cache; None when its job was stopped.

        AnalysisNotTakenError is worth a retry.
        """
        analysis = await self._keep(event)
        if analysis.outcome is not None:
            return _purged(event) if analysis.outcome.status == AnalysisStatus.PURGED else _told(analysis)
        deadline = analysis.deadline or datetime.now(UTC) + self._timeout
        try:
            told = await self._ask(replace(analysis, deadline=deadline), announced=True)
        except AnalysisNotTakenError:
            # The message that brought us here will be back; until then no deadline runs.
            if analysis.deadline is not None:
                await self._analyses.reschedule(analysis, attempt=analysis.attempt, deadline=None)
            raise
        if analysis.deadline is None:
            await self._analyses.reschedule(analysis, attempt=analysis.attempt, deadline=deadline)
        return told

    async def finish(self, event: AnalysisWebhookReceived) -> Event | None:
        """Conclude an analysis by a webhook call; None when what it is of is not yet known: `begin` will say."""
        outcome = _outcome(event)
        analysis = await self._settle(event, outcome)
        recorded = analysis.outcome or outcome
        # Without a name it was recorded by an earlier version: perhaps by this very event.
        if recorded.by not in (None, event.id):
            log.info("webhook came after the outcome", recorded=recorded.status)
            return _ignored(event, outcome)
        return None if analysis.s3_url is None else _told(analysis)

    async def stop(self, event: JobCancelled | JobExpired) -> None:
        """See to it that nothing more is asked or published about a job; an analysis that has ended stays so."""
        await self._settle(event, Outcome(AnalysisStatus.CANCELLED, by=event.id))

    async def purged_again(self, event: JobPurged) -> Event | None:
        """Return the event to be published once more if the recording may have been stored after it was removed."""
        if event.source == f"/sori/{SERVICE}":
            return None
        known = await self._analyses.find(event.subject)
        return _purged(event) if known is not None and known.created_at > event.time - CLOCKS else None

    async def forget(self, event: JobPurged) -> None:
        """Remove what is kept about a job, but for a mark that keeps what is in flight from bringing it back."""
        await self._analyses.forget(event.subject)

    async def overdue(self, limit: int) -> list[Analysis]:
        """Return analyses that a deadline or an interrupted announcement calls for."""
        return await self._analyses.overdue(datetime.now(UTC), limit)

    def gives_up(self, analysis: Analysis) -> bool:
        """Tell whether to pursue the overdue analysis is to give it up, since it was asked for often enough."""
        return analysis.outcome is None and analysis.attempt >= self._attempts

    async def pursue(self, analysis: Analysis) -> Event | None:
        """Ask again for an overdue analysis, or give it up; None when another replica does, or the server cannot.

        While the server is away no attempt is used up: the analysis waits for it as long as its job does.
        """
        if analysis.outcome is not None:
            return _told(analysis)
        if self.gives_up(analysis):
            outcome = Outcome.failed(FailureCode.ANALYSIS_TIMED_OUT, by="deadline")
            won = await self._analyses.conclude(analysis.job_id, outcome, announced=False)
            return None if won is None else _told(won)
        if self._server.away_for() > 0:
            return None
        leased = replace(analysis, deadline=datetime.now(UTC) + LEASE)
        if not await self._analyses.reschedule(analysis, attempt=leased.attempt, deadline=leased.deadline):
            return None
        return await self._ask_again(leased)

    async def announced(self, event: Event) -> None:
        """Note that an outcome that no message will bring back was published."""
        if not isinstance(event, AnalysisRequested):
            await self._analyses.announced(event.subject)

    async def _keep(self, event: AudioStored) -> Analysis:
        """Record what is about to be asked, so that a webhook before the request's own answer finds it."""
        key = _cache_key(event, self._version)
        result = await self._analyses.cached(key)
        analysis = Analysis(
            job_id=event.subject,
            traceparent=event.traceparent,
            token_id=event.data.token_id,
            s3_url=event.data.s3_url,
            # Only what was really analysed answers others: one document, however often the same bytes come.
            cache_key=key if result is None else None,
            reference=event.data.reference,
            deadline=datetime.now(UTC) + self._timeout,
            outcome=None if result is None else Outcome.completed(result, by="cache", cached=True),
        )
        if await self._analyses.insert(analysis):
            return analysis
        existing = await self._analyses.find(event.subject)
        if existing is None:
            raise AnalysisChangedError(event.subject)
        if existing.s3_url is None:
            existing = replace(analysis, outcome=existing.outcome)
            await self._analyses.describe(existing)
        return existing

    async def _settle(self, event: Event, outcome: Outcome) -> Analysis:
        """Record an outcome, for an analysis that is not known yet too, unless it has one; return what stands."""
        concluded = await self._analyses.conclude(event.subject, outcome, announced=True)
        if concluded is not None:
            return concluded
        early = Analysis(job_id=event.subject, traceparent=event.traceparent, outcome=outcome)
        if await self._analyses.insert(early):
            return early
        recorded = await self._analyses.find(event.subject)
        if recorded is None or recorded.outcome is None:
            raise AnalysisChangedError(event.subject)
        return recorded

    async def _ask(self, analysis: Analysis, *, announced: bool) -> Event | None:
        """Ask; a refusal is recorded as `announced` when a message would bring us back to it after a crash."""
        token_id, s3_url = analysis.token_id or "", analysis.s3_url or ""
        try:
            await self._server.request(analysis.job_id, token_id, s3_url, analysis.attempt, analysis.reference)
        except AnalysisRefusedError as error:
            log.warning("analysis refused", reason=str(error))
            outcome = Outcome.failed(FailureCode.ANALYSIS_REFUSED, by="request")
            won = await self._analyses.conclude(analysis.job_id, outcome, announced=announced)
            recorded = won or await self._analyses.find(analysis.job_id)
            return None if recorded is None else _told(recorded)
        data = AnalysisRequestedData(
            token_id=token_id,
            s3_url=s3_url,
            attempt=analysis.attempt,
            deadline=analysis.deadline or datetime.now(UTC) + self._timeout,
        )
        return AnalysisRequested.new(
            analysis.job_id, data, source=SERVICE, traceparent=analysis.traceparent, step=str(analysis.attempt)
        )

    async def _ask_again(self, leased: Analysis) -> Event | None:
        again = replace(leased, attempt=leased.attempt + 1, deadline=datetime.now(UTC) + self._timeout)
        try:
            event = await self._ask(again, announced=False)
        except AnalysisServerUnavailableError as error:
            log.warning("analysis not asked for again yet", reason=str(error))
            pause = max(PAUSE, timedelta(seconds=error.retry_after or 0))
            await self._analyses.reschedule(leased, attempt=leased.attempt, deadline=datetime.now(UTC) + pause)
            return None
        except AnalysisServerFailedError as error:
            log.warning("analysis asked for again in vain", reason=str(error))
            event = None
        await self._analyses.reschedule(leased, attempt=again.attempt, deadline=again.deadline)
        return event


def delayed(event: AudioStored) -> Event:
    """Return what tells listeners that a recording waits for the analysis server."""
    data = AnalysisDelayedData(token_id=event.data.token_id, s3_url=event.data.s3_url)
    return AnalysisDelayed.new(event.subject, data, source=SERVICE, traceparent=event.traceparent)


def _outcome(event: AnalysisWebhookReceived) -> Outcome:
    if event.data.body is None:
        return Outcome.failed(FailureCode.RESULT_TOO_LARGE, by=event.id)
    said = webhook.outcome(event.data.body)
    if isinstance(said, webhook.Success):
        return Outcome.completed(events.to_json(said.result), by=event.id)
    log.warning("analysis failed", code=said.code, detail=said.detail)
    return Outcome.failed(said.code, by=event.id)


def _told(analysis: Analysis) -> Event | None:
    """Return the event that tells how an analysis ended; None when it was stopped, or has not ended."""
    outcome = analysis.outcome
    token_id, s3_url = analysis.token_id or "", analysis.s3_url or ""
    if outcome is None or outcome.stopped:
        return None
    if outcome.result_json is None:
        failed = AnalysisFailedData(token_id=token_id, s3_url=s3_url, code=outcome.code or FailureCode.ANALYSIS_FAILED)
        return AnalysisFailed.new(analysis.job_id, failed, source=SERVICE, traceparent=analysis.traceparent)
    completed = AnalysisCompletedData(
        token_id=token_id,
        s3_url=s3_url,
        result=events.from_json(outcome.result_json),
        cached=outcome.cached,
    )
    return AnalysisCompleted.new(analysis.job_id, completed, source=SERVICE, traceparent=analysis.traceparent)


def _ignored(event: AnalysisWebhookReceived, outcome: Outcome) -> Event:
    said: Literal["completed", "failed"] = "completed" if outcome.status == AnalysisStatus.COMPLETED else "failed"
    data = AnalysisWebhookIgnoredData(attempt=event.data.attempt, said=said)
    return AnalysisWebhookIgnored.new(event.subject, data, source=SERVICE, traceparent=event.traceparent, step=event.id)


def _purged(event: AudioStored | JobPurged) -> Event:
    data = JobPurgedData(token_id=event.data.token_id)
    return JobPurged.new(event.subject, data, source=SERVICE, traceparent=event.traceparent)


def _cache_key(event: AudioStored, version: str) -> str:
    """Return what an analysis depends on, as one key: the bytes, the token, its reference and the analysis server."""
    reference = event.data.reference
    parts = (event.data.sha256, event.data.token_id, version, *([] if reference is None else [reference.revision]))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
