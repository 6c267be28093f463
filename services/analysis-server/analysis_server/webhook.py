"""Calling the webhook: the body's shapes, and delivery with retries."""

from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from analysis_server.job import Job

_log = structlog.get_logger()

_TIMEOUT = httpx.Timeout(30, connect=5)
_LAST_CALL = httpx.Timeout(3)
_LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16)
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0


def completed(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Return the body that carries a result."""
    return {
        "job_id": job.job_id,
        "status": "completed",
        "video_id": job.video_id,
        "s3_audio_url": job.s3_audio_url,
        "analysis_results": result,
    }


def failed(job: Job, sentence: str) -> dict[str, Any]:
    """Return the body that says why there is no result, in a sentence for people."""
    return {"job_id": job.job_id, "status": "failed", "error": sentence}


class Webhook:
    """The one HTTP client of the process for calling back; use as an async context manager."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, limits=_LIMITS)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def deliver(self, job: Job, body: dict[str, Any]) -> bool:
        """POST the body until it is taken (any 2xx), refused for good (most 4xx), or the attempts are used up.

        Returns whether it was taken. Delays grow from half a second to half a minute.
        """
        attempts = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential_jitter(multiplier=_FIRST_DELAY_S, max=_LONGEST_DELAY_S, jitter=_FIRST_DELAY_S),
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            await attempts(self._call, job, body, _TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _log.error("webhook-given-up", host=_host(job), reason=_reason(error))
            return False
        _log.info("webhook-delivered", host=_host(job), outcome=body["status"])
        return True

    async def call_once(self, job: Job, body: dict[str, Any]) -> bool:
        """POST the body once, with a short timeout: the last thing that a stopping server can do for a job.

        Returns whether it was taken.
        """
        try:
            await self._call(job, body, _LAST_CALL)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _log.warning("webhook-left", host=_host(job), reason=_reason(error))
            return False
        return True

    async def _call(self, job: Job, body: dict[str, Any], patience: httpx.Timeout) -> None:
        headers = {"traceparent": job.traceparent} if job.traceparent else {}
        # Nobody needs the answer's body, and a body that is not read cannot fill our memory.
        async with self._client.stream("POST", job.webhook_url, json=body, headers=headers, timeout=patience) as answer:
            if not answer.is_success:
                raise httpx.HTTPStatusError("refused", request=answer.request, response=answer)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= 500 or status in {408, 429}  # noqa: PLR2004 - HTTP's server errors
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _reason(error: Exception) -> str:
    """Name the error without the address, whose query is a secret."""
    return f"status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__


def _host(job: Job) -> str | None:
    return urlsplit(job.webhook_url).hostname


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    delay = state.next_action.sleep if state.next_action else 0.0
    reason = _reason(error) if isinstance(error, Exception) else ""
    _log.warning("webhook-retried", attempt=state.attempt_number, delay_s=round(delay, 1), reason=reason)
