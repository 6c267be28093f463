"""The longer examples of README and docs, run as they stand there."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika

from contracts import topology
from local_stack.stack import Stack
from tests.support.sori import Sori, new_token

QUEUE = "scoreboard.analysis-completed"
ROOT = Path(__file__).parents[2]
PAGES = "\n".join(page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


def code_block(language: str, containing: str) -> str:
    """The one block of all pages in `language` that contains this text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return str(block)


@asynccontextmanager
async def queue_of_the_example(url: str) -> AsyncIterator[None]:
    """The example's queue, there before its program is, so that the test need not know when that listens."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(topology.EVENTS_EXCHANGE, "analysis.completed.v1")
        try:
            yield
        finally:
            await queue.delete(if_unused=False, if_empty=False)


async def test_the_subscriber_of_the_example_prints_every_result(stack: Stack, sori: Sori, tmp_path: Path) -> None:
    program = tmp_path / "scoreboard.py"
    program.write_text(code_block("python", QUEUE))
    url = stack.settings["RABBITMQ_URL"]
    async with queue_of_the_example(url), asyncio.timeout(60):
        job_id = await sori.job(token_id=new_token())
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            program,
            env={**os.environ, "RABBITMQ_URL": url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert running.stdout is not None
        try:
            while job_id not in (line := (await running.stdout.readline()).decode()):
                assert line, "the subscriber ended"
            assert "score" in line
        finally:
            running.terminate()
            await running.wait()


async def test_the_page_shows_how_to_call_the_webhook_by_hand(stack: Stack, sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    by_hand = code_block("bash", "SIGNATURE=").replace("http://localhost:8000", stack.url)
    without_eval = "\n".join(line for line in by_hand.splitlines() if not line.startswith("eval"))
    secret = stack.settings["WEBHOOK_SECRET"]
    shell = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        without_eval,
        env={**os.environ, "WEBHOOK_SECRET": secret, "JOB_ID": job_id},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    answer, _ = await shell.communicate()
    assert answer.decode() == f'{{"received":true,"job_id":"{job_id}"}}'
    assert (await sori.ended(job_id))["result"] == {"score": 87.5}
