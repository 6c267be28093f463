"""The loop that tells again what stands still: what it tells, to whom, how often at most, and what an outage does."""

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.errors import BackEndError
from contracts import events
from contracts.events import Event, JobCancelled, JobPurged
from contracts.job import Job, Stage, Status
from gateway.availability import Availability
from gateway.jobs.removals import Ending
from gateway.redrive import loop
from gateway.redrive.loop import Redrive
from gateway.webhook import kept as kept_module
from gateway.webhook.kept import Webhooks
from tests.support.gateway_stores import Broker, Jobs, KeptWebhooks, Redrives
from tests.support.waiting import until_true
from tests.unit import stories

AFTER = timedelta(seconds=60)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def job(number: int = 0, *, received: bool = True, **fields: Any) -> Job:
    """A job of long ago whose time has come, seen by its subscribers or not."""
    event = stories.received(f"00000000-0000-4000-8000-{number:012}")
    made = Job.received(event, None, publish_at=LONG_AGO + timedelta(seconds=number))
    history = [*made.history, made.history[0].model_copy(update={"type": event.type})] if received else made.history
    view = made.view.model_copy(update={"updated_at": LONG_AGO})
    return made.model_copy(update={"created_at": LONG_AGO, "view": view, "history": history, **fields})


class Gateway:
    """The loop over jobs in memory."""

    def __init__(self, *jobs: Job, broker: Broker | None = None) -> None:
        self.jobs = Jobs(*jobs)
        self.webhooks = KeptWebhooks()
        self.broker = broker or Broker()
        self.redrives = Redrives(self.jobs)
        self.redrive = Redrive(self.redrives, self.webhooks, self.broker, AFTER)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.redrive.look()

    def job(self, number: int = 0) -> Job:
        return self.jobs.kept[job(number).job_id]

    def wait(self, number: int = 0) -> timedelta:
        """How long the job is left alone from now on."""
        publish_at = self.job(number).publish_at
        assert publish_at is not None
        return publish_at - datetime.now(UTC)


def webhook(number: int = 0) -> Event:
    data = events.AnalysisWebhookReceivedData(attempt=1, body={"status": "success", "result": {}})
    made = events.AnalysisWebhookReceived.new(
        job(number).job_id, data, source="gateway", traceparent=stories.TRACEPARENT
    )
    return made.model_copy(update={"time": LONG_AGO})


async def test_a_job_that_stands_still_is_told_to_the_uploader_alone() -> None:
    gateway = Gateway(job())
    await gateway.look(3)
    assert gateway.broker.published == []
    (event,) = gateway.broker.redriven
    assert event.id == stories.received(job().job_id).id
    assert gateway.job().redrives == 1
    assert gateway.job().redriven_at is not None
    assert timedelta(seconds=90) < gateway.wait() <= timedelta(seconds=120)


async def test_a_job_that_nobody_may_have_seen_is_told_to_all() -> None:
    gateway = Gateway(job(received=False))
    await gateway.look(3)
    (event,) = gateway.broker.published
    assert gateway.broker.redriven == []
    assert event.id == stories.received(job().job_id).id
    assert gateway.job().redriven_at is not None


@pytest.mark.parametrize("received", [True, False])
async def test_what_the_broker_does_not_take_is_due_again_after_a_second(received: bool) -> None:
    class Refusing(Broker):
        async def depths(self, names: object) -> dict[str, int]:  # noqa: ARG002 - as the protocol has it
            return {}

    broker = Refusing(failures=1)
    gateway = Gateway(job(received=received), broker=broker)
    await gateway.look()
    assert timedelta() < gateway.wait() <= timedelta(seconds=1)
    assert (gateway.job().redrives, gateway.job().redriven_at) == (0, None)


@pytest.mark.parametrize("received", [True, False])
async def test_nothing_is_claimed_while_the_broker_is_away(received: bool) -> None:
    gateway = Gateway(job(received=received), broker=Broker(failures=2))
    before = gateway.job()
    await gateway.look(2)
    assert gateway.job() == before
    await gateway.look()
    assert len(gateway.broker.published) + len(gateway.broker.redriven) == 1


