"""What a local stack is given for its logins, with AUTH=required alone: keys, issuers, a provider of its own."""

import itertools
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chassis.identity.own_tokens import SESSION, OwnTokens
from local_stack.credentials import load_credentials
from local_stack.errors import LoginFailedError, SettingError
from local_stack.plan import Plan
from local_stack.ports import Ports
from local_stack.stack import Stack

LOGIN = {"AUTH", "SESSION_KEYS", "OIDC_ISSUERS", "OIDC_AUDIENCES"}
ELSEWHERE = {"AUTH": "required", "OIDC_ISSUERS": "https://issuer.example", "OIDC_AUDIENCES": "us"}


def plan(home: Path, **given: str) -> Plan:
    return Plan(home, Ports.from_base(8000), 1, given, only_backends=False)


def claims_of(stack: Plan) -> list[dict[str, object]]:
    command = stack.parts["oidc-provider"].command
    options = itertools.pairwise(command)
    return [json.loads(value) for option, value in options if option == "--user-claims"]


@pytest.mark.parametrize("given", [{}, {"AUTH": "off"}, {"OIDC_ISSUERS": "https://issuer.example"}])
def test_without_a_login_there_is_nothing_of_it(tmp_path: Path, given: dict[str, str]) -> None:
    stack = plan(tmp_path, **given)
    assert not LOGIN & set(stack.settings)
    assert "oidc-provider" not in stack.parts
    assert "SESSION_KEYS" not in stack.parts["gateway-1"].env


def test_a_login_without_issuers_gets_a_provider_on_this_machine_alone(tmp_path: Path) -> None:
    stack = plan(tmp_path, AUTH="required")
    provider = stack.parts["oidc-provider"]
    assert list(provider.ports) == [8007]
    assert provider.command[provider.command.index("--host") + 1] == "127.0.0.1"
    for part in ("gateway-1", "notifier-1"):
        assert stack.parts[part].env["OIDC_ISSUERS"] == provider.address
        assert stack.parts[part].env["AUTH"] == "required"
    assert set(stack.settings) >= LOGIN


def test_issuers_that_are_given_are_believed_alone(tmp_path: Path) -> None:
    stack = plan(tmp_path, **ELSEWHERE)
    assert "oidc-provider" not in stack.parts
    assert stack.parts["notifier-1"].env["OIDC_ISSUERS"] == "https://issuer.example"
    assert stack.parts["notifier-1"].env["OIDC_AUDIENCES"] == "us"


@pytest.mark.parametrize("given", [{"AUTH": "off"}, ELSEWHERE])
def test_no_token_is_to_be_had_where_there_is_no_provider(tmp_path: Path, given: dict[str, str]) -> None:
    with pytest.raises(LoginFailedError, match="AUTH=required make up"):
        Stack(tmp_path, given=given).id_token("learner")


def test_a_provider_that_is_away_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LoginFailedError, match="does not answer"):
        Stack(tmp_path, port_base=2, given={"AUTH": "required"}).id_token("learner")


@pytest.mark.parametrize("mine", [False, True])
def test_the_gateway_signs_and_the_notifier_can_only_check(tmp_path: Path, mine: bool) -> None:
    keys = load_credentials(tmp_path / "other").session_keys
    stack = plan(tmp_path, AUTH="required", **({"SESSION_KEYS": keys} if mine else {}))
    token = OwnTokens(stack.parts["gateway-1"].env["SESSION_KEYS"]).sign(
        SESSION, datetime.now(UTC) + timedelta(minutes=1), sid="1"
    )
    assert OwnTokens(stack.parts["notifier-1"].env["SESSION_KEYS"]).claims(token, SESSION)["sid"] == "1"
    (private,) = json.loads(stack.settings["SESSION_KEYS"])["keys"]
    assert (stack.settings["SESSION_KEYS"] == keys) is mine
    having = [part.name for part in stack.parts.values() if private["d"] in str(part.env)]
    assert having == ["gateway-1"]


def test_keys_that_are_none_are_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="SESSION_KEYS"):
        _ = plan(tmp_path, AUTH="required", SESSION_KEYS="hunter2").parts


def test_a_persons_own_credential_goes_to_no_program(tmp_path: Path) -> None:
    stack = plan(tmp_path, AUTH="required", SORI_TOKEN="sori_hunter2")
    assert not [part.name for part in stack.parts.values() if "hunter2" in str(part.env)]


@pytest.mark.parametrize(("claim", "roles"), [("roles", ["editor"]), ("app.roles", {"roles": ["editor"]})])
def test_roles_stand_where_they_are_looked_for(tmp_path: Path, claim: str, roles: object) -> None:
    stack = plan(tmp_path, AUTH="required", OIDC_ROLES_CLAIM=claim)
    people = {str(claims["sub"]): claims for claims in claims_of(stack)}
    assert set(people) == {"learner", "editor", "operator"}
    assert people["editor"][claim.split(".", maxsplit=1)[0]] == roles


def test_a_stack_of_an_earlier_version_gets_keys_and_keeps_its_other_secrets(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    earlier = {name: value for name, value in asdict(load_credentials(tmp_path)).items() if name != "session_keys"}
    path.write_text(json.dumps(earlier))
    first = load_credentials(tmp_path)
    assert earlier.items() <= asdict(first).items()
    assert load_credentials(tmp_path) == first
    assert path.stat().st_mode & 0o777 == 0o600
