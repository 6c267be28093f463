"""People on a stack that asks for a login: by the tokens of its own OpenID Connect provider, and by sessions."""

import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from local_stack.stack import Stack
from tests.support.logins import bearer, person
from tests.support.sori import RECORDING, new_token

TOKEN = {"token_name": "A clip", "actor_name": "Somebody", "start_time": 0, "end_time": 2}


async def upload(client: httpx.AsyncClient, stack: Stack, headers: dict[str, str]) -> httpx.Response:
    files = {"file": ("recording.wav", RECORDING, "audio/wav")}
    return await client.post(f"{stack.url}/tokens/{new_token()}/upload-audio", files=files, headers=headers)


async def status_of(client: httpx.AsyncClient, stack: Stack, path: str, headers: dict[str, str]) -> int:
    return (await client.get(f"{stack.url}{path}", headers=headers)).status_code


async def test_nobody_uploads_without_saying_who_they_are(login_stack: Stack, client: httpx.AsyncClient) -> None:
    answer = await upload(client, login_stack, {})
    assert (answer.status_code, answer.json()["code"]) == (401, "login_required")


async def test_a_learner_sees_their_own_jobs_and_an_operator_everybodys(
    login_stack: Stack, client: httpx.AsyncClient
) -> None:
    accepted = await upload(client, login_stack, person(login_stack, "learner"))
    assert accepted.status_code == 202, accepted.text
    path = f"/jobs/{accepted.json()['job_id']}"
    seen = {
        name: await status_of(client, login_stack, path, person(login_stack, name))
        for name in ("learner", "anna", "editor", "operator")
    }
    assert seen == {"learner": 200, "anna": 404, "editor": 404, "operator": 200}


@pytest.mark.parametrize(("name", "status"), [("learner", 403), ("anna", 403), ("editor", 201), ("operator", 201)])
async def test_the_catalogue_is_changed_by_editors(
    login_stack: Stack, client: httpx.AsyncClient, name: str, status: int
) -> None:
    answer = await client.post(f"{login_stack.url}/tokens/", json=TOKEN, headers=person(login_stack, name))
    assert answer.status_code == status, answer.text


async def test_a_session_follows_a_job_to_its_end_at_whatever_replica(
    login_stack: Stack, client: httpx.AsyncClient
) -> None:
    opened = await client.post(f"{login_stack.url}/auth/session", headers=person(login_stack, "learner"))
    cookie = {"Cookie": opened.headers["set-cookie"].split(";")[0]}
    accepted = await upload(client, login_stack, {**cookie, "Origin": "http://localhost:3000"})
    assert accepted.status_code == 202, accepted.text
    url = f"{login_stack.url}{accepted.json()['progress_url']}"
    async with client.stream("GET", url, headers={**cookie, "Accept": "text/event-stream"}) as stream:
        events = "".join([text async for text in stream.aiter_text()])
    assert '"status":"completed"' in events


def local_stack(stack: Stack, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one of the stack's own commands on it."""
    env: dict[str, Any] = {**os.environ, "SORI_HOME": str(stack.home), **settings}
    program = [sys.executable, "-m", "local_stack", *command]
    return subprocess.run(program, env=env, capture_output=True, text=True, check=False)


async def test_make_send_calls_as_whom_it_is_given(
    login_stack: Stack, tmp_path: Any, client: httpx.AsyncClient
) -> None:
    recording = tmp_path / "recording.wav"
    recording.write_bytes(RECORDING)
    refused = local_stack(login_stack, "send", str(recording), SORI_TOKEN="")
    assert refused.returncode == 1
    assert "SORI_TOKEN" in refused.stderr
    token = local_stack(login_stack, "id-token", "sent-by-hand").stdout.strip()
    sent = local_stack(login_stack, "send", str(recording), SORI_TOKEN=token)
    assert sent.returncode == 0, sent.stderr
    listed = await client.get(f"{login_stack.url}/jobs", headers=bearer(token))
    assert [job["status"] for job in listed.json()["jobs"]] == ["completed"]


def test_every_part_of_such_a_stack_is_ready(login_stack: Stack) -> None:
    shown = local_stack(login_stack, "status")
    assert shown.returncode == 0, shown.stdout
    assert "oidc-provider" in shown.stdout
