"""The catalogue as a front end uses it, through the edge: tokens, scripts and actors."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.support.answers import LANGUAGES, assert_problem, assert_sentence
from tests.support.bucket import Bucket
from tests.support.sori import Sori

NOBODY = 2**31 - 1
ALL_FIELDS = {
    "token_name": "신에게는 아직 열두 척의 배가",
    "actor_name": "최민식",
    "category": "사극",
    "start_time": 61.25,
    "end_time": 66.5,
    "s3_textgrid_url": "references/1.TextGrid",
    "s3_pitch_url": "catalogue/pitch.json",
    "s3_bgvoice_url": "https://bucket.s3.amazonaws.com/bg.wav",
    "youtube_url": "https://www.youtube.com/watch?v=c0ffee",
    "thumbnail_url": "https://img.example/1.jpg",
    "reference_audio_url": "https://bucket.s3.amazonaws.com/actor.wav",
}
FEW_FIELDS = {"token_name": "The Speech", "actor_name": "Nobody", "start_time": 0, "end_time": 0.5}
ROWS = ("tokens", "scripts", "actors")


class Shelf:
    """The catalogue at the edge; every answer must be what it is meant to be."""

    def __init__(self, sori: Sori) -> None:
        self._sori = sori

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **query: Any
    ) -> httpx.Response:
        """The answer, whatever it is."""
        given = {} if body is None else {"json": body}
        return await self._sori.client.request(
            method, self._sori.url + path, headers=headers, params=query or None, follow_redirects=False, **given
        )

    async def read(self, path: str, **query: Any) -> Any:
        """What is there."""
        answer = await self.ask("GET", path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def add(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A new row."""
        answer = await self.ask("POST", path, body)
        assert answer.status_code == 201, answer.text
        row: dict[str, Any] = answer.json()
        assert answer.headers["location"] == f"{path.rstrip('/')}/{row['id']}"
        assert answer.headers["etag"] == '"1"'
        return row

    async def token(self, **fields: Any) -> dict[str, Any]:
        """A new token."""
        return await self.add("/tokens/", {**FEW_FIELDS, **fields})

    async def script(self, token_id: int, **fields: Any) -> dict[str, Any]:
        """A new script."""
        body = {"token_id": token_id, "start_time": 0, "end_time": 1, "script": "Ask not.", **fields}
        return await self.add("/scripts/", body)

    async def row(self, kind: str) -> tuple[str, dict[str, Any]]:
        """A new row of this kind: its address, and its body."""
        if kind == "tokens":
            body = dict(FEW_FIELDS)
        elif kind == "scripts":
            token_id = (await self.token())["id"]
            body = {"token_id": token_id, "start_time": 0, "end_time": 1, "script": "Ask not."}
        else:
            body = {"name": unique("배우"), "aliases": ["별명"]}
        return f"/{kind}/{(await self.add(f'/{kind}/', body))['id']}", body


@pytest.fixture
def shelf(sori: Sori) -> Shelf:
    return Shelf(sori)


def unique(name: str) -> str:
    """A name that no other test uses."""
    return f"{name} {uuid.uuid4().hex[:12]}"


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_token_is_added_read_replaced_and_removed_with_and_without_a_slash(shelf: Shelf, slash: str) -> None:
    added = await shelf.add(f"/tokens{slash}", ALL_FIELDS)
    address = f"/tokens/{added['id']}{slash}"
    assert added == {**ALL_FIELDS, "id": added["id"], "view_count": 0}
    assert await shelf.read(address) == {**added, "scripts": []}
    assert added in await shelf.read(f"/tokens{slash}", sort="latest", limit=100)
    replaced = await shelf.ask("PUT", address, FEW_FIELDS)
    assert (replaced.status_code, replaced.headers["etag"]) == (200, '"2"')
    stays = {"reference_audio_url": ALL_FIELDS["reference_audio_url"]}
    bare = {**FEW_FIELDS, "id": added["id"], "view_count": 0}
    assert replaced.json() == {**bare, **stays}, "what it had and has not is absent, but for its reference"
    assert (await shelf.ask("PUT", address, {**FEW_FIELDS, "reference_audio_url": None})).json() == bare
    removed = await shelf.ask("DELETE", address)
    assert (removed.status_code, removed.content) == (204, b"")
    assert_problem(await shelf.ask("GET", address), 404, "token_not_found")


