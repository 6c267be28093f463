"""The secrets of one stack: made once, kept in its home, readable by their owner alone."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from joserfc.jwk import ECKey, KeySet


def _secret() -> str:
    return secrets.token_hex(24)


def _session_keys() -> str:
    return json.dumps(KeySet([ECKey.generate_key("P-256", auto_kid=True)]).as_dict(private=True))


@dataclass(frozen=True)
class Credentials:
    """Random values, each of letters and digits only but for the keys; never shown in a repr."""

    webhook_secret: str = field(default_factory=_secret, repr=False)
    s3_access_key: str = field(default_factory=lambda: "sori" + secrets.token_hex(8), repr=False)
    s3_secret_key: str = field(default_factory=_secret, repr=False)
    rabbitmq_password: str = field(default_factory=_secret, repr=False)
    erlang_cookie: str = field(default_factory=_secret, repr=False)
    session_keys: str = field(default_factory=_session_keys, repr=False)
    """A JWK Set with one private P-256 key, as SESSION_KEYS has it."""


def load_credentials(home: Path) -> Credentials:
    """The stack's secrets; made at the first call, as are those that an earlier version had no need of."""
    path = home / "credentials.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    credentials = Credentials(**kept)
    if asdict(credentials) != kept:
        write_private(path, json.dumps(asdict(credentials), indent=2))
    return credentials


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can ever read, as one step: a reader sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
