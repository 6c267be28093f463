"""MongoDB: changes of one document, and transactions, as the catalogue needs them."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from chassis.mongodb import ANSWER_MS

CONFLICT_SECONDS = 5.0
"""How long a transaction is tried again when others are in its way."""

Answer = TypeVar("Answer")


class DuplicateError(Exception):
    """A unique index has this value already; `field` is the field that it is an index of."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is taken")
        self.field = field


async def in_transaction(client: Any, work: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Run `work(session)` in one transaction: all that it does is kept, or nothing.

    It is run again when another transaction was in the way. We do not use the driver's own loop, because that goes on
    for two minutes while there is no primary.
    """
    jitter = wait_random_exponential(multiplier=0.005, max=0.2)
    conflict = retry_if_exception(_is_conflict)
    async with await client.start_session() as session:
        async for attempt in AsyncRetrying(
            retry=conflict, wait=jitter, stop=stop_after_delay(CONFLICT_SECONDS), reraise=True
        ):
            with attempt:
                async with session.start_transaction(
                    ReadConcern("snapshot"), WriteConcern("majority", j=True), ReadPreference.PRIMARY, ANSWER_MS
                ):
                    answer = await work(session)
    return answer


async def insert(rows: Any, document: dict[str, Any], *, session: Any = None) -> None:
    """Insert a document; DuplicateError when a unique index has one of its values already."""
    with _noticing_duplicates():
        await rows.insert_one(document, session=session)


async def changed(
    rows: Any, query: dict[str, Any], change: dict[str, Any], *, upsert: bool = False, session: Any = None
) -> Any:
    """Change one document and return its new state, None when there is none. DuplicateError as for `insert`."""
    with _noticing_duplicates():
        return await rows.find_one_and_update(
            query, change, upsert=upsert, return_document=ReturnDocument.AFTER, session=session
        )


@contextmanager
def _noticing_duplicates() -> Iterator[None]:
    try:
        yield
    except DuplicateKeyError as error:
        raise DuplicateError(next(iter((error.details or {})["keyPattern"]))) from error


def _is_conflict(error: BaseException) -> bool:
    # An OperationFailure alone: a lost connection has the same label.
    return isinstance(error, OperationFailure) and error.has_error_label("TransientTransactionError")
