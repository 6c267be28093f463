"""The command `sorictl session-keys`: makes and changes what signs sessions and tickets (SESSION_KEYS)."""

import json
from collections.abc import Iterable
from typing import Annotated

import typer
from joserfc.jwk import ECKey, KeySet

from sorictl.screen import err
from sorictl.settings import SessionKeySettings, read_settings


def session_keys(
    *,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="A new key before the present first one, in place of older ones.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="The present keys without what signs, as the notifier needs them.")
    ] = False,
) -> None:
    """Print a new SESSION_KEYS, a JWK Set with one private key; or one made of the present SESSION_KEYS."""
    if rotate and public:
        raise typer.BadParameter("--rotate prints what signs, --public what does not: call it twice")
    if public:
        typer.echo(without_private(_present()))
        return
    typer.echo(rotated(_present()) if rotate else fresh())
    err.print(
        "This is a secret: for the gateways alone. The notifiers need its public part: sorictl session-keys --public",
        soft_wrap=True,
    )


def fresh() -> str:
    """Return a JWK Set with a new private key (P-256)."""
    return _written([_new()], private=True)


def rotated(keys: str) -> str:
    """Return a new key, which signs from now on, and the one that has signed so far: what it signed still counts."""
    return _written([_new(), _read(keys)[0]], private=True)


def without_private(keys: str) -> str:
    """Return what is needed to know what the keys signed."""
    return _written(_read(keys), private=False)


def _present() -> str:
    return read_settings(SessionKeySettings).session_keys.get_secret_value()


def _new() -> ECKey:
    return ECKey.generate_key("P-256", auto_kid=True)


def _read(keys: str) -> list[ECKey]:
    return [ECKey.import_key(key) for key in json.loads(keys)["keys"]]


def _written(keys: Iterable[ECKey], *, private: bool) -> str:
    """Write them on one line. A key that has no private part stays public."""
    shown = [KeySet([key]).as_dict(private=private and key.is_private)["keys"][0] for key in keys]
    return json.dumps({"keys": shown}, separators=(",", ":"))
