"""What becomes of a stored recording: answered from the cache, asked for, concluded once, asked for again."""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol

import structlog

from analyzer_bridge import SERVICE
from analyzer_bridge.errors import AnalysisChangedError, AnalysisRefusedError, AnalysisServerUnavailableError
from contracts import events, webhook
from contracts.events import (
    AnalysisCompleted,
    AnalysisCompletedData,
    AnalysisFailed,
    AnalysisFailedData,
    AnalysisRequested,
    AnalysisRequestedData,
    AnalysisWebhookReceived,
    AudioStored,
    Event,
)
from contracts.failures import FailureCode

log = structlog.get_logger()

LEASE = timedelta(seconds=60)
"""How long one replica has to ask again for an overdue analysis before another may."""
MAX_LEASES = 60
"""How often it is tried to ask again: an hour of a server that does not answer, then the analysis is given up."""


class AnalysisStatus(StrEnum):
    """Where an analysis stands."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """How an analysis ended: with a result as JSON text, or with the code of its failure."""

    result_json: str | None = None
    code: FailureCode | None = None
    cached: bool = False

    @property
    def status(self) -> AnalysisStatus:
        """Return the status that goes with this outcome."""
        return AnalysisStatus.FAILED if self.result_json is None else AnalysisStatus.COMPLETED


@dataclass(frozen=True)
class Analysis:
    """What was asked of the analysis server for a job, and how it ended."""

    job_id: str
    traceparent: str
    token_id: str | None = None
    s3_url: str | None = None
    cache_key: str | None = None
    attempt: int = 1
    deadline: datetime | None = None
    leases: int = 0
    outcome: Outcome | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Analyses(Protocol):
    """The `analyses` collection."""

    async def insert(self, analysis: Analysis) -> bool:
        """Keep a new analysis; False when the job has one."""

    async def find(self, job_id: str) -> Analysis | None:
        """Return the job's analysis."""

    async def cached(self, cache_key: str) -> str | None:
        """Return the result, as JSON text, of an earlier analysis under this key."""

    async def describe(self, analysis: Analysis) -> None:
        """Set what the analysis is of, and its deadline; its outcome stands."""

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of a pending analysis and return it; None when none was pending: there is one winner."""

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses whose deadline has passed, or whose outcome was not announced."""

    async def lease(self, analysis: Analysis, until: datetime) -> bool:
        """Move the deadline of an overdue analysis and count the lease; False when another replica did."""

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""


class AnalysisServer(Protocol):
    """Who does the work."""

    async def request(self, job_id: str, token_id: str, s3_url: str, attempt: int) -> None:
        """Ask for an analysis."""


