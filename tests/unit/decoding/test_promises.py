"""What convicts a recording: an exact count of what is missing, never an estimate; and what damage is passed over."""

import io
import struct
import tempfile
from pathlib import Path
from random import Random

import av
import pytest

from contracts.events import AudioInfo
from contracts.failures import FailureCode
from decoding import ogg
from decoding.errors import RejectedError
from decoding.inspecting import inspect
from tests.support import media
from tests.support.media import EXACT, KINDS, SECONDS, copied, encoded, gapped, made, overwritten, sound

CUTS = 20
FLAC_CUTS = 100
TAIL: dict[str, bytes] = {
    "foreign bytes": Random(1).randbytes(300),
    "zeros": bytes(30_000),
    "an ID3v1 tag": b"TAG" + bytes(125),
    "an APEv2 tag with a cover": b"APETAGEX" + struct.pack("<III", 2000, 20_032, 1) + bytes(12) + bytes(range(256)) * 78
    + b"APETAGEX" + struct.pack("<III", 2000, 20_032, 1) + bytes(12),
}  # fmt: skip
PADDED_SECONDS = 0.15
"""By how much encoders and containers may pad a recording."""


def judged(content: bytes, max_seconds: float = 60) -> AudioInfo | FailureCode:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return inspect(file.name, max_seconds)
        except RejectedError as error:
            return error.reason


def accepted(content: bytes) -> AudioInfo:
    found = judged(content)
    assert isinstance(found, AudioInfo), found
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_recording_of_every_kind_is_accepted(name: str) -> None:
    found = accepted(made(name))
    assert found.duration_seconds == pytest.approx(SECONDS, abs=PADDED_SECONDS)
    assert found.container == KINDS[name].container
    assert found.damaged_packets == 0
    assert max(found.waveform) > 20


