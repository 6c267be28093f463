"""The nginx edge: fills in the edge's template for this stack."""

import http.client
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from local_stack.errors import SettingError
from local_stack.part import NotReadyError, Part
from local_stack.ports import LOOPBACK, Ports
from local_stack.settings import ROOT

TEMPLATE = ROOT / "deploy" / "edge" / "nginx.conf"
# A single process does not change its user when it is root, and leaves no workers behind when it is killed.
PROCESS = "daemon off; master_process off;"
ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-:\[\]]+|\*")


def edge_url(ports: Ports) -> str:
    """Return where the edge is, without a slash at the end."""
    return f"http://{LOOPBACK}:{ports.edge}"


def edge(home: Path, ports: Ports, replicas: int, cors_origins: str, system: Mapping[str, str]) -> Part:
    """nginx in front of `replicas` gateways and as many notifiers."""
    folder = home / "edge"
    config = folder / "nginx.conf"
    values = {
        "EDGE_LISTEN": f"{LOOPBACK}:{ports.edge}",
        "EDGE_GATEWAY_SERVERS": servers(ports.service("gateway", n + 1) for n in range(replicas)),
        "EDGE_NOTIFIER_SERVERS": servers(ports.service("notifier", n + 1) for n in range(replicas)),
        "EDGE_CORS_ORIGINS": origins(cors_origins),
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


def _answers(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError("the edge does not answer yet") from error
    finally:
        connection.close()