@pytest.mark.parametrize(("waiting", "redriven", "first"), [(960, 1, 1), (961, 0, 1), (999, 0, 1), (1000, 0, 0)])
async def test_nothing_is_added_to_a_long_queue(waiting: int, redriven: int, first: int) -> None:
    gateway = Gateway(job(0), job(1, received=False))
    gateway.broker.waiting = waiting
    await gateway.look(2)
    assert (len(gateway.broker.redriven), len(gateway.broker.published)) == (redriven, first)


@pytest.mark.parametrize(("waiting", "told"), [(960, 1), (961, 0)])
async def test_a_job_told_before_that_nobody_has_seen_waits_for_shorter_queues(waiting: int, told: int) -> None:
    gateway = Gateway(job(received=False, redrives=1))
    gateway.broker.waiting = waiting
    await gateway.look(2)
    assert (len(gateway.broker.published), gateway.broker.redriven) == (told, [])


async def test_jobs_told_before_hold_up_no_job_that_nobody_was_told_of() -> None:
    gateway = Gateway(*(job(number, received=False, redrives=number % 2) for number in range(10)))
    gateway.broker.waiting = 990
    await gateway.look()
    assert [event.subject for event in gateway.broker.published] == [job(number).job_id for number in range(0, 10, 2)]


async def test_of_many_that_nobody_has_seen_a_queue_gets_no_more_than_it_holds() -> None:
    gateway = Gateway(*(job(number, received=False) for number in range(20)))
    gateway.broker.waiting = loop.MAX_QUEUED - 7
    await gateway.look()
    assert [event.subject for event in gateway.broker.published] == [job(number).job_id for number in range(7)]


async def test_fifty_jobs_a_second_are_told_again_and_any_number_for_the_first_time() -> None:
    gateway = Gateway(*(job(number, received=number >= 90) for number in range(200)))
    began = time.monotonic()
    await gateway.look(2)
    assert len(gateway.broker.published) == 90
    # The second look may tell those again that have fallen due by then: many on a busy machine.
    assert 50 <= len(gateway.broker.redriven) <= 51 + 50 * (time.monotonic() - began)


async def test_of_two_gateways_one_tells_a_job() -> None:
    gateway = Gateway(job(0), job(1, received=False))
    other = Redrive(gateway.redrives, gateway.webhooks, gateway.broker, AFTER)
    for _ in range(3):
        await gateway.look()
        await other.look()
    assert (len(gateway.broker.redriven), len(gateway.broker.published)) == (1, 1)


async def test_a_job_that_moved_is_only_looked_at_later() -> None:
    view = job().view.model_copy(update={"updated_at": datetime.now(UTC)})
    gateway = Gateway(job(redrives=4, redriven_at=LONG_AGO, view=view))
    await gateway.look(3)
    assert gateway.broker.redriven == []
    assert gateway.job().redrives == 0
    assert timedelta(seconds=50) < gateway.wait() <= timedelta(seconds=60)


async def test_a_held_job_waits_even_while_the_broker_is_away() -> None:
    view = job().view.model_copy(update={"updated_at": datetime.now(UTC), "stage": Stage.HELD})
    gateway = Gateway(job(view=view), broker=Broker(failures=9))
    await gateway.look()
    assert timedelta(minutes=59) < gateway.wait()


@pytest.mark.parametrize(("ending", "kind"), [(Ending.CANCEL, JobCancelled), (Ending.PURGE, JobPurged)])
async def test_a_cancel_and_a_purge_are_told_until_they_are_done(ending: Ending, kind: type[Event]) -> None:
    gateway = Gateway(job())
    await gateway.jobs.ask_end(ending, [job().job_id], LONG_AGO)
    await gateway.look(3)
    (first,) = gateway.broker.published
    assert isinstance(first, kind)
    assert gateway.broker.redriven == [], "the job is not told again, and the first word of its end is no repeat"
    gateway.jobs.kept[first.subject] = gateway.job().model_copy(update={"publish_at": LONG_AGO})
    await gateway.look()
    (again,) = gateway.broker.redriven
    assert (again.id, gateway.job().redrives) == (first.id, 2)
    assert gateway.wait() > timedelta(seconds=3 * 60)


