"""Where a job is read and watched."""

from contracts import api


def job_links(job_id: str) -> dict[str, str]:
    """Return the addresses of a job's result and progress, by the names that answers have for them."""
    return {
        "result_url": api.RESULT_PATH.format(job_id=job_id),
        "progress_url": api.PROGRESS_PATH.format(job_id=job_id),
    }
