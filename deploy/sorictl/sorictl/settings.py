"""What sorictl reads from the environment, or from `.env` in the folder that it is called in."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.identity.own_tokens import OwnTokens
from chassis.settings import CatalogueSettings, MongoDBSettings, RabbitMQSettings
from sorictl.errors import SettingError

Wanted = TypeVar("Wanted", bound="Settings")


class Settings(BaseSettings):
    """One field per environment variable, by the same name in upper case; an empty one counts as absent."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore")


class BrokerSettings(RabbitMQSettings, Settings):
    """What the commands need that deal with messages."""


class DatabaseSettings(MongoDBSettings, Settings):
    """What the commands need that deal with the catalogue, with jobs or with API keys."""


def _usable(keys: SecretStr) -> SecretStr:
    OwnTokens(keys.get_secret_value())  # services read them in this way
    return keys


class SessionKeySettings(Settings):
    """What is made of the present session keys."""

    session_keys: Annotated[SecretStr, AfterValidator(_usable)]


class AddressSettings(CatalogueSettings, Settings):
    """What an import needs whose tokens have S3 addresses."""


def read_settings(wanted: type[Wanted]) -> Wanted:
    """Read them; SettingError names the one that is wrong or missing."""
    try:
        return wanted()
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        name = "_".join(str(part) for part in problem["loc"]).upper()
        hint = 'for the local stack: eval "$(make -s env)"'
        raise SettingError(f"setting {name}: {problem['msg']} (see .env.example; {hint})") from None
