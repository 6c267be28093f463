"""Reading the one file out of a form while it arrives: however the body is cut up, and whatever is wrong with it."""

import asyncio
import base64
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.events import JsonObject
from gateway.web import pace
from gateway.web.forms import MAX_PART_HEADERS, FileForm
from gateway.web.problems import ProblemError

BOUNDARY = b"x-boundary"
MULTIPART = "multipart/form-data; boundary=x-boundary"
TRICKY = b"\r\n--x-bound\r\n--x-boundar\r\r\n-\r\n --x-boundary\r\n\r\n--\x00\xff RIFF"
"""Bytes that begin like a boundary again and again, and are none."""


@dataclass(frozen=True)
class Read:
    """What reading a form came to: the file, or the code of the problem."""

    content: bytes = b""
    filename: str | None = None
    problem: str | None = None


def part(content: bytes, name: str = "file", filename: str | None = "a.wav", headers: Iterable[str] = ()) -> bytes:
    disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    lines = [f"Content-Disposition: {disposition}", *headers]
    return b"--" + BOUNDARY + b"\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"


def cut(body: bytes, at: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(at), len(body)]
    return [body[begin:end] for begin, end in pairwise(places)]


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def read(chunks: Iterable[bytes], *, content_type: str = MULTIPART, max_bytes: int = 1 << 20) -> Read:
    async def reading() -> Read:
        try:
            form = FileForm(content_type, stream(chunks), max_bytes)
            content = b"".join([piece async for piece in form.chunks()])
        except ProblemError as error:
            return Read(problem=error.kind.code)
        return Read(content, form.filename)

    return asyncio.run(reading())


