"""Sound in every container that is taken, made with PyAV or by hand, and what goes wrong with such files."""

import io
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import av
import numpy as np
from av.audio.frame import AudioFrame

SECONDS = 6.0
RATE = 44100


class Kind(NamedTuple):
    """How one kind of file is made: FFmpeg's muxer and encoder, and what the two are told."""

    muxer: str
    encoder: str
    container: str
    rate: int = RATE
    layout: str = "mono"
    muxing: tuple[tuple[str, str], ...] = ()
    encoding: tuple[tuple[str, str], ...] = ()
    bit_rate: int | None = None


_NO_XING = (("write_xing", "0"), ("id3v2_version", "0"))
_PAGES = (("page_duration", "200000"),)
KINDS: dict[str, Kind] = {
    "adts": Kind("adts", "aac", "aac"),
    "adts 128k": Kind("adts", "aac", "aac", bit_rate=128_000),
    "mp3 vbr": Kind("mp3", "libmp3lame", "mp3", encoding=(("flags", "+qscale"), ("global_quality", "236"))),
    "mp3 cbr": Kind("mp3", "libmp3lame", "mp3", layout="stereo", bit_rate=64_000),
    "mp3 without xing": Kind("mp3", "libmp3lame", "mp3", muxing=_NO_XING, bit_rate=64_000),
    "mp3 vbr without xing": Kind(
        "mp3", "libmp3lame", "mp3", muxing=_NO_XING, encoding=(("flags", "+qscale"), ("global_quality", "236"))
    ),
    "mp3 22 kHz": Kind("mp3", "libmp3lame", "mp3", 22050, bit_rate=32_000),
    "mp3 8 kHz": Kind("mp3", "libmp3lame", "mp3", 8000, bit_rate=8_000),
    "mp3 16 kHz stereo": Kind("mp3", "libmp3lame", "mp3", 16000, "stereo"),
    "mp3 with tags": Kind("mp3", "libmp3lame", "mp3", muxing=(("write_id3v1", "1"), ("id3v2_version", "3"))),
    "flac": Kind("flac", "flac", "flac"),
    "m4a": Kind("ipod", "aac", "mov"),
    "m4a faststart": Kind("ipod", "aac", "mov", muxing=(("movflags", "+faststart"),)),
    "m4a alac": Kind("ipod", "alac", "mov"),
    "mp4 fragmented": Kind(
        "mp4", "aac", "mov", muxing=(("movflags", "frag_keyframe+empty_moov"), ("frag_duration", "500000"))
    ),
    "3gp": Kind("3gp", "aac", "mov"),
    "3gp amr": Kind("3gp", "libopencore_amrnb", "mov", 8000, bit_rate=12_200),
    "ogg opus": Kind("ogg", "libopus", "ogg", 48000, bit_rate=24_000, muxing=_PAGES),
    "ogg vorbis": Kind("ogg", "vorbis", "ogg", layout="stereo", muxing=_PAGES, encoding=(("strict", "experimental"),)),
    "ogg flac": Kind("ogg", "flac", "ogg", muxing=_PAGES),
    "webm": Kind("webm", "libopus", "matroska", 48000),
    "webm live": Kind("webm", "libopus", "matroska", 48000, muxing=(("live", "1"),)),
    "matroska flac": Kind("matroska", "flac", "matroska"),
    "wma": Kind("asf", "wmav2", "asf", bit_rate=64_000),
    "amr": Kind("amr", "libopencore_amrnb", "amr", 8000, bit_rate=12_200),
    "aiff": Kind("aiff", "pcm_s16be", "aiff"),
    "caf": Kind("caf", "pcm_s16be", "caf"),
    "caf alac": Kind("caf", "alac", "caf"),
    "au": Kind("au", "pcm_s16be", "au"),
    "w64": Kind("w64", "pcm_s16le", "w64"),
    "wav": Kind("wav", "pcm_s16le", "wav"),
    "rf64": Kind("wav", "pcm_s16le", "wav", muxing=(("rf64", "always"),)),
    "wav 24 bit extensible": Kind("wav", "pcm_s24le", "wav", 48000, "5.1"),
    "wav adpcm": Kind("wav", "adpcm_ms", "wav", 8000),
    "wav ima adpcm": Kind("wav", "adpcm_ima_wav", "wav", 8000),
    "wav mu-law": Kind("wav", "pcm_mulaw", "wav", 8000),
    "wav a-law": Kind("wav", "pcm_alaw", "wav", 8000),
}
EXACT = (
    *("mp3 vbr", "mp3 cbr", "mp3 22 kHz", "mp3 8 kHz", "mp3 16 kHz stereo", "mp3 with tags", "flac", "m4a"),
    *("m4a faststart", "m4a alac", "3gp", "3gp amr", "aiff", "caf", "caf alac", "au", "w64", "wav"),
    *("rf64", "wav 24 bit extensible", "wav adpcm", "wav ima adpcm", "wav mu-law", "wav a-law"),
)
"""The kinds that say exactly how much sound they hold, so that a file that was cut is known."""


