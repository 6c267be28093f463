"""Pages of other sites in a browser that can reach Sori: what they cannot do, and what our answers have it forbid."""

import base64
import hashlib
import re
from typing import Any

import httpx
import pytest

from local_stack.stack import Stack
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.catalogue import new_catalogue_token
from tests.support.sori import RECORDING, Sori, new_token

FRONT = "https://front.example"
EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
"""What a browser sends with a form of another site's page, without asking first."""
UNKNOWN_JOB = "5c1f0d51-9a0e-4f4c-8d0f-0e2a4c3b7d10"


async def test_a_form_of_another_site_makes_no_job(sori: Sori, jobs: Any) -> None:
    token_id = new_token("never-calls-back")
    url = f"{sori.url}/tokens/{token_id}/upload-audio"
    for language, accepted in LANGUAGES.items():
        headers = EVIL | {"Accept-Language": accepted}
        answer = await sori.client.post(url, files={"file": ("a.wav", RECORDING)}, headers=headers)
        assert_problem(answer, 403, "origin_not_allowed", language)
        assert "access-control-allow-origin" not in answer.headers
    assert await jobs.count_documents({"token_id": token_id}) == 0


async def test_no_call_of_another_sites_page_changes_anything(sori: Sori) -> None:
    token = await new_catalogue_token(sori)
    before = (await sori.client.get(f"{sori.url}/tokens/{token['id']}")).json()
    calls = [("POST", "/tokens/"), ("PUT", f"/tokens/{token['id']}"), ("DELETE", f"/tokens/{token['id']}")]
    calls += [("POST", f"/tokens/{token['id']}/view"), ("DELETE", f"/jobs/{UNKNOWN_JOB}?purge=true")]
    for method, path in calls:
        assert_problem(await sori.client.request(method, sori.url + path, headers=EVIL), 403, "origin_not_allowed")
    assert (await sori.client.get(f"{sori.url}/tokens/{token['id']}")).json() == before


@pytest.mark.parametrize("site", ["same-origin", None])
async def test_our_own_page_and_listed_ones_change_things(sori: Sori, site: str | None) -> None:
    named = {} if site is None else {"Sec-Fetch-Site": site}
    own = await sori.upload(headers={"Origin": sori.url} | named)
    listed = await sori.upload(headers={"Origin": FRONT} | ({} if site is None else {"Sec-Fetch-Site": "cross-site"}))
    assert (own.status_code, listed.status_code) == (202, 202)
    for answer in (own, listed):
        assert (await sori.ended(answer.json()["job_id"]))["status"] == "completed"


async def test_a_signed_webhook_counts_wherever_it_comes_from(sori: Sori) -> None:
    url = sori.webhook_url(UNKNOWN_JOB)
    answer = await sori.client.post(url, json={}, headers=EVIL | {"Connection": "close"})
    assert_problem(answer, 404, "job_not_found")


async def test_no_browser_takes_an_answer_for_what_it_is_not(sori: Sori, stack: Stack) -> None:
    job_id = (await sori.completed())["job_id"]
    paths = ["/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css", "/health", "/jobs", "/nowhere"]
    paths += ["/edge-problem", f"/jobs/{job_id}/audio"]
    paths += [f"/tokens/analysis-progress/{job_id}", f"/tokens/analysis-progress/{UNKNOWN_JOB}"]
    parts = [part for part in stack.parts if re.match(r"edge|gateway|uploader|analyzer-bridge|notifier", part)]
    addresses = [sori.url + path for path in paths] + [f"{stack.parts[part].address}/health" for part in parts]
    for address in addresses:
        answer = await sori.client.get(address)
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], address


async def test_the_docs_page_runs_its_own_script_alone_and_in_no_frame(sori: Sori) -> None:
    page = await sori.client.get(f"{sori.url}/docs")
    policy = dict(rule.partition(" ")[::2] for rule in page.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'",) * 3
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert policy["script-src"].split() == ["'self'", *(f"'sha256-{digest}'" for digest in digests)]
    assert page.headers["referrer-policy"] == "same-origin"


METHODS = ("PATCH", "TRACE", "PROPFIND", "FOO")


@pytest.mark.parametrize("method", METHODS)
async def test_every_address_tells_all_of_its_methods_to_whoever_uses_another(
    sori: Sori, client: httpx.AsyncClient, method: str
) -> None:
    document = (await client.get(f"{sori.url}/openapi.json")).json()
    known = {path: {name.upper() for name in calls} for path, calls in document["paths"].items()}
    known |= {"/docs": {"GET"}, "/openapi.json": {"GET"}}
    for path, methods in known.items():
        address = sori.url + re.sub(r"\{job_id\}", UNKNOWN_JOB, re.sub(r"\{(?!job_id)\w+\}", "1", path))
        for language, accepted in LANGUAGES.items():
            refused = await client.request(method, address, headers={"Accept-Language": accepted})
            assert_problem(refused, 405, "method_not_allowed", language)
            told = set(refused.headers["allow"].split(", "))
            assert told == methods | ({"HEAD", "OPTIONS"} if "GET" in methods else {"OPTIONS"}), path
