"""Which jobs can be told again, and the event that tells them: the one that is kept, or what can be rebuilt of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from contracts import events, topology
from contracts.events import Event, InvalidEventError, UploadReceived, UploadReceivedData
from contracts.job import Job, is_terminal
from sorictl import SOURCE

UNKNOWN_SIZE = 1
"""Nothing that handles upload.received reads the size; the contract wants one."""


class Broker(Protocol):
    """What is needed of the broker."""

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        """Return once a repeat of the event lies safely in this queue alone."""


@dataclass(frozen=True)
class Choice:
    """Of jobs that were named: the events that tell them again, and for each that is not, a sentence that says why."""

    events: list[UploadReceived] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)


def choose(job_ids: Sequence[str], known: Mapping[str, Job]) -> Choice:
    """Decide which of these jobs are told again; one that is named twice counts once."""
    choice = Choice()
    for job_id in dict.fromkeys(job_ids):
        event = _event_or_refusal(known.get(job_id))
        if isinstance(event, str):
            choice.refusals[job_id] = event
        else:
            choice.events.append(event)
    return choice


async def redrive(broker: Broker, chosen: Sequence[UploadReceived]) -> None:
    """Tell these again to the uploader alone, which begins each job's way anew: what was done is told, not repeated."""
    for event in chosen:
        await broker.redrive(event, topology.UPLOADER_UPLOAD_RECEIVED)


def rebuilt(job: Job) -> UploadReceived:
    """Return the event of a job whose event is kept nowhere any more, with the id that it had.

    Four things of it are lost: the object in the inbox, if the upload had an idempotency key (its name ended at
    random); the size; what the recording is to be compared with; and the sender. That matters only to a recording that
    the uploader has not stored, or whose analysis the bridge has not recorded. Unless the lost event itself still comes
    first, an object under another name is rejected as missing, and what is found is analysed without a comparison.
    """
    data = UploadReceivedData(
        token_id=job.token_id,
        metadata=job.metadata,
        inbox_key=f"inbox/{job.job_id}",
        size_bytes=UNKNOWN_SIZE,
        sha256=job.sha256,
    )
    event = UploadReceived.new(job.job_id, data, source=SOURCE, traceparent=job.traceparent)
    return event.model_copy(update={"time": job.created_at})


def _event_or_refusal(job: Job | None) -> UploadReceived | str:
    if job is None:
        return "there is no such job."
    if is_terminal(job.view.status):
        return f"it has ended ({job.view.status.value})."
    if job.cancel_asked_at is not None or job.purge_asked_at is not None:
        return f"it is to be {'purged' if job.purge_asked_at is not None else 'cancelled'}."
    if job.upload_received is None:
        return "its event is not kept; `sorictl setup` rebuilds those of earlier versions."
    return _decoded(job.upload_received)


def _decoded(kept: str) -> UploadReceived | str:
    try:
        event = events.decode(kept.encode())
    except InvalidEventError as error:
        return f"its event cannot be read ({error})."
    return event if isinstance(event, UploadReceived) else f"its event is {event.type}, not {UploadReceived.TYPE}."
