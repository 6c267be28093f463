"""The worker processes that analyse. No recording ends more than its own, and no worker outlives this process."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from analysis_server.errors import AnalysisError
from analysis_server.job import Part, Script
from analysis_server.omissions import Warnings
from chassis.children import Children, ExhaustedError, LateError, Limits

EXHAUSTED = "analysis_exhausted"
"""The code of the AnalysisError of what needs too much, and would need it again."""
LATE = "analysis_late"
"""The code of the AnalysisError of what was late each time, and may not be at another time."""
_MEMORY_BYTES = 2 * 1024**3
_CLOCK_PER_CPU = 6
"""How many times as long as its use of a processor an analysis may take by the clock."""
_TRIES_WHEN_LATE = 4
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 15, 120


class Workers:
    """A fixed number of processes, each analysing one recording at a time."""

    def __init__(self, count: int, max_audio_seconds: float, max_analysis_seconds: int) -> None:
        self._max_audio_seconds = max_audio_seconds
        self._limits = Limits(max_analysis_seconds, _CLOCK_PER_CPU * max_analysis_seconds)
        self._children = Children(count, _MEMORY_BYTES, _prepare)
        self._are_up = False

    async def start(self) -> None:
        """Start the processes and return when they run; raises ExhaustedError if they cannot."""
        await self._children.start()
        self._are_up = True

    @property
    def are_up(self) -> bool:
        """Say whether a recording could be analysed now."""
        return self._are_up

    async def analyse(self, path: Path, scripts: Sequence[Script], reference: bytes | None) -> dict[str, Any]:
        """Return the result object of the recording at `path`; `reference` is a `Voice` as bytes.

        Raises AnalysisError when the recording is not usable, `analysis_exhausted` and `analysis_late` included.
        """
        result: dict[str, Any] = await self._do(_analyse, path, scripts, reference)
        return result

    async def understand(self, files: Mapping[Part, Path], scripts: Sequence[Script]) -> tuple[bytes | None, Warnings]:
        """Return the voice that a reference's files give, as bytes, and warnings; raises AnalysisError as above."""
        understood: tuple[bytes | None, Warnings] = await self._do(_understand, files, scripts)
        return understood

    def stop(self) -> None:
        """End every worker at once, whatever it is doing."""
        self._are_up = False
        self._children.stop()

    async def _do(self, work: Callable[..., Any], *told: Any) -> Any:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(LateError),
            stop=stop_after_attempt(_TRIES_WHEN_LATE),
            wait=wait_exponential(multiplier=_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS),
            reraise=True,
        )
        try:
            return await attempts(self._children.do, work, *told, self._max_audio_seconds, limits=self._limits)
        except LateError:
            sentence = f"The analysis of this recording took too long, {_TRIES_WHEN_LATE} times, and was given up."
            raise AnalysisError(LATE, sentence) from None
        except ExhaustedError:
            sentence = "The analysis of this recording takes more time or memory than it may have."
            raise AnalysisError(EXHAUSTED, sentence) from None


def _prepare() -> None:
    import av  # noqa: PLC0415 - only workers pay for FFmpeg, Praat and their like: 80 MB and 0.3 s

    import analysis_server.analysis  # noqa: PLC0415 - as above
    import analysis_server.reference  # noqa: F401, PLC0415 - as above

    av.logging.set_level(None)


def _analyse(path: Path, scripts: Sequence[Script], reference: bytes | None, max_seconds: float) -> dict[str, Any]:
    from analysis_server.analysis import analyse  # noqa: PLC0415 - as above
    from analysis_server.voice import Voice  # noqa: PLC0415 - as above

    return analyse(path, scripts, Voice.from_bytes(reference) if reference else None, max_seconds)


def _understand(
    files: Mapping[Part, Path], scripts: Sequence[Script], max_seconds: float
) -> tuple[bytes | None, Warnings]:
    from analysis_server.reference import understand  # noqa: PLC0415 - as above

    return understand(files, scripts, max_seconds)
