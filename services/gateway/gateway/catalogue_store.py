"""MongoDB's part of the catalogue: tokens, scripts and actors, each kept with its revision and what it is found by."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

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
from gateway.catalogue import (
    ActorExistsError,
    ActorNotFoundError,
    CatalogueError,
    ChangedError,
    Expected,
    Kept,
    Order,
    Page,
    ScriptNotFoundError,
    TokenNotFoundError,
    TooManyScriptsError,
    WantedTokens,
)
from gateway.store import DuplicateError, changed, collection, in_transaction, insert, noticing_outages

MAX_NAMES = 200
"""Names that one question for tokens may have: MongoDB merges no more scans than this without sorting itself."""
MAX_NAMESAKES = 20
"""Actors that one name may stand for when tokens are asked for by it."""
_BY_ID = [("_id", 1)]
_BY_TIME = [("start_time", 1), ("_id", 1)]
_ORDERS = {Order.ID: _BY_ID, Order.LATEST: [("_id", -1)], Order.POPULAR: [("view_count", -1), ("_id", -1)]}

Row = TypeVar("Row", Token, Script, Actor)
Answer = TypeVar("Answer")
Document = dict[str, Any]


class Catalogue:
    """The collections, with their indexes from the first question on."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._by_name = {name: collection(client, name) for name in ("tokens", "scripts", "actors", "counters")}
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
        return await in_transaction(self._client, work)

    async def with_new_id(self, name: str, insert: Callable[[int], Awaitable[Answer]]) -> Answer:
        """Insert a row under the next id of its collection; one that an import has taken meanwhile is passed over."""
        while True:
            counter = await changed(self._by_name["counters"], {"_id": name}, {"$inc": {"last": 1}}, upsert=True)
            try:
                return await insert(counter["last"])
            except DuplicateError as error:
                if error.field != "_id":
                    raise


class Tokens:
    """The `tokens` collection."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def add(self, body: TokenBody) -> Kept[Token]:
        """Keep a new token."""

        async def insert(token_id: int) -> Kept[Token]:
            return await _inserted(tokens, Token(id=token_id, **dict(body)))

        with noticing_outages():
            tokens = await self._catalogue.collection("tokens")
            return await self._catalogue.with_new_id("tokens", insert)

    async def find(self, token_id: int) -> Kept[Token] | None:
        """Return the token."""
        with noticing_outages():
            found = await (await self._catalogue.collection("tokens")).find_one({"_id": token_id})
        return None if found is None else _kept(Token, found)

    async def scripts_of(self, token_id: int) -> list[Script]:
        """Return the token's scripts by start time; none for an unknown token."""
        with noticing_outages():
            scripts = await self._catalogue.collection("scripts")
            cursor = scripts.find({"token_id": token_id}).sort(_BY_TIME).limit(MAX_SCRIPTS)
            return [_row(Script, found) for found in await cursor.to_list(MAX_SCRIPTS)]

    async def page(self, wanted: WantedTokens, page: Page) -> list[Token]:
        """Return a part of the list of the tokens that are wanted, in their order."""
        with noticing_outages():
            names = [] if wanted.actor is None else await self._names(wanted.actor)
            return await self._page(_question(wanted, names), wanted.order, page)

    async def of_actor(self, actor: Actor, page: Page) -> list[Token]:
        """Return a part of the list of an actor's tokens, by id."""
        names = [folded(name) for name in (actor.name, *actor.aliases)]
        with noticing_outages():
            return await self._page({"actors": {"$in": names}}, Order.ID, page)

    async def replace(self, token_id: int, body: TokenBody, expected: Expected) -> Kept[Token]:
        """Keep this in place of all that the token was, but its views, and its reference if the body has none."""
        row = document(Token(id=token_id, **dict(body)))
        untold = {"reference_audio_url"} - body.model_fields_set
        return await self._change(token_id, _but(row, "_id", "view_count", *untold), expected)

    async def set_reference(self, token_id: int, url: str, expected: Expected) -> Kept[Token]:
        """Make this the token's reference audio."""
        return await self._change(token_id, {"reference_audio_url": url}, expected)

    async def view(self, token_id: int) -> Views:
        """Count a view."""
        with noticing_outages():
            tokens = await self._catalogue.collection("tokens")
            seen = await changed(tokens, {"_id": token_id}, {"$inc": {"view_count": 1}})
        if seen is None:
            raise TokenNotFoundError
        return Views(id=token_id, view_count=seen["view_count"])

    async def remove(self, token_id: int, expected: Expected) -> None:
        """Remove the token and its scripts."""
        with noticing_outages():
            tokens = await self._catalogue.collection("tokens")
            scripts = await self._catalogue.collection("scripts")

            async def remove(session: Any) -> None:
                removed = await tokens.delete_one(_if(token_id, expected), session=session)
                if not removed.deleted_count:
                    raise await _refusal(tokens, token_id, TokenNotFoundError, session)
                await scripts.delete_many({"token_id": token_id}, session=session)

            await self._catalogue.in_transaction(remove)

    async def _change(self, token_id: int, fields: Document, expected: Expected) -> Kept[Token]:
        with noticing_outages():
            tokens = await self._catalogue.collection("tokens")
            found = await changed(tokens, _if(token_id, expected), {"$set": fields, "$inc": {"revision": 1}})
            if found is None:
                raise await _refusal(tokens, token_id, TokenNotFoundError)
        return _kept(Token, found)

    async def _names(self, name: str) -> list[str]:
        """Return every name of the actors who have this one; the name itself too, for it may be in no actor's row."""
        actors = await self._catalogue.collection("actors")
        cursor = actors.find({"names": folded(name)}, {"names": 1}).sort(_BY_ID).limit(MAX_NAMESAKES)
        found = [other for actor in await cursor.to_list(MAX_NAMESAKES) for other in actor["names"]]
        return list(dict.fromkeys([folded(name), *found]))[:MAX_NAMES]

    async def _page(self, question: Document, order: Order, page: Page) -> list[Token]:
        tokens = await self._catalogue.collection("tokens")
        cursor = tokens.find(question).sort(_ORDERS[order]).hint(_index(question, order))
        found = await cursor.skip(page.skip).limit(page.limit).to_list(page.limit)
        return [_row(Token, one) for one in found]


