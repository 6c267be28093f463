"""What each client has used, as far as this replica knows. Nothing here waits for anything.

Replicas tell one another once a second. Until another one is heard again, it is taken to have counted as much as this
one has since: the edge spreads requests evenly. So a flood gets what it may have, whichever replica it meets.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from chassis.quotas.quota import Quota, QuotaReachedError, Used

LATELY_SECONDS = 10.0
"""For how long after its last use a client's figures are read from the other replicas."""
MOST_LATELY = 2_000
"""The most clients whose figures are read, or told, at once."""
MOST_CLIENTS = 20_000
"""The most clients that are remembered, besides those that hold something; some 10 MB."""
REPEAT_SECONDS = 60.0
"""How often what is held is told again, and clients are forgotten whose windows are over."""
SHARED_SECONDS = 2
"""After how long a client that was refused for what others may have counted can be sure of what they have."""

Figures = dict[str, tuple[int, int]]
"""How much a client has used in which window, by the name of the quota."""


@dataclass(frozen=True)
class Report:
    """What one replica has counted of one client."""

    replica: str
    client: str
    figures: Figures


class _Count:
    """One client's use of one quota."""

    __slots__ = ("base", "before", "others", "own", "window")

    def __init__(self, window: int) -> None:
        self.begin(window)

    def begin(self, window: int) -> None:
        """Count anew."""
        self.window = window
        self.own = 0
        self.others = 0
        """What all other replicas have told of."""
        self.base = 0
        """What `own` was when the others told of theirs, or less."""
        self.before = 0
        """What `own` was when they were last heard."""

    def used(self, peers: int) -> int:
        """Return what all replicas have counted by now, as far as can be known."""
        return self.own + self.others + peers * max(0, self.own - self.base)


class _Client:
    __slots__ = ("counts", "seen")

    def __init__(self) -> None:
        self.counts: dict[Quota, _Count] = {}
        self.seen = 0.0

    def holds(self) -> bool:
        return any(quota.is_held and count.own for quota, count in self.counts.items())

    def counts_in(self, now: float) -> bool:
        """Tell whether anything was counted in a window that is not over."""
        counts = ((quota, count) for quota, count in self.counts.items() if not quota.is_held)
        return any(count.window == quota.window(now) and (count.own or count.others) for quota, count in counts)


