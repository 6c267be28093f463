"""Jobs whose own messages are swallowed: each lives so that these messages come about, and says what was wrong.

What is told again mends nearly everything. Some messages have little to lose, and what they had is not told again:

- job.held: the user is not told that the job waits for an operator;
- job.resumed: the job is shown as held until it moves on, and is told again as late as a held job;
- analysis.webhook-ignored: a line of the job's history;
- analysis.progressed: the user sees less of how far the analysis is;
- job.cancelled or job.expired at the bridge, when the notifier had its own: the analysis goes on, and its outcome is
  recorded though the job has ended.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from contracts import events, topology
from contracts.events import Event
from tests.fault.crowd import wrong_story
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.fake_analysis_server import FAILURE
from tests.support.sori import RECORDING, Sori, State, new_token
from tests.support.sse import Block, followed
from tests.support.swallowing import Swallowing
from tests.support.waiting import until, until_true


def told_by(event: type[Event]) -> str:
    """The notifier's queue for an event."""
    return topology.Queue("notifier", event).name


REJECTED = told_by(events.UploadRejected)
DELAYED = told_by(events.AnalysisDelayed)
COMPLETED, FAILED = told_by(events.AnalysisCompleted), told_by(events.AnalysisFailed)
IGNORED = told_by(events.AnalysisWebhookIgnored)
WEBHOOK = topology.BRIDGE_WEBHOOK_RECEIVED.name
PROGRESSED = told_by(events.AnalysisProgressed)
HELD = {told_by(events.JobHeld), told_by(events.JobResumed)}
CANCELLED = {topology.BRIDGE_JOB_CANCELLED.name, told_by(events.JobCancelled)}
EXPIRED = {topology.BRIDGE_JOB_EXPIRED.name, told_by(events.JobExpired)}
PURGED = {
    topology.UPLOADER_JOB_PURGED.name,
    topology.BRIDGE_JOB_PURGED.name,
    told_by(events.JobPurged),
    told_by(events.AudioRemoved),
    told_by(events.AnalysisRemoved),
}
AFTER_STORING = {
    topology.BRIDGE_AUDIO_STORED.name,
    WEBHOOK,
    told_by(events.AudioStored),
    DELAYED,
    told_by(events.AnalysisRequested),
    COMPLETED,
    FAILED,
    IGNORED,
}
AT_ONCE = 40
EXPIRY_CODES = {"no_progress", "held_too_long"}


def never_together(one: str, other: str) -> bool:
    """Tell whether no job has messages in both of these queues."""
    pair = {one, other}
    return (
        # What is rejected is neither stored nor analysed, and is rejected long before it could expire.
        (REJECTED in pair and bool(pair & (AFTER_STORING | EXPIRED)))
        or pair == {COMPLETED, FAILED}
        # The first end from outside is the only one.
        or (bool(pair & CANCELLED) and bool(pair & EXPIRED))
        # The bridge knows that the job has expired: nothing comes of its analysis any more.
        or (told_by(events.JobExpired) in pair and bool(pair & {COMPLETED, FAILED}))
    )


@dataclass(frozen=True)
class World:
    """What jobs live in."""

    sori: Sori
    server: AnalysisServer
    broker: Broker
    bucket: Bucket
    database: Any
    swallowing: Swallowing
    limit_seconds: float
    """How long one job may take to go through all of its life."""


