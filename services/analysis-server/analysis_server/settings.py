"""What the analysis server reads from its environment."""

import os
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import BucketSettings, ServiceSettings


class Settings(ServiceSettings, BucketSettings):
    """One field per environment variable, by the same name in upper case; an empty variable counts as absent."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    port: Annotated[int, Field(ge=1, le=65535)] = 8001

    workers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    max_jobs: Annotated[int, Field(ge=1)] = 64
    max_audio_bytes: Annotated[int, Field(ge=1)] = 524_288_000
    max_audio_seconds: Annotated[float, Field(gt=0)] = 3600.0
    max_analysis_seconds: Annotated[int, Field(ge=1)] = 300
    storage_seconds: Annotated[float, Field(ge=0)] = 300.0
    webhook_attempts: Annotated[int, Field(ge=1)] = 10
    stop_seconds: Annotated[float, Field(ge=0)] = 12.0
