"""Exchanges, queues and retry delays on RabbitMQ: pure data, so that every service declares the same."""

import random
from dataclasses import dataclass
from typing import Any, Literal

from contracts import events
from contracts.events import Event

Service = Literal["gateway", "uploader", "analyzer-bridge", "notifier"]
SERVICES: tuple[Service, ...] = ("gateway", "uploader", "analyzer-bridge", "notifier")

EVENTS_EXCHANGE = "sori.events"
"""Durable topic exchange; the routing key is the event's type."""
PROGRESS_EXCHANGE = "sori.job-progress"
"""Durable direct exchange for job.progressed; the routing key is the job's partition.

Each notifier replica has an exclusive queue, which is bound to the partitions that the replica has listeners in.
"""
PARTITIONS = tuple(f"{number:02x}" for number in range(256))
"""Shares of the job ids, by their first two hex digits; the edge reads the same digits."""

ATTEMPT_HEADER = "x-sori-attempt"
WAITS_HEADER = "x-sori-waits"
"""How often the message has waited for something that was away, which is not counted as a try."""
FIRST_FAILURE_HEADER = "x-sori-first-failure"
LAST_FAILURE_HEADER = "x-sori-last-failure"
REASON_HEADER = "x-sori-reason"
SERVICE_VERSION_HEADER = "x-sori-service-version"
REDRIVE_HEADER = "x-sori-redrive"
"""Set on a message that repeats what was told before; it is tried once, because it is told again if it fails."""
REPLAYS_HEADER = "x-sori-replays"
"""How often an operator has put the message back into its queue."""

MAX_ATTEMPTS = 12
"""How often a message is tried before it becomes a dead letter, which takes some four to seven minutes."""
MAX_WAITS = 1500
"""How often a message waits for something that is away before it becomes a dead letter, which takes about a day."""
CRASHES_BEFORE_DEAD_LETTER = 50
"""How often a message may be redelivered without an outcome, as when it kills its subscriber."""
DEAD_LETTER_RETURNS = 1_000_000_000
"""How often a dead letter may be looked at, which returns it to its queue.

RabbitMQ 4 drops a message after 20 returns unless its queue has a limit of its own; 3.10 does not take -1 for none.
"""
DELIVERIES_HEADER = "x-delivery-count"
"""How often a quorum queue has delivered the message before."""


@dataclass(frozen=True)
class RetryDelay:
    """A queue in which messages wait before they go back to the queue they came from."""

    milliseconds: int

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.milliseconds / 1000

    @property
    def name(self) -> str:
        """Name of the waiting queue, and of the fan-out exchange in front of it."""
        return f"sori.retry.{self.milliseconds}ms"

    @property
    def arguments(self) -> dict[str, Any]:
        """Queue arguments. A message that expires keeps its routing key: the name of the queue that it returns to.

        No limit of deliveries: nobody takes messages from here.
        """
        return {
            "x-queue-type": "quorum",
            "x-message-ttl": self.milliseconds,
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


_RETRY_STEPS = tuple(tuple(RetryDelay(seconds * share) for share in (500, 750, 1000)) for seconds in (1, 2, 5, 15, 60))
"""Jitter is a choice among the queues of a step. A queue expires messages at its head only: if each message had its own
delay, all would wait for the one that came first."""
RETRY_DELAYS = tuple(sorted({delay for step in _RETRY_STEPS for delay in step}, key=lambda delay: delay.milliseconds))


@dataclass(frozen=True)
class Queue:
    """A service's queue for one event, with the dead letters behind it."""

    service: Service
    event: type[Event]

    @property
    def name(self) -> str:
        """`<service>.<event's type>`, e.g. analyzer-bridge.audio.stored.v1."""
        return f"{self.service}.{self.event.TYPE}"

    @property
    def former_name(self) -> str:
        """Its name in earlier versions, whose dead letters the broker would not keep for ever."""
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
        """Queue arguments; a message that keeps killing its subscriber becomes a dead letter."""
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": CRASHES_BEFORE_DEAD_LETTER,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


DEAD_ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DEAD_LETTER_RETURNS}

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
        events.AnalysisProgressed,
        events.AnalysisCompleted,
        events.AnalysisFailed,
        events.JobHeld,
        events.JobResumed,
        events.JobCancelled,
        events.JobPurged,
        events.AudioRemoved,
        events.AnalysisRemoved,
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

