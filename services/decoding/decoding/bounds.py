"""How much sound a recording may have."""

from contracts.audio import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from contracts.failures import FailureCode
from decoding.errors import RejectedError

PADDING_SECONDS = 0.5
"""How much longer than allowed a recording may be: codecs pad their first and last frames."""


def check_format(sample_rate: int, channels: int) -> None:
    """Raise RejectedError `audio_too_complex` when nobody records so."""
    if not (MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE and 1 <= channels <= MAX_CHANNELS):
        raise RejectedError(FailureCode.AUDIO_TOO_COMPLEX)


def check_length(seconds: float, max_seconds: float) -> None:
    """Raise RejectedError `audio_too_long` when it plays for longer than is allowed."""
    if seconds > max_seconds + PADDING_SECONDS:
        raise RejectedError(FailureCode.AUDIO_TOO_LONG)