async def test_a_cancel_is_done_when_the_job_has_ended_and_a_purge_is_not() -> None:
    ended = job().view.model_copy(update={"status": Status.COMPLETED})
    asked: dict[str, Any] = {"cancel_asked_at": LONG_AGO, "view": ended}
    gateway = Gateway(job(0, **asked), job(1, **asked, purge_asked_at=LONG_AGO))
    await gateway.look()
    assert [event.subject for event in gateway.broker.published] == [job(1).job_id]
    assert isinstance(gateway.broker.published[0], JobPurged)


async def test_what_else_is_kept_of_a_job_goes_before_its_purge_is_told() -> None:
    gateway = Gateway(job(0, purge_asked_at=LONG_AGO), job(1))
    forgotten: list[str] = []

    class Kept:
        async def forget(self, job_ids: Collection[str]) -> None:
            assert not gateway.broker.published
            forgotten.extend(job_ids)

    await Redrive(gateway.redrives, gateway.webhooks, gateway.broker, AFTER, kept=[Kept()]).look()
    assert forgotten == [job(0).job_id]


async def test_a_job_that_is_to_be_purged_loses_its_kept_webhooks() -> None:
    gateway = Gateway(job(0), job(1), broker=Broker(failures=2))
    for number in range(2):
        await gateway.webhooks.keep(webhook(number))
    await gateway.jobs.ask_end(Ending.PURGE, [job().job_id], LONG_AGO)
    await gateway.look()
    assert [kept.subject for kept in gateway.webhooks.kept.values()] == [job(1).job_id]


async def test_kept_webhooks_go_before_anything_else_the_oldest_first() -> None:
    gateway = Gateway(job(0, received=False), job(1))
    gateway.broker.waiting = 5000
    kept = [webhook(number) for number in range(30, 90)]
    for one in kept:
        await gateway.webhooks.keep(one)
    await gateway.jobs.ask_end(Ending.CANCEL, [job(1).job_id], LONG_AGO)
    await gateway.look()
    assert gateway.broker.published[: len(kept)] == kept
    assert gateway.webhooks.kept == {}
    assert isinstance(gateway.broker.published[-1], JobCancelled)


async def test_a_jobs_kept_webhooks_go_some_time_apart() -> None:
    """The bridge handles many messages at a time, in any order; the first that came must be the first that counts."""
    gateway = Gateway()
    first, other = webhook(), webhook(1)
    second = first.model_copy(update={"id": "another call"})
    for one in (first, second, other):
        await gateway.webhooks.keep(one)
    await gateway.look(2)
    assert gateway.broker.published == [first, other]
    wait = gateway.webhooks.held_back[second.id] - datetime.now(UTC)
    assert timedelta(seconds=9) < wait <= timedelta(seconds=10)
    gateway.webhooks.held_back.clear()
    await gateway.look()
    assert gateway.broker.published == [first, other, second]


@pytest.mark.parametrize("ending", Ending)
async def test_no_end_is_claimed_while_the_broker_is_away(ending: Ending) -> None:
    gateway = Gateway(job(), broker=Broker(failures=100))
    await gateway.jobs.ask_end(ending, [job().job_id], LONG_AGO)
    before = gateway.job()
    await gateway.look()
    assert gateway.job() == before


async def test_a_webhook_that_the_broker_refuses_does_not_hold_up_the_others() -> None:
    class Refusing(Broker):
        async def publish(self, event: Event, *, redriven: bool = False) -> None:
            if event.subject == job(1).job_id:
                raise BackEndError("RabbitMQ", "too large")
            await super().publish(event, redriven=redriven)

    gateway = Gateway(broker=Refusing())
    for number in range(3):
        await gateway.webhooks.keep(webhook(number))
    await gateway.look(2)
    assert gateway.broker.published == [webhook(0), webhook(2)]
    assert list(gateway.webhooks.kept.values()) == [webhook(1)]


