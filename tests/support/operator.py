"""sorictl as an operator calls it: a program of its own, in a folder without `.env`, its output piped or not."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SORICTL = Path(sys.executable).parent / "sorictl"
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects that it printed, one on each line."""
        return [json.loads(line) for line in self.out.splitlines()]


async def sorictl(folder: Path, environ: Mapping[str, str], *arguments: str, answer: str | None = None) -> Said:
    """Run a command in this folder; `answer` is what it reads when it asks, None an input without any line."""
    async with started(folder, environ, *arguments) as process, asyncio.timeout(LIMIT_SECONDS):
        out, err = await process.communicate(None if answer is None else f"{answer}\n".encode())
    return Said(process.returncode or 0, out.decode(), err.decode())


async def at_a_terminal(folder: Path, environ: Mapping[str, str], *arguments: str, answers: str) -> Said:
    """Run a command whose input is a terminal, at which these lines have been typed already."""
    keyboard, terminal = os.openpty()
    try:
        os.write(keyboard, answers.encode())
        async with started(folder, environ, *arguments, stdin=terminal) as process, asyncio.timeout(LIMIT_SECONDS):
            out, err = await process.communicate()
    finally:
        os.close(keyboard)
        os.close(terminal)
    return Said(process.returncode or 0, out.decode(), err.decode())


@asynccontextmanager
async def started(
    folder: Path, environ: Mapping[str, str], *arguments: str, stdin: int = asyncio.subprocess.PIPE
) -> AsyncIterator[Process]:
    """A command that runs during the block."""
    process = await asyncio.create_subprocess_exec(
        SORICTL,
        *arguments,
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", **environ},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Operator:
    """Somebody at a terminal who can reach this RabbitMQ."""

    def __init__(self, rabbitmq_url: str, folder: Path) -> None:
        self._url = rabbitmq_url
        self._folder = folder

    async def dead_letters(
        self, *arguments: str, answer: str | None = None, environ: Mapping[str, str] | None = None
    ) -> Said:
        """Run `sorictl dead-letters …`; `answer` is what it reads when it asks, None an input without any line."""
        given = {"RABBITMQ_URL": self._url, **(environ or {})}
        return await sorictl(self._folder, given, "dead-letters", *arguments, answer=answer)
