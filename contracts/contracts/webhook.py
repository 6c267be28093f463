"""The analysis server's webhook: the signature in its address, and what the bodies seen in the wild mean."""

import hmac
import re
from dataclasses import dataclass
from urllib.parse import urlencode

from contracts.events import JsonObject
from contracts.failures import FailureCode

_ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")

ENVELOPE_BYTES = 16 * 1024
"""How much larger than its result a webhook body may be."""


@dataclass(frozen=True)
class Success:
    """The analysis ended with a result."""

    result: JsonObject


@dataclass(frozen=True)
class Failure:
    """The analysis ended without a result; `detail` is the server's own text, for logs only."""

    code: FailureCode
    detail: str = ""


def signature(secret: str, job_id: str, attempt: int) -> str:
    """Return the hex HMAC-SHA256 (RFC 2104) over job id and attempt that authenticates a webhook call."""
    return hmac.digest(secret.encode(), f"{job_id}.{attempt}".encode(), "sha256").hex()


def signature_is_valid(secret: str, job_id: str, attempt: str, given: str) -> bool:
    """Tell whether `given` is the signature, in constant time; `attempt` and `given` may be any text."""
    if not _ATTEMPT.fullmatch(attempt):
        return False
    return hmac.compare_digest(signature(secret, job_id, int(attempt)).encode(), given.encode("utf-8", "replace"))


def address(webhook_url: str, secret: str, job_id: str, attempt: int) -> str:
    """Return the address that the analysis server is given for this attempt at this job."""
    query = urlencode({"job_id": job_id, "attempt": attempt, "signature": signature(secret, job_id, attempt)})
    return f"{webhook_url}{'&' if '?' in webhook_url else '?'}{query}"


def outcome(body: JsonObject) -> Success | Failure:
    """Read a body in any of the shapes that analysis servers send; any other body is a `result_invalid` failure."""
    status = str(body.get("status", "")).lower()
    if status in {"success", "completed"}:
        result = body["result"] if "result" in body else body.get("analysis_results")
        if isinstance(result, dict):
            return Success(result)
        return Failure(FailureCode.RESULT_INVALID, "the result is no JSON object")
    if status in {"failed", "failure", "error"}:
        return Failure(FailureCode.ANALYSIS_FAILED, str(body.get("error", ""))[:500])
    return Failure(FailureCode.RESULT_INVALID, f"unknown status {status[:40]!r}")
