"""Machines on a stack that asks for a login: API keys, from `sorictl keys create` to the end that an operator makes."""

import re
import uuid
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from contracts.accounts import API_KEYS, key_sha256
from local_stack import sample
from local_stack.stack import Stack
from tests.support.logins import bearer, new_key, person
from tests.support.operator import Said, at_a_terminal, sorictl
from tests.support.sori import RECORDING, new_token
from tests.support.waiting import until

TOKEN = {"token_name": "A clip", "actor_name": "Somebody", "start_time": 0, "end_time": 2}
UNTIL_REVOKED_SECONDS = 60.0


async def keys(stack: Stack, *arguments: str) -> Said:
    return await sorictl(stack.home, stack.settings, "keys", *arguments)


async def listed(stack: Stack, name: str) -> dict[str, Any]:
    (found,) = [line for line in (await keys(stack, "list", "--json")).lines() if line["name"] == name]
    return found


async def status(client: httpx.AsyncClient, stack: Stack, path: str, key: str) -> int:
    return (await client.get(f"{stack.url}{path}", headers=bearer(key))).status_code


async def upload(client: httpx.AsyncClient, stack: Stack, key: str) -> httpx.Response:
    files = {"file": ("recording.wav", RECORDING, "audio/wav")}
    return await client.post(f"{stack.url}/tokens/{new_token()}/upload-audio", files=files, headers=bearer(key))


async def test_a_new_key_is_printed_alone_and_kept_as_its_digest(login_stack: Stack) -> None:
    name = f"recorder {uuid.uuid4()}"
    said = await keys(login_stack, "create", name, "-s", "jobs:own", "-s", "operate", "-s", "jobs:own")
    assert said.status == 0, said.err
    assert re.fullmatch(r"sori_[A-Za-z0-9_-]{43}\n", said.out)
    key = said.out.strip()
    assert key not in said.err
    found = await listed(login_stack, name)
    assert found["id"] in said.err
    assert (found["scopes"], found["revoked_at"], found["last_used"]) == (["jobs:own", "operate"], None, None)
    with MongoClient[dict[str, Any]](login_stack.settings["MONGODB_URL"]) as mongodb:
        kept = mongodb.get_default_database()[API_KEYS]
        assert key not in str(list(kept.find()))
        assert kept.count_documents({"_id": key_sha256(key)}) == 1
        plan = kept.find({"key_id": found["id"]}).explain()["queryPlanner"]["winningPlan"]
    assert "IXSCAN" in str(plan)


async def test_a_key_does_what_its_scopes_name_and_its_use_is_noted(
    login_stack: Stack, client: httpx.AsyncClient
) -> None:
    name = f"reader {uuid.uuid4()}"
    key = await new_key(login_stack, "catalogue:read", name=name)
    assert await status(client, login_stack, "/tokens/", key) == 200
    assert await status(client, login_stack, "/jobs", key) == 403
    refused = await client.post(f"{login_stack.url}/tokens/", json=TOKEN, headers=bearer(key))
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    assert (await upload(client, login_stack, key)).status_code == 403
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", (await listed(login_stack, name))["last_used"])


async def test_a_keys_jobs_are_its_own_and_those_of_keys_for_all(login_stack: Stack, client: httpx.AsyncClient) -> None:
    key, other = await new_key(login_stack, "jobs:own"), await new_key(login_stack, "jobs:own")
    for_all = await new_key(login_stack, "jobs:own", "jobs:all")
    accepted = await upload(client, login_stack, key)
    assert accepted.status_code == 202, accepted.text
    path = f"/jobs/{accepted.json()['job_id']}"
    seen = [await status(client, login_stack, path, one) for one in (key, other, for_all)]
    assert seen == [200, 404, 200]
    assert (await client.get(f"{login_stack.url}{path}", headers=person(login_stack, "learner"))).status_code == 404


async def test_the_sample_is_sent_with_a_key_that_is_good_for_it(login_stack: Stack, client: httpx.AsyncClient) -> None:
    key = sample.new_key(login_stack.settings["MONGODB_URL"])
    assert (await upload(client, login_stack, key)).status_code == 202
    changed = await client.post(f"{login_stack.url}/tokens/", json=TOKEN, headers=bearer(key))
    assert changed.status_code == 201, changed.text
    assert await status(client, login_stack, "/tokens/", key) == 200


async def test_a_revoked_key_is_refused_by_every_replica_within_a_minute(
    login_stack: Stack, client: httpx.AsyncClient
) -> None:
    name = f"to be revoked {uuid.uuid4()}"
    key = await new_key(login_stack, "jobs:own", name=name)
    gateways = [part.address for part in login_stack.parts.values() if part.name.startswith("gateway-")]

    async def statuses() -> set[int]:
        return {(await client.get(f"{address}/jobs", headers=bearer(key))).status_code for address in gateways}

    async def refused() -> bool:
        return await statuses() == {401}

    assert await statuses() == {200}
    revoked = await keys(login_stack, "revoke", (await listed(login_stack, name))["id"], "--yes")
    assert (revoked.status, revoked.out) == (0, f"Revoked: {name}.\n")
    await until(refused, "no gateway to take the key", limit_seconds=UNTIL_REVOKED_SECONDS, every_seconds=0.5)


async def test_a_key_is_revoked_once_and_only_when_told_so(login_stack: Stack) -> None:
    name = f"asked about {uuid.uuid4()}"
    await new_key(login_stack, "jobs:own", name=name)
    key_id = (await listed(login_stack, name))["id"]
    nobody = await keys(login_stack, "revoke", key_id)
    assert (nobody.status, "--yes" in nobody.err) == (2, True)
    no = await at_a_terminal(login_stack.home, login_stack.settings, "keys", "revoke", key_id, answers="n\n")
    assert (no.status, name in no.out) == (1, True)
    assert (await listed(login_stack, name))["revoked_at"] is None
    yes = await at_a_terminal(login_stack.home, login_stack.settings, "keys", "revoke", f"key:{key_id}", answers="y\n")
    assert yes.status == 0, yes.err
    first = (await listed(login_stack, name))["revoked_at"]
    again = await keys(login_stack, "revoke", key_id)
    assert (again.status, "before" in again.out) == (0, True)
    assert (await listed(login_stack, name))["revoked_at"] == first


async def test_a_key_that_is_not_there_is_said_so(login_stack: Stack) -> None:
    said = await keys(login_stack, "revoke", "0123456789abcdef" * 2, "--yes")
    assert (said.status, "there is no key" in said.err) == (1, True)


@pytest.mark.parametrize("command", [("list",), ("create", "a", "-s", "operate"), ("revoke", "a")])
async def test_a_database_that_is_away_is_said_so(login_stack: Stack, command: tuple[str, ...]) -> None:
    said = await sorictl(login_stack.home, {"MONGODB_URL": "mongodb://127.0.0.1:9/sori"}, "keys", *command)
    assert (said.status, said.out) == (1, "")
    assert "MongoDB at 127.0.0.1:9 cannot be reached." in said.err
