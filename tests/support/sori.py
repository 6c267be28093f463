"""A client of the public surface: uploads, reads results, calls the webhook as an analysis server does."""

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from tests.support.recordings import wav
from tests.support.waiting import until

State = dict[str, Any]
RECORDING = wav(0.4, seed=1)
"""Almost half a second of sound, for tests where the sound does not matter."""


def new_token(behaviour: str = "normal") -> str:
    """A token id that nobody else uses, and that makes the fake analysis server behave in this way."""
    return f"{behaviour}--{uuid.uuid4().hex[:12]}"


class Sori:
    """The service at `url`, as a front end and an analysis server see it."""

    def __init__(self, client: httpx.AsyncClient, url: str, webhook_secret: str) -> None:
        self.client = client
        self.url = url
        self._secret = webhook_secret

    async def upload(
        self,
        recording: bytes = RECORDING,
        token_id: str | None = None,
        filename: str = "recording.wav",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a recording as browsers do; returns the answer, whatever it is."""
        files = {"file": (filename, recording, "audio/wav")}
        url = f"{self.url}/tokens/{token_id or new_token()}/upload-audio"
        return await self.client.post(url, files=files, headers=headers)

    async def job(
        self, recording: bytes = RECORDING, token_id: str | None = None, filename: str = "recording.wav"
    ) -> str:
        """Send a recording that must be accepted; returns the job's id."""
        answer = await self.upload(recording, token_id, filename)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    async def result(self, job_id: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """The answer to a request for the job's state, whatever it is."""
        return await self.client.get(self.result_url(job_id), headers=headers)

    async def state(self, job_id: str, language: str = "ko") -> State:
        """The job's state; AssertionError when it cannot be read."""
        answer = await self.result(job_id, {"Accept-Language": language})
        assert answer.status_code == 200, answer.text
        found: State = answer.json()
        return found

    async def ended(self, job_id: str, *, limit_seconds: float = 40.0) -> State:
        """The job's terminal state, waiting for it."""

        async def look() -> State | None:
            state = await self.state(job_id)
            return state if state["status"] != "processing" else None

        return await until(look, f"the end of job {job_id}", limit_seconds=limit_seconds)

    async def reached(self, job_id: str, progress: int) -> State:
        """The job's state once it has come this far."""

        async def look() -> State | None:
            state = await self.state(job_id)
            return state if state["progress"] >= progress else None

        return await until(look, f"job {job_id} at {progress}")

    async def completed(self, recording: bytes = RECORDING, token_id: str | None = None) -> State:
        """Send a recording and return the state of its job once that is completed."""
        state = await self.ended(await self.job(recording, token_id))
        assert state["status"] == "completed", state
        return state

    def result_url(self, job_id: str) -> str:
        """Where the job's state is read."""
        return f"{self.url}/tokens/analysis-result/{job_id}"

    def progress_url(self, job_id: str) -> str:
        """Where the job's progress is streamed."""
        return f"{self.url}/tokens/analysis-progress/{job_id}"

    def webhook_url(self, job_id: str, attempt: int = 1, path: str = "/tokens/webhook/analysis-complete") -> str:
        """The signed address that an analysis server would be given; signed here by hand, as the README describes."""
        signature = hmac.new(self._secret.encode(), f"{job_id}.{attempt}".encode(), hashlib.sha256).hexdigest()
        return f"{self.url}{path}?job_id={job_id}&attempt={attempt}&signature={signature}"

    async def webhook(self, job_id: str, body: object, attempt: int = 1) -> httpx.Response:
        """Call the job's webhook with a JSON body."""
        return await self.client.post(self.webhook_url(job_id, attempt), json=body)
