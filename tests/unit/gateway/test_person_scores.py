"""The best and the last score of each token and script, a page at a time."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.job import Job
from contracts.scores import Scores, ScriptScore
from gateway.person import scores as scoring
from gateway.person.scores import page_of_scores
from tests.support.gateway_stores import Jobs, OwnedJobs
from tests.unit import stories

OWNER = "user:" + "a" * 32
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def job(number: int, token_id: str, overall: float | None, owner: str = OWNER, **scripts: float) -> Job:
    made = Job.received(stories.received(f"00000000-0000-4000-8000-{number:012}", token_id=token_id), None)
    said = [ScriptScore(script_id=int(name[1:]), score=score) for name, score in scripts.items()]
    found = None if overall is None else Scores(overall=overall, scripts=said)
    update = {"owner": owner, "scores": found, "created_at": MOMENT + timedelta(seconds=number)}
    return made.model_copy(update=update)


def owned(*jobs: Job) -> OwnedJobs:
    return OwnedJobs(Jobs(*jobs))


async def test_the_best_and_the_last_of_each_token_and_script() -> None:
    jobs = owned(
        job(1, "b", 50, s1=70, s2=30),
        job(2, "b", 90, s1=60),
        job(3, "b", 40, s2=30),
        job(4, "a", 7),
        job(5, "a", None),
        job(6, "a", 99, owner="user:" + "b" * 32),
    )
    (first, second), following = await page_of_scores(jobs, OWNER, "", 10)
    assert following is None
    assert (first.token_id, first.recordings, first.best, first.scripts) == ("a", 1, first.last, [])
    assert (second.best.score, second.last.score, second.recordings) == (90, 40, 3)
    assert [(one.script_id, one.best.score, one.last.score) for one in second.scripts] == [(1, 70, 60), (2, 30, 30)]
    assert second.scripts[1].best.created_at == MOMENT + timedelta(seconds=3), "of equal ones the newest"
    assert await page_of_scores(jobs, "user:" + "c" * 32, "", 10) == ([], None)


@pytest.mark.parametrize(("limit", "most_read"), [(1, 2000), (2, 2000), (3, 2000), (10, 4), (10, 5), (1, 6)])
async def test_pages_have_every_token_once(monkeypatch: pytest.MonkeyPatch, limit: int, most_read: int) -> None:
    monkeypatch.setattr(scoring, "MOST_READ", most_read)
    tokens = ["a", "b", "c", "d", "e"]
    jobs = owned(*(job(number, tokens[number % 5], number) for number in range(15)))
    seen, after = [], ""
    for _ in range(9):
        page, following = await page_of_scores(jobs, OWNER, after, limit)
        assert 0 < len(page) <= limit
        assert all(token.recordings == 3 for token in page)
        seen += [token.token_id for token in page]
        if following is None:
            break
        after = following
    assert seen == tokens


async def test_of_a_token_with_more_recordings_than_are_read_the_newest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MOST_READ", 3)
    jobs = owned(*(job(number, "a", 50 - number) for number in range(5)), job(9, "b", 1))
    (token,), following = await page_of_scores(jobs, OWNER, "", 10)
    assert (token.recordings, token.best.score, token.last.score) == (3, 48, 46)
    assert following == "a"
    (token,), following = await page_of_scores(jobs, OWNER, "a", 10)
    assert (token.token_id, following) == ("b", None)
