"""The way of a job in one process: the services' real code on the proven stand-ins, on time that a test lets pass.

Each service has replicas, which share what the real ones share: MongoDB, S3 and RabbitMQ.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from random import Random
from typing import IO, Any
from unittest.mock import patch
from uuid import UUID

import gateway.uploads.idempotency
import gateway.uploads.submissions
from analyzer_bridge.analysis import Analysis, AnalysisStatus
from analyzer_bridge.bridge import Bridge
from analyzer_bridge.deadlines import Deadlines
from analyzer_bridge.errors import (
    AnalysisRefusedError,
    AnalysisServerBusyError,
    AnalysisServerFailedError,
    AnalysisServerUnavailableError,
)
from analyzer_bridge.room import Room
from analyzer_bridge.subscribers import subscribe as subscribe_bridge
from analyzer_bridge.waiting import Waiting
from chassis.errors import BackEndError
from contracts import events, topology
from contracts.addresses import CatalogueAddresses
from contracts.audio import UNKNOWN_TYPE
from contracts.events import AudioInfo, Event, JobProgressed, JsonObject, Reference
from contracts.failures import FailureCode
from contracts.job import Job, is_terminal
from decoding.errors import RejectedError
from gateway.availability import Availability
from gateway.jobs.removals import Ending
from gateway.redrive.loop import Redrive
from gateway.references.references import References
from gateway.uploads.idempotency import Idempotency, JobGoneError, KeyInUseError, KeyReusedError
from gateway.uploads.inbox_sweeper import InboxSweeper
from gateway.uploads.publishing import Publishing
from gateway.uploads.submissions import Dubbed, Submissions
from gateway.webhook.calls import call_of, webhook_event
from gateway.webhook.kept import Webhooks
from notifier.expiry import Expiry
from notifier.hub import Hub
from notifier.progress import Progress
from notifier.subscribers import subscribe as subscribe_notifier
from tests.support import gateway_stores, notifier_jobs, uploader_bucket
from tests.support.analyses import Analyses
from tests.support.queues import Message, Queues
from tests.support.references import Decoder, Records, Tokens
from tests.unit import stories
from tests.unit.way.faults import Fault, Faults, KilledError, Process, Service
from tests.unit.way.virtual_time import VirtualLoop
from uploader.subscribers import subscribe as subscribe_uploader
from uploader.uploads import Uploads

REDRIVE_AFTER = timedelta(seconds=2)
ANALYSIS_TIMEOUT = timedelta(seconds=20)
ATTEMPTS = 3
JOB_MAX_AGE = timedelta(hours=6)
"""Longer than a run: what goes well is never given up."""
LEASE_SECONDS = 30.0
PUMP_SECONDS = 0.5
AT_ONCE = 4
SETTLE_SECONDS = 1800.0
"""Longer than all waits in a row that one job may meet after a fault."""
REPLICAS: tuple[Service, ...] = ("gateway", "gateway", "uploader", "uploader", "analyzer-bridge", "analyzer-bridge")
KINDS = ("good", "bad", "refused", "failing")
"""How a recording ends: with a result, rejected, refused by the analysis server, or failed by it."""


class LostError(AssertionError):
    """A job has not ended although everything was there and much time has passed."""


@dataclass
class Request:
    """What the analysis server has accepted."""

    job_id: str
    attempt: int
    kind: str
    text: str
    accepted_at: float
    called_at: float | None = None

    def was_late(self, now: float) -> bool:
        """Tell whether its deadline passed before it was called back about."""
        return (now if self.called_at is None else self.called_at) > self.accepted_at + ANALYSIS_TIMEOUT.total_seconds()


@dataclass
class Told:
    """What is known of a job from outside."""

    kind: str
    text: str
    ending: set[Ending] = field(default_factory=set)
    excuses: int = 0
    """How often more than once the analysis server may be asked for it."""
    ends: set[str] = field(default_factory=set)


class Replica(Process):
    """A process with the queues that it consumes."""

    def __init__(self, service: Service, faults: Faults, began: datetime) -> None:
        super().__init__(service, faults)
        self.began = began
        self.deliver: dict[str, Callable[[Any], Awaitable[None]]] = {}
        self.parts: list[object] = []


class SharedQueues(Queues):
    """RabbitMQ: what waits in a retry queue comes back when its time has come."""

    def __init__(self, loop: VirtualLoop, lost: Callable[[Message], None]) -> None:
        super().__init__()
        self._loop = loop
        self._lost = lost
        self.doomed: Counter[str] = Counter()
        """How many of the next messages of a queue are lost."""
        self.delayed = 0

    def put(self, queue: topology.Queue, event: Event, **headers: Any) -> None:
        """Put an event into a queue."""
        super().put(queue, event, **headers)
        if self.doomed[queue.name]:
            self.doomed[queue.name] -= 1
            self._lost(self.queued.pop())

    async def pass_on(self, message: Message, exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
        """Publish a message again elsewhere."""
        await super().pass_on(message, exchange, routing_key, headers)
        if exchange:
            again = self.queued.pop()
            self.delayed += 1
            self._loop.call_later(again.waits[-1][1], self._come_back, again)

    def _come_back(self, message: Message) -> None:
        self.delayed -= 1
        self.queued.append(message)


class Link:
    """RabbitMQ as one process sees it."""

    def __init__(self, world: "World", replica: Replica) -> None:
        self._world = world
        self._replica = replica

    def subscribe(self, queue: topology.Queue, deliver: Callable[[Any], Awaitable[None]]) -> None:
        """Hand messages of `queue` to this process too."""

        async def until_acknowledged(message: Any) -> None:
            await deliver(message)
            await self._replica.step("RabbitMQ")

        self._replica.deliver[queue.name] = until_acknowledged
        self._world.queues.subscribe(queue, partial(self._world.hand_over, queue.name))

    def fan_out(self, *_: object) -> "Link":
        """Listen to what replicas tell; nobody listens here."""
        return self

    async def bind(self, key: str) -> None:
        """Hear what is told with this key; nobody listens here."""

    def unbind(self, key: str) -> None:
        """Hear it no more."""

    async def tell(self, event: Event, key: str) -> None:
        """Reach every replica."""
        await self._replica.step("RabbitMQ")
        assert isinstance(event, JobProgressed)
        assert key == topology.partition(event.subject)
        self._world.see(event)

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        """Publish an event."""
        await self._do(self._world.queues.publish(event, redriven=redriven))

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        """Put a repeat into one queue."""
        await self._do(self._world.queues.redrive(event, queue))

    async def pass_on(self, message: Any, exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
        """Publish a message again elsewhere."""
        await self._do(self._world.queues.pass_on(message, exchange, routing_key, headers))

    async def depths(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many messages wait."""
        await self._replica.step("RabbitMQ")
        return await self._world.queues.depths(names)

    async def is_up(self) -> bool:
        """Tell whether the broker answers."""
        await self._replica.step("RabbitMQ")
        return True

    async def consumes(self) -> bool:
        """Tell whether this process takes messages from its queues."""
        await self._replica.step("RabbitMQ")
        return True

    def consuming_since(self) -> datetime | None:
        """Return since when it does."""
        away = "RabbitMQ" in self._world.faults.away
        return None if away else max(self._replica.began, self._world.rabbitmq_since)

    async def _do(self, doing: Coroutine[Any, Any, None]) -> None:
        try:
            await self._replica.step("RabbitMQ")
        except BaseException:
            doing.close()
            raise
        await doing
        await self._replica.step("RabbitMQ")


