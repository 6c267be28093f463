"""Exchanges, queues and retry delays on RabbitMQ: pure data that every service declares the same."""

import random
from dataclasses import dataclass
from typing import Any, Literal

from contracts import events
from contracts.events import Event

Service = Literal["gateway", "uploader", "analyzer-bridge", "notifier"]
SERVICES: tuple[Service, ...] = ("gateway", "uploader", "analyzer-bridge", "notifier")

EVENTS_EXCHANGE = "sori.events"
"""Durable topic exchange; the routing key is the event's type."""
PROGRESS_EXCHANGE = "sori.progress"
"""Durable fan-out exchange for job.progressed; each notifier replica has an exclusive queue on it."""

ATTEMPT_HEADER = "x-sori-attempt"
FIRST_FAILURE_HEADER = "x-sori-first-failure"
LAST_FAILURE_HEADER = "x-sori-last-failure"
REASON_HEADER = "x-sori-reason"
SERVICE_VERSION_HEADER = "x-sori-service-version"
REPLAYS_HEADER = "x-sori-replays"
"""How often an operator has put the message back into its queue."""

MAX_ATTEMPTS = 12
"""How often a message is tried before it becomes a dead letter; with RETRY_DELAYS about eight minutes."""
CRASHES_BEFORE_DEAD_LETTER = 50
"""How often a message may be redelivered without an outcome, as when it kills its subscriber."""


@dataclass(frozen=True)
class RetryDelay:
    """A queue in which messages wait before they go back to the queue they came from."""

    seconds: int

    @property
    def name(self) -> str:
        """Name of the waiting queue, and of the fan-out exchange in front of it."""
        return f"sori.retry.{self.seconds}s"

    @property
    def arguments(self) -> dict[str, Any]:
        """Queue arguments. The exchange in front keeps the routing key: the name of the queue to go back to."""
        return {
            "x-queue-type": "quorum",
            "x-message-ttl": self.seconds * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


RETRY_DELAYS = tuple(RetryDelay(seconds) for seconds in (1, 2, 5, 15, 60))


@dataclass(frozen=True)
class Queue:
    """A service's queue for one event, with the dead letters behind it."""

    service: Service
    event: type[Event]

    @property
    def name(self) -> str:
        """`<service>.<event>`, e.g. analyzer-bridge.audio-stored."""
        return f"{self.service}.{self.event.TYPE.rsplit('.', 1)[0].replace('.', '-')}"

    @property
    def dead_name(self) -> str:
        """Name of the queue that keeps this queue's dead letters."""
        return f"{self.name}.dead"

    @property
    def routing_key(self) -> str:
        """The event's type, by which the queue is bound to the exchange."""
        return self.event.TYPE

    @property
    def arguments(self) -> dict[str, Any]:
        """Queue arguments; a message that keeps killing its subscriber ends among the dead letters."""
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": CRASHES_BEFORE_DEAD_LETTER,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


DEAD_ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum"}

UPLOADER_UPLOAD_RECEIVED = Queue("uploader", events.UploadReceived)
UPLOADER_JOB_PURGED = Queue("uploader", events.JobPurged)
BRIDGE_AUDIO_STORED = Queue("analyzer-bridge", events.AudioStored)
BRIDGE_WEBHOOK_RECEIVED = Queue("analyzer-bridge", events.AnalysisWebhookReceived)
BRIDGE_JOB_CANCELLED = Queue("analyzer-bridge", events.JobCancelled)
BRIDGE_JOB_EXPIRED = Queue("analyzer-bridge", events.JobExpired)
BRIDGE_JOB_PURGED = Queue("analyzer-bridge", events.JobPurged)
NOTIFIER_QUEUES = tuple(
    Queue("notifier", event)
    for event in (
        events.UploadReceived,
        events.AudioStored,
        events.UploadRejected,
        events.AnalysisDelayed,
        events.AnalysisRequested,
        events.AnalysisWebhookIgnored,
        events.AnalysisCompleted,
        events.AnalysisFailed,
        events.JobHeld,
        events.JobResumed,
        events.JobCancelled,
        events.JobPurged,
        events.JobExpired,
    )
)
QUEUES: tuple[Queue, ...] = (
    UPLOADER_UPLOAD_RECEIVED,
    UPLOADER_JOB_PURGED,
    BRIDGE_AUDIO_STORED,
    BRIDGE_WEBHOOK_RECEIVED,
    BRIDGE_JOB_CANCELLED,
    BRIDGE_JOB_EXPIRED,
    BRIDGE_JOB_PURGED,
    *NOTIFIER_QUEUES,
)

PUBLISHES: dict[Service, tuple[type[Event], ...]] = {
    "gateway": (events.UploadReceived, events.AnalysisWebhookReceived, events.JobCancelled, events.JobPurged),
    "uploader": (events.AudioStored, events.UploadRejected, events.JobHeld),
    "analyzer-bridge": (
        events.AnalysisDelayed,
        events.AnalysisRequested,
        events.AnalysisWebhookIgnored,
        events.AnalysisCompleted,
        events.AnalysisFailed,
        events.JobPurged,
        events.JobHeld,
    ),
    "notifier": (events.JobProgressed, events.JobExpired, events.JobHeld),
}
"""job.resumed comes from the operator's command."""


def held_step(queue: str, event_id: str, replays: int) -> str:
    """Return the step that a job.held event's id is derived from: the same message may be set aside after a replay."""
    return f"{queue}/{event_id}/{replays}" if replays else f"{queue}/{event_id}"


def retry_delay(attempt: int, at_least: float = 0.0) -> RetryDelay | None:
    """Return where a message waits whose `attempt`-th try (from 1) failed, or None when it has had its last.

    `at_least` is the seconds that whoever could not serve it asked for; the longest delay bounds it.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    growing = RETRY_DELAYS[min(attempt, len(RETRY_DELAYS)) - 1 :]
    return next((delay for delay in growing if delay.seconds >= at_least), RETRY_DELAYS[-1])


def jittered(delay: RetryDelay, at_least: float = 0.0) -> float:
    """Return the seconds to wait: half of the delay to all of it, so that what failed together returns apart."""
    shortest = min(max(delay.seconds / 2, at_least), delay.seconds)
    return random.uniform(shortest, delay.seconds)  # noqa: S311 - jitter, not a secret
