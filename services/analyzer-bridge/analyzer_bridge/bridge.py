"""The course of an analysis: answered from the cache, or requested, requested again, and concluded once or stopped."""

import hashlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from analyzer_bridge import SERVICE, telling
from analyzer_bridge.analysis import Analysis, AnalysisStatus, CachedResult, Outcome
from analyzer_bridge.errors import (
    AnalysisChangedError,
    AnalysisNotTakenError,
    AnalysisRefusedError,
    AnalysisServerBusyError,
    AnalysisServerFailedError,
    AnalysisServerUnavailableError,
)
from analyzer_bridge.room import Room
from chassis.subscribing import Delivery
from contracts import events, webhook
from contracts.events import (
    AnalysisCompleted,
    AnalysisDelayed,
    AnalysisFailed,
    AnalysisRequested,
    AnalysisWebhookReceived,
    AudioStored,
    Event,
    JobCancelled,
    JobExpired,
    JobPurged,
    Reference,
)
from contracts.failures import FailureCode

log = structlog.get_logger()

LEASE = timedelta(seconds=30)
"""How long one replica has to ask for an analysis that waits before another may; longer than a request takes."""
PAUSE_SECONDS = 5.0
"""How long a recording waits that was not taken on, or a busy server rests, unless the server asked for more."""
LONGEST_PAUSE_SECONDS = 60.0
"""How long one waits at most during which the connection broke again and again, unless the server asked for more."""
FAILURE_DELAYS = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
"""How long a recording waits with which the server failed, by how often in a row; the last for all further times."""
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

    async def cached(self, cache_key: str) -> CachedResult | None:
        """Return the result of an earlier analysis under this key, whoever its owner is; None when there is none."""

    async def cached_of(self, cache_key: str, owner: str | None) -> CachedResult | None:
        """Return the result of an earlier analysis of this owner's under this key; None when there is none."""

    async def describe(self, analysis: Analysis) -> None:
        """Add the recording's data to an analysis whose webhook came first; leave one that was purged as it is."""

    async def reschedule(self, analysis: Analysis, later: Analysis) -> bool:
        """Write whether it waits, the attempt, the deadline and the failures of `later`, if it is still as `analysis`.

        False when the analysis has ended, or its status or deadline is another.
        """

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of an analysis that has none, and return it; None when there is none: one caller wins."""

    async def unannounced(self, limit: int) -> list[Analysis]:
        """Return analyses whose outcome was not announced."""

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses that were asked for and whose deadline has passed."""

    async def due(self, now: datetime, limit: int, after: str | None) -> list[Analysis]:
        """Return analyses that wait and are to be asked for: one of each owner in turn, then the next one of each.

        The owner who follows `after` comes first; an owner's own come by their places.
        """

    async def count_asked(self, limit: int) -> int:
        """Return how many analyses were asked for and have not ended; `limit` if there are more."""

    async def count_waiting(self, limit: int) -> int:
        """Return how many analyses wait; `limit` if there are more."""

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
    """Turns events about a job, and passed deadlines, into events to publish; safe to repeat at any point.

    The analysis server is asked only by who inserted the analysis, by who won a conditional change of it, and for a
    message that was here before: the earlier try may have died before it asked.
    """

    def __init__(
        self,
        analyses: Analyses,
        server: AnalysisServer,
        room: Room,
        *,
        timeout: timedelta,
        attempts: int,
        version: str,
    ) -> None:
        self._analyses = analyses
        self._server = server
        self._room = room
        self._timeout = timeout
        self._attempts = attempts
        self._version = version

    async def begin(self, event: AudioStored, delivery: Delivery) -> Event | None:
        """Record the analysis of a recording, and ask for it unless others wait; or answer from the cache.

        Return what there is to tell about it; None when its job was stopped. Whatever the analysis server answers is
        recorded: the message is done with.
        """
        analysis = await self._new(event)
        asks = analysis.status == AnalysisStatus.PENDING
        if asks:
            self._room.take()
        inserted = False
        try:
            # Before it is asked for, so that a webhook that overtakes the request's answer finds it.
            inserted = await self._analyses.insert(analysis)
        finally:
            if asks and not inserted:
                self._room.give_back()
        if not inserted:
            return await self._begin_again(event, analysis, delivery)
        if asks:
            return await self._ask(analysis)
        if analysis.waiting:
            self._room.recorded()
        return telling.stands(analysis)

    async def finish(self, event: AnalysisWebhookReceived) -> Event | None:
        """Conclude an analysis by a webhook call that ends it, whether it waits or was asked for.

        None while its recording is unknown: `begin` will publish then. A call that ends nothing tells of its progress,
        if it is about the attempt that is under way.
        """
        outcome = _outcome(event)
        if isinstance(outcome, webhook.Interim):
            return await self._progressed(event, outcome)
        analysis = await self._settle(event, outcome)
        recorded = analysis.outcome or outcome
        # Earlier versions did not record `by`: the outcome may be that of this very event.
        if recorded.by not in (None, event.id):
            log.info("webhook came after the outcome", recorded=recorded.status)
            return telling.ignored(event, outcome)
        return None if analysis.s3_url is None else telling.told(analysis)

    async def stop(self, event: JobCancelled | JobExpired) -> None:
        """Have nothing more asked or published about a job; an analysis that has ended keeps its outcome."""
        await self._settle(event, Outcome(AnalysisStatus.CANCELLED, by=event.id))

    async def purged_again(self, event: JobPurged) -> Event | None:
        """Return job.purged, to be published again, if the recording may have been stored after its removal."""
        if event.source == f"/sori/{SERVICE}":
            return None
        known = await self._analyses.find(event.subject)
        if known is None or known.status == AnalysisStatus.PURGED:
            return None
        return telling.purged(event) if known.created_at > event.time - CLOCKS else None

    async def forget(self, event: JobPurged) -> Event:
        """Leave nothing of the job's analysis but a mark, which keeps messages in flight from bringing it back."""
        await self._analyses.forget(event.subject)
        return telling.removed(event)

    async def pursue(self, late: Analysis) -> Event | None:
        """Have an overdue analysis wait to be asked for again, or give it up when its attempts are used up.

        Return what there is to tell, for one that has ended too; None when that is nothing.
        """
        if late.outcome is not None:
            return telling.told(late)
        if late.attempt >= self._attempts:
            outcome = Outcome.failed(FailureCode.ANALYSIS_TIMED_OUT, by="deadline")
            won = await self._conclude(late.job_id, outcome, announced=False)
            return None if won is None else telling.told(won)
        again = replace(late, waiting=True, attempt=late.attempt + 1, deadline=datetime.now(UTC), failures=0)
        if await self._analyses.reschedule(late, again):
            self._room.give_back()
            self._room.recorded()
        return None

    async def ask_waiting(self, due: Analysis) -> Event | None:
        """Ask for an analysis that waits; None when another replica does, or when it goes on waiting.

        While it is asked for it still waits, until its lease is over: after a crash somebody asks for it once more.
        """
        leased = replace(due, deadline=datetime.now(UTC) + LEASE)
        self._room.begin_asking()
        taken = False
        try:
            if not await self._analyses.reschedule(due, leased):
                return None
            event = await self._ask(leased)
            taken = isinstance(event, AnalysisRequested)
        finally:
            self._room.end_asking(taken=taken)
        return None if isinstance(event, AnalysisDelayed) else event

    async def announced(self, event: Event) -> None:
        """Note that an outcome was published. No message would be redelivered to publish it after a crash."""
        if isinstance(event, AnalysisCompleted | AnalysisFailed):
            await self._analyses.announced(event.subject)

    async def _new(self, event: AudioStored) -> Analysis:
        """Return the analysis to record: completed from the cache, asked for, or waiting."""
        key = _cache_key(event, self._version)
        result = await self._cached(key, event.data.owner)
        now = datetime.now(UTC)
        waits = result is None and not self._may_ask()
        return Analysis(
            job_id=event.subject,
            traceparent=event.traceparent,
            **event.data.passed_on(),
            s3_url=event.data.s3_url,
            # Only real analyses serve as cache entries: one document, however often the same bytes come.
            cache_key=key if result is None else None,
            reference=event.data.reference,
            waiting=waits,
            deadline=now if waits else now + self._timeout,
            outcome=None if result is None else Outcome.completed(result, by="cache", cached=True),
        )

    async def _cached(self, key: str, owner: str | None) -> str | None:
        """Return the result, as JSON text, of an earlier analysis that may answer this owner's recording."""
        cached = await self._analyses.cached(key)
        if cached is not None and not cached.may_answer(owner):
            cached = await self._analyses.cached_of(key, owner)
        return None if cached is None else cached.result_json

    def _may_ask(self) -> bool:
        return not self._room.somebody_waits and self._room.free > 0 and self._server.away_for() == 0

    async def _begin_again(self, event: AudioStored, new: Analysis, delivery: Delivery) -> Event | None:
        """Tell what stands, for a job that has an analysis; ask only if the earlier try may have died before it did."""
        existing = await self._analyses.find(event.subject)
        if existing is None:
            raise AnalysisChangedError(event.subject)
        if existing.s3_url is None:
            existing = replace(new, outcome=existing.outcome)
            await self._analyses.describe(existing)
        if existing.status == AnalysisStatus.PURGED:
            return telling.purged(event)
        if existing.status == AnalysisStatus.PENDING:
            if existing.deadline is None:
                return await self._begin_deadline(existing)
            if delivery.repeated and not delivery.redriven:
                return await self._ask(existing)
        return telling.stands(existing)

    async def _begin_deadline(self, existing: Analysis) -> Event | None:
        """Ask for what an earlier version left to a message in the broker, or have it wait like any other.

        Unless another message has done so.
        """
        now, waits = datetime.now(UTC), not self._may_ask()
        later = replace(existing, waiting=waits, deadline=now if waits else now + self._timeout)
        if not await self._analyses.reschedule(existing, later):
            return await self._standing(existing.job_id)
        if waits:
            self._room.recorded()
            return telling.stands(later)
        self._room.take()
        return await self._ask(later)

    async def _progressed(self, event: AnalysisWebhookReceived, said: webhook.Interim) -> Event | None:
        log.info("interim webhook", status=said.status, progress=said.progress)
        if said.progress is None:
            return None
        analysis = await self._analyses.find(event.subject)
        if analysis is None or analysis.outcome is not None or analysis.attempt != event.data.attempt:
            return None
        return telling.progressed(analysis, said.progress)

    async def _settle(self, event: Event, outcome: Outcome) -> Analysis:
        """Record an outcome unless there is one, even for an unknown analysis; return the analysis as it stands."""
        concluded = await self._conclude(event.subject, outcome, announced=True)
        if concluded is not None:
            return concluded
        early = Analysis(job_id=event.subject, traceparent=event.traceparent, outcome=outcome)
        if await self._analyses.insert(early):
            return early
        recorded = await self._analyses.find(event.subject)
        if recorded is None or recorded.outcome is None:
            raise AnalysisChangedError(event.subject)
        return recorded

    async def _conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        concluded = await self._analyses.conclude(job_id, outcome, announced=announced)
        if concluded is not None and not concluded.waiting:
            self._room.give_back()
        return concluded

    async def _ask(self, analysis: Analysis) -> Event | None:
        """Ask for an analysis as it is recorded, record what comes of it, and return what to tell then."""
        token_id, s3_url = analysis.token_id or "", analysis.s3_url or ""
        try:
            await self._server.request(analysis.job_id, token_id, s3_url, analysis.attempt, analysis.reference)
        except AnalysisRefusedError as error:
            log.warning("analysis refused", reason=str(error))
            # For one that waited, no redelivered message would publish the refusal after a crash.
            announced = not analysis.waiting
            outcome = Outcome.failed(FailureCode.ANALYSIS_REFUSED, by="request")
            won = await self._conclude(analysis.job_id, outcome, announced=announced)
            return telling.told(won) if won is not None else await self._standing(analysis.job_id)
        except AnalysisNotTakenError as error:
            return await self._wait(analysis, error)
        self._room.taken_on()
        if not analysis.waiting:
            return telling.requested(analysis)
        asked = replace(analysis, waiting=False, deadline=datetime.now(UTC) + self._timeout, failures=0)
        if await self._analyses.reschedule(analysis, asked):
            return telling.requested(asked)
        return await self._standing(analysis.job_id)

    async def _wait(self, analysis: Analysis, error: AnalysisNotTakenError) -> Event | None:
        """Have an analysis that was not taken on wait for its next try, which uses no attempt up."""
        later, seconds = _after(analysis, error)
        log.warning("analysis not taken on", reason=str(error), failures=later.failures, delay_seconds=seconds)
        if isinstance(error, AnalysisServerBusyError):
            await self._room.busy(seconds, self._analyses.count_asked)
        if not await self._analyses.reschedule(analysis, later):
            return await self._standing(analysis.job_id)
        if not analysis.waiting:
            self._room.give_back(not_taken=True)
        return telling.stands(later)

    async def _standing(self, job_id: str) -> Event | None:
        """Tell what has become of an analysis that was changed meanwhile."""
        found = await self._analyses.find(job_id)
        return None if found is None else telling.stands(found)


