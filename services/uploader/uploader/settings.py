"""What the uploader reads from the environment."""

from pydantic import Field

from chassis.settings import RabbitMQSettings, S3Settings, ServiceSettings


class Settings(ServiceSettings, RabbitMQSettings, S3Settings):
    """One field per environment variable, by the same name in upper case."""

    port: int = Field(default=8020, ge=1, le=65535)
    max_audio_seconds: int = Field(default=3600, gt=0)