class Scripts:
    """The `scripts` collection. Every change of a script is one of its token too, so that both are kept or neither."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def add(self, body: ScriptBody) -> Kept[Script]:
        """Keep a new script of a token."""
        with noticing_outages():
            scripts = await self._catalogue.collection("scripts")

            async def insert(script_id: int) -> Kept[Script]:
                async def insert_in(session: Any) -> Kept[Script]:
                    await self._give_to(body.token_id, session)
                    return await _inserted(scripts, Script(id=script_id, **dict(body)), session)

                return await self._catalogue.in_transaction(insert_in)

            return await self._catalogue.with_new_id("scripts", insert)

    async def find(self, script_id: int) -> Kept[Script] | None:
        """Return the script."""
        with noticing_outages():
            found = await (await self._catalogue.collection("scripts")).find_one({"_id": script_id})
        return None if found is None else _kept(Script, found)

    async def page(self, page: Page) -> list[Script]:
        """Return a part of the list of all scripts, by id."""
        with noticing_outages():
            scripts = await self._catalogue.collection("scripts")
            cursor = scripts.find().sort(_BY_ID).hint("_id_").skip(page.skip).limit(page.limit)
            return [_row(Script, found) for found in await cursor.to_list(page.limit)]

    async def replace(self, script_id: int, body: ScriptBody, expected: Expected) -> Kept[Script]:
        """Keep this in place of all that the script was; it may become another token's."""
        fields = _but(document(Script(id=script_id, **dict(body))), "_id")
        with noticing_outages():
            scripts = await self._catalogue.collection("scripts")

            async def replace(session: Any) -> Kept[Script]:
                before = await scripts.find_one(_if(script_id, expected), session=session)
                if before is None:
                    raise await _refusal(scripts, script_id, ScriptNotFoundError, session)
                if before["token_id"] == body.token_id:
                    await self._touch(body.token_id, session)
                else:
                    await self._touch(before["token_id"], session)
                    await self._give_to(body.token_id, session)
                change = {"$set": fields, "$inc": {"revision": 1}}
                return _kept(Script, await changed(scripts, {"_id": script_id}, change, session=session))

            return await self._catalogue.in_transaction(replace)

    async def remove(self, script_id: int, expected: Expected) -> None:
        """Remove the script."""
        with noticing_outages():
            scripts = await self._catalogue.collection("scripts")

            async def remove(session: Any) -> None:
                removed = await scripts.find_one_and_delete(_if(script_id, expected), session=session)
                if removed is None:
                    raise await _refusal(scripts, script_id, ScriptNotFoundError, session)
                await self._touch(removed["token_id"], session)

            await self._catalogue.in_transaction(remove)

    async def _give_to(self, token_id: int, session: Any) -> None:
        """Make room for one more script of a token; in the session, so that none is counted twice."""
        if not await self._touch(token_id, session):
            raise TokenNotFoundError
        scripts = await self._catalogue.collection("scripts")
        if await scripts.count_documents({"token_id": token_id}, limit=MAX_SCRIPTS, session=session) == MAX_SCRIPTS:
            raise TooManyScriptsError

    async def _touch(self, token_id: int, session: Any) -> bool:
        """Note that a token's scripts change, against all who do so at the same time; False when there is no token."""
        tokens = await self._catalogue.collection("tokens")
        touched = await tokens.update_one({"_id": token_id}, {"$inc": {"revision": 1}}, session=session)
        return bool(touched.matched_count)


