"""The course of an analysis: answered from the cache, or requested, requested again, and concluded once or stopped."""

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
"""How long an overdue analysis waits when the server turned out to be away, unless the server asked for more."""
CLOCKS = timedelta(minutes=5)
"""Allows for the difference between two hosts' clocks, and for a recording that is on its way into storage."""


class Analyses(Protocol):
    """The `analyses` collection."""

    async def prepare(self) -> None:
        """Create the indexes."""

    async def insert(self, analysis: Analysis) -> bool:
        """Store a new analysis; False when the job already has one."""

    async def find(self, job_id: str) -> Analysis | None:
        """Return the job's analysis; None when there is none."""

    async def cached(self, cache_key: str) -> str | None:
        """Return the result, as JSON text, of an earlier analysis under this key; None when there is none."""

    async def describe(self, analysis: Analysis) -> None:
        """Add the recording's data to an analysis whose webhook came first; leave one that was purged as it is."""

    async def reschedule(self, analysis: Analysis, *, attempt: int, deadline: datetime | None) -> bool:
        """Set attempt and deadline of a pending analysis; False when it is not pending or its deadline has changed."""

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of a pending analysis and return it; None when none is pending: only one caller wins."""

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses whose deadline has passed, or whose outcome was not announced."""

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""

    async def forget(self, job_id: str) -> None:
        """Replace the job's analysis, if any, by a mark that it was purged; the mark expires after some days."""


class AnalysisServer(Protocol):
    """The server that analyses recordings."""

    def away_for(self) -> float:
        """Return for how many seconds the server must not be asked; 0 when it may be asked."""

    async def request(
        self, job_id: str, token_id: str, s3_url: str, attempt: int, reference: Reference | None = None
    ) -> None:
        """Ask for an analysis, and for a comparison when there is a reference.

        AnalysisRefusedError when the server will never accept the recording, AnalysisNotTakenError when it may later.
        """


class Bridge:
    """Turns events about a job, and passed deadlines, into events to publish; safe to repeat at any point."""

    def __init__(
        self, analyses: Analyses, server: AnalysisServer, *, timeout: timedelta, attempts: int, version: str
    ) -> None:
        self._analyses = analyses
        self._server = server
        self._timeout = timeout
        self._attempts = attempts
        self._version = version

    async def begin(self, event: AudioStored) -> Event | None:
        """Ask for the analysis of a recording, or answer from the cache; None when its job was stopped.

        AnalysisNotTakenError when the server did not accept it, but may do so later.
        """
        analysis = await self._keep(event)
        if analysis.outcome is not None:
            return _purged(event) if analysis.outcome.status == AnalysisStatus.PURGED else _told(analysis)
        deadline = analysis.deadline or datetime.now(UTC) + self._timeout
        try:
            told = await self._ask(replace(analysis, deadline=deadline), announced=True)
        except AnalysisNotTakenError:
            # The message at hand will be tried again; until then the analysis has no deadline.
            if analysis.deadline is not None:
                await self._analyses.reschedule(analysis, attempt=analysis.attempt, deadline=None)
            raise
        if analysis.deadline is None:
            await self._analyses.reschedule(analysis, attempt=analysis.attempt, deadline=deadline)
        return told

    async def finish(self, event: AnalysisWebhookReceived) -> Event | None:
        """Conclude an analysis by a webhook call; None while its recording is unknown: `begin` will publish then."""
        outcome = _outcome(event)
        analysis = await self._settle(event, outcome)
        recorded = analysis.outcome or outcome
        # Earlier versions did not record `by`: the outcome may be that of this very event.
        if recorded.by not in (None, event.id):
            log.info("webhook came after the outcome", recorded=recorded.status)
            return _ignored(event, outcome)
        return None if analysis.s3_url is None else _told(analysis)

    async def stop(self, event: JobCancelled | JobExpired) -> None:
        """Have nothing more asked or published about a job; an analysis that has ended keeps its outcome."""
        await self._settle(event, Outcome(AnalysisStatus.CANCELLED, by=event.id))

    async def purged_again(self, event: JobPurged) -> Event | None:
        """Return job.purged, to be published again, if the recording may have been stored after its removal."""
        if event.source == f"/sori/{SERVICE}":
            return None
        known = await self._analyses.find(event.subject)
        return _purged(event) if known is not None and known.created_at > event.time - CLOCKS else None

    async def forget(self, event: JobPurged) -> None:
        """Remove the job's analysis, but leave a mark, so that messages in flight do not bring it back."""
        await self._analyses.forget(event.subject)

    async def overdue(self, limit: int) -> list[Analysis]:
        """Return analyses whose deadline has passed, or whose outcome was not announced."""
        return await self._analyses.overdue(datetime.now(UTC), limit)

    def gives_up(self, analysis: Analysis) -> bool:
        """Tell whether `pursue` will give the overdue analysis up, because its attempts are used up."""
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
        """Note that an outcome was published. No message would be redelivered to publish it after a crash."""
        if not isinstance(event, AnalysisRequested):
            await self._analyses.announced(event.subject)

    async def _keep(self, event: AudioStored) -> Analysis:
        """Record the analysis before asking for it, so that a webhook that overtakes the request's answer finds it."""
        key = _cache_key(event, self._version)
        result = await self._analyses.cached(key)
        analysis = Analysis(
            job_id=event.subject,
            traceparent=event.traceparent,
            token_id=event.data.token_id,
            s3_url=event.data.s3_url,
            # Only real analyses serve as cache entries: one document, however often the same bytes come.
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
        """Record an outcome unless there is one, even for an unknown analysis; return the analysis as it stands."""
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
        """Ask for the analysis. `announced` says that, after a crash, a redelivered message would publish a refusal."""
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
    """Return the event that tells listeners that a recording waits for the analysis server."""
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
