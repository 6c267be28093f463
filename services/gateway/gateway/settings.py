"""What the gateway reads from the environment."""

from datetime import timedelta

from pydantic import Field, SecretStr, field_validator

from chassis.clients import ProxySettings
from chassis.identity.own_tokens import OwnTokens
from chassis.identity.settings import AuthSettings
from chassis.quotas.settings import QuotaSettings
from chassis.settings import (
    CatalogueSettings,
    MongoDBSettings,
    OriginSettings,
    RabbitMQSettings,
    S3Settings,
    ServiceSettings,
)


class Settings(
    ServiceSettings,
    RabbitMQSettings,
    MongoDBSettings,
    S3Settings,
    CatalogueSettings,
    OriginSettings,
    AuthSettings,
    ProxySettings,
    QuotaSettings,
):
    """One field per environment variable, by the same name in upper case."""

    port: int = Field(default=8010, ge=1, le=65535)
    catalogue_public: bool = Field(default=True, description="Whether the catalogue is read without a login")
    webhook_secret: SecretStr = Field(min_length=16)
    webhook_secret_previous: SecretStr | None = Field(
        default=None, min_length=16, description="Signed the webhook addresses that are still in use after a change"
    )
    limit_uploads: int = Field(default=50, ge=0, description="Uploads of one client under way at once")
    limit_upload_bytes: int = Field(default=20 * 1024**3, ge=0, description="Of one client a day")
    limit_jobs_waiting: int = Field(default=2000, ge=0, description="Of one owner")
    max_upload_bytes: int = Field(default=500 * 1024 * 1024, gt=0)
    max_audio_seconds: int = Field(default=3600, gt=0, description="The longest reference audio")
    max_result_bytes: int = Field(default=1024 * 1024, gt=0)
    redrive_after: float = Field(
        default=60, gt=0, le=86_400, description="Seconds without progress after which a job is told again"
    )
    inbox_max_age: float = Field(
        default=24 * 3600,
        gt=0,
        description="Seconds after which a crash's leftovers, and references that no token names any more, are removed",
    )
    retention_days: float | None = Field(
        default=None,
        gt=0,
        le=36500,
        description="Days after which an ended job is purged; absent: kept for ever",
    )

    @field_validator("session_keys")
    @classmethod
    def _signing(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not OwnTokens(value.get_secret_value()).can_sign:
            raise ValueError("the gateway signs with the first key, which needs its private part")
        return value

    @property
    def webhook_secrets(self) -> list[str]:
        """What a webhook's address may be signed with."""
        secrets = (self.webhook_secret, self.webhook_secret_previous)
        return [secret.get_secret_value() for secret in secrets if secret is not None]

    @property
    def retention(self) -> timedelta | None:
        """How long a job that has ended is kept, None for ever."""
        return None if self.retention_days is None else timedelta(days=self.retention_days)
