"""What is kept of a result's scores: of our analysis server's, and of results that say anything else instead."""

from typing import Any

import pytest
from hypothesis import given

from contracts.catalogue import LARGEST_ID, MAX_SCRIPTS
from contracts.job import Job, apply, changed
from contracts.scores import Scores, ScriptScore, scores_of
from tests.unit import stories


def word(script_id: object, text: object = "abcd", score: object = 50.0) -> dict[str, Any]:
    return {"script_id": script_id, "word": text, "score": score, "matched": True}


def test_a_scripts_score_is_the_mean_of_its_words_by_their_letters() -> None:
    words: Any = [word(1, "a", 100), word(1, "bcd", 20.0), word(2, "x", 7.25), {"script_id": 1, "word": "unjudged"}]
    assert scores_of({"overall_score": 92.3, "word_analysis": words}) == Scores(
        overall=92.3, scripts=[ScriptScore(script_id=1, score=40.0), ScriptScore(script_id=2, score=7.2)]
    )


@pytest.mark.parametrize("overall", [None, "92", True, -1, 100.1, float("nan"), float("inf"), 10**400, [92], {}])
def test_a_result_without_an_overall_score_has_none(overall: Any) -> None:
    assert scores_of({"overall_score": overall}) is None
    assert scores_of({}) is None


@pytest.mark.parametrize(
    "words",
    [
        None,
        "words",
        [None, 1, "word", []],
        [word(True), word("1"), word(0), word(-1), word(LARGEST_ID + 1), word(2**70), word(1.0)],
        [
            word(1, None),
            word(1, 7),
            word(1, score=None),
            word(1, score="50"),
            word(1, score=-1),
            word(1, score=10**400),
        ],
    ],
)
def test_words_that_are_none_of_ours_are_passed_over(words: Any) -> None:
    assert scores_of({"overall_score": 1, "word_analysis": words}) == Scores(overall=1)


def test_no_more_scripts_are_kept_than_a_token_has() -> None:
    found = scores_of({"overall_score": 1, "word_analysis": [word(n + 1) for n in range(MAX_SCRIPTS + 5)]})
    assert found is not None
    assert len(found.scripts) == MAX_SCRIPTS


@given(stories.JSON_OBJECTS, stories.JSON_OBJECTS)
def test_no_result_is_too_odd_to_be_looked_at(result: dict[str, Any], of_word: dict[str, Any]) -> None:
    assert scores_of(result) is None or "overall_score" in result
    assert scores_of({"overall_score": 0, "word_analysis": [of_word]}) is not None


def test_a_completed_job_keeps_its_scores_and_no_other_does() -> None:
    job = stories.new_job()
    event = stories.completed()
    scored = event.model_copy(
        update={"data": event.data.model_copy(update={"result": {"overall_score": 50, "word_analysis": [word(7)]}})}
    )
    change = apply(job, scored)
    assert change is not None
    done = changed(job, change)
    assert done.scores == Scores(overall=50, scripts=[ScriptScore(script_id=7, score=50)])
    assert Job.model_validate(done.model_dump(by_alias=True)) == done
    for course in ("failed", "rejected"):
        for one in stories.COURSES.get(course, []):
            change = apply(job, one)
            assert change is not None
            assert "scores" not in change.fields
