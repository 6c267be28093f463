"""Reference audio: how a token gets it, what its recordings are given of it, and that it goes once nothing needs it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chassis.errors import BackEndError
from contracts.addresses import CatalogueAddresses
from contracts.audio import CONTAINERS, UNKNOWN_TYPE, Container
from contracts.catalogue import LARGEST_ID, Script, Token
from contracts.events import JsonObject, Reference, ReferenceScript
from decoding.errors import RejectedError
from gateway.catalogue.rows import ChangedError, RevisedRow, TokenNotFoundError
from gateway.references.references import Record, References, UploadTooLateError, key_in
from gateway.references.sweeper import ReferenceSweeper
from tests.support.gateway_stores import Bucket
from tests.support.references import Decoder, Records, Tokens
from tests.support.waiting import until_true

TOKEN = Token(id=7, token_name="Truth", actor_name="Jack", start_time=61.5, end_time=66.0)
SOUND = b"RIFF and so on"
AGE = timedelta(hours=1)


class File:
    """A file that is still arriving; `read` tells whether anybody began to."""

    filename: str | None = "a.wav"
    metadata: JsonObject | None = None

    def __init__(self, content: bytes = SOUND, *, waits_for: asyncio.Event | None = None) -> None:
        self.read = False
        self._content = content
        self._waits_for = waits_for

    async def chunks(self) -> AsyncIterator[bytes]:
        self.read = True
        yield self._content[:4]
        if self._waits_for is not None:
            await self._waits_for.wait()
        yield self._content[4:]


class Killed(BaseException):
    """What ends a process at once."""


class World:
    """References with stand-ins for MongoDB and S3; the process is killed once, when `lives` steps are done."""

    def __init__(self, *tokens: Token, scripts: tuple[Script, ...] = ()) -> None:
        self.lives = -1
        self.tokens = Tokens(*(tokens or (TOKEN,)), scripts=scripts, step=self._step)
        self.records = Records(self.tokens, self._step)
        self.bucket = Bucket(self._step)
        self.decoder = Decoder()
        self.references = References(self.tokens, self.records, self.bucket, self.decoder, CatalogueAddresses("sori"))
        self.sweeper = ReferenceSweeper(self.records, self.bucket, AGE)

    def _step(self) -> None:
        self.lives -= 1
        if self.lives == 0:
            raise Killed

    @property
    def named(self) -> str | None:
        """The key that the token names."""
        url = self.tokens.kept[TOKEN.id].row.reference_audio_url
        return None if url is None else key_in(url)

    async def put(self, content: bytes = SOUND, expected: frozenset[int] | None = None) -> RevisedRow[Token]:
        return await self.references.replace(TOKEN.id, File(content), expected)

    async def look(self, *, after: timedelta = timedelta(0)) -> None:
        """Let the sweeper look, once so much time has passed."""
        await self.sweeper.look(datetime.now(UTC) + after - AGE)

    async def looks_for_long(self) -> None:
        """Let it look until it has seen everything that it will ever see."""
        for _ in range(4):
            await self.look(after=AGE * 2)


def script(script_id: int, start_time: float, end_time: float, token_id: int = TOKEN.id) -> Script:
    return Script(id=script_id, token_id=token_id, start_time=start_time, end_time=end_time, script=f"No. {script_id}")


async def test_a_token_names_what_was_uploaded_for_it() -> None:
    world = World()
    kept = await world.put()
    assert kept == world.tokens.kept[TOKEN.id]
    assert kept.revision == 2
    assert kept.row.reference_audio_url == f"s3://sori/{world.named}"
    assert world.bucket.objects == {world.named: SOUND}
    assert str(world.named).startswith("references/7/")


@pytest.mark.parametrize("found", CONTAINERS)
async def test_it_is_kept_with_the_type_that_browsers_play_it_by(found: Container) -> None:
    world = World()
    world.decoder.container = found.name
    await world.put()
    assert world.bucket.types == {world.named: found.media_type}


async def test_what_cannot_be_decoded_is_refused_and_nothing_of_it_is_kept() -> None:
    world = World()
    await world.put()
    before = world.named
    with pytest.raises(RejectedError, match="not_audio"):
        await world.put(b"<!doctype html><html>")
    assert (world.named, list(world.bucket.objects)) == (before, [before])
    assert list(world.records.kept) == [before]


@pytest.mark.parametrize("url", [None, "https://elsewhere.example/a.wav", "catalogue/7.wav", "s3://other/{}"])
async def test_only_what_was_uploaded_here_is_given_out(url: str | None) -> None:
    world = World()
    await world.put()
    key = world.named
    assert await world.references.key_of(TOKEN.id) == key
    world.tokens.name(TOKEN.id, key)
    assert await world.references.key_of(TOKEN.id) == key, "a bare key is one of the bucket"
    world.tokens.name(TOKEN.id, url and url.format(key))
    assert await world.references.key_of(TOKEN.id) is None
    with pytest.raises(TokenNotFoundError):
        await world.references.key_of(8)


async def test_a_reference_is_never_written_over() -> None:
    world = World()
    await world.put(b"first")
    first = world.named
    await world.put(b"second")
    assert world.named != first
    assert world.bucket.objects == {first: b"first", world.named: b"second"}


async def test_for_an_unknown_token_nothing_is_read() -> None:
    world, file = World(), File()
    with pytest.raises(TokenNotFoundError):
        await world.references.replace(8, file, None)
    assert not file.read
    assert world.records.kept == {}


async def test_for_a_token_that_was_changed_nothing_is_read() -> None:
    world, file = World(), File()
    with pytest.raises(ChangedError) as refused:
        await world.references.replace(TOKEN.id, file, frozenset({2, 3}))
    assert refused.value.revision == 1
    assert not file.read
    assert (await world.put(expected=frozenset({1}))).revision == 2


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "changed"])
async def test_a_token_that_is_changed_while_the_file_comes_is_left_alone(removed: bool) -> None:
    world, going = World(), asyncio.Event()
    file = File(waits_for=going)
    putting = asyncio.create_task(world.references.replace(TOKEN.id, file, frozenset({1})))
    await until_true(lambda: file.read, "the file being read")
    if removed:
        del world.tokens.kept[TOKEN.id]
    else:
        world.tokens.name(TOKEN.id, None)
    going.set()
    with pytest.raises(TokenNotFoundError if removed else ChangedError):
        await putting
    await world.looks_for_long()
    assert (world.bucket.objects, world.records.kept) == ({}, {})


async def test_of_two_at_once_the_later_one_stays_and_the_other_is_swept() -> None:
    world, going = World(), asyncio.Event()
    late = asyncio.create_task(world.references.replace(TOKEN.id, File(b"the later", waits_for=going), None))
    await world.put(b"the earlier")
    going.set()
    await late
    assert sorted(world.bucket.objects.values()) == [b"the earlier", b"the later"]
    await world.looks_for_long()
    assert world.bucket.objects == {world.named: b"the later"}
    assert set(world.records.kept) == {world.named}


@pytest.mark.parametrize("lives", range(1, 17))
async def test_wherever_a_gateway_dies_nothing_stays_but_what_the_token_names(lives: int) -> None:
    world = World()
    world.lives = lives
    for _ in range(2):
        try:
            await world.put()
        except Killed:
            break
    else:
        pytest.fail("it did not die")
    for _ in range(6):
        await world.look(after=AGE * 2)
    assert set(world.records.kept) == set(world.bucket.objects) == {world.named} - {None}


@pytest.mark.parametrize("lives", range(1, 13))
async def test_wherever_a_sweeper_dies_the_next_one_goes_on(lives: int) -> None:
    world = World()
    await world.put(b"first")
    beside = f"{world.named}.analysis-1"
    await world.look()
    await world.put(b"second")
    world.bucket.objects[beside] = b"of the first"
    world.lives, died = lives, False
    for _ in range(8):
        try:
            await world.look(after=AGE * 2)
        except Killed:
            died = True
    assert died
    assert set(world.records.kept) == set(world.bucket.objects) == {world.named}


async def test_what_a_recording_on_its_way_may_need_stays_for_as_long_as_the_age_says() -> None:
    world = World()
    await world.put(b"first")
    first = str(world.named)
    await world.put(b"second")
    await world.look()
    await world.look(after=AGE - timedelta(minutes=1))
    assert first in world.bucket.objects
    await world.look(after=AGE + timedelta(minutes=1))
    assert first not in world.bucket.objects


async def test_the_age_counts_from_when_a_token_named_it_last() -> None:
    world = World()
    await world.put()
    for _ in range(3):
        await world.look(after=AGE * 10)
    assert world.bucket.objects, "a token names it"
    world.tokens.name(TOKEN.id, None)
    await world.look(after=AGE * 10)
    assert world.bucket.objects, "seen for the first time that none does"
    await world.look(after=AGE + timedelta(minutes=1))
    assert world.bucket.objects == {}


@pytest.mark.parametrize("how", ["the token is deleted", "another is named", "none is named"])
async def test_however_a_token_comes_to_name_it_no_more_it_is_swept(how: str) -> None:
    world = World()
    await world.put()
    if how == "the token is deleted":
        world.tokens.kept.clear()
    else:
        world.tokens.name(TOKEN.id, "https://elsewhere.example/a.wav" if how == "another is named" else None)
    await world.looks_for_long()
    assert (world.bucket.objects, world.records.kept) == ({}, {})


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "s3://sori/{}",
        "https://sori.s3.us-east-1.amazonaws.com/{}",
        "https://s3.us-east-1.amazonaws.com/sori/{}?versionId=1",
    ],
)
async def test_in_whichever_form_a_token_names_it_it_stays(form: str) -> None:
    world = World(TOKEN, TOKEN.model_copy(update={"id": 8}))
    await world.put()
    key = str(world.named)
    world.tokens.name(TOKEN.id, None)
    world.tokens.name(8, form.format(key))
    await world.looks_for_long()
    assert set(world.bucket.objects) == {key}


async def test_what_is_named_again_in_time_stays() -> None:
    world = World()
    await world.put()
    key = str(world.named)
    world.tokens.name(TOKEN.id, None)
    await world.look()
    world.tokens.name(TOKEN.id, f"s3://sori/{key}")
    await world.looks_for_long()
    assert set(world.bucket.objects) == {key}
    assert world.records.kept == {key: Record(key)}


async def test_what_the_analysis_server_keeps_of_a_reference_goes_with_it_even_if_it_comes_late() -> None:
    world = World(TOKEN, TOKEN.model_copy(update={"id": 77}))
    await world.put()
    key = str(world.named)
    await world.references.replace(77, File(), None)
    other = str(key_in(str(world.tokens.kept[77].row.reference_audio_url)))
    of_others = {other, f"{other}.analysis-1", f"analysis/{other}.1"}
    world.bucket.objects |= {f"{key}.analysis-1": b"by an earlier version", f"analysis/{key}.1": b""}
    world.bucket.objects |= dict.fromkeys(of_others, b"")
    world.tokens.name(TOKEN.id, None)
    await world.look()
    await world.look(after=AGE * 2)
    assert set(world.bucket.objects) == of_others
    world.bucket.objects[f"analysis/{key}.2"] = b"by a job that was under way"
    await world.look()
    assert key in world.records.kept, "not at once: it may still be under way"
    await world.look(after=AGE * 2)
    assert set(world.bucket.objects) == of_others
    assert set(world.records.kept) == {other}


async def test_an_upload_that_took_longer_than_the_age_names_nothing_that_was_swept() -> None:
    world = World()

    class SweptMeanwhile(Bucket):
        async def write(self, key: str, chunks: AsyncIterator[bytes], content_type: str = UNKNOWN_TYPE) -> None:
            await world.look(after=AGE * 2)
            await super().write(key, chunks, content_type)

    store = SweptMeanwhile()
    references = References(world.tokens, world.records, store, world.decoder, CatalogueAddresses("sori"))
    with pytest.raises(UploadTooLateError):
        await references.replace(TOKEN.id, File(), None)
    world.bucket.objects = store.objects
    assert world.named is None
    await world.looks_for_long()
    assert (world.bucket.objects, world.records.kept) == ({}, {})


async def test_one_that_is_taken_into_use_while_the_sweeper_looks_is_not_swept() -> None:
    world = World()

    class Between(Records):
        async def condemn(self, record: Record) -> bool:
            assert await self.renew(record.key)
            return await super().condemn(record)

    await world.put()
    world.tokens.name(TOKEN.id, None)
    await world.look()
    records = Between(world.tokens)
    records.kept = world.records.kept
    await ReferenceSweeper(records, world.bucket, AGE).look(datetime.now(UTC) + AGE)
    assert world.bucket.objects


async def test_the_sweeper_aborts_what_was_begun_long_ago_and_bears_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    failures = [ConnectionError("down")]

    async def fail_once(prefix: str, moment: datetime) -> int:
        if failures:
            raise failures.pop()
        world.bucket.aborted.append((prefix, moment))
        return 1

    monkeypatch.setattr(world.bucket, "abort_unfinished", fail_once)
    sweeper = ReferenceSweeper(world.records, world.bucket, timedelta(milliseconds=20))
    with capture_logs() as logs:
        sweeper.start()
        await until_true(lambda: bool(world.bucket.aborted), "a look after the outage")
        await sweeper.stop()
    assert world.bucket.aborted[0][0] == "references/"
    assert [entry["event"] for entry in logs[:2]] == ["reference sweeper waits", "references swept"]


async def test_a_recording_is_given_all_that_its_token_has() -> None:
    token = TOKEN.model_copy(
        update={
            "reference_audio_url": "s3://sori/references/7/00000000000000aa",
            "s3_textgrid_url": "catalogue/7 jack.TextGrid",
            "s3_pitch_url": "https://sori.s3.amazonaws.com/catalogue/7.json",
        }
    )
    world = World(token, scripts=(script(11, 61.6, 63.2), script(12, 63.3, 66.0), script(13, 1, 2, token_id=8)))
    assert await world.references.of("7") == Reference(
        audio_url="s3://sori/references/7/00000000000000aa",
        textgrid_url="s3://sori/catalogue/7 jack.TextGrid",
        pitch_url="https://sori.s3.amazonaws.com/catalogue/7.json",
        scripts=[
            ReferenceScript(script_id=11, start_seconds=0.1, end_seconds=1.7, script="No. 11"),
            ReferenceScript(script_id=12, start_seconds=1.8, end_seconds=4.5, script="No. 12"),
        ],
    )


async def test_what_a_token_names_of_other_peoples_files_is_not_used() -> None:
    """A row may be older than the rule that the catalogue's routes and imports keep."""
    names = {
        "reference_audio_url": "s3://sori/audio/73732cad-5149-44d4-a954-e9c4781635c3.wav",
        "s3_textgrid_url": "inbox/73732cad-5149-44d4-a954-e9c4781635c3",
        "s3_pitch_url": "https://sori.s3.amazonaws.com/audio/73732cad-5149-44d4-a954-e9c4781635c3.wav",
    }
    world = World(TOKEN.model_copy(update=names))
    with capture_logs() as logs:
        assert await world.references.of("7") == Reference()
    assert {(entry["event"], entry["token_id"], entry["field"]) for entry in logs} == {
        ("address of the catalogue not used", 7, name) for name in names
    }


