"""What a call of the webhook becomes: the event of it, what cannot be read, and what is too large to keep."""

import asyncio
import codecs
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events
from contracts.events import JsonObject
from contracts.json_text import Fault, UnreadableError, read_object
from contracts.problems import WEBHOOK_FAULTS
from contracts.webhook import ENVELOPE_BYTES
from gateway.webhook.bodies import UnsupportedEncodingError
from gateway.webhook.calls import BodyTooLargeError, Call, call_of, read_call, webhook_event
from tests.unit import stories

BODY: JsonObject = {"status": "success", "result": {"score": 1}}
TEXT = events.to_json(BODY).encode()
LIMIT = 20_000


def test_the_same_webhook_call_is_the_same_event() -> None:
    first = webhook_event(stories.JOB_ID, 1, BODY, stories.TRACEPARENT)
    assert first.id == webhook_event(stories.JOB_ID, 1, dict(BODY), stories.TRACEPARENT).id


@pytest.mark.parametrize(
    ("attempt", "body"), [(2, BODY), (1, {"status": "failed"}), (1, {**BODY, "job_id": "1"}), (1, None)]
)
def test_another_webhook_call_is_another_event(attempt: int, body: JsonObject | None) -> None:
    first = webhook_event(stories.JOB_ID, 1, BODY, stories.TRACEPARENT)
    assert first.id != webhook_event(stories.JOB_ID, attempt, body, stories.TRACEPARENT).id


def test_a_webhook_event_carries_the_body_and_the_trace() -> None:
    event = webhook_event(stories.JOB_ID, 3, BODY, stories.TRACEPARENT)
    assert isinstance(event, events.AnalysisWebhookReceived)
    assert (event.data.attempt, event.data.body) == (3, BODY)
    assert (event.subject, event.trace_id) == (stories.JOB_ID, stories.TRACE_ID)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"status": "success", "result": {"a": 1}}, len('{"a":1}')),
        ({"status": "completed", "analysis_results": {"가": None}}, len('{"가":null}'.encode())),
        ({"status": "success", "result": {"a": 1e15}}, len('{"a":1000000000000000.0}')),
        ({"status": "success", "result": '{"a": 1}'}, len('{"a":1}')),
        ({"status": "failed", "error": "x" * 100}, 0),
        ({"status": "success", "result": "x" * 100}, 0),
        ({"status": "processing", "padding": "x" * 100}, 0),
        ({"padding": "x" * 100}, 0),
    ],
)
def test_the_limit_is_on_the_result_alone_as_it_is_kept(body: JsonObject, size: int) -> None:
    assert call_of(body, size).body == body
    assert (call_of(body, size - 1).body is None) == (size > 0)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({"status": "success", "result": {"a": 1}}, {"status": "success", "result": {"a": 1}}),
        ({"status": "done"}, {"status": "success"}),
        ({"status": "errored", "error": "no speech"}, {"status": "failed", "error": "no speech"}),
        ({"status": "thinking", "progress": "40"}, {"status": "processing", "progress": 40}),
    ],
)
def test_of_a_body_that_is_large_beside_its_result_the_shortest_is_kept_that_says_the_same(
    body: JsonObject, kept: JsonObject
) -> None:
    large: JsonObject = {**body, "log": "x" * 20_000}
    call = call_of(large, 100)
    assert call.body == kept
    assert call.interim == ("progress" in kept)


@pytest.mark.parametrize(("levels", "too_deep"), [(98, False), (99, True), (150, True), (100_000, True)])
async def test_what_is_nested_so_deeply_that_an_event_could_not_carry_it_is_unreadable(
    levels: int, *, too_deep: bool
) -> None:
    content = b'{"status": "success", "result": ' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"
    if too_deep:
        assert await fault_of(content) == "too_deep"
        return
    body = (await read(content)).body
    event = webhook_event(stories.JOB_ID, 1, body, stories.TRACEPARENT)
    assert events.decode(event.encode()) == event


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + TEXT,
        b"\xef\xbb\xbf \n" + TEXT,
        json.dumps(TEXT.decode()).encode(),
    ],
    ids=["a byte order mark", "a byte order mark and space", "JSON text of JSON"],
)
async def test_a_body_is_read_generously(content: bytes) -> None:
    assert await read(content) == Call(BODY)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (rb'{"result": {"t": "\ud83d"}}', {"t": "\ufffd"}),
        (rb'{"result": {"\udE00": ["\uD83D\ude00", "\ude00\ud83d"]}}', {"\ufffd": ["\U0001f600", "\ufffd\ufffd"]}),
        (rb'{"result": {"t": "\\ud83d \"\n"}}', {"t": '\\ud83d "\n'}),
        (rb'{"result": {"t": "\\\ud83d\ud83d"}}', {"t": "\\\ufffd\ufffd"}),
        (b'{"result": {"t": "\xed\xa0\xbd-\xed\xa0\xbd\xed\xb8\x80"}}', {"t": "\ufffd-\U0001f600"}),
    ],
    ids=["in a value", "in a key and a list", "only a backslash", "after a backslash", "as bytes"],
)
async def test_a_surrogate_that_is_alone_is_replaced_wherever_it_is(sent: bytes, kept: JsonObject) -> None:
    body = (await read(sent)).body
    assert body == {"result": kept}
    event = webhook_event(stories.JOB_ID, 1, body, stories.TRACEPARENT)
    assert events.decode(event.encode()) == event