@pytest.mark.parametrize("text", [None, "no event"])
async def test_a_job_without_an_event_counts_as_told_in_vain(text: str | None) -> None:
    """Else it could never expire."""
    gateway = Gateway(job(upload_received=text))
    await gateway.look(2)
    assert gateway.broker.redriven == []
    assert gateway.job().redriven_at is not None
    assert gateway.wait() > timedelta(minutes=59)


async def test_a_kept_webhook_stays_until_it_is_published() -> None:
    gateway = Gateway(broker=Broker(failures=1))
    await gateway.webhooks.keep(webhook())
    await gateway.look()
    assert list(gateway.webhooks.kept.values()) == [webhook()]
    await gateway.look()
    assert gateway.broker.published == [webhook()]


async def test_an_event_that_cannot_be_read_is_left_to_whoever_can() -> None:
    """As when a newer gateway wrote it."""
    text = (job().upload_received or "").replace("upload.received.v1", "upload.received.v9")
    gateway = Gateway(job(upload_received=text), job(1))
    await gateway.look(2)
    assert [event.subject for event in gateway.broker.redriven] == [job(1).job_id]
    assert gateway.wait() > timedelta(minutes=59)


async def test_what_is_asked_for_is_told_at_once() -> None:
    gateway = Gateway(job(publish_at=datetime.now(UTC) + timedelta(days=1)))
    gateway.redrive.start()
    try:
        await until_true(lambda: gateway.redrives.prepared == 1, "the first look")
        await gateway.jobs.ask_end(Ending.CANCEL, [job().job_id], datetime.now(UTC))
        gateway.redrive.look_soon()
        await until_true(lambda: bool(gateway.broker.published), "the cancel", limit_seconds=loop.LOOK_SECONDS / 2)
    finally:
        await gateway.redrive.stop()


def availability(is_up: Callable[[], bool]) -> Availability:
    async def check() -> bool:
        return is_up()

    return Availability({"RabbitMQ": check})


@pytest.mark.parametrize(("failures", "is_up"), [(1, True), (0, False)], ids=["publishing fails", "the broker is away"])
async def test_a_webhook_that_cannot_be_published_is_kept(failures: int, is_up: bool) -> None:
    kept, broker = KeptWebhooks(), Broker(failures)
    await Webhooks(kept, broker, availability(lambda: is_up)).take(webhook(), interim=False)
    assert (list(kept.kept.values()), broker.published) == ([webhook()], [])


async def test_a_webhook_whose_publish_takes_long_is_kept_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker has too much to do, and confirms it later or never."""

    class Slow(Broker):
        async def publish(self, event: Event, *, redriven: bool = False) -> None:
            await asyncio.Event().wait()
            await super().publish(event, redriven=redriven)

    monkeypatch.setattr(kept_module, "SOON_SECONDS", 0.01)
    kept = KeptWebhooks()
    await Webhooks(kept, Slow(), availability(lambda: True)).take(webhook(), interim=False)
    assert list(kept.kept.values()) == [webhook()]


async def test_a_webhook_that_can_be_published_is_not_kept() -> None:
    kept, broker = KeptWebhooks(), Broker()
    await Webhooks(kept, broker, availability(lambda: True)).take(webhook(), interim=False)
    assert (kept.kept, broker.published) == ({}, [webhook()])


async def test_a_webhook_that_is_neither_published_nor_kept_is_refused() -> None:
    kept = KeptWebhooks()
    kept.error = BackEndError("MongoDB", "down")
    with pytest.raises(BackEndError):
        await Webhooks(kept, Broker(1), availability(lambda: True)).take(webhook(), interim=False)


@pytest.mark.parametrize(("failures", "is_up"), [(1, True), (0, False)], ids=["publishing fails", "the broker is away"])
async def test_an_interim_webhook_is_never_kept_where_it_would_hold_up_the_end(failures: int, is_up: bool) -> None:
    kept, broker = KeptWebhooks(), Broker(failures)
    await Webhooks(kept, broker, availability(lambda: is_up)).take(webhook(), interim=True)
    assert (kept.kept, broker.published) == ({}, [])
    await Webhooks(kept, broker, availability(lambda: True)).take(webhook(), interim=True)
    assert (kept.kept, broker.published) == ({}, [webhook()])
