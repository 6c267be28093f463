"""Decoding recordings, every frame: what is accepted, what is measured in it, and why the rest is refused."""

import io
import socket
import struct
import tempfile
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding.errors import RejectedError
from decoding.inspecting import inspect
from tests.support import recordings
from tests.support.recordings import FORMATS, Format, speech, truncated, wav

TEXT = "The quick brown fox jumps over the lazy dog near the river bank"
MAX_SECONDS = 60.0
RATE = 16000
TONE: NDArray[np.float64] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
PCM, FLOAT, A_LAW, UNKNOWN_TAG = 1, 3, 6, 0x9999


def inspected(content: bytes, max_seconds: float = MAX_SECONDS) -> AudioInfo:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return inspect(file.name, max_seconds)


def refusal(content: bytes, max_seconds: float = MAX_SECONDS) -> FailureCode:
    with pytest.raises(RejectedError) as refused:
        inspected(content, max_seconds)
    return refused.value.reason


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


def wav_of(
    samples: bytes, *, tag: int = PCM, channels: int = 1, rate: int = RATE, bits: int = 16, before: bytes = b""
) -> bytes:
    """A WAV of these samples, with other chunks before them."""
    block = channels * bits // 8
    form = chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits))
    content = b"WAVE" + form + before + chunk(b"data", samples)
    return chunk(b"RIFF", content)


def s16(samples: NDArray[np.float64]) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def s24(samples: NDArray[np.float64]) -> bytes:
    wide = (samples * (2**23 - 1)).astype("<i4")
    return wide.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


@pytest.mark.parametrize("form", FORMATS)
def test_speech_is_accepted_in_every_format(form: Format) -> None:
    found, original = inspected(speech(TEXT, form)), inspected(speech(TEXT))
    assert found.duration_seconds == pytest.approx(original.duration_seconds, abs=0.1)
    assert found.duration_seconds > 2
    assert found.channels == 1
    assert len(found.waveform) == 200
    assert max(found.waveform) > 50


@pytest.mark.parametrize(
    ("form", "container", "codec"),
    [
        ("wav", "wav", "pcm_s16le"),
        ("flac", "flac", "flac"),
        ("mp3", "mp3", "mp3"),
        ("ogg", "ogg", "opus"),
        ("m4a", "mov", "aac"),
        ("webm", "matroska", "opus"),
    ],
)
def test_container_and_codec_are_recorded(form: Format, container: str, codec: str) -> None:
    found = inspected(speech(TEXT, form))
    assert found.container == container
    assert found.codec.startswith(codec)
    assert found.sample_rate == (recordings.ENCODINGS[form].rate if form != "wav" else 22050)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "m4a", "m4a-faststart"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.5, 0.9])
def test_a_recording_cut_in_the_middle_is_refused(form: Format, keep: float) -> None:
    assert refusal(truncated(speech(TEXT, form), keep)) == FailureCode.AUDIO_TRUNCATED


