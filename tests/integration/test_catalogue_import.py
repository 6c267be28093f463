"""Catalogue files taken in and out by sorictl, against the real MongoDB and beside a running gateway."""

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.catalogue import INDEXES, LARGEST_ID, ActorBody
from gateway.catalogue.store import ActorStore, CatalogueStore
from local_stack.stack import Stack
from sorictl.rows import COLUMNS, TABLES
from tests.support.operator import Said, sorictl, started
from tests.support.waiting import until

Rows = dict[str, list[dict[str, Any]]]
SAMPLE: Rows = {
    "actors": [
        {"id": 3, "name": "최민식", "aliases": ["Choi Min-sik", 'Min "the" Choi, {actor}']},
        {"id": 4, "name": "Yu", "aliases": []},
    ],
    "tokens": [
        {"id": 7, "token_name": "한산도, 1592", "actor_name": "최민식, Yu", "start_time": 61.5, "end_time": 66.0},
        {"id": 9, "token_name": "Two", "actor_name": "Yu", "start_time": 0.1, "end_time": 2.0, "view_count": 5},
    ],
    "scripts": [
        {
            "id": 1,
            "token_id": 7,
            "start_time": 61.5,
            "end_time": 63,
            "script": 'He said:\n"Charge"',
            "translation": "돌격",
        },
        {"id": 2, "token_id": 9, "start_time": 0.1, "end_time": 1, "script": "Two, two."},
    ],
}


class Database:
    """A database of this test's own, and sorictl in front of it."""

    def __init__(self, client: AsyncMongoClient[Any], url: str, name: str, folder: Path) -> None:
        server, _, options = url.partition("?")
        self.client = client
        self.collections = client[name]
        self.environ = {"MONGODB_URL": f"{server.rpartition('/')[0]}/{name}?{options}"}
        self.folder = folder

    async def sorictl(self, *arguments: str) -> Said:
        return await sorictl(self.folder, self.environ, "catalogue", *arguments)

    def file(self, rows: Mapping[str, Any], name: str = "catalogue.json") -> str:
        (self.folder / name).write_text(json.dumps(rows, ensure_ascii=False, indent=1))
        return name

    async def take_in(self, rows: Mapping[str, Any]) -> Said:
        said = await self.sorictl("import", self.file(rows))
        assert said.status == 0, said
        return said

    async def everything(self) -> dict[str, list[dict[str, Any]]]:
        names = (*TABLES, "counters")
        return {name: await self.collections[name].find().sort("_id").to_list() for name in names}

    async def rows(self) -> dict[str, list[dict[str, Any]]]:
        """All that is kept, but how often it was changed."""
        found = await self.everything()
        return {name: [{**row, "revision": None} for row in found[name]] for name in TABLES}

    async def revisions(self) -> dict[str, list[int]]:
        return {name: [row["revision"] for row in (await self.everything())[name]] for name in TABLES}

    async def aborted(self) -> int:
        """How many transactions were, since the server started."""
        status = await self.client.admin.command("serverStatus")
        return int(status["transactions"]["totalAborted"])


