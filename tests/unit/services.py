"""The four services, for tests that hold for all of them: name and settings to start with."""

from dataclasses import dataclass

import analyzer_bridge.settings
import gateway.settings
import notifier.settings
import uploader.settings
from chassis.settings import ServiceSettings

S3 = {"S3_BUCKET_NAME": "sori", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2-aws"}
RABBITMQ = {"RABBITMQ_URL": "amqp://guest:hunter2-amqp@127.0.0.1:5672/"}
MONGODB = {"MONGODB_URL": "mongodb://user:hunter2-mongo@127.0.0.1:27017/sori"}
WEBHOOK = {"WEBHOOK_SECRET": "hunter2-webhook-secret"}
ANALYSIS = {"TARGET_SERVER_URL": "http://host/analyze", "WEBHOOK_URL": "http://host/hook"}


@dataclass(frozen=True)
class Service:
    """One service: what it reads, and the least of settings that it needs."""

    name: str
    settings: type[ServiceSettings]
    required: dict[str, str]


SERVICES = (
    Service("gateway", gateway.settings.Settings, {**RABBITMQ, **MONGODB, **S3, **WEBHOOK}),
    Service("uploader", uploader.settings.Settings, {**RABBITMQ, **S3}),
    Service("analyzer-bridge", analyzer_bridge.settings.Settings, {**RABBITMQ, **MONGODB, **WEBHOOK, **ANALYSIS}),
    Service("notifier", notifier.settings.Settings, {**RABBITMQ, **MONGODB}),
)
