"""Who callers are: pseudonyms, and the documents of sessions and API keys in MongoDB."""

import hashlib
import secrets
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.events import Owner
from contracts.rights import Right, Role

SESSIONS = "sessions"
API_KEYS = "api_keys"
"""The collections."""
SESSION_COOKIE = "sori_session"
KEY_PREFIX = "sori_"
"""What every API key begins with, so that secret scanners and people recognise one."""
_KEY_BYTES = 32
_PSEUDONYM_DIGITS = 32

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def person(issuer: str, subject: str) -> str:
    """Return the pseudonym of a person: a digest of the issuer and its name for them, which stays the same for ever."""
    digest = hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()
    return f"user:{digest[:_PSEUDONYM_DIGITS]}"


class Session(BaseModel):
    """A person who has logged in; whoever has the token that names it acts as them until it is over."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    session_id: str = Field(alias="_id")
    owner: Owner
    roles: list[Role]
    created_at: AwareDatetime
    expires_at: AwareDatetime


class ApiKey(BaseModel):
    """A machine's key, without the key itself: its SHA-256 is enough to know it by, since it is 256 random bits."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    key_sha256: str = Field(alias="_id")
    key_id: KeyId
    name: str = Field(min_length=1, max_length=100, description="What people know it by")
    scopes: list[Right]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    last_used: str | None = Field(default=None, description="The day, YYYY-MM-DD in UTC")

    @property
    def owner(self) -> str:
        """Return who its jobs belong to."""
        return f"key:{self.key_id}"


def new_key() -> str:
    """Return a new API key."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def key_sha256(key: str) -> str:
    """Return what an API key is kept as."""
    return hashlib.sha256(key.encode()).hexdigest()
