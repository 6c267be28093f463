"""What recordings are compared with: how the actor's own speech comes in, and what each recording is given of it."""

import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.catalogue import Script, Token
from contracts.events import Reference, ReferenceScript
from gateway.catalogue import ChangedError, Expected, Kept, TokenNotFoundError, row_id

PREFIX = "references/"
"""Where the actors' speech lies in the bucket: references/<token_id>/<16 hex>, and the analysis server's beside it."""
_MARKS = (
    (0, b"RIFF", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    *((0, b"\xff" + second, "audio/mpeg") for second in (b"\xfb", b"\xfa", b"\xf3", b"\xf2")),
    *((0, b"\xff" + second, "audio/aac") for second in (b"\xf1", b"\xf9")),
    (4, b"ftyp", "audio/mp4"),
    (0, b"\x1aE\xdf\xa3", "audio/webm"),
)
"""Where in a file of each kind its mark is."""
_TELLING_BYTES = 8
_KEY = re.compile(r"references/[0-9]+/[0-9a-f]{16}(?![0-9a-f])")


@dataclass(frozen=True)
class Record:
    """What is known of an object under `key`: no token has named it since `unused_since`; it is swept `swept_at`."""

    key: str
    unused_since: datetime | None = None
    swept_at: datetime | None = None


class UploadTooLateError(Exception):
    """An upload took so long that what had come of it was swept."""


class File(Protocol):
    """A file that is still arriving."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes."""


class Storage(Protocol):
    """Where the bytes go."""

    async def write(self, key: str, chunks: AsyncIterator[bytes], content_type: str) -> None:
        """Store all of the chunks, or nothing."""


class Records(Protocol):
    """The `references` collection: every object that was ever begun, until it is swept."""

    async def add(self, key: str) -> None:
        """Keep a new one, which is unused as yet."""

    async def renew(self, key: str) -> bool:
        """Let the time for which it is unused begin anew; False when it is being swept."""


class Tokens(Protocol):
    """The catalogue's tokens."""

    async def find(self, token_id: int) -> Kept[Token] | None:
        """Return the token."""

    async def set_reference(self, token_id: int, url: str, expected: Expected) -> Kept[Token]:
        """Make this the token's reference audio; TokenNotFoundError, or ChangedError when it is none of those."""

    async def scripts_of(self, token_id: int) -> list[Script]:
        """Return the token's scripts by start time."""


class References:
    """Gives tokens their reference audio, and says what a recording of a token is compared with.

    An object is written under a key of its own and never changed. The one that a token had before is left to the
    sweeper, like that of an upload which died or came second: there is one way for all of them to go.
    """

    def __init__(self, tokens: Tokens, records: Records, storage: Storage, bucket: str) -> None:
        self._tokens = tokens
        self._records = records
        self._storage = storage
        self._bucket = bucket

    async def replace(self, token_id: int, file: File, expected: Expected) -> Kept[Token]:
        """Store the file and make it the token's reference audio.

        TokenNotFoundError and ChangedError come before the file is read, or after it when that happened meanwhile;
        UploadTooLateError after it.
        """
        token = await self._tokens.find(token_id)
        if token is None:
            raise TokenNotFoundError
        if expected is not None and token.revision not in expected:
            raise ChangedError(token.revision)
        return await self._tokens.set_reference(token_id, await self._stored(token_id, file), expected)

    async def key_of(self, token_id: int) -> str | None:
        """Return where the reference audio of a token lies, None when none of it is here; TokenNotFoundError."""
        kept = await self._tokens.find(token_id)
        if kept is None:
            raise TokenNotFoundError
        url = kept.row.reference_audio_url or ""
        key = key_in(url)
        return key if self._address(url) == f"s3://{self._bucket}/{key}" else None

    async def of(self, token_id: str) -> Reference | None:
        """Return what a recording of this token is compared with, None when the catalogue has no such token."""
        number = row_id(token_id)
        kept = None if number is None else await self._tokens.find(number)
        if kept is None:
            return None
        token = kept.row
        scripts = await self._tokens.scripts_of(token.id)
        return Reference(
            audio_url=self._address(token.reference_audio_url),
            textgrid_url=self._address(token.s3_textgrid_url),
            pitch_url=self._address(token.s3_pitch_url),
            scripts=[_within(token, script) for script in scripts],
        )

    async def _stored(self, token_id: int, file: File) -> str:
        """Store the file and return its s3:// address."""
        key = f"{PREFIX}{token_id}/{secrets.token_hex(8)}"
        # First: what is not recorded is never removed.
        await self._records.add(key)
        chunks = file.chunks()
        first = await _beginning(chunks)
        await self._storage.write(key, _all(first, chunks), audio_type(first))
        if not await self._records.renew(key):
            raise UploadTooLateError(key)
        return f"s3://{self._bucket}/{key}"

    def _address(self, written: str | None) -> str | None:
        """Return where an address in the catalogue leads; a bare key lies in the bucket."""
        if written is None or written.startswith(("s3://", "https://")):
            return written
        return f"s3://{self._bucket}/{written}"


def audio_type(beginning: bytes) -> str:
    """Return the media type of a file that begins like this: browsers play by it, and nothing else goes by it."""
    known = (kind for at, mark, kind in _MARKS if beginning[at:].startswith(mark))
    return next(known, "application/octet-stream")


def key_in(url: str) -> str | None:
    """Return the key of the object here that an address names, in whichever form; None when it names none."""
    found = _KEY.search(url)
    return None if found is None else found[0]


async def _beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """Return as many chunks as it takes to tell the type, or all that there are."""
    first = b""
    async for chunk in chunks:
        first += chunk
        if len(first) >= _TELLING_BYTES:
            break
    return first


async def _all(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in others:
        yield chunk


def _within(token: Token, script: Script) -> ReferenceScript:
    """Return a script with its times from the beginning of the clip, to the microsecond: floats subtract unevenly."""
    return ReferenceScript(
        script_id=script.id,
        start_seconds=round(script.start_time - token.start_time, 6),
        end_seconds=round(script.end_time - token.start_time, 6),
        script=script.script,
    )