def _outcome(event: AnalysisWebhookReceived) -> Outcome | webhook.Interim:
    if event.data.body is None:
        return Outcome.failed(FailureCode.RESULT_TOO_LARGE, by=event.id)
    said = webhook.outcome(event.data.body)
    if isinstance(said, webhook.Interim):
        return said
    if isinstance(said, webhook.Success):
        return Outcome.completed(events.to_json(said.result), by=event.id)
    log.warning("analysis failed", code=said.code, detail=said.detail)
    return Outcome.failed(said.code, by=event.id)


def _after(analysis: Analysis, error: AnalysisNotTakenError) -> tuple[Analysis, float]:
    """Return an analysis as it waits after it was not taken on, and how many seconds it, or a busy server, rests."""
    failures, at_least = analysis.failures, error.retry_after or 0.0
    if isinstance(error, AnalysisServerFailedError):
        failures += 1
        seconds = max(_failure_delay(failures), at_least)
    elif isinstance(error, AnalysisServerUnavailableError) and error.asked:
        # A few recordings that it cannot bear must not make the server look away all the time.
        failures += 1
        seconds = max(PAUSE_SECONDS, min(_failure_delay(failures), LONGEST_PAUSE_SECONDS), at_least)
    else:
        seconds = max(PAUSE_SECONDS, at_least)
    # A busy server may have room for it as soon as something ends, unless it has said when to come back.
    pause = at_least if isinstance(error, AnalysisServerBusyError) else seconds
    deadline = datetime.now(UTC) + timedelta(seconds=pause)
    return replace(analysis, waiting=True, deadline=deadline, failures=failures), seconds


def _failure_delay(failures: int) -> float:
    """Return the seconds to wait after so many failures; those that failed together come back apart."""
    longest = FAILURE_DELAYS[min(failures, len(FAILURE_DELAYS)) - 1]
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _cache_key(event: AudioStored, version: str) -> str:
    """Return what an analysis depends on, as one key: the bytes, the token, its reference and the analysis server."""
    reference = event.data.reference
    parts = (event.data.sha256, event.data.token_id, version, *([] if reference is None else [reference.revision]))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