@pytest.mark.parametrize("name", EXACT)
def test_what_says_exactly_how_long_it_is_is_known_to_be_cut(name: str) -> None:
    random, whole = Random(name), made(name)
    frames = _positions(whole) if name == "flac" else []
    for _ in range(FLAC_CUTS if name == "flac" else CUTS):
        keep = random.randrange(len(whole) // 50, len(whole) * 19 // 20)
        assert keep in frames or judged(whole[:keep]) == FailureCode.AUDIO_TRUNCATED, keep


@pytest.mark.parametrize("name", KINDS)
def test_tags_before_any_kind_of_file_are_passed_over(name: str) -> None:
    tags, whole = _id3(300) + _id3(70_000), made(name)
    assert accepted(tags + whole).duration_seconds == pytest.approx(SECONDS, abs=PADDED_SECONDS)
    if name in EXACT:
        assert judged(tags + whole[: len(whole) // 2]) == FailureCode.AUDIO_TRUNCATED


@pytest.mark.parametrize("keep", [11, 200])
def test_a_tag_that_is_cut_is_no_sound(keep: int) -> None:
    assert judged(_id3(300)[:keep]) in {FailureCode.AUDIO_TRUNCATED, FailureCode.NOT_AUDIO}


def test_a_w64_that_does_not_know_its_length_promises_nothing() -> None:
    whole = made("w64")
    at = whole.index(b"data\xf3\xac") + 16
    unknown = whole[:at] + b"\xff" * 7 + b"\x7f" + whole[at + 8 :]
    assert judged(unknown) == FailureCode.AUDIO_DAMAGED  # FFmpeg cannot read it


def _id3(size: int) -> bytes:
    """Return an ID3v2.3 tag with `size` bytes of padding."""
    return b"ID3\x03\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


def test_a_fragment_that_was_cut_is_known() -> None:
    whole = made("mp4 fragmented")
    cut = whole[: whole.index(b"mdat", len(whole) // 2) + 1000]
    assert judged(cut) == FailureCode.AUDIO_TRUNCATED


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {*EXACT, "mp4 fragmented"}))
def test_what_does_not_say_so_counts_as_far_as_it_goes(name: str) -> None:
    whole = made(name)
    assert 2 < accepted(whole[: len(whole) // 2]).duration_seconds < 4


def test_a_flac_that_was_cut_between_two_frames_cannot_be_told_from_a_copied_part() -> None:
    """A copied part and a file that is cut exactly there are the same bytes: neither can be convicted."""
    whole = made("flac")
    places = _positions(whole)
    assert accepted(whole[: places[len(places) // 2]]).duration_seconds == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("more", [1, 2, 3, 5, 8, 12, 20])
def test_a_flac_that_was_cut_in_the_header_of_a_frame_is_known_to_be_cut(more: int) -> None:
    whole = made("flac")
    places = _positions(whole)
    assert judged(whole[: places[len(places) // 2] + more]) == FailureCode.AUDIO_TRUNCATED


def _positions(content: bytes) -> list[int]:
    with av.open(io.BytesIO(content), "r") as container:
        return [packet.pos for packet in container.demux() if packet.pos is not None]


@pytest.mark.parametrize("tail", ["", "an ID3v1 tag", "an APEv2 tag with a cover"])
def test_a_copied_part_of_a_flac_keeps_the_total_of_the_whole(tail: str) -> None:
    begin = copied(made("flac"), "flac", end=2)
    # FFmpeg writes the total of what it wrote, where it can; its own program keeps that of the whole.
    begin = begin[:8] + made("flac")[8:42] + begin[42:]
    assert accepted(begin + TAIL.get(tail, b"")).duration_seconds == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("begin", [1.0, 3.0])
def test_a_flac_without_its_beginning_is_accepted(begin: float) -> None:
    end = copied(made("flac"), "flac", begin=begin)
    found = accepted(end[:8] + made("flac")[8:42] + end[42:])
    assert found.duration_seconds == pytest.approx(SECONDS - begin, abs=0.2)
    assert found.damaged_packets == 0


@pytest.mark.parametrize(
    "name", ["m4a", "m4a alac", "3gp", "flac", "ogg opus", "ogg flac", "webm", "matroska flac", "adts"]
)
def test_a_gap_in_the_times_is_closed(name: str) -> None:
    found = accepted(gapped(name))
    assert found.duration_seconds == pytest.approx(SECONDS - 1.5, abs=PADDED_SECONDS)
    assert found.damaged_packets == 0


@pytest.mark.parametrize("name", ["m4a", "ogg opus", "ogg flac", "mp3 vbr", "webm", "3gp"])
def test_a_part_that_was_copied_from_the_middle_is_accepted(name: str) -> None:
    found = accepted(copied(made(name), KINDS[name].muxer, begin=2, end=5))
    assert found.duration_seconds == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("more", range(1, 45))
def test_a_wav_whose_size_counts_a_header_too_is_accepted(more: int) -> None:
    assert accepted(_with_data_size(made("wav"), more)).duration_seconds == pytest.approx(SECONDS, abs=0.01)


def test_a_wav_whose_size_is_larger_than_by_a_header_is_cut() -> None:
    assert judged(_with_data_size(made("wav"), 46)) == FailureCode.AUDIO_TRUNCATED


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0x7FFFFFFF - 36])
def test_a_wav_of_unknown_size_counts_as_far_as_it_goes(size: int) -> None:
    content = bytearray(made("wav"))
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    assert accepted(bytes(content[:300_000])).duration_seconds > 3


def test_an_au_of_unknown_size_counts_as_far_as_it_goes() -> None:
    content = made("au")
    assert accepted(content[:8] + bytes([0xFF]) * 4 + content[12:300_000]).duration_seconds > 3


def _with_data_size(content: bytes, more: int) -> bytes:
    place = content.index(b"data") + 4
    (size,) = struct.unpack_from("<I", content, place)
    return content[:place] + struct.pack("<I", size + more) + content[place + 4 :]


@pytest.mark.parametrize("tail", TAIL)
@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].container not in {"wav", "w64", "au", "amr"}])
def test_what_follows_the_sound_is_passed_over(name: str, tail: str) -> None:
    assert accepted(made(name) + TAIL[tail]).duration_seconds == pytest.approx(SECONDS, abs=PADDED_SECONDS + 0.1)


@pytest.mark.parametrize("at", [0.4, 0.5, 0.6])
@pytest.mark.parametrize("name", KINDS)
def test_one_damaged_place_refuses_nothing(name: str, at: float) -> None:
    found = accepted(overwritten(made(name), 60, at))
    # FFmpeg leaves out a page whose checksum is wrong, and a page of Vorbis may take two seconds.
    assert found.duration_seconds > 0.6 * SECONDS


@pytest.mark.parametrize("name", ["adts", "mp3 vbr", "mp3 without xing", "mp3 with tags"])
@pytest.mark.parametrize("foreign", [Random(2).randbytes(400), bytes(30_000)])
def test_foreign_bytes_between_frames_refuse_nothing(name: str, foreign: bytes) -> None:
    whole = made(name)
    middle = len(whole) // 2
    assert accepted(whole[:middle] + foreign + whole[middle:]).duration_seconds > 0.9 * SECONDS


def test_mp3_files_that_were_joined_with_their_covers_are_one_recording() -> None:
    one = media.tagged(made("mp3 without xing"), 100_000)
    assert accepted(one * 3).duration_seconds == pytest.approx(3 * SECONDS, abs=0.3)


@pytest.mark.parametrize("name", ["flac", "m4a", "adts", "ogg flac", "matroska flac", "3gp", "m4a alac"])
def test_what_could_not_be_decoded_is_counted(name: str) -> None:
    assert 1 <= accepted(overwritten(made(name), 60, 0.5)).damaged_packets <= 20


KNOWS_DAMAGE = (
    *("flac", "m4a", "m4a faststart", "m4a alac", "3gp", "mp4 fragmented", "adts", "mp3 vbr", "mp3 cbr"),
    *("mp3 8 kHz", "ogg opus", "ogg flac", "caf alac"),
)
"""Of the others, PCM has no damage, and decoders make sound of any bytes or leave them out without a word."""


@pytest.mark.parametrize("name", KNOWS_DAMAGE)
def test_more_than_a_tenth_of_damage_is_refused(name: str) -> None:
    whole = made(name)
    assert judged(overwritten(whole, len(whole) // 4, 0.35)) == FailureCode.AUDIO_DAMAGED


def test_a_file_in_which_nothing_can_be_decoded_is_damaged() -> None:
    whole = made("m4a")
    begin, end = whole.index(b"mdat") + 4, whole.index(b"moov") - 4
    assert judged(whole[:begin] + bytes([0xFF]) * (end - begin) + whole[end:]) == FailureCode.AUDIO_DAMAGED


CHAINS: dict[str, tuple[str, ...]] = {
    "the same": ("ogg opus", "ogg opus"),
    "other rates": ("ogg flac", "ogg flac 16 kHz"),
    "other channels": ("ogg vorbis", "ogg opus"),
    "three codecs": ("ogg opus", "ogg vorbis", "ogg flac"),
    "there and back": ("ogg vorbis", "ogg flac 16 kHz", "ogg vorbis"),
}


def _link(name: str) -> bytes:
    if name != "ogg flac 16 kHz":
        return made(name)
    return encoded(KINDS["ogg flac"]._replace(rate=16_000), sound(SECONDS, 16_000))


@pytest.mark.parametrize("names", CHAINS.values(), ids=CHAINS)
def test_ogg_files_one_after_the_other_are_one_recording(names: tuple[str, ...]) -> None:
    found = accepted(b"".join(map(_link, names)))
    assert found.duration_seconds == pytest.approx(len(names) * SECONDS, abs=0.1)
    assert found.damaged_packets == 0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_link_that_is_garbage_is_passed_over(place: int) -> None:
    links = [made("ogg opus"), made("ogg vorbis")]
    links.insert(place, made("ogg opus")[:60] + Random(1).randbytes(3000))
    assert accepted(b"".join(links)).duration_seconds == pytest.approx(2 * SECONDS, abs=0.1)


def test_what_looks_like_a_page_inside_a_recording_begins_no_link() -> None:
    content = bytearray(made("wav"))
    content[1000:1006] = b"OggS\0\2"
    assert accepted(bytes(content)).duration_seconds == pytest.approx(SECONDS)


def test_the_first_track_that_can_be_decoded_is_taken() -> None:
    path = io.BytesIO()
    with av.open(io.BytesIO(made("m4a")), "r") as source, av.open(path, "w", format="mp4") as target:
        stream = source.streams.audio[0]
        copies = [target.add_stream_from_template(stream) for _ in range(2)]
        for packet in source.demux(stream):
            for copy in copies:
                if packet.dts is not None:
                    again = av.Packet(bytes(packet))
                    again.pts, again.dts, again.duration = packet.pts, packet.dts, packet.duration
                    again.time_base, again.stream = packet.time_base, copy
                    target.mux(again)
    two = path.getvalue()
    assert two.count(b"mp4a") == 2
    # The entry of Apple's codec has no description that FFmpeg knows.
    first = two.replace(b"mp4a", b"apac", 1).replace(b"esds", b"dapa", 1)
    assert accepted(first).duration_seconds == pytest.approx(SECONDS, abs=PADDED_SECONDS)
    assert judged(two.replace(b"mp4a", b"apac").replace(b"esds", b"dapa")) == FailureCode.NOT_AUDIO


@pytest.mark.parametrize("muxer", ["mp4", "mov", "webm", "matroska"])
def test_the_sound_of_a_film_is_a_recording(muxer: str) -> None:
    path = io.BytesIO()
    kind = KINDS["webm" if muxer == "webm" else "m4a"]
    with av.open(io.BytesIO(encoded(kind, sound(1, kind.rate))), "r") as source, av.open(path, "w", muxer) as target:
        film = target.add_stream("libvpx" if muxer == "webm" else "mpeg4", rate=10)
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = 64, 64, "yuv420p"
        copy = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
        for number in range(10):
            picture = av.VideoFrame(64, 64, "yuv420p")
            picture.pts = number
            target.mux(film.encode(picture))
        target.mux(film.encode(None))
    assert accepted(path.getvalue()).duration_seconds == pytest.approx(1, abs=0.1)


SID = bytes([0x44, 0x88, 0x10, 0x20, 0x40, 0x02])
NO_DATA = b"\x7c"


def test_an_amr_recording_without_the_silence_between_words_is_as_long_as_it_was() -> None:
    """A phone sends a description of silence now and then, and nothing else (3GPP TS 26.101, frame types 8 and 15)."""
    spoken = made("amr")
    content = spoken + (SID + NO_DATA * 7) * 25
    found = accepted(content)
    assert found.duration_seconds == pytest.approx(accepted(spoken).duration_seconds + 200 * 0.02, abs=0.05)
    assert found.damaged_packets == 0


@pytest.mark.parametrize("flags", [0b0001, 0b1111])
def test_an_mp3_that_counts_frames_with_or_without_bytes_is_damaged_in_its_middle_and_cut_at_its_end(
    flags: int,
) -> None:
    whole = bytearray(made("mp3 vbr", 20))
    at = next(place for name in (b"Xing", b"Info") if (place := whole.find(name)) >= 0)
    # Without the number of bytes, what follows the number of frames moves up.
    numbers = whole[at + 8 : at + 12] + (whole[at + 12 : at + 16] if flags & 2 else b"")
    whole[at + 4 : at + 8 + len(numbers)] = flags.to_bytes(4, "big") + numbers
    assert isinstance(judged(bytes(whole)), AudioInfo)
    assert isinstance(judged(overwritten(bytes(whole), 1000)), AudioInfo)
    assert judged(bytes(whole[: len(whole) * 3 // 4])) == FailureCode.AUDIO_TRUNCATED


@pytest.mark.parametrize(
    "content",
    [
        b"ID3\4\0\0\0\0\0\0" + bytes(range(256)) * 20,
        b"caff" + bytes(range(256)) * 20,
        b"RIFF\x00\x10\0\0WAVE" + bytes(range(1, 256)) * 20,
        b"OggS" + bytes(range(256)) * 20,
        b"\x1aE\xdf\xa3" + bytes(range(256)) * 20,
    ],
    ids=["ID3", "CAF", "WAV", "Ogg", "Matroska"],
)
def test_what_begins_as_audio_and_promises_nothing_is_damaged_rather_than_cut(content: bytes) -> None:
    assert judged(content) == FailureCode.AUDIO_DAMAGED


@pytest.mark.parametrize("kind", ["m4a", "flac", "mp3 vbr", "wav"])
def test_what_breaks_off_in_its_header_is_cut_if_the_header_says_how_much_there_is(kind: str) -> None:
    whole = made(kind)
    assert judged(whole[:60]) in {FailureCode.AUDIO_TRUNCATED, FailureCode.AUDIO_DAMAGED}
    assert judged(whole[: len(whole) // 40]) == FailureCode.AUDIO_TRUNCATED


def test_pages_of_an_ogg_file_are_found_across_what_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(made("ogg opus", 8) + b"garbage" * 5000 + made("ogg vorbis", 4))
        file.flush()
        at_once = ogg.links(Path(file.name)), ogg.lost_pages(Path(file.name))
        monkeypatch.setattr("decoding.ogg._WINDOW_BYTES", 1000)
        assert (ogg.links(Path(file.name)), ogg.lost_pages(Path(file.name))) == at_once
        assert len(at_once[0]) == 2