class Actors:
    """The `actors` collection; no two of them have one name, in any case, while aliases are anybody's."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def add(self, body: ActorBody) -> Kept[Actor]:
        """Keep a new actor."""

        async def insert(actor_id: int) -> Kept[Actor]:
            return await _inserted(actors, Actor(id=actor_id, **dict(body)))

        with noticing_outages():
            actors = await self._catalogue.collection("actors")
            try:
                return await self._catalogue.with_new_id("actors", insert)
            except DuplicateError:
                raise ActorExistsError from None

    async def find(self, actor_id: int) -> Kept[Actor] | None:
        """Return the actor."""
        with noticing_outages():
            found = await (await self._catalogue.collection("actors")).find_one({"_id": actor_id})
        return None if found is None else _kept(Actor, found)

    async def page(self, page: Page) -> list[Actor]:
        """Return a part of the list of all actors, by id."""
        return await self._page({}, "_id_", page)

    async def search(self, text: str, page: Page) -> list[Actor]:
        """Return a part of the list of the actors who have this in their name or an alias, in any case, by id."""
        return await self._page(_containing(text), "grams", page) if folded(text) else []

    async def replace(self, actor_id: int, body: ActorBody, expected: Expected) -> Kept[Actor]:
        """Keep this in place of all that the actor was."""
        fields = _but(document(Actor(id=actor_id, **dict(body))), "_id")
        with noticing_outages():
            actors = await self._catalogue.collection("actors")
            try:
                found = await changed(actors, _if(actor_id, expected), {"$set": fields, "$inc": {"revision": 1}})
            except DuplicateError:
                raise ActorExistsError from None
            if found is None:
                raise await _refusal(actors, actor_id, ActorNotFoundError)
        return _kept(Actor, found)

    async def remove(self, actor_id: int, expected: Expected) -> None:
        """Remove the actor; what the tokens say of their actors stays."""
        with noticing_outages():
            actors = await self._catalogue.collection("actors")
            removed = await actors.delete_one(_if(actor_id, expected))
            if not removed.deleted_count:
                raise await _refusal(actors, actor_id, ActorNotFoundError)

    async def _page(self, question: Document, index: str, page: Page) -> list[Actor]:
        with noticing_outages():
            actors = await self._catalogue.collection("actors")
            cursor = actors.find(question).sort(_BY_ID).hint(index).skip(page.skip).limit(page.limit)
            return [_row(Actor, found) for found in await cursor.to_list(page.limit)]


def _question(wanted: WantedTokens, names: list[str]) -> Document:
    question: Document = {}
    if wanted.category is not None:
        question["category"] = wanted.category
    if wanted.actor is not None:
        question["actors"] = {"$in": names}
    if wanted.search is not None:
        question |= _containing(wanted.search)
    return question


def _containing(text: str) -> Document:
    """Return what is true of a row one of whose names contains the text: grams lead to few rows, the names decide."""
    return {"grams": {"$all": sought(text)}, "names": {"$regex": re.escape(folded(text))}}


def _index(question: Document, order: Order) -> str:
    """Return the index that has the order; named, so that it does not depend on the data whether one is used."""
    field = next((field for field in ("grams", "actors", "category") if field in question), None)
    if order is Order.POPULAR:
        return "popular" if field is None else f"{field}_popular"
    return field or "_id_"


def _if(row_id: int, expected: Expected) -> Document:
    return {"_id": row_id} if expected is None else {"_id": row_id, "revision": {"$in": sorted(expected)}}


async def _refusal(rows: Any, row_id: int, unknown: type[CatalogueError], session: Any = None) -> CatalogueError:
    """Return why there was no row to change."""
    found = await rows.find_one({"_id": row_id}, {"revision": 1}, session=session)
    return unknown() if found is None else ChangedError(found["revision"])


async def _inserted(rows: Any, row: Row, session: Any = None) -> Kept[Row]:
    await insert(rows, {**document(row), "revision": 1}, session=session)
    return Kept(row, 1)


def _kept(model: type[Row], found: Document) -> Kept[Row]:
    return Kept(_row(model, found), found["revision"])


def _row(model: type[Row], found: Document) -> Row:
    return model.model_validate(
        {name: value for name, value in found.items() if name in model.model_fields or name == "_id"}
    )


def _but(row: Document, *names: str) -> Document:
    return {name: value for name, value in row.items() if name not in names}
