"""`sorictl keys` and `session-keys`, as far as no database is needed: options, what is shown, what they do."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from chassis.identity.caller import InvalidCredentialError
from chassis.identity.own_tokens import SESSION, OwnTokens
from contracts.accounts import ApiKey
from contracts.rights import Right
from sorictl import cli, keys_cli, session_keys

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
OPERATE = ("--scope", "operate")


def key(**fields: object) -> ApiKey:
    facts = {
        "name": "nightly upload",
        "key_id": "0123456789abcdef" * 2,
        "scopes": list(Right),
        "created_at": NOW - timedelta(days=3),
    }
    return ApiKey.model_validate({"key_sha256": "digest", **facts, **fields})


def shown(*keys: ApiKey) -> list[str]:
    console = Console(file=StringIO(), width=80, highlight=False)
    console.print(keys_cli.table(keys, NOW))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a key",), "--scope"),
        (("a key", "--scope", "jobs"), "jobs:own"),
        (("", *OPERATE), "1 to 100 characters"),
        (("x" * 101, *OPERATE), "1 to 100 characters"),
        (("two\nlines", *OPERATE), "printable"),
        (("a key", *OPERATE, "--expires", "90"), "or never"),
        (("a key", *OPERATE, "--expires", "0d"), "too short"),
        (("a key", *OPERATE, "--expires", "999999w"), "too long"),
    ],
)
def test_a_key_that_cannot_be_made_is_refused_with_status_2(arguments: tuple[str, ...], said: str) -> None:
    # Nothing listens there: what is wrong is said before MongoDB is asked.
    environ = {"MONGODB_URL": "mongodb://127.0.0.1:9/sori", "COLUMNS": "200"}
    done = CliRunner().invoke(cli.app, ["keys", "create", *arguments], env=environ)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not done.stdout


def test_a_list_shows_whole_ids_and_names_within_80_columns() -> None:
    name = "the recorder in the reading room " * 3
    lines = shown(key(name=name.strip()), key(name="[bold]\x1b[2J"))
    assert max(len(line) for line in lines) <= 80
    text = " ".join(" ".join(line.split()) for line in lines)
    assert text.count("0123456789abcdef" * 2) == 2
    assert all(right in text for right in Right)
    assert "[bold]�[2J" in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ["created 2026-11-24", "never expires", "never used"]),
        ({"expires_at": NOW + timedelta(days=1)}, ["expires 2026-11-28"]),
        ({"expires_at": NOW}, ["expired 2026-11-27"]),
        ({"expires_at": NOW, "revoked_at": NOW - timedelta(days=1)}, ["revoked 2026-11-26"]),
        ({"last_used": "2026-11-25"}, ["last used 2026-11-25"]),
    ],
)
def test_a_list_says_until_when_a_key_counts_and_when_it_did(fields: dict[str, object], said: list[str]) -> None:
    text = "\n".join(shown(key(**fields)))
    assert [words for words in said if words not in text] == []


def test_new_session_keys_are_what_the_services_take() -> None:
    first, second = session_keys.fresh(), session_keys.fresh()
    (made,) = json.loads(first)["keys"]
    assert made["kid"] != json.loads(second)["keys"][0]["kid"]
    assert "\n" not in first
    token = OwnTokens(first).sign(SESSION, datetime.now(UTC) + timedelta(minutes=1), sid="1")
    assert OwnTokens(session_keys.without_private(first)).claims(token, SESSION)["sid"] == "1"
    with pytest.raises(InvalidCredentialError):
        OwnTokens(second).claims(token, SESSION)


def test_the_public_part_signs_nothing() -> None:
    keys = session_keys.rotated(session_keys.fresh())
    assert len([known for known in json.loads(keys)["keys"] if "d" in known]) == 2
    assert '"d"' not in session_keys.without_private(keys)


def test_what_was_signed_before_a_rotation_counts_until_the_next() -> None:
    until = datetime.now(UTC) + timedelta(minutes=1)
    first = session_keys.fresh()
    second = session_keys.rotated(first)
    third = session_keys.rotated(second)
    tokens = [OwnTokens(keys).sign(SESSION, until, sid="1") for keys in (first, second, third)]
    assert counting(second, tokens) == [True, True, False]
    assert counting(third, tokens) == [False, True, True]


def counting(keys: str, tokens: list[str]) -> list[bool]:
    """Which of the tokens count with these keys."""

    def counts(token: str) -> bool:
        try:
            OwnTokens(keys).claims(token, SESSION)
        except InvalidCredentialError:
            return False
        return True

    return [counts(token) for token in tokens]


@pytest.mark.parametrize("option", ["--rotate", "--public"])
@pytest.mark.parametrize("keys", ["", "hunter2", '{"keys": []}'])
def test_session_keys_that_are_none_are_refused_without_being_shown(
    option: str, keys: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env
    done = CliRunner().invoke(cli.app, ["session-keys", option], env={"SESSION_KEYS": keys})
    assert done.exit_code == 1, "main makes it 2"
    assert getattr(done.exception, "exit_status", None) == 2
    assert "SESSION_KEYS" in str(done.exception)
    assert "hunter2" not in str(done.exception)


def test_session_keys_are_alone_on_standard_output() -> None:
    made = CliRunner().invoke(cli.app, ["session-keys"])
    rotated = CliRunner().invoke(cli.app, ["session-keys", "--rotate"], env={"SESSION_KEYS": made.stdout})
    assert [len(json.loads(done.stdout)["keys"]) for done in (made, rotated)] == [1, 2]
    assert json.loads(rotated.stdout)["keys"][1] == json.loads(made.stdout)["keys"][0]
    both = CliRunner().invoke(cli.app, ["session-keys", "--rotate", "--public"], env={"SESSION_KEYS": made.stdout})
    assert both.exit_code == 2
