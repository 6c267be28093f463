"""What the notifier reads from the environment."""

from typing import Annotated, Literal

from pydantic import AmqpDsn, BeforeValidator, Field, MongoDsn
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """One field per environment variable, by the same name in upper case."""

    rabbitmq_url: AmqpDsn
    mongodb_url: MongoDsn = Field(description="With the database in its path, mongodb://host/sori")
    cors_origins: str = Field(default="", description="Comma separated; other origins' pages get no answer")
    job_max_age: float = Field(
        default=24 * 3600, gt=0, le=10**9, description="Seconds without change after which a job is given up"
    )
    shutdown_grace: float = Field(default=20, ge=10, description="Seconds from SIGTERM to the end of the process")
    host: str = "127.0.0.1"
    port: int = Field(default=8040, ge=1, le=65535)
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may listen."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
