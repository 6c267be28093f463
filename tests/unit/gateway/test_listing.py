"""Lists of jobs: where a page ended can be told in an address and read back, and nothing else is taken for it."""

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.jobs.listing import Cursor, Moment, in_utc

MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(5000, 1, 1)).map(  # noqa: DTZ001 - made aware below
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
)


@given(MOMENTS, st.uuids())
def test_a_cursor_is_read_back_as_it_was_told(moment: datetime, job_id: object) -> None:
    cursor = Cursor(moment, str(job_id))
    assert Cursor.parsed(cursor.text) == cursor
    assert all(character.isalnum() or character in "-_" for character in cursor.text)


@given(st.text() | st.binary().map(lambda content: base64.urlsafe_b64encode(content).decode()))
def test_anything_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter: the route refuses them all
        Cursor.parsed(text)


def test_a_moment_of_any_zone_is_meant() -> None:
    seoul = timezone(timedelta(hours=9))
    assert in_utc(datetime(2026, 1, 1, 9, tzinfo=seoul)) == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=9))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))),
    ],
)
def test_a_moment_outside_the_calendar_is_a_value_error(moment: datetime) -> None:
    with pytest.raises(ValueError, match="out of range"):
        in_utc(moment)


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-01T00:00:00 09:00",
        "2026-11-01T00:00:00+09:00",
        "2026-11-01T00:00 09:00",
        "2026-11-01T00:00:00.000 0900",
        "2026-11-01 00:00:00 09:00",
        "2026-10-31T15:00:00Z",
        "2026-10-31T06:00:00-09:00",
    ],
)
def test_a_moment_whose_plus_was_not_escaped_is_read_as_meant(written: str) -> None:
    assert TypeAdapter(Moment).validate_python(written) == datetime(2026, 10, 31, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-01 00:00",
        "2026-11-01 00:00:00",
        "2026-11-01 09:00",
        "2026-11-01T00:00:00  09:00",
        " 09:00",
        "yesterday 09:00",
    ],
)
def test_a_moment_without_a_zone_is_still_none(written: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(written)
