"""kill -9 at every single step of the bridge's work: nothing is lost, and one outcome is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from analyzer_bridge.analysis import AnalysisStatus
from analyzer_bridge.bridge import Bridge
from analyzer_bridge.errors import AnalysisRefusedError, AnalysisServerFailedError, AnalysisServerUnavailableError
from analyzer_bridge.room import Room
from contracts import topology
from contracts.events import (
    AnalysisCompleted,
    AnalysisDelayed,
    AnalysisFailed,
    AnalysisRemoved,
    AnalysisRequested,
    Event,
    JobPurged,
    JsonObject,
    Reference,
)
from tests.support.analyses import Analyses
from tests.unit import stories
from tests.unit.analyzer_bridge.bridge_world import TIMEOUT, Broker, Server
from tests.unit.stories import JOB_ID, RESULT, called_back, stored

SUCCESS: JsonObject = {"status": "success", "result": RESULT}
FAILURE: JsonObject = {"status": "failed", "error": "no speech"}


class KilledError(BaseException):
    """The process is gone, so nothing may catch this."""


@dataclass
class Life:
    """Counts the steps of the bridge's process, and ends it before the one that it is told; it has one death only."""

    dies_before: int
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.dies_before:
            raise KilledError


class MortalAnalyses(Analyses):
    """The collection, as a process sees it that may be killed before each of its questions."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    async def turn(self, *, writes: bool = False) -> None:
        self._life.step()
        await super().turn(writes=writes)


class MortalServer(Server):
    """The analysis server likewise: killed before it is asked, or when it has been and its answer is on its way."""

    def __init__(self, life: Life, *answers: Exception | None) -> None:
        super().__init__(*answers)
        self._life = life

    async def request(
        self, job_id: str, token_id: str, s3_url: str, attempt: int, reference: Reference | None = None
    ) -> None:
        self._life.step()
        try:
            await super().request(job_id, token_id, s3_url, attempt, reference)
        finally:
            self._life.step()


@dataclass
class Course:
    """What happens to one job while the bridge is killed once."""

    happens: list[Event | str]
    """Events for the bridge, and what happens besides.

    `deadline` passes; `turn`: the time of the next try comes; `redrive`: the recording is told again; the server
    refuses to be asked (`closed`), may be asked (`open`), or is found `away` at the next request.
    """
    ends: type[Event] | None
    told: set[type[Event]] = field(default_factory=set)
    """What else listeners must have been told."""
    answers: tuple[Exception | None, ...] = ()
    attempts: int = 1
    asked: int = 1
    """How often the analysis server is asked when nothing is killed; once more when something is."""


def away() -> AnalysisServerUnavailableError:
    return AnalysisServerUnavailableError("ConnectError")


COURSES: dict[str, Callable[[], Course]] = {
    "completed": lambda: Course([stored(), called_back(SUCCESS)], AnalysisCompleted, {AnalysisRequested}),
    "failed": lambda: Course([stored(), called_back(FAILURE)], AnalysisFailed, {AnalysisRequested}),
    "contradicted": lambda: Course([stored(), called_back(SUCCESS), called_back(FAILURE)], AnalysisCompleted),
    "webhook first": lambda: Course([called_back(SUCCESS), stored()], AnalysisCompleted, asked=0),
    "refused": lambda: Course(
        [stored()], AnalysisFailed, answers=(AnalysisRefusedError("answered 400"), AnalysisRefusedError("answered 400"))
    ),
    "delayed": lambda: Course(
        [stored(), "turn", "turn", "turn", called_back(SUCCESS)],
        AnalysisCompleted,
        {AnalysisDelayed},
        answers=(away(), away(), away()),
        asked=4,
    ),
    "failed with": lambda: Course(
        [stored(), "turn", "turn", called_back(SUCCESS)],
        AnalysisCompleted,
        {AnalysisDelayed},
        answers=(AnalysisServerFailedError("answered 500"), AnalysisServerFailedError("answered 500")),
        asked=3,
    ),
    "had to wait": lambda: Course(
        ["closed", stored(), "open", "turn", called_back(SUCCESS)], AnalysisCompleted, {AnalysisDelayed}
    ),
    "refused after it waited": lambda: Course(
        ["closed", stored(), "open", "turn"],
        AnalysisFailed,
        {AnalysisDelayed},
        answers=(AnalysisRefusedError("answered 400"), AnalysisRefusedError("answered 400")),
    ),
    "cancelled while it waits": lambda: Course(
        ["closed", stored(), stories.cancelled(), "open", "turn"], None, {AnalysisDelayed}, asked=0
    ),
    "purged while it waits": lambda: Course(
        ["closed", stored(), stories.purged(), "open", "turn"],
        None,
        {AnalysisDelayed, JobPurged, AnalysisRemoved},
        asked=0,
    ),
    "called back although it was not taken on": lambda: Course(
        [stored(), called_back(SUCCESS), "turn"], AnalysisCompleted, {AnalysisDelayed}, answers=(away(), away())
    ),
    "told again": lambda: Course(
        [stored(), "redrive", "redrive", called_back(SUCCESS)], AnalysisCompleted, {AnalysisRequested}
    ),
    "told again while it waits": lambda: Course(
        ["closed", stored(), "redrive", "open", "redrive", "turn", "redrive", called_back(SUCCESS)],
        AnalysisCompleted,
        {AnalysisDelayed, AnalysisRequested},
    ),
    "timed out": lambda: Course([stored(), "deadline"], AnalysisFailed, {AnalysisRequested}),
    "asked again": lambda: Course(
        [stored(), "deadline", called_back(SUCCESS, 2)], AnalysisCompleted, attempts=2, asked=2
    ),
    "refused when asked again": lambda: Course(
        [stored(), "deadline"],
        AnalysisFailed,
        answers=(None, *[AnalysisRefusedError("answered 410")] * 2),
        attempts=2,
        asked=2,
    ),
    "away when asked again": lambda: Course(
        [stored(), "away", "deadline", "turn", called_back(SUCCESS, 2)], AnalysisCompleted, attempts=3, asked=3
    ),
    "cancelled first": lambda: Course([stories.cancelled(), stored(), called_back(SUCCESS)], None, asked=0),
    "cancelled": lambda: Course([stored(), stories.cancelled(), called_back(SUCCESS)], None),
    "expired": lambda: Course([stored(), stories.expired(), "deadline"], None),
    "purged first": lambda: Course([stories.purged(), stored()], None, {JobPurged, AnalysisRemoved}, asked=0),
    "purged": lambda: Course([stored(), stories.purged(), called_back(SUCCESS)], None, {JobPurged, AnalysisRemoved}),
}


class Run:
    """One course, with the bridge killed before its n-th step and started anew."""

    def __init__(self, course: Course, dies_before: int) -> None:
        self.course = course
        self.life = Life(dies_before)
        self.analyses = MortalAnalyses(self.life)
        self.server = MortalServer(self.life, *course.answers)
        self.bridge = self._start()
        self.broker = Broker(self.bridge, self.life.step)

    def _start(self) -> Bridge:
        return Bridge(self.analyses, self.server, Room(), timeout=TIMEOUT, attempts=self.course.attempts, version="1")

    def _start_anew(self) -> None:
        self.bridge = self._start()
        self.broker.serve(self.bridge)

    async def follow(self) -> None:
        """Let everything happen, one thing after the other, and be done with."""
        for what in self.course.happens:
            if isinstance(what, Event):
                self.broker.tell(what)
                await self._handle_all()
            elif what == "redrive":
                await self.broker.redrive(stored(), topology.BRIDGE_AUDIO_STORED)
                await self._handle_all()
            elif what == "away":
                self.server.answers = [away()]
            elif what in {"closed", "open"}:
                self.server.away_seconds = 3.0 if what == "closed" else 0.0
            else:
                await self._pass(AnalysisStatus.PENDING if what == "deadline" else AnalysisStatus.WAITING)
        await self._watch()

    async def _handle_all(self) -> None:
        while self.broker.queued:
            try:
                await self.broker.handle_next()
            except KilledError:
                self._start_anew()

    async def _pass(self, status: AnalysisStatus) -> None:
        """Let the time pass at which an analysis of this status is due, and look."""
        if self.analyses.kept[JOB_ID].status == status:
            self.analyses.pass_deadline(JOB_ID)
        try:
            await self._look()
        except KilledError:
            self._start_anew()
            if self.analyses.kept[JOB_ID].status == AnalysisStatus.WAITING:
                # What was begun is taken up again once its lease is over.
                self.analyses.pass_deadline(JOB_ID)
            await self._look()

    async def _watch(self) -> None:
        """Look as often as the bridge does: what was recorded but not announced must come out."""
        for _ in range(3):
            try:
                await self._look()
            except KilledError:
                self._start_anew()

    async def _look(self) -> None:
        now = datetime.now(UTC)
        for late in [*await self.analyses.unannounced(10), *await self.analyses.overdue(now, 10)]:
            await self._publish(await self.bridge.pursue(late))
        for due in await self.analyses.due(datetime.now(UTC), 10, None):
            await self._publish(await self.bridge.ask_waiting(due))

    async def _publish(self, event: Event | None) -> None:
        if event is not None:
            await self.broker.publish(event)
            await self.bridge.announced(event)


def outcomes(broker: Broker) -> set[tuple[str, str]]:
    """Every different end that was told."""
    ends = [*broker.of(AnalysisCompleted), *broker.of(AnalysisFailed)]
    return {(event.id, str(event.data)) for event in ends}


async def steps_of(name: str) -> int:
    """How many steps a course has when nothing is killed."""
    run = Run(COURSES[name](), dies_before=0)
    await run.follow()
    return run.life.steps


@pytest.mark.parametrize("name", COURSES)
async def test_killed_before_any_step_it_ends_as_if_nothing_had_been(name: str) -> None:
    steps = await steps_of(name)
    assert steps > 3
    for dies_before in range(steps + 1):
        run = Run(COURSES[name](), dies_before)
        await run.follow()
        told = {type(event) for event in run.broker.published}
        course, place = run.course, f"{name}, killed before step {dies_before} of {steps}: {told}"
        assert told >= course.told, place
        assert (told & {AnalysisCompleted, AnalysisFailed}) == ({course.ends} if course.ends else set()), place
        assert len(outcomes(run.broker)) == (1 if course.ends else 0), place
        assert not run.broker.dead, place
        assert course.asked <= len(run.server.asked) <= course.asked + bool(dies_before), place
        now = datetime.now(UTC)
        assert await run.analyses.unannounced(10) == [], place
        assert [*await run.analyses.overdue(now, 10), *await run.analyses.due(now, 10, None)] == [], place
