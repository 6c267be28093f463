"""Any call that the OpenAPI document allows, by every role: none breaks the service, none shows what is another's."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo import AsyncMongoClient

from contracts.rights import Right
from local_stack.stack import Stack
from tests.contract.documents import document
from tests.support.answers import PROGRAMS_TALK
from tests.support.logins import bearer, kept_key, person
from tests.support.sori import RECORDING, new_token
from tests.support.waiting import until

Operation = schemathesis.APIOperation[Any, Any, Any, Any]
NOT_CALLED = {"DELETE /me"}
"""It would end what the other calls are about, so only who has not logged in tries it."""


@dataclass(frozen=True)
class Owner:
    """Whose job says a word that no other job says."""

    headers: dict[str, str]
    job_id: str
    marker: str


@dataclass(frozen=True)
class Role:
    """Who calls, the words that no answer to them may have, and the jobs that they may remove."""

    headers: dict[str, str]
    unseen: Sequence[str]
    removable: Sequence[str] = ()


@dataclass(frozen=True)
class Roles:
    """Everybody who calls, and the jobs that calls are about where the document wants a job's id."""

    by_name: dict[str, Role]
    job_ids: Sequence[str]


async def owner(stack: Stack, client: httpx.AsyncClient, name: str) -> Owner:
    """Somebody new, and their job, which is completed."""
    marker, headers = f"marker{uuid.uuid4().hex}", person(stack, f"{name} {uuid.uuid4().hex}")
    sent = await client.post(
        f"{stack.url}/tokens/{new_token()}/upload-audio",
        files={"file": (f"{marker}.wav", RECORDING, "audio/wav")},
        data={"metadata": f'{{"marker": "{marker}"}}'},
        headers=headers,
    )
    job_id = sent.json()["job_id"]

    async def has_ended() -> bool:
        answer = await client.get(f"{stack.url}/jobs/{job_id}", headers=headers)
        return bool(answer.json()["status"] == "completed")

    await until(has_ended, "the end of the job")
    return Owner(headers, job_id, marker)


@pytest.fixture(scope="module")
async def roles(login_stack: Stack, client: httpx.AsyncClient) -> Roles:
    ann, bob = [await owner(login_stack, client, name) for name in ("ann", "bob")]
    async with AsyncMongoClient[dict[str, Any]](login_stack.settings["MONGODB_URL"]) as mongodb:
        database = mongodb.get_default_database()
        key, other = [await kept_key(database, *some) for some in ([Right.JOBS_OWN, Right.CATALOGUE_WRITE], [])]
    both, jobs = [ann.marker, bob.marker], [ann.job_id, bob.job_id]
    by_name = {
        "nobody": Role({}, both),
        "ann": Role(ann.headers, [bob.marker], [ann.job_id]),
        "bob": Role(bob.headers, [ann.marker], [bob.job_id]),
        "an editor": Role(person(login_stack, "editor"), both),
        "an operator": Role(person(login_stack, "operator"), [], jobs),
        "a key": Role(bearer(key), both),
        "a key for nothing": Role(bearer(other), both),
    }
    return Roles(by_name, jobs)


def operations() -> list[Operation]:
    """What the document has, without the credentials, which each role brings along."""
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    schema = schemathesis.openapi.from_dict(document("openapi/openapi.json"), config=config)
    return [cast(Any, found).ok() for found in schema.get_all_operations()]


def call_as(role: Role, operation: Operation, jobs: Sequence[str], url: str, times: int) -> int:
    """Call the operation with whatever fits the document, and look at each answer; return how many there were."""
    called = 0
    method = operation.method.upper()
    # Those of others first: the first call that is made of a strategy is its simplest.
    asked_for = [job_id for job_id in jobs if job_id not in role.removable]
    asked_for += role.removable if method != "DELETE" else []

    # The same calls at each run: derandomize seeds them by this function.
    @settings(
        max_examples=times,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    # The number makes calls differ that have no parameters, or they would be made once.
    @given(case=operation.as_strategy(), job_id=st.sampled_from([*asked_for, None]), _number=st.integers())
    def call(case: schemathesis.Case[Any], job_id: str | None, _number: int) -> None:
        nonlocal called
        called += 1
        if job_id is not None and "job_id" in case.path_parameters:
            case.path_parameters["job_id"] = job_id
        answer = case.call(base_url=url, headers=role.headers, timeout=30)
        text = answer.content.decode(errors="replace")
        said = f"{method} {case.formatted_path}: {answer.status_code} {text[:300]}"
        assert answer.status_code < 500, said
        assert not [word for word in role.unseen if word in text], said
        assert answer.status_code < 400 or not PROGRAMS_TALK.search(text), said

    call()
    return called


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(300, id="300-calls", marks=pytest.mark.timeout(300)),
        pytest.param(10_000, id="10000-calls", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
    ],
)
def test_no_call_breaks_the_service_or_shows_what_is_anothers(login_stack: Stack, roles: Roles, calls: int) -> None:
    times = -(-calls // (len(operations()) * len(roles.by_name)))
    called = sum(
        call_as(role, operation, roles.job_ids, login_stack.url, times)
        for name, role in roles.by_name.items()
        for operation in operations()
        if name == "nobody" or operation.label not in NOT_CALLED
    )
    assert called >= calls
