"""Shows one recording on its way: the bytes of its upload, its progress as it comes, its result."""

from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from local_stack.rendering import render_job
from local_stack.screen import out
from local_stack.sending import Job, Sori


def send_and_watch(sori: Sori, recording: Path, token_id: str) -> bool:
    """Sends the recording and shows everything until its job has ended; True when there is a result.

    Raises SendFailedError when it cannot be sent or followed.
    """
    size = recording.stat().st_size / 1024
    out.print(f"Sending {recording} ({size:.0f} KiB) for token {token_id}", markup=False, soft_wrap=True)
    accepted = _upload(sori, recording, token_id)
    out.print(f"Accepted as job {accepted['job_id']}", soft_wrap=True)
    job = _watch(sori, accepted["job_id"])
    out.print(render_job(job))
    return bool(job["status"] == "completed")


def _upload(sori: Sori, recording: Path, token_id: str) -> Job:
    columns = (TextColumn("Upload"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal) as bars, bars.open(recording, "rb") as file:
        return sori.upload(recording.name, file, token_id)


def _watch(sori: Sori, job_id: str) -> Job:
    columns = (TextColumn("Job   "), BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.description}"))
    job: Job = {}
    with Progress(*columns, console=out, disable=not out.is_terminal) as bars:
        bar = bars.add_task("", total=100)
        for job in sori.follow(job_id):
            bars.update(bar, completed=job["progress"], description=job["message"])
            if not out.is_terminal:
                out.print(f"{job['progress']:>3} %  {job['message']}", markup=False)
    return job
