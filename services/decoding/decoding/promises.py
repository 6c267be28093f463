"""What a file's header promises exactly, and how much of it is missing. An estimate is no promise."""

from typing import NamedTuple

from decoding import chunks, ogg, tags, xing
from decoding.reading import Damage, Facts, Reading

SLACK_FRAMES = 2
"""How many frames of an MP3 may be missing at its end: decoders and encoders count the first ones differently."""


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
            return Missing(reading.start + facts.index_end > reading.path.stat().st_size, reading.damage)
        case "wav" | "w64" | "aiff" | "caf" | "au":
            return Missing(chunks.sound_beyond_end(reading.path, reading.start) > chunks.HEADER_BYTES, reading.damage)
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
    frames, end = xing.counted(reading.path)
    if not frames:
        return Missing(is_cut=False, damage=reading.damage)
    lost = frames - reading.decoded_packets
    # Without a number of bytes, what is damaged in the middle is taken for all that is lost.
    is_short = reading.path.stat().st_size < end if end else not reading.damage.packets
    if lost > SLACK_FRAMES and is_short:
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


def _crc16(frame: bytes) -> int:
    """Return the CRC-16 of RFC 9639, section 9.3, which is 0 over a whole FLAC frame with its own checksum."""
    crc = 0
    for byte in frame:
        crc ^= byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x18005 if crc & 0x8000 else 0)
    return crc