BODIES: dict[str, tuple[bytes, Read]] = {
    "one file": (part(b"RIFF" + bytes(20)) + END, Read(b"RIFF" + bytes(20), "a.wav")),
    "content like a boundary": (part(TRICKY) + END, Read(TRICKY, "a.wav")),
    "no line break at the end": (part(b"abc") + END.rstrip(), Read(b"abc", "a.wav")),
    "line breaks before the first boundary": (b"\r\n" + part(b"abc") + END, Read(b"abc", "a.wav")),
    "text after the end": (part(b"abc") + END + b"epilogue\r\n", Read(b"abc", "a.wav")),
    "other fields around it": (
        part(b"7", "lesson", None) + part(b"abc") + part(TRICKY, "note", None) + END,
        Read(b"abc", "a.wav"),
    ),
    "headers in any case and order": (
        part(b"abc", headers=["content-TYPE: audio/wav", "X-Other: 1"]).replace(b"Content-Disp", b"CONTENT-disp") + END,
        Read(b"abc", "a.wav"),
    ),
    "a name in Korean": (part(b"abc", filename="녹음 🎤.wav") + END, Read(b"abc", "녹음 🎤.wav")),
    "a name of nothing": (part(b"abc", filename="") + END, Read(b"abc", "")),
    "a name with a path": (part(b"abc", filename="../../etc/passwd") + END, Read(b"abc", "../../etc/passwd")),
    "a name with a quote": (part(b"abc", filename='a\\"b.wav') + END, Read(b"abc", 'a"b.wav')),
    "no file field": (part(b"7", "lesson", None) + END, Read(problem="file_missing")),
    "a file in another field": (part(b"abc", "audio") + END, Read(problem="file_missing")),
    "the field without a file name": (part(b"abc", "file", None) + END, Read(b"abc", None)),
    "no part at all": (END, Read(problem="file_missing")),
    "an empty file": (part(b"") + END, Read(problem="file_empty")),
    "an empty input of a browser": (part(b"", filename="") + END, Read(problem="file_empty")),
    "two files": (part(b"abc") + part(b"def") + END, Read(problem="too_many_files")),
    "two files, one elsewhere": (part(b"abc", "cover", "c.png") + part(b"def") + END, Read(b"def", "a.wav")),
    "a file of JSON beside it": (
        part(b"def") + part(b"{}", "metadata", "blob", ["Content-Type: application/json"]) + END,
        Read(b"def", "a.wav"),
    ),
    "two inputs, the first left empty": (part(b"", filename="") + part(b"def") + END, Read(b"def", "a.wav")),
    "two inputs, the second left empty": (part(b"def") + part(b"", filename="") + END, Read(b"def", "a.wav")),
    "no end": (part(b"abc"), Read(problem="form_malformed")),
    "cut in the file": (part(b"abc" * 9)[:-9], Read(problem="form_malformed")),
    "cut in a header": (part(b"abc")[:40], Read(problem="form_malformed")),
    "nothing": (b"", Read(problem="form_malformed")),
    "no form": (b'{"file": "abc"}', Read(problem="form_malformed")),
    "another boundary": ((part(b"abc") + END).replace(BOUNDARY, b"y-boundary"), Read(problem="form_malformed")),
    "a header without a colon": (part(b"abc", headers=["nonsense"]) + END, Read(problem="form_malformed")),
    "a header with a control character": (part(b"abc", headers=["X\x01: 1"]) + END, Read(problem="form_malformed")),
    "a line before the first boundary": (b"This is a form.\r\n" + part(b"abc") + END, Read(b"abc", "a.wav")),
    "too much before the first boundary": (b"x" * 1200 + b"\r\n" + part(b"abc") + END, Read(problem="form_malformed")),
    "a header in two lines": (
        part(b"abc").replace(b'; filename="', b';\r\n\tfilename="') + END,
        Read(b"abc", "a.wav"),
    ),
    "a part that says how it is encoded": (
        part(b"abc", headers=["Content-Transfer-Encoding: binary"]) + END,
        Read(b"abc", "a.wav"),
    ),
    "a part in base64": (
        part(b"YWJj\r\nZGVm\r\nZw==", headers=["Content-Transfer-Encoding: BASE64"]) + END,
        Read(b"abcdefg", "a.wav"),
    ),
    "a part in base64 without padding": (
        part(b"YWJjZA", headers=["Content-Transfer-Encoding: base64"]) + END,
        Read(b"abcd", "a.wav"),
    ),
    "a part in what is no base64": (
        part(b"\xff\x00RIFF", headers=["Content-Transfer-Encoding: base64"]) + END,
        Read(problem="form_malformed"),
    ),
    "a part in quoted-printable": (
        part(b"abc=3D", headers=["Content-Transfer-Encoding: quoted-printable"]) + END,
        Read(problem="encoding_unsupported"),
    ),
    "a part that is compressed": (
        part(b"\x1f\x8b", headers=["Content-Encoding: gzip"]) + END,
        Read(problem="encoding_unsupported"),
    ),
    "another part in an encoding": (
        part(b"abc=3D", "note", None, ["Content-Transfer-Encoding: quoted-printable"]) + part(b"abc") + END,
        Read(b"abc", "a.wav"),
    ),
    "a part with a length of its own": (part(b"abc", headers=["Content-Length: 3"]) + END, Read(b"abc", "a.wav")),
    "a part with a wrong length of its own": (part(b"abc", headers=["Content-Length: 7"]) + END, Read(b"abc", "a.wav")),
    "a part that is an attachment": (part(b"abc").replace(b"form-data", b"attachment") + END, Read(b"abc", "a.wav")),
    "another part without any header": (
        b"--" + BOUNDARY + b"\r\n\r\nx\r\n" + part(b"abc") + END,
        Read(b"abc", "a.wav"),
    ),
    "a name of the extended kind alone": (
        part(b"abc", filename=None).replace(b'"file"', b"\"file\"; filename*=utf-8''%EB%85%B9%EC%9D%8C.wav") + END,
        Read(b"abc", "녹음.wav"),
    ),
    "a name in both kinds": (
        part(b"abc", filename="=?utf-8?B?7Jik66WYLndhdg==?=\"; filename*=\"utf-8''%EB%85%B9%EC%9D%8C.wav") + END,
        Read(b"abc", "녹음.wav"),
    ),
    "a name of encoded words": (
        part(b"abc", filename="=?utf-8?B?64W57J2MLndhdg==?=") + END,
        Read(b"abc", "녹음.wav"),
    ),
    "a name with a browser's escapes": (
        part(b"abc", filename="a%22b%0D%0Ac%2F.wav") + END,
        Read(b"abc", 'a"b\r\nc%2F.wav'),
    ),
    "names without quotes": (
        part(b"abc").replace(b'"file"', b"file").replace(b'"a.wav"', b"a.wav") + END,
        Read(b"abc", "a.wav"),
    ),
    "bare line feeds": ((part(b"abc") + END).replace(b"\r\n", b"\n"), Read(problem="form_malformed")),
    "too many headers": (
        part(b"abc", headers=[f"X-{number}: 1" for number in range(MAX_PART_HEADERS)]) + END,
        Read(problem="form_malformed"),
    ),
}


