"""The catalogue's MongoDB: every question is answered from an index, and of changes at the same time one is made."""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.catalogue import MAX_SCRIPTS, Actor, ActorBody, Script, ScriptBody, Token, TokenBody, document, folded
from gateway.catalogue import store, transactions
from gateway.catalogue.rows import (
    ActorExistsError,
    ActorNotFoundError,
    ChangedError,
    Order,
    Page,
    ScriptNotFoundError,
    TokenFilter,
    TokenNotFoundError,
    TooManyScriptsError,
)
from gateway.catalogue.store import ActorStore, CatalogueStore, ScriptStore, TokenStore
from local_stack.stack import Stack
from tests.support.databases import own_database, profiled, stages

NOBODY = 2**31 - 1
WHOLE = Page(0, 100)
CATEGORIES = ("사극", "Drama", "애니메이션", "Sitcom", None)
CAST = [Actor(id=n, name=f"배우 {n}", aliases=[f"Actor {n}", f"별명 {n % 7}"]) for n in range(1, 41)]
SCANS = {"IXSCAN", "IDHACK", "COUNT_SCAN"}
OTHER_STAGES = {"COUNT", "FETCH", "LIMIT", "PROJECTION_SIMPLE", "SKIP", "SORT_MERGE", "UPDATE", "DELETE"}


def token(number: int) -> Token:
    """One of many tokens, which differ in all that they can be asked for by."""
    chosen = random.Random(number)
    cast = chosen.sample(CAST, k=chosen.choice((1, 1, 2)))
    return Token(
        id=number,
        token_name=chosen.choice(("도깨비의 고백", "명량 해전", "The Speech", "Last Scene")) + f" {number}",
        actor_name=", ".join(chosen.choice((actor.name, *actor.aliases)) for actor in cast),
        category=chosen.choice(CATEGORIES),
        start_time=number,
        end_time=number + 1,
        view_count=chosen.choice((0, 0, 1, 5, number)),
    )


TOKENS = [token(number) for number in range(1, 401)]


def token_body(**fields: Any) -> TokenBody:
    return TokenBody.model_validate(
        {"token_name": "명량", "actor_name": "최민식", "start_time": 1, "end_time": 2, **fields}
    )


def script_body(token_id: int, **fields: Any) -> ScriptBody:
    return ScriptBody.model_validate({"token_id": token_id, "start_time": 1, "end_time": 2, "script": "a", **fields})


@pytest.fixture
async def address(stack: Stack) -> AsyncIterator[str]:
    """A database of this test's own."""
    async with own_database(stack) as url:
        yield url


@pytest.fixture
async def catalogue(address: str) -> AsyncIterator[CatalogueStore]:
    """The collections in it, as the gateway opens them."""
    opened = MongoDB(address, REQUEST_LIMITS)
    yield CatalogueStore(opened)
    opened.close()


@pytest.fixture
def tokens(catalogue: CatalogueStore) -> TokenStore:
    return TokenStore(catalogue)


@pytest.fixture
def scripts(catalogue: CatalogueStore) -> ScriptStore:
    return ScriptStore(catalogue)


@pytest.fixture
def actors(catalogue: CatalogueStore) -> ActorStore:
    return ActorStore(catalogue)


@pytest.fixture
async def filled(catalogue: CatalogueStore, address: str) -> None:
    """Some hundred rows in each collection, as an import leaves them."""
    lines = [
        Script(id=3 * one.id + n, token_id=one.id, start_time=3 - n, end_time=4, script=f"line {n}")
        for one in TOKENS
        for n in range(3)
    ]
    for name, rows in (("tokens", TOKENS), ("actors", CAST), ("scripts", lines)):
        collection = await catalogue.collection(name)
        await collection.insert_many([{**document(row), "revision": 1} for row in rows])
        async with AsyncMongoClient[dict[str, Any]](address) as mongodb:
            counters = mongodb.get_default_database()["counters"]
            await counters.insert_one({"_id": name, "last": max(row.id for row in rows)})