@pytest.mark.parametrize("form", ["wav-unknown-length", "wav-zero-length", "webm"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_recording_that_never_said_how_long_it_is_counts_as_far_as_it_goes(form: Format, keep: float) -> None:
    whole = inspected(speech(TEXT, form)).duration_seconds
    assert inspected(truncated(speech(TEXT, form), keep)).duration_seconds == pytest.approx(whole * keep, rel=0.15)


@pytest.mark.parametrize("options", ["frag_every_frame+empty_moov+default_base_moof", "frag_keyframe+empty_moov"])
def test_a_fragmented_m4a_as_safari_records_it_is_accepted(options: str, tmp_path: Path) -> None:
    found = inspected(transcoded(tmp_path, "mp4", "aac", 44100, {"movflags": options}))
    assert found.duration_seconds == pytest.approx(inspected(speech(TEXT)).duration_seconds, abs=0.1)


def test_flac_from_a_pipe_that_does_not_know_its_length_is_accepted(tmp_path: Path) -> None:
    content = bytearray(transcoded(tmp_path, "flac", "flac", 22050, {}))
    # STREAMINFO's number of samples: the low 36 bits before the MD5 (RFC 9639, section 8.2).
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    found = inspected(bytes(content))
    assert found.duration_seconds == pytest.approx(inspected(speech(TEXT)).duration_seconds, abs=0.01)


def transcoded(folder: Path, container: str, codec: str, rate: int, options: dict[str, str]) -> bytes:
    path = folder / "recording"
    with (
        av.open(io.BytesIO(speech(TEXT)), mode="r") as source,
        av.open(str(path), "w", format=container, options=options) as target,
    ):
        stream = target.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or None)
        for frame in [*source.decode(audio=0), None]:
            for piece in resampler.resample(frame):
                target.mux(stream.encode(piece))
        target.mux(stream.encode(None))
    return path.read_bytes()


SAMPLES: dict[str, tuple[bytes, str]] = {
    "8 bit unsigned": (wav_of((TONE * 127 + 128).astype(np.uint8).tobytes(), bits=8), "pcm_u8"),
    "16 bit": (wav_of(s16(TONE)), "pcm_s16le"),
    "24 bit": (wav_of(s24(TONE), bits=24), "pcm_s24le"),
    "32 bit": (wav_of((TONE * (2**31 - 1)).astype("<i4").tobytes(), bits=32), "pcm_s32le"),
    "float": (wav_of(TONE.astype("<f4").tobytes(), tag=FLOAT, bits=32), "pcm_f32le"),
    "double": (wav_of(TONE.astype("<f8").tobytes(), tag=FLOAT, bits=64), "pcm_f64le"),
    "stereo": (wav_of(s16(np.column_stack([TONE, TONE]).ravel()), channels=2), "pcm_s16le"),
    "six channels": (wav_of(s16(np.column_stack([TONE] * 6).ravel()), channels=6), "pcm_s16le"),
}


@pytest.mark.parametrize(("content", "codec"), SAMPLES.values(), ids=SAMPLES)
def test_the_same_sound_measures_the_same_in_every_kind_of_sample(content: bytes, codec: str) -> None:
    found = inspected(content)
    assert found.codec == codec
    assert found.duration_seconds == pytest.approx(1.0)
    assert found.sample_rate == RATE
    # Half of full scale, in every stretch but for rounding.
    assert found.waveform == pytest.approx([127.5] * len(found.waveform), abs=2)


def test_channels_are_counted() -> None:
    assert [inspected(SAMPLES[name][0]).channels for name in ("16 bit", "stereo", "six channels")] == [1, 2, 6]


def test_a_sound_in_one_channel_only_shows_in_the_waveform() -> None:
    left = inspected(wav_of(s16(np.column_stack([TONE, 0 * TONE]).ravel()), channels=2))
    right = inspected(wav_of(s16(np.column_stack([0 * TONE, TONE]).ravel()), channels=2))
    assert left.waveform == right.waveform == pytest.approx([127.5] * len(left.waveform), abs=2)


def test_the_waveform_follows_the_sound_through_time() -> None:
    quiet, loud = np.zeros(2 * RATE), np.resize(TONE, 2 * RATE)
    points = inspected(wav_of(s16(np.concatenate([quiet, loud, quiet, loud / 2])))).waveform
    assert len(points) == 200
    quarters = [points[begin : begin + 50] for begin in range(0, 200, 50)]
    assert [round(sum(quarter[2:-2]) / 46) for quarter in quarters] == pytest.approx([0, 127, 0, 64], abs=2)


def test_full_scale_is_255_and_silence_is_a_recording_too() -> None:
    loud = inspected(wav_of(np.full(RATE, -32768, dtype="<i2").tobytes()))
    silent = inspected(wav_of(bytes(2 * RATE)))
    assert set(loud.waveform) == {255}
    assert set(silent.waveform) == {0}
    assert silent.duration_seconds == 1.0


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 31_999])
def test_short_recordings_have_fewer_points(samples: int) -> None:
    found = inspected(wav_of(s16(np.resize(TONE, samples))))
    assert found.duration_seconds == pytest.approx(samples / RATE)
    assert 1 <= len(found.waveform) <= 200


def test_a_float_recording_may_hold_anything() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1e38, 7.0, 0.5] * 2000, dtype="<f4")
    found = inspected(wav_of(odd.tobytes(), tag=FLOAT, bits=32))
    assert set(found.waveform) == {255}


@pytest.mark.parametrize(
    "before",
    [
        chunk(b"LIST", b"INFO" + chunk(b"INAM", b"title")),
        chunk(b"JUNK", b"odd" * 5),
        chunk(b"bext", bytes(602)) + chunk(b"fact", bytes(4)),
    ],
)
def test_other_chunks_in_a_wav_are_passed_over(before: bytes) -> None:
    content = wav_of(s16(TONE), before=before)
    assert inspected(content).duration_seconds == 1.0
    assert refusal(content[:-1000]) == FailureCode.AUDIO_TRUNCATED


@pytest.mark.parametrize("title", ["가나다라".encode("euc-kr"), "Prüfung".encode("latin-1"), b"\xff\xfe\x00", b"\x80"])
def test_tags_in_another_encoding_do_not_matter(title: bytes) -> None:
    tagged = wav_of(s16(TONE), before=chunk(b"LIST", b"INFO" + chunk(b"INAM", title)))
    assert inspected(tagged).duration_seconds == 1.0


def test_bytes_after_a_wav_are_passed_over() -> None:
    assert inspected(wav_of(s16(TONE)) + b"ID3 and so on").duration_seconds == pytest.approx(1.0, abs=0.01)