_ENDS_FROM_OUTSIDE = (events.JobCancelled, events.JobPurged, events.AudioRemoved, events.AnalysisRemoved)
QUEUES_ON_THE_WAY: tuple[str, ...] = (
    *(queue.name for queue in QUEUES if queue.event not in _ENDS_FROM_OUTSIDE),
    *(delay.name for delay in RETRY_DELAYS),
)
"""Names of the queues in which a message that is to move a job may wait, those of its retries among them."""

RETIRED_EXCHANGES: tuple[str, ...] = ("sori.progress", *(f"{queue.former_name}.witness" for queue in QUEUES))
"""Exchanges of earlier versions, which `sorictl setup` removes."""
RETIRED_QUEUES: dict[str, str] = {queue.former_name: queue.name for queue in QUEUES}
"""Queues of earlier versions, and for each the queue that takes over what lies in it.

`sorictl setup` moves the messages and removes the queue. A queue whose arguments change gets a new name, and its old
name stands here.
"""

_QUEUES_FOR = {
    routed.routing_key: tuple(queue for queue in QUEUES if queue.routing_key == routed.routing_key) for routed in QUEUES
}

PUBLISHES: dict[Service, tuple[type[Event], ...]] = {
    "gateway": (events.UploadReceived, events.AnalysisWebhookReceived, events.JobCancelled, events.JobPurged),
    "uploader": (events.AudioStored, events.UploadRejected, events.AudioRemoved, events.JobHeld),
    "analyzer-bridge": (
        events.AnalysisDelayed,
        events.AnalysisRequested,
        events.AnalysisWebhookIgnored,
        events.AnalysisProgressed,
        events.AnalysisCompleted,
        events.AnalysisFailed,
        events.JobPurged,
        events.AnalysisRemoved,
        events.JobHeld,
    ),
    "notifier": (events.JobProgressed, events.JobExpired, events.JobHeld),
}
"""The events that each service publishes; job.resumed comes from the operator's command."""


def partition(job_id: str) -> str:
    """Return the one of PARTITIONS that a job belongs to."""
    return job_id[:2]


def queues_for(event_type: str) -> tuple[Queue, ...]:
    """Return the queues that events of this type go to."""
    return _QUEUES_FOR.get(event_type, ())


def held_step(queue: str, event_id: str, replays: int) -> str:
    """Return the step that a job.held event's id is derived from.

    `replays` is part of it, because the same message may be set aside again after a replay.
    """
    return f"{queue}/{event_id}/{replays}" if replays else f"{queue}/{event_id}"


def retry_delay(attempt: int, at_least: float = 0.0) -> RetryDelay | None:
    """Return the delay after a message's `attempt`-th try (from 1) has failed, or None when that was its last.

    `at_least` is the seconds that the server which failed has asked for; the longest delay bounds it. Messages that
    failed together get different delays at random, so that they do not all return at once.
    """
    return None if attempt >= MAX_ATTEMPTS else _delay(attempt, at_least)


def patient_delay(waits: int, at_least: float = 0.0) -> RetryDelay | None:
    """Return the delay of a message that waits for something that is away, after `waits` earlier waits.

    None when it has waited MAX_WAITS times. `at_least` is as for `retry_delay`.
    """
    return None if waits >= MAX_WAITS else _delay(waits + 1, at_least)


def _delay(attempt: int, at_least: float) -> RetryDelay:
    for step in _RETRY_STEPS[min(attempt, len(_RETRY_STEPS)) - 1 :]:
        if long_enough := [delay for delay in step if delay.seconds >= at_least]:
            return random.choice(long_enough)  # noqa: S311 - jitter, not a secret
    return RETRY_DELAYS[-1]
