"""Lists of jobs, page by page, and everything that is kept of one."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from contracts.job import Job
from tests.support.answers import LANGUAGES, assert_problem, assert_sentence
from tests.support.events import Story
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.waiting import until

EPOCH = datetime(2001, 1, 1, tzinfo=UTC)
"""Long before any job of the other tests."""
CALLS = (("GET", ""), ("DELETE", ""), ("DELETE", "?purge=true"), ("POST", "/retry"), ("GET", "/audio"))


async def made(
    jobs: Any, token_id: str, count: int, status: str = "completed", *, same_moment: bool = False
) -> list[str]:
    """Put old jobs straight into the database; gives their ids, the newest first."""
    documents = []
    for number in range(count):
        at = EPOCH + timedelta(milliseconds=0 if same_moment else number)
        event = Story(str(uuid.uuid4()), token_id).upload_received().model_copy(update={"time": at})
        document = Job.received(event, "a.wav").model_dump(by_alias=True, exclude={"upload_received"})
        document["view"]["status"] = status
        documents.append(document)
    await jobs.insert_many(documents)
    documents.sort(key=lambda document: (document["created_at"], document["_id"]), reverse=True)
    return [document["_id"] for document in documents]


def after(milliseconds: int) -> str:
    """A moment of those jobs, as an address has it."""
    return (EPOCH + timedelta(milliseconds=milliseconds)).isoformat()


async def page(sori: Sori, address: str = "/jobs", **query: Any) -> dict[str, Any]:
    answer = await sori.client.get(sori.url + address, params=query or None)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def pages(sori: Sori, **query: Any) -> list[list[str]]:
    """The ids on every page, following `next` to the end."""
    found = await page(sori, **query)
    ids = [[job["job_id"] for job in found["jobs"]]]
    while "next" in found:
        found = await page(sori, found["next"])
        ids.append([job["job_id"] for job in found["jobs"]])
    return ids


@pytest.mark.parametrize("same_moment", [False, True])
async def test_pages_have_every_job_once_the_newest_first(sori: Sori, jobs: Any, *, same_moment: bool) -> None:
    token_id = new_token()
    ids = await made(jobs, token_id, 25, same_moment=same_moment)
    assert await pages(sori, token_id=token_id, limit=10) == [ids[:10], ids[10:20], ids[20:]]
    assert await pages(sori, token_id=token_id) == [ids[:20], ids[20:]]
    assert await pages(sori, token_id=token_id, limit=25) == [ids]


async def test_pages_stay_as_they_are_while_jobs_are_added(sori: Sori, jobs: Any) -> None:
    token_id = new_token()
    first = [await sori.job(token_id=token_id) for _ in range(4)][::-1]
    seen = await page(sori, token_id=token_id, limit=2)
    for _ in range(3):
        await sori.job(token_id=token_id)
    then = await page(sori, seen["next"])
    assert [job["job_id"] for job in seen["jobs"] + then["jobs"]] == first
    assert "next" not in then


async def test_without_a_filter_all_jobs_are_there(sori: Sori) -> None:
    newest = [await sori.job() for _ in range(3)][::-1]
    found = await page(sori, "/jobs/", limit=3)
    assert [job["job_id"] for job in found["jobs"]] == newest
    assert "next" in found


async def test_jobs_are_found_by_status_token_and_time(sori: Sori, jobs: Any) -> None:
    token_id = new_token()
    done = await made(jobs, token_id, 3)
    failed = await made(jobs, token_id, 2, "failed")
    cancelled = await made(jobs, token_id, 1, "cancelled")
    for status, ids in (("completed", done), ("failed", failed), ("cancelled", cancelled), ("processing", [])):
        assert await pages(sori, token_id=token_id, status=status) == [ids]
        first = (await pages(sori, status=status, created_before=(EPOCH + timedelta(days=1)).isoformat(), limit=100))[0]
        assert set(ids) <= set(first)
    assert await pages(sori, token_id=token_id, created_after=(EPOCH + timedelta(milliseconds=2)).isoformat()) == [
        done[:1]
    ]
    assert await pages(
        sori,
        token_id=token_id,
        status="completed",
        created_after=after(1),
        created_before=after(2),
    ) == [done[1:2]]
    assert await pages(sori, token_id=new_token()) == [[]]


async def test_a_date_whose_plus_was_not_escaped_is_read_as_meant(sori: Sori) -> None:
    token_id = new_token()
    state = await sori.completed(token_id=token_id)
    seoul = timezone(timedelta(hours=9))
    created = datetime.fromisoformat(state["created_at"]).astimezone(seoul)
    before, after = (created + timedelta(seconds=seconds) for seconds in (-1, 1))

    async def listed(query: str) -> list[str]:
        answer = await sori.client.get(f"{sori.url}/jobs?token_id={token_id}&{query}")
        assert answer.status_code == 200, answer.text
        return [job["job_id"] for job in answer.json()["jobs"]]

    assert await listed(f"created_after={before.isoformat()}&created_before={after.isoformat()}") == [state["job_id"]]
    assert await listed(f"created_after={after.isoformat()}") == []
    assert await listed(f"created_before={before.isoformat()}") == []


async def test_a_list_has_states_without_results_and_errors_in_the_callers_language(sori: Sori) -> None:
    token_id = new_token()
    completed = await sori.completed(token_id=token_id)
    failed = await sori.ended(await sori.job(b"no audio", token_id))
    for language, header in LANGUAGES.items():
        answer = await sori.client.get(
            f"{sori.url}/jobs", params={"token_id": token_id}, headers={"Accept-Language": header}
        )
        newest, oldest = answer.json()["jobs"]
        assert oldest == {name: value for name, value in completed.items() if name != "result"}
        assert newest["job_id"] == failed["job_id"]
        assert_sentence(newest["error"]["message"], language)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "query",
    [
        {"status": "done"},
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "many"},
        {"cursor": "nonsense"},
        {"cursor": ""},
        {"cursor": "한글"},
        {"created_after": "yesterday"},
        {"created_after": "2026-01-01T00:00:00"},
        {"created_before": "0001-01-01T00:00:00+09:00"},
        {"metadata[user]": "7"},
        {"metadata": '{"user":7}'},
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(sori: Sori, query: dict[str, str]) -> None:
    for language, header in LANGUAGES.items():
        answer = await sori.client.get(f"{sori.url}/jobs", params=query, headers={"Accept-Language": header})
        assert_problem(answer, 422, "request_invalid", language)


async def test_a_question_that_is_written_wrong_is_told_how_to_write_it(sori: Sori) -> None:
    query = {"created_after": "2026-01-01T00:00:00", "metadata[user]": "7"}
    for name, hint in {"created_after": "+09:00", "metadata[user]": "metadata.<key>"}.items():
        answer = await sori.client.get(f"{sori.url}/jobs", params={name: query[name]})
        (error,) = answer.json()["errors"]
        assert error["field"] == name
        assert hint in error["message"]


async def details(sori: Sori, job_id: str, language: str = "ko") -> httpx.Response:
    return await sori.client.get(f"{sori.url}/jobs/{job_id}", headers={"Accept-Language": LANGUAGES[language]})


async def test_everything_that_is_kept_of_a_job_can_be_read(sori: Sori) -> None:
    job_id = await sori.job(filename="녹음.wav")
    state = await sori.ended(job_id)
    found = (await details(sori, job_id)).json()
    assert {name: found[name] for name in state} == state
    assert found["filename"] == "녹음.wav"
    assert found["audio"]["codec"] == "pcm_s16le"
    assert not {"ahead", "retry_of", "upload_received", "publish_at", "held", "traceparent"} & found.keys()
    history = found["history"]
    assert history[0]["type"] == "job.created"
    assert {line["type"] for line in history} >= {"upload.received.v1", "audio.stored.v1", "analysis.completed.v1"}
    seen = [line for line in history if "status" in line]
    assert [line["progress"] for line in seen] == sorted(line["progress"] for line in seen)
    assert (seen[0]["progress"], seen[-1]["progress"], seen[-1]["status"]) == (10, 100, "completed")
    for line in history:
        assert set(line) <= {"type", "time", "status", "stage", "progress", "message"}


async def test_a_failed_job_says_why_and_nothing_of_programs(sori: Sori) -> None:
    state = await sori.ended(await sori.job(b"no audio at all"))
    for language in LANGUAGES:
        found = (await details(sori, state["job_id"], language)).json()
        assert found["error"]["code"] == "not_audio"
        assert_sentence(found["error"]["message"], language)
        assert "result" not in found


async def test_a_job_that_waits_says_how_many_are_ahead(sori: Sori, jobs: Any) -> None:
    token_id = new_token("never-calls-back")
    waiting = [await sori.job(token_id=token_id) for _ in range(3)]
    ahead = [(await details(sori, job_id)).json()["ahead"] for job_id in waiting]
    assert ahead[0] < ahead[1] < ahead[2]

    async def ended() -> bool:
        await asyncio.gather(*(sori.client.delete(f"{sori.url}/jobs/{job_id}") for job_id in waiting))
        return not await jobs.count_documents({"token_id": token_id, "view.status": "processing"})

    await until(ended, "the end of all three")
    assert "ahead" not in (await details(sori, waiting[2])).json()


async def test_an_unknown_job_is_404_on_every_call(sori: Sori) -> None:
    for nobody in (str(uuid.uuid4()), str(uuid.uuid4()).upper(), "nobody", "%01", "한글"):
        address = f"{sori.url}/jobs/{nobody}"
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("DELETE", "?purge=true"),
            ("POST", "/retry"),
            ("GET", "/audio"),
        ):
            for language, header in LANGUAGES.items():
                answer = await sori.client.request(method, address + path, headers={"Accept-Language": header})
                assert_problem(answer, 404, "job_not_found", language)


async def test_the_same_recording_may_be_any_number_of_jobs(sori: Sori) -> None:
    token_id = new_token()
    ids = {await sori.job(RECORDING, token_id) for _ in range(3)}
    assert {job["job_id"] for job in (await page(sori, token_id=token_id))["jobs"]} == ids