@pytest.mark.parametrize("slash", ["", "/"])
async def test_scripts_are_read_alone_and_with_their_token_by_start_time(shelf: Shelf, slash: str) -> None:
    token_id = (await shelf.token())["id"]
    times = (3.5, 0.5, 2)
    last, first, middle = [
        await shelf.script(token_id, start_time=time, end_time=time + 1, script=f"문장 {time}") for time in times
    ]
    translated = {**first, "translation": "Sentence", "start_time": 0.25}
    put = await shelf.ask("PUT", f"/scripts/{first['id']}{slash}", {k: v for k, v in translated.items() if k != "id"})
    assert put.json() == translated
    in_order = [translated, middle, last]
    assert (await shelf.read(f"/tokens/{token_id}{slash}"))["scripts"] == in_order
    assert await shelf.read(f"/scripts/token/{token_id}{slash}") == in_order
    assert await shelf.read(f"/scripts/{middle['id']}{slash}") == middle
    assert (await shelf.ask("DELETE", f"/scripts/{middle['id']}{slash}")).status_code == 204
    assert await shelf.read(f"/scripts/token/{token_id}") == [translated, last]
    assert (await shelf.ask("DELETE", f"/tokens/{token_id}")).status_code == 204
    for script in in_order:
        assert_problem(await shelf.ask("GET", f"/scripts/{script['id']}"), 404, "script_not_found")


@pytest.mark.parametrize("slash", ["", "/"])
async def test_actors_are_found_by_names_and_aliases_and_give_their_tokens(shelf: Shelf, slash: str) -> None:
    name, alias = unique("최민식"), unique("Choi/Min-sik")
    actor = await shelf.add(f"/actors{slash}", {"name": name, "aliases": [alias]})
    assert actor == {"id": actor["id"], "name": name, "aliases": [alias]}
    assert await shelf.read(f"/actors/{actor['id']}{slash}") == actor
    for part in (name, name[1:].upper(), alias.lower(), alias[3:], "민식 " + name.split()[-1]):
        assert await shelf.read(f"/actors/search/{part}{slash}") == [actor], part
    tokens = [await shelf.token(actor_name=names) for names in (name.upper(), f"누구, {alias.lower()}")]
    await shelf.token(actor_name=name + " 2")
    assert await shelf.read(f"/actors/{actor['id']}/tokens{slash}") == tokens
    assert await shelf.read(f"/actors/{actor['id']}/tokens", skip=1, limit=1) == tokens[1:]
    for same in (name, name.upper(), f" {name} "):
        for language, header in LANGUAGES.items():
            answer = await shelf.ask("POST", f"/actors{slash}", {"name": same}, headers={"Accept-Language": header})
            assert_problem(answer, 409, "actor_exists", language)
    other = await shelf.add("/actors/", {"name": unique("다른 배우"), "aliases": [alias]})
    assert await shelf.read(f"/actors/search/{alias}") == [actor, other], "an alias may be several actors'"
    assert_problem(await shelf.ask("PUT", f"/actors/{other['id']}", {"name": name}), 409, "actor_exists")
    assert (await shelf.ask("DELETE", f"/actors/{other['id']}{slash}")).status_code == 204
    assert_problem(await shelf.ask("GET", f"/actors/{other['id']}/tokens"), 404, "actor_not_found")


