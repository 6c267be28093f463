"""The route that takes reference audio in: what it refuses, and that each request leaves its slot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import cast

import httpx
import pytest
from fastapi import FastAPI

from chassis.clients import Clients, Proxies
from chassis.errors import BackEndError
from chassis.identity.caller import ANYBODY
from chassis.quotas.counts import Counts
from contracts.catalogue import Token
from gateway.availability import Availability
from gateway.catalogue.rows import ChangedError, Expected, RevisedRow, TokenNotFoundError
from gateway.references import routes
from gateway.references.references import References, UploadTooLateError
from gateway.references.routes import ReferenceParts
from gateway.storage import Bucket
from gateway.web.callers import read_caller
from gateway.web.forms import FileForm
from gateway.web.parts import give
from gateway.web.problems import handle_errors
from gateway.web.quotas import ClientQuotas
from gateway.web.slots import Slots
from tests.support.waiting import until_true

TOKEN = Token(id=7, token_name="Truth", actor_name="Jack", start_time=61.5, end_time=66.0)
SLOTS = 3
MAX_BYTES = 500 * 1024 * 1024


class Core:
    """What is behind the route: it waits until `going` is set, then answers or raises."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Expected]] = []
        self.error: Exception | None = None
        self.going = asyncio.Event()
        self.going.set()

    async def replace(self, token_id: int, file: FileForm, expected: Expected) -> RevisedRow[Token]:
        self.asked.append((token_id, expected))
        await self.going.wait()
        if self.error:
            raise self.error
        async for _ in file.chunks():
            pass
        return RevisedRow(TOKEN, 5)


@asynccontextmanager
async def calling(core: Core, *, up: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the route alone."""

    async def is_up() -> bool:
        return up

    app = FastAPI()
    back_ends = Availability({"S3": is_up, "MongoDB": is_up})
    references = cast("References", core)
    quotas = ClientQuotas(Counts({}), Proxies([]))
    give(
        app, ReferenceParts(references, cast("Bucket", None), back_ends, Slots(SLOTS), Slots(SLOTS), quotas, MAX_BYTES)
    )
    app.include_router(routes.router)
    app.add_middleware(Clients, proxies=Proxies([ip_network("127.0.0.1")]))
    app.dependency_overrides[read_caller] = lambda: ANYBODY
    handle_errors(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def put(client: httpx.AsyncClient, token_id: str = "7", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.put(f"/tokens/{token_id}/reference-audio", files={"file": ("a.wav", b"RIFF")}, headers=named)


async def test_the_token_is_answered_with_its_tag() -> None:
    core = Core()
    async with calling(core) as client:
        answer = await put(client, If_Match='"3", "4"')
        await put(client)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"5"')
    assert answer.json() == TOKEN.model_dump(exclude_none=True)
    assert core.asked == [(7, frozenset({3, 4})), (7, None)]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TokenNotFoundError(), 404, "token_not_found"),
        (ChangedError(9), 412, "precondition_failed"),
        (UploadTooLateError(), 408, "upload_too_slow"),
        (BackEndError("S3", "down"), 503, "unavailable"),
    ],
)
async def test_what_the_core_refuses_ends_the_connection(error: Exception, status: int, code: str) -> None:
    core = Core()
    core.error = error
    async with calling(core) as client:
        answer = await put(client)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Connection"] == "close"
    assert answer.headers.get("ETag") == ('"9"' if status == 412 else None)


async def test_metadata_is_ignored_whatever_it_is() -> None:
    async with calling(Core()) as client:
        answer = await client.put(
            "/tokens/7/reference-audio?metadata=7",
            files={"metadata": ("blob", bytes(5000)), "file": ("a.wav", b"RIFF")},
        )
    assert answer.status_code == 200


@pytest.mark.parametrize("token_id", ["test-token", "07", "0", "-1", "7.0", "99999999999"])
async def test_what_is_no_id_is_no_token(token_id: str) -> None:
    core = Core()
    async with calling(core) as client:
        answer = await put(client, token_id)
    assert (answer.status_code, answer.json()["code"]) == (404, "token_not_found")
    assert core.asked == []


async def test_while_a_back_end_is_away_nothing_is_begun() -> None:
    core = Core()
    async with calling(core, up=False) as client:
        answer = await put(client)
    assert (answer.status_code, answer.json()["code"], core.asked) == (503, "unavailable", [])


async def test_only_so_many_come_in_at_once_and_each_leaves_its_slot() -> None:
    core = Core()
    core.going.clear()
    async with calling(core) as client:
        coming = [asyncio.create_task(put(client, X_Forwarded_For=f"192.0.2.{n}")) for n in range(SLOTS)]
        await until_true(lambda: len(core.asked) == SLOTS, "all slots taken")
        refused = await put(client)
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        core.error = TokenNotFoundError()
        core.going.set()
        assert {answer.status_code for answer in await asyncio.gather(*coming)} == {404}
        core.error = None
        assert {(await put(client)).status_code for _ in range(SLOTS + 1)} == {200}
