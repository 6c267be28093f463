"""The lines that the services repeat in place of sharing a library: a decision, as long as they stay the same."""

import ast
import re

import pytest

from tests.contract.documents import ROOT

PACKAGES = {
    "gateway": "services/gateway/gateway",
    "uploader": "services/uploader/uploader",
    "analyzer-bridge": "services/analyzer-bridge/analyzer_bridge",
    "notifier": "services/notifier/notifier",
}
ALL = tuple(PACKAGES)
SUBSCRIBERS = ("uploader", "analyzer-bridge", "notifier")

WHOLE_FILES = [
    ("logs.py", ALL),
    ("health.py", ALL),
    ("__main__.py", ALL),
    ("stopping.py", ALL),
    ("metrics.py", SUBSCRIBERS),
    ("batches.py", ("gateway", "analyzer-bridge", "notifier")),
    ("rabbitmq.py", ("uploader", "analyzer-bridge")),
]
PARTS = [
    (
        "rabbitmq.py",
        ALL,
        (
            "RabbitMQ.is_up",
            "RabbitMQ.dead_letters",
            "RabbitMQ._keep",
            "RabbitMQ._mend",
            "RabbitMQ._replace_queues",
            "_exists",
            "_all_witnessed",
            "_witness_all",
            "TOLD_SECONDS",
            "RabbitMQ._doubt",
            "RabbitMQ._miss",
            "RabbitMQ._noticing",
            "RabbitMQ._bind",
            "_declare_all",
            "PUBLISH_SECONDS",
            "CONNECT_SECONDS",
            "SET_UP_SECONDS",
            "ANSWER_SECONDS",
            "_bounded",
            "RECONNECT_SECONDS",
            "HEARTBEAT_SECONDS",
            "CLOSE_SECONDS",
            "LOOK_SECONDS",
            "SETTLE_SECONDS",
        ),
    ),
    (
        "rabbitmq.py",
        SUBSCRIBERS,
        (
            "RabbitMQ.subscribe",
            "RabbitMQ.start",
            "RabbitMQ.drain",
            "RabbitMQ.stop",
            "RabbitMQ.publish",
            "RabbitMQ.pass_on",
            "RabbitMQ._send",
            "RabbitMQ._connect",
            "_cancel_consumer",
            "_consumes",
            "RabbitMQ._holding",
            "RabbitMQ._let_go",
            "LET_GO_SECONDS",
            "_Raw",
        ),
    ),
    ("subscribers.py", SUBSCRIBERS, ("_subscribe", "_set_aside", "_attempt", "_count")),
    ("store.py", ("analyzer-bridge", "notifier"), ("_noticing_outages",)),
    # The bridge also tells listeners that a recording waits for the analysis server.
    ("subscribers.py", ("uploader", "notifier"), ("_try_later",)),
]


def source(service: str, file: str) -> str:
    return (ROOT / PACKAGES[service] / file).read_text(encoding="utf-8")


def normal(text: str, service: str) -> str:
    """The text with the service's name and its package's replaced, whatever order imports come in for it."""
    package = PACKAGES[service].rsplit("/", 1)[1]
    replaced = re.sub(rf"\b({re.escape(service)}|{package})\b", "SERVICE", text)
    return "\n".join(
        sorted(line for line in replaced.splitlines() if line.startswith(("from ", "import ")))
    ) + "\n".join(line for line in replaced.splitlines() if not line.startswith(("from ", "import ")))


def part(service: str, file: str, name: str) -> str:
    """The source of one function, class, method (`Class.method`) or constant."""
    text = source(service, file)
    body: list[ast.stmt] = ast.parse(text).body
    for step in name.split("."):
        (found,) = [node for node in body if step in _names(node)]
        body = getattr(found, "body", [])
    segment = ast.get_source_segment(text, found)
    assert segment
    return normal(segment, service)


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


@pytest.mark.parametrize(("file", "services"), WHOLE_FILES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_repeated_file_is_the_same_in_every_service(file: str, services: tuple[str, ...]) -> None:
    first, *others = services
    for other in others:
        assert normal(source(other, file), other) == normal(source(first, file), first)


@pytest.mark.parametrize(
    ("file", "services", "name"), [(file, services, name) for file, services, names in PARTS for name in names]
)
def test_a_repeated_part_is_the_same_in_every_service(file: str, services: tuple[str, ...], name: str) -> None:
    first, *others = services
    for other in others:
        assert part(other, file, name) == part(first, file, name)
