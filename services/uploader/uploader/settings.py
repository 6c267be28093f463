"""What the uploader reads from the environment."""

from typing import Annotated, Literal

from pydantic import AmqpDsn, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """One field per environment variable, by the same name in upper case."""

    rabbitmq_url: AmqpDsn
    s3_endpoint_url: str | None = Field(default=None, description="Absent for AWS itself")
    s3_bucket_name: str = Field(min_length=1)
    aws_access_key_id: SecretStr = Field(min_length=1)
    aws_secret_access_key: SecretStr = Field(min_length=1)
    aws_region: str = "us-east-1"
    max_audio_seconds: int = Field(default=3600, gt=0)
    shutdown_grace: float = Field(default=20, ge=10, description="Seconds from SIGTERM to the end of the process")
    host: str = "127.0.0.1"
    port: int = Field(default=8020, ge=1, le=65535)
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"
