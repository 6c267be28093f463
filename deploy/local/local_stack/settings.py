"""Reads the settings of a local stack: the environment first, then `.env`, then the stack's own defaults."""

import re
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import BaseModel, Field, ValidationError

from local_stack.errors import SettingError

ROOT = Path(__file__).resolve().parents[3]
"""The checkout that this package was installed from."""

NETWORK_NAMES = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"),
)


class StackSettings(BaseModel):
    """How big the stack is and where it lives; each field is the setting SORI_<FIELD>."""

    home: Path = Path(".sori")
    port_base: int = Field(default=8000, ge=1024, le=65000)
    replicas: int = Field(default=1, ge=1, le=10)
    up_timeout: float = Field(default=180, gt=0)
    token: str = Field(default="", repr=False)


def given_settings(environ: Mapping[str, str], root: Path = ROOT) -> dict[str, str]:
    """The settings that a person gave: the environment over `.env` at the root. An empty value counts as absent.

    Of the environment only Sori's own settings count, and what any program needs to get through a company's proxy.
    The rest of it is none of the stack's business, and is written to no file.
    """
    from_file = dotenv_values(root / ".env", interpolate=False, encoding="utf-8")
    from_environment = {name: environ.get(name) for name in (*known_names(), *NETWORK_NAMES)}
    given = {name: value for name, value in from_file.items() if value}
    return given | {name: value for name, value in from_environment.items() if value}


def stack_settings(given: Mapping[str, str], root: Path = ROOT) -> StackSettings:
    """The SORI_… settings among `given`; a relative home is one below the root.

    Raises SettingError with the setting's name.
    """
    fields = {name: given.get(f"SORI_{name.upper()}") for name in StackSettings.model_fields}
    try:
        settings = StackSettings.model_validate({name: value for name, value in fields.items() if value})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SettingError(
            f"SORI_{str(first['loc'][0]).upper()}={first['input']} does not work: {first['msg']}."
        ) from error
    return settings.model_copy(update={"home": root / settings.home})


def known_names(root: Path = ROOT) -> list[str]:
    """The settings that `.env.example` explains."""
    text = (root / ".env.example").read_text(encoding="utf-8")
    return re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text, flags=re.MULTILINE)
