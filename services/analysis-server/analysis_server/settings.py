"""What the analysis server reads from its environment, and nothing else reads it."""

import os
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """A setting is missing or wrong; the text names every such setting, one a line."""


class Settings(BaseSettings):
    """The settings by their environment names in lower case; an empty variable counts as absent."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8001
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"

    s3_bucket_name: str
    s3_endpoint_url: str | None = None
    aws_region: str = "us-east-1"
    # Without keys the AWS SDK looks for an instance's or a pod's own role.
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None

    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    max_jobs: Annotated[int, Field(ge=1)] = 64
    max_audio_bytes: Annotated[int, Field(ge=1)] = 524_288_000
    max_audio_seconds: Annotated[float, Field(gt=0)] = 3600.0
    max_analysis_seconds: Annotated[int, Field(ge=1)] = 300
    storage_seconds: Annotated[float, Field(ge=0)] = 300.0
    webhook_attempts: Annotated[int, Field(ge=1)] = 10
    stop_seconds: Annotated[float, Field(ge=0)] = 12.0


def load() -> Settings:
    """Read the environment, or raise SettingsError with every setting that is missing or wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_line(e["loc"], e["type"], e["msg"]) for e in error.errors())) from None


def _line(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = "_".join(str(part) for part in location).upper()
    return f"{name} is not set" if kind == "missing" else f"{name}: {message}"
