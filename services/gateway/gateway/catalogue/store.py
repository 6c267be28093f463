"""MongoDB: the catalogue's tokens, scripts and actors, each with its revision and the fields it is found by."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from chassis.mongodb import MongoDB, translating
from contracts.catalogue import (
    INDEXES,
    MAX_SCRIPTS,
    Actor,
    ActorBody,
    Script,
    ScriptBody,
    Token,
    TokenBody,
    Views,
    document,
    folded,
    sought,
)
from gateway.catalogue.rows import (
    ActorExistsError,
    ActorNotFoundError,
    CatalogueError,
    ChangedError,
    Expected,
    Order,
    Page,
    RevisedRow,
    ScriptNotFoundError,
    TokenFilter,
    TokenNotFoundError,
    TooManyScriptsError,
)
from gateway.catalogue.transactions import DuplicateError, changed, in_transaction, insert

MAX_NAMES = 200
"""How many names one query for tokens may have: MongoDB merges at most 200 scans, and would sort more in memory."""
MAX_NAMESAKES = 20
"""How many actors of one name are considered when tokens are listed by it."""
_BY_ID = [("_id", 1)]
_BY_TIME = [("start_time", 1), ("_id", 1)]
_ORDERS = {Order.ID: _BY_ID, Order.LATEST: [("_id", -1)], Order.POPULAR: [("view_count", -1), ("_id", -1)]}

Row = TypeVar("Row", Token, Script, Actor)
Answer = TypeVar("Answer")
Document = dict[str, Any]


class CatalogueStore:
    """The collections, whose indexes are created at the first use."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._mongodb = mongodb
        self._by_name = {name: mongodb.collection(name) for name in ("tokens", "scripts", "actors", "counters")}
        self._prepared = False

    async def collection(self, name: str) -> Any:
        """Return a collection that has its indexes."""
        if not self._prepared:
            for index in INDEXES:
                indexed = self._by_name[index.collection]
                await indexed.create_index(list(index.keys), name=index.name, unique=index.unique)
            self._prepared = True
        return self._by_name[name]

    async def in_transaction(self, work: Callable[[Any], Awaitable[Answer]]) -> Answer:
        """Run `work(session)` in one transaction."""
        return await in_transaction(self._mongodb.client, work)

    async def with_new_id(self, name: str, insert: Callable[[int], Awaitable[Answer]]) -> Answer:
        """Insert a row under the next id of its collection; skip ids that an import has used meanwhile."""
        while True:
            counter = await changed(self._by_name["counters"], {"_id": name}, {"$inc": {"last": 1}}, upsert=True)
            try:
                return await insert(counter["last"])
            except DuplicateError as error:
                if error.field != "_id":
                    raise


class TokenStore:
    """The `tokens` collection."""

    def __init__(self, catalogue: CatalogueStore) -> None:
        self._catalogue = catalogue

    async def add(self, body: TokenBody) -> RevisedRow[Token]:
        """Insert a new token."""

        async def insert(token_id: int) -> RevisedRow[Token]:
            return await _inserted(tokens, Token(id=token_id, **dict(body)))

        with translating():
            tokens = await self._catalogue.collection("tokens")
            return await self._catalogue.with_new_id("tokens", insert)

    async def find(self, token_id: int) -> RevisedRow[Token] | None:
        """Return the token."""
        with translating():
            found = await (await self._catalogue.collection("tokens")).find_one({"_id": token_id})
        return None if found is None else _revised(Token, found)

    async def scripts_of(self, token_id: int) -> list[Script]:
        """Return the token's scripts by start time; none for an unknown token."""
        with translating():
            scripts = await self._catalogue.collection("scripts")
            cursor = scripts.find({"token_id": token_id}).sort(_BY_TIME).limit(MAX_SCRIPTS)
            return [_row(Script, found) for found in await cursor.to_list(MAX_SCRIPTS)]

    async def page(self, token_filter: TokenFilter, page: Page) -> list[Token]:
        """Return a page of the tokens that match the filter, in its order."""
        with translating():
            names = [] if token_filter.actor is None else await self._names(token_filter.actor)
            return await self._page(_query(token_filter, names), token_filter.order, page)

    async def of_actor(self, actor: Actor, page: Page) -> list[Token]:
        """Return a page of an actor's tokens, by id."""
        names = [folded(name) for name in (actor.name, *actor.aliases)]
        with translating():
            return await self._page({"actors": {"$in": names}}, Order.ID, page)

    async def replace(self, token_id: int, body: TokenBody, expected: Expected) -> RevisedRow[Token]:
        """Replace the token with this, except its views, and except its reference if the body does not mention it."""
        row = document(Token(id=token_id, **dict(body)))
        unmentioned = {"reference_audio_url"} - body.model_fields_set
        return await self._change(token_id, _without(row, "_id", "view_count", *unmentioned), expected)

    async def set_reference(self, token_id: int, url: str, expected: Expected) -> RevisedRow[Token]:
        """Make this the token's reference audio."""
        return await self._change(token_id, {"reference_audio_url": url}, expected)

    async def view(self, token_id: int) -> Views:
        """Count a view."""
        with translating():
            tokens = await self._catalogue.collection("tokens")
            seen = await changed(tokens, {"_id": token_id}, {"$inc": {"view_count": 1}})
        if seen is None:
            raise TokenNotFoundError
        return Views(id=token_id, view_count=seen["view_count"])

    async def remove(self, token_id: int, expected: Expected) -> None:
        """Remove the token and its scripts."""
        with translating():
            tokens = await self._catalogue.collection("tokens")
            scripts = await self._catalogue.collection("scripts")

            async def remove(session: Any) -> None:
                removed = await tokens.delete_one(_if(token_id, expected), session=session)
                if not removed.deleted_count:
                    raise await _refusal(tokens, token_id, TokenNotFoundError, session)
                await scripts.delete_many({"token_id": token_id}, session=session)

            await self._catalogue.in_transaction(remove)

    async def _change(self, token_id: int, fields: Document, expected: Expected) -> RevisedRow[Token]:
        with translating():
            tokens = await self._catalogue.collection("tokens")
            found = await changed(tokens, _if(token_id, expected), {"$set": fields, "$inc": {"revision": 1}})
            if found is None:
                raise await _refusal(tokens, token_id, TokenNotFoundError)
        return _revised(Token, found)

    async def _names(self, name: str) -> list[str]:
        """Return every name of the actors who have this name, and the name itself: it may be in no actor's row."""
        actors = await self._catalogue.collection("actors")
        cursor = actors.find({"names": folded(name)}, {"names": 1}).sort(_BY_ID).limit(MAX_NAMESAKES)
        found = [other for actor in await cursor.to_list(MAX_NAMESAKES) for other in actor["names"]]
        return list(dict.fromkeys([folded(name), *found]))[:MAX_NAMES]

    async def _page(self, query: Document, order: Order, page: Page) -> list[Token]:
        tokens = await self._catalogue.collection("tokens")
        cursor = tokens.find(query).sort(_ORDERS[order]).hint(_index(query, order))
        found = await cursor.skip(page.skip).limit(page.limit).to_list(page.limit)
        return [_row(Token, one) for one in found]