def test_a_recording_may_be_as_long_as_allowed_and_no_longer() -> None:
    assert inspected(wav(2, seed=1), max_seconds=2).duration_seconds == 2.0
    assert inspected(wav(2.4, seed=1), max_seconds=2).duration_seconds == pytest.approx(2.4)  # codecs pad
    assert refusal(wav(2.6, seed=1), max_seconds=2) == FailureCode.AUDIO_TOO_LONG


@pytest.mark.parametrize("form", ["flac", "mp3", "ogg", "m4a", "webm"])
def test_length_is_limited_in_every_format(form: Format) -> None:
    assert refusal(speech(TEXT, form), max_seconds=1) == FailureCode.AUDIO_TOO_LONG


@pytest.mark.parametrize(
    "content", [b"", wav_of(b""), truncated(speech(TEXT, "webm"), 0.01)], ids=["no bytes", "no samples", "no frames"]
)
def test_a_file_without_a_single_sample_is_empty(content: bytes) -> None:
    assert refusal(content) == FailureCode.AUDIO_EMPTY


NOT_AUDIO: dict[str, bytes] = {
    "text": b"hello world, this is no recording\n" * 100,
    "zeros": bytes(5000),
    "noise": Random(1).randbytes(5000),
    "one byte": b"R",
    "html": b"<!doctype html><html><body>404</body></html>" * 20,
    "zip": b"PK\x03\x04" + bytes(500),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "webp": chunk(b"RIFF", b"WEBPVP8 " + bytes(500)),
    "midi": b"MThd\0\0\0\6\0\0\0\1\0`MTrk\0\0\0\4\0\xff/\0",
    "srt": b"1\n00:00:01,000 --> 00:00:02,000\nhello\n" * 10,
}


@pytest.mark.parametrize("content", NOT_AUDIO.values(), ids=NOT_AUDIO)
def test_what_is_no_recording_is_not_audio(content: bytes) -> None:
    assert refusal(content) == FailureCode.NOT_AUDIO


def test_a_codec_that_nobody_knows_is_not_audio() -> None:
    assert refusal(wav_of(s16(TONE), tag=UNKNOWN_TAG)) == FailureCode.NOT_AUDIO


def test_a_format_that_is_not_on_the_list_is_not_even_tried() -> None:
    """FFmpeg knows hundreds, some of them follow addresses; Creative's VOC stands for all that nobody records in."""
    sound = struct.pack("<BB", 256 - 1_000_000 // 8000, 0) + bytes([128]) * 8000
    voc = b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x10A, 0x1129)
    voc += b"\1" + len(sound).to_bytes(3, "little") + sound + b"\0"
    assert refusal(voc) == FailureCode.NOT_AUDIO


def test_a_film_without_sound_is_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "film"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    assert refusal(path.read_bytes()) == FailureCode.NOT_AUDIO


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{address}\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\n#EXTINF:10,song\n{address}\n",
    "concatenation": "ffconcat version 1.0\nfile '{address}'\n",
    "pls": "[playlist]\nFile1={address}\nNumberOfEntries=1\nVersion=2\n",
    "asx": '<asx version="3.0"><entry><ref href="{address}"/></entry></asx>',
    "windows media": "[Reference]\r\nRef1={address}\r\n",
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=control:{address}\r\n"
    "m=audio 5004 RTP/AVP 0\r\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "smooth streaming": '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{address}"/></SmoothStreamingMedia>',
    "quicktime link": "RTSPtext\r\n{address}\r\n",
    "real media": "{address}\n--stop--\n",
    "imf": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{address}</Id>'
    "</CompositionPlaylist>",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("kind", ["http", "file"])
def test_a_file_that_only_names_others_is_not_audio_and_nobody_is_asked_for_them(
    text: str, kind: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav_of(s16(TONE)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        address = f"http://127.0.0.1:{port}/secret.wav" if kind == "http" else secret.as_uri()
        assert refusal(text.format(address=address).encode()) == FailureCode.NOT_AUDIO
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile secret.wav\n", "#EXTM3U\n#EXTINF:1,\nsecret.wav\n"])
def test_a_file_beside_the_service_cannot_be_heard_through_a_list(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.wav").write_bytes(wav_of(s16(TONE)))
    monkeypatch.chdir(tmp_path)
    assert refusal(text.encode()) == FailureCode.NOT_AUDIO


@pytest.mark.parametrize("form", FORMATS)
def test_damage_anywhere_is_either_survived_or_refused(form: Format) -> None:
    """No damage may raise anything else: such a message would be tried again and again, and the job held."""
    random, whole = Random(form), speech("hello", form)
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(random.choice([1, 3, 20])):
            place = random.randrange(random.choice([64, 512, len(content)]))
            content[place : place + random.choice([1, 4])] = random.choice([b"\xff", bytes(4), b"\xff\xff\xff\x7f"])
        try:
            found = inspected(bytes(content))
        except RejectedError:
            continue
        assert found.duration_seconds <= MAX_SECONDS
