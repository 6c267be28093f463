"""The local stack's settings, ports and secrets: who wins, what is refused, what stays secret."""

import socket
from dataclasses import astuple
from pathlib import Path

import pytest
from pydantic import BaseModel

from analysis_server.settings import Settings as AnalysisServer
from analyzer_bridge.settings import Settings as AnalyzerBridge
from gateway.settings import Settings as Gateway
from local_stack.credentials import load_credentials, write_private
from local_stack.errors import PortsTakenError, SettingError
from local_stack.plan import Plan
from local_stack.ports import LOOPBACK, SERVICE_OFFSETS, SPAN, Ports, refuse_taken
from local_stack.settings import StackSettings, given_settings, known_names, stack_settings
from notifier.settings import Settings as Notifier
from uploader.settings import Settings as Uploader


def plan(home: Path, given: dict[str, str] | None = None, *, replicas: int = 1, only_backends: bool = False) -> Plan:
    return Plan(home, Ports.from_base(8000), replicas, given or {}, only_backends)


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("S3_BUCKET_NAME=from-file\nLOG_LEVEL=debug\nWEBHOOK_SECRET=a$b#c\n")
    given = given_settings({"S3_BUCKET_NAME": "from-environment", "LOG_LEVEL": ""}, tmp_path)
    assert given == {"S3_BUCKET_NAME": "from-environment", "LOG_LEVEL": "debug", "WEBHOOK_SECRET": "a$b#c"}


def test_what_is_no_setting_of_soris_stays_out_of_every_file(tmp_path: Path) -> None:
    environ = {"ANALYSIS_VERSION": "2", "HTTPS_PROXY": "http://proxy:3128", "SOME_TOKEN": "secret", "HOST": "laptop"}
    assert given_settings(environ, tmp_path) == {"ANALYSIS_VERSION": "2", "HTTPS_PROXY": "http://proxy:3128"}


def test_the_stack_has_defaults_and_a_home_below_the_checkout(tmp_path: Path) -> None:
    settings = stack_settings({}, tmp_path)
    assert (settings.home, settings.port_base, settings.replicas) == (tmp_path / ".sori", 8000, 1)


def test_an_absolute_home_stays_where_it_is(tmp_path: Path) -> None:
    assert stack_settings({"SORI_HOME": "/srv/sori"}, tmp_path).home == Path("/srv/sori")


@pytest.mark.parametrize(
    ("name", "value"), [("SORI_PORT_BASE", "eighty"), ("SORI_PORT_BASE", "80"), ("SORI_REPLICAS", "0")]
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{name}={value}"):
        stack_settings({name: value})


def test_every_setting_of_the_stack_is_explained_in_the_example(tmp_path: Path) -> None:
    own = {f"SORI_{field.upper()}" for field in StackSettings.model_fields}
    assert own | set(plan(tmp_path).settings) <= set(known_names())


@pytest.mark.parametrize("settings", [Gateway, Uploader, AnalyzerBridge, Notifier, AnalysisServer])
def test_every_setting_of_a_service_is_explained_in_the_example(settings: type[BaseModel]) -> None:
    """One that is not would not be passed on to the service either."""
    assert {name.upper() for name in settings.model_fields} - {"HOST", "PORT"} <= set(known_names())


def test_what_is_given_wins_over_the_stacks_own_settings(tmp_path: Path) -> None:
    settings = plan(tmp_path, {"S3_BUCKET_NAME": "mine", "WEBHOOK_SECRET": "known"}).settings
    assert (settings["S3_BUCKET_NAME"], settings["WEBHOOK_SECRET"]) == ("mine", "known")
    assert settings["MONGODB_URL"] == "mongodb://127.0.0.1:8005/sori?replicaSet=rs0"


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ({"RABBITMQ_URL": "amqp://elsewhere/"}, {"epmd", "rabbitmq"}),
        ({"MONGODB_URL": "mongodb://elsewhere/sori"}, {"mongod"}),
        ({"S3_ENDPOINT_URL": "http://e", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, {"s3"}),
        ({"TARGET_SERVER_URL": "http://elsewhere/analyze-voice"}, {"analysis-server"}),
    ],
)
def test_a_back_end_that_is_given_is_not_started(tmp_path: Path, given: dict[str, str], absent: set[str]) -> None:
    everything = plan(tmp_path).parts
    parts = plan(tmp_path, given).parts
    assert set(everything) - set(parts) == absent
    assert given.items() <= parts["analyzer-bridge-1"].env.items()


