"""Recordings for tests and measurements: exact-size WAVs, spoken text in every accepted format, broken ones."""

import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import av
import numpy as np

Format = Literal["wav", "wav-unknown-length", "wav-zero-length", "flac", "mp3", "ogg", "m4a", "m4a-faststart", "webm"]

HEADER_BYTES = 44
UNKNOWN_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class Encoding:
    """How PyAV makes one format, and what a client calls such a file."""

    container: str
    codec: str
    extension: str
    mime_type: str
    rate: int
    seekable: bool = True
    options: tuple[tuple[str, str], ...] = ()


ENCODINGS: dict[Format, Encoding] = {
    "flac": Encoding("flac", "flac", "flac", "audio/flac", 22050),
    "mp3": Encoding("mp3", "libmp3lame", "mp3", "audio/mpeg", 22050),
    "ogg": Encoding("ogg", "libopus", "ogg", "audio/ogg", 48000),
    "m4a": Encoding("ipod", "aac", "m4a", "audio/mp4", 44100),
    "m4a-faststart": Encoding("ipod", "aac", "m4a", "audio/mp4", 44100, options=(("movflags", "+faststart"),)),
    # A browser's MediaRecorder cannot go back to write the duration either.
    "webm": Encoding("webm", "libopus", "webm", "audio/webm", 48000, seekable=False),
}
_SPEECH_LENGTH_FIELD: dict[Format, int | None] = {
    "wav": None,
    "wav-unknown-length": UNKNOWN_LENGTH,
    "wav-zero-length": 0,
}
FORMATS: tuple[Format, ...] = (*_SPEECH_LENGTH_FIELD, *ENCODINGS)


def wav(seconds: float, seed: int, *, rate: int = 16000) -> bytes:
    """A mono 16-bit WAV of this length: a tone under noise that only this seed has."""
    return wav_of_size(HEADER_BYTES + 2 * round(seconds * rate), seed, rate=rate)


def wav_of_size(size_bytes: int, seed: int, *, rate: int = 16000) -> bytes:
    """A mono 16-bit WAV of exactly so many bytes (an even number from 46), different for each seed."""
    samples = (size_bytes - HEADER_BYTES) // 2
    noise = np.random.default_rng(seed).integers(-2000, 2000, samples, dtype=np.int16)
    sound = noise + _tone(samples, rate)
    return b"".join((wav_header(2 * samples, rate=rate), sound.astype("<i2").tobytes()))


def wav_blocks(size_bytes: int, seed: int, *, rate: int = 48000, channels: int = 2) -> Iterator[bytes]:
    """A WAV of exactly so many bytes as blocks of at most 256 KiB, for uploads too large for memory.

    Blocks differ from one another and from those of other seeds, and cost next to nothing to make.
    """
    yield wav_header(size_bytes - HEADER_BYTES, rate=rate, channels=channels)
    noise = np.random.default_rng(seed).bytes(256 * 1024 - 8)
    left, number = size_bytes - HEADER_BYTES, 0
    while left > 0:
        block = struct.pack("<Q", number) + noise
        yield block[:left]
        left -= len(block)
        number += 1


def browser_recording(seed: int, seconds: float = 10.0, *, rate: int = 48000) -> bytes:
    """WebM with Opus, as a browser's MediaRecorder writes it: forwards only, so without its duration."""
    samples = round(seconds * rate)
    noise = np.random.default_rng(seed).integers(-2000, 2000, samples, dtype=np.int16)
    return _encoded(noise + _tone(samples, rate), rate, ENCODINGS["webm"])


def wav_header(data_bytes: int, *, rate: int, channels: int = 1, length_field: int | None = None) -> bytes:
    """The 44 bytes before 16-bit PCM samples (RIFF, after Microsoft's Multimedia Programming Interface 1.0).

    A `length_field` is written in place of the true length, as programs do that write to a pipe.
    """
    written = data_bytes if length_field is None else length_field
    riff = min(written + HEADER_BYTES - 8, UNKNOWN_LENGTH) if written else 0
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", written)


@cache
def speech(text: str, form: Format = "wav", *, voice: str = "en") -> bytes:
    """This text spoken by espeak-ng, as a whole file of the format; made once, then kept.

    Raises FileNotFoundError when espeak-ng is not installed.
    """
    samples, rate = _spoken(text, voice)
    if form in _SPEECH_LENGTH_FIELD:
        header = wav_header(samples.nbytes, rate=rate, length_field=_SPEECH_LENGTH_FIELD[form])
        return header + samples.astype("<i2").tobytes()
    return _encoded(samples, rate, ENCODINGS[form])


def file_name(form: Format) -> str:
    """What a client would call a recording of this format."""
    return f"recording.{ENCODINGS[form].extension if form in ENCODINGS else 'wav'}"


def truncated(recording: bytes, keep: float = 0.5) -> bytes:
    """The first part of a recording, as a broken transfer leaves it."""
    return recording[: int(len(recording) * keep)]


@cache
def _tone(samples: int, rate: int) -> np.ndarray:
    sound: np.ndarray = np.rint(8000 * np.sin(2 * np.pi * 220 * np.arange(samples) / rate)).astype(np.int16)
    return sound


@cache
def _spoken(text: str, voice: str) -> tuple[np.ndarray, int]:
    done = subprocess.run(["espeak-ng", "-v", voice, "--stdout", text], check=True, capture_output=True)
    # The lengths in a piped header are placeholders: only the rate is to be believed.
    (rate,) = struct.unpack_from("<I", done.stdout, 24)
    return np.frombuffer(done.stdout[HEADER_BYTES:], dtype="<i2"), rate


class _Pipe:
    """A file that can only be written forwards, as a network stream is."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, chunk: bytes) -> int:
        self.content += chunk
        return len(chunk)


def _encoded(samples: np.ndarray, rate: int, encoding: Encoding) -> bytes:
    if not encoding.seekable:
        pipe = _Pipe()
        _encode(samples, rate, encoding, pipe)
        return bytes(pipe.content)
    with tempfile.TemporaryDirectory() as folder:  # a faststart file is opened again to move its index
        path = Path(folder) / "recording"
        _encode(samples, rate, encoding, str(path))
        return path.read_bytes()


def _encode(samples: np.ndarray, rate: int, encoding: Encoding, target: _Pipe | str) -> None:
    with av.open(target, "w", format=encoding.container, options=dict(encoding.options)) as container:
        stream = container.add_stream(encoding.codec, rate=encoding.rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, "mono", encoding.rate, stream.frame_size or None)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
