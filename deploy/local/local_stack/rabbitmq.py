"""RabbitMQ as a private node, and the Erlang port mapper that it registers with."""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import aio_pika

from local_stack.credentials import Credentials
from local_stack.part import NotReadyError, Part
from local_stack.ports import LOOPBACK, Ports

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in /usr/sbin switches to the user rabbitmq
USER = "sori"
# An address instead of a host name: nothing to resolve. Two stacks do not collide: each has its own port mapper.
NODE = f"sori@{LOOPBACK}"
# The broker puts the name of its folder into shell commands unquoted. Every part runs in the stack's home, so this name
# is the same folder, and safe in any shell.
FOLDER = "/proc/self/cwd/rabbitmq"

CONFIG = """\
listeners.tcp.1 = {loopback}:{amqp}
distribution.listener.interface = {loopback}
default_user = {user}
default_pass = {password}
log.console = true
log.console.level = info
log.console.use_colors = off
log.file = false
# Small, for it shares the machine: the defaults are 40 % of the memory and a log of 512 MB.
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 200MB
raft.wal_max_size_bytes = 64000000
"""


def amqp_url(ports: Ports, credentials: Credentials) -> str:
    """Return the broker's address, with its password."""
    return f"amqp://{USER}:{credentials.rabbitmq_password}@{LOOPBACK}:{ports.rabbitmq}/"


def port_mapper(ports: Ports, system: Mapping[str, str]) -> Part:
    """epmd, on a port of its own: the machine's own one is left alone, and this one ends with the stack."""
    return Part(
        name="epmd",
        command=("epmd", "-port", str(ports.epmd), "-address", LOOPBACK),
        env=system,
        ports={ports.epmd: "epmd"},
        address=f"{LOOPBACK}:{ports.epmd}",
        check_ready=lambda: _answers(ports.epmd),
    )


def broker(home: Path, ports: Ports, credentials: Credentials, system: Mapping[str, str]) -> Part:
    """The node; its data and its Erlang cookie are in `home/rabbitmq`."""
    folder = home / "rabbitmq"
    config = CONFIG.format(
        loopback=LOOPBACK,
        amqp=ports.rabbitmq,
        user=USER,
        password=credentials.rabbitmq_password,
    )
    return Part(
        name="rabbitmq",
        command=(SERVER,),
        env=dict(system) | _broker_env(ports),
        ports={
            ports.rabbitmq: "RabbitMQ",
            ports.rabbitmq_distribution: "RabbitMQ's distribution",
        },
        address=f"amqp://{LOOPBACK}:{ports.rabbitmq}/",
        check_ready=lambda: _accepts(ports.rabbitmq, amqp_url(ports, credentials)),
        after_port=ports.epmd,
        files={
            folder / "rabbitmq.conf": config,
            # No plugins: the management page alone makes every stop take 7 s instead of 2.
            folder / "enabled_plugins": "[].\n",
            folder / ".erlang.cookie": credentials.erlang_cookie,
        },
        folders=(folder / "mnesia", folder / "log"),
    )


def _broker_env(ports: Ports) -> dict[str, str]:
    return {
        "HOME": FOLDER,
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_USE_LONGNAME": "true",
        "RABBITMQ_NODE_PORT": str(ports.rabbitmq),
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_DIST_PORT": str(ports.rabbitmq_distribution),
        "RABBITMQ_MNESIA_BASE": f"{FOLDER}/mnesia",
        "RABBITMQ_LOG_BASE": f"{FOLDER}/log",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{FOLDER}/enabled_plugins",
        "RABBITMQ_CONFIG_FILE": f"{FOLDER}/rabbitmq.conf",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{FOLDER}/advanced.config",
        "RABBITMQ_CONF_ENV_FILE": f"{FOLDER}/rabbitmq-env.conf",  # does not exist: the machine's own is not read
        "RABBITMQ_GENERATED_CONFIG_DIR": f"{FOLDER}/generated",
        # One scheduler, which sleeps when it has nothing to do instead of busy-waiting (erl, +S and +sbwt).
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
        " -kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_CRASH_DUMP": f"{FOLDER}/log/erl_crash.dump",
        # Makes the start script become the Erlang machine, which stops cleanly on SIGTERM, instead of watching over it.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _answers(port: int) -> None:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError as error:
        raise NotReadyError(f"nothing answers on port {port}") from error


def _accepts(port: int, url: str) -> None:
    _answers(port)
    try:
        asyncio.run(_open_channel(url))
    except (OSError, aio_pika.exceptions.AMQPError) as error:
        raise NotReadyError("the broker does not accept AMQP connections") from error


async def _open_channel(url: str) -> None:
    async with await aio_pika.connect(url, timeout=5) as connection:
        await connection.channel()
