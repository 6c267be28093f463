"""Uploaders that stop before they keep a chosen recording, and die right after they have kept it.

The real service runs in its own process; only `Bucket.keep` is wrapped. Files tell who waits and who may go on:
`<job>.stop` is planned by the test, `<job>.holds` says that an uploader has the recording in hand, `<job>.go` lets it
keep the recording. Then it takes `<job>.stop` away and kills itself, before it can say anything to anybody.

`python -m tests.support.dying_uploader` runs the uploader.
"""

import dataclasses
import os
import runpy
import signal
from pathlib import Path

from local_stack.settings import ROOT
from local_stack.stack import Stack
from tests.support.waiting import until_true
from uploader.storage import Bucket
from uploader.uploads import Fetched, StoredRecording

FOLDER = "DYING_UPLOADER"
"""The environment variable that names the folder with the files."""


class Deaths:
    """The recordings that an uploader is to die of, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self, stack: Stack) -> None:
        """Have both uploaders of the stack do what is planned."""
        self._folder.mkdir()
        for name in ("uploader-1", "uploader-2"):
            part = stack.parts[name]
            command = (part.command[0], "-m", __name__)
            env = {**part.env, "PYTHONPATH": str(ROOT), FOLDER: str(self._folder)}
            stack.parts[name] = dataclasses.replace(part, command=command, env=env)

    def plan(self, job_id: str) -> None:
        """Have the next uploader that has the job's recording in hand stop before it keeps it."""
        self._file(job_id, "stop").touch()

    def is_planned(self, job_id: str) -> bool:
        """Tell whether nobody has died of it yet."""
        return self._file(job_id, "stop").exists()

    def is_held(self, job_id: str) -> bool:
        """Tell whether an uploader has stopped with the recording in hand."""
        return self._file(job_id, "holds").exists()

    def go_on(self, job_id: str) -> None:
        """Let it keep the recording, and die."""
        self._file(job_id, "go").touch()

    async def stop(self, job_id: str) -> None:
        """Say that the recording is in hand, and return when it may be kept."""
        self._file(job_id, "holds").touch()
        await until_true(self._file(job_id, "go").exists, "leave to go on", limit_seconds=120)

    def die(self, job_id: str) -> None:
        """End this process as a crash would."""
        self._file(job_id, "stop").unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    def _file(self, job_id: str, what: str) -> Path:
        return self._folder / f"{job_id}.{what}"


def main() -> None:
    """Run the uploader."""
    deaths = Deaths(Path(os.environ[FOLDER]))
    keep = Bucket.keep

    async def keep_and_die(bucket: Bucket, fetched: Fetched, audio_key: str, recording: StoredRecording) -> str:
        job_id = Path(audio_key).stem
        if not deaths.is_planned(job_id):
            return await keep(bucket, fetched, audio_key, recording)
        await deaths.stop(job_id)
        await keep(bucket, fetched, audio_key, recording)
        deaths.die(job_id)
        raise AssertionError("it is dead")

    Bucket.keep = keep_and_die  # type: ignore[method-assign,assignment] # the one seam that needs no product code
    runpy.run_module("uploader", run_name="__main__")


if __name__ == "__main__":
    main()
