"""Judges a recording: decodes all of it, measures it, and says why it cannot be used if it cannot."""

from os import PathLike

from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding.envelope import Envelope
from decoding.errors import RejectedError
from decoding.promises import missing
from decoding.reading import Reading

MAX_DAMAGE = 0.1
"""The share of a recording that may be lost: what lacks more is not what was recorded."""


def inspect(path: str | PathLike[str], max_seconds: float) -> AudioInfo:
    """Decode every frame of the file and measure it; RejectedError says why it cannot be used.

    MemoryError when it needs more memory than this process may use.
    """
    reading, envelope = Reading(path, max_seconds), Envelope()
    for frame in reading.frames():
        envelope.add(frame)
    damaged_packets = check_whole(reading)
    assert reading.facts is not None  # noqa: S101 - the reading has ended
    return AudioInfo(
        duration_seconds=reading.seconds,
        sample_rate=reading.sample_rate,
        channels=reading.channels,
        codec=reading.facts.codec,
        container=reading.facts.container,
        waveform=envelope.points(),
        damaged_packets=damaged_packets,
    )


def check_whole(reading: Reading) -> int:
    """Return how many packets of what was read are lost; RejectedError when too many are, or the end is."""
    lacks = missing(reading)
    if lacks.is_cut:
        raise RejectedError(FailureCode.AUDIO_TRUNCATED)
    if lacks.share + reading.damage.share > MAX_DAMAGE:
        raise RejectedError(FailureCode.AUDIO_DAMAGED)
    if not reading.samples:
        raise RejectedError(FailureCode.AUDIO_EMPTY)
    return reading.damage.packets + lacks.packets
