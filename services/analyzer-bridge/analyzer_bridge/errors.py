"""The errors of the analyzer-bridge, besides those of its back ends (chassis.errors).

AnalysisRefusedError ── the analysis server will never accept this recording
AnalysisNotTakenError ── it did not accept this recording, but may do so later
├── AnalysisServerFailedError ── it failed with this recording
├── AnalysisServerBusyError ── it says that it has no room for one more now
└── AnalysisServerUnavailableError ── it is away
AnalysisChangedError ── the analysis changed between two reads of it
"""


class AnalysisRefusedError(Exception):
    """The analysis server will never accept this recording; asking again is useless."""

    code = "analysis_refused"


class AnalysisNotTakenError(Exception):
    """The analysis server did not accept a recording, but may do so later; wait at least `retry_after` seconds."""

    code = "analysis_not_taken"

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class AnalysisServerFailedError(AnalysisNotTakenError):
    """The analysis server is up, but failed with this recording, which then waits longer each time."""

    code = "analysis_server_failed"


class AnalysisServerBusyError(AnalysisNotTakenError):
    """The analysis server is there, and says that it has no room for one more now; `retry_after` is its own word."""

    code = "analysis_server_busy"


class AnalysisServerUnavailableError(AnalysisNotTakenError):
    """The analysis server can accept no recording now.

    `asked` says that it was asked at all. If it was, this recording may be what it cannot bear.
    """

    code = "analysis_server_unavailable"

    def __init__(self, reason: str, retry_after: float | None = None, *, asked: bool = True) -> None:
        super().__init__(reason, retry_after)
        self.asked = asked


class AnalysisChangedError(Exception):
    """The analysis changed between two reads of it; the message is tried again."""

    code = "analysis_changed"
