"""What can go wrong between the analyzer-bridge and the analysis server."""


class BridgeError(Exception):
    """Anything the analyzer-bridge raises itself."""

    code = "bridge_error"


class AwayError(BridgeError):
    """Something that the bridge needs is away: no fault of the message's, which waits for as long as it takes."""

    code = "away"


class AnalysisRefusedError(BridgeError):
    """The analysis server will never take this recording; asking again is no use."""

    code = "analysis_refused"


class AnalysisNotTakenError(BridgeError):
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


class AnalysisChangedError(BridgeError):
    """The analysis changed between two looks at it; the message is tried again."""

    code = "analysis_changed"
