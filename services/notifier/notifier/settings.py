"""What the notifier reads from the environment."""

from pydantic import Field

from chassis.clients import ProxySettings
from chassis.identity.settings import AuthSettings
from chassis.quotas.settings import QuotaSettings
from chassis.settings import MongoDBSettings, OriginSettings, RabbitMQSettings, ServiceSettings


class Settings(
    ServiceSettings, RabbitMQSettings, MongoDBSettings, OriginSettings, AuthSettings, ProxySettings, QuotaSettings
):
    """One field per environment variable, by the same name in upper case."""

    port: int = Field(default=8040, ge=1, le=65535)
    job_max_age: float = Field(
        default=24 * 3600, gt=0, le=10**9, description="Seconds without change after which a job is given up"
    )