class File:
    """A recording that arrives."""

    def __init__(self, content: bytes) -> None:
        self.filename: str | None = "a.wav"
        self.metadata: JsonObject | None = {"user": 7}
        self._content = content

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes."""
        yield self._content


class Inbox(gateway_stores.Bucket):
    """S3 as the gateway uses it; it knows when an object was written."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    async def write(self, key: str, chunks: AsyncIterator[bytes], content_type: str = UNKNOWN_TYPE) -> None:
        """Store all of the chunks."""
        await super().write(key, chunks, content_type)
        self.written[key] = self._loop.now()


class Probe:
    """Decodes recordings: their first word says what they are."""

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        """Return what was measured."""
        if content.read().startswith(b"bad"):
            raise RejectedError(FailureCode.NOT_AUDIO)
        return stories.AUDIO


class AskingBridge(Bridge):
    """A bridge that is excused: what it was asking for when it failed is asked for once more."""

    world: "World"

    async def ask_waiting(self, due: Analysis) -> Event | None:
        """Ask for an analysis that waits."""
        before = self.world.server.asked(due.job_id)
        try:
            return await super().ask_waiting(due)
        except BaseException:
            if self.world.server.asked(due.job_id) > before:
                self.world.told[due.job_id].excuses += 1
            raise


class AnalysisServer:
    """The analysis server: takes recordings on, and calls back about each when the test says so."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.answers: str = "accepts"
        """Or it is `away`, `busy`, or `fails`."""
        self.known_away = False
        self.swallows_answers = 0
        self.calls_before_answering = 0
        self.accepted: list[Request] = []

    @property
    def open(self) -> list[Request]:
        """What it has not called back about."""
        return [request for request in self.accepted if request.called_at is None]

    def asked(self, job_id: str) -> int:
        """Return how many requests for a job it has accepted."""
        return sum(request.job_id == job_id for request in self.accepted)

    def away_for(self) -> float:
        """Return for how long the bridge leaves it alone."""
        return 3.0 if self.known_away and self.answers == "away" else 0.0

    async def request(
        self, job_id: str, token_id: str, s3_url: str, attempt: int, reference: Reference | None = None
    ) -> None:
        """Take a recording on, or not."""
        assert (token_id, s3_url, reference) == (stories.TOKEN_ID, f"s3://sori/audio/{job_id}.wav", None)
        if self.answers == "away":
            self.known_away = True
            raise AnalysisServerUnavailableError("ConnectError")
        if self.answers == "busy":
            raise AnalysisServerBusyError("answered 503", 2.0)
        if self.answers == "fails":
            raise AnalysisServerFailedError("answered 500")
        told = self._world.told[job_id]
        if told.kind == "refused":
            raise AnalysisRefusedError("answered 400")
        now = self._world.loop.time()
        before = [request for request in self.accepted if request.job_id == job_id]
        if before and before[-1].attempt < attempt and before[-1].was_late(now):
            told.excuses += 1
        request = Request(job_id, attempt, told.kind, told.text, now)
        self.accepted.append(request)
        if self.calls_before_answering:
            self.calls_before_answering -= 1
            await self._world.call_back(request)
        if self.swallows_answers:
            self.swallows_answers -= 1
            told.excuses += 1
            raise AnalysisServerUnavailableError("ReadTimeout")


class World:
    """Everything; `redrives` says whether the gateways look at what stands still."""

    def __init__(self, seed: int, *, redrives: bool = True) -> None:
        self.loop = VirtualLoop()
        self.random = Random(seed)
        self.seen: Counter[str] = Counter()
        """What has happened, for statistics."""
        self.told: dict[str, Told] = {}
        self.by_key: dict[str, set[str]] = defaultdict(set)
        self.faults = Faults(self.random, self._note_fault)
        self.stopped: set[Service] = set()
        self._redrives = redrives
        self._stack = ExitStack()
        self._stack.enter_context(self.loop.as_everybodys_clock())
        ids = (UUID(int=number) for number in count(1))
        for module in (gateway.uploads.submissions, gateway.uploads.idempotency):
            self._stack.enter_context(patch.object(module, "uuid4", partial(next, ids)))
        self.loop.set_exception_handler(lambda *_: None)
        self.rabbitmq_since = self.loop.now()
        self.queues = SharedQueues(self.loop, self._lost)
        self.jobs = gateway_stores.Jobs()
        self.kept_webhooks = gateway_stores.KeptWebhooks()
        self.claims = gateway_stores.Claims()
        self.inbox = Inbox(self.loop)
        self.audio = uploader_bucket.Bucket({})
        self.audio.objects = self.inbox.objects
        self.notified = notifier_jobs.Jobs()
        self.notified.jobs = self.jobs.kept
        self.analyses = Analyses()
        self.server = AnalysisServer(self)
        self.gateways: dict[Replica, Gateway] = {}
        self.replicas: list[Replica] = []
        self.run(self._start_all())

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        """Do something to its end; what ran in the background goes on meanwhile, and stands still afterwards."""

        async def done() -> Any:
            answer = await doing
            self._start_anew()
            return answer

        return self.loop.run_until_complete(done())

    def close(self) -> None:
        """End everything."""
        for replica in self.replicas:
            replica.is_alive = False
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(_ended(tasks))
        self.loop.close()
        self._stack.close()

    # Processes.

    async def _start_all(self) -> None:
        for service in (*REPLICAS, "notifier", "notifier"):
            self._start(service)

    def _start(self, service: Service) -> None:
        replica = Replica(service, self.faults, self.loop.now())
        {
            "gateway": self._start_gateway,
            "uploader": self._start_uploader,
            "analyzer-bridge": self._start_bridge,
            "notifier": self._start_notifier,
        }[service](replica)
        self.replicas.append(replica)

    def _start_gateway(self, replica: Replica) -> None:
        self.gateways[replica] = Gateway(self, replica)
        if self._redrives:
            self.gateways[replica].redrive.start()

    def _start_uploader(self, replica: Replica) -> None:
        bucket = replica.reaching("S3", self.audio)
        subscribe_uploader(Link(self, replica), Uploads(bucket, Probe()), bucket)

    def _start_bridge(self, replica: Replica) -> None:
        analyses, link, room = replica.reaching("MongoDB", self.analyses), Link(self, replica), Room()
        server = replica.reaching("analysis server", self.server)
        bridge = AskingBridge(analyses, server, room, timeout=ANALYSIS_TIMEOUT, attempts=ATTEMPTS, version="1")
        bridge.world = self
        subscribe_bridge(link, bridge)
        deadlines = Deadlines(bridge, analyses, link, room, now=self.loop.now)
        waiting = Waiting(bridge, analyses, server, link, room)
        replica.parts += deadlines, waiting
        deadlines.start()
        waiting.start()

    def _start_notifier(self, replica: Replica) -> None:
        jobs, link = replica.reaching("MongoDB", self.notified), Link(self, replica)
        subscribe_notifier(link, Progress(jobs), Hub(jobs))
        expiry = Expiry(jobs, link, JOB_MAX_AGE)
        replica.parts.append(expiry)
        expiry.start()

    def _start_anew(self) -> None:
        """Start what has died, and was not stopped."""
        for replica in [one for one in self.replicas if not one.is_alive and one.service not in self.stopped]:
            self.replicas.remove(replica)
            self.gateways.pop(replica, None)
            if replica.service == "uploader":
                # What it was to delete it no longer knows of.
                self.audio.discarded.clear()
            self._start(replica.service)

    async def kill(self, service: Service) -> None:
        """Kill a replica of a service."""
        self._note_fault("death")
        self.random.choice([one for one in self.replicas if one.service == service]).is_alive = False

    def stop(self, service: Service) -> None:
        """Stop all replicas of a service, until all is to be there again."""
        self._note_fault("death")
        self.stopped.add(service)
        for replica in self.replicas:
            replica.is_alive = replica.is_alive and replica.service != service

    async def come_back(self) -> None:
        """Have all back ends there again, and all processes."""
        self.faults.forget_plan()
        if "RabbitMQ" in self.faults.away:
            self.rabbitmq_since = self.loop.now()
        self.faults.away.clear()
        self.stopped.clear()
        self._start_anew()

    def go_away(self, back_end: Fault) -> None:
        """Take a back end away."""
        assert back_end != "death"
        self._note_fault(back_end)
        self.faults.away.add(back_end)

    def _note_fault(self, fault: Fault) -> None:
        self.seen[f"fault: {fault}"] += 1

    # Messages.

    async def hand_over(self, queue: str, message: Message) -> None:
        """Have a replica handle a message."""
        if queue == topology.BRIDGE_AUDIO_STORED.name and _is_repeated(message):
            self.told[_job_of(message)].excuses += 1
        self.seen[f"handled: {queue}"] += 1
        able = [replica for replica in self.replicas if replica.is_alive and queue in replica.deliver]
        if not able:
            raise KilledError
        await self.random.choice(able).deliver[queue](message)

    async def deliver(self, queue: str) -> None:
        """Have the next message of a queue handled; it stays if that fails."""
        if queue not in self.deliverable():
            return
        try:
            await self.queues.handle_next(queue)
        except KilledError:
            self.seen["killed while it handled a message"] += 1
        except BackEndError as error:
            assert error.back_end == "RabbitMQ"  # noqa: PT017 - other errors are handled by the subscriber

    async def deliver_all(self) -> None:
        """Have messages handled, several at once, until none is left."""
        in_hand: set[asyncio.Task[None]] = set()
        while True:
            while len(in_hand) < AT_ONCE and (waiting := self.deliverable()):
                in_hand.add(asyncio.create_task(self.deliver(self.random.choice(waiting))))
                await asyncio.sleep(0)  # it takes its message
            if not in_hand:
                return
            done, in_hand = await asyncio.wait(in_hand, return_when=asyncio.FIRST_COMPLETED)
            for delivery in done:
                delivery.result()
            self._start_anew()

    def deliverable(self) -> list[str]:
        """Return the queue of each message that can be delivered now."""
        if "RabbitMQ" in self.faults.away:
            return []
        down = tuple(f"{service}." for service in self.stopped)
        return [message.queue for message in self.queues.queued if not message.queue.startswith(down)]

    def lose(self, queue: str, *, all_of_it: bool = False) -> None:
        """Acknowledge the next message of a queue without handling it, or all."""
        found = [message for message in self.queues.queued if message.queue == queue]
        for message in found if all_of_it else found[:1]:
            self._remove(message)
            self._lost(message)

    def _lost(self, message: Message) -> None:
        self.seen[f"lost: {message.queue}"] += 1
        if message.queue == topology.BRIDGE_WEBHOOK_RECEIVED.name:
            self.told[_job_of(message)].excuses += 1

    def _remove(self, message: Message) -> None:
        index = next(index for index, one in enumerate(self.queues.queued) if one is message)
        del self.queues.queued[index]

    def repeat(self, queue: str) -> None:
        """Have the next message of a queue delivered twice."""
        message = next(message for message in self.queues.queued if message.queue == queue)
        again = Message(message.queue, message.body, message.message_id, headers=dict(message.headers))
        again.redelivered = True
        self.queues.queued.append(again)

    def see(self, progressed: JobProgressed) -> None:
        """Note what listeners are told."""
        told = self.told[progressed.subject]
        if progressed.data.status != "processing":
            told.ends.add(f"{progressed.data.status} {progressed.data.error} {progressed.data.result_json}")

    # Users.

    def a_gateway(self) -> "Gateway":
        """Return one of those that are alive."""
        return self.random.choice(list(self.gateways.values()))

    async def upload(self, kind: str, text: str, key: str | None) -> str | None:
        """Upload a recording; return its job, None when it was not accepted."""
        known = set(self.jobs.kept)
        try:
            job_id = await self.a_gateway().upload(f"{kind} {text}".encode(), key)
        except (BackEndError, KilledError, KeyInUseError, JobGoneError, KeyReusedError) as error:
            self.seen[f"upload: {type(error).__name__}"] += 1
            job_id = None
        for inserted in set(self.jobs.kept) - known:
            self.told.setdefault(inserted, Told(kind, text))
        self._start_anew()
        if job_id is not None:
            self.seen["upload: accepted"] += 1
            if key is not None:
                self.by_key[key].add(job_id)
        return job_id

    async def end(self, ending: Ending, job_id: str) -> None:
        """Cancel or purge a job."""
        # Even when this fails it may have been noted.
        self.told[job_id].ending.add(ending)
        try:
            await self.a_gateway().end(ending, job_id)
            self.seen[f"asked: {ending}"] += 1
        except (BackEndError, KilledError):
            pass
        self._start_anew()

    async def call_back(self, request: Request) -> None:
        """Have the analysis server call its webhook, which it does once."""
        request.called_at = self.loop.time()
        body: JsonObject = {"status": "success", "result": {"heard": request.text}}
        if request.kind == "failing":
            body = {"status": "failed", "error": "no speech"}
        try:
            await self.a_gateway().take_call(request, body)
            self.seen["webhook: taken"] += 1
        except (BackEndError, KilledError):
            self.lose_call(request)

    async def call_interim(self, request: Request, percent: int) -> None:
        """Have the analysis server tell how far it is; whether that arrives matters to nothing."""
        with suppress(BackEndError, KilledError):
            await self.a_gateway().take_call(request, {"status": "processing", "progress": percent})
            self.seen["webhook: interim"] += 1

    def lose_call(self, request: Request) -> None:
        """Have the analysis server never call back."""
        request.called_at = self.loop.time()
        self.seen["webhook: lost"] += 1
        self.told[request.job_id].excuses += 1

    # Time.

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, in which messages are delivered."""
        until = self.loop.time() + seconds
        while True:
            await self.deliver_all()
            self._start_anew()
            if self.loop.time() >= until:
                break
            await asyncio.sleep(PUMP_SECONDS)
        if seconds >= LEASE_SECONDS:
            self.claims.expire()
        await self.audio.delete_discarded()

    async def sweep(self) -> None:
        """Have a gateway look for objects in the inbox that nobody needs, twice."""
        sweeper = self.a_gateway().sweeper
        try:
            for _ in range(2):
                await sweeper.look(self.loop.now() + timedelta(seconds=1))
        except (BackEndError, KilledError):
            self.seen["swept in vain"] += 1
        self._start_anew()

    async def settle(self) -> None:
        """Let everything be there again, and time pass until nothing is left to do."""
        await self.come_back()
        self.queues.doomed.clear()
        self.server.answers = "accepts"
        self.server.swallows_answers = 0
        until = self.loop.time() + SETTLE_SECONDS
        while not self._is_quiet():
            if self.loop.time() > until:
                raise LostError(self._left())
            for request in self.server.open:
                await self.call_back(request)
            await self.pass_time(PUMP_SECONDS)
            self.check_ends()
        await self.sweep()

    def _is_quiet(self) -> bool:
        return not any(self._left().values())

    def _left(self) -> dict[str, Any]:
        return {
            "unfinished": {job.job_id: job.view for job in self.jobs.kept.values() if not is_terminal(job.view.status)},
            "to be purged": [job.job_id for job in self.jobs.kept.values() if job.purge_asked_at],
            "queued": [message.queue for message in self.queues.queued],
            "delayed": self.queues.delayed,
            "webhooks": list(self.kept_webhooks.kept),
            "open": self.server.open,
            "analyses": [
                job_id
                for job_id, kept in self.analyses.kept.items()
                if kept.status in {AnalysisStatus.PENDING, AnalysisStatus.WAITING} or kept.announced is False
            ],
        }

    # What must hold.

    def check_ends(self) -> None:
        """An end never changes."""
        for job_id, job in self.jobs.kept.items():
            if is_terminal(job.view.status):
                self.told[job_id].ends.add(_end(job))
        for told in self.told.values():
            assert len(told.ends) <= 1, told

    def check_all(self) -> None:
        """Every job has the right end, and nothing is left over."""
        self.check_ends()
        assert not self.queues.dead
        assert not [key for key in self.inbox.objects if key.startswith("inbox/")]
        assert all(len(jobs) == 1 for jobs in self.by_key.values())
        for job_id, told in self.told.items():
            if Ending.PURGE not in told.ending or job_id in self.jobs.kept:
                self._check_kept(job_id, told)
            else:
                self._check_purged(job_id)
            assert self.server.asked(job_id) <= 1 + told.excuses, (job_id, told, self.server.accepted)

    def _check_kept(self, job_id: str, told: Told) -> None:
        job = self.jobs.kept[job_id]
        self.seen[f"end: {told.kind} {job.view.status} {job.view.error}"] += 1
        ids = [entry.event_id for entry in job.history]
        assert len(ids) == len(set(ids))
        assert job.purge_asked_at is None
        asked = [request.attempt for request in self.server.accepted if request.job_id == job_id]
        right = {
            "good": f"completed None {events.to_json({'heard': told.text})}",
            "bad": "failed not_audio None",
            "refused": "failed analysis_refused None",
            "failing": "failed analysis_failed None",
        }
        allowed = {right[told.kind]}
        if Ending.CANCEL in told.ending:
            allowed.add("cancelled None None")
        if ATTEMPTS in asked:
            allowed.add("failed analysis_timed_out None")
        assert _end(job) in allowed, (told, job.view, job.history)

    def _check_purged(self, job_id: str) -> None:
        self.seen["end: purged"] += 1
        assert self.analyses.kept[job_id].status == AnalysisStatus.PURGED
        left = [key for key in self.inbox.objects if job_id in key]
        assert not left


