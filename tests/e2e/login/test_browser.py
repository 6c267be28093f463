"""Logging in, uploading and listening in Chromium: from a page of Sori's own origin, and from one of another's."""

import asyncio
import base64
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.async_api import Browser, Page, Route, async_playwright

from local_stack import oidc_provider
from local_stack.stack import Stack
from tests.support.logins import bearer
from tests.support.sori import RECORDING, new_token

INSTALL = Path(__file__).resolve().parents[3] / "deploy" / "local" / "install-packages"
OTHER_ORIGIN = "http://localhost:3000"
"""One that CORS_ORIGINS lists."""
UPLOAD = """async ([token, recording]) => {
    const form = new FormData();
    const bytes = Uint8Array.from(atob(recording), (character) => character.charCodeAt(0));
    form.append('file', new Blob([bytes], {type: 'audio/wav'}), 'recording.wav');
    const answer = await fetch(`/tokens/${token}/upload-audio`, {method: 'POST', body: form});
    return [answer.status, await answer.json()];
}"""
LISTEN = """(address) => new Promise((resolve) => {
    const statuses = [];
    const source = new EventSource(address);
    source.onmessage = (message) => {
        statuses.push(JSON.parse(message.data).status);
        if (statuses.at(-1) !== 'processing') { source.close(); resolve(statuses); }
    };
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve([...statuses, 'refused']); };
})"""
STATUS = """async ([method, address, headers, body]) => {
    try {
        const answer = await fetch(address, {method, headers, body, credentials: 'include'});
        return [answer.status, answer.status === 204 ? null : await answer.json()];
    } catch (error) { return [0, null]; }
}"""


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, which is installed when it is not there."""
    if shutil.which("chromium") is None:
        install = ["sh", str(INSTALL), "chromium"]
        await asyncio.to_thread(subprocess.run, install, check=True, capture_output=True)
    async with async_playwright() as playwright:
        # Its sandbox wants rights that containers lack; it opens pages of this test's own alone.
        options = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
        opened = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        yield opened
        await opened.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of a browser that knows nothing yet."""
    async with await browser.new_context() as context:
        yield await context.new_page()


async def logged_in(page: Page, stack: Stack, client: httpx.AsyncClient) -> str:
    """Log somebody in as a page does (OpenID Connect Core 1.0, 3.1), back to a page of Sori; return the id token."""
    issuer, back = stack.settings["OIDC_ISSUERS"], f"{stack.url}/docs"
    wanted = {"client_id": oidc_provider.AUDIENCE, "redirect_uri": back}
    asked = {"response_type": "code", "scope": "openid profile email", **wanted}
    await page.goto(f"{issuer}/oauth2/authorize?{urlencode(asked)}")
    await page.fill("input[name=sub]", f"somebody {uuid.uuid4().hex}")
    await page.press("input[name=sub]", "Enter")
    await page.wait_for_url(f"{back}?**")
    code = httpx.URL(page.url).params["code"]
    proof = {"grant_type": "authorization_code", "code": code, "client_secret": "any", **wanted}
    return str((await client.post(f"{issuer}/oauth2/token", data=proof)).json()["id_token"])


async def called(page: Page, method: str, address: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
    """The status and the body of a call that the page makes; 0 when the browser does not let it see the answer."""
    status, said = await page.evaluate(STATUS, [method, address, headers, body])
    return status, said


async def test_a_person_logs_in_uploads_and_listens_by_cookie(
    login_stack: Stack, client: httpx.AsyncClient, page: Page
) -> None:
    token = await logged_in(page, login_stack, client)
    assert (await called(page, "GET", "/jobs"))[0] == 401
    status, session = await called(page, "POST", "/auth/session", Authorization=f"Bearer {token}")
    assert (status, session["roles"]) == (201, ["learner"])
    assert await page.evaluate("document.cookie") == "", "no script reads the session"
    recording = base64.b64encode(RECORDING).decode()
    status, job = await page.evaluate(UPLOAD, [new_token("slow"), recording])
    assert status == 202, job
    statuses = await page.evaluate(LISTEN, job["progress_url"])
    assert (statuses[0], statuses[-1]) == ("processing", "completed")
    assert [one["job_id"] for one in (await called(page, "GET", "/jobs"))[1]["jobs"]] == [job["job_id"]]
    assert (await called(page, "DELETE", "/auth/session"))[0] == 204
    assert (await called(page, "GET", "/jobs"))[0] == 401


@pytest.mark.parametrize(("origin", "is_listed"), [(OTHER_ORIGIN, True), ("http://localhost:3999", False)])
async def test_a_page_of_another_origin_listens_by_ticket_if_it_is_listed(
    login_stack: Stack, client: httpx.AsyncClient, page: Page, origin: str, *, is_listed: bool
) -> None:
    sori = login_stack.url
    token = await logged_in(page, login_stack, client)
    assert (await called(page, "POST", "/auth/session", Authorization=f"Bearer {token}"))[0] == 201
    files = {"file": ("recording.wav", RECORDING, "audio/wav")}
    sent = await client.post(f"{sori}/tokens/{new_token('slow')}/upload-audio", files=files, headers=bearer(token))

    async def shown(route: Route) -> None:
        await route.fulfill(body="<title>another page</title>", content_type="text/html")

    await page.route(f"{origin}/**", shown)
    await page.goto(f"{origin}/")
    assert (await called(page, "GET", f"{sori}/jobs"))[0] == (401 if is_listed else 0), "the cookie stays at home"
    asked = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = f'{{"job_id": "{sent.json()["job_id"]}"}}'
    status, ticket = await called(page, "POST", f"{sori}/auth/tickets", body, **asked)
    assert status == (201 if is_listed else 0)
    if is_listed:
        assert (await page.evaluate(LISTEN, sori + ticket["progress_url"]))[-1] == "completed"
        assert await page.evaluate(LISTEN, sori + ticket["progress_url"]) == ["refused"], "a ticket is for one stream"