@pytest.fixture
async def database(stack: Stack, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty one, with the indexes that the gateway makes."""
    url, name = stack.settings["MONGODB_URL"], f"import-{uuid.uuid4().hex}"
    async with AsyncMongoClient[Any](url) as client:
        made = Database(client, url, name, tmp_path)
        for index in INDEXES:
            keys = list(index.keys)
            await made.collections[index.collection].create_index(keys, name=index.name, unique=index.unique)
        yield made
        await client.drop_database(name)


async def test_a_file_is_taken_in_whole_and_again_without_a_change(database: Database) -> None:
    said = await database.take_in(SAMPLE)
    assert said.out == (
        "Imported catalogue.json: actors 2 new, 0 changed, 0 the same; tokens 2 new, 0 changed, 0 the same; "
        "scripts 2 new, 0 changed, 0 the same.\n"
    )
    assert said.err == ""
    kept = await database.everything()
    assert kept["counters"] == [
        {"_id": name, "last": last} for name, last in (("actors", 4), ("scripts", 2), ("tokens", 9))
    ]
    assert await database.revisions() == {"actors": [1, 1], "tokens": [1, 1], "scripts": [1, 1]}
    again = await database.take_in(SAMPLE)
    assert "actors 0 new, 0 changed, 2 the same" in again.out
    assert await database.everything() == kept


async def test_a_dry_run_says_what_would_change_and_changes_nothing(database: Database) -> None:
    await database.take_in(SAMPLE)
    kept = await database.everything()
    tokens = [{**SAMPLE["tokens"][0], "category": "사극"}, {**SAMPLE["tokens"][1], "id": 10}]
    said = await database.sorictl("import", "--dry-run", database.file({"tokens": tokens}))
    assert (said.status, said.out) == (0, "Would import catalogue.json: tokens 1 new, 1 changed, 0 the same.\n")
    assert await database.everything() == kept
    wrong = await database.sorictl(
        "import", "--dry-run", database.file({"scripts": [{**SAMPLE["scripts"][0], "token_id": 8}]})
    )
    assert (wrong.status, wrong.out) == (1, "")
    assert wrong.err.startswith("catalogue.json:5: scripts 1: token_id: there is no token 8")


async def test_one_wrong_row_keeps_all_of_a_file_out(database: Database) -> None:
    await database.take_in(SAMPLE)
    kept = await database.everything()
    many = [{"id": number, "token_id": 7, "start_time": 1, "end_time": 2, "script": "x"} for number in range(10, 60)]
    for wrong in (
        {"actors": [{"id": 5, "name": "CHOI"}, {"id": 6, "name": " yu "}]},
        {"actors": [{"id": 5, "name": "Ok"}], "scripts": [*many, {**many[0], "id": 60, "token_id": 8}]},
        {"scripts": [*many, *({**row, "id": number} for number, row in enumerate(many, 100))]},
        {"tokens": [{**SAMPLE["tokens"][0], "token_name": "new"}, {"id": 1}]},
    ):
        said = await database.sorictl("import", database.file(wrong))
        assert (said.status, said.out) == (1, ""), said
        assert said.err.splitlines()[-1].startswith("sorictl: nothing was imported, because of this"), said
        assert await database.everything() == kept


async def test_what_is_exported_can_be_imported_and_is_the_same(database: Database) -> None:
    await database.take_in(SAMPLE)
    kept, rows = await database.everything(), await database.rows()
    exported = await database.sorictl("export", "out.json")
    assert (exported.status, exported.out) == (0, "Exported 6 rows to out.json.\n")
    for table in TABLES:
        said = await database.sorictl("export", f"{table}.csv", "--table", table)
        assert said.status == 0, said
        header = (database.folder / f"{table}.csv").read_text().splitlines()[0]
        assert header == ",".join(COLUMNS[table])
    for files in (["out.json"], [f"{table}.csv" for table in TABLES]):
        for collection in (*TABLES, "counters"):
            await database.collections[collection].delete_many({})
        for file in files:
            said = await database.sorictl("import", file)
            assert said.status == 0, said
        assert (await database.everything())["counters"] == kept["counters"]
        assert await database.rows() == rows
    piped = await database.sorictl("export", "-")
    assert piped.out == (database.folder / "out.json").read_text()
    assert sorted(path.name for path in database.folder.iterdir()) == sorted(
        ["catalogue.json", "out.json", *(f"{table}.csv" for table in TABLES)]
    )


async def test_changed_rows_and_tokens_of_changed_scripts_get_another_revision(database: Database) -> None:
    await database.take_in(SAMPLE)
    await database.collections["tokens"].update_one({"_id": 7}, {"$inc": {"view_count": 3}})
    await database.take_in({"scripts": [{**SAMPLE["scripts"][0], "script": "Another."}]})
    assert await database.revisions() == {"actors": [1, 1], "tokens": [2, 1], "scripts": [2, 1]}
    swapped = [{**SAMPLE["actors"][0], "name": "YU"}, {**SAMPLE["actors"][1], "name": "최민식"}]
    await database.take_in({"actors": swapped, "tokens": [{**SAMPLE["tokens"][0], "category": "x"}]})
    assert await database.revisions() == {"actors": [2, 2], "tokens": [3, 1], "scripts": [2, 1]}
    assert [row["name_key"] for row in (await database.everything())["actors"]] == ["yu", "최민식"]
    assert [row["view_count"] for row in (await database.everything())["tokens"]] == [3, 5]


async def test_an_id_at_the_end_of_the_range_leaves_room_for_new_rows(database: Database) -> None:
    actors = [{"id": number, "name": f"actor {number}"} for number in (5, LARGEST_ID)]
    await database.take_in({"actors": actors})
    assert (await database.everything())["counters"] == [{"_id": "actors", "last": 5}]
    gateways = MongoDB(database.environ["MONGODB_URL"], REQUEST_LIMITS)
    kept = await ActorStore(CatalogueStore(gateways)).add(ActorBody(name="the next"))
    gateways.close()
    assert kept.row.id == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_or_sigterm_in_the_middle_leaves_nothing(database: Database, number: signal.Signals) -> None:
    file = database.file(SAMPLE)
    counter = {"_id": "tokens", "last": 0}
    await database.collections["counters"].insert_one(counter)
    async with database.client.start_session() as session, await session.start_transaction():
        # The counters are written last, and this transaction has one: the import begins again and again.
        await database.collections["counters"].update_one(counter, {"$set": {"last": 1}}, session=session)
        before = await database.aborted()
        async with started(database.folder, database.environ, "catalogue", "import", file) as process:
            await until(lambda: _more(database, before), "the import's transaction to be in another's way")
            process.send_signal(number)
            async with asyncio.timeout(30):
                _, err = await process.communicate()
        await session.abort_transaction()
    assert (process.returncode, err.decode()) == (130, "sorictl: interrupted; nothing was changed.\n")
    assert await database.everything() == {"actors": [], "tokens": [], "scripts": [], "counters": [counter]}


async def test_a_token_that_goes_while_its_script_comes_is_noticed(database: Database) -> None:
    await database.take_in(SAMPLE)
    file = database.file({"scripts": [{**SAMPLE["scripts"][0], "id": 77}]})
    async with database.client.start_session() as session:
        async with await session.start_transaction():
            await database.collections["tokens"].delete_one({"_id": 7}, session=session)
            before = await database.aborted()
            importing = asyncio.create_task(database.sorictl("import", file))
            await until(lambda: _more(database, before), "the import to meet the removal")
        said = await importing
    assert said.status == 1
    assert "scripts 77: token_id: there is no token 7" in said.err


async def test_what_is_imported_is_served_and_new_rows_get_ids_after_it(
    stack: Stack, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    token = {**SAMPLE["tokens"][0], "id": 1_000_000, "token_name": f"import {uuid.uuid4().hex}"}
    script = {**SAMPLE["scripts"][0], "id": 1_000_000, "token_id": 1_000_000}
    file = tmp_path / "catalogue.json"
    file.write_text(json.dumps({"tokens": [token], "scripts": [script]}))
    environ = {"MONGODB_URL": stack.settings["MONGODB_URL"]}
    said = await sorictl(tmp_path, environ, "catalogue", "import", str(file))
    assert said.status == 0, said
    served = (await client.get(f"{stack.url}/tokens/1000000")).json()
    assert {name: served[name] for name in token} == token
    assert [one["script"] for one in served["scripts"]] == [script["script"]]
    found = (await client.get(f"{stack.url}/tokens/", params={"search": token["token_name"][8:20]})).json()
    assert [one["id"] for one in found] == [1_000_000]
    body = {name: value for name, value in token.items() if name != "id"}
    made = await client.post(f"{stack.url}/tokens/", json=body)
    assert made.json()["id"] > 1_000_000


async def _more(database: Database, before: int) -> bool:
    return await database.aborted() > before
