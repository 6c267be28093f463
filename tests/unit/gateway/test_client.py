"""By what the clients of requests are told from one another."""

import pytest
from fastapi import Request

from chassis.identity.caller import ANYBODY, Caller, Kind
from gateway.web.client import client_of

LEARNER = Caller(Kind.PERSON, frozenset(), owner="user:" + "0a" * 16)


def request(connection: str | None) -> Request:
    client = None if connection is None else (connection, 50_000)
    return Request({"type": "http", "method": "GET", "path": "/", "headers": [], "client": client})


@pytest.mark.parametrize(
    ("connection", "client"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8::7:1", "2001:db8::/64"), (None, "")],
)
def test_a_client_that_nobody_knows_is_told_by_its_address(connection: str | None, client: str) -> None:
    assert client_of(request(connection), ANYBODY) == client


def test_a_person_is_one_client_wherever_a_request_comes_from() -> None:
    assert client_of(request("192.0.2.1"), LEARNER) == client_of(request("192.0.2.2"), LEARNER) == LEARNER.owner
