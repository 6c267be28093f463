"""The analysis server over HTTP: limits how many requests run at once, and asks nothing while the server is away."""

import asyncio
from typing import Self

import aiohttp
import httpx
import structlog
from httpx_aiohttp import AiohttpTransport
from pydantic import TypeAdapter

from analyzer_bridge.breaker import Breaker
from analyzer_bridge.errors import (
    AnalysisRefusedError,
    AnalysisServerBusyError,
    AnalysisServerFailedError,
    AnalysisServerUnavailableError,
)
from analyzer_bridge.retry_after import seconds_asked_for
from analyzer_bridge.settings import Settings
from contracts import webhook
from contracts.events import Reference, ReferenceScript

log = structlog.get_logger()

TIMEOUT = httpx.Timeout(15.0, connect=5.0)
ANSWER_SECONDS = 20.0
"""Limits one whole request: an answer that drips byte by byte would keep every single read within its limit."""
OPEN_REQUESTS = 32
FAILURES = 5
"""After so many failures in a row the server counts as away. Until it answers again, at most so many requests run."""
REST_SECONDS = 5.0
"""How long it is then not asked."""
DETAIL_CHARACTERS = 500
"""How much of the body of an error is logged."""

_BUSY = {429, 503}
_AWAY = {502, 504}
_TRY_LATER = {408, 425}
_SCRIPTS = TypeAdapter(list[ReferenceScript])


class AnalysisServerClient:
    """Asks for analyses; one client for the process, closed by `async with`."""

    def __init__(self, settings: Settings) -> None:
        self._url = str(settings.target_server_url)
        self._webhook_url = str(settings.webhook_url)
        self._secret = settings.webhook_secret.get_secret_value()
        self._open = asyncio.Semaphore(OPEN_REQUESTS)
        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(client=_session), timeout=TIMEOUT, follow_redirects=False, trust_env=False
        )
        self._breaker = Breaker(FAILURES, REST_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def away_for(self) -> float:
        """Return for how many seconds the server is to be left alone; 0 when it may be asked."""
        return self._breaker.open_for()

    def warnings(self) -> list[str]:
        """Return a warning for /health while the server is away."""
        seconds = self.away_for()
        away = self._breaker.is_tripped or seconds
        return [f"the analysis server is away; left alone for {seconds:.0f} s"] if away else []

    async def request(
        self, job_id: str, token_id: str, s3_url: str, attempt: int, reference: Reference | None = None
    ) -> None:
        """Return once the server has accepted the recording; a reference to compare it with is sent along.

        AnalysisRefusedError when it will never accept this recording, AnalysisServerFailedError when it failed with it,
        AnalysisServerBusyError when it has no room now, AnalysisServerUnavailableError when it is away. While it is
        away, the last is raised at once, without a request.
        """
        form = {
            "s3_audio_url": s3_url,
            "webhook_url": webhook.address(self._webhook_url, self._secret, job_id, attempt),
            "video_id": token_id,
            **({} if reference is None else _compared_with(reference)),
        }
        async with self._open:
            self._leave_alone_when_away()
            async with self._breaker.trial():
                self._leave_alone_when_away()
                response = await self._ask(form)
        _check(response)

    def _leave_alone_when_away(self) -> None:
        if (seconds := self.away_for()) > 0:
            raise AnalysisServerUnavailableError("left alone", seconds, asked=False)
        self._breaker.close_if_rested()

    async def _ask(self, form: dict[str, str]) -> httpx.Response:
        try:
            response = await self._post(form)
        except AnalysisServerUnavailableError as error:
            if self._breaker.failed(error.retry_after):
                log.warning("analysis server is away", reason=str(error))
            if self._breaker.is_open:
                error.retry_after = self.away_for()
            raise
        if self._breaker.succeeded():
            log.info("analysis server is back")
        return response

    async def _post(self, form: dict[str, str]) -> httpx.Response:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._client.post(self._url, data=form)
        # What is wrong with an answer in aiohttp's eyes has no name in httpx's.
        except (httpx.HTTPError, aiohttp.ClientError, TimeoutError) as error:
            raise AnalysisServerUnavailableError(type(error).__name__) from error
        if response.status_code in _AWAY:
            raise AnalysisServerUnavailableError(f"answered {response.status_code}", _retry_after(response))
        return response


def _session() -> aiohttp.ClientSession:
    """Return what httpx sends through. The semaphore limits how many requests run, so the pool has no limit."""
    connector = aiohttp.TCPConnector(limit=0, ssl=httpx.create_ssl_context(trust_env=False))
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def _compared_with(reference: Reference) -> dict[str, str]:
    """Return a form field for each part that the reference has; older servers ignore the fields they do not know."""
    fields = {
        "s3_textgrid_url": reference.textgrid_url,
        "s3_pitch_url": reference.pitch_url,
        "s3_reference_url": reference.audio_url,
        "scripts": _SCRIPTS.dump_json(reference.scripts).decode() if reference.scripts else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _check(response: httpx.Response) -> None:
    """Raise unless the server accepted. The body is unused: its id is the server's own; the webhook tells the rest."""
    if response.is_success:
        return
    reason = f"answered {response.status_code}"
    if response.status_code in _BUSY:
        raise AnalysisServerBusyError(reason, _retry_after(response))
    log.warning("analysis server refuses", status=response.status_code, detail=response.text[:DETAIL_CHARACTERS])
    if response.is_server_error or response.status_code in _TRY_LATER:
        raise AnalysisServerFailedError(reason, _retry_after(response))
    raise AnalysisRefusedError(reason)


def _retry_after(response: httpx.Response) -> float | None:
    return seconds_asked_for(response.headers.get("retry-after", ""))