async def test_tokens_are_filtered_searched_and_sorted(shelf: Shelf) -> None:
    mark = uuid.uuid4().hex[:12]
    category, actor, alias = f"사극 {mark}", f"최민식 {mark}", f"Choi {mark}"
    await shelf.add("/actors/", {"name": actor, "aliases": [alias]})
    first = await shelf.token(token_name=f"명량 해전 {mark}", actor_name=alias, category=category)
    second = await shelf.token(token_name=f"The Admiral {mark}", actor_name=actor)
    third = await shelf.token(token_name="다른 장면", actor_name=f"누구 {mark}", category=category)
    for _ in range(2):
        await shelf.ask("POST", f"/tokens/{second['id']}/view/")
    assert (await shelf.ask("POST", f"/tokens/{third['id']}/view")).json() == {"id": third["id"], "view_count": 1}
    for filters, ids in (
        ({"category": category}, [first, third]),
        ({"actor": actor}, [first, second]),
        ({"actor": alias.upper()}, [first, second]),
        ({"actor": alias, "category": category}, [first]),
        ({"search": f"해전 {mark}"}, [first]),
        ({"search": f"aDMIRAL {mark[:5]}"}, [second]),
        ({"search": mark}, [first, second, third]),
        ({"search": mark, "category": category, "actor": alias}, [first]),
        ({"search": f"누구 {mark}", "category": "", "actor": ""}, [third]),
        ({"search": f"{mark} 명량"}, []),
        ({"category": mark}, []),
    ):
        assert [row["id"] for row in await shelf.read("/tokens/", **filters)] == [row["id"] for row in ids], filters
    for order, ids in (
        ("id", [first, second, third]),
        ("latest", [third, second, first]),
        ("popular", [second, third, first]),
    ):
        found = await shelf.read("/tokens/", search=mark, sort=order)
        assert [row["id"] for row in found] == [row["id"] for row in ids]
        assert await shelf.read("/tokens/", search=mark, sort=order, skip=1, limit=1) == found[1:2]
    assert [row["view_count"] for row in await shelf.read("/tokens/", search=mark)] == [0, 2, 1]


async def test_lists_have_bounds_and_a_stable_order(shelf: Shelf) -> None:
    for _ in range(3):
        for kind in ROWS:
            await shelf.row(kind)
    for kind in ROWS:
        rows = await shelf.read(f"/{kind}/", limit=3)
        assert rows == sorted(rows, key=lambda row: row["id"])
        assert [row for skip in range(3) for row in await shelf.read(f"/{kind}", skip=skip, limit=1)] == rows
        assert len(await shelf.read(f"/{kind}")) <= 20
        assert await shelf.read(f"/{kind}", skip=NOBODY) == []
        for name, value in (("limit", 0), ("limit", 101), ("limit", "all"), ("skip", -1), ("skip", 2**31)):
            answer = await shelf.ask("GET", f"/{kind}/?{name}={value}")
            assert_problem(answer, 422, "request_invalid")
            assert [error["field"] for error in answer.json()["errors"]] == [name]
    for wrong in ("sort=best", f"search={'a' * 201}", "search=%00", "actor=%0A"):
        assert_problem(await shelf.ask("GET", f"/tokens/?{wrong}"), 422, "request_invalid")


@pytest.mark.parametrize("kind", ROWS)
async def test_a_change_with_an_old_tag_is_refused_and_told_the_new_one(shelf: Shelf, kind: str) -> None:
    address, body = await shelf.row(kind)
    for if_match in ('"1"', '"7", W/"2", "2"', "*"):
        answer = await shelf.ask("PUT", address, body, headers={"If-Match": if_match})
        assert answer.status_code == 200, if_match
    assert answer.headers["etag"] == '"4"'
    read = await shelf.ask("GET", address)
    assert read.headers["etag"] == '"4"'
    for method, given in (("PUT", body), ("DELETE", None)):
        for old in ('"1"', 'W/"4"', "nonsense", '"4"-gzip'):
            for language, header in LANGUAGES.items():
                headers = {"If-Match": old, "Accept-Language": header}
                answer = await shelf.ask(method, address, given, headers=headers)
                assert_problem(answer, 412, "precondition_failed", language)
                assert answer.headers["etag"] == '"4"'
    assert (await shelf.ask("GET", address)).json() == read.json()
    assert (await shelf.ask("DELETE", address, headers={"If-Match": '"4"'})).status_code == 204