@cache
def sound(seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """Half a second of silence, then notes that come and go over noise, as 16-bit samples."""
    times = np.arange(round(seconds * rate)) / rate
    notes = 8000 * np.sin(2 * np.pi * 220 * times) * np.sin(2 * np.pi * times) ** 2
    noise = np.random.default_rng(1).normal(0, 200, times.size)
    return np.where(times < min(0.5, seconds / 4), 0, notes + noise).astype(np.int16)


@cache
def made(name: str, seconds: float = SECONDS) -> bytes:
    """A whole file of one of the KINDS."""
    kind = KINDS[name]
    return encoded(kind, sound(seconds, kind.rate))


def encoded(kind: Kind, samples: np.ndarray) -> bytes:
    """These samples, in every channel, as a file of this kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        with av.open(str(path), "w", format=kind.muxer, options=dict(kind.muxing)) as target:
            stream = target.add_stream(kind.encoder, rate=kind.rate, layout=kind.layout, options=dict(kind.encoding))
            assert isinstance(stream, av.AudioStream)
            if kind.bit_rate:
                stream.bit_rate = kind.bit_rate
            resampler = av.AudioResampler(stream.format, kind.layout, kind.rate, stream.frame_size or 4096)
            frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate = kind.rate
            for piece in (*resampler.resample(frame), *resampler.resample(None)):
                target.mux(stream.encode(piece))
            # FLAC's last packet is nothing but a new header, which only a bare file can take.
            target.mux([packet for packet in stream.encode(None) if packet.size or kind.muxer == "flac"])
        return path.read_bytes()


def copied(
    content: bytes, muxer: str, *, begin: float = 0, end: float = 1e9, without: tuple[float, float] = (0, 0)
) -> bytes:
    """The packets between two times in a new file, as `ffmpeg -c copy` writes them; those of `without` are left out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copied"
        with av.open(io.BytesIO(content), "r") as source, av.open(str(path), "w", format=muxer) as target:
            stream = source.streams.audio[0]
            copy = target.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.pts is None or not stream.time_base:
                    continue
                seconds = packet.pts * stream.time_base
                if begin <= seconds < end and not without[0] <= seconds < without[1]:
                    packet.dts, packet.stream = packet.pts, copy
                    target.mux(packet)
        return path.read_bytes()


def gapped(name: str) -> bytes:
    """A file without its packets from 1.5 to 3 s."""
    return copied(made(name), KINDS[name].muxer, without=(1.5, 3.0))


def overwritten(content: bytes, length: int, at: float = 0.5, seed: int = 1) -> bytes:
    """The content with so many other bytes from this part of it on."""
    place = int(len(content) * at)
    return content[:place] + Random(seed).randbytes(length) + content[place + length :]


def box(name: bytes, *content: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    joined = b"".join(content)
    return struct.pack(">I4s", 8 + len(joined), name) + joined


def with_endless_table(tracks: int, samples: int, entry: bytes = b"mp4a") -> bytes:
    """An MP4 of a few hundred bytes whose tracks promise this many samples of one byte."""
    ticks = 1024 * samples & 0xFFFFFFFF
    body = b"".join(_track(number + 1, samples, entry, ticks) for number in range(tracks))
    header = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 44100, ticks), bytes(80))
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"moov", header, body) + box(b"mdat", bytes(64))


def _track(number: int, samples: int, entry: bytes, ticks: int) -> bytes:
    config = bytes([0x03, 25, 0, 0, 0, 4, 17, 0x40, 0x15]) + bytes(11) + bytes([5, 2, 0x12, 0x08, 6, 1, 2])
    description = box(
        entry, bytes(6), struct.pack(">H", 1), bytes(8), struct.pack(">HHII", 1, 16, 0, 44100 << 16),
        box(b"esds", bytes(4), config) if entry == b"mp4a" else b"",
    )  # fmt: skip
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), description),
        box(b"stts", struct.pack(">IIII", 0, 1, samples, 1024)),
        box(b"stsc", struct.pack(">IIIII", 0, 1, 1, samples, 1)),
        box(b"stsz", struct.pack(">III", 0, 1, samples)),
        box(b"stco", struct.pack(">III", 0, 1, 32)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 44100, ticks, 0x55C4, 0)),
        box(b"hdlr", bytes(8), b"soun", bytes(13)),
        box(b"minf", box(b"smhd", bytes(8)), table),
    )
    return box(b"trak", box(b"tkhd", struct.pack(">IIIII", 7, 0, 0, number, 0), bytes(64)), media)