class ScriptStore:
    """The `scripts` collection. A change of a script also raises its token's revision, both in one transaction."""

    def __init__(self, catalogue: CatalogueStore) -> None:
        self._catalogue = catalogue

    async def add(self, body: ScriptBody) -> RevisedRow[Script]:
        """Insert a new script of a token."""
        with translating():
            scripts = await self._catalogue.collection("scripts")

            async def insert(script_id: int) -> RevisedRow[Script]:
                async def insert_in(session: Any) -> RevisedRow[Script]:
                    await self._give_to(body.token_id, session)
                    return await _inserted(scripts, Script(id=script_id, **dict(body)), session)

                return await self._catalogue.in_transaction(insert_in)

            return await self._catalogue.with_new_id("scripts", insert)

    async def find(self, script_id: int) -> RevisedRow[Script] | None:
        """Return the script."""
        with translating():
            found = await (await self._catalogue.collection("scripts")).find_one({"_id": script_id})
        return None if found is None else _revised(Script, found)

    async def page(self, page: Page) -> list[Script]:
        """Return a page of all scripts, by id."""
        with translating():
            scripts = await self._catalogue.collection("scripts")
            cursor = scripts.find().sort(_BY_ID).hint("_id_").skip(page.skip).limit(page.limit)
            return [_row(Script, found) for found in await cursor.to_list(page.limit)]

    async def replace(self, script_id: int, body: ScriptBody, expected: Expected) -> RevisedRow[Script]:
        """Replace the script with this; it may move to another token."""
        fields = _without(document(Script(id=script_id, **dict(body))), "_id")
        with translating():
            scripts = await self._catalogue.collection("scripts")

            async def replace(session: Any) -> RevisedRow[Script]:
                before = await scripts.find_one(_if(script_id, expected), session=session)
                if before is None:
                    raise await _refusal(scripts, script_id, ScriptNotFoundError, session)
                if before["token_id"] == body.token_id:
                    await self._touch(body.token_id, session)
                else:
                    await self._touch(before["token_id"], session)
                    await self._give_to(body.token_id, session)
                change = {"$set": fields, "$inc": {"revision": 1}}
                return _revised(Script, await changed(scripts, {"_id": script_id}, change, session=session))

            return await self._catalogue.in_transaction(replace)

    async def remove(self, script_id: int, expected: Expected) -> None:
        """Remove the script."""
        with translating():
            scripts = await self._catalogue.collection("scripts")

            async def remove(session: Any) -> None:
                removed = await scripts.find_one_and_delete(_if(script_id, expected), session=session)
                if removed is None:
                    raise await _refusal(scripts, script_id, ScriptNotFoundError, session)
                await self._touch(removed["token_id"], session)

            await self._catalogue.in_transaction(remove)

    async def _give_to(self, token_id: int, session: Any) -> None:
        """Check that a token may get one more script, and raise its revision, so that two at once cannot both pass."""
        if not await self._touch(token_id, session):
            raise TokenNotFoundError
        scripts = await self._catalogue.collection("scripts")
        if await scripts.count_documents({"token_id": token_id}, limit=MAX_SCRIPTS, session=session) == MAX_SCRIPTS:
            raise TooManyScriptsError

    async def _touch(self, token_id: int, session: Any) -> bool:
        """Raise a token's revision, so that concurrent changes of its scripts conflict; False without such a token."""
        tokens = await self._catalogue.collection("tokens")
        touched = await tokens.update_one({"_id": token_id}, {"$inc": {"revision": 1}}, session=session)
        return bool(touched.matched_count)


