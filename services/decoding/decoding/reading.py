"""Reads a file's sound frame by frame: passes over what cannot be decoded, and stops at the bounds of a recording."""

from collections.abc import Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from contracts.audio import CONTAINERS
from contracts.failures import FailureCode
from decoding import bounds, headers, ogg, tags
from decoding.errors import RejectedError

_OPTIONS = {
    "format_whitelist": ",".join(container.name for container in CONTAINERS),
    "protocol_whitelist": "file,subfile",
}
# A WAV header says everything: FFmpeg's probing would cost more than decoding a short recording.
_WAV_OPTIONS = {**_OPTIONS, "probesize": "8192", "analyzeduration": "0"}
_BARE = {"mp3", "aac", "amr"}
"""Containers that are nothing but frames. What follows the last frame is no part of the sound: tags, padding."""
_BETTER_DECODERS = {"amrnb": "libopencore_amrnb"}
"""FFmpeg's own decoder of AMR fails at the silence that phones leave out (3GPP TS 26.092)."""
_MOST_UNINDEXED = 1_000_000
"""From so many packets in an MP4 on, FFmpeg goes on without an index when there is no memory for it: 24 bytes each."""


class UnreadableError(RejectedError):
    """The file, or a link of it, cannot be opened or has no sound."""


class Damage(NamedTuple):
    """What of the sound is lost: how many packets, and their share of it, from 0 to 1."""

    packets: int = 0
    share: float = 0.0


class Facts(NamedTuple):
    """What a file says of itself, and of its first and last packets; for judging whether it is whole."""

    container: str
    codec: str
    extradata: bytes
    """The codec's own header."""
    index_end: int
    """The byte at which the last packet ends by the container's index, 0 without an index."""
    last_packet: bytes
    first_sample: int
    """The sample at which the first packet begins, by the time that is written in it."""
    last_sample: int
    """The sample at which the last packet ends, likewise."""


class Reading:
    """One pass over a file's sound; what it has found is final once `frames` has ended.

    A gap in the file's times is closed: only what is heard counts.
    """

    def __init__(self, path: str | PathLike[str], max_seconds: float) -> None:
        self.path = Path(path)
        self.start = 0
        """The byte at which the file begins, after the tags that some programs put before any format."""
        self.packets = self.decoded_packets = self.uneven_packets = 0
        """All packets, those that could be decoded, and those that did not give one frame each."""
        self.sample_rate = self.channels = 0
        self.facts: Facts | None = None
        self._max_seconds = max_seconds
        self._samples_at: dict[int, int] = {}
        self._decoded_bytes = 0
        self._lost: list[int] = []
        self._lost_since: list[int] = []
        self._foreign_until = 0
        self._first: Packet[AudioStream] | None = None
        self._last: Packet[AudioStream] | None = None

    def frames(self) -> Iterator[AudioFrame]:
        """Yield every frame that can be decoded; RejectedError when the file is no audio or exceeds a bound."""
        self.start, head = headers.beginning(self.path)
        if not head:
            raise RejectedError(FailureCode.AUDIO_EMPTY)
        unreadable: UnreadableError | None = None
        # FFmpeg does not go on, or decodes noise, where the links of a chain differ in format.
        for link in ogg.links(self.path) if head.startswith(b"OggS") else [None]:
            try:
                yield from self._link(head, link)
            except UnreadableError as error:
                unreadable = unreadable or error
        if self.facts is None and unreadable is not None:
            raise unreadable

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

    def _link(self, head: bytes, link: ogg.Link | None) -> Iterator[AudioFrame]:
        """Yield the frames of one link of a chained Ogg file, or of any other file."""
        with self._opened(head, link) as container:
            stream, decoder = _sound(container)
            if _is_indexed(container) and stream.frames > _MOST_UNINDEXED and not len(stream.index_entries):
                raise MemoryError
            self._first = self._last = None
            try:
                for packet in container.demux(stream):
                    # To a decoder, an empty packet means the end.
                    if packet.size:
                        yield from self._decoded(decoder, packet)
            except MemoryError:
                raise
            except FFmpegError:
                # As players do, count this as the end. A file that has promised more is found to be cut.
                pass
            yield from self._flushed(decoder)
            self.facts = self.facts or _facts(container, stream, self._first, self._last)

    def _opened(self, head: bytes, link: ogg.Link | None) -> InputContainer:
        is_wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
        start, end = link or (self.start, self.path.stat().st_size)
        try:
            return av.open(
                f"subfile,,start,{start},end,{end},,:{self.path}" if start or link else f"file:{self.path}",
                format="wav" if is_wav else None,
                options=_WAV_OPTIONS if is_wav else _OPTIONS,
                metadata_errors="replace",  # tags may be in any encoding; none is used
            )
        except MemoryError:
            raise
        except FFmpegError:
            raise UnreadableError(self._unreadable(head)) from None

    def _unreadable(self, head: bytes) -> FailureCode:
        if not headers.is_known(head):
            return FailureCode.NOT_AUDIO
        return FailureCode.AUDIO_TRUNCATED if headers.is_cut(self.path, self.start, head) else FailureCode.AUDIO_DAMAGED

    def _decoded(self, decoder: AudioCodecContext, packet: "Packet[AudioStream]") -> Iterator[AudioFrame]:
        self._first, self._last = self._first or packet, packet
        self.packets += 1
        try:
            frames = decoder.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            self.uneven_packets += 1
            if not self._is_foreign(packet):
                self._lost_since.append(packet.size)
            return
        self.decoded_packets += 1
        self.uneven_packets += len(frames) != 1
        self._decoded_bytes += packet.size
        yield from self._counted(frames)

    def _flushed(self, decoder: AudioCodecContext) -> Iterator[AudioFrame]:
        """Yield what the decoder still holds back."""
        try:
            frames = decoder.decode(None)
        except MemoryError:
            raise
        except FFmpegError:
            return
        yield from self._counted(frames)

    def _counted(self, frames: list[AudioFrame]) -> Iterator[AudioFrame]:
        for frame in frames:
            if frame.samples:
                self._lost += self._lost_since
                self._lost_since = []
                self._count(frame)
                yield frame

    def _is_foreign(self, packet: "Packet[AudioStream]") -> bool:
        """Tell whether the packet is nothing but zeros, or lies in a tag, as between MP3 files that were joined."""
        content, position = bytes(packet), packet.pos or 0
        self._foreign_until = max(self._foreign_until, position + tags.size(content))
        return position < self._foreign_until or not content.strip(b"\0")

    def _count(self, frame: AudioFrame) -> None:
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        bounds.check_format(rate, channels)
        self.sample_rate, self.channels = self.sample_rate or rate, self.channels or channels
        self._samples_at[rate] = self._samples_at.get(rate, 0) + frame.samples
        bounds.check_length(self.seconds, self._max_seconds)


