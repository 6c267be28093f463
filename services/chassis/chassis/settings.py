"""Settings that several services read from the environment: one class for each thing that a service may need."""

from typing import Annotated, Literal

from pydantic import AmqpDsn, BeforeValidator, Field, MongoDsn, SecretStr
from pydantic_settings import BaseSettings

from contracts.addresses import CatalogueAddresses


class ServiceSettings(BaseSettings):
    """The settings of every service; each sets its own `port`. A field's variable has the same name in upper case."""

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    shutdown_grace: float = Field(default=20, ge=10, description="Seconds from SIGTERM to the end of the process")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"


class RabbitMQSettings(BaseSettings):
    """Where the broker is."""

    rabbitmq_url: AmqpDsn


class MongoDBSettings(BaseSettings):
    """Where the database is."""

    mongodb_url: MongoDsn = Field(description="With the database in its path, mongodb://host/sori")


class BucketSettings(BaseSettings):
    """Where the bucket is. Without keys the AWS SDK looks for the role of the instance or pod."""

    s3_endpoint_url: str | None = Field(default=None, description="Absent for AWS itself")
    s3_bucket_name: str = Field(min_length=1)
    aws_access_key_id: SecretStr | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_region: str = "us-east-1"


class S3Settings(BucketSettings):
    """Where the bucket is, for a service that must be given keys."""

    aws_access_key_id: SecretStr = Field(min_length=1)
    aws_secret_access_key: SecretStr = Field(min_length=1)


class CatalogueSettings(BucketSettings):
    """Where the files lie that the catalogue may name."""

    catalogue_prefix: str = Field(
        default="",
        pattern=r"^(s3://[^/\s]+/([^/\s]+/)+)?$",
        description="s3://bucket/folder/; empty: catalogue/ in the bucket",
    )

    @property
    def catalogue_addresses(self) -> CatalogueAddresses:
        """Which addresses the catalogue may have."""
        return CatalogueAddresses(self.s3_bucket_name, self.s3_endpoint_url, self.catalogue_prefix)


class OriginSettings(BaseSettings):
    """Which other sites' pages may use the service (CORS)."""

    cors_origins: str = Field(default="", description="Comma separated; other origins' pages get no answer")

    @property
    def origins(self) -> list[str]:
        """The origins as a list."""
        return listed(self.cors_origins)


def listed(text: str) -> list[str]:
    """Return the parts of a setting that are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
