"""What the analyzer-bridge reads from the environment."""

from typing import Annotated, Literal

from pydantic import AmqpDsn, BeforeValidator, Field, HttpUrl, MongoDsn, SecretStr
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """One field per environment variable, by the same name in upper case."""

    rabbitmq_url: AmqpDsn
    mongodb_url: MongoDsn = Field(description="With the database in its path, mongodb://host/sori")
    target_server_url: HttpUrl = Field(description="The analysis server, e.g. http://host/analyze-voice")
    webhook_url: HttpUrl = Field(description="Where the analysis server calls back, without the query")
    webhook_secret: SecretStr = Field(min_length=16)
    analysis_timeout: float = Field(default=600, gt=0, description="Seconds to wait for the webhook")
    analysis_attempts: int = Field(default=3, ge=1, description="How often an analysis is asked for")
    analysis_version: str = Field(default="2", description="The analysis server's version; a new one empties the cache")
    shutdown_grace: float = Field(default=20, ge=10, description="Seconds from SIGTERM to the end of the process")
    host: str = "127.0.0.1"
    port: int = Field(default=8030, ge=1, le=65535)
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"