NOTE = b'{"user": 7, "a.b": [null]}'
NOTES: dict[str, bytes] = {
    "before the file": part(NOTE, "metadata", None) + part(b"abc"),
    "after the file": part(b"abc") + part(NOTE, "metadata", None),
    "as a file of JSON": part(b"abc") + part(NOTE, "metadata", "blob", ["Content-Type: application/json"]),
    "in base64": part(base64.encodebytes(NOTE), "metadata", None, ["Content-Transfer-Encoding: base64"]) + part(b"abc"),
    "with a byte order mark": part(b"\xef\xbb\xbf" + NOTE, "metadata", None) + part(b"abc"),
    "beside an empty one": part(b"", "metadata", None) + part(NOTE, "metadata", None) + part(b"abc"),
}


def metadata_of(body: bytes, size: int, before: JsonObject | None = None) -> JsonObject | None:
    """What a form has in its field `metadata`, when it comes in chunks of this size."""

    async def reading() -> JsonObject | None:
        form = FileForm(MULTIPART, stream(cut(body, range(0, len(body), size))), 1000, before)
        assert b"".join([piece async for piece in form.chunks()]) == b"abc"
        return form.metadata

    return asyncio.run(reading())


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("body", NOTES.values(), ids=NOTES)
def test_what_the_user_noted_is_read_wherever_it_stands(body: bytes, size: int) -> None:
    assert metadata_of(body + END, size) == {"user": 7, "a.b": [None]}


@pytest.mark.parametrize("text", [b"", b" \r\n"])
def test_nothing_noted_is_no_metadata(text: bytes) -> None:
    assert metadata_of(part(text, "metadata", None) + part(b"abc") + END, 100) is None
    assert metadata_of(part(text, "metadata", None) + part(b"abc") + END, 100, {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    "parts",
    [
        part(b"[1]", "metadata", None),
        part(b'{"a": "' + b"x" * 4096 + b'"}', "metadata", None),
        part(b"x" * 1_000_000, "metadata", None),
        part(b"{}", "metadata", None) * 2,
        part("{}".encode("utf-16"), "metadata", None),
    ],
    ids=["no object", "too large", "much too large", "twice", "UTF-16"],
)
def test_what_cannot_be_kept_with_a_job_is_refused(parts: bytes) -> None:
    for body in (parts + part(b"abc") + END, part(b"abc") + parts + END):
        for chunks in ([body], cut(body, range(0, len(body), 1000))):
            assert read(chunks) == Read(problem="metadata_invalid")


def test_metadata_in_the_address_and_in_the_form_is_too_much() -> None:
    with pytest.raises(ProblemError) as refused:
        metadata_of(part(NOTE, "metadata", None) + part(b"abc") + END, 100, {"user": 7})
    assert refused.value.kind.code == "metadata_invalid"


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_a_form_reads_the_same_however_it_is_cut_up(body: bytes, expected: Read) -> None:
    whole, bytewise = [body], [body[place : place + 1] for place in range(len(body))]
    assert read(whole) == expected
    assert read(bytewise) == expected
    for place in range(len(body)):
        assert read(cut(body, [place])) == expected, f"cut at {place}"


@given(st.sampled_from(sorted(BODIES)), st.data())
def test_a_form_reads_the_same_in_any_pieces(name: str, data: st.DataObject) -> None:
    body, expected = BODIES[name]
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    # A place twice makes an empty chunk, which servers pass on too.
    assert read(cut(body, places)) == expected


@example(TRICKY * 3, [5])
@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 400), max_size=6))
def test_any_bytes_arrive_as_they_were_sent(content: bytes, places: list[int]) -> None:
    if b"\r\n--" + BOUNDARY in content:
        return
    body = part(content) + END
    assert read(cut(body, [min(place, len(body)) for place in places])) == Read(content, "a.wav")


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
def test_no_bytes_break_the_reader(junk: bytes, places: list[int]) -> None:
    chunks = cut(junk, [min(place, len(junk)) for place in places])
    assert read(chunks).problem in {"form_malformed", "file_missing"}
    assert read([part(b"abc")[:-2], *chunks]).problem in {None, "form_malformed", "too_many_files", "file_missing"}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=x",
        "x" * 9000,
    ],
)
def test_what_is_no_form_has_no_file(content_type: str) -> None:
    assert read([b"abc"], content_type=content_type) == Read(problem="file_missing")


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 5000}"],
)
def test_a_form_without_a_usable_boundary_is_malformed(content_type: str) -> None:
    assert read([part(b"abc") + END], content_type=content_type) == Read(problem="form_malformed")


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="x-boundary"',
        "Multipart/Form-Data;boundary=x-boundary",
        "multipart/form-data; charset=utf-8; BOUNDARY=x-boundary; x=1",
    ],
)
def test_a_content_type_may_be_written_otherwise(content_type: str) -> None:
    assert read([part(b"abc") + END], content_type=content_type) == Read(b"abc", "a.wav")


