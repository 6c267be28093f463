"""How well a person has spoken each token and script: the best and the last of their scores."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from contracts.api import Score, ScriptScores, TokenScores
from gateway.person.documents import OwnedJobs, Scored

MOST_READ = 2000
"""How many recordings one page reads. Of a token with more, the newest count."""


async def page_of_scores(
    jobs: OwnedJobs, owner: str, after_token: str, limit: int
) -> tuple[list[TokenScores], str | None]:
    """Return the scores of up to `limit` tokens after this one, by id; and the last one's id, if there may be more."""
    found = await jobs.scored(owner, after_token, MOST_READ)
    tokens = [summary(list(of_one)) for _, of_one in groupby(found, lambda scored: scored.token_id)]
    complete = tokens
    if len(found) == MOST_READ and len(tokens) > 1:
        # The last token may have more recordings than were read: it is the first of the next page.
        complete = tokens[:-1]
    page = complete[:limit]
    has_more = len(tokens) > len(page) or len(found) == MOST_READ
    return page, page[-1].token_id if page and has_more else None


def summary(of_token: Sequence[Scored]) -> TokenScores:
    """Return the best and the last of one token's scores, which come the newest first."""
    by_script: dict[int, list[Score]] = {}
    for scored in of_token:
        for script in scored.scores.scripts:
            by_script.setdefault(script.script_id, []).append(_score(scored, script.score))
    overall = [_score(scored, scored.scores.overall) for scored in of_token]
    return TokenScores(
        token_id=of_token[0].token_id,
        recordings=len(of_token),
        best=_best(overall),
        last=overall[0],
        scripts=[
            ScriptScores(script_id=script_id, best=_best(scores), last=scores[0])
            for script_id, scores in sorted(by_script.items())
        ],
    )


def _score(scored: Scored, score: float) -> Score:
    return Score(score=score, job_id=scored.job_id, created_at=scored.created_at)


def _best(newest_first: Iterable[Score]) -> Score:
    return max(newest_first, key=lambda score: score.score)
