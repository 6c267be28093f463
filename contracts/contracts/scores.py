"""What a result says of how well a token was spoken: small enough to be kept with a job, and found by."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from contracts.catalogue import LARGEST_ID, MAX_SCRIPTS
from contracts.events import JsonObject

BEST = 100.0


class ScriptScore(BaseModel):
    """How well one sentence was spoken."""

    model_config = ConfigDict(frozen=True)

    script_id: int = Field(ge=1)
    score: float = Field(ge=0, le=BEST)


class Scores(BaseModel):
    """The scores of one recording, 0 to 100."""

    model_config = ConfigDict(frozen=True)

    overall: float = Field(ge=0, le=BEST)
    scripts: list[ScriptScore] = Field(default_factory=list, max_length=MAX_SCRIPTS)


def scores_of(result: JsonObject) -> Scores | None:
    """Return what a result says under `overall_score`, and of each script under `word_analysis`.

    A script's score is the mean of its words', by their letters. None for a result without an overall score, as the
    analysis servers of others may send.
    """
    overall = _score(result.get("overall_score"))
    if overall is None:
        return None
    words = result.get("word_analysis")
    letters: dict[int, int] = {}
    points: dict[int, float] = {}
    for word in words if isinstance(words, list) else []:
        found = _word(word) if isinstance(word, Mapping) else None
        if found is not None:
            script_id, length, score = found
            letters[script_id] = letters.get(script_id, 0) + length
            points[script_id] = points.get(script_id, 0.0) + length * score
    scripts = [ScriptScore(script_id=one, score=round(points[one] / letters[one], 1)) for one in letters]
    return Scores(overall=overall, scripts=scripts[:MAX_SCRIPTS])


def _word(word: Mapping[str, object]) -> tuple[int, int, float] | None:
    """Return the script that a word belongs to, its letters, and its score; None when one of these is not said."""
    script_id, text, score = word.get("script_id"), word.get("word"), _score(word.get("score"))
    if type(script_id) is not int or not 1 <= script_id <= LARGEST_ID or not isinstance(text, str) or score is None:
        return None
    return script_id, max(len(text), 1), score


def _score(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= BEST else None  # neither NaN nor an integer too large for a double
