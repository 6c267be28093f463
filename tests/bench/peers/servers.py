"""Starts the peers that are servers of their own: the baseline and the bare relay."""

from collections.abc import Mapping
from pathlib import Path

from tests.bench.programs import Server, python

_BACK_ENDS = ("AWS_", "S3_", "TARGET_")


def baseline(port: int, settings: Mapping[str, str], log: Path) -> Server:
    """The single process that Sori replaces; `settings` name its S3 and its analysis server."""
    own = {name: value for name, value in settings.items() if name.startswith(_BACK_ENDS)}
    webhook_url = f"http://127.0.0.1:{port}/webhook/analysis-complete"
    return Server(python("tests.bench.baseline"), port, {**own, "WEBHOOK_URL": webhook_url}, log)


def relay(port: int, settings: Mapping[str, str], log: Path) -> Server:
    """The bare relay; `settings` name its S3, RabbitMQ and MongoDB."""
    names = ("RABBITMQ_URL", "MONGODB_URL")
    own = {name: value for name, value in settings.items() if name.startswith(_BACK_ENDS) or name in names}
    return Server(python("tests.bench.peers.relay"), port, own, log)
