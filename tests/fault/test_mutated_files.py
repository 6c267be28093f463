"""Thousands of files that are damaged in every way: each gets a known answer, within bounds, and no process is left."""

import asyncio
import multiprocessing
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from contracts.audio import CONTAINERS
from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding.decoder import MEMORY_BYTES, Decoder
from decoding.errors import RejectedError
from tests.support.media import HOSTILE, KINDS, made
from tests.support.waiting import until_true

SECONDS = 0.6
"""How long the sounds are: short, so that a mutation meets what matters."""
MAX_SECONDS = 600.0
AT_ONCE = 2
PREPARED_BYTES = 200 * 1024 * 1024
ANSWERS = {
    "accepted",
    *(FailureCode.NOT_AUDIO, FailureCode.AUDIO_TRUNCATED, FailureCode.AUDIO_DAMAGED, FailureCode.AUDIO_EMPTY),
    *(FailureCode.AUDIO_TOO_COMPLEX, FailureCode.AUDIO_TOO_LONG),
}
SAY_EVERY = 1000
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
EXPENSIVE = 500
"""One run in so many begins with a file that is hostile as it is."""

Mutation = Callable[[Random, bytearray, bytes], None]


def flip(random: Random, content: bytearray, other: bytes) -> None:
    for _ in range(random.choice([1, 3, 20, 200])):
        content[_place(random, content)] = random.randrange(256)


def cut(random: Random, content: bytearray, _: bytes) -> None:
    del content[_place(random, content) :]


def remove(random: Random, content: bytearray, _: bytes) -> None:
    place = _place(random, content)
    del content[place : place + random.choice([1, 4, 100, 5000])]


def insert(random: Random, content: bytearray, _: bytes) -> None:
    place = _place(random, content)
    content[place:place] = random.choice([bytes(1), bytes(5000), random.randbytes(4), random.randbytes(3000)])


def splice(random: Random, content: bytearray, other: bytes) -> None:
    content[_place(random, content) :] = other[random.randrange(len(other)) :]


def join(_: Random, content: bytearray, other: bytes) -> None:
    content += other


def repeat(random: Random, content: bytearray, _: bytes) -> None:
    place = _place(random, content)
    piece = bytes(content[place : place + random.choice([16, 500, 5000])])
    content[place:place] = piece * random.choice([1, 10, 100])


def exaggerate(random: Random, content: bytearray, other: bytes) -> None:
    """Set what may be a length, a count or a rate to an extreme, where such fields mostly are: near the beginning."""
    for _ in range(random.choice([1, 2, 5])):
        place, number = _place(random, content), random.choice(EXTREMES)
        field = struct.pack(random.choice([">I", "<I", ">Q", "<Q"]), number)
        content[place : place + len(field)] = field


MUTATIONS: tuple[Mutation, ...] = (flip, cut, remove, insert, splice, join, repeat, exaggerate, exaggerate)


def _place(random: Random, content: bytearray) -> int:
    return random.randrange(max(1, min(len(content), random.choice([64, 512, 4096, 1 << 30]))))


def mutated(random: Random, corpus: list[bytes]) -> bytes:
    content = bytearray(random.choice(corpus))
    for _ in range(random.choice([1, 1, 2, 4])):
        random.choice(MUTATIONS)(random, content, random.choice(corpus))
        content = content or bytearray(b"R")
    return bytes(content)


async def answer(decoder: Decoder, content: bytes) -> str:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            found = await decoder.inspect(file)
        except RejectedError as error:
            return str(error.reason)
    assert 0 < found.duration_seconds <= MAX_SECONDS
    assert isinstance(found, AudioInfo)
    return "accepted"


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(300, id="300-files", marks=[pytest.mark.short, pytest.mark.timeout(300)]),
        pytest.param(10_000, id="10000-files", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
    ],
)
async def test_every_mutated_file_gets_a_known_answer_within_the_bounds(count: int, seed: int) -> None:
    assert {kind.container for kind in KINDS.values()} == {container.name for container in CONTAINERS}
    corpus = [made(name, SECONDS) for name in KINDS]
    hostile = [content for make in HOSTILE.values() if len(content := make()) < 3_000_000]
    decoder, answers, most = Decoder(AT_ONCE, MAX_SECONDS), Counter[str](), 0
    await decoder.start()
    begun = time.monotonic()

    async def try_one(number: int) -> None:
        nonlocal most
        random = Random(f"{seed} {number}")
        content = mutated(random, hostile if number % EXPENSIVE == EXPENSIVE - 1 else corpus)
        try:
            answers[await answer(decoder, content)] += 1
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"sori-mutated-{seed}-{number}"
            kept.write_bytes(content)
            print(f"\nfile {number} is kept as {kept}", flush=True)
            raise
        most = max(most, *map(_most_memory, _children()))
        if number % SAY_EVERY == SAY_EVERY - 1:
            print(f"{number + 1} files after {time.monotonic() - begun:.0f} s: {dict(answers)}", flush=True)

    async def try_each(first: int) -> None:
        for number in range(first, count, AT_ONCE):
            await try_one(number)

    try:
        await asyncio.gather(*map(try_each, range(AT_ONCE)))
    finally:
        decoder.stop()
    print(f"\n{count} files in {time.monotonic() - begun:.0f} s, at most {most >> 20} MiB: {dict(answers)}", flush=True)
    assert answers.total() == count
    assert answers.keys() <= ANSWERS
    assert most < MEMORY_BYTES + PREPARED_BYTES
    await until_true(lambda: not multiprocessing.active_children(), "no process is left")


def _children() -> list[int]:
    return [0, *(child.pid or 0 for child in multiprocessing.active_children())]


def _most_memory(pid: int) -> int:
    """Return the most memory that a process has had at once (proc(5), VmHWM); 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
