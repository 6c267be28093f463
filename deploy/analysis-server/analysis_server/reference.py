"""A reference's files, as a worker process understands them: what can be known of the actor's voice."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from analysis_server import pitch_file, textgrid
from analysis_server.errors import AnalysisError, UnusableFileError
from analysis_server.job import Part, Script
from analysis_server.listening import listen
from analysis_server.omissions import Warnings, left_out
from analysis_server.voice import Voice

_SLACK_S = 0.5  # a codec's padding, or a frame more, is no mismatch of a marked file and its sound


def understand(
    files: Mapping[Part, Path], scripts: Sequence[Script], max_seconds: float, time_limit_s: int
) -> tuple[bytes | None, Warnings]:
    """Return the actor's voice (`Voice.to_bytes`), None when there is nothing of it, and what was left out and why.

    What somebody marked goes before what was found in the sound. Past the time limit SIGALRM ends the process.
    """
    signal.alarm(time_limit_s)
    try:
        warnings: Warnings = []
        voice = _understood(files, scripts, max_seconds, warnings)
    finally:
        signal.alarm(0)
    return (voice.to_bytes() if voice.duration_s else None), warnings


def _understood(files: Mapping[Part, Path], scripts: Sequence[Script], max_seconds: float, warnings: Warnings) -> Voice:
    voice, end_s = Voice(duration_s=0.0), max_seconds
    if "reference" in files:
        with _excused("reference", warnings):
            voice, found = listen(files["reference"], scripts, max_seconds)
            end_s = voice.duration_s + _SLACK_S
            warnings += [{"code": f"reference_{one['code']}", "text": f"The reference: {one['text']}"} for one in found]
    if "textgrid" in files:
        with _excused("textgrid", warnings):
            voice = voice.with_words(*textgrid.read(files["textgrid"], end_s))
    if "pitch" in files:
        with _excused("pitch", warnings):
            voice = voice.with_pitch(*pitch_file.read(files["pitch"], end_s))
    return voice


@contextmanager
def _excused(part: Part, warnings: Warnings) -> Iterator[None]:
    """Turn the trouble with one part into a warning."""
    try:
        yield
    except (AnalysisError, UnusableFileError) as error:
        fault = error.code if isinstance(error, AnalysisError) else error.fault
        warnings.append(left_out(part, fault, error.sentence))