async def test_a_token_that_has_nothing_gives_nothing_but_is_in_the_catalogue() -> None:
    assert await World().references.of("7") == Reference()
    assert await World().references.of("8") is None


@given(token_id=st.text() | st.integers().map(str))
@pytest.mark.parametrize(
    "one", ["07", "+7", " 7", "7 ", "7.0", "-7", "0", "٧", "7\n", str(LARGEST_ID + 1), "test-token"]
)
async def test_an_opaque_token_id_asks_the_catalogue_nothing(one: str, token_id: str) -> None:
    world = World()
    assert await world.references.of(one) is None
    assert world.tokens.asked == 0
    canonical = token_id.isascii() and token_id.isdecimal() and 1 <= int(token_id) <= LARGEST_ID
    await world.references.of(token_id)
    assert bool(world.tokens.asked) == (canonical and str(int(token_id)) == token_id)


@pytest.mark.parametrize(
    "address",
    [
        "references/7/0123456789abcdef",
        "s3://sori/references/7/0123456789abcdef",
        "https://sori.s3.amazonaws.com/references/7/0123456789abcdef?versionId=1",
        "https://sori.s3.amazonaws.com/references%2F7%2F0123456789abcdef",
        "https://s3.amazonaws.com/sori/%72eferences/7/0123456789%61bcdef",
    ],
)
def test_a_reference_is_known_by_any_form_of_its_address(address: str) -> None:
    assert key_in(address) == "references/7/0123456789abcdef"


async def test_a_reference_that_the_store_keeps_holds_up_no_other() -> None:
    world = World()
    world.tokens.name(TOKEN.id, None)

    class Keeping(Bucket):
        async def remove_under(self, prefix: str) -> None:
            if prefix == "references/7/0123456789abcde0":
                raise BackEndError("S3", "AccessDenied")
            await super().remove_under(prefix)

    bucket = Keeping()
    keys = [f"references/7/0123456789abcde{number}" for number in range(3)]
    for key in keys:
        await world.records.add(key, "audio/wav")
        bucket.objects[key] = SOUND
    await ReferenceSweeper(world.records, bucket, AGE).look(datetime.now(UTC) + AGE)
    assert set(bucket.objects) == {keys[0]}