class ActorStore:
    """The `actors` collection. No two actors share a name, in any case of letters; aliases may be shared."""

    def __init__(self, catalogue: CatalogueStore) -> None:
        self._catalogue = catalogue

    async def add(self, body: ActorBody) -> RevisedRow[Actor]:
        """Insert a new actor."""

        async def insert(actor_id: int) -> RevisedRow[Actor]:
            return await _inserted(actors, Actor(id=actor_id, **dict(body)))

        with translating():
            actors = await self._catalogue.collection("actors")
            try:
                return await self._catalogue.with_new_id("actors", insert)
            except DuplicateError:
                raise ActorExistsError from None

    async def find(self, actor_id: int) -> RevisedRow[Actor] | None:
        """Return the actor."""
        with translating():
            found = await (await self._catalogue.collection("actors")).find_one({"_id": actor_id})
        return None if found is None else _revised(Actor, found)

    async def page(self, page: Page) -> list[Actor]:
        """Return a page of all actors, by id."""
        return await self._page({}, "_id_", page)

    async def search(self, text: str, page: Page) -> list[Actor]:
        """Return a page of the actors with this text in their name or an alias, in any case of letters, by id."""
        return await self._page(_containing(text), "grams", page) if folded(text) else []

    async def replace(self, actor_id: int, body: ActorBody, expected: Expected) -> RevisedRow[Actor]:
        """Replace the actor with this."""
        fields = _without(document(Actor(id=actor_id, **dict(body))), "_id")
        with translating():
            actors = await self._catalogue.collection("actors")
            try:
                found = await changed(actors, _if(actor_id, expected), {"$set": fields, "$inc": {"revision": 1}})
            except DuplicateError:
                raise ActorExistsError from None
            if found is None:
                raise await _refusal(actors, actor_id, ActorNotFoundError)
        return _revised(Actor, found)

    async def remove(self, actor_id: int, expected: Expected) -> None:
        """Remove the actor; what the tokens say of their actors stays."""
        with translating():
            actors = await self._catalogue.collection("actors")
            removed = await actors.delete_one(_if(actor_id, expected))
            if not removed.deleted_count:
                raise await _refusal(actors, actor_id, ActorNotFoundError)

    async def _page(self, query: Document, index: str, page: Page) -> list[Actor]:
        with translating():
            actors = await self._catalogue.collection("actors")
            cursor = actors.find(query).sort(_BY_ID).hint(index).skip(page.skip).limit(page.limit)
            return [_row(Actor, found) for found in await cursor.to_list(page.limit)]


def _query(token_filter: TokenFilter, names: list[str]) -> Document:
    query: Document = {}
    if token_filter.category is not None:
        query["category"] = token_filter.category
    if token_filter.actor is not None:
        query["actors"] = {"$in": names}
    if token_filter.search is not None:
        query |= _containing(token_filter.search)
    return query


def _containing(text: str) -> Document:
    """Return the query for rows with this text in a name: the grams index narrows it down, the regex decides."""
    return {"grams": {"$all": sought(text)}, "names": {"$regex": re.escape(folded(text))}}


def _index(query: Document, order: Order) -> str:
    """Return the name of the index that has this order, for a hint: MongoDB's own choice depends on the data."""
    field = next((field for field in ("grams", "actors", "category") if field in query), None)
    if order is Order.POPULAR:
        return "popular" if field is None else f"{field}_popular"
    return field or "_id_"


def _if(row_id: int, expected: Expected) -> Document:
    return {"_id": row_id} if expected is None else {"_id": row_id, "revision": {"$in": sorted(expected)}}


async def _refusal(rows: Any, row_id: int, unknown: type[CatalogueError], session: Any = None) -> CatalogueError:
    """Return the error that says why there was no row to change."""
    found = await rows.find_one({"_id": row_id}, {"revision": 1}, session=session)
    return unknown() if found is None else ChangedError(found["revision"])


async def _inserted(rows: Any, row: Row, session: Any = None) -> RevisedRow[Row]:
    await insert(rows, {**document(row), "revision": 1}, session=session)
    return RevisedRow(row, 1)


def _revised(model: type[Row], found: Document) -> RevisedRow[Row]:
    return RevisedRow(_row(model, found), found["revision"])


def _row(model: type[Row], found: Document) -> Row:
    """Return a row as it is kept, which may be older than a rule that its fields would have to keep now."""
    fields = {name: value for name, value in found.items() if name in model.model_fields}
    return model.model_construct(id=found["_id"], **fields)


def _without(row: Document, *names: str) -> Document:
    return {name: value for name, value in row.items() if name not in names}
