"""The four services, for tests that hold for all of them: name, modules, and settings to start with."""

from dataclasses import dataclass
from types import ModuleType

import analyzer_bridge.__main__
import analyzer_bridge.logs
import analyzer_bridge.settings
import gateway.__main__
import gateway.logs
import gateway.settings
import notifier.__main__
import notifier.logs
import notifier.settings
import uploader.__main__
import uploader.logs
import uploader.settings

S3 = {"S3_BUCKET_NAME": "sori", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2-aws"}
RABBITMQ = {"RABBITMQ_URL": "amqp://guest:hunter2-amqp@127.0.0.1:5672/"}
MONGODB = {"MONGODB_URL": "mongodb://user:hunter2-mongo@127.0.0.1:27017/sori"}
WEBHOOK = {"WEBHOOK_SECRET": "hunter2-webhook-secret"}
ANALYSIS = {"TARGET_SERVER_URL": "http://host/analyze", "WEBHOOK_URL": "http://host/hook"}


@dataclass(frozen=True)
class Service:
    """One service: its modules, and the least of settings that it needs."""

    name: str
    main: ModuleType
    settings: ModuleType
    logs: ModuleType
    required: dict[str, str]


SERVICES = (
    Service("gateway", gateway.__main__, gateway.settings, gateway.logs, {**RABBITMQ, **MONGODB, **S3, **WEBHOOK}),
    Service("uploader", uploader.__main__, uploader.settings, uploader.logs, {**RABBITMQ, **S3}),
    Service(
        "analyzer-bridge",
        analyzer_bridge.__main__,
        analyzer_bridge.settings,
        analyzer_bridge.logs,
        {**RABBITMQ, **MONGODB, **WEBHOOK, **ANALYSIS},
    ),
    Service("notifier", notifier.__main__, notifier.settings, notifier.logs, {**RABBITMQ, **MONGODB}),
)
