"""Decoding and loudness, on every format that a recording may come in, and on what is none."""

import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from analysis_server.audio import SAMPLE_RATE, AudioFile
from analysis_server.errors import AnalysisError
from tests.support.recordings import FORMATS, Format, speech, truncated

SENTENCE = "The quick brown fox jumps over the lazy dog."


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "recording"
    path.write_bytes(content)
    return path


def pcm_wav(path: Path, samples: np.ndarray, rate: int = 48_000) -> Path:
    """Write float samples of shape (time, channels) as a 16-bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return path


def sine(hz: float, seconds: float, dbfs: float, channels: int, rate: int = 48_000) -> np.ndarray:
    wave_form = 10 ** (dbfs / 20) * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave_form[:, None], channels)


def decoded(path: Path, max_seconds: float = 3600) -> tuple[AudioFile, np.ndarray]:
    recording = AudioFile(path, max_seconds)
    return recording, np.concatenate([np.empty(0, np.float32), *recording.blocks()])


def failure(path: Path, max_seconds: float = 3600) -> str:
    with pytest.raises(AnalysisError) as failed:
        decoded(path, max_seconds)
    assert failed.value.sentence.endswith(".")
    return failed.value.code


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_decodes_to_the_same_length_and_loudness(form: Format, tmp_path: Path) -> None:
    reference, _ = decoded(stored(tmp_path, speech(SENTENCE)))
    recording, samples = decoded(stored(tmp_path, speech(SENTENCE, form)))
    assert recording.duration_s == pytest.approx(reference.duration_s, abs=0.1)
    assert len(samples) / SAMPLE_RATE == pytest.approx(recording.duration_s, abs=0.01)
    assert recording.loudness_lufs == pytest.approx(reference.loudness_lufs, abs=0.5)


def test_a_stereo_sine_at_minus_23_dbfs_measures_minus_23_lufs_as_ebu_tech_3341_case_1_demands(tmp_path: Path) -> None:
    recording, _ = decoded(pcm_wav(tmp_path / "a.wav", sine(1000, 20, -23, channels=2)))
    assert recording.loudness_lufs == pytest.approx(-23, abs=0.1)


def test_the_same_sine_in_one_channel_is_3_lu_softer(tmp_path: Path) -> None:
    recording, samples = decoded(pcm_wav(tmp_path / "a.wav", sine(1000, 5, -23, channels=1)))
    assert recording.loudness_lufs == pytest.approx(-26, abs=0.1)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(10 ** (-23 / 20), rel=0.02)


@pytest.mark.parametrize("channels", [3, 6, 8])
def test_more_than_two_channels_are_mixed_down(channels: int, tmp_path: Path) -> None:
    recording, samples = decoded(pcm_wav(tmp_path / "a.wav", sine(1000, 2, -20, channels)))
    assert recording.duration_s == pytest.approx(2)
    assert len(samples) == 2 * SAMPLE_RATE
    assert recording.loudness_lufs is not None


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 192_000])
def test_any_sample_rate_is_brought_to_ours(rate: int, tmp_path: Path) -> None:
    recording, samples = decoded(pcm_wav(tmp_path / "a.wav", sine(500, 2, -20, 1, rate), rate))
    assert recording.duration_s == pytest.approx(2)
    assert len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=32)


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.3])
def test_less_than_one_gating_block_has_no_loudness(seconds: float, tmp_path: Path) -> None:
    recording, _ = decoded(pcm_wav(tmp_path / "a.wav", sine(1000, seconds, -20, 1)))
    assert recording.loudness_lufs is None


def test_silence_has_no_loudness(tmp_path: Path) -> None:
    recording, _ = decoded(pcm_wav(tmp_path / "a.wav", np.zeros((48_000 * 2, 1))))
    assert recording.loudness_lufs is None


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 48_000])
def test_floats_that_are_no_numbers_do_not_spread(rate: int, tmp_path: Path) -> None:
    samples = np.full((1, 48_000), 0.1, np.float32)
    samples[0, 1000:1010] = [np.nan, np.inf, -np.inf, 1e38, -1e38, np.nan, np.nan, 0, 0, 0]
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
    _, found = decoded(path)
    assert np.isfinite(found).all()
    assert np.abs(found[: SAMPLE_RATE // 100]).max() <= 0.11


@pytest.mark.parametrize(
    "content",
    [b"\0" * 5000, b"this is a text, not a recording\n" * 100, b"RIFF", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"],
    ids=["zeros", "text", "a bare RIFF", "a playlist of local files"],
)
def test_what_is_not_audio_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    assert failure(stored(tmp_path, content)) == "not_audio"


def test_a_playlist_of_a_real_recording_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real.wav").write_bytes(speech(SENTENCE))
    listed = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\nreal.wav\n#EXT-X-ENDLIST\n"
    assert failure(stored(tmp_path, listed.encode())) == "not_audio"
    assert failure(stored(tmp_path, b"ffconcat version 1.0\nfile real.wav\n")) == "not_audio"


def test_a_picture_is_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((24, 16), np.uint8), format="yuv420p")))
        container.mux(stream.encode(None))
    assert failure(path) == "not_audio"


def test_a_file_without_samples_is_empty(tmp_path: Path) -> None:
    assert failure(stored(tmp_path, b"")) == "audio_empty"
    assert failure(pcm_wav(tmp_path / "a.wav", np.empty((0, 1)))) == "audio_empty"


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "m4a", "m4a-faststart"])
def test_a_recording_cut_in_the_middle_is_not_analysed(form: Format, tmp_path: Path) -> None:
    assert failure(stored(tmp_path, truncated(speech(SENTENCE, form)))) == "audio_truncated"


def test_a_few_packets_that_cannot_be_decoded_are_left_out_and_counted(tmp_path: Path) -> None:
    content = bytearray(speech(SENTENCE, "m4a-faststart"))
    middle = content.index(b"mdat") + len(content) // 3
    content[middle : middle + 60] = b"\x5a" * 60
    recording, samples = decoded(stored(tmp_path, bytes(content)))
    assert 1 <= recording.damaged_packets <= 4
    assert len(samples) / SAMPLE_RATE == pytest.approx(recording.duration_s, abs=0.01)


def test_a_tag_in_an_old_korean_encoding_does_no_harm(tmp_path: Path) -> None:
    title = "소리".encode("euc-kr")
    info = b"INFO" + struct.pack("<4sI", b"INAM", len(title)) + title
    wav = speech(SENTENCE)
    tagged = wav[:36] + struct.pack("<4sI", b"LIST", len(info)) + info + wav[36:]
    assert decoded(stored(tmp_path, tagged))[0].duration_s > 2


def test_a_recording_over_the_limit_is_refused_without_decoding_the_rest(tmp_path: Path) -> None:
    path = pcm_wav(tmp_path / "a.wav", np.zeros((48_000 * 30, 1)))
    recording = AudioFile(path, 5)
    with pytest.raises(AnalysisError, match="audio_too_long"):
        list(recording.blocks())
    assert recording.duration_s < 7
