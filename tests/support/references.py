"""The gateway's references in memory, for unit tests: records and tokens that behave as the real ones."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import IO

from contracts.catalogue import Script, Token
from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding.errors import RejectedError
from gateway.catalogue.rows import ChangedError, Expected, RevisedRow, TokenNotFoundError
from gateway.references.references import Record

Step = Callable[[], None]
Change = Callable[[Record], Record]


class Decoder:
    """Takes every file for a recording, unless it begins as HTML does; `container` is what it finds."""

    def __init__(self) -> None:
        self.container = "wav"

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        """Return what was measured."""
        content.seek(0)
        if content.read().startswith(b"<"):
            raise RejectedError(FailureCode.NOT_AUDIO)
        return AudioInfo(
            duration_seconds=1, sample_rate=16000, channels=1, codec="any", container=self.container, waveform=[]
        )


class Records:
    """The `references` collection; `step` is called before and after each change."""

    def __init__(self, tokens: "Tokens", step: Step = lambda: None) -> None:
        self.kept: dict[str, Record] = {}
        self.media_types: dict[str, str] = {}
        self._tokens = tokens
        self._step = step

    async def add(self, key: str, media_type: str) -> None:
        """Store a new record; its reference is not used yet."""
        await self._turn()
        assert key not in self.kept
        self.media_types[key] = media_type
        self.kept[key] = Record(key, unused_since=datetime.now(UTC))
        self._step()

    async def media_type(self, key: str) -> str | None:
        """Return what is recorded of a reference."""
        return self.media_types.get(key)

    async def renew(self, key: str) -> bool:
        """Begin the time without use anew; False when the reference is being swept, or has no record."""
        return await self._change(
            key, lambda one: one.swept_at is None, lambda one: replace(one, unused_since=datetime.now(UTC))
        )

    async def all(self) -> list[Record]:
        """Return every record."""
        await asyncio.sleep(0)
        return list(self.kept.values())

    async def named(self) -> list[str]:
        """Return the addresses of the reference audio that tokens name."""
        await asyncio.sleep(0)
        urls = [kept.row.reference_audio_url for kept in self._tokens.kept.values()]
        return [url for url in urls if url is not None]

    async def mark_used(self, keys: list[str]) -> None:
        """Note that these references are used."""
        for key in keys:
            await self._change(key, lambda one: one.swept_at is None, lambda one: replace(one, unused_since=None))

    async def mark_unused(self, keys: list[str]) -> None:
        """Note that these references are not used, unless that was noted before."""
        for key in keys:
            await self._change(
                key, lambda one: one.unused_since is None, lambda one: replace(one, unused_since=datetime.now(UTC))
            )

    async def condemn(self, record: Record) -> bool:
        """Note that a reference is being swept; False when its record has changed meanwhile."""
        return await self._change(
            record.key, lambda one: one == record, lambda one: replace(one, swept_at=datetime.now(UTC))
        )

    async def forget(self, key: str) -> None:
        """Remove the record."""
        await self._turn()
        self.kept.pop(key, None)
        self._step()

    async def _change(self, key: str, meant: Callable[[Record], bool], change: Change) -> bool:
        await self._turn()
        record = self.kept.get(key)
        if record is None or not meant(record):
            return False
        self.kept[key] = change(record)
        self._step()
        return True

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        self._step()


class Tokens:
    """The catalogue. `asked` counts the reads; each of them raises `error` when that is set."""

    def __init__(self, *tokens: Token, scripts: tuple[Script, ...] = (), step: Step = lambda: None) -> None:
        self.kept = {token.id: RevisedRow(token, 1) for token in tokens}
        self.scripts = list(scripts)
        self.asked = 0
        self.error: Exception | None = None
        self._step = step

    async def find(self, token_id: int) -> RevisedRow[Token] | None:
        """Return the token."""
        await self._turn()
        return self.kept.get(token_id)

    async def scripts_of(self, token_id: int) -> list[Script]:
        """Return the token's scripts."""
        await self._turn()
        return [script for script in self.scripts if script.token_id == token_id]

    async def set_reference(self, token_id: int, url: str, expected: Expected) -> RevisedRow[Token]:
        """Make this the token's reference audio."""
        await asyncio.sleep(0)
        self._step()
        before = self.kept.get(token_id)
        if before is None:
            raise TokenNotFoundError
        if expected is not None and before.revision not in expected:
            raise ChangedError(before.revision)
        self.name(token_id, url)
        self._step()
        return self.kept[token_id]

    def name(self, token_id: int, url: str | None) -> None:
        """Have a token name this reference audio, as a PUT of the whole row does."""
        before = self.kept[token_id]
        row = before.row.model_copy(update={"reference_audio_url": url})
        self.kept[token_id] = RevisedRow(row, before.revision + 1)

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        self.asked += 1
        if self.error:
            raise self.error