def meant(wanted: TokenFilter) -> list[int]:
    """The ids of the tokens that a list has to have, in their order."""
    names = {folded(wanted.actor or "")} | {
        folded(name)
        for actor in CAST
        if folded(wanted.actor or "") in map(folded, (actor.name, *actor.aliases))
        for name in (actor.name, *actor.aliases)
    }
    found = [
        one
        for one in TOKENS
        if wanted.category in {None, one.category}
        and (wanted.actor is None or names & {folded(name) for name in one.actor_name.split(",")})
        and any(folded(wanted.search or "") in folded(text) for text in (one.token_name, one.actor_name))
    ]
    order = {Order.ID: lambda one: one.id, Order.LATEST: lambda one: -one.id}
    popular = lambda one: (-one.view_count, -one.id)  # noqa: E731 - beside the others
    return [one.id for one in sorted(found, key=order.get(wanted.order, popular))]


FILTERS = [
    {name: value for name, value in zip(("category", "actor", "search"), given, strict=True) if value is not None}
    for given in itertools.product((None, "사극"), (None, "actor 3", "별명 3"), (None, "고백", "E S", "4", "  "))
]


async def test_every_list_has_what_was_asked_for_in_its_order_and_is_read_from_an_index(
    tokens: TokenStore, filled: None, address: str
) -> None:
    pages = (Page(0, 100), Page(5, 10))
    async with profiled(address) as entries:
        for given, order, page in itertools.product(FILTERS, Order, pages):
            wanted = TokenFilter(**given, order=order)
            found = [one.id for one in await tokens.page(wanted, page)]
            assert found == meant(wanted)[page.skip : page.skip + page.limit], wanted
    asked = [entry for entry in entries if entry["ns"].endswith(".tokens")]
    assert len(asked) == len(FILTERS) * len(Order) * len(pages)
    assert_from_indexes(entries)


async def test_every_other_question_and_every_change_is_served_by_an_index(
    tokens: TokenStore, scripts: ScriptStore, actors: ActorStore, filled: None, address: str
) -> None:
    some = frozenset({1})
    async with profiled(address) as entries:
        await tokens.find(7)
        assert [line.id for line in await tokens.scripts_of(7)] == [23, 22, 21]
        await tokens.of_actor(CAST[3], Page(1, 5))
        await tokens.view(7)
        await tokens.replace(7, token_body(), some)
        await tokens.set_reference(7, "s3://bucket/key", None)
        await scripts.page(Page(100, 100))
        await scripts.find(21)
        await scripts.add(script_body(7))
        await scripts.replace(21, script_body(7), some)
        await scripts.replace(22, script_body(8), None)
        await scripts.remove(22, None)
        await tokens.remove(7, None)
        await tokens.add(token_body())
        await actors.page(Page(10, 10))
        assert [actor.id for actor in await actors.search("명 3", WHOLE)] == [3, 10, 17, 24, 31, 38]
        await actors.find(3)
        await actors.replace(3, ActorBody(name="배우 3", aliases=["별명"]), some)
        await actors.remove(3, frozenset({2}))
        await actors.add(ActorBody(name="배우 3"))
        for change in (tokens.remove(8, frozenset({77})), actors.remove(8, frozenset({77}))):
            with pytest.raises(ChangedError):
                await change
    assert len(entries) > 30
    assert_from_indexes(entries)


def assert_from_indexes(entries: list[dict[str, Any]]) -> None:
    """Check that no operation read a whole collection, or sorted what it had read."""
    planned = [entry for entry in entries if entry.get("planSummary")]
    assert planned
    for entry in planned:
        # "IXSCAN { category: 1, _id: 1 }, IXSCAN …"; not every change has its stages here.
        assert set(re.findall(r"[A-Z]{2,}[A-Z_]*", entry["planSummary"])) <= SCANS, entry["planSummary"]
        assert set(stages(entry.get("execStats"))) <= SCANS | OTHER_STAGES, entry
        assert not entry.get("hasSortStage"), entry


