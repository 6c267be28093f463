"""What can go wrong between the analyzer-bridge and the analysis server, besides its back ends (chassis.errors).

AnalysisRefusedError ── the server will never take this recording
AnalysisNotTakenError ── it did not take this recording, but may yet
├── AnalysisServerFailedError ── it failed at this one
└── AnalysisServerUnavailableError ── it can take none now (an AwayError)
AnalysisChangedError ── the analysis changed between two looks at it
"""

from chassis.errors import AwayError


class AnalysisRefusedError(Exception):
    """The analysis server will never take this recording; asking again is no use."""

    code = "analysis_refused"


class AnalysisNotTakenError(Exception):
    """The analysis server did not take a recording on, but may yet; `retry_after` is the seconds to wait at least."""

    code = "analysis_not_taken"

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class AnalysisServerFailedError(AnalysisNotTakenError):
    """The analysis server is there and failed at this recording; how often it is tried is counted."""

    code = "analysis_server_failed"


class AnalysisServerUnavailableError(AnalysisNotTakenError, AwayError):
    """The analysis server cannot take any recording now: no fault of this one, so it waits for as long as it takes."""

    code = "analysis_server_unavailable"

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        AwayError.__init__(self, "analysis server", reason)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.reason


class AnalysisChangedError(Exception):
    """The analysis changed between two looks at it; the message is tried again."""

    code = "analysis_changed"
