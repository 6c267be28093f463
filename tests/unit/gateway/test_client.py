"""By what the clients of requests are told from one another."""

import pytest
from fastapi import Request

from chassis.identity.caller import ANYBODY, Caller, Kind
from gateway.web.client import client_of

LEARNER = Caller(Kind.PERSON, frozenset(), owner="user:" + "0a" * 16)


def request(*forwarded: str, connection: str | None = "127.0.0.1") -> Request:
    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded]
    client = None if connection is None else (connection, 50_000)
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "client": client})


@pytest.mark.parametrize(
    ("asked", "client"),
    [
        (request(), "127.0.0.1"),
        (request("192.0.2.1"), "192.0.2.1"),
        (request("192.0.2.9, 192.0.2.1"), "192.0.2.1"),
        (request("192.0.2.9", "2001:db8::1"), "2001:db8::1"),
        (request(""), "127.0.0.1"),
        (request(connection=None), ""),
    ],
)
def test_a_client_that_nobody_knows_is_told_by_its_address(asked: Request, client: str) -> None:
    assert client_of(asked, ANYBODY) == client


def test_a_person_is_one_client_wherever_a_request_comes_from() -> None:
    assert client_of(request("192.0.2.1"), LEARNER) == client_of(request("192.0.2.2"), LEARNER) == LEARNER.owner