class Bridge:
    """Turns audio.stored, webhook calls and passed deadlines into what is to be published; safe to repeat."""

    def __init__(
        self, analyses: Analyses, server: AnalysisServer, *, timeout: timedelta, attempts: int, version: str
    ) -> None:
        self._analyses = analyses
        self._server = server
        self._timeout = timeout
        self._attempts = attempts
        self._version = version

    async def begin(self, event: AudioStored) -> Event:
        """Have a recording analysed, or answer from the cache; AnalysisServerUnavailableError is worth a retry."""
        analysis = await self._keep(event)
        if analysis.outcome is not None:
            return _concluded(analysis, analysis.outcome)
        try:
            return await self._ask(analysis, announced=True)
        except AnalysisServerUnavailableError:
            # The message that brought us here will be back; until then no deadline runs.
            await self._analyses.describe(replace(analysis, deadline=None))
            raise

    async def finish(self, event: AnalysisWebhookReceived) -> Event | None:
        """Conclude an analysis by a webhook call; None when what it is of is not yet known: `begin` will say."""
        outcome = _outcome(event)
        analysis = await self._analyses.conclude(event.subject, outcome, announced=True)
        if analysis is None:
            analysis = await self._recorded(event, outcome)
        if analysis.outcome is None or analysis.s3_url is None:
            return None
        return _concluded(analysis, analysis.outcome)

    async def overdue(self, limit: int) -> list[Analysis]:
        """Return analyses that a deadline or an interrupted announcement calls for."""
        return await self._analyses.overdue(datetime.now(UTC), limit)

    async def pursue(self, analysis: Analysis) -> Event | None:
        """Ask again for an overdue analysis, or give it up; None when another replica does, or the server cannot."""
        if analysis.outcome is not None:
            return _concluded(analysis, analysis.outcome)
        if analysis.attempt >= self._attempts or analysis.leases >= MAX_LEASES:
            outcome = Outcome(code=FailureCode.ANALYSIS_TIMED_OUT)
            won = await self._analyses.conclude(analysis.job_id, outcome, announced=False)
            return None if won is None else _concluded(won, outcome)
        if not await self._analyses.lease(analysis, datetime.now(UTC) + LEASE):
            return None
        again = replace(analysis, deadline=datetime.now(UTC) + self._timeout, attempt=analysis.attempt + 1)
        try:
            event = await self._ask(again, announced=False)
        except AnalysisServerUnavailableError as error:
            log.warning("analysis not asked for again yet", reason=str(error))
            return None
        await self._analyses.describe(again)
        return event

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
            deadline=datetime.now(UTC) + self._timeout,
            outcome=None if result is None else Outcome(result_json=result, cached=True),
        )
        if await self._analyses.insert(analysis):
            return analysis
        existing = await self._analyses.find(event.subject) or analysis
        if existing.s3_url is None:
            existing = replace(analysis, outcome=existing.outcome)
            await self._analyses.describe(existing)
        elif existing.outcome is None and existing.deadline is None:
            existing = replace(existing, deadline=analysis.deadline)
            await self._analyses.describe(existing)
        return existing

    async def _recorded(self, event: AnalysisWebhookReceived, outcome: Outcome) -> Analysis:
        """Return what stands when a webhook call concluded nothing: an earlier outcome, or this call's own."""
        early = Analysis(job_id=event.subject, traceparent=event.traceparent, outcome=outcome)
        if await self._analyses.insert(early):
            return early
        recorded = await self._analyses.find(event.subject)
        if recorded is None or recorded.outcome is None:
            raise AnalysisChangedError(event.subject)
        log.info("webhook came after the outcome", recorded=recorded.outcome.status)
        return recorded

    async def _ask(self, analysis: Analysis, *, announced: bool) -> Event:
        """Ask; a refusal is recorded as `announced` when a message would bring us back to it after a crash."""
        token_id, s3_url = analysis.token_id or "", analysis.s3_url or ""
        try:
            await self._server.request(analysis.job_id, token_id, s3_url, analysis.attempt)
        except AnalysisRefusedError as error:
            log.warning("analysis refused", reason=str(error))
            outcome = Outcome(code=FailureCode.ANALYSIS_REFUSED)
            won = await self._analyses.conclude(analysis.job_id, outcome, announced=announced)
            recorded = won or await self._analyses.find(analysis.job_id)
            return _concluded(analysis, recorded.outcome if recorded and recorded.outcome else outcome)
        data = AnalysisRequestedData(
            token_id=token_id,
            s3_url=s3_url,
            attempt=analysis.attempt,
            deadline=analysis.deadline or datetime.now(UTC) + self._timeout,
        )
        return AnalysisRequested.new(
            analysis.job_id, data, source=SERVICE, traceparent=analysis.traceparent, step=str(analysis.attempt)
        )


def _outcome(event: AnalysisWebhookReceived) -> Outcome:
    if event.data.body is None:
        return Outcome(code=FailureCode.RESULT_TOO_LARGE)
    said = webhook.outcome(event.data.body)
    if isinstance(said, webhook.Success):
        return Outcome(result_json=events.to_json(said.result))
    log.warning("analysis failed", code=said.code, detail=said.detail)
    return Outcome(code=said.code)


def _concluded(analysis: Analysis, outcome: Outcome) -> Event:
    token_id, s3_url = analysis.token_id or "", analysis.s3_url or ""
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


def _cache_key(event: AudioStored, version: str) -> str:
    """Return what an analysis depends on, as one key: the bytes, the token and the analysis server."""
    parts = (event.data.sha256, event.data.token_id, version)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
