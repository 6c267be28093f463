"""Keys that are wanted and given up while bindings change stay as they are wanted last."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.rabbitmq.fan_out import FanOut
from tests.support.waiting import until_true


class Channel:
    """A channel of the broker that says which keys are bound; unbinding takes until `gate` is open."""

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.unbinding: list[str] = []
        self.gate = asyncio.Event()
        self.is_closed = False
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_consumer_cancel_callbacks: set[Any] = set()

    async def exchange_declare(self, *_: object, **__: object) -> None: ...

    async def queue_declare(self, *_: object, **__: object) -> None: ...

    async def basic_consume(self, *_: object, **__: object) -> None: ...

    async def close(self) -> None: ...

    async def queue_bind(self, _queue: str, _exchange: str, key: str) -> None:
        self.bound.add(key)

    async def queue_unbind(self, _queue: str, _exchange: str, key: str) -> None:
        self.unbinding.append(key)
        await self.gate.wait()
        self.bound.discard(key)


async def test_a_key_that_is_wanted_again_while_another_is_unbound_stays_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()

    async def open_channel(_: object) -> Channel:
        return channel

    monkeypatch.setattr("chassis.rabbitmq.fan_out.open_channel", open_channel)
    listening = asyncio.Event()
    fan_out = FanOut("exchange", "prefix", lambda *_: None, listening.set)
    fan_out.start(SimpleNamespace())  # type: ignore[arg-type] # a connection, which only `open_channel` uses
    await listening.wait()
    await asyncio.gather(fan_out.bind("aa"), fan_out.bind("bb"))
    fan_out.unbind("aa")
    fan_out.unbind("bb")
    await until_true(lambda: len(channel.unbinding) == 1, "an unbinding under way")
    (other,) = {"aa", "bb"} - set(channel.unbinding)
    await fan_out.bind(other)
    channel.gate.set()
    await until_true(lambda: len(channel.bound) == 1, "one that is unbound")
    await fan_out.bind("cc")  # after which nothing is left to change
    assert channel.bound == {other, "cc"}
    await fan_out.stop()
