"""The AsyncAPI document: valid by AsyncAPI 3.0, and equal to the topology, all four services in one."""

import re
from typing import Any

import pytest

from contracts import events, topology
from contracts.events import EVENT_TYPES, JobProgressed
from tests.contract.documents import Document, document, references, resolved

PROGRESS_RECEIVER = "notifier.job-progressed.receive"
"""Each notifier replica has a queue of its own on this event's exchange, so the topology has no name for it."""


@pytest.fixture
def asyncapi() -> Document:
    return document("asyncapi/asyncapi.json")


def queue_of(channel: Document) -> str | None:
    binding = channel["bindings"]["amqp"]
    return binding["queue"]["name"] if binding["is"] == "queue" else None


def event_of(message: Document) -> str:
    return str(message["$ref"]).rsplit("/", 1)[1]


def test_the_document_says_what_it_is(asyncapi: Document) -> None:
    assert re.fullmatch(r"3\.0\.\d+", asyncapi["asyncapi"])
    assert asyncapi["info"]["title"]
    assert asyncapi["info"]["version"]
    known = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
    assert set(asyncapi) <= known
    assert asyncapi["defaultContentType"] == events.CONTENT_TYPE


def test_servers_are_described(asyncapi: Document) -> None:
    for server in asyncapi["servers"].values():
        assert server["protocol"] == "amqp"
        assert set(re.findall(r"{([^}]+)}", server["host"])) == set(server.get("variables", {}))
        assert "/" not in server["host"]


def test_every_reference_leads_somewhere(asyncapi: Document) -> None:
    found = references(asyncapi)
    assert found
    for reference in found:
        assert resolved(reference, asyncapi) is not None


def test_names_of_components_are_allowed(asyncapi: Document) -> None:
    assert set(asyncapi["components"]) <= {"messages", "schemas"}
    for group in asyncapi["components"].values():
        assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", key) for key in group)


def test_channels_have_what_asyncapi_asks_of_them(asyncapi: Document) -> None:
    fields = {"address", "title", "summary", "description", "messages", "parameters", "bindings"}
    for channel in asyncapi["channels"].values():
        assert set(channel) <= fields
        assert set(re.findall(r"{([^}]+)}", channel["address"])) == set(channel.get("parameters", {}))
        assert channel["messages"]
        assert set(channel["bindings"]) == {"amqp"}
        check_amqp(channel["bindings"]["amqp"])


def check_amqp(binding: Document) -> None:
    """What AsyncAPI's AMQP bindings (0.3.0) ask of a channel."""
    assert binding["is"] in {"queue", "routingKey"}
    named = binding["queue" if binding["is"] == "queue" else "exchange"]
    assert 0 < len(named["name"]) <= 255
    assert all(isinstance(named[flag], bool) for flag in {"durable", "exclusive", "autoDelete"} & set(named))
    if binding["is"] == "routingKey":
        assert named["type"] in {"topic", "direct", "fanout", "default", "headers"}


def test_operations_have_what_asyncapi_asks_of_them(asyncapi: Document) -> None:
    fields = {"action", "channel", "title", "summary", "description", "messages", "bindings"}
    for operation in asyncapi["operations"].values():
        assert set(operation) <= fields
        assert operation["action"] in {"send", "receive"}
        channel = operation["channel"]["$ref"]
        assert channel.startswith("#/channels/")
        # The messages must be the channel's own, by reference.
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])


def test_every_queue_and_its_dead_letters_are_there_and_no_others(asyncapi: Document) -> None:
    described = {queue_of(channel): channel for channel in asyncapi["channels"].values() if queue_of(channel)}
    assert set(described) == {name for queue in topology.QUEUES for name in (queue.name, queue.dead_name)}
    for queue in topology.QUEUES:
        for name in (queue.name, queue.dead_name):
            assert described[name]["address"] == name
            assert [event_of(message) for message in described[name]["messages"].values()] == [queue.routing_key]
            assert described[name]["bindings"]["amqp"]["queue"]["durable"]


def test_every_event_has_its_exchange(asyncapi: Document) -> None:
    exchanges: dict[str, Any] = {}
    for channel in asyncapi["channels"].values():
        if not queue_of(channel):
            (message,) = channel["messages"].values()
            exchanges[event_of(message)] = channel
    assert set(exchanges) == {event.TYPE for event in EVENT_TYPES}
    for event in EVENT_TYPES:
        channel = exchanges[event.TYPE]
        exchange = channel["bindings"]["amqp"]["exchange"]
        expected = (
            (topology.PROGRESS_EXCHANGE, "direct", "{partition}")
            if event is JobProgressed
            else (topology.EVENTS_EXCHANGE, "topic", event.TYPE)
        )
        assert (exchange["name"], exchange["type"], channel["address"]) == expected
        assert exchange["durable"]


def test_who_sends_and_who_receives_is_as_the_topology_has_it(asyncapi: Document) -> None:
    described = set()
    for name, operation in asyncapi["operations"].items():
        service = name.split(".")[0]
        channel = operation["channel"]["$ref"].removeprefix("#/channels/")
        (message,) = operation["messages"]
        described.add((service, operation["action"], channel, event_of(message)))
        if operation["action"] == "send":
            assert queue_of(asyncapi["channels"][channel]) is None, "events are sent to an exchange"
    sent = {
        (service, "send", event.TYPE, event.TYPE)
        for service, published in topology.PUBLISHES.items()
        for event in published
    }
    received = {(queue.service, "receive", queue.name, queue.routing_key) for queue in topology.QUEUES}
    fan_out = {("notifier", "receive", JobProgressed.TYPE, JobProgressed.TYPE)}
    assert described == sent | received | fan_out
    assert {service for service, *_ in described} == set(topology.SERVICES)


@pytest.mark.parametrize("event", EVENT_TYPES, ids=lambda event: event.TYPE)
def test_a_message_carries_what_its_schema_says(asyncapi: Document, event: type[events.Event]) -> None:
    message = asyncapi["components"]["messages"][event.TYPE]
    assert (message["name"], message["contentType"]) == (event.TYPE, events.CONTENT_TYPE)
    payload = resolved(message["payload"]["$ref"], asyncapi)
    schema = document(f"schemas/{event.TYPE}.json")
    assert payload["required"] == schema["required"]
    assert inlined(payload, asyncapi) == inlined({**schema, "$defs": None}, schema)


def inlined(part: Any, within: Document) -> Any:
    """A schema with its references followed, so that it can be compared with one that keeps them elsewhere."""
    if isinstance(part, list):
        return [inlined(inner, within) for inner in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return inlined(resolved(part["$ref"], within), within)
    kept = {key: value for key, value in part.items() if key not in {"$schema", "$id", "$defs"}}
    return {key: inlined(value, within) for key, value in kept.items()}