async def test_of_two_writers_with_one_tag_one_is_refused(shelf: Shelf) -> None:
    address, body = await shelf.row("tokens")
    writers = [shelf.ask("PUT", address, {**body, "category": str(n)}, headers={"If-Match": '"1"'}) for n in range(8)]
    answers = await asyncio.gather(*writers)
    (won,) = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers if answer is not won} == {412}
    assert (await shelf.read(address))["category"] == won.json()["category"]


async def test_a_tokens_tag_changes_with_its_scripts_and_not_with_views(shelf: Shelf) -> None:
    token_id = (await shelf.token())["id"]
    script = await shelf.script(token_id)
    await shelf.ask("POST", f"/tokens/{token_id}/view")
    assert (await shelf.ask("GET", f"/tokens/{token_id}")).headers["etag"] == '"2"'
    await shelf.ask("DELETE", f"/scripts/{script['id']}")
    assert (await shelf.ask("GET", f"/tokens/{token_id}")).headers["etag"] == '"3"'


async def test_what_is_not_there_is_404_whatever_its_id_looks_like(shelf: Shelf) -> None:
    some = {
        "tokens": FEW_FIELDS,
        "scripts": {"token_id": 1, "start_time": 0, "end_time": 1, "script": "a"},
        "actors": {"name": "a"},
    }
    codes = {"tokens": "token_not_found", "scripts": "script_not_found", "actors": "actor_not_found"}
    for nobody in (NOBODY, 0, "01", "-1", "9" * 30, "1.0", "test-token", "한글", "%01"):
        for kind, body in some.items():
            for method, given in (("GET", None), ("PUT", body), ("DELETE", None)):
                for language, header in LANGUAGES.items():
                    headers = {"Accept-Language": header}
                    answer = await shelf.ask(method, f"/{kind}/{nobody}", given, headers=headers)
                    assert_problem(answer, 404, codes[kind], language)
        assert_problem(await shelf.ask("POST", f"/tokens/{nobody}/view"), 404, "token_not_found")
        assert_problem(await shelf.ask("GET", f"/scripts/token/{nobody}"), 404, "token_not_found")
        assert_problem(await shelf.ask("GET", f"/actors/{nobody}/tokens"), 404, "actor_not_found")
    body = {"token_id": NOBODY, "start_time": 0, "end_time": 1, "script": "a"}
    assert_problem(await shelf.ask("POST", "/scripts/", body), 404, "token_not_found")
    address, _ = await shelf.row("scripts")
    assert_problem(await shelf.ask("PUT", address, body), 404, "token_not_found")


async def test_a_token_has_so_many_scripts_and_no_more(shelf: Shelf) -> None:
    token_id = (await shelf.token())["id"]
    made = []
    for start in range(0, 100, 5):  # adding to one token takes turns: all hundred at once would wait for too long
        more = (shelf.script(token_id, start_time=n, end_time=n + 1) for n in range(start, start + 5))
        made += await asyncio.gather(*more)
    body = {key: value for key, value in made[0].items() if key != "id"}
    for language, header in LANGUAGES.items():
        answer = await shelf.ask("POST", "/scripts/", body, headers={"Accept-Language": header})
        assert_problem(answer, 409, "too_many_scripts", language)
    assert len((await shelf.read(f"/tokens/{token_id}"))["scripts"]) == 100
    address, elsewhere = await shelf.row("scripts")
    assert_problem(await shelf.ask("PUT", address, body), 409, "too_many_scripts")
    assert (await shelf.read(address))["token_id"] == elsewhere["token_id"]
    assert (await shelf.ask("PUT", f"/scripts/{made[7]['id']}", body)).status_code == 200, "it is one of them"


