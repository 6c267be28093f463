"""The analysis server, as it is called over HTTP."""

from typing import Self

import httpx

from analyzer_bridge.errors import AnalysisRefusedError, AnalysisServerUnavailableError
from analyzer_bridge.settings import Settings
from contracts import webhook

TIMEOUT = httpx.Timeout(15.0, connect=5.0)
OPEN_REQUESTS = 32
_TRY_LATER = {408, 425, 429}


class AnalysisServer:
    """Asks for analyses; one client for the process, closed by `async with`."""

    def __init__(self, settings: Settings) -> None:
        self._url = str(settings.target_server_url)
        self._webhook_url = str(settings.webhook_url)
        self._secret = settings.webhook_secret.get_secret_value()
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=OPEN_REQUESTS, max_keepalive_connections=OPEN_REQUESTS),
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def request(self, job_id: str, token_id: str, s3_url: str, attempt: int) -> None:
        """Return once the server has taken the recording on.

        AnalysisRefusedError when it never will, AnalysisServerUnavailableError when it cannot now.
        """
        form = {
            "s3_audio_url": s3_url,
            "webhook_url": webhook.address(self._webhook_url, self._secret, job_id, attempt),
            "video_id": token_id,
        }
        try:
            response = await self._client.post(self._url, data=form)
        except httpx.HTTPError as error:
            raise AnalysisServerUnavailableError(type(error).__name__) from error
        _check(response)


def _check(response: httpx.Response) -> None:
    """What the body says is not relied on: the id in it is the server's own, and the webhook tells the rest."""
    if response.is_success:
        return
    reason = f"answered {response.status_code}"
    if response.is_server_error or response.status_code in _TRY_LATER:
        retry_after = response.headers.get("retry-after", "")
        raise AnalysisServerUnavailableError(reason, float(retry_after) if retry_after.isdecimal() else None)
    raise AnalysisRefusedError(reason)
