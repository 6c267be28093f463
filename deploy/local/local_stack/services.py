"""The four services and the analysis server: the settings that each is given, and the check that it is ready."""

import http.client
import sys
from collections.abc import Mapping

from local_stack import login
from local_stack.part import NotReadyError, Part
from local_stack.ports import LOOPBACK, Ports

S3_SETTINGS = ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "S3_BUCKET_NAME")
LOGIN_SETTINGS = ("AUTH", "OIDC_ISSUERS", "OIDC_AUDIENCES", "SESSION_KEYS")
SETTINGS = {
    "gateway": ("RABBITMQ_URL", "MONGODB_URL", "WEBHOOK_SECRET", "CORS_ORIGINS", *S3_SETTINGS, *LOGIN_SETTINGS),
    "uploader": ("RABBITMQ_URL", *S3_SETTINGS),
    "analyzer-bridge": (
        "RABBITMQ_URL",
        "MONGODB_URL",
        "TARGET_SERVER_URL",
        "WEBHOOK_URL",
        "WEBHOOK_SECRET",
        "ANALYSIS_IN_FLIGHT",
    ),
    "notifier": ("RABBITMQ_URL", "MONGODB_URL", "CORS_ORIGINS", *LOGIN_SETTINGS),
    "analysis-server": S3_SETTINGS,
}
"""Those of the stack's own settings that a program needs. What a person gives goes to all programs."""


def analysis_server_url(ports: Ports) -> str:
    """Return the address at which the local analysis server is called."""
    return f"http://{LOOPBACK}:{ports.analysis_server}/analyze-voice"


def analysis_server(ports: Ports, settings: Mapping[str, str], given: Mapping[str, str]) -> Part:
    """Return the local analysis server, for a stack that is given no other."""
    return _program("analysis-server", "analysis-server", ports.analysis_server, settings, given)


def service(name: str, replica: int, ports: Ports, settings: Mapping[str, str], given: Mapping[str, str]) -> Part:
    """One replica of a service, counted from 1: the part `gateway-1`."""
    return _program(f"{name}-{replica}", name, ports.service(name, replica), settings, given)


def _program(part: str, name: str, port: int, settings: Mapping[str, str], given: Mapping[str, str]) -> Part:
    own = {setting: settings[setting] for setting in SETTINGS[name] if setting in settings}
    if name == "notifier" and "SESSION_KEYS" in own:  # it signs nothing
        own["SESSION_KEYS"] = login.public_part(own["SESSION_KEYS"])
    place = {"HOST": LOOPBACK, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    return Part(
        name=part,
        command=(sys.executable, "-m", name.replace("-", "_")),
        env={**given, **own, **place},
        ports={port: part},
        address=f"http://{LOOPBACK}:{port}",
        check_ready=lambda: _is_ready(port),
    )


def _is_ready(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError("it does not answer yet") from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise NotReadyError(f"/health/ready answers {status}: it waits for a back end")