@pytest.mark.parametrize("name", ["가" * 10_000, "🎤" * 10_000, "a\\" * 5_000, "x" * 10_000])
def test_a_name_of_ten_thousand_characters_is_taken(name: str) -> None:
    outcome = read([part(b"abc", filename=name) + END])
    assert (outcome.content, outcome.problem) == (b"abc", None)
    assert len(outcome.filename or "") >= 5_000


def test_a_boundary_may_have_any_character_even_unquoted() -> None:
    boundary = "----=_Part_0_(1)/2:3?4,5+6"
    body = (part(b"abc") + END).replace(BOUNDARY, boundary.encode())
    for written in (boundary, f'"{boundary}"'):
        assert read([body], content_type=f"multipart/form-data; boundary={written}") == Read(b"abc", "a.wav")


def test_a_name_that_is_no_utf8_is_taken() -> None:
    body = part(b"abc", filename="NAME").replace(b"NAME", b"\xff\xfe.wav") + END
    assert read([body]) == Read(b"abc", "��.wav")


def test_a_file_of_just_the_limit_is_taken_and_one_more_byte_is_not() -> None:
    assert read([part(bytes(100)) + END], max_bytes=100).content == bytes(100)
    assert read([part(bytes(101)) + END], max_bytes=100).problem == "upload_too_large"


def test_a_file_over_the_limit_is_refused_before_its_end_is_sent() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield part(b"")[:-2]
        while True:
            taken += 1000
            yield bytes(1000)

    assert read(endless(), max_bytes=10_000).problem == "upload_too_large"
    assert taken <= 12_000


def test_a_second_file_is_refused_before_its_end_is_sent() -> None:
    def endless() -> Iterator[bytes]:
        yield part(b"abc") + part(b"d")[:-2]
        raise AssertionError("read on")

    assert read(endless()).problem == "too_many_files"


BESIDE: dict[str, tuple[bytes, str]] = {
    "a picture after the file": (part(b"abc") + part(bytes(1_100_000), "cover", "c.png"), "form_malformed"),
    "a picture before the file": (part(bytes(1_100_000), "cover", "c.png") + part(b"abc"), "form_malformed"),
    "a long text": (part(bytes(1_100_000), "note", None), "form_malformed"),
}


@pytest.mark.parametrize(("body", "code"), BESIDE.values(), ids=BESIDE)
def test_what_is_beside_the_file_is_bounded(body: bytes, code: str) -> None:
    assert read([body, END]).problem == code


