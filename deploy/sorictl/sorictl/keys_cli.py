"""The commands of `sorictl keys`: their options, and what they print."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from contracts.accounts import ApiKey, key_sha256, new_key
from contracts.rights import Right
from sorictl.errors import InterruptedByUserError, NothingMatchesError
from sorictl.filters import parse_age
from sorictl.key_store import KeyStore, connected
from sorictl.rendering import json_line, printable
from sorictl.screen import EXIT_STATUSES, confirm, err, out
from sorictl.settings import DatabaseSettings, read_settings

NEVER = timedelta.max
_OWNER_PREFIX = "key:"
"""What jobs and logs put before a key's id."""

keys_app = typer.Typer(
    help="API keys, by which machines say who they are when AUTH=required (in MONGODB_URL).",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
)


def _lifetime(text: str) -> timedelta:
    if text.strip().lower() == "never":
        return NEVER
    try:
        lifetime = parse_age(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or never") from None
    if not timedelta(0) < lifetime < timedelta(weeks=52 * 100):
        raise typer.BadParameter(f"{text} is too short or too long; write never for a key without an end")
    return lifetime


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What people know it by: who uses it, and for what.")],
    *,
    scope: Annotated[list[Right], typer.Option("--scope", "-s", help="What it may do. May be repeated.")],
    expires: Annotated[
        timedelta, typer.Option(parser=_lifetime, metavar="AGE", help="After how long: 12h, 90d, 52w; or never.")
    ] = "90d",  # type: ignore[assignment]  # typer parses the default like what is given
) -> None:
    """Make a key and print it, alone, on standard output: it is shown this once."""
    if not name.isprintable():
        raise typer.BadParameter("a name is one line of printable characters", param_hint="NAME")
    now = datetime.now(UTC)
    secret = new_key()
    try:
        key = ApiKey(
            key_sha256=key_sha256(secret),
            key_id=secrets.token_hex(16),
            name=name.strip(),
            scopes=sorted(set(scope)),
            created_at=now,
            expires_at=None if expires == NEVER else now + expires,
        )
    except ValidationError:
        raise typer.BadParameter("a name has 1 to 100 characters", param_hint="NAME") from None
    with _keys("interrupted; a key may be there that nobody has: sorictl keys list.") as store:
        store.insert(key)
    typer.echo(secret)
    err.print(
        "Keep it now: only its digest is kept here. Calls send it as `Authorization: Bearer KEY`.\n"
        f"It {_end(key, now)}; to end it before: sorictl keys revoke {key.key_id}",
        markup=False,
        soft_wrap=True,
    )


@keys_app.command("list")
def list_keys(
    *, as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object on each line.")] = False
) -> None:
    """List all keys, the oldest first, revoked and expired ones too; an empty list is no error."""
    with _keys("interrupted.") as store:
        found = store.all()
    if as_json:
        for key in found:
            typer.echo(_json(key))
    elif found:
        out.print(table(found, datetime.now(UTC)))
    else:
        out.print("There are no keys.")


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="A key's id, as `list` shows it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End a key for good: within a minute its calls are refused and its streams end. Its jobs stay."""
    key_id = key_id.removeprefix(_OWNER_PREFIX)
    with _keys("interrupted; look with sorictl keys list whether it was revoked.") as store:
        key = store.find(key_id)
        if key is None:
            raise NothingMatchesError(f"there is no key {printable(key_id)}.")
        if key.revoked_at is None:
            confirm(f"Revoke the key {printable(key.name)!r}, {_used(key)}?", yes)
            store.revoke(key_id)
        said = "Revoked" if key.revoked_at is None else "Was revoked before"
    out.print(f"{said}: {printable(key.name)}.", markup=False, soft_wrap=True)


def table(keys: Sequence[ApiKey], now: datetime) -> RenderableType:
    """Show keys; readable from 80 columns on. Days are UTC."""
    shown = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    shown.add_column("id, name, scopes", overflow="fold", min_width=36)
    shown.add_column("created, end, last use", overflow="fold")
    for number, key in enumerate(keys):
        if number:
            shown.add_row()
        names = Text.assemble((key.key_id, "cyan"), f"\n{printable(key.name)}\n{' '.join(key.scopes)}")
        ended = key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now)
        end = Text(_end(key, now), "red" if ended else "")
        shown.add_row(names, Text.assemble(f"created {_day(key.created_at)}\n", end, f"\n{_used(key)}"))
    return shown


def _json(key: ApiKey) -> str:
    facts = key.model_dump(mode="json", exclude={"key_sha256", "key_id"})
    return json_line({"id": key.key_id, **facts})


def _end(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at is None:
        return "never expires"
    return f"{'expired' if key.expires_at <= now else 'expires'} {_day(key.expires_at)}"


def _used(key: ApiKey) -> str:
    return "never used" if key.last_used is None else f"last used {key.last_used}"


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


@contextmanager
def _keys(interrupted: str) -> Iterator[KeyStore]:
    url = str(read_settings(DatabaseSettings).mongodb_url)
    try:
        with connected(url) as store:
            yield store
    except KeyboardInterrupt:
        raise InterruptedByUserError(interrupted) from None