@given(st.text(st.sampled_from('\\u"dD8cC0e,') | st.characters(codec="utf-8")))
def test_no_string_that_is_json_is_changed(text: str) -> None:
    assert read_object(json.dumps({"t": text})) == {"t": text}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (TEXT.decode().encode("utf-16"), "not_utf8"),
        (TEXT.decode().encode("utf-32"), "not_utf8"),
        ('{"status": "ok", "result": {"t": "소리"}}'.encode("euc-kr"), "not_utf8"),
        (TEXT.decode().encode("utf-16-le"), "not_utf8"),
        (b"", "not_json"),
        (b"analysis complete", "not_json"),
        (TEXT[:-1], "not_json"),
        (b"status=success", "not_json"),
        (b"[1]", "not_object"),
        (b"null", "not_object"),
        (b'"text"', "not_object"),
        (b"17", "not_object"),
        (b"[" * 100_000, "too_deep"),
        (gzip.compress(TEXT)[:-9], "damaged"),
        (gzip.compress(b"x" * 100)[:20] + b"\xff" * 30, "damaged"),
    ],
)
async def test_what_cannot_be_read_is_told_what_is_wrong_with_it(content: bytes, fault: str) -> None:
    assert await fault_of(content) == fault
    assert {"damaged", "not_utf8", "not_json", "not_object", "too_deep"} == WEBHOOK_FAULTS.keys()


def _raw_deflate(content: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(content) + packing.flush()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "X-GZip"),
        (gzip.compress(codecs.BOM_UTF8 + TEXT), " gzip , identity"),
        (gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]) + bytes(7), "gzip"),
        (gzip.compress(TEXT), ""),
        (TEXT, "gzip"),
        (zlib.compress(TEXT), "deflate"),
        (_raw_deflate(TEXT), "deflate"),
        (TEXT, "deflate"),
        (TEXT, "identity"),
        (TEXT, "none"),
        (TEXT, " , "),
    ],
)
async def test_a_packed_body_is_unpacked(content: bytes, encoding: str) -> None:
    assert await read(content, encoding) == Call(BODY)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "utf-8"])
async def test_another_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncodingError):
        await read(TEXT, encoding)


def _text(status: str, size: int) -> bytes:
    return json.dumps({"status": status, "result": {"blob": "x" * size}}).encode()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("size", [LIMIT, 10 * LIMIT, 200 * LIMIT])
async def test_a_success_whose_result_is_known_to_be_too_large_ends_the_job(
    pack: Callable[[bytes], bytes], size: int
) -> None:
    assert await read(pack(_text("success", size)), max_result_bytes=LIMIT) == Call(None)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("status", ["failed", "processing"])
async def test_no_other_large_body_does(pack: Callable[[bytes], bytes], status: str) -> None:
    call = await read(pack(_text(status, 3 * LIMIT)), max_result_bytes=LIMIT)
    assert call.body is not None
    assert call.interim == (status == "processing")
    with pytest.raises(BodyTooLargeError):
        await read(pack(_text(status, 200 * LIMIT)), max_result_bytes=LIMIT)


async def test_a_result_is_measured_as_it_is_kept_not_as_it_is_written() -> None:
    """A body in ASCII with space around takes several times what is kept of it."""
    result: JsonObject = {"t": "소리" * (LIMIT // 10)}
    written = json.dumps({"status": "success", "result": result}, ensure_ascii=True).encode() + b" " * LIMIT
    assert len(written) > LIMIT + ENVELOPE_BYTES > len(events.to_json(result).encode())
    assert (await read(written, max_result_bytes=LIMIT)).body == {"status": "success", "result": result}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("content", [b"[" * 10**7, b" " * 10**7, b"x" * 10**7, b"\xff" * 10**7])
async def test_what_is_large_and_no_object_is_unreadable(pack: Callable[[bytes], bytes], content: bytes) -> None:
    with pytest.raises(UnreadableError):
        await read(pack(content), max_result_bytes=LIMIT)


async def test_of_what_never_ends_no_more_than_the_bound_is_read() -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield b'{"status": "processing", "log": "'
        while True:
            taken += 1000
            yield b"x" * 1000

    with pytest.raises(BodyTooLargeError):
        await read_call(endless(), "", LIMIT)
    assert taken < 10 * LIMIT


async def read(content: bytes, encoding: str = "", max_result_bytes: int = 10**6) -> Call:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 70_001):
            yield content[at : at + 70_001]

    return await read_call(chunks(), encoding, max_result_bytes)


async def fault_of(content: bytes) -> Fault:
    with pytest.raises(UnreadableError) as refused:
        await read(content)
    return refused.value.fault


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
async def test_a_large_body_is_read_beside_the_event_loop(
    pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def reading(body: JsonObject, max_result_bytes: int) -> Call:
        try:
            asyncio.get_running_loop()
            threads.append(False)
        except RuntimeError:
            threads.append(True)
        return call_of(body, max_result_bytes)

    async def arriving(content: bytes) -> AsyncIterator[bytes]:
        yield content

    monkeypatch.setattr("gateway.webhook.calls.call_of", reading)
    large = b'{"status":"success","result":{"a":[' + b"[]," * 100_000 + b"[]]}}"
    await read_call(arriving(pack(large)), "", 1 << 20)
    await read_call(arriving(TEXT), "", 1 << 20)
    assert threads == [True, False]
