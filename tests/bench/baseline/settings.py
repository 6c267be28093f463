"""Where the baseline reads its environment: the names that its README gives."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What `python -m tests.bench.baseline` needs to know."""

    access_key: str
    secret_key: str
    region: str
    bucket: str
    s3_endpoint_url: str | None
    target_server_url: str
    webhook_url: str
    host: str
    port: int

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the settings; a KeyError names the one that is missing."""
        return cls(
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            region=os.environ.get("AWS_REGION", "us-east-1"),
            bucket=os.environ["S3_BUCKET_NAME"],
            s3_endpoint_url=os.environ.get("S3_ENDPOINT_URL"),
            target_server_url=os.environ["TARGET_SERVER_URL"],
            webhook_url=os.environ["WEBHOOK_URL"],
            host=os.environ.get("HOST", "127.0.0.1"),
            port=int(os.environ.get("PORT", "8000")),
        )