def _facts(
    container: InputContainer,
    stream: AudioStream,
    first: "Packet[AudioStream] | None",
    last: "Packet[AudioStream] | None",
) -> Facts:
    rate = stream.codec_context.sample_rate
    begin = 0 if first is None or first.pts is None else first.pts
    end = 0 if last is None or last.pts is None else last.pts + (last.duration or 0)
    return Facts(
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.name,
        extradata=stream.codec_context.extradata or b"",
        index_end=max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if _is_indexed(container)
        else 0,
        last_packet=b"" if last is None else bytes(last),
        first_sample=_in_samples(begin, stream.time_base, rate),
        last_sample=_in_samples(end, stream.time_base, rate),
    )


def _is_indexed(container: InputContainer) -> bool:
    return container.format.name.startswith("mov")


def _in_samples(ticks: int | None, tick: Fraction | None, rate: int) -> int:
    return int(ticks * tick * rate) if ticks and tick else 0


def _sound(container: InputContainer) -> tuple[AudioStream, AudioCodecContext]:
    """Return the first track that FFmpeg can decode, and its decoder.

    A file may have the same sound in several formats.
    """
    for stream in container.streams.audio:
        if stream.codec_context is not None and (decoder := _decoder(stream)) is not None:
            return stream, decoder
    raise UnreadableError(FailureCode.NOT_AUDIO)


def _decoder(stream: AudioStream) -> AudioCodecContext | None:
    """Return an open decoder; None when the codec's header makes no sense to it."""
    decoder = stream.codec_context
    name = _BETTER_DECODERS.get(decoder.name, decoder.name)
    if name != decoder.name and name in av.codecs_available:
        better = AudioCodecContext.create(name, "r")
        assert isinstance(better, AudioCodecContext)  # noqa: S101 - both decode sound
        better.sample_rate, better.layout = decoder.sample_rate, decoder.layout
        decoder = better
    # FLAC's decoder returns noise for a damaged frame unless it compares checksums.
    decoder.options = {"err_detect": "crccheck+explode"} if name == "flac" else {}
    try:
        decoder.open(strict=False)
    except MemoryError:
        raise
    except FFmpegError:
        return None
    return decoder
