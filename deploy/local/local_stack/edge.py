"""The nginx edge: fills in the edge's template for this stack."""

import http.client
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from local_stack.errors import SettingError
from local_stack.part import NotReadyError, Part
from local_stack.ports import LOOPBACK, Ports
from local_stack.settings import ROOT

TEMPLATE = ROOT / "deploy" / "edge" / "nginx.conf"
# A single process does not change its user when it is root, and leaves no workers behind when it is killed.
PROCESS = "daemon off; master_process off;"
ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-:\[\]]+|\*")
HOST = re.compile(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.\-]*|\[[0-9A-Fa-f:.]+\]|\*")
OWN_HOSTS = ("localhost", LOOPBACK, "[::1]")
ENVELOPE_BYTES = 16 * 1024
LONGEST_ESCAPE = 6
"""What a webhook body has around its result, and bytes that JSON may take for one: as the gateway reckons."""


def edge_url(ports: Ports) -> str:
    """Return where the edge is, without a slash at the end."""
    return f"http://{LOOPBACK}:{ports.edge}"


def edge(home: Path, ports: Ports, replicas: int, settings: Mapping[str, str], system: Mapping[str, str]) -> Part:
    """nginx in front of `replicas` gateways and as many notifiers. Raises SettingError."""
    folder = home / "edge"
    config = folder / "nginx.conf"
    values = {
        "EDGE_LISTEN": f"{LOOPBACK}:{ports.edge}",
        "EDGE_GATEWAY_SERVERS": servers(ports.service("gateway", n + 1) for n in range(replicas)),
        "EDGE_NOTIFIER_SERVERS": servers(ports.service("notifier", n + 1) for n in range(replicas)),
        "EDGE_CORS_ORIGINS": origins(settings["CORS_ORIGINS"]),
        "EDGE_HOSTS": hosts(settings["EDGE_HOSTS"], settings["WEBHOOK_URL"]),
        **webhook_limits(settings["MAX_RESULT_BYTES"]),
    }
    return Part(
        name="edge",
        command=("nginx", "-p", str(folder), "-c", str(config), "-g", PROCESS),
        env=system,
        ports={ports.edge: "the edge"},
        address=edge_url(ports),
        check_ready=lambda: _answers(ports.edge),
        files={config: fill_in(TEMPLATE.read_text(encoding="utf-8"), values)},
        folders=(folder,),
    )


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """The template with each ${EDGE_…} outside its comments replaced, once; nginx's own variables stay."""
    lines = template.splitlines(keepends=True)
    filled = [line if line.startswith("#") else _fill_line(line, values) for line in lines]
    return "".join(filled)


def _fill_line(line: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(EDGE_[A-Z_]+)\}", lambda match: values[match[1]], line)


def servers(ports: Iterable[int]) -> str:
    """Upstream lines. A replica that is down is asked again at the next request: it may be back."""
    return " ".join(f"server {LOOPBACK}:{port} max_fails=0;" for port in ports)


def origins(cors_origins: str) -> str:
    """Lines for nginx's map that give each allowed origin itself, or `*`. Raises SettingError for an invalid origin."""
    listed = [origin.strip() for origin in cors_origins.split(",") if origin.strip()]
    for origin in listed:
        if not ORIGIN.fullmatch(origin):
            raise SettingError(f"CORS_ORIGINS: {origin!r} is no origin; write https://app.example without a path.")
    return '"~." "*";' if "*" in listed else " ".join(f'"{origin}" $http_origin;' for origin in listed)


def hosts(edge_hosts: str, webhook_url: str) -> str:
    """Lines for nginx's map of the hosts that the edge answers to. Raises SettingError for an invalid name.

    The analysis server's calls come for the host of the webhook's address. This machine's own names always count.
    """
    listed = [host.strip() for host in edge_hosts.split(",") if host.strip()]
    for host in listed:
        if not HOST.fullmatch(host):
            raise SettingError(f"EDGE_HOSTS: {host!r} is no host name; write sori.example without scheme and port.")
    if "*" in listed:
        return '"~." "";'
    called = urlsplit(webhook_url).netloc.rpartition("@")[2]
    own = [*OWN_HOSTS, re.sub(r":\d*$", "", called)]
    names = dict.fromkeys(host.lower() for host in [*own, *listed] if HOST.fullmatch(host))
    return " ".join(f'"{name}" "";' for name in names)


def webhook_limits(max_result_bytes: str) -> dict[str, str]:
    """How large a webhook body may be for the edge to buffer it: all that a gateway reads. Raises SettingError."""
    if not max_result_bytes.isdecimal():
        raise SettingError(f"MAX_RESULT_BYTES: {max_result_bytes!r} is no number of bytes.")
    digits = len(str(LONGEST_ESCAPE * int(max_result_bytes) + ENVELOPE_BYTES))
    return {"EDGE_WEBHOOK_DIGITS": str(digits), "EDGE_WEBHOOK_BYTES": "9" * digits}


def _answers(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError("the edge does not answer yet") from error
    finally:
        connection.close()
