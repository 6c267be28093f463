"""The records of reference audio: what the sweeper counts on holds in MongoDB as in the stand-in of the unit tests."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.catalogue import Token, TokenBody
from gateway.catalogue.store import CatalogueStore, TokenStore
from gateway.references.references import Record, Records
from gateway.references.store import ReferenceStore
from local_stack.stack import Stack
from tests.support import references as in_memory

BODY = TokenBody(token_name="Truth", actor_name="Jack", start_time=0, end_time=1)


@dataclass
class World:
    """Records, and the catalogue that names them."""

    records: Records
    tokens: in_memory.Tokens | TokenStore

    async def naming(self, url: str | None) -> None:
        """Have one more token name this."""
        body = BODY.model_copy(update={"reference_audio_url": url})
        if isinstance(self.tokens, TokenStore):
            await self.tokens.add(body)
        else:
            number = len(self.tokens.kept) + 1
            self.tokens.kept |= in_memory.Tokens(Token(id=number, **dict(body))).kept


@pytest.fixture(params=["in memory", "MongoDB"])
async def world(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[World]:
    """The stand-in and the real one; in a database of its own, where the stack's sweepers do not look."""
    if request.param == "in memory":
        tokens = in_memory.Tokens()
        yield World(in_memory.Records(tokens), tokens)
        return
    url = stack.settings["MONGODB_URL"]
    name = f"references_{uuid4().hex[:8]}"
    mongodb = MongoDB(urlsplit(url)._replace(path=f"/{name}").geturl(), REQUEST_LIMITS)
    yield World(ReferenceStore(mongodb), TokenStore(CatalogueStore(mongodb)))
    await mongodb.client.drop_database(name)
    mongodb.close()


async def by_key(world: World) -> dict[str, Record]:
    return {record.key: record for record in await world.records.all()}


async def test_a_new_one_is_unused_until_it_is_marked(world: World) -> None:
    began = datetime.now(UTC) - timedelta(milliseconds=1)
    for key in ("a", "b", "c"):
        await world.records.add(key, "audio/wav")
    await world.records.mark_used(["a", "b"])
    kept = await by_key(world)
    assert (kept["a"], kept["b"]) == (Record("a"), Record("b"))
    assert (since := kept["c"].unused_since) is not None
    assert since >= began.replace(microsecond=began.microsecond // 1000 * 1000)
    await world.records.mark_unused(["b", "c"])
    kept = await by_key(world)
    assert kept["a"].unused_since is None
    assert kept["b"].unused_since is not None
    assert kept["c"].unused_since == since, "it has been so since then"


async def test_only_what_is_still_as_it_was_is_swept_and_then_nothing_takes_it_into_use(world: World) -> None:
    for key in ("a", "b"):
        await world.records.add(key, "audio/wav")
    kept = await by_key(world)
    await world.records.mark_used(["a"])
    earlier = replace(kept["b"], unused_since=datetime(2026, 1, 1, tzinfo=UTC))
    assert not await world.records.condemn(kept["a"])
    assert not await world.records.condemn(earlier)
    assert await world.records.condemn(kept["b"])
    assert not await world.records.condemn(kept["b"]), "once"
    condemned = (await by_key(world))["b"]
    assert condemned.swept_at is not None
    assert not await world.records.renew("b")
    await world.records.mark_used(["b"])
    await world.records.mark_unused(["b"])
    assert (await by_key(world))["b"] == condemned
    await world.records.forget("b")
    await world.records.forget("b")
    assert set(await by_key(world)) == {"a"}
    assert not await world.records.renew("b")


async def test_a_renewed_one_is_unused_from_now_on(world: World) -> None:
    await world.records.add("a", "audio/wav")
    before = (await by_key(world))["a"]
    await world.records.mark_used(["a"])
    assert await world.records.renew("a")
    after = (await by_key(world))["a"]
    assert before.unused_since is not None
    assert after.unused_since is not None
    assert after.unused_since >= before.unused_since


async def test_what_tokens_name_is_known_and_many_may_be_marked_at_once(world: World) -> None:
    assert await world.records.named() == []
    for url in ("s3://sori/references/1/a", None, "references/2/b"):
        await world.naming(url)
    assert sorted(await world.records.named()) == ["references/2/b", "s3://sori/references/1/a"]
    await world.records.mark_used([])
    await world.records.mark_unused([])
    assert await world.records.all() == []
