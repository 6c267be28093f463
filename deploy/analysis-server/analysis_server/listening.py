"""Hearing one voice: a recording's file in, all that can be known of it out."""

from collections.abc import Sequence
from pathlib import Path

from analysis_server import measures
from analysis_server.audio import AudioFile
from analysis_server.job import Script
from analysis_server.voice import Voice

Warnings = list[dict[str, str]]


def listen(path: Path, scripts: Sequence[Script], max_seconds: float) -> tuple[Voice, Warnings]:
    """Return what is heard in the recording at `path`, and warnings (code, text) of what could not be; a worker's task.

    Raises AnalysisError for what is no usable recording.
    """
    del scripts  # the alignment comes next
    recording = AudioFile(path, max_seconds)
    tracks = measures.track(recording.blocks())
    return Voice(recording.duration_s, pitch_hz=tracks.pitch_hz, level_db=tracks.intensity_db), []
