"""Files that are made to be expensive: each ends within the bounds, with a code, and others are decoded meanwhile."""

import asyncio
import multiprocessing
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding.decoder import MEMORY_BYTES, Decoder
from decoding.errors import RejectedError
from tests.support import media
from tests.support.media import HOSTILE

PREPARED_BYTES = 200 * 1024 * 1024
"""What a child takes before it has anything to do, at most."""
RIGHT: dict[str, set[object]] = {
    "endless sample table": {FailureCode.AUDIO_TOO_COMPLEX},
    "ten endless sample tables": {FailureCode.AUDIO_TOO_COMPLEX},
    "endless table of PCM": {FailureCode.AUDIO_TOO_COMPLEX},
    "endless table of an unknown codec": {FailureCode.NOT_AUDIO},
    # Whichever the machine is quick enough for.
    "an hour of eight silent channels": {FailureCode.AUDIO_TOO_COMPLEX, AudioInfo},
    "FLAC at 655,350 Hz": {FailureCode.AUDIO_TOO_COMPLEX},
    "many tiny FLAC frames": {AudioInfo},
    "empty chunks": {FailureCode.AUDIO_DAMAGED},
    "nine channels": {FailureCode.AUDIO_TOO_COMPLEX},
    "65,535 channels": {FailureCode.NOT_AUDIO},
    "1 Hz": {FailureCode.AUDIO_TOO_COMPLEX},
    "2 kHz": {FailureCode.AUDIO_TOO_COMPLEX},
    "2 GHz": {FailureCode.AUDIO_TOO_COMPLEX},
    "first pages only": {FailureCode.AUDIO_TOO_COMPLEX},
    "boxes in boxes": {FailureCode.AUDIO_TRUNCATED},
    "a tag of 20 MB": {AudioInfo},
    "a tag that claims 256 MB": {FailureCode.AUDIO_TRUNCATED},
    "tags behind tags": {FailureCode.AUDIO_DAMAGED},
}


@pytest.fixture(scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    opened = Decoder(2, max_seconds=3600)
    await opened.start()
    yield opened
    opened.stop()


async def judged(decoder: Decoder, content: bytes) -> AudioInfo | FailureCode:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return await decoder.inspect(file)
        except RejectedError as error:
            return error.reason


def most_memory() -> int:
    """Return the most memory that any child that is still there has had at once (proc(5), VmHWM)."""
    return max((_most_memory(child.pid or 0) for child in multiprocessing.active_children()), default=0)


def _most_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_ends_within_the_bounds_while_others_go_on(decoder: Decoder, name: str) -> None:
    hostile = asyncio.create_task(judged(decoder, HOSTILE[name]()))
    assert isinstance(await judged(decoder, media.made("m4a")), AudioInfo)
    answer = await hostile
    assert (type(answer) if isinstance(answer, AudioInfo) else answer) in RIGHT[name]
    assert most_memory() < MEMORY_BYTES + PREPARED_BYTES
    assert isinstance(await judged(decoder, media.made("m4a")), AudioInfo)


async def test_a_decoder_that_is_stopped_leaves_no_process() -> None:
    stopped = Decoder(2, max_seconds=60)
    before = set(psutil.Process().children())
    await stopped.start()
    started = set(psutil.Process().children()) - before
    assert len(started) >= 2
    stopped.stop()
    assert not [child for child in started if child.is_running() and "spawn_main" in " ".join(child.cmdline())]
