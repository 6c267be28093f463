"""Generates the contract documents: JSON Schemas, AsyncAPI and OpenAPI; with --check, says which have drifted.

Run as `python contracts/generate.py`. The golden examples are not generated: each was valid once and must stay so.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from contracts import events, topology
from contracts.events import Event
from gateway.app import create_api
from gateway.settings import Settings

HERE = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, Any]:
    """Return each event's JSON Schema by file name."""
    return {
        f"schemas/{event.TYPE}.json": {"$schema": DIALECT, "$id": f"/schemas/{event.TYPE}", **event.model_json_schema()}
        for event in events.EVENT_TYPES
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of all services: what each sends, and what each receives from which queue."""
    _, components = models_json_schema(
        [(event, "validation") for event in events.EVENT_TYPES], ref_template="#/components/schemas/{model}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sori events",
            "version": "1",
            "description": "CloudEvents 1.0 in structured JSON mode, persistent and confirmed.",
        },
        "defaultContentType": events.CONTENT_TYPE,
        "servers": {"rabbitmq": _server()},
        "channels": {
            **{event.TYPE: _exchange_channel(event) for event in events.EVENT_TYPES},
            **{queue.name: _queue_channel(queue) for queue in topology.QUEUES},
            **{queue.dead_name: _dead_channel(queue) for queue in topology.QUEUES},
        },
        "operations": {
            **{
                f"{service}.send.{event.TYPE}": _operation("send", event.TYPE, event)
                for service, sent in topology.PUBLISHES.items()
                for event in sent
            },
            **{f"{queue.name}.receive": _operation("receive", queue.name, queue.event) for queue in topology.QUEUES},
            "notifier.job-progressed.receive": _operation("receive", events.JobProgressed.TYPE, events.JobProgressed),
        },
        "components": {
            "messages": {event.TYPE: _message(event) for event in events.EVENT_TYPES},
            "schemas": components["$defs"],
        },
    }


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document of the whole public surface, as the gateway serves it."""
    settings = Settings.model_validate(
        {
            "rabbitmq_url": "amqp://localhost",
            "mongodb_url": "mongodb://localhost/sori",
            "s3_bucket_name": "sori",
            "aws_access_key_id": "unused",
            "aws_secret_access_key": "unused",
            "webhook_secret": "unused-unused-unused",
        }
    )
    return create_api(settings).openapi()


def documents() -> dict[str, Any]:
    """Return every generated document by its path below this folder."""
    return {**schemas(), "asyncapi/asyncapi.json": asyncapi(), "openapi/openapi.json": openapi()}


def main() -> int:
    """Write the documents, or with --check compare them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a document has drifted")
    check = parser.parse_args().check
    wanted = {HERE / path: _text(document) for path, document in documents().items()}
    present = {path for folder in ("schemas", "asyncapi", "openapi") for path in (HERE / folder).glob("*.json")}
    drifted = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    stale = sorted(present - wanted.keys())
    if check:
        for path in (*drifted, *stale):
            print(f"{path.relative_to(HERE.parent)} has drifted from the code: run `make contracts`", file=sys.stderr)
        return 1 if drifted or stale else 0
    for path in drifted:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path])
    for path in stale:
        path.unlink()
    print(f"{len(wanted)} contract documents, {len(drifted) + len(stale)} of them changed")
    return 0


def _server() -> dict[str, Any]:
    variable = {"default": "127.0.0.1:5672", "description": "Host and port of RABBITMQ_URL"}
    return {"host": "{host}", "protocol": "amqp", "variables": {"host": variable}}


_PARTITION = "The first two hex digits of the id of the job that progressed"


def _exchange_channel(event: type[Event]) -> dict[str, Any]:
    progress = event is events.JobProgressed
    exchange = {
        "name": topology.PROGRESS_EXCHANGE if progress else topology.EVENTS_EXCHANGE,
        "type": "direct" if progress else "topic",
        "durable": True,
        "autoDelete": False,
    }
    return {
        "address": "{partition}" if progress else event.TYPE,
        **({"parameters": {"partition": {"description": _PARTITION}}} if progress else {}),
        "description": (event.__doc__ or "").strip(),
        "messages": {event.TYPE: {"$ref": f"#/components/messages/{event.TYPE}"}},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange}},
    }


def _queue_channel(queue: topology.Queue) -> dict[str, Any]:
    return {
        "address": queue.name,
        "description": f"Bound to {topology.EVENTS_EXCHANGE} by {queue.routing_key}; dead letters: {queue.dead_name}.",
        "messages": {queue.event.TYPE: {"$ref": f"#/components/messages/{queue.event.TYPE}"}},
        "bindings": {"amqp": _queue_binding(queue.name)},
    }


def _dead_channel(queue: topology.Queue) -> dict[str, Any]:
    return {
        "address": queue.dead_name,
        "description": f"What no retry can help of {queue.name}; the reason is in `{topology.REASON_HEADER}`.",
        "messages": {queue.event.TYPE: {"$ref": f"#/components/messages/{queue.event.TYPE}"}},
        "bindings": {"amqp": _queue_binding(queue.dead_name)},
    }


def _queue_binding(name: str) -> dict[str, Any]:
    return {"is": "queue", "queue": {"name": name, "durable": True, "exclusive": False, "autoDelete": False}}


def _operation(action: str, channel: str, event: type[Event]) -> dict[str, Any]:
    # "/" and "~" are the only characters that a JSON pointer (RFC 6901) would have to escape; there are none.
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{event.TYPE}"}],
    }


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.TYPE,
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip(),
        "contentType": events.CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
    }


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