def test_the_stacks_own_analysis_server_is_given_a_few_recordings_at_a_time(tmp_path: Path) -> None:
    assert plan(tmp_path).parts["analyzer-bridge-1"].env["ANALYSIS_IN_FLIGHT"] == "8"
    chosen = plan(tmp_path, {"ANALYSIS_IN_FLIGHT": "3"}).parts["analyzer-bridge-1"].env
    assert chosen["ANALYSIS_IN_FLIGHT"] == "3"
    elsewhere = plan(tmp_path, {"TARGET_SERVER_URL": "http://elsewhere/analyze-voice"}).parts["analyzer-bridge-1"].env
    assert "ANALYSIS_IN_FLIGHT" not in elsewhere


def test_another_s3_needs_its_own_key(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="AWS_ACCESS_KEY_ID"):
        plan(tmp_path, {"S3_ENDPOINT_URL": "http://elsewhere"})


def test_each_replica_has_a_port_of_its_own_and_the_edge_knows_them(tmp_path: Path) -> None:
    parts = plan(tmp_path, replicas=2).parts
    ports = [port for part in parts.values() for port in part.ports]
    assert len(ports) == len(set(ports))
    assert {f"{name}-{n}" for name in SERVICE_OFFSETS for n in (1, 2)} <= set(parts)
    config = "".join(parts["edge"].files.values())
    for name in ("gateway-1", "gateway-2", "notifier-1", "notifier-2"):
        assert f"server 127.0.0.1:{parts[name].env['PORT']} " in config


def test_only_the_back_ends_and_the_edge_are_there_when_asked_so(tmp_path: Path) -> None:
    assert set(plan(tmp_path, only_backends=True).parts) == {"epmd", "rabbitmq", "mongod", "s3", "edge"}


def test_a_service_gets_what_it_needs_and_not_the_others_secrets(tmp_path: Path) -> None:
    parts = plan(tmp_path, {"ANALYSIS_TIMEOUT": "5"}).parts
    assert {"MONGODB_URL", "WEBHOOK_SECRET", "S3_BUCKET_NAME"} <= set(parts["gateway-1"].env)
    assert parts["notifier-1"].env["ANALYSIS_TIMEOUT"] == "5"
    assert not {"WEBHOOK_SECRET", "MONGODB_URL", "RABBITMQ_URL"} & set(parts["analysis-server"].env)
    assert "AWS_SECRET_ACCESS_KEY" not in parts["notifier-1"].env


def test_loopback_traffic_passes_by_any_proxy(tmp_path: Path) -> None:
    env = plan(tmp_path, {"NO_PROXY": "intranet"}).parts["gateway-1"].env
    assert env["NO_PROXY"] == "intranet,127.0.0.1,localhost"


def test_all_ports_of_a_stack_lie_within_its_span() -> None:
    ports = Ports.from_base(9000)
    services = [ports.service(name, replica) for name in SERVICE_OFFSETS for replica in range(1, 11)]
    used = [*astuple(ports), *services]
    assert len(used) == len(set(used))
    assert ports.edge == min(used) == 9000
    assert max(used) < 9000 + SPAN


def test_a_taken_port_is_named_with_its_part_and_the_way_out() -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortsTakenError, match=rf"port {port} \(for the edge\).*SORI_PORT_BASE"):
            refuse_taken({port: "the edge"})
    refuse_taken({port: "the edge"})


def test_secrets_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    first = load_credentials(tmp_path / "home")
    assert load_credentials(tmp_path / "home") == first
    assert load_credentials(tmp_path / "other") != first
    assert (tmp_path / "home" / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert not any(secret in repr(first) for secret in astuple(first))


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_private(path, "old")
    path.with_name("file.new").write_text("left by a crash")
    write_private(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_no_secret_is_among_the_arguments_of_a_part(tmp_path: Path) -> None:
    secrets = astuple(load_credentials(tmp_path))
    for part in plan(tmp_path).parts.values():
        assert not any(secret in word for secret in secrets for word in (*part.command, part.address))