async def test_every_wrong_or_unknown_field_is_named(shelf: Shelf) -> None:
    wrong = {"token_name": "", "start_time": 2, "end_time": 1, "youtube_url": "nowhere", "id": 7, "view_count": 9}
    for language, header in LANGUAGES.items():
        answer = await shelf.ask("POST", "/tokens", wrong, headers={"Accept-Language": header})
        assert_problem(answer, 422, "request_invalid", language)
        errors = answer.json()["errors"]
        assert {error["field"] for error in errors} == {
            *("token_name", "actor_name", "end_time", "youtube_url", "id", "view_count"),
        }
        for error in errors:
            assert_sentence(error["message"], language)
        read_only = {"ko": "읽기 전용", "en": "read-only"}[language]
        assert {error["field"] for error in errors if read_only in error["message"]} == {"id", "view_count"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff{}", b"[" * 60_000, b'{"token_name": "\xff"}', b'{"start_time": NaN}'],
)
async def test_a_body_that_is_no_token_is_refused(sori: Sori, content: bytes) -> None:
    for content_type in ("application/json", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": content_type}
        answer = await sori.client.post(f"{sori.url}/tokens/", content=content, headers=headers)
        assert_problem(answer, 422, "request_invalid")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_refused(sori: Sori, *, chunked: bool) -> None:
    body = b'{"name": "' + b"a" * 70_000 + b'"}'

    async def pieces() -> Any:
        for at in range(0, len(body), 1000):
            yield body[at : at + 1000]

    for language, header in LANGUAGES.items():
        headers = {"Content-Type": "application/json", "Accept-Language": header}
        content = pieces() if chunked else body
        answer = await sori.client.post(f"{sori.url}/actors/", content=content, headers=headers)
        assert_problem(answer, 413, "body_too_large", language)


@pytest.mark.parametrize(("method", "path"), [("POST", "/actors"), ("PUT", "/tokens/1"), ("POST", "/scripts/")])
async def test_a_compressed_body_is_refused(shelf: Shelf, method: str, path: str) -> None:
    answer = await shelf.ask(method, path, {"name": "A"}, headers={"Content-Encoding": "gzip"})
    assert_problem(answer, 415, "encoding_unsupported")


async def test_what_a_method_cannot_do_is_said(shelf: Shelf) -> None:
    for path in ("/tokens/1", "/scripts", "/actors/1/tokens"):
        assert_problem(await shelf.ask("PATCH", path), 405, "method_not_allowed")


async def test_the_jobs_addresses_below_tokens_stay_what_they_were(shelf: Shelf) -> None:
    job_id = str(uuid.uuid4())
    for path in (f"/tokens/analysis-progress/{job_id}", f"/tokens/analysis-result/{job_id}/"):
        assert_problem(await shelf.ask("GET", path), 404, "job_not_found")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_token_cannot_name_what_lies_elsewhere_in_the_bucket(
    sori: Sori, shelf: Shelf, bucket: Bucket, language: str
) -> None:
    audio = f"audio/{await sori.job()}.wav"
    wrong = {
        "reference_audio_url": f"s3://{bucket.name}/{audio}",
        "s3_textgrid_url": audio,
        "s3_pitch_url": f"https://{bucket.name}.s3.amazonaws.com/{audio}",
        "s3_bgvoice_url": "s3://another/bg.wav",
    }
    address, _ = await shelf.row("tokens")
    before = await shelf.read(address)
    headers = {"Accept-Language": LANGUAGES[language]}
    for method, path in (("POST", "/tokens"), ("PUT", address)):
        answer = await shelf.ask(method, path, {**FEW_FIELDS, **wrong}, headers=headers)
        assert_problem(answer, 422, "request_invalid", language)
        assert {error["field"] for error in answer.json()["errors"]} == set(wrong)
        for error in answer.json()["errors"]:
            assert_sentence(error["message"], language)
    assert await shelf.read(address) == before
