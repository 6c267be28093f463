"""MongoDB: the catalogue's rows read at one moment, and written all or not at all."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pymongo import InsertOne, MongoClient, ReplaceOne, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.errors import ConfigurationError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from contracts.catalogue import LARGEST_COUNTED_ID, Actor, Script, folded
from sorictl.errors import DatabaseError
from sorictl.imports import Changes, Document, PresentRows, changes
from sorictl.rows import COLUMNS, TABLES, File

SELECT_MS = 10_000
"""How long a primary is looked for."""
BATCH = 500
"""Rows per write; the progress bar moves by this many."""
_NOT_LET_IN = {13, 18}
_NO_TRANSACTIONS = 20
_TOO_LARGE = {257, 388}

Write = InsertOne[Document] | ReplaceOne[Document]


class Database:
    """The catalogue's collections, for one command."""

    def __init__(self, client: MongoClient[Document]) -> None:
        self._client = client
        self._database = client.get_default_database("sori")

    def count(self, tables: Sequence[str]) -> int:
        """Return roughly how many rows there are."""
        return sum(self._database[table].estimated_document_count() for table in tables)

    @contextmanager
    def tables(self, names: Sequence[str]) -> Iterator[dict[str, Iterator[Mapping[str, Any]]]]:
        """Yield the rows of these tables in order of their ids, all as they were at one moment."""
        with self._client.start_session(snapshot=True) as session:
            yield {name: self._rows(name, session) for name in names}

    def apply(self, file: File, *, dry_run: bool, show_done: Callable[[int], None]) -> Changes:
        """Write what the file changes, in one transaction; nothing when it has problems, or in a dry run."""
        problems = list(file.problems)
        self._client.admin.command("ping")  # while nobody answers, Ctrl-C ends the command at once

        with _stopped_at_set_times() as heed_stop, self._client.start_session() as session:

            def work(session: ClientSession) -> Changes:
                heed_stop()
                file.problems = list(problems)  # a transaction that conflicts with another one runs this again
                found = changes(file, self._kept(file, session))
                heed_stop()
                if not file.problems and not dry_run:
                    for done in self._written(found, session):
                        show_done(done)
                        heed_stop()
                return found

            return session.with_transaction(
                work, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
            )

    def _rows(self, table: str, session: ClientSession) -> Iterator[Mapping[str, Any]]:
        for kept in self._database[table].find({}, session=session).sort("_id"):
            yield {name: kept.get("_id" if name == "id" else name) for name in COLUMNS[table]}

    def _kept(self, file: File, session: ClientSession) -> PresentRows:
        def found(table: str, query: Document, *fields: str) -> dict[int, Document]:
            cursor = self._database[table].find(query, fields or None, session=session)
            return {kept["_id"]: kept for kept in cursor}

        documents = {table: found(table, {"_id": {"$in": [row.id for row in file.rows[table]]}}) for table in TABLES}
        tokens = {row.value.token_id for row in file.rows["scripts"] if isinstance(row.value, Script)}
        names = [folded(row.value.name) for row in file.rows["actors"] if isinstance(row.value, Actor)]
        scripts = found("scripts", {"token_id": {"$in": list(tokens)}}, "token_id")
        named = found("actors", {"name_key": {"$in": names}}, "name_key")
        return PresentRows(
            documents,
            tokens=found("tokens", {"_id": {"$in": list(tokens)}}, "_id").keys(),
            scripts={script: kept["token_id"] for script, kept in scripts.items()},
            names={kept["name_key"]: actor for actor, kept in named.items()},
        )

    def _written(self, found: Changes, session: ClientSession) -> Iterator[int]:
        """Write batch by batch; yield how many rows are written so far."""
        self._free_names(found.changed["actors"], session)
        done = 0
        for table in TABLES:
            changed = [ReplaceOne({"_id": row["_id"]}, row) for row in found.changed[table]]
            for batch in _batches([*changed, *map(InsertOne, found.new[table])]):
                self._database[table].bulk_write(batch, session=session)
                done += len(batch)
                yield done
        touched = {"_id": {"$in": list(found.touched)}}
        self._database["tokens"].update_many(touched, {"$inc": {"revision": 1}}, session=session)
        for table, new in found.new.items():
            counted = [row["_id"] for row in new if row["_id"] <= LARGEST_COUNTED_ID]
            if counted:
                highest = {"$max": {"last": max(counted)}}
                self._database["counters"].update_one({"_id": table}, highest, upsert=True, session=session)

    def _free_names(self, actors: Sequence[Document], session: ClientSession) -> None:
        """Give these actors temporary name keys that nobody can have: two of them may be about to swap their names."""
        own = {"$concat": ["\0", {"$toString": "$_id"}]}
        query = {"_id": {"$in": [actor["_id"] for actor in actors]}}
        self._database["actors"].update_many(query, [{"$set": {"name_key": own}}], session=session)


@contextmanager
def _stopped_at_set_times() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if Ctrl-C or SIGTERM came; in the block nothing else raises it.

    Raised inside the driver it might leave a lock held. Raised during a commit it would leave open whether everything
    or nothing was written. If the process just dies, MongoDB ends its transaction a minute after it began.
    """
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}

    def heed() -> None:
        if told.is_set():
            raise KeyboardInterrupt

    try:
        yield heed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def connected(url: str) -> Iterator[Database]:
    """Yield the database at this address; DatabaseError says in a sentence what is wrong with it."""
    with client_of(url) as client:
        yield Database(client)


@contextmanager
def client_of(url: str) -> Iterator[MongoClient[Document]]:
    """Yield a client of the server at this address; DatabaseError as for `connected`."""
    place = urlsplit(url).netloc.rpartition("@")[2]
    try:
        with MongoClient[Document](url, serverSelectionTimeoutMS=SELECT_MS, appname="sorictl") as client:
            yield client
    except PyMongoError as error:
        raise DatabaseError(f"MongoDB at {place} {_said(error)}") from error


def _said(error: PyMongoError) -> str:
    if isinstance(error, ConnectionFailure):
        return "cannot be reached."
    if isinstance(error, ConfigurationError):
        return "cannot be reached the way that MONGODB_URL says."
    if isinstance(error, OperationFailure) and error.code in _NOT_LET_IN:
        return "does not let the user in that MONGODB_URL names."
    if isinstance(error, OperationFailure) and error.code == _NO_TRANSACTIONS:
        return "is no replica set, which Sori needs."
    if _codes(error) & _TOO_LARGE:
        return "has too little memory (its cache) to take that much in at once: divide the file."
    return f"did not do it: {type(error).__name__}."


def _codes(error: PyMongoError) -> set[int]:
    details = (error.details or {}) if isinstance(error, OperationFailure) else {}
    return {details.get("code", 0), *(failed["code"] for failed in details.get("writeErrors", ()))}


def _batches(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    return (writes[start : start + BATCH] for start in range(0, len(writes), BATCH))