async def test_a_page_costs_what_it_has_and_not_what_there_is(tokens: TokenStore, filled: None, address: str) -> None:
    async with profiled(address) as entries:
        for order in Order:
            await tokens.page(TokenFilter(order=order), Page(0, 10))
            await tokens.page(TokenFilter(category="사극", order=order), Page(0, 10))
            await tokens.page(TokenFilter(actor="배우 3", order=order), Page(0, 10))
    assert {entry["docsExamined"] <= 20 for entry in entries if entry["ns"].endswith(".tokens")} == {True}


async def test_a_row_that_is_older_than_a_rule_is_read_all_the_same(
    tokens: TokenStore, address: str, catalogue: CatalogueStore
) -> None:
    kept = (await tokens.add(token_body())).row
    old = {"token_name": "ad\u200bmin", "youtube_url": "https://youtu.be/<b>", "s3_pitch_url": "s3://sori/audio/1.wav"}
    await (await catalogue.collection("tokens")).update_one({"_id": kept.id}, {"$set": old})
    found = await tokens.find(kept.id)
    assert found is not None
    assert found.row == kept.model_copy(update=old)
    assert found.row in await tokens.page(TokenFilter(), WHOLE)


async def test_of_many_writers_with_one_tag_one_has_its_way(tokens: TokenStore) -> None:
    kept = await tokens.add(token_body())
    expected = frozenset({kept.revision})
    writers = (tokens.replace(kept.row.id, token_body(token_name=f"{n}"), expected) for n in range(20))
    answers = await asyncio.gather(*writers, return_exceptions=True)
    (won,) = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert all(isinstance(answer, ChangedError) and answer.revision == 2 for answer in answers if answer is not won)
    assert await tokens.find(kept.row.id) == won
    assert won.revision == 2


async def test_views_are_all_counted_and_are_no_changes(tokens: TokenStore) -> None:
    kept = await tokens.add(token_body())
    seen = await asyncio.gather(*(tokens.view(kept.row.id) for _ in range(20)))
    assert sorted(views.view_count for views in seen) == list(range(1, 21))
    after = await tokens.replace(kept.row.id, token_body(), frozenset({kept.revision}))
    assert after.row.view_count == 20


async def test_ids_are_given_once_and_those_that_an_import_took_are_passed_over(
    tokens: TokenStore, address: str
) -> None:
    first = await asyncio.gather(*(tokens.add(token_body()) for _ in range(10)))
    assert sorted(kept.row.id for kept in first) == list(range(1, 11))
    async with AsyncMongoClient[dict[str, Any]](address) as mongodb:
        taken = [{**document(token(number)), "revision": 1} for number in (11, 12)]
        await mongodb.get_default_database()["tokens"].insert_many(taken)
    assert (await tokens.add(token_body())).row.id == 13


