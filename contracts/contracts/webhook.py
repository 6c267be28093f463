"""The analysis server's webhook: the signature in its address, and what the bodies seen in the wild mean."""

import hmac
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from pydantic import JsonValue

from contracts.events import JsonObject
from contracts.failures import FailureCode
from contracts.json_text import UnreadableError, read_object

_ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")
_PERCENT = re.compile(r"\s*([0-9]{0,3}\.?[0-9]{1,20})\s*(%?)\s*")

_SUCCESS = frozenset(
    {"success", "successful", "succeeded", "succeed", "complete", "completed", "done", "finished", "ok", "okay"}
)
_FAILURE = frozenset(
    {"failed", "fail", "failure", "error", "errored", "canceled", "cancelled", "aborted", "abort", "exception"}
    | {"crashed", "terminated", "killed", "rejected", "expired", "timeout", "timedout", "unsuccessful"}
)
_UNDERWAY = frozenset(
    {"processing", "inprogress", "progress", "pending", "queued", "started", "starting", "running", "working"}
    | {"accepted", "received", "waiting", "partial"}
)
"""Words of a status, written as `_plain` does. A result beside one of the last is not the final one."""
# Names of fields are written so, too.
_RESULTS = ("result", "analysisresults", "analysisresult", "results")
_PAYLOADS = ("output", "data", "payload")
"""Where a result lies, too, if the status says that there is one."""
_ENVELOPES = ("data", "payload", "body", "job")
"""Where all that is said lies, in bodies that wrap it."""
_PERCENTS = ("progress", "percent", "percentage", "progresspercent", "progresspercentage", "percentcomplete")
_DETAILS = ("error", "errors", "errormessage", "exception", "message")
_OF_BOOLEANS = {"true": "success", "false": "failed"}

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


@dataclass(frozen=True)
class Interim:
    """The analysis goes on; `progress` is in percent, when it is told; `status` is the server's own, for logs only."""

    progress: int | None = None
    status: str = ""


def signature(secret: str, job_id: str, attempt: int) -> str:
    """Return the hex HMAC-SHA256 (RFC 2104) over job id and attempt that authenticates a webhook call."""
    return hmac.digest(secret.encode(), f"{job_id}.{attempt}".encode(), "sha256").hex()


def signature_is_valid(secrets: Sequence[str], job_id: str, attempt: str, given: str) -> bool:
    """Tell whether `given` is the signature under one of these secrets, each compared in constant time.

    `attempt` and `given` may be any text.
    """
    if not _ATTEMPT.fullmatch(attempt):
        return False
    expected = [signature(secret, job_id, int(attempt)).encode() for secret in secrets]
    return any(hmac.compare_digest(one, given.encode("utf-8", "replace")) for one in expected)


def address(webhook_url: str, secret: str, job_id: str, attempt: int) -> str:
    """Return the address that the analysis server is given for this attempt at this job."""
    query = urlencode({"job_id": job_id, "attempt": attempt, "signature": signature(secret, job_id, attempt)})
    return f"{webhook_url}{'&' if '?' in webhook_url else '?'}{query}"


def outcome(body: JsonObject) -> Success | Failure | Interim:
    """Read a body in any of the shapes that analysis servers send.

    Only a known word for a failure, or a success without a readable result, is a failure. An unknown status with a
    result is a success; without one, the analysis goes on.
    """
    return _outcome(_with_plain_names(body))


def _outcome(body: JsonObject) -> Success | Failure | Interim:
    """Do so; the names of the body's fields are `_plain`, as in all that follows."""
    word = _word(body)
    if word in _FAILURE:
        return Failure(FailureCode.ANALYSIS_FAILED, _detail(body))
    result = _first_object(body, _RESULTS)
    if word not in _UNDERWAY and result is None:
        for name in _ENVELOPES:
            inner = _with_plain_names(_object(body.get(name)) or {})
            if _word(inner) or _first_object(inner, _RESULTS) is not None:
                return _outcome(inner)
    if word in _SUCCESS and result is None:
        result = _first_object(body, _PAYLOADS)
        if result is None:
            return Failure(FailureCode.RESULT_INVALID, "the result is no JSON object")
    if result is None or word in _UNDERWAY:
        return Interim(_progress(body), str(body.get("status", ""))[:40])
    return Success(result)


def essence(said: Success | Failure | Interim) -> JsonObject:
    """Return the shortest body that says the same."""
    if isinstance(said, Success):
        return {"status": "success", "result": said.result}
    if isinstance(said, Interim):
        return {"status": "processing", "progress": said.progress}
    return (
        {"status": "success"} if said.code == FailureCode.RESULT_INVALID else {"status": "failed", "error": said.detail}
    )


def _plain(name: str) -> str:
    """Return a name in lower case without spaces, hyphens and underscores: programs write `analysisResults`, too."""
    return re.sub(r"[\s_-]+", "", name).lower()


def _with_plain_names(body: JsonObject) -> JsonObject:
    """Return the body with `_plain` names; of those that become one, the first counts that is not null."""
    plain: JsonObject = {}
    for written, value in body.items():
        name = _plain(written)
        if plain.get(name) is None:
            plain[name] = value
    return plain


def _word(body: JsonObject) -> str:
    """Return the status as one word; empty when the body has none."""
    for name in ("status", "state"):
        status = body.get(name)
        if isinstance(status, str) and status.strip():
            return _plain(status)
    for name in ("success", "ok"):
        given = body.get(name)
        word = _OF_BOOLEANS.get(str(given).lower()) if isinstance(given, bool | str) else None
        if word is not None:
            return word
    return ""


def _detail(body: JsonObject) -> str:
    return str(next((body[name] for name in _DETAILS if body.get(name)), ""))[:500]


def _first_object(body: JsonObject, names: Sequence[str]) -> JsonObject | None:
    found = (_object(body.get(name)) for name in names)
    return next((value for value in found if value is not None), None)


def _object(value: JsonValue) -> JsonObject | None:
    """Return a JSON object that is given as one, or as JSON text."""
    if isinstance(value, str) and "{" in value:
        try:
            return read_object(value)
        except UnreadableError:
            return None
    return value if isinstance(value, dict) else None


def _progress(body: JsonObject) -> int | None:
    """Return how much is done, from 0 to 100; None when that is not told."""
    for name in _PERCENTS:
        value = body.get(name)
        percent = _progress(_with_plain_names(value)) if isinstance(value, dict) else _percent(value)
        if percent is not None:
            return percent
    inner = next((value for name in _ENVELOPES if isinstance(value := body.get(name), dict)), None)
    return None if inner is None else _progress(_with_plain_names(inner))


def _percent(value: JsonValue) -> int | None:
    """Return a number, or the text of one, as percent; a broken number below 1 is a share of 1, unless a % follows."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    is_share = True
    if isinstance(value, str):
        found = _PERCENT.fullmatch(value)
        if found is None:
            return None
        value, is_share = float(found[1]), not found[2]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if is_share and 0 < value < 1:
        value *= 100
    return int(min(max(round(value, 6), 0), 100))
