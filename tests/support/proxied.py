"""A whole stack whose programs reach one another through proxies only, and whose S3 server has a small disk."""

import dataclasses
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.part import Part
from local_stack.ports import LOOPBACK
from local_stack.stack import Stack
from tests.support.proxy import Proxies, Proxy
from tests.support.stack_guard import guarded
from tests.support.stacks import UP_SECONDS, claimed_ports

REPLICAS = 2
DISK_BYTES = 192 * 1024 * 1024
SETTINGS = {
    # An analysis server calls its webhook once: a call that a cut has lost comes back only by asking again.
    "ANALYSIS_TIMEOUT": "5",
    "ANALYSIS_ATTEMPTS": "20",
    "INBOX_MAX_AGE": "3600",
    # What a fault has lost is told again sooner than people would have it.
    "REDRIVE_AFTER": "10",
}
BACK_ENDS = {"rabbitmq": "RABBITMQ_URL", "mongodb": "MONGODB_URL", "s3": "S3_ENDPOINT_URL"}
"""The setting that names each back end, by its name in health reports."""
NEEDS = {
    "gateway": ("rabbitmq", "mongodb", "s3"),
    "uploader": ("rabbitmq", "s3"),
    "analyzer-bridge": ("rabbitmq", "mongodb"),
    "notifier": ("rabbitmq", "mongodb"),
}
PART_OF = {"rabbitmq": "rabbitmq", "mongodb": "mongod", "s3": "s3"}
"""The part of the stack that each back end is."""
ANALYSIS_SERVER, WEBHOOK = "analyzer-bridge>analysis-server", "analysis-server>edge"
CLIENT = "client>edge"


@dataclass
class Proxied:
    """The stack with its proxies by `<from>><to>`; the edge has one for each replica behind it."""

    stack: Stack
    network: Proxies
    proxies: dict[str, list[Proxy]]
    disk: Path | None
    """The path of the S3 server's small disk, seen from outside its namespace; None when mounting is not allowed."""

    @property
    def url(self) -> str:
        """The edge as clients reach it."""
        (proxy,) = self.proxies[CLIENT]
        return proxy.through(self.stack.url)

    def between(self, *pairs: str) -> list[Proxy]:
        """The proxies of these pairs; a pair may be named by its end alone: `>rabbitmq`."""
        return [
            proxy
            for name, found in self.proxies.items()
            for proxy in found
            if any(name == pair or (pair.startswith(">") and name.endswith(pair)) for pair in pairs)
        ]

    @property
    def all(self) -> list[Proxy]:
        """Every proxy."""
        return [proxy for found in self.proxies.values() for proxy in found]

    @contextmanager
    def away(self, back_end: str) -> Iterator[None]:
        """Have no service reach a back end until the block ends; connections to it are reset."""
        ways = self.between(f">{back_end}")
        for way in ways:
            way.refuse()
        try:
            yield
        finally:
            for way in ways:
                way.heal()

    @contextmanager
    def undeletable(self, key: str) -> Iterator[None]:
        """Keep the S3 server from deleting the object under this key until the block ends; there must be a disk."""
        assert self.disk is not None
        path = self.disk / self.stack.settings["S3_BUCKET_NAME"] / key
        # The path is /proc/<pid that keeps the namespace>/root/<path within it>. A mount point cannot be removed.
        (_, _, keeper, _, *inside) = path.parts
        there = "/" + "/".join(inside)
        enter = ["nsenter", f"--target={keeper}", "--user", "--mount", "--preserve-credentials", "--"]
        subprocess.run([*enter, "mount", "--bind", there, there], check=True)
        try:
            yield
        finally:
            subprocess.run([*enter, "umount", there], check=True)

    def service_pids(self) -> dict[str, list[int]]:
        """The processes of every replica of every service."""
        names = [f"{service}-{replica}" for service in NEEDS for replica in range(1, REPLICAS + 1)]
        return {name: self.stack.pids(name) for name in names}