async def test_a_script_that_is_added_while_its_token_is_removed_is_never_left_behind(
    tokens: TokenStore, scripts: ScriptStore, catalogue: CatalogueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_id = (await tokens.add(token_body())).row.id
    begun, go = asyncio.Event(), asyncio.Event()

    async def insert_later(*given: Any, **more: Any) -> None:
        begun.set()
        await go.wait()
        await transactions.insert(*given, **more)

    monkeypatch.setattr(store, "insert", insert_later)
    adding = asyncio.create_task(scripts.add(script_body(token_id)))
    await begun.wait()
    removing = asyncio.create_task(tokens.remove(token_id, None))
    # It is in the way of the removal, which would be done by then.
    await asyncio.wait([removing], timeout=0.3)
    go.set()
    await asyncio.gather(adding, removing)
    with pytest.raises(TokenNotFoundError):
        await scripts.add(script_body(token_id))
    assert await (await catalogue.collection("scripts")).count_documents({}) == 0


async def test_scripts_that_are_added_at_once_are_no_more_than_a_token_may_have(
    tokens: TokenStore, scripts: ScriptStore, catalogue: CatalogueStore
) -> None:
    kept = await tokens.add(token_body())
    there = [Script(id=n, token_id=kept.row.id, start_time=n, end_time=n + 1, script="a") for n in range(5, 102)]
    await (await catalogue.collection("scripts")).insert_many([{**document(one), "revision": 1} for one in there])
    adding = (scripts.add(script_body(kept.row.id)) for _ in range(8))
    answers = await asyncio.gather(*adding, return_exceptions=True)
    assert sum(not isinstance(answer, Exception) for answer in answers) == 3
    assert sum(isinstance(answer, TooManyScriptsError) for answer in answers) == 5
    assert len(await tokens.scripts_of(kept.row.id)) == MAX_SCRIPTS


async def test_a_script_that_goes_to_another_token_changes_both(tokens: TokenStore, scripts: ScriptStore) -> None:
    here, there = [(await tokens.add(token_body())).row.id for _ in range(2)]
    script = await scripts.add(script_body(here))
    moved = await scripts.replace(script.row.id, script_body(there), frozenset({1}))
    assert (moved.row.token_id, moved.revision) == (there, 2)
    assert [one.id for one in await tokens.scripts_of(there)] == [script.row.id]
    assert await tokens.scripts_of(here) == []
    for token_id, revision in ((here, 3), (there, 2)):
        kept = await tokens.find(token_id)
        assert kept is not None
        assert kept.revision == revision
    with pytest.raises(TokenNotFoundError):
        await scripts.replace(script.row.id, script_body(NOBODY), None)
    assert await scripts.find(script.row.id) == moved, "nothing of a change that is refused is kept"


async def test_two_actors_of_one_name_are_one_whatever_case_it_is_in(actors: ActorStore) -> None:
    names = ("Choi Min-sik", "CHOI MIN-SIK", " choi  min-sik", "Choi Min-Sik")
    answers = await asyncio.gather(*(actors.add(ActorBody(name=name)) for name in names), return_exceptions=True)
    assert sum(isinstance(answer, ActorExistsError) for answer in answers) == 3
    other = await actors.add(ActorBody(name="최민식", aliases=["Choi Min-sik"]))
    with pytest.raises(ActorExistsError):
        await actors.replace(other.row.id, ActorBody(name="choi min-SIK"), None)
    again = await actors.replace(other.row.id, ActorBody(name="최민식"), None)
    assert again.revision == 2


async def test_tokens_are_found_by_every_name_of_their_actors(tokens: TokenStore, actors: ActorStore) -> None:
    actor = await actors.add(ActorBody(name="최민식", aliases=["Choi Min-sik", "민식"]))
    await actors.add(ActorBody(name="최민수", aliases=["Choi Min-soo"]))
    named = [
        (await tokens.add(token_body(actor_name=name))).row
        for name in ("최민식", "choi MIN-SIK", "최민수, 민식", "Choi Min-soo", "누구")
    ]
    assert await tokens.of_actor(actor.row, WHOLE) == named[:3]
    for name in ("최민식", "Choi min-sik", "민식"):
        assert await tokens.page(TokenFilter(actor=name), WHOLE) == named[:3]
    assert await tokens.page(TokenFilter(actor="누구"), WHOLE) == named[4:], "in no actor's row"
    assert await tokens.page(TokenFilter(actor="식"), WHOLE) == []


async def test_what_is_not_there_cannot_be_changed(
    tokens: TokenStore, scripts: ScriptStore, actors: ActorStore
) -> None:
    for expected in (None, frozenset({1}), frozenset[int]()):
        for change in (
            tokens.replace(NOBODY, token_body(), expected),
            tokens.set_reference(NOBODY, "key", expected),
            tokens.remove(NOBODY, expected),
        ):
            with pytest.raises(TokenNotFoundError):
                await change
        with pytest.raises(ScriptNotFoundError):
            await scripts.replace(NOBODY, script_body(1), expected)
        with pytest.raises(ScriptNotFoundError):
            await scripts.remove(NOBODY, expected)
        with pytest.raises(ActorNotFoundError):
            await actors.replace(NOBODY, ActorBody(name="a"), expected)
        with pytest.raises(ActorNotFoundError):
            await actors.remove(NOBODY, expected)
    with pytest.raises(TokenNotFoundError):
        await tokens.view(NOBODY)
    with pytest.raises(TokenNotFoundError):
        await scripts.add(script_body(NOBODY))
