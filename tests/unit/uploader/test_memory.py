"""How the uploader's memory is given out."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, threading
from uploader.memory import share_one_arena

share_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
barrier = threading.Barrier(4)

def allocate():
    barrier.wait()
    libc.malloc(50_000)
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, libc.fdopen(1, b"w"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no such arenas")
def test_all_threads_share_one_arena() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)

    assert ran.stdout.count("<heap nr=") == 1, ran.stderr