@contextmanager
def proxied_stack(analysis_server_url: str, settings: Mapping[str, str] | None = None) -> Iterator[Proxied]:
    """Two replicas of every service, with SETTINGS and `settings`; stopped at the end of the block whatever happens."""
    with ExitStack() as opened:
        base = opened.enter_context(claimed_ports())
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="sori-test-")))
        opened.enter_context(guarded(home))
        proxies = opened.enter_context(Proxies.running())
        given = {**SETTINGS, **(settings or {}), "TARGET_SERVER_URL": analysis_server_url}
        stack = Stack(home, port_base=base, replicas=REPLICAS, given=given, timeout=UP_SECONDS)
        ways = _services_through(stack, proxies) | _edge_through(stack, proxies)
        ways[CLIENT] = [proxies.in_front_of(CLIENT, stack.url)]
        disk = opened.enter_context(_small_disk(stack))
        opened.callback(stack.down)
        stack.up()
        yield Proxied(stack, proxies, ways, disk)


def _services_through(stack: Stack, proxies: Proxies) -> dict[str, list[Proxy]]:
    """Put a proxy between every service and each thing that it talks to; a service's replicas share it."""
    found: dict[str, list[Proxy]] = {}
    for service, needs in NEEDS.items():
        urls = {
            BACK_ENDS[back_end]: (f"{service}>{back_end}", stack.settings[BACK_ENDS[back_end]]) for back_end in needs
        }
        if service == "analyzer-bridge":
            urls["TARGET_SERVER_URL"] = (ANALYSIS_SERVER, stack.settings["TARGET_SERVER_URL"])
            urls["WEBHOOK_URL"] = (WEBHOOK, stack.settings["WEBHOOK_URL"])
        moved = {}
        for setting, (name, url) in urls.items():
            proxy = proxies.in_front_of(name, url)
            found[name] = [proxy]
            moved[setting] = proxy.through(url)
        for replica in range(1, REPLICAS + 1):
            part = stack.parts[f"{service}-{replica}"]
            _replace(stack, dataclasses.replace(part, env={**part.env, **moved}))
    return found


def _edge_through(stack: Stack, proxies: Proxies) -> dict[str, list[Proxy]]:
    """Have the edge reach the services through proxies."""
    edge = stack.parts["edge"]
    ((path, config),) = edge.files.items()
    found: dict[str, list[Proxy]] = {}
    for service in ("gateway", "notifier"):
        for replica in range(1, REPLICAS + 1):
            name, port = f"edge>{service}", stack.plan.ports.service(service, replica)
            proxy = proxies.to(name, port)
            found.setdefault(name, []).append(proxy)
            assert f"{LOOPBACK}:{port}" in config
            config = config.replace(f"{LOOPBACK}:{port}", f"{LOOPBACK}:{proxy.port}")
    _replace(stack, dataclasses.replace(edge, files={path: config}))
    return found


def _replace(stack: Stack, part: Part) -> None:
    stack.parts[part.name] = part


@contextmanager
def _small_disk(stack: Stack) -> Iterator[Path | None]:
    """Put the S3 server's folder on a small file system, in a mount namespace that ends with this process.

    The process that keeps the namespace waits for its standard input to close, so that nothing stays mounted whatever
    happens.
    """
    part = stack.parts["s3"]
    folder = stack.home / "s3"
    folder.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$1" && mkdir "$1/$2" && echo mounted && exec cat'
    bucket = stack.settings["S3_BUCKET_NAME"]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(folder), bucket]
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        yield None
        return
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdin is not None
        try:
            if keeper.stdout.readline() != b"mounted\n":
                yield None
                return
            enter = ("nsenter", f"--target={keeper.pid}", "--user", "--mount", "--preserve-credentials", "--")
            _replace(stack, dataclasses.replace(part, command=(*enter, *part.command)))
            yield Path(f"/proc/{keeper.pid}/root{folder}")
        finally:
            keeper.stdin.close()
