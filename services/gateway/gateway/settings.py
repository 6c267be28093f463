"""What the gateway reads from the environment."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AmqpDsn, BeforeValidator, Field, MongoDsn, SecretStr
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """One field per environment variable, by the same name in upper case."""

    rabbitmq_url: AmqpDsn
    mongodb_url: MongoDsn = Field(description="With the database in its path, mongodb://host/sori")
    s3_endpoint_url: str | None = Field(default=None, description="Absent for AWS itself")
    s3_bucket_name: str = Field(min_length=1)
    aws_access_key_id: SecretStr = Field(min_length=1)
    aws_secret_access_key: SecretStr = Field(min_length=1)
    aws_region: str = "us-east-1"
    webhook_secret: SecretStr = Field(min_length=16)
    cors_origins: str = Field(default="", description="Comma separated; other origins' pages get no answer")
    max_upload_bytes: int = Field(default=500 * 1024 * 1024, gt=0)
    max_result_bytes: int = Field(default=1024 * 1024, gt=0)
    inbox_max_age: float = Field(
        default=24 * 3600,
        gt=0,
        description="Seconds after which a crash's leftovers, and references that no token names any more, are removed",
    )
    shutdown_grace: float = Field(default=20, ge=10, description="Seconds from SIGTERM to the end of the process")
    retention_days: float | None = Field(
        default=None,
        gt=0,
        le=36500,
        description="Days after which an ended job is purged; absent: kept for ever",
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8010, ge=1, le=65535)
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"

    @property
    def retention(self) -> timedelta | None:
        """How long a job that has ended is kept, None for ever."""
        return None if self.retention_days is None else timedelta(days=self.retention_days)

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may use the service."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