class Gateway:
    """A gateway's parts, and what its routes do with them."""

    def __init__(self, world: World, replica: Replica) -> None:
        self._replica = replica
        self._jobs = replica.reaching("MongoDB", world.jobs)
        bucket = replica.reaching("S3", world.inbox)
        link = Link(world, replica)
        redrives = replica.reaching("MongoDB", gateway_stores.Redrives(world.jobs))
        kept = replica.reaching("MongoDB", world.kept_webhooks)
        tokens = Tokens()
        references = References(tokens, Records(tokens), bucket, Decoder(), CatalogueAddresses("sori"))
        submissions = Submissions(bucket, self._jobs, references, REDRIVE_AFTER)
        self._availability = Availability({name: partial(self._is_up, name) for name in ("RabbitMQ", "MongoDB", "S3")})
        self._submissions = submissions
        self._idempotency = Idempotency(replica.reaching("MongoDB", world.claims), self._jobs, submissions)
        self._publishing = Publishing(redrives, link, REDRIVE_AFTER)
        self._webhooks = Webhooks(kept, link, self._availability)
        self._now = world.loop.now
        self.redrive = Redrive(redrives, kept, link, REDRIVE_AFTER)
        self.sweeper = InboxSweeper(bucket, self._jobs, timedelta(days=1))

    async def upload(self, content: bytes, key: str | None) -> str:
        """Take a recording in."""
        await self._availability.require("S3", "MongoDB")
        dubbed = Dubbed(stories.TOKEN_ID, None, stories.TRACEPARENT)
        if key is None:
            event = await self._submissions.accept(dubbed, File(content))
            self._publishing.publish_soon(event)
            return event.subject
        accepted = await self._idempotency.accept(key, dubbed, File(content))
        if accepted.event is not None:
            self._publishing.publish_soon(accepted.event)
        return accepted.job_id

    async def end(self, ending: Ending, job_id: str) -> None:
        """Cancel or purge a job."""
        await self._availability.require("MongoDB")
        if await self._jobs.find(job_id) is not None:
            await self._jobs.ask_end(ending, [job_id], self._now())
            self.redrive.look_soon()

    async def take_call(self, request: Request, body: JsonObject) -> None:
        """Take a call of the webhook."""
        await self._availability.require("MongoDB")
        traceparent = await self._jobs.traceparent(request.job_id)
        if traceparent is not None:
            call = call_of(body, 10**6)
            event = webhook_event(request.job_id, request.attempt, call.body, traceparent)
            await self._webhooks.take(event, interim=call.interim)

    async def _is_up(self, back_end: Any) -> bool:
        await self._replica.step(back_end)
        return True


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _end(job: Job) -> str:
    return f"{job.view.status} {job.view.error} {job.result_json}"


def _job_of(message: Message) -> str:
    return events.decode(message.body).subject


def _is_repeated(message: Message) -> bool:
    if topology.REDRIVE_HEADER in message.headers:
        return False
    tried = (topology.ATTEMPT_HEADER, topology.WAITS_HEADER)
    return message.redelivered or any(header in message.headers for header in tried)
