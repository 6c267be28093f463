"""The command `sorictl setup`: brings both back ends to what this version needs, and says what it did."""

from collections.abc import Sequence

from contracts import topology
from sorictl import job_store, redriving, retired
from sorictl.errors import BrokerError, DatabaseError, IncompleteError, InterruptedByUserError, SorictlError
from sorictl.rabbitmq import RabbitMQ
from sorictl.screen import err, out
from sorictl.sessions import with_rabbitmq
from sorictl.settings import BrokerSettings, DatabaseSettings, read_settings

INTERRUPTED = "interrupted; nothing is lost: run it again."


def setup() -> None:
    """Bring RabbitMQ and MongoDB to what this version needs (RABBITMQ_URL, MONGODB_URL); for after an upgrade.

    Declares exchanges and queues, moves what lies in queues of earlier versions, removes what is no longer used, and
    gives unfinished jobs of earlier versions what they are told again by. It may be repeated, and beside running
    services.
    """
    read_settings(BrokerSettings)
    read_settings(DatabaseSettings)
    failures: list[SorictlError] = []
    for part in (_set_up_rabbitmq, _set_up_mongodb):
        try:
            part()
        except (BrokerError, DatabaseError, IncompleteError) as failure:  # the other back end is set up all the same
            failures.append(failure)
    for earlier in failures[:-1]:
        err.print(f"sorictl: {earlier}", style="red", markup=False, soft_wrap=True)
    if failures:
        raise failures[-1]


def _set_up_rabbitmq() -> None:
    async def work(rabbitmq: RabbitMQ) -> tuple[list[retired.TakenOver], int]:
        await rabbitmq.declare()
        taken_over = await retired.take_over(rabbitmq, topology.RETIRED_QUEUES)
        return taken_over, await retired.remove_exchanges(rabbitmq, topology.RETIRED_EXCHANGES)

    taken_over, exchanges = with_rabbitmq(work, interrupted=INTERRUPTED, may_be_new=True)
    _say(f"RabbitMQ: exchanges and queues are declared; {exchanges:,} old exchanges removed.")
    for one in taken_over:
        _say(f"RabbitMQ: {one.moved:,} messages moved from {one.old} to {one.new}{_end(one)}.")
    _require_all_gone(taken_over)


def _end(one: retired.TakenOver) -> str:
    return "; the old queue is removed" if one.stays_because is None else ""


def _require_all_gone(taken_over: Sequence[retired.TakenOver]) -> None:
    stay = [f"{one.old} stays: {one.stays_because}" for one in taken_over if one.stays_because is not None]
    if stay:
        raise IncompleteError(f"{'; '.join(stay)}. Run `sorictl setup` again once that is over.")


def _set_up_mongodb() -> None:
    url = str(read_settings(DatabaseSettings).mongodb_url)
    try:
        with job_store.connected(url) as store:
            done = store.bring_up(redriving.rebuilt)
    except KeyboardInterrupt:
        raise InterruptedByUserError(INTERRUPTED) from None
    if not done:
        _say("MongoDB: nothing was left to do.")
        return
    index = "removed" if done.index else "not there"
    _say(f"MongoDB: {done.told:,} unfinished jobs will be told again ({done.rebuilt:,} events rebuilt),")
    _say(f"         {done.outboxes:,} other outbox marks removed, the old index {index}.")
    if done.purges:
        _say(f"MongoDB: {done.purges:,} purges that are not done will be told again.")


def _say(line: str) -> None:
    out.print(line, markup=False, soft_wrap=True)
