"""Turns a reference's files into what is known of the actor's voice. Runs in a worker process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from analysis_server import matching, pitch_file, script_words, textgrid
from analysis_server.comparison import MIN_PITCH_FRAMES
from analysis_server.errors import AnalysisError, UnusableFileError
from analysis_server.job import Part, Script
from analysis_server.listening import listen
from analysis_server.omissions import Warnings, left_out, warning
from analysis_server.voice import Spoken, Voice

_SLACK_S = 0.5  # a codec's padding or one frame more does not mean that a marked file belongs to another sound


def understand(
    files: Mapping[Part, Path], scripts: Sequence[Script], max_seconds: float
) -> tuple[bytes | None, Warnings]:
    """Return the actor's voice (`Voice.to_bytes`), None if nothing is known of it, and warnings of what was left out.

    What somebody marked takes precedence over what was found in the sound.
    """
    warnings: Warnings = []
    voice = _understood(files, scripts, max_seconds, warnings)
    return (voice.to_bytes() if voice.duration_s else None), warnings


def _understood(files: Mapping[Part, Path], scripts: Sequence[Script], max_seconds: float, warnings: Warnings) -> Voice:
    voice, end_s = Voice(duration_s=0.0), max_seconds
    if "reference" in files:
        with _excused("reference", warnings):
            voice, found = listen(files["reference"], scripts, max_seconds)
            end_s = voice.duration_s + _SLACK_S
            warnings += [warning(f"reference_{one['code']}", f"The reference: {one['text']}") for one in found]
    if "textgrid" in files:
        with _excused("textgrid", warnings):
            told = {form for script in scripts for form in script_words.spoken_forms(script.script)}
            words, phones = textgrid.read(files["textgrid"], end_s, told)
            _check_of_scripts(words, scripts)
            voice = voice.with_words(words, phones)
    if "pitch" in files:
        with _excused("pitch", warnings):
            pitched = voice.with_pitch(*pitch_file.read(files["pitch"], end_s))
            _check_dense(pitched)
            voice = pitched
    return voice


def _check_of_scripts(words: Sequence[Spoken], scripts: Sequence[Script]) -> None:
    """Refuse marks of another text: they would replace what was heard."""
    told = [word for script in scripts for word in script_words.split(script.script)]
    if told and matching.is_too_repetitive(words, told):
        raise UnusableFileError("malformed", "It has the same words too often.")
    if told and not matching.placed(words, told):
        raise UnusableFileError("not_of_scripts", "None of its words is in the scripts.")


def _check_dense(voice: Voice) -> None:
    """Refuse a pitch with too few values to compare with: the pitch that was heard is better."""
    if voice.pitch_hz is None or np.count_nonzero(~np.isnan(voice.pitch_hz)) < MIN_PITCH_FRAMES:
        raise UnusableFileError("too_sparse", "It has under 0.1 s of pitch, each value counting for 20 ms around it.")


@contextmanager
def _excused(part: Part, warnings: Warnings) -> Iterator[None]:
    """Turn an error of one part into a warning."""
    try:
        yield
    except (AnalysisError, UnusableFileError) as error:
        fault = error.code if isinstance(error, AnalysisError) else error.fault
        warnings.append(left_out(part, fault, error.sentence))
