"""Reads a file's sound frame by frame: passes over what cannot be decoded, and stops at the bounds of a recording."""

import re
from collections.abc import Generator, Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from contracts.audio import CONTAINERS, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from contracts.failures import FailureCode
from decoding import ogg
from decoding.errors import RejectedError

_OPTIONS = {
    "format_whitelist": ",".join(container.name for container in CONTAINERS),
    "protocol_whitelist": "file,subfile",
}
# A WAV header says everything: FFmpeg's probing would cost more than decoding a short recording.
_WAV_OPTIONS = {**_OPTIONS, "probesize": "8192", "analyzeduration": "0"}
_BEGINNINGS = re.compile(
    rb"RIFF.{4}WAVE|RF64.{4}WAVE|riff\x2e\x91\xcf\x11|FORM.{4}AIF[FC]|caff|\.snd|fLaC|ID3|OggS|.{4}ftyp|\x1aE\xdf\xa3"
    rb"|#!AMR|\x30\x26\xb2\x75",
    re.DOTALL,
)
"""How files of the known containers begin. When one of these cannot be opened, the rest of it is missing."""
_BARE = {"mp3", "aac"}
"""Containers that are nothing but frames. What follows the last frame is no part of the sound: tags, padding."""


class UnreadableError(RejectedError):
    """The file, or a link of it, cannot be opened or has no sound."""


class Damage(NamedTuple):
    """What could not be decoded: how many packets, and their share of the sound's bytes, from 0 to 1."""

    packets: int
    share: float


class Facts(NamedTuple):
    """What a file says of itself, and of its last packet; for judging whether it is whole."""

    container: str
    codec: str
    extradata: bytes
    """The codec's own header."""
    declared_samples: int
    """The number of samples by the container's header, by FFmpeg's estimate, or 0."""
    index_end: int
    """The byte at which the last packet ends by the container's index, 0 without an index."""
    last_packet: bytes
    last_sample: int
    """The sample at which the last packet ends, by the time that is written in it."""


class Reading:
    """One pass over a file's sound; what it has found is final once `frames` has ended.

    A gap in the file's times is closed: only what is heard counts.
    """

    def __init__(self, path: str | PathLike[str], max_seconds: float) -> None:
        self.path = Path(path)
        self.packets = 0
        self.sample_rate = self.channels = 0
        self.facts: Facts | None = None
        self._max_seconds = max_seconds
        self._samples_at: dict[int, int] = {}
        self._decoded_bytes = 0
        self._lost: list[int] = []
        self._lost_since: list[int] = []
        self._last: Packet[AudioStream] | None = None

    def frames(self) -> Iterator[AudioFrame]:
        """Yield every frame that can be decoded; RejectedError when the file is no audio or exceeds a bound."""
        head = self._head()
        start: int | None = yield from self._link(head, 0)
        while start is not None:
            begins = start
            try:
                start = yield from self._link(head, begins)
            except UnreadableError:
                start = ogg.next_link(self.path, begins)

    @property
    def samples(self) -> int:
        """How many samples the frames had so far."""
        return sum(self._samples_at.values())

    @property
    def seconds(self) -> float:
        """How long the frames play. The rate may change midway, as in a chained stream."""
        return sum(samples / rate for rate, samples in self._samples_at.items())

    @property
    def damage(self) -> Damage:
        """What could not be decoded so far."""
        bare = self.facts is not None and self.facts.container in _BARE
        lost = self._lost if bare and self.samples else self._lost + self._lost_since
        return Damage(len(lost), sum(lost) / max(1, sum(lost) + self._decoded_bytes))

    def _head(self) -> bytes:
        with self.path.open("rb") as file:
            head = file.read(12)
        if not head:
            raise RejectedError(FailureCode.AUDIO_EMPTY)
        return head

    def _link(self, head: bytes, start: int) -> Generator[AudioFrame, None, int | None]:
        """Yield the frames of one link of a chained Ogg file, or of any other file; return where the next one begins.

        Links follow one another (RFC 3533, section 4), and FFmpeg does not go on where they are of different kinds.
        """
        with self._opened(head, start) as container:
            stream = _sound(container)
            self._last = None
            try:
                for packet in container.demux(stream):
                    yield from self._decoded(packet)
            except MemoryError:
                raise
            except FFmpegError:
                # As players do, count this as the end. A file that has promised more is found to be cut.
                pass
            self.facts = self.facts or _facts(container, stream, self._last)
            if self.facts.container != "ogg" or self._last is None:
                return None
            return ogg.next_link(self.path, max(start, start + (self._last.pos or 0)))

    def _opened(self, head: bytes, start: int) -> InputContainer:
        is_wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
        try:
            return av.open(
                f"subfile,,start,{start},end,0,,:{self.path}" if start else f"file:{self.path}",
                format="wav" if is_wav else None,
                options=_WAV_OPTIONS if is_wav else _OPTIONS,
                metadata_errors="replace",  # tags may be in any encoding; none is used
            )
        except MemoryError:
            raise
        except FFmpegError:
            known = _BEGINNINGS.match(head)
            raise UnreadableError(FailureCode.AUDIO_TRUNCATED if known else FailureCode.NOT_AUDIO) from None

    def _decoded(self, packet: "Packet[AudioStream]") -> Iterator[AudioFrame]:
        if packet.size:
            self._last = packet
            self.packets += 1
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except FFmpegError:
            self._lost_since.append(packet.size)
            return
        self._decoded_bytes += packet.size
        for frame in frames:
            if isinstance(frame, AudioFrame) and frame.samples:
                self._lost += self._lost_since
                self._lost_since = []
                self._count(frame)
                yield frame

    def _count(self, frame: AudioFrame) -> None:
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if not (MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE and 1 <= channels <= MAX_CHANNELS):
            raise RejectedError(FailureCode.AUDIO_TOO_COMPLEX)
        self.sample_rate, self.channels = self.sample_rate or rate, self.channels or channels
        self._samples_at[rate] = self._samples_at.get(rate, 0) + frame.samples
        if self.seconds > self._max_seconds:
            raise RejectedError(FailureCode.AUDIO_TOO_LONG)


def _facts(container: InputContainer, stream: AudioStream, last: "Packet[AudioStream] | None") -> Facts:
    rate = stream.codec_context.sample_rate
    end = 0 if last is None or last.pts is None else last.pts + (last.duration or 0)
    is_indexed = container.format.name.startswith("mov")
    return Facts(
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.name,
        extradata=stream.codec_context.extradata or b"",
        declared_samples=stream.frames or _in_samples(stream.duration, stream.time_base, rate),
        index_end=max((entry.pos + entry.size for entry in stream.index_entries), default=0) if is_indexed else 0,
        last_packet=b"" if last is None else bytes(last),
        last_sample=_in_samples(end, stream.time_base, rate),
    )


def _in_samples(ticks: int | None, tick: Fraction | None, rate: int) -> int:
    return int(ticks * tick * rate) if ticks and tick else 0


def _sound(container: InputContainer) -> AudioStream:
    """Return the first track for which FFmpeg has a decoder: a file may have the same sound in several formats."""
    known = (stream for stream in container.streams.audio if stream.codec_context is not None)
    stream = next(known, None)
    if stream is None:
        raise UnreadableError(FailureCode.NOT_AUDIO)
    return stream