def test_base64_is_bounded_by_what_it_decodes_to() -> None:
    content = bytes(600_000)
    whole = part(base64.encodebytes(content), headers=["Content-Transfer-Encoding: base64"]) + END
    assert read(cut(whole, range(0, len(whole), 65_536)), max_bytes=600_000).content == content
    assert read([whole], max_bytes=599_999).problem == "upload_too_large"


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "a header value": (part(b"abc")[:-9] + b"\r\nX: ", b"x" * 4096),
    "a header name": (b"--" + BOUNDARY + b"\r\n", b"x" * 4096),
    "spaces before a header value": (b"--" + BOUNDARY + b"\r\nX:", b" " * 4096),
    "headers": (b"--" + BOUNDARY + b"\r\n", b"X: 1\r\n" * 700),
    "another field": (part(b"", "note", None)[:-2], b"x" * 4096),
    "many other fields": (b"", part(b"x" * 64, "note", None) * 20),
    "parts with nothing in them": (b"", part(b"", "note", None) * 40),
    "line breaks before the first boundary": (b"", b"\r\n" * 2048),
    "text after the end": (part(b"abc") + END, b"x" * 4096),
    "an empty part after the file": (part(b"abc"), part(b"", "note", None) * 40),
}
FLOOD_BYTES = 4 * 1024 * 1024


@pytest.mark.parametrize(("begin", "flood"), FLOODS.values(), ids=FLOODS)
def test_a_flood_around_the_file_is_cut_off_early_and_held_in_bounded_memory(begin: bytes, flood: bytes) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield begin
        while taken < FLOOD_BYTES:
            taken += len(flood)
            yield flood

    tracemalloc.start()
    try:
        outcome = read(endless(), max_bytes=1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.problem is not None
    assert taken < FLOOD_BYTES
    assert peak < FLOOD_BYTES


def test_a_client_that_sends_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "IDLE_SECONDS", 0.01)

    async def stalled() -> AsyncIterator[bytes]:
        yield part(b"abc")[:-5]
        await asyncio.Event().wait()

    async def reading() -> None:
        async for _ in FileForm(MULTIPART, stalled(), 1000).chunks():
            pass

    with pytest.raises(ProblemError) as refused:
        asyncio.run(reading())
    assert (refused.value.kind.code, refused.value.close) == ("upload_too_slow", True)


@pytest.mark.parametrize(
    ("name", "closes"), [("no end", True), ("two files", True), ("no file field", False), ("an empty file", False)]
)
def test_a_connection_is_closed_when_more_may_be_on_its_way(name: str, closes: bool) -> None:
    async def reading() -> None:
        async for _ in FileForm(MULTIPART, stream([BODIES[name][0]]), 1000).chunks():
            pass

    with pytest.raises(ProblemError) as refused:
        asyncio.run(reading())
    assert refused.value.close is closes


def test_pieces_come_out_while_the_body_still_arrives() -> None:
    async def reading() -> list[bytes]:
        seen: list[bytes] = []

        async def arriving() -> AsyncIterator[bytes]:
            yield part(b"")[:-2]
            for number in range(3):
                yield b"%d" % number * 500
                # What came before was handed on before the next was asked for.
                assert number == 0 or b"".join(seen).startswith(b"%d" % (number - 1) * 400, (number - 1) * 500)
            yield b"\r\n" + END

        async for piece in FileForm(MULTIPART, arriving(), 10_000).chunks():
            seen.append(piece)  # noqa: PERF401 - looked at while it grows
        return seen

    assert b"".join(asyncio.run(reading())) == b"0" * 500 + b"1" * 500 + b"2" * 500


def test_a_part_of_another_name_decides_nothing_on_either_side_of_the_file() -> None:
    blob = part(bytes(1_000_000), "details", "blob", ["Content-Type: application/json"])
    for body in (blob + part(b"abc"), part(b"abc") + blob):
        assert read(cut(body + END, range(0, len(body), 65_536))) == Read(b"abc", "a.wav")


def test_who_wrote_the_content_type_by_hand_is_told_so() -> None:
    with pytest.raises(ProblemError) as refused:
        FileForm("multipart/form-data", stream([]), 1000)
    assert "Do not set Content-Type" in refused.value.kind.english[1]
