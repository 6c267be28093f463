"""Makes a recording to try Sori with: a spoken sentence that is new each time, so that no result comes from a cache."""

import secrets
import shutil
import subprocess
from pathlib import Path

from local_stack.errors import StackError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def make_sample(home: Path) -> Path:
    """A WAV file of some six seconds in `home`. Raises StackError when espeak-ng cannot make it."""
    number = " ".join(secrets.choice(DIGITS) for _ in range(6))
    text = f"Hello, this is Sori. Is this recording number {number}? Yes, it is, and now it is being analysed."
    path = home / "sample.wav"
    if not (program := shutil.which("espeak-ng")):
        raise StackError("espeak-ng is missing, which makes the sample recording. Install it with: make setup")
    try:
        command = [program, "-v", "en", "-s", "150", "-w", path.name, text]  # it cuts long paths off
        subprocess.run(command, cwd=home, check=True, capture_output=True)  # noqa: S603  # the words are ours
    except subprocess.CalledProcessError as error:
        details = tuple(error.stderr.decode(errors="replace").splitlines())
        raise StackError("espeak-ng could not make the sample recording.", details) from error
    return path
