"""A job, as it may come to be shown."""

from analysis_server.job import Job

SECRET = "signature=0123456789abcdef"


def test_a_job_does_not_show_its_webhook() -> None:
    job = Job("j", "s3://b/k", "k", f"http://host/?{SECRET}", "v", (), {}, None)
    assert SECRET not in repr(job)
