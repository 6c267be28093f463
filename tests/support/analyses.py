"""The analyzer-bridge's collection in memory, for unit tests: it makes the same conditional changes as the real one."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby

from analyzer_bridge.analysis import Analysis, AnalysisStatus, CachedResult, Outcome


@dataclass
class StoredAnalysis:
    """One document of the collection."""

    analysis: Analysis
    announced: bool | None = None

    @property
    def status(self) -> AnalysisStatus:
        """The analysis's status."""
        return self.analysis.status


class Analyses:
    """The collection. Every call first lets other tasks run.

    `turns` counts the calls, `writes` those that may change something.
    """

    def __init__(self) -> None:
        self.kept: dict[str, StoredAnalysis] = {}
        self.turns = self.writes = 0

    async def prepare(self) -> None:
        """Do nothing: there are no indexes."""

    async def insert(self, analysis: Analysis) -> bool:
        """Store a new analysis; False when the job already has one."""
        await self.turn(writes=True)
        if analysis.job_id in self.kept:
            return False
        self.kept[analysis.job_id] = StoredAnalysis(analysis)
        return True

    async def find(self, job_id: str) -> Analysis | None:
        """Return the job's analysis; None when there is none."""
        await self.turn()
        return self.of(job_id) if job_id in self.kept else None

    async def cached(self, cache_key: str) -> CachedResult | None:
        """Return the result of an earlier analysis under this key; None when there is none."""
        await self.turn()
        return next(self._results(cache_key), None)

    async def cached_of(self, cache_key: str, owner: str | None) -> CachedResult | None:
        """Return the result of an earlier analysis of this owner's under this key; None when there is none."""
        await self.turn()
        return next((one for one in self._results(cache_key) if one.owner == owner), None)

    async def describe(self, analysis: Analysis) -> None:
        """Add the recording's data to an analysis; leave one that was purged as it is."""
        await self.turn(writes=True)
        kept = self.kept.get(analysis.job_id)
        if kept is not None and kept.status != AnalysisStatus.PURGED:
            kept.analysis = replace(
                kept.analysis,
                traceparent=analysis.traceparent,
                token_id=analysis.token_id,
                metadata=analysis.metadata,
                owner=analysis.owner,
                s3_url=analysis.s3_url,
                cache_key=analysis.cache_key,
                reference=analysis.reference,
            )

    async def reschedule(self, analysis: Analysis, later: Analysis) -> bool:
        """Write `later`'s waiting, attempt, deadline and failures if it is still as `analysis`; tell whether it was."""
        await self.turn(writes=True)
        kept = self.kept.get(analysis.job_id)
        if kept is None or (kept.status, kept.analysis.deadline) != (analysis.status, analysis.deadline):
            return False
        kept.analysis = replace(
            kept.analysis,
            waiting=later.waiting,
            attempt=later.attempt,
            deadline=later.deadline,
            failures=later.failures,
        )
        return True

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of an analysis that has none, and return it; None when there is none."""
        await self.turn(writes=True)
        kept = self.kept.get(job_id)
        if kept is None or kept.analysis.outcome is not None:
            return None
        kept.analysis, kept.announced = replace(kept.analysis, outcome=outcome), announced
        return kept.analysis

    async def unannounced(self, limit: int) -> list[Analysis]:
        """Return analyses whose outcome was not announced."""
        await self.turn()
        return [kept.analysis for kept in self.kept.values() if kept.announced is False][:limit]

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses that were asked for and whose deadline has passed."""
        await self.turn()
        return [one for one in self._of(AnalysisStatus.PENDING) if one.deadline and one.deadline < now][:limit]

    async def due(self, now: datetime, limit: int, after: str | None) -> list[Analysis]:
        """Return analyses that wait and are to be asked for: one of each owner in turn, then the next one of each."""
        await self.turn()
        due = [one for one in self._of(AnalysisStatus.WAITING) if one.deadline and one.deadline <= now]
        places: list[tuple[int, bool, str, Analysis]] = []
        for owner, queue in groupby(sorted(due, key=_place), lambda one: one.owner or ""):
            was_before = owner <= (after or "")
            places += [(number, was_before, owner, one) for number, one in enumerate(queue)]
        return [one for *_, one in sorted(places, key=lambda place: place[:3])][:limit]

    async def count_asked(self, limit: int) -> int:
        """Return how many analyses were asked for and have not ended; `limit` if there are more."""
        await self.turn()
        return min(len([one for one in self._of(AnalysisStatus.PENDING) if one.deadline]), limit)

    async def count_waiting(self, limit: int) -> int:
        """Return how many analyses wait; `limit` if there are more."""
        await self.turn()
        return min(len(self._of(AnalysisStatus.WAITING)), limit)

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""
        await self.turn(writes=True)
        if self.kept[job_id].announced is False:
            self.kept[job_id].announced = True

    async def forget(self, job_id: str) -> None:
        """Replace the job's analysis by a mark that it was purged."""
        await self.turn(writes=True)
        self.kept[job_id] = StoredAnalysis(Analysis(job_id, "", outcome=Outcome(AnalysisStatus.PURGED, by="purge")))

    def of(self, job_id: str) -> Analysis:
        """What is kept of a job now."""
        return self.kept[job_id].analysis

    def pass_deadline(self, job_id: str) -> Analysis:
        """Move an analysis's deadline into the past."""
        kept = self.kept[job_id]
        assert kept.analysis.deadline is not None
        kept.analysis = replace(kept.analysis, deadline=datetime.now(UTC) - timedelta(seconds=1))
        return kept.analysis

    def _results(self, cache_key: str) -> Iterator[CachedResult]:
        for one in (kept.analysis for kept in self.kept.values() if kept.analysis.cache_key == cache_key):
            if one.outcome is not None and one.outcome.result_json is not None:
                yield CachedResult(one.job_id, one.owner, one.outcome.result_json)

    def _of(self, status: AnalysisStatus) -> list[Analysis]:
        return [kept.analysis for kept in self.kept.values() if kept.status == status]

    async def turn(self, *, writes: bool = False) -> None:
        await asyncio.sleep(0)
        self.turns += 1
        self.writes += writes


def _place(analysis: Analysis) -> tuple[str, datetime]:
    return analysis.owner or "", analysis.place
