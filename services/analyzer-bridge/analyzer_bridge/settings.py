"""What the analyzer-bridge reads from the environment."""

from pydantic import Field, HttpUrl, SecretStr

from chassis.settings import MongoDBSettings, RabbitMQSettings, ServiceSettings


class Settings(ServiceSettings, RabbitMQSettings, MongoDBSettings):
    """One field per environment variable, by the same name in upper case."""

    port: int = Field(default=8030, ge=1, le=65535)
    target_server_url: HttpUrl = Field(description="The analysis server, e.g. http://host/analyze-voice")
    webhook_url: HttpUrl = Field(description="Where the analysis server calls back, without the query")
    webhook_secret: SecretStr = Field(min_length=16)
    analysis_timeout: float = Field(default=600, gt=0, description="Seconds to wait for the webhook")
    analysis_attempts: int = Field(default=3, ge=1, description="How often an analysis is asked for")
    analysis_in_flight: int | None = Field(
        default=None, ge=1, description="How many analyses are asked for and have not ended, at most; absent: no limit"
    )
    analysis_version: str = Field(default="2", description="The analysis server's version; a new one empties the cache")
