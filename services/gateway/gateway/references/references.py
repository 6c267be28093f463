"""Gives tokens their reference audio, and tells what a recording of a token is compared with."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryFile
from typing import IO, Protocol
from urllib.parse import unquote

import structlog

from chassis.children import LateError
from chassis.errors import AwayError
from contracts.addresses import REFERENCES, CatalogueAddresses
from contracts.audio import container
from contracts.catalogue import Script, Token
from contracts.events import AudioInfo, Reference, ReferenceScript
from gateway.audio import ArrivingFile, ObjectStore
from gateway.catalogue.rows import ChangedError, Expected, RevisedRow, TokenNotFoundError, row_id

MOST_CPU_SECONDS = 30.0
"""What decoding a reference may take of a processor: somebody waits for the answer. An hour of speech takes 12 s."""
INSPECT_SECONDS = 100.0
"""How long decoding may take with all that waits before it; less than the edge waits for an answer."""
log = structlog.get_logger()

_READ_BYTES = 256 * 1024
_KEY = re.compile(rf"{REFERENCES}[0-9]+/[0-9a-f]{{16}}(?![0-9a-f])")


@dataclass(frozen=True)
class Record:
    """An object under `key`. No token has named it since `unused_since`; the sweeper has condemned it at `swept_at`."""

    key: str
    unused_since: datetime | None = None
    swept_at: datetime | None = None


class UploadTooLateError(Exception):
    """An upload took so long that the sweeper has condemned its object."""


class Records(Protocol):
    """The `references` collection: every object that an upload has begun, until it is swept."""

    async def add(self, key: str, media_type: str) -> None:
        """Add the record of a new object, which is unused at first."""

    async def media_type(self, key: str) -> str | None:
        """Return what is recorded of an object, None when nothing is."""

    async def renew(self, key: str) -> bool:
        """Count its unused time from now on; False when it is being swept."""

    async def all(self) -> list[Record]:
        """Return every record."""

    async def named(self) -> list[str]:
        """Return the address of every token's reference audio."""

    async def mark_used(self, keys: list[str]) -> None:
        """Record that these are used, unless they are being swept."""

    async def mark_unused(self, keys: list[str]) -> None:
        """Record that these are unused from now on, if they were used."""

    async def condemn(self, record: Record) -> bool:
        """Record that one is being swept; False when the record has changed meanwhile."""

    async def forget(self, key: str) -> None:
        """Remove the record."""


class Decoder(Protocol):
    """Decodes audio."""

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        """Decode an open file and return what was measured.

        RejectedError when it cannot be used, LateError when it took too long and may be tried again.
        """


class Tokens(Protocol):
    """The catalogue's tokens."""

    async def find(self, token_id: int) -> RevisedRow[Token] | None:
        """Return the token."""

    async def set_reference(self, token_id: int, url: str, expected: Expected) -> RevisedRow[Token]:
        """Make this the token's reference audio; TokenNotFoundError, or ChangedError when it has another revision."""

    async def scripts_of(self, token_id: int) -> list[Script]:
        """Return the token's scripts by start time."""


