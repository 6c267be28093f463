"""What a file's header promises exactly, and how much of it is missing. An estimate is no promise."""

import re
import struct
from pathlib import Path
from typing import NamedTuple

from decoding import chunks, ogg, tags
from decoding.reading import Damage, Facts, Reading

HEADER_BYTES = 44
"""How much too large a sound's size may be: some programs count the header in it."""
SLACK_FRAMES = 2
"""How many frames of an MP3 may be missing at its end: decoders and encoders count the first ones differently."""
_XING_SEARCH_BYTES = 4096
_XING_AT = {(3, False): 36, (3, True): 21, (2, False): 21, (2, True): 13, (0, False): 21, (0, True): 13}
"""Where the Xing header begins in its frame, by MPEG version (3 is 1, 2 is 2, 0 is 2.5) and whether it is mono."""
_XING = re.compile(rb"Xing|Info")


class Missing(NamedTuple):
    """How much of a file's sound is missing."""

    is_cut: bool
    """The file ends before all that it promises."""
    damage: Damage
    """What is lost although the file goes on to its end: counted exactly if the file has a count to compare with."""


def missing(reading: Reading) -> Missing:
    """Return how much of the file's sound is not there; it is cut only if it promises more, and exactly."""
    facts = reading.facts
    assert facts is not None  # noqa: S101 - the reading has ended
    match facts.container:
        case "flac":
            return _of_flac(facts, reading)
        case "mp3":
            return _of_mp3(reading)
        case "ogg":
            return Missing(is_cut=False, damage=_with_lost_pages(reading))
        case "mov":
            return Missing(facts.index_end > reading.path.stat().st_size, reading.damage)
        case "wav" | "w64" | "aiff" | "caf" | "au":
            return Missing(chunks.sound_beyond_end(reading.path) > HEADER_BYTES, reading.damage)
    return Missing(is_cut=False, damage=reading.damage)


def _of_flac(facts: Facts, reading: Reading) -> Missing:
    """Believe STREAMINFO's total (RFC 9639, section 8.2) when the last frame is of the same opinion, or is cut itself.

    A program that copies a part of a file keeps the total and writes whole frames.
    """
    promised = int.from_bytes(facts.extradata[13:18], "big") & 0xF_FFFF_FFFF
    if facts.last_sample < promised and reading.samples < promised:
        return Missing(_crc16(tags.without(facts.last_packet)) != 0, reading.damage)
    lost = facts.last_sample - facts.first_sample - reading.samples
    if lost <= 0 or not reading.uneven_packets:
        # When all that is there is whole, a gap was made on purpose.
        return Missing(is_cut=False, damage=reading.damage)
    share = lost / (lost + reading.samples)
    packets = max(1, reading.damage.packets, round(lost * reading.packets / max(1, reading.samples)))
    return Missing(is_cut=False, damage=Damage(packets, share))


def _of_mp3(reading: Reading) -> Missing:
    """Compare with the Xing or Info header, which counts the frames, and mostly the bytes too."""
    frames, end = _counted_by_xing(reading.path)
    if not frames:
        return Missing(is_cut=False, damage=reading.damage)
    lost = frames - reading.decoded_packets
    if lost > SLACK_FRAMES and reading.path.stat().st_size < end:
        return Missing(is_cut=True, damage=reading.damage)
    # Frames are counted exactly, but not those that are lost at the end.
    damage = Damage(max(lost, reading.damage.packets), max(0, lost) / frames)
    return Missing(is_cut=False, damage=damage if lost > SLACK_FRAMES else Damage(reading.damage.packets))


def _with_lost_pages(reading: Reading) -> Damage:
    """Add the pages whose checksum is wrong: FFmpeg leaves them out."""
    lost, pages = ogg.lost_pages(reading.path)
    packets, share = reading.damage
    if not lost:
        return reading.damage
    # Damage in one place costs a page, which may be a second: that alone must not refuse a short recording.
    return Damage(packets + max(lost, round(lost * reading.packets / pages)), share + (lost - 1) / (lost + pages))


def _counted_by_xing(path: Path) -> tuple[int, int]:
    """Return how many frames there should be, and the byte at which the last should end; 0 without a header.

    When the header does not say how many bytes there are, the end is unknown, and counts as beyond that of the file.
    """
    with path.open("rb") as file:
        start = 0
        while tag := tags.size(file.read(32)):
            start += tag
            file.seek(start)
        file.seek(start)
        head = file.read(_XING_SEARCH_BYTES)
    frame, at = _xing(head)
    if at is None or len(head) < at + 16:
        return 0, 0
    flags, *numbers = struct.unpack_from(">3I", head, at + 4)
    frames = numbers.pop(0) if flags & 1 else 0
    size = numbers.pop(0) if flags & 2 else 1 << 62
    return frames, start + frame + size


def _xing(head: bytes) -> tuple[int, int | None]:
    """Return where the first frame begins, and where its Xing or Info header; None without one."""
    for found in _XING.finditer(head):
        for (version, is_mono), offset in _XING_AT.items():
            frame = head[max(0, found.start() - offset) : found.start()]
            if len(frame) == offset and _is_frame(frame, version, is_mono=is_mono):
                return found.start() - offset, found.start()
    return 0, None


def _is_frame(frame: bytes, version: int, *, is_mono: bool) -> bool:
    """Tell whether this begins an MPEG audio frame of the version (ISO/IEC 11172-3, section 2.4.1.3)."""
    return frame[0] == 0xFF and frame[1] >> 3 == 0b11100 | version and (frame[3] >> 6 == 0b11) == is_mono  # noqa: PLR2004 - 0xFF begins the sync word


def _crc16(frame: bytes) -> int:
    """Return the CRC-16 of RFC 9639, section 9.3, which is 0 over a whole FLAC frame with its own checksum."""
    crc = 0
    for byte in frame:
        crc ^= byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x18005 if crc & 0x8000 else 0)
    return crc
