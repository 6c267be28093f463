"""Judges a recording: decodes all of it, measures it, and says why it cannot be used if it cannot."""

from os import PathLike
from pathlib import Path

from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding import bounds
from decoding.envelope import Envelope
from decoding.errors import RejectedError
from decoding.pcm import PlainWav, plain_wav
from decoding.promises import missing
from decoding.reading import Reading

MAX_DAMAGE = 0.1
"""The share of a recording that may be lost: what lacks more is not what was recorded."""


def inspect(path: str | PathLike[str], max_seconds: float) -> AudioInfo:
    """Decode every frame of the file and measure it; RejectedError says why it cannot be used.

    MemoryError when it needs more memory than this process may use.
    """
    wav = plain_wav(Path(path))
    return decoded(path, max_seconds) if wav is None else _measured(wav, max_seconds)


def check_whole(reading: Reading) -> int:
    """Return how many packets of what was read are lost; RejectedError when too many are, or the end is."""
    lacks = missing(reading)
    if lacks.is_cut:
        raise RejectedError(FailureCode.AUDIO_TRUNCATED)
    packets, share = lacks.damage
    # One packet is no reason to refuse a recording of few packets, as long as there is anything else.
    if share > MAX_DAMAGE and (packets > 1 or not reading.samples):
        raise RejectedError(FailureCode.AUDIO_DAMAGED)
    if not reading.samples:
        raise RejectedError(FailureCode.AUDIO_EMPTY)
    return packets


def _measured(wav: PlainWav, max_seconds: float) -> AudioInfo:
    bounds.check_format(wav.form.sample_rate, wav.form.channels)
    bounds.check_length(wav.seconds, max_seconds)
    if wav.is_cut:
        raise RejectedError(FailureCode.AUDIO_TRUNCATED)
    if not wav.frames:
        raise RejectedError(FailureCode.AUDIO_EMPTY)
    envelope = Envelope()
    for block in wav.blocks():
        envelope.add(block, wav.form.sample_rate)
    return AudioInfo(
        duration_seconds=wav.seconds,
        sample_rate=wav.form.sample_rate,
        channels=wav.form.channels,
        codec=wav.form.codec,
        container="wav",
        waveform=envelope.points(),
    )


def decoded(path: str | PathLike[str], max_seconds: float) -> AudioInfo:
    """Do the same with FFmpeg alone."""
    reading, envelope = Reading(path, max_seconds), Envelope()
    for frame in reading.frames():
        envelope.add_frame(frame)
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