class References:
    """Gives tokens their reference audio, and tells what a recording of a token is compared with.

    Every upload is an object under a new key, and is never changed. Only the sweeper removes objects: those that a
    token no longer names, those of uploads that died, and those of uploads that lost against another.
    """

    def __init__(
        self, tokens: Tokens, records: Records, store: ObjectStore, decoder: Decoder, addresses: CatalogueAddresses
    ) -> None:
        self._tokens = tokens
        self._records = records
        self._store = store
        self._decoder = decoder
        self._addresses = addresses

    async def replace(self, token_id: int, file: ArrivingFile, expected: Expected) -> RevisedRow[Token]:
        """Make the file the token's reference audio, once it was decoded: what is no speech would fail every recording.

        TokenNotFoundError and ChangedError are raised before the file is read, and also after it when the token was
        removed or changed meanwhile. RejectedError, LateError and UploadTooLateError are raised after it.
        """
        token = await self._tokens.find(token_id)
        if token is None:
            raise TokenNotFoundError
        if expected is not None and token.revision not in expected:
            raise ChangedError(token.revision)
        return await self._tokens.set_reference(token_id, await self._stored(token_id, file), expected)

    async def key_of(self, token_id: int) -> str | None:
        """Return the key of the token's reference audio, None when our bucket has none; TokenNotFoundError."""
        token = await self._tokens.find(token_id)
        if token is None:
            raise TokenNotFoundError
        url = token.row.reference_audio_url or ""
        key = key_in(url)
        return key if key is not None and self._addresses.full(url) == self._addresses.full(key) else None

    async def media_type(self, key: str) -> str | None:
        """Return the media type that a reference was found to have, None for one of an earlier version."""
        return await self._records.media_type(key)

    async def of(self, token_id: str) -> Reference | None:
        """Return what a recording of this token is compared with, None when the catalogue has no such token."""
        number = row_id(token_id)
        found = None if number is None else await self._tokens.find(number)
        if found is None:
            return None
        token = found.row
        scripts = await self._tokens.scripts_of(token.id)
        return Reference(
            audio_url=self._usable(token, "reference_audio_url"),
            textgrid_url=self._usable(token, "s3_textgrid_url"),
            pitch_url=self._usable(token, "s3_pitch_url"),
            scripts=[_within(token, script) for script in scripts],
        )

    async def _stored(self, token_id: int, file: ArrivingFile) -> str:
        """Decode the file, store it and return its s3:// address."""
        async with _arrived(file) as content:
            media_type = container((await self._inspected(content)).container).media_type
            key = f"{REFERENCES}{token_id}/{secrets.token_hex(8)}"
            # Before the object is written: the sweeper finds objects only by their records.
            await self._records.add(key, media_type)
            content.seek(0)
            await self._store.write(key, _chunks(content), media_type)
        if not await self._records.renew(key):
            raise UploadTooLateError(key)
        return self._addresses.full(key)

    async def _inspected(self, content: IO[bytes]) -> AudioInfo:
        try:
            async with asyncio.timeout(INSPECT_SECONDS):
                return await self._decoder.inspect(content)
        except TimeoutError:
            raise LateError from None

    def _usable(self, token: Token, field: str) -> str | None:
        """Return a token's address in full; None when it may not be used, since rows may be older than that rule."""
        written = getattr(token, field)
        address = None if written is None else self._addresses.allowed(written)
        if written is not None and address is None:
            log.warning("address of the catalogue not used", token_id=token.id, field=field)
        return address


def key_in(url: str) -> str | None:
    """Return the key of reference audio that an address of any form contains, None when it contains none."""
    # An https address may have any of its characters escaped; what is named so must not be swept either.
    found = _KEY.search(unquote(url))
    return None if found is None else found[0]


@asynccontextmanager
async def _arrived(file: ArrivingFile) -> AsyncIterator[IO[bytes]]:
    """Yield the whole file, on disk and without a name; AwayError when the disk is full."""
    content = TemporaryFile()  # noqa: SIM115 - closed below
    try:
        async for chunk in file.chunks():
            await _on_disk(content.write, chunk)
        await _on_disk(content.flush)
        yield content
    finally:
        # Off the event loop: closing a large file frees its disk blocks, which takes time.
        await asyncio.to_thread(content.close)


async def _on_disk(work: Callable[..., object], *told: bytes) -> None:
    try:
        await asyncio.to_thread(work, *told)
    except OSError as error:
        raise AwayError("the disk", type(error).__name__) from error


async def _chunks(content: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(content.read, _READ_BYTES):
        yield chunk


def _within(token: Token, script: Script) -> ReferenceScript:
    """Return a script with its times counted from the clip's beginning, rounded to remove floating-point noise."""
    return ReferenceScript(
        script_id=script.id,
        start_seconds=round(script.start_time - token.start_time, 6),
        end_seconds=round(script.end_time - token.start_time, 6),
        script=script.script,
    )
