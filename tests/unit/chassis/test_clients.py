"""Whose word on a client's address counts, and what counts as one client."""

from ipaddress import ip_network

import pytest
from starlette.types import Message, Receive, Scope, Send

from chassis.clients import Clients, Proxies, network_of

TRUSTED = [ip_network(network) for network in ("127.0.0.0/8", "::1", "10.0.0.0/8", "fd00::/8")]


async def client(peer: str | None, *headers: tuple[str, str]) -> str:
    """The client's address as an application behind the middleware sees it."""
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "client": None if peer is None else (peer, 4711), "headers": encoded}
    await Clients(application, Proxies(TRUSTED))(scope, receive, send)
    return seen[0]


def xff(value: str) -> tuple[str, str]:
    return ("X-Forwarded-For", value)


def forwarded(value: str) -> tuple[str, str]:
    return ("Forwarded", value)


@pytest.mark.parametrize("header", [xff("192.0.2.1"), forwarded("for=192.0.2.1")])
async def test_a_stranger_is_not_believed(header: tuple[str, str]) -> None:
    assert await client("198.51.100.7", header) == "198.51.100.7"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], "127.0.0.1"),
        ([xff("192.0.2.1")], "192.0.2.1"),
        ([xff("6.6.6.6, 192.0.2.1")], "192.0.2.1"),
        ([xff("6.6.6.6, 192.0.2.1, 10.1.2.3")], "192.0.2.1"),
        ([xff("6.6.6.6, 192.0.2.1"), xff("10.1.2.3")], "192.0.2.1"),
        ([xff("10.1.2.3 , 10.4.5.6")], "10.1.2.3"),
        ([xff("192.0.2.1:5678")], "192.0.2.1"),
        ([xff("2001:db8::1")], "2001:db8::1"),
        ([xff("[2001:db8::1]:5678")], "2001:db8::1"),
        ([xff("fe80::1%eth0")], "fe80::1"),
        ([xff("::ffff:192.0.2.1")], "192.0.2.1"),
        ([xff("::ffff:10.1.2.3")], "10.1.2.3"),
        ([xff("6.6.6.6, nonsense, 10.1.2.3")], "10.1.2.3"),
        ([xff("")], "127.0.0.1"),
        ([xff("6.6.6.6,")], "127.0.0.1"),
        ([forwarded("for=192.0.2.1")], "192.0.2.1"),
        ([forwarded('proto=https;For="192.0.2.1:5678";by=10.0.0.1')], "192.0.2.1"),
        ([forwarded('for="[2001:db8::1]:5678"')], "2001:db8::1"),
        ([forwarded("for=6.6.6.6, for=192.0.2.1, for=10.1.2.3")], "192.0.2.1"),
        ([forwarded("for=6.6.6.6"), forwarded("for=192.0.2.1")], "192.0.2.1"),
        ([forwarded("for=6.6.6.6, for=unknown, for=10.1.2.3")], "10.1.2.3"),
        ([forwarded("for=6.6.6.6, for=_hidden")], "127.0.0.1"),
        ([forwarded("for=6.6.6.6, proto=https")], "127.0.0.1"),
        ([forwarded("for=6.6.6.6"), xff("192.0.2.1")], "192.0.2.1"),
    ],
)
async def test_trusted_proxies_are_believed_from_the_right(headers: list[tuple[str, str]], found: str) -> None:
    assert await client("127.0.0.1", *headers) == found


async def test_a_proxy_at_a_socket_of_this_host_is_trusted() -> None:
    assert await client(None, xff("192.0.2.1")) == "192.0.2.1"


async def test_a_long_list_is_read_up_to_the_client() -> None:
    assert await client("::1", xff("6.6.6.6," * 100_000 + "192.0.2.1")) == "192.0.2.1"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:aaaa:bbbb:cccc:dddd", "2001:db8:0:1::/64"),
        ("2001:DB8:0:1::1", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
    ],
)
def test_a_network_of_ipv6_is_one_client(address: str, network: str) -> None:
    assert network_of(address) == network
