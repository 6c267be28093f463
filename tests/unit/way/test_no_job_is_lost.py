"""Whatever is lost, dies or goes away, and whenever: every job reaches its end, and nothing is left over.

The machine drives the services' own code (tests/unit/way/world.py), not a model of it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from contracts import topology
from contracts.events import AnalysisRemoved, AudioRemoved, JobCancelled, JobHeld, JobPurged, JobResumed
from gateway.jobs.removals import Ending
from tests.unit.way.faults import Fault, Service
from tests.unit.way.world import KINDS, LostError, World

MOST_LOSSES = 12
MOST_SECONDS = 600.0
BACK_ENDS: tuple[Fault, ...] = ("MongoDB", "RabbitMQ", "S3")
SERVICES: tuple[Service, ...] = ("gateway", "uploader", "analyzer-bridge", "notifier")
ENDS_FROM_OUTSIDE = (JobCancelled, JobPurged, AudioRemoved, AnalysisRemoved)
FAULT = st.sampled_from(("death", "death", *BACK_ENDS))
QUEUE = st.sampled_from([queue.name for queue in topology.QUEUES if queue.event not in (JobHeld, JobResumed)])
ENDS_QUEUE = st.sampled_from([queue.name for queue in topology.QUEUES if queue.event in ENDS_FROM_OUTSIDE])
ENDING = st.sampled_from(Ending)
KIND = st.sampled_from(("good", "good", *KINDS))
NUMBER = st.integers(0, 99)
T = TypeVar("T")


def picked(number: int, things: Sequence[T]) -> T:
    """Return one of these."""
    return things[number % len(things)]


class Way(RuleBasedStateMachine):
    """Jobs under way, and what may happen to them."""

    REDRIVES: ClassVar[bool] = True
    SEEN: ClassVar[Counter[str]] = Counter()

    world: World

    @initialize(
        seed=st.integers(0, 2**32 - 1),
        kinds=st.lists(KIND, min_size=1, max_size=3),
        doomed=st.lists(QUEUE, min_size=3, max_size=9),
        large=st.booleans(),
    )
    def begin(self, seed: int, kinds: list[str], doomed: list[str], large: bool) -> None:
        """Begin with some jobs; their recordings are kept by copies when they are `large`, else from memory."""
        self.world = World(seed, redrives=self.REDRIVES)
        self.world.audio.large = large
        self.losses = 0
        self.seconds = 0.0
        self.world.queues.doomed.update(doomed)
        for number, kind in enumerate(kinds):
            self.world.run(self.world.upload(kind, f"first {number}", None))

    # Users.

    @rule(
        kind=KIND,
        text=st.sampled_from("abc"),
        key=st.sampled_from([None, None, "k1", "k2"]),
        lost=st.lists(QUEUE, max_size=3),
        ending=st.sampled_from([None] * 6 + [*Ending]),
    )
    def upload(self, kind: str, text: str, key: str | None, lost: list[str], ending: Ending | None) -> None:
        """Upload a recording, the same one now and then; have messages lost on its way, or end it at once."""
        self.world.queues.doomed.update(lost)
        upload = self.world.upload(kind, text, None) if key is None else self.world.upload("good", key, key)
        job_id = self.world.run(upload)
        if ending and job_id:
            self.world.run(self.world.end(ending, job_id))

    @precondition(lambda self: self.world.told)
    @rule(ending=ENDING, number=NUMBER, lost=st.lists(ENDS_QUEUE, max_size=3))
    def end(self, ending: Ending, number: int, lost: list[str]) -> None:
        self.world.queues.doomed.update(lost)
        self.world.run(self.world.end(ending, picked(number, list(self.world.told))))

    # Messages.

    @precondition(lambda self: self.world.deliverable())
    @rule(numbers=st.lists(NUMBER, min_size=1, max_size=4))
    def deliver(self, numbers: list[int]) -> None:
        for number in numbers:
            if queues := self.world.deliverable():
                self.world.run(self.world.deliver(picked(number, queues)))

    @precondition(lambda self: self.world.deliverable())
    @rule(number=NUMBER, how=st.sampled_from(["lose", "lose all", "repeat"]))
    def mistreat(self, number: int, how: str) -> None:
        """Lose the first message of a queue, or all of them, or have the first delivered twice."""
        queue = picked(number, self.world.deliverable())
        if how == "repeat":
            self.world.repeat(queue)
        elif self.losses < MOST_LOSSES:
            self.losses += 1
            self.world.lose(queue, all_of_it=how == "lose all")

    @precondition(lambda self: self.losses < MOST_LOSSES)
    @rule(queue=QUEUE, times=st.integers(1, 3))
    def lose_next(self, queue: str, times: int) -> None:
        """Lose the next messages that come into a queue."""
        self.losses += 1
        self.world.queues.doomed[queue] += times

    # What breaks.

    @rule(fault=FAULT, steps=st.integers(0, 20), numbers=st.lists(NUMBER, max_size=2))
    def break_soon(self, fault: Fault, steps: int, numbers: list[int]) -> None:
        """Have this happen in the midst of what is done next."""
        self.world.faults.plan(fault, steps)
        self.deliver(numbers)

    @rule(what=st.sampled_from((*BACK_ENDS, *SERVICES, *SERVICES)), for_long=st.booleans())
    def go_away(self, what: Any, for_long: bool) -> None:
        if what in BACK_ENDS:
            self.world.go_away(what)
        elif for_long and what != "gateway":
            self.world.stop(what)
        else:
            self.world.run(self.world.kill(what))

    @rule(sweeps=st.booleans())
    def come_back(self, sweeps: bool) -> None:
        """Have everything there again, and the inbox swept now and then."""
        self.world.run(self.world.come_back())
        if sweeps:
            self.world.run(self.world.sweep())

    # The analysis server.

    @rule(does=st.sampled_from(["accepts", "accepts", "away", "busy", "fails", "calls early", "swallows"]))
    def server(self, does: str) -> None:
        """Have it answer like this from now on, or its next request have its webhook called early or no answer."""
        if does == "calls early":
            self.world.server.calls_before_answering += 1
        elif does == "swallows":
            self.world.server.swallows_answers += 1
        else:
            self.world.server.answers = does

    @precondition(lambda self: self.world.server.accepted)
    @rule(number=NUMBER, times=st.sampled_from([0, 1, 1, 2]))
    def call_back(self, number: int, times: int) -> None:
        """Call the webhook about something, never or twice; also for what was called back about."""
        request = picked(number, self.world.server.accepted)
        if not times and request.called_at is None:
            self.world.lose_call(request)
        for _ in range(times):
            self.world.run(self.world.call_back(request))

    @precondition(lambda self: self.world.server.accepted)
    @rule(number=NUMBER, percent=st.integers(0, 100))
    def call_interim(self, number: int, percent: int) -> None:
        """Tell how far something is, also after its end."""
        self.world.run(self.world.call_interim(picked(number, self.world.server.accepted), percent))

    @precondition(lambda self: self.world.server.open and not self.world.faults.away)
    @rule(
        what=st.sampled_from(["RabbitMQ", "RabbitMQ", "MongoDB", "analyzer-bridge"]),
        seconds=st.sampled_from([3.0, 30.0]),
    )
    def call_back_in_an_outage(self, what: Any, seconds: float) -> None:
        """Keep the calls from being handled for some time."""
        if what == "RabbitMQ":
            self.world.go_away(what)
        for request in self.world.server.open:
            self.world.run(self.world.call_back(request))
        if what != "RabbitMQ":
            self.go_away(what, for_long=True)
        self.pass_time(seconds, is_mended=False)
        self.come_back(sweeps=False)

    # Time.

    @precondition(lambda self: self.seconds < MOST_SECONDS)
    @rule(seconds=st.sampled_from([0.0, 1.0, 1.0, 3.0, 10.0, 35.0, 90.0]), is_mended=st.booleans())
    def pass_time(self, seconds: float, is_mended: bool) -> None:
        """Let time pass, in which every message is delivered that can be."""
        if is_mended:
            self.come_back(sweeps=False)
        self.seconds += seconds
        self.world.run(self.world.pass_time(seconds))
        self.world.check_ends()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.run(self.world.settle())
            self.world.check_all()
            self.SEEN.update(self.world.seen)
        finally:
            self.world.close()


class WayWithoutRedrives(Way):
    """The same, where nobody looks at what stands still."""

    REDRIVES = False


def test_no_job_is_lost() -> None:
    Way.SEEN.clear()
    run_state_machine_as_test(Way, settings=settings(stateful_step_count=30))
    # It is not because nothing happened.
    assert len([what for what in Way.SEEN if what.startswith("lost: ")]) >= 12, Way.SEEN
    assert len([what for what in Way.SEEN if what.startswith("end: ")]) >= 6, Way.SEEN


def test_without_the_redrive_jobs_are_lost() -> None:
    found = settings(stateful_step_count=30, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(LostError):
        run_state_machine_as_test(WayWithoutRedrives, settings=found)
