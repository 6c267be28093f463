"""Parameters that several routes have: job ids, the language, the trace."""

from typing import Annotated
from uuid import UUID

from fastapi import Header, Path

from contracts import problems
from gateway.web.problems import ProblemError

JobId = Annotated[str, Path(description="As the upload was answered", json_schema_extra={"format": "uuid"})]
AcceptLanguage = Annotated[str | None, Header(description="`ko` or `en`, for the sentences of errors")]
Traceparent = Annotated[str | None, Header(description="W3C Trace Context, to find the job in logs and events")]


def canonical(job_id: str) -> str:
    """Return the id in the form in which jobs are kept; ProblemError when no job can have it."""
    try:
        found = str(UUID(job_id))
    except ValueError:
        raise ProblemError(problems.JOB_NOT_FOUND) from None
    if found != job_id.lower():
        raise ProblemError(problems.JOB_NOT_FOUND)
    return found
