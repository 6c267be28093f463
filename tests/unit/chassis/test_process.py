"""A service as a process: what it does before it serves."""

import subprocess
import sys

from chassis.process import OBJECTS_BETWEEN_COLLECTIONS

PROGRAM = """
import gc, os
from chassis import process
from chassis.settings import ServiceSettings

class Settings(ServiceSettings):
    host: str = "127.0.0.1"
    port: int = 0

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    print(len(gc.get_objects()) < gc.get_freeze_count(), gc.get_threshold()[0])
    os._exit(0)

process.run("test", Settings, lambda _: app)
"""


def test_what_the_start_made_is_no_work_for_the_garbage_collector() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)

    assert ran.stdout.splitlines()[-1:] == [f"True {OBJECTS_BETWEEN_COLLECTIONS}"], ran.stderr