@dataclass
class Life:
    """One job, and the queues in which its first message is swallowed."""

    world: World
    queues: frozenset[str]
    job_id: str = ""
    token_id: str = ""
    heard: list[Block] = field(default_factory=list)
    ended_after_seconds: float = 0.0
    """How long after its upload its listener heard the end."""
    _trace_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def is_stopped(self) -> bool:
        """Whether it is ended from outside before it ends by itself."""
        return bool(self.queues & (CANCELLED | EXPIRED))

    @property
    def is_purged(self) -> bool:
        """Whether it is purged in the end."""
        return bool(self.queues & PURGED)

    @property
    def is_purged_under_way(self) -> bool:
        """Whether it is purged before anything else has ended it."""
        ends = CANCELLED | EXPIRED | {REJECTED, DELAYED, COMPLETED, FAILED, IGNORED, WEBHOOK}
        return self.is_purged and not self.queues & ends

    @property
    def has_audio(self) -> bool:
        """Whether its recording is to be kept."""
        return not self.is_purged and REJECTED not in self.queues

    @property
    def _behaviour(self) -> str:
        """What the analysis server does."""
        if DELAYED in self.queues:
            if self.queues & EXPIRED:
                return "http-500"
            return "http-500-once-then-fail" if FAILED in self.queues else "http-500-once"
        if self.queues & EXPIRED:
            return "never-calls-back"
        if self.queues & {COMPLETED, FAILED, REJECTED}:
            return "fail" if FAILED in self.queues else "normal"
        if self.is_stopped or self.is_purged_under_way:
            return "never-calls-back"
        return "slow" if self.queues & HELD else "normal"

    @property
    def _most_requests(self) -> int:
        """How often the analysis server may take the recording on.

        Once more when the webhook was swallowed. And once more when there is none, and the bridge hears of the purge
        only when that is told again: the deadline may pass before.
        """
        hears_late = self._behaviour == "never-calls-back" and topology.BRIDGE_JOB_PURGED.name in self.queues
        return 1 + (WEBHOOK in self.queues) + hears_late

    async def live(self) -> None:
        """Go through all of it; AssertionError when anything is not as it should be."""
        async with asyncio.timeout(self.world.limit_seconds):
            await self._upload()
            began = time.monotonic()
            address = self.world.sori.progress_url(self.job_id)
            listening = asyncio.create_task(followed(self.world.sori.client, address, self.heard))
            try:
                await self._go_on()
                await listening
                self.ended_after_seconds = time.monotonic() - began
            finally:
                listening.cancel()
            if not self.is_purged_under_way:
                await self._call_webhook_late()
                await self._all_swallowed(self.queues - PURGED)
                await self._check_state()
                if self.is_purged:
                    await self._remove(purge=True)
            await self._all_swallowed(self.queues)
            if self.is_purged:
                await self._all_gone()
            await self._check_listener()
            await self._check_requests()

    async def _upload(self) -> None:
        self.token_id = new_token(self._behaviour)
        self.world.swallowing.plan(self._trace_id, self.queues)
        recording = b"this is no audio" if REJECTED in self.queues else RECORDING
        headers = {"traceparent": self._traceparent}
        answer = await self.world.sori.upload(recording, self.token_id, headers=headers)
        assert answer.status_code == 202, answer.text
        self.job_id = answer.json()["job_id"]

    @property
    def _traceparent(self) -> str:
        return f"00-{self._trace_id}-{self._trace_id[:16]}-01"

    async def _go_on(self) -> None:
        """Do what is to be done before the job's end."""
        if PROGRESSED in self.queues:
            await self._progress()
        if self.queues & HELD:
            if REJECTED not in self.queues:
                await self._at(90)
            await self._hold_and_resume()
        if self.queues & CANCELLED:
            # Swallowed, its own end leaves the job under way for a while.
            own_end = self.queues & {REJECTED, DELAYED, COMPLETED, FAILED}
            if own_end:
                await self._all_swallowed(own_end)
            else:
                await self._at(90)
            await self._remove(purge=False)
        if self.is_purged_under_way:
            await self._at(90)
            await self._all_swallowed(self.queues - PURGED)
            await self._remove(purge=True)

    async def _at(self, progress: int) -> None:
        def is_there() -> bool:
            return any(block.state["progress"] >= progress for block in self.heard)

        await until_true(is_there, f"job {self.job_id} at {progress}", limit_seconds=self.world.limit_seconds)

    async def _progress(self) -> None:
        """Tell how far the analysis is, as the bridge does."""
        data = events.AnalysisProgressedData(token_id="1", attempt=1, percent=40)
        about = {"source": "analyzer-bridge", "traceparent": self._traceparent}
        await self.world.broker.publish(events.AnalysisProgressed.new(self.job_id, data, step="1/40", **about))

    async def _hold_and_resume(self) -> None:
        """Tell of a hold and its end, as a subscriber and the operator's command do."""
        data = events.JobHeldData(
            queue=WEBHOOK,
            event_id=self._trace_id,
            event_type=events.AnalysisWebhookReceived.TYPE,
            reason="the test's",
        )
        about = {"source": "analyzer-bridge", "traceparent": self._traceparent}
        held = events.JobHeld.new(self.job_id, data, step=self._trace_id, **about)
        resumed = events.JobResumedData(held_id=held.id, queue=WEBHOOK)
        await self.world.broker.publish(held)
        await self.world.broker.publish(events.JobResumed.new(self.job_id, resumed, step=held.id, **about))

    async def _remove(self, *, purge: bool) -> None:
        answer = await self.world.sori.client.delete(
            f"{self.world.sori.url}/jobs/{self.job_id}", params={"purge": str(purge).lower()}
        )
        assert answer.status_code == 202, answer.text
        assert purge or answer.json()["status"] == "processing", "it had ended before it was cancelled"

    async def _call_webhook_late(self) -> None:
        """Call back about a job that has ended, twice: the first call may be swallowed, or be the first to come."""
        if not (self.is_stopped or IGNORED in self.queues) or REJECTED in self.queues:
            return
        failure = {"status": "failed", "error": FAILURE}
        success = {"status": "success", "result": {"score": 1}}
        for body in (failure, success) if FAILED in self.queues else (success, failure):
            answer = await self.world.sori.webhook(self.job_id, body)
            assert answer.status_code == 200, answer.text

    async def _all_swallowed(self, queues: frozenset[str] | set[str]) -> None:
        def is_so() -> bool:
            return not self.world.swallowing.left(self._trace_id, queues)

        await until_true(is_so, f"swallowed: {sorted(queues)}", limit_seconds=self.world.limit_seconds)

    async def _all_gone(self) -> None:
        """Wait until nothing is left of the job but the bridge's mark."""

        async def look() -> bool:
            if await self.world.database["jobs"].find_one({"_id": self.job_id}) is not None:
                return False
            mark = await self.world.database["analyses"].find_one({"_id": self.job_id})
            left = await self.world.bucket.keys(f"audio/{self.job_id}")
            return mark is not None and mark.keys() == {"_id", "status", "purged_at"} and not left

        await until(look, f"nothing left of job {self.job_id}", limit_seconds=self.world.limit_seconds)
        assert (await self.world.sori.result(self.job_id)).status_code == 404

    async def _check_state(self) -> None:
        state = await self.world.sori.state(self.job_id)
        assert self.heard[-1].state == state, f"heard {self.heard[-1].state}, read {state}"
        document = await self.world.database["jobs"].find_one({"_id": self.job_id})
        counted = Counter(entry["event_id"] for entry in document["history"])
        assert max(counted.values()) == 1, f"an event was applied twice: {document['history']}"

    async def _check_listener(self) -> None:
        wrong = wrong_story(self.heard) or self._wrong_end(self.heard[-1].state)
        assert wrong is None, wrong

    def _wrong_end(self, end: State) -> str | None:
        """What is wrong with the end; None when it is the one that the job should reach."""
        reached = (end["status"], (end.get("error") or {}).get("code"))
        right: set[tuple[str, str | None]]
        if self.queues & CANCELLED or self.is_purged_under_way:
            right = {("cancelled", None)}
        elif self.queues & EXPIRED:
            right = {("failed", code) for code in EXPIRY_CODES}
        elif REJECTED in self.queues:
            right = {("failed", "not_audio")}
        elif FAILED in self.queues:
            right = {("failed", "analysis_failed")}
        else:
            right = {("completed", None)}
            result = {"video_id": self.token_id, "s3_audio_url": f"s3://sori/audio/{self.job_id}.wav", "score": 87.5}
            if end.get("result") != result:
                return f"its result is {end.get('result')}"
        return None if reached in right else f"it ended as {reached}, not as one of {right}"

    async def _check_requests(self) -> None:
        accepted = sum(request.accepted for request in await self.world.server.requests_for(self.token_id))
        ends_by_itself = not (self.is_stopped or self.is_purged)
        least = self._most_requests if ends_by_itself and REJECTED not in self.queues else 0
        assert least <= accepted <= self._most_requests, f"the analysis server took it on {accepted} times"


async def live_all(world: World, plans: Sequence[frozenset[str]]) -> tuple[list[Life], list[str]]:
    """Let a job live for each of these plans; return them, and what was wrong.

    Those that are to expire begin at once, AT_ONCE of the others at a time.
    """
    lives = [Life(world, queues) for queues in plans]
    places = asyncio.Semaphore(AT_ONCE)

    async def one(life: Life) -> str | None:
        async with nullcontext() if life.queues & EXPIRED else places:
            try:
                await life.live()
            except Exception as error:  # noqa: BLE001 - all complaints are told together
                heard = [(block.state["stage"], block.state["progress"]) for block in life.heard]
                return f"job {life.job_id}, swallowed in {sorted(life.queues)}: {error!r}; heard {heard}"
        return None

    complaints = await asyncio.gather(*(one(life) for life in lives))
    return lives, [complaint for complaint in complaints if complaint]
