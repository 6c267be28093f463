"""What a part of the stack is: one program, how it is started and how one knows that it is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class NotReadyError(Exception):
    """The part is not ready yet; the text says what is missing."""


@dataclass(frozen=True)
class Part:
    """One program under the process manager."""

    name: str
    """Unique: `mongod`, `gateway-1`."""
    command: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment of the program."""
    ports: Mapping[int, str]
    """Every port that it listens on, with what it is for."""
    address: str
    """Where to reach it, without secrets."""
    check_ready: Callable[[], None]
    """Returns when the part can do its work right now, else raises NotReadyError. May finish the part's set-up."""
    after_port: int | None = None
    """Start only once this port answers."""
    files: Mapping[Path, str] = field(default_factory=dict)
    """Configuration to write before it starts."""
    folders: tuple[Path, ...] = ()
    """Folders to make before it starts."""


GROUPS = ("ports", "backends", "services")
"""The groups start in this order and stop in reverse: the services before the back ends, the broker before epmd."""
GROUP_OF = {
    "epmd": "ports",
    "rabbitmq": "backends",
    "mongod": "backends",
    "s3": "backends",
    "oidc-provider": "backends",
}


def group_of(name: str) -> str:
    """The group of the part with this name."""
    return GROUP_OF.get(name, "services")


SYSTEM_NAMES = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")


def system_env(environ: Mapping[str, str]) -> dict[str, str]:
    """What any program needs of the caller's environment, and nothing that would change how a back end runs."""
    kept = {name: environ[name] for name in SYSTEM_NAMES if name in environ}
    return kept | {"PATH": environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"}
