"""Inspects recordings in child processes, each within bounds of memory and time."""

import os
from typing import IO

from chassis.children import Children, ExhaustedError, Limits
from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding.errors import RejectedError

MEMORY_BYTES = 512 * 1024 * 1024
"""What decoding may take; an hour of anything that people record takes a tenth of it."""
LEAST_CPU_SECONDS, MOST_CPU_SECONDS = 10.0, 120.0
CPU_SECONDS_PER_MIB = 4.0
"""An hour of speech of the smallest files that people record (3 MiB of Opus) takes 6 s of a processor of 2026. A file
that is small and takes long was made to do so, and must not hold up others."""
CLOCK_PER_CPU = 6.0
"""How many times as long it may take by the clock, since other programs use the processors too."""


class Decoder:
    """Up to `count` child processes that decode."""

    def __init__(self, count: int, max_seconds: float, most_cpu_seconds: float = MOST_CPU_SECONDS) -> None:
        self._max_seconds = max_seconds
        self._most_cpu_seconds = most_cpu_seconds
        self._children = Children(count, MEMORY_BYTES, _prepare)

    async def start(self) -> None:
        """Start the processes now, rather than when they are first needed."""
        await self._children.start()

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        """Decode all of an open file and return what was measured.

        RejectedError when it cannot be used, LateError when it took too long and may be tried again.
        """
        # The child opens the same file anew: it may have no name.
        path = f"/proc/{os.getpid()}/fd/{content.fileno()}"
        try:
            return await self._children.do(_inspect, path, self._max_seconds, limits=self._limits(content))
        except ExhaustedError:
            raise RejectedError(FailureCode.AUDIO_TOO_COMPLEX) from None

    def stop(self) -> None:
        """End the processes at once."""
        self._children.stop()

    def _limits(self, content: IO[bytes]) -> Limits:
        size_bytes = os.fstat(content.fileno()).st_size
        cpu_seconds = min(self._most_cpu_seconds, LEAST_CPU_SECONDS + CPU_SECONDS_PER_MIB * size_bytes / 2**20)
        return Limits(cpu_seconds, CLOCK_PER_CPU * cpu_seconds)


def _prepare() -> None:
    import av  # noqa: PLC0415 - only the children pay for FFmpeg and numpy: 60 MB and 0.3 s

    import decoding.inspecting  # noqa: F401, PLC0415 - as above

    av.logging.set_level(None)


def _inspect(path: str, max_seconds: float) -> AudioInfo:
    from decoding.inspecting import inspect  # noqa: PLC0415 - as above

    return inspect(path, max_seconds)
