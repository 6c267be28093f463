"""The record of an analysis: what was asked of the analysis server for a job, and how it ended."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from contracts.events import JsonObject, Reference
from contracts.failures import FailureCode


class AnalysisStatus(StrEnum):
    """Where an analysis stands."""

    WAITING = "waiting"
    """Recorded, and not asked for yet: the analysis server has no room, or is away."""
    PENDING = "pending"
    """Asked for: the analysis server has taken the recording on, or is being asked for the first time."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Its job ended from outside, cancelled or expired: nothing is asked or published any more."""
    PURGED = "purged"
    """Its job was purged: nothing is asked or published any more, and only this mark is kept."""


@dataclass(frozen=True)
class Outcome:
    """How an analysis ended: with a result as JSON text, with the code of its failure, or stopped with neither."""

    status: AnalysisStatus
    result_json: str | None = None
    code: FailureCode | None = None
    cached: bool = False
    by: str | None = None
    """What ended it: the id of an event, which may be redelivered, or a word such as `deadline`."""

    @property
    def stopped(self) -> bool:
        """Tell whether the analysis ended because its job did, so that there is nothing to publish."""
        return self.status in {AnalysisStatus.CANCELLED, AnalysisStatus.PURGED}

    @classmethod
    def completed(cls, result_json: str, by: str, *, cached: bool = False) -> "Outcome":
        """Make the outcome of an analysis that has a result."""
        return cls(AnalysisStatus.COMPLETED, result_json=result_json, cached=cached, by=by)

    @classmethod
    def failed(cls, code: FailureCode, by: str) -> "Outcome":
        """Make the outcome of an analysis that will have no result."""
        return cls(AnalysisStatus.FAILED, code=code, by=by)


@dataclass(frozen=True)
class Analysis:
    """What was asked of the analysis server for a job, and how it ended."""

    job_id: str
    traceparent: str
    token_id: str | None = None
    s3_url: str | None = None
    cache_key: str | None = None
    reference: Reference | None = None
    attempt: int = 1
    waiting: bool = False
    """It has not been asked for yet, or not again since its deadline passed; or it had not when it ended."""
    deadline: datetime | None = None
    """When it is asked for, if it waits; else when it is asked for again, or given up.

    None where an earlier version had a message wait in the broker that will ask for it.
    """
    failures: int = 0
    """How often in a row the analysis server has failed with this recording."""
    metadata: JsonObject | None = None
    """The metadata that came with the recording: every event about it passes this on."""
    owner: str | None = None
    """Who the recording belongs to: every event about it passes this on too, and owners are asked for in turn.

    Those without one are one owner's together.
    """
    outcome: Outcome | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def place(self) -> datetime:
        """Where it waits among its owner's: by age, or by the end of its pause if the analysis server failed with it.

        So what rests in great numbers is behind what is due, and is not looked through.
        """
        return self.deadline if self.failures and self.deadline is not None else self.created_at

    @property
    def status(self) -> AnalysisStatus:
        """Where the analysis stands."""
        if self.outcome is not None:
            return self.outcome.status
        return AnalysisStatus.WAITING if self.waiting else AnalysisStatus.PENDING


@dataclass(frozen=True)
class CachedResult:
    """The result of an earlier analysis, as JSON text, with the job and the owner that it was made for."""

    job_id: str
    owner: str | None
    result_json: str

    def may_answer(self, owner: str | None) -> bool:
        """Tell whether this owner's recording may be answered with it.

        Anybody's may, unless the result names the job that it was made for: that is the owner's alone. All that an
        analysis server is told of one job (the recording's address, the webhook's) has its id in it.
        """
        named = (self.job_id, self.job_id.replace("-", ""))
        return owner == self.owner or not any(name in self.result_json.lower() for name in named)
