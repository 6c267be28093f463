"""WAVs of plain numbers are read without FFmpeg, and FFmpeg would have found the same."""

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest

from contracts.failures import FailureCode
from decoding import inspecting
from decoding.errors import RejectedError
from decoding.inspecting import inspect
from decoding.pcm import plain_wav

RATE = 16000
KINDS = [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)]
"""Every format, 1 for integers and 3 for floating-point numbers, with its bits."""
GUID_REST = bytes.fromhex("000000001000800000aa00389b71")


def numbers(kind: int, bits: int, channels: int, frames: int) -> bytes:
    """Return a tone that grows louder, and is half as loud in the second channel."""
    at = np.arange(frames)
    tone = np.sin(at / 7) * (0.1 + 0.8 * at / frames)
    sound = np.stack([tone / (1 + number % 2) for number in range(channels)], axis=1)
    if kind == 3:
        return sound.astype(f"<f{bits // 8}").tobytes()
    whole = np.rint(sound * (2 ** (bits - 1) - 1)).astype("<i8")
    if bits == 8:
        return bytes((whole + 128).astype("u1").tobytes())
    return bytes(whole.view("u1").reshape(-1, 8)[:, : bits // 8].tobytes())


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def form(kind: int, bits: int, channels: int, *, extensible: bool = False, frame_bytes: int | None = None) -> bytes:
    frame = channels * bits // 8 if frame_bytes is None else frame_bytes
    plain = struct.pack("<HHIIHH", 0xFFFE if extensible else kind, channels, RATE, RATE * frame, frame, bits)
    return plain + (struct.pack("<HHIH", 22, bits, 0, kind) + GUID_REST if extensible else b"")


def riff(*parts: bytes) -> bytes:
    content = b"WAVE" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def written(folder: Path, content: bytes) -> Path:
    path = folder / "a.wav"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "channels", "extensible"), list(itertools.product(KINDS, [1, 2, 6, 8], [False, True])), ids=str
)
def test_it_is_measured_as_ffmpeg_would_measure_it(
    kind: tuple[int, int], channels: int, extensible: bool, tmp_path: Path
) -> None:
    content = riff(
        chunk(b"LIST", b"INFOabc"),
        chunk(b"fmt ", form(*kind, channels, extensible=extensible)),
        chunk(b"data", numbers(*kind, channels, 5 * RATE + 7)),
        chunk(b"LIST", b"INFO"),
    )
    path = written(tmp_path, content)
    assert plain_wav(path) is not None
    plain, by_ffmpeg = inspect(path, 60), inspecting.decoded(path, 60)
    assert plain.waveform == pytest.approx(by_ffmpeg.waveform, abs=3)
    assert plain.model_copy(update={"waveform": []}) == by_ffmpeg.model_copy(update={"waveform": []})
    assert plain.duration_seconds == 5 + 7 / RATE


def test_a_long_one_is_measured_as_in_one_piece(tmp_path: Path) -> None:
    path = written(tmp_path, riff(chunk(b"fmt ", form(3, 64, 2)), chunk(b"data", numbers(3, 64, 2, 40 * RATE))))
    wav = plain_wav(path)
    assert wav is not None
    assert len(list(wav.blocks())) > 3
    assert inspect(path, 60).waveform == pytest.approx(inspecting.decoded(path, 60).waveform, abs=3)


@pytest.mark.parametrize(
    "content",
    [
        riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"data", bytes(64), 0)),
        riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"data", bytes(64), 0xFFFFFFFF)),
        riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"data", bytes(64)), chunk(b"data", bytes(64))),
        riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"fmt ", form(1, 8, 1)), chunk(b"data", bytes(64))),
        riff(chunk(b"data", bytes(64)), chunk(b"fmt ", form(1, 16, 1))),
        riff(chunk(b"fmt ", form(1, 16, 1, frame_bytes=4)), chunk(b"data", bytes(64))),
        riff(chunk(b"fmt ", form(1, 12, 1)), chunk(b"data", bytes(64))),
        riff(chunk(b"fmt ", form(7, 8, 1)), chunk(b"data", bytes(64))),
        riff(chunk(b"fmt ", form(1, 16, 0)), chunk(b"data", bytes(64))),
        riff(chunk(b"fmt ", form(1, 16, 1)[:12]), chunk(b"data", bytes(64))),
        riff(chunk(b"fmt ", form(1, 16, 1))),
        b"RIFX" + riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"data", bytes(64)))[4:],
        b"RIFF",
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_ffmpeg(content: bytes, tmp_path: Path) -> None:
    assert plain_wav(written(tmp_path, content)) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"data", bytes(2 * RATE), 2 * RATE + 46)), "audio_truncated"),
        (riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"data", b"", 44)), "audio_empty"),
        (riff(chunk(b"fmt ", form(1, 16, 1)), chunk(b"data", bytes(2 * 61 * RATE))), "audio_too_long"),
        (riff(chunk(b"fmt ", form(1, 16, 9)), chunk(b"data", bytes(18))), "audio_too_complex"),
    ],
)
def test_it_is_refused_as_any_other(content: bytes, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    assert plain_wav(path) is not None
    with pytest.raises(RejectedError) as told:
        inspect(path, 60)
    assert told.value.reason == FailureCode(reason)
