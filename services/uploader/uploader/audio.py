"""Decodes every frame of a recording with FFmpeg (PyAV), and measures it."""

import asyncio
import os
import struct
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from numpy.typing import NDArray

from contracts.events import AudioInfo
from contracts.failures import FailureCode
from uploader.errors import RejectedError

CONTAINERS = ("wav", "w64", "aiff", "caf", "flac", "mp3", "aac", "ogg", "mov", "matroska")
"""FFmpeg demuxers that may read a recording. None follows addresses in the file, as playlists and concatenations do."""
WAVEFORM_POINTS = 200
PEAKS_PER_SECOND = 100
MISSING_SECONDS = 0.1
"""How much shorter than its header says a recording may be: encoders pad and trim by up to two frames."""
UNKNOWN_WAV_BYTES = 0x7FFF0000
"""A data chunk whose size is at least this, or 0, was written by a program that did not know the length."""
_MAGIC = (b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3")


class AudioProbe:
    """Decodes on its own threads, one for each processor; FFmpeg releases the interpreter lock while it decodes."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        """Decode all of `content` and return what was measured; RejectedError when it cannot be used."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, inspect, content, self._max_seconds)

    def close(self) -> None:
        """Let the threads end after their current work; queued work is cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def inspect(content: IO[bytes], max_seconds: float) -> AudioInfo:
    """Decode every frame of `content` and measure it; RejectedError says why it cannot be used."""
    head = content.read(12)
    if not head:
        raise RejectedError(FailureCode.AUDIO_EMPTY)
    is_wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
    if is_wav and _wav_is_cut(content):
        raise RejectedError(FailureCode.AUDIO_TRUNCATED)
    content.seek(0)
    # A WAV header says everything: FFmpeg's probing would cost more than decoding a short recording.
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": ""}
    if is_wav:
        options |= {"probesize": "8192", "analyzeduration": "0"}
    try:
        with av.open(
            content, mode="r", format="wav" if is_wav else None, options=options, metadata_errors="replace"
        ) as container:
            return _decode(container, max_seconds)
    except av.error.FFmpegError as error:
        # The first bytes belong to a known format, so the rest is missing: the index of an M4A, for one, is at its end.
        known = is_wav or head.startswith(_MAGIC) or head[4:8] == b"ftyp"
        raise RejectedError(FailureCode.AUDIO_TRUNCATED if known else FailureCode.NOT_AUDIO) from error


def _decode(container: InputContainer, max_seconds: float) -> AudioInfo:
    if not container.streams.audio:
        raise RejectedError(FailureCode.NOT_AUDIO)
    stream = container.streams.audio[0]
    # A container may name a format for which FFmpeg has no decoder.
    rate = stream.codec_context.sample_rate if stream.codec_context else 0
    if not rate:
        raise RejectedError(FailureCode.NOT_AUDIO)
    envelope = _Envelope(block=max(1, rate // PEAKS_PER_SECOND))
    for frame in container.decode(stream):
        envelope.add(frame)
        if envelope.samples > max_seconds * rate:
            raise RejectedError(FailureCode.AUDIO_TOO_LONG)
    if not envelope.samples:
        raise RejectedError(FailureCode.AUDIO_EMPTY)
    seconds = envelope.samples / rate
    declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if seconds < declared - MISSING_SECONDS:
        raise RejectedError(FailureCode.AUDIO_TRUNCATED)
    return AudioInfo(
        duration_seconds=seconds,
        sample_rate=rate,
        channels=stream.codec_context.channels,
        codec=stream.codec_context.name,
        container=container.format.name.split(",")[0],
        waveform=envelope.points(),
    )


class _Envelope:
    """Peaks of short blocks of samples, gathered before the length is known."""

    def __init__(self, block: int) -> None:
        self._block = block
        # Two growing buffers: an array for each frame would lie between the blocks that decoding frees, and would keep
        # all that memory from being returned.
        self._peaks = array("f")
        self._starts = array("q")
        self.samples = 0

    def add(self, frame: AudioFrame) -> None:
        """Take in one decoded frame."""
        if not frame.samples:
            return
        starts = np.arange(0, frame.samples, self._block, dtype=np.int64)
        self._peaks.frombytes(np.maximum.reduceat(_loudest_channel(frame), starts).tobytes())
        self._starts.frombytes((starts + self.samples).tobytes())
        self.samples += frame.samples

    def points(self) -> list[int]:
        """Return the peaks of up to 200 equal stretches, 255 for full scale."""
        peaks = np.frombuffer(self._peaks, dtype=np.float32)
        starts = np.frombuffer(self._starts, dtype=np.int64)
        # A frame's last block is often short. Every stretch must be long enough for a block to begin in it.
        count = min(WAVEFORM_POINTS, max(1, self.samples // self._block))
        highest = np.zeros(count, dtype=np.float32)
        np.maximum.at(highest, starts * count // self.samples, peaks)
        scaled: list[int] = np.rint(np.clip(highest, 0, 1) * 255).astype(int).tolist()
        return scaled


def _loudest_channel(frame: AudioFrame) -> NDArray[np.float32]:
    """Return |amplitude| per sample over all channels, 1.0 for full scale."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    # A damaged float recording may hold NaN and infinity.
    levels: NDArray[np.float32] = np.asarray(np.nan_to_num(samples), dtype=np.float32)
    if samples.dtype == np.uint8:
        levels -= 128
        levels /= 128
    elif np.issubdtype(samples.dtype, np.integer):
        levels /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    loudest: NDArray[np.float32] = np.abs(levels).max(axis=0)
    return loudest


def _wav_is_cut(content: IO[bytes]) -> bool:
    """Tell whether the data chunk is longer than the file; FFmpeg would silently decode what there is.

    The chunks follow "Multimedia Programming Interface and Data Specifications 1.0", RIFF.
    """
    end = content.seek(0, os.SEEK_END)
    position = 12
    while position + 8 <= end:
        content.seek(position)
        name, size = struct.unpack("<4sI", content.read(8))
        if name == b"data":
            return bool(0 < size < UNKNOWN_WAV_BYTES and position + 8 + size > end)
        position += 8 + size + size % 2
    return False
