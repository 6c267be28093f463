"""The secrets of one stack: made once, kept in its home, readable by their owner alone."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path


def _secret() -> str:
    return secrets.token_hex(24)


@dataclass(frozen=True)
class Credentials:
    """Random values, each of letters and digits only; never shown in a repr."""

    webhook_secret: str = field(default_factory=_secret, repr=False)
    s3_access_key: str = field(default_factory=lambda: "sori" + secrets.token_hex(8), repr=False)
    s3_secret_key: str = field(default_factory=_secret, repr=False)
    rabbitmq_password: str = field(default_factory=_secret, repr=False)
    erlang_cookie: str = field(default_factory=_secret, repr=False)


def load_credentials(home: Path) -> Credentials:
    """The stack's secrets; made at the first call."""
    path = home / "credentials.json"
    if path.exists():
        return Credentials(**json.loads(path.read_text()))
    fresh = Credentials()
    write_private(path, json.dumps(asdict(fresh), indent=2))
    return fresh


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can ever read, as one step: a reader sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
