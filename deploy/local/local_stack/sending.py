"""Sends a recording through a running stack, as any client would: the upload, the live progress, the result."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse

from local_stack.errors import SendFailedError

Job = dict[str, Any]
"""A job as the API shows it: job_id, status, progress, message, result, …"""

SILENCE_SECONDS = 45
"""A stream that is silent for longer than its heartbeats allow is broken."""
MOST_RECONNECTS = 20
HOW_TO_LOG_IN = "Say who you are: export SORI_TOKEN=… (an API key, or an id token: make -s id-token)"
DEFAULT_TOKEN = "test-token"  # noqa: S105  # an actor's clip, not a password


@dataclass(frozen=True)
class Sori:
    """The public HTTP surface of the stack at `url`."""

    url: str
    pause_seconds: float = 1
    """The pause before a broken stream is opened again. It grows with each failure, to three times this at most."""
    credential: str = field(default="", repr=False)
    """Who it calls as: an id token or an API key. Empty for nobody, who may do everything where no login is needed."""

    def upload(self, name: str, recording: BinaryIO, token_id: str = DEFAULT_TOKEN) -> Job:
        """Sends an open file as it is read; the answer names the job. Raises SendFailedError."""
        address = f"{self.url}/tokens/{quote(token_id, safe='')}/upload-audio"
        with self._client() as client:
            try:
                answer = client.post(address, files={"file": (name, recording)})
            except httpx.HTTPError as error:
                raise SendFailedError("The upload broke off: is the stack still up? See: make logs") from error
        return _body(answer)

    def follow(self, job_id: str) -> Iterator[Job]:
        """Yields each state of the job as it comes; a stream that breaks off is opened again.

        Ends after the terminal state, or when the job is held: then only an operator can move it on.
        Raises SendFailedError when the stream cannot be opened again.
        """
        last_id, broken = "", 0
        with self._client() as client:
            while broken <= MOST_RECONNECTS:
                try:
                    for event in self._events(client, job_id, last_id):
                        if not event.data:  # the event only sets the reconnection time
                            continue
                        last_id, broken, job = event.id or last_id, 0, event.json()
                        yield job
                        if job["status"] != "processing" or job["stage"] == "held":
                            return
                except (httpx.TransportError, SSEError):
                    pass
                broken += 1
                time.sleep(min(broken, 3) * self.pause_seconds)
        raise SendFailedError("The progress cannot be read any more: is the stack still up? See: make logs")

    def result(self, job_id: str) -> Job:
        """The job as it is now. Raises SendFailedError."""
        with self._client() as client:
            try:
                return _body(client.get(f"{self.url}/tokens/analysis-result/{job_id}"))
            except httpx.HTTPError as error:
                raise SendFailedError("The result cannot be read: is the stack still up? See: make logs") from error

    def tokens(self) -> list[dict[str, Any]]:
        """The first tokens of the catalogue. Raises SendFailedError."""
        return list(_checked(self._asked("GET", "/tokens/")).json())

    def token(self, token_id: int) -> dict[str, Any] | None:
        """A token of the catalogue, None when there is none. Raises SendFailedError."""
        answer = self._asked("GET", f"/tokens/{token_id}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else _body(answer)

    def put_reference(self, token_id: int, audio: BinaryIO) -> None:
        """Gives a token its reference audio. Raises SendFailedError."""
        _checked(self._asked("PUT", f"/tokens/{token_id}/reference-audio", {"file": ("reference.wav", audio)}))

    def _asked(self, method: str, path: str, files: Mapping[str, Any] | None = None) -> httpx.Response:
        with self._client() as client:
            try:
                return client.request(method, f"{self.url}{path}", files=files)
            except httpx.HTTPError as error:
                raise SendFailedError("The catalogue cannot be read: is the stack still up? See: make logs") from error

    def _events(self, client: httpx.Client, job_id: str, last_id: str) -> Iterator[ServerSentEvent]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with connect_sse(client, "GET", f"{self.url}/tokens/analysis-progress/{job_id}", headers=headers) as source:
            if source.response.status_code in (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE):
                raise httpx.ConnectError("not now")
            if source.response.is_error:
                source.response.read()
                _body(source.response)
            yield from source.iter_sse()

    def _client(self) -> httpx.Client:
        # Straight to the loopback address, whatever proxy the environment names.
        return httpx.Client(
            trust_env=False,
            headers=self._headers(),
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=5, write=120, read=120),
        )

    def _headers(self) -> httpx.Headers:
        headers = {"Accept-Language": "en"}
        if self.credential:
            headers["Authorization"] = f"Bearer {self.credential}"
        return httpx.Headers(headers, encoding="utf-8")  # whatever somebody gave: the server says that it is none


def recording_at(path: Path) -> Path:
    """The path, if there is a file to read. Raises SendFailedError."""
    if not path.is_file():
        raise SendFailedError(
            f"There is no file {path}." if str(path) not in ("", ".") else "Which? make send FILE=path"
        )
    return path


def _body(answer: httpx.Response) -> Job:
    """The JSON object of a good answer. Raises SendFailedError with a problem body's own words."""
    return dict(_checked(answer).json())


def _checked(answer: httpx.Response) -> httpx.Response:
    """A good answer, with JSON in it. Raises SendFailedError with a problem body's own words."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if answer.is_error:
        detail = body.get("detail") or body.get("title") or f"The server answered {answer.status_code}."
        hint = f" {HOW_TO_LOG_IN}" if answer.status_code == httpx.codes.UNAUTHORIZED else ""
        raise SendFailedError(f"{detail} ({body.get('code', answer.status_code)}){hint}")
    return answer
