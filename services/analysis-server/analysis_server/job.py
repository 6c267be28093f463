"""What one accepted request asks for."""

from dataclasses import dataclass, field
from typing import Literal

Part = Literal["reference", "textgrid", "pitch"]
"""The parts of a reference: the actor's sound, and the words and the pitch that somebody marked in it."""


@dataclass(frozen=True)
class Script:
    """A sentence to be spoken, and when the actor speaks it, in seconds from the beginning of the reference."""

    script_id: int
    start_seconds: float
    end_seconds: float
    script: str


@dataclass(frozen=True)
class Job:
    """A recording to analyse and the webhook to call; `job_id` is this server's own."""

    job_id: str
    s3_audio_url: str
    key: str
    webhook_url: str = field(repr=False)  # its query holds a signature
    video_id: str
    scripts: tuple[Script, ...]
    reference: dict[Part, str]  # addresses as received
    traceparent: str | None
