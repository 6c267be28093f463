"""The settings of a service that asks who its callers are."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from chassis.identity.own_tokens import InvalidKeysError, OwnTokens
from chassis.settings import listed


class AuthSettings(BaseSettings):
    """Whether callers must say who they are, and whom is believed."""

    auth: Literal["off", "required"] = "off"
    oidc_issuers: str = Field(default="", description="Comma separated addresses, as tokens name their issuer (`iss`)")
    oidc_audiences: str = Field(
        default="", validate_default=True, description="Comma separated; a token must be for one of them (`aud`)"
    )
    oidc_roles_claim: str = Field(default="roles", min_length=1, description="Where roles stand; `a.b` is b within a")
    session_keys: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="A JWK Set of one or two P-256 keys; the first signs, both are accepted",
    )

    @property
    def issuers(self) -> list[str]:
        """The issuers as a list."""
        return listed(self.oidc_issuers)

    @property
    def audiences(self) -> list[str]:
        """The audiences as a list."""
        return listed(self.oidc_audiences)

    @field_validator("oidc_issuers")
    @classmethod
    def _secure(cls, value: str) -> str:
        if not all(_is_secure(issuer) for issuer in listed(value)):
            raise ValueError("issuers have https:// addresses; http:// is for this machine alone")
        return value

    @field_validator("oidc_audiences")
    @classmethod
    def _with_issuers(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("oidc_issuers") and not listed(value):
            raise ValueError("OIDC_ISSUERS needs it: for whom the tokens must be")
        return value

    @field_validator("session_keys")
    @classmethod
    def _usable(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            if info.data.get("auth") == "required":
                raise ValueError("AUTH=required needs it; sorictl session-keys makes them")
            return None
        try:
            OwnTokens(value.get_secret_value())
        except InvalidKeysError as error:
            raise ValueError(str(error)) from None
        return value


def _is_secure(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"})
