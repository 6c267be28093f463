"""Speech for samples, made by espeak-ng: lines at their times in one WAV file."""

import secrets
import shutil
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from local_stack.errors import StackError


class Voice(NamedTuple):
    """A voice of espeak-ng's, and how it speaks."""

    name: str
    words_per_minute: int
    pitch: int
    """0 to 99."""


class Line(NamedTuple):
    """What is said, and when it begins."""

    start_seconds: float
    text: str


def make(lines: Sequence[Line], seconds: float, voice: Voice, path: Path) -> Path:
    """Write the lines into a WAV file of this length, or longer if they need it; return the path.

    No two files are the same: the silence at the end contains some random bits, which nobody hears. Raises StackError
    when espeak-ng cannot make it.
    """
    sound, rate = bytearray(), 0
    for line in lines:
        said, rate = _said(line.text, voice, path.with_suffix(".line.wav"))
        sound += bytes(max(0, 2 * round(line.start_seconds * rate) - len(sound))) + said
    sound += bytes(max(0, 2 * round(seconds * rate) - len(sound)))
    sound += b"".join(bytes((bits & 1, 0)) for bits in secrets.token_bytes(64))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(sound)
    return path


def _said(text: str, voice: Voice, draft: Path) -> tuple[bytes, int]:
    """Return 16-bit mono samples, and their rate in Hz."""
    if not (program := shutil.which("espeak-ng")):
        raise StackError("espeak-ng is missing, which makes the sample recording. Install it with: make setup")
    options = ["-v", voice.name, "-s", str(voice.words_per_minute), "-p", str(voice.pitch)]
    try:
        command = [program, *options, "-w", draft.name, text]  # a relative name: espeak-ng cuts off long paths
        subprocess.run(command, cwd=draft.parent, check=True, capture_output=True)  # noqa: S603  # the words are ours
    except subprocess.CalledProcessError as error:
        details = tuple(error.stderr.decode(errors="replace").splitlines())
        raise StackError("espeak-ng could not make the sample recording.", details) from error
    with wave.open(str(draft), "rb") as file:
        samples = file.readframes(file.getnframes())
        rate = file.getframerate()
    draft.unlink()
    return samples, rate