class Counts:
    """All clients of this replica. A limit of 0 is none: what has none is not counted."""

    def __init__(self, limits: Mapping[Quota, int], clock: Callable[[], float] = time.time) -> None:
        self.peers = 0
        """How many other replicas of this service there are."""
        self.limits = {quota: limit for quota, limit in limits.items() if limit}
        self._named = {quota.name: quota for quota in self.limits}
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        self._lately: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._repeated_at = clock()

    @property
    def remembered(self) -> int:
        """How many clients have figures here."""
        return len(self._clients)

    def take(self, client: str | None, quota: Quota, amount: int = 1) -> Used | None:
        """Count a use, if the limit allows it; else QuotaReachedError. None when there is no limit for the client."""
        count = self._check(client, quota, amount)
        if client is None or count is None:
            return None
        count.own += amount
        self._changed[client] = None
        return self._used(quota, count)

    def check(self, client: str | None, quota: Quota) -> Used | None:
        """Raise QuotaReachedError when nothing is left; None when there is no limit for the client."""
        count = self._check(client, quota, 1)
        return None if count is None else self._used(quota, count)

    def add(self, client: str | None, quota: Quota, amount: int) -> None:
        """Count a use that cannot be refused any more."""
        count = self._count(client, quota)
        if client is not None and count is not None:
            count.own += amount
            self._changed[client] = None

    def give_back(self, client: str | None, quota: Quota) -> None:
        """Hold one less of what `take` has given."""
        self.add(client, quota, -1)

    @contextmanager
    def held(self, client: str | None, quota: Quota) -> Iterator[Used | None]:
        """Hold one until the block ends; QuotaReachedError when the limit does not allow it."""
        used = self.take(client, quota)
        try:
            yield used
        finally:
            self.give_back(client, quota)

    def usage(self, client: str) -> list[Used]:
        """Return how much the client has used of each quota that has a limit."""
        counts = ((quota, self._count(client, quota)) for quota in self.limits)
        return [self._used(quota, count) for quota, count in counts if count is not None]

    def lately(self) -> list[str]:
        """Return the clients whose figures are wanted from the other replicas."""
        since = self._clock() - LATELY_SECONDS
        self._lately = {name: None for name in self._lately if self._seen(name) >= since}
        names = list(self._lately)
        return names if len(names) <= MOST_LATELY else sorted(names, key=self._seen)[-MOST_LATELY:]

    def changed(self) -> dict[str, Figures]:
        """Return clients that the other replicas are to be told of, up to MOST_LATELY; they count as told then."""
        self._repeat()
        names = list(self._changed)[:MOST_LATELY]
        for name in names:
            del self._changed[name]
        return {name: self._figures(self._clients[name]) for name in names if name in self._clients}

    def not_told(self, clients: Iterable[str]) -> None:
        """Have the other replicas told of these clients again."""
        self._changed.update(dict.fromkeys(clients))

    def learn(self, clients: Collection[str], reports: Iterable[Report], living: Collection[str]) -> None:
        """Take what the other replicas have counted of these clients.

        What a replica held that is not among the `living` is given back.
        """
        others = {client: dict.fromkeys(self.limits, 0) for client in clients}
        now = self._clock()
        for report in reports:
            for name, (window, amount) in report.figures.items():
                quota = self._named.get(name)
                if quota is None or window != quota.window(now) or (quota.is_held and report.replica not in living):
                    continue
                others[report.client][quota] += amount
        for client, amounts in others.items():
            for quota, amount in amounts.items():
                known = client in self._clients and quota in self._clients[client].counts
                if not quota.is_measured and (known or amount):
                    self._counted(client, quota).others = amount

    def heard(self, clients: Collection[str], *, from_all: bool) -> None:
        """Note that the other replicas' counts of these clients were just read.

        `from_all` says that every other replica of this service has written anew since the last call. What they wrote
        then includes all that they had counted up to the last call, so what they are guessed to have counted besides
        begins at what this one had counted by then.
        """
        for client in clients:
            known = self._clients.get(client)
            for count in known.counts.values() if known is not None else ():
                if from_all:
                    count.base = count.before
                count.before = count.own

    def asked(self, quota: Quota, clients: Collection[str]) -> list[str]:
        """Return those of the clients that have used this quota here, or wanted to."""
        return [client for client in clients if client in self._clients and quota in self._clients[client].counts]

    def measured(self, quota: Quota, amounts: Mapping[str, int]) -> None:
        """Take what was counted elsewhere; what has come meanwhile is in it."""
        for client, amount in amounts.items():
            count = self._counted(client, quota)
            count.others, count.own, count.base, count.before = amount, 0, 0, 0

    def _check(self, client: str | None, quota: Quota, amount: int) -> _Count | None:
        count = self._count(client, quota)
        if count is None:
            return None
        limit = self.limits[quota]
        if count.used(self.peers) + amount > limit:
            is_sure = count.used(0) + amount > limit
            wait = quota.left(self._clock()) if is_sure else SHARED_SECONDS
            raise QuotaReachedError(self._used(quota, count), wait)
        return count

    def _count(self, client: str | None, quota: Quota) -> _Count | None:
        """Return the client's count, noting that it was asked for; None when there is no limit."""
        if client is None or quota not in self.limits:
            return None
        count = self._counted(client, quota)
        self._clients[client].seen = self._clock()
        self._lately[client] = None
        return count

    def _counted(self, client: str, quota: Quota) -> _Count:
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client()
        window = quota.window(self._clock())
        count = known.counts.get(quota)
        if count is None:
            count = known.counts[quota] = _Count(window)
        elif count.window != window:
            count.begin(window)
        return count

    def _used(self, quota: Quota, count: _Count) -> Used:
        limit = self.limits[quota]
        seconds = None if quota.is_held else quota.left(self._clock())
        return Used(quota, min(limit, count.used(self.peers)), limit, seconds)

    def _figures(self, client: _Client) -> Figures:
        counted = ((quota, count) for quota, count in client.counts.items() if not quota.is_measured)
        return {quota.name: (count.window, count.own) for quota, count in counted}

    def _seen(self, name: str) -> float:
        return self._clients[name].seen if name in self._clients else 0.0

    def _repeat(self) -> None:
        """Now and then, forget who is of no interest any more, and have what is held told again."""
        now = self._clock()
        if now < self._repeated_at + REPEAT_SECONDS and len(self._clients) <= MOST_CLIENTS:
            return
        self._repeated_at = now
        kept, held = {}, {}
        for name, client in self._clients.items():
            if client.holds():
                held[name] = client
            elif client.counts_in(now):
                kept[name] = client
        if len(kept) > MOST_CLIENTS:
            newest = sorted(kept, key=self._seen)[-MOST_CLIENTS * 3 // 4 :]
            kept = {name: kept[name] for name in newest}
        self._clients = kept | held
        self._changed.update(dict.fromkeys(held))
