"""Settings: a wrong or missing one stops the service at start, by its name, and no value is ever shown."""

import re
from pathlib import Path
from typing import Any

import pytest

from chassis import process
from chassis.plain_http import PlainHttp
from chassis.settings import OriginSettings
from tests.unit.services import SERVICES, Service

ROOT = Path(__file__).resolve().parents[3]
EVERY_REQUIRED = [(service, name) for service in SERVICES for name in service.required]


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.param
    return found


async def nothing(*_: object) -> None:
    """An application that is never served."""


def names(service: Service) -> list[str]:
    return [name.upper() for name in service.settings.model_fields]


def give(monkeypatch: pytest.MonkeyPatch, service: Service, **settings: str) -> None:
    """Leave the environment with just these settings beside the required ones; an empty one is taken away."""
    for name in names(service):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**service.required, **settings}.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)


def refused(service: Service, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Start the service, which must exit with 2; gives what it said by setting."""
    with pytest.raises(SystemExit) as exited:
        process.run(service.name, service.settings, lambda _: nothing)
    assert exited.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "hunter2" not in said.err
    lines = [
        re.fullmatch(rf"{service.name}: setting ([A-Z0-9_]+): (.+) \(see \.env\.example\)", line)
        for line in said.err.splitlines()
    ]
    assert all(lines), said.err
    return {line[1]: line[2] for line in lines if line}


@pytest.mark.parametrize(("service", "name"), EVERY_REQUIRED, ids=lambda value: getattr(value, "name", value))
def test_a_missing_setting_is_named(
    service: Service, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, service, **{name: ""})
    assert set(refused(service, capsys)) == {name}


def test_all_that_is_missing_is_named_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, service, **dict.fromkeys(service.required, ""))
    assert set(refused(service, capsys)) == set(service.required)


WRONG = {
    "RABBITMQ_URL": ["hunter2", "http://user:hunter2@host", "amqp://[hunter2"],
    "MONGODB_URL": ["hunter2", "postgresql://user:hunter2@host/db"],
    "WEBHOOK_SECRET": ["hunter2-short"],
    "WEBHOOK_SECRET_PREVIOUS": ["hunter2-short"],
    "TARGET_SERVER_URL": ["hunter2", "ftp://hunter2"],
    "WEBHOOK_URL": ["/hunter2"],
    "PORT": ["hunter2", "0", "65536", "-1", "80.5"],
    "LOG_LEVEL": ["hunter2", "WARN", "5"],
    "MAX_UPLOAD_BYTES": ["hunter2", "0", "-5", "1MB"],
    "MAX_RESULT_BYTES": ["hunter2", "0"],
    "CATALOGUE_PREFIX": ["hunter2", "s3://hunter2", "s3://hunter2/", "s3://hunter2/a", "https://hunter2/a/"],
    "INBOX_MAX_AGE": ["hunter2", "0", "-1"],
    "REDRIVE_AFTER": ["hunter2", "0", "-1", "1e9"],
    "RETENTION_DAYS": ["0", "-1", "for ever", "1e9"],
    "MAX_AUDIO_SECONDS": ["hunter2", "0", "-1", "nan"],
    "ANALYSIS_TIMEOUT": ["hunter2", "0", "-1"],
    "ANALYSIS_ATTEMPTS": ["hunter2", "0", "1.5"],
    "ANALYSIS_IN_FLIGHT": ["hunter2", "0", "-1", "1.5"],
    "SHUTDOWN_GRACE": ["hunter2", "9", "-1"],
    "JOB_MAX_AGE": ["hunter2", "0", "-1", "nan", "inf"],
    "AUTH": ["hunter2", "on", "OFF"],
    "OIDC_ISSUERS": ["hunter2", "http://hunter2.example", "https://a.example,ftp://hunter2"],
    "SESSION_KEYS": ["hunter2", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "hunter2"}]}'],
    "CATALOGUE_PUBLIC": ["hunter2", "2"],
    "LIMIT_REQUESTS": ["hunter2", "-1", "1.5"],
    "LIMIT_STREAMS": ["hunter2", "-1", "1.5"],
    "LIMIT_UPLOADS": ["hunter2", "-1", "1.5"],
    "LIMIT_UPLOAD_BYTES": ["hunter2", "-1", "1.5"],
    "LIMIT_JOBS_WAITING": ["hunter2", "-1", "1.5"],
    "TRUSTED_PROXIES": ["hunter2", "10.0.0.0/33", "10.1.2.3/8"],
}
EVERY_WRONG = [
    (service, name, value)
    for service in SERVICES
    for name, values in WRONG.items()
    if name in names(service)
    for value in values
]


@pytest.mark.parametrize(
    ("service", "name", "value"), EVERY_WRONG, ids=lambda value: getattr(value, "name", str(value))
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    service: Service, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, service, **{name: value})
    assert set(refused(service, capsys)) == {name}


def test_every_setting_that_can_be_wrong_is_tried_above() -> None:
    free = {
        "HOST",
        "CORS_ORIGINS",
        "ANALYSIS_VERSION",
        "S3_ENDPOINT_URL",
        "S3_BUCKET_NAME",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "OIDC_AUDIENCES",
        "OIDC_ROLES_CLAIM",
    }
    assert {name for service in SERVICES for name in names(service)} == free | set(WRONG)


AUTH_SERVICES = [service for service in SERVICES if "AUTH" in names(service)]


@pytest.mark.parametrize("service", AUTH_SERVICES, ids=lambda service: service.name)
def test_what_a_login_needs_is_named_when_it_is_missing(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, service, AUTH="required", OIDC_ISSUERS="https://issuer.example")
    assert set(refused(service, capsys)) == {"OIDC_AUDIENCES", "SESSION_KEYS"}


class Started(Exception):  # noqa: N818 - no error: the service got as far as serving
    """Raised in place of serving, with what the server was told."""


@pytest.fixture
def served(service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start the service up to where it would serve; gives what the server was told."""

    def run(_: object, **told: Any) -> None:
        raise Started(told)

    def start(**settings: str) -> dict[str, Any]:
        give(monkeypatch, service, **settings)
        with pytest.raises(Started) as started:
            process.run(service.name, service.settings, lambda _: nothing)
        told: dict[str, Any] = started.value.args[0]
        return told

    monkeypatch.setattr("chassis.logs.configure", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("uvicorn.run", run)
    return start


def test_the_required_settings_are_enough(served: Any) -> None:
    told = served()
    assert told["host"] == "127.0.0.1"
    assert told["http"] is PlainHttp, "a body beside an offer of another protocol must be read"
    assert told["timeout_graceful_shutdown"] > 0, "open streams must not keep a service from stopping"
    assert told["timeout_keep_alive"] > 60, "the edge must be the one to close connections"
    assert told["proxy_headers"] is False, "only proxies of TRUSTED_PROXIES are believed"


def test_a_service_listens_where_it_is_told(served: Any) -> None:
    told = served(HOST="0.0.0.0", PORT="12345")
    assert (told["host"], told["port"]) == ("0.0.0.0", 12345)


def test_a_jobs_age_may_be_a_fraction_like_the_other_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    (notifier,) = [service for service in SERVICES if service.name == "notifier"]
    give(monkeypatch, notifier, JOB_MAX_AGE="1.5")
    assert notifier.settings().model_dump()["job_max_age"] == 1.5


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "INFO", "Warning"])
def test_a_log_level_may_be_written_as_the_example_has_it(served: Any, level: str) -> None:
    served(LOG_LEVEL=level)


def test_secrets_do_not_show_in_what_a_program_prints_of_its_settings(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, service)
    settings = service.settings()
    for shown in (repr(settings), str(settings), str(settings.model_dump())):
        assert "hunter2-webhook" not in shown
        assert "hunter2-aws" not in shown


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", []),
        ("http://a.example", ["http://a.example"]),
        (" http://a.example , http://b.example:3000 ,,", ["http://a.example", "http://b.example:3000"]),
    ],
)
def test_origins_are_a_comma_separated_list(value: str, origins: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for service in SERVICES:
        if "CORS_ORIGINS" in names(service):
            give(monkeypatch, service, **({"CORS_ORIGINS": value} if value else {}))
            settings = service.settings()
            assert isinstance(settings, OriginSettings)
            assert settings.origins == origins


def test_the_example_explains_every_setting() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    explained = set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE))
    # Where each program listens is worked out from SORI_PORT_BASE.
    assert {name for service in SERVICES for name in names(service)} - {"HOST", "PORT"} <= explained