def silent_flac(seconds: int, rate: int = 48000, channels: int = 8) -> bytes:
    """A long FLAC of next to nothing: every frame is the same few bytes, but for its number and checksums."""
    return raw_flac(seconds * rate // 65535 + 1, rate, channels)


def raw_flac(frames: int, rate: int, channels: int, block: int = 65535) -> bytes:
    """A FLAC of silent frames (RFC 9639) of one block size."""
    packed = rate << 44 | (channels - 1) << 41 | 15 << 36
    info = struct.pack(">HH", block, block) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    header = b"fLaC" + bytes([0x80, 0, 0, len(info)]) + info
    return header + b"".join(_silent_frame(number, channels, block) for number in range(frames))


def _silent_frame(number: int, channels: int, block: int) -> bytes:
    begin = b"\xff\xf8" + bytes([0x70, (channels - 1) << 4]) + _utf8(number) + struct.pack(">H", block - 1)
    begin += bytes([_crc(begin, 8, 0x07)])
    begin += bytes(3) * channels  # each channel: constant, 0
    return begin + struct.pack(">H", _crc(begin, 16, 0x8005))


def _utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(content: bytes, bits: int, polynomial: int) -> int:
    crc, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in content:
        crc ^= byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & mask
    return crc


def wav_of_empty_chunks(size_bytes: int) -> bytes:
    """A WAV that begins with nothing but empty chunks."""
    return b"RIFF" + struct.pack("<I", size_bytes) + b"WAVE" + b"JUNK\0\0\0\0" * (size_bytes // 8)


def odd_wav(rate: int, channels: int, seconds: float = 1.0) -> bytes:
    """A 16-bit WAV of silence with any numbers in its header."""
    data = bytes(min(4_000_000, int(rate * channels * 2 * seconds)))
    block = channels * 2 & 0xFFFF
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block, 16)
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", 16) + form + struct.pack("<4sI", b"data", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def ogg_of_first_pages(count: int) -> bytes:
    """An Ogg file of streams that all begin, and never go on."""
    head = b"OpusHead\1\1\0\0\x80\xbb\0\0\0\0\0"
    return b"".join(_ogg_page(2, number, head) for number in range(count))


def _ogg_page(flags: int, serial: int, content: bytes) -> bytes:
    page = struct.pack("<4sBBqIIIBB", b"OggS", 0, flags, 0, serial, 0, 0, 1, len(content)) + content
    return page[:22] + struct.pack("<I", _crc(page, 32, 0x04C11DB7)) + page[26:]


def deep_mp4(depth: int) -> bytes:
    """An MP4 of boxes in boxes."""
    content = b""
    for _ in range(depth):
        content = box(b"udta" if len(content) % 16 else b"moov", content)
        if len(content) > 4_000_000:
            break
    return box(b"ftyp", b"isom", bytes(4), b"isom") + content


def tagged(content: bytes, tag_bytes: int) -> bytes:
    """The content behind an ID3v2 tag with a picture of this size."""
    picture = b"\0image/png\0\3\0" + Random(1).randbytes(tag_bytes)
    frame = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + frame + content


HOSTILE: dict[str, Callable[[], bytes]] = {
    "endless sample table": lambda: with_endless_table(1, 85_000_000),
    "ten endless sample tables": lambda: with_endless_table(10, 85_000_000),
    "endless table of PCM": lambda: with_endless_table(1, 85_000_000, b"sowt"),
    "endless table of an unknown codec": lambda: with_endless_table(10, 85_000_000, b"apac"),
    "an hour of eight silent channels": lambda: silent_flac(3600),
    "FLAC at 655,350 Hz": lambda: silent_flac(60, 655_350, 1),
    "many tiny FLAC frames": lambda: raw_flac(60_000, 4000, 8, 16),
    "empty chunks": lambda: wav_of_empty_chunks(20_000_000),
    "nine channels": lambda: odd_wav(8000, 9),
    "65,535 channels": lambda: odd_wav(8000, 65_535, 0.01),
    "1 Hz": lambda: odd_wav(1, 1, 100),
    "2 kHz": lambda: odd_wav(2000, 1),
    "2 GHz": lambda: odd_wav(2_000_000_000, 1),
    "first pages only": lambda: ogg_of_first_pages(20_000),
    "boxes in boxes": lambda: deep_mp4(100_000),
    "a tag of 20 MB": lambda: tagged(made("mp3 cbr"), 20_000_000),
    "a tag that claims 256 MB": lambda: b"ID3\4\0\0\x7f\x7f\x7f\x7f" + made("mp3 cbr"),
    "tags behind tags": lambda: b"ID3\4\0\0\0\0\0\0" * 200_000 + made("mp3 cbr"),
}
"""Small files that are made to be expensive, and files with absurd numbers."""
