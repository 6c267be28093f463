"""What can go wrong between the analyzer-bridge and the analysis server."""


class BridgeError(Exception):
    """Anything the analyzer-bridge raises itself."""

    code = "bridge_error"


class AnalysisRefusedError(BridgeError):
    """The analysis server will never take this recording; asking again is no use."""

    code = "analysis_refused"


class AnalysisServerUnavailableError(BridgeError):
    """The analysis server cannot take a recording now; `retry_after` is the seconds it asked for, if it did."""

    code = "analysis_server_unavailable"

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class AnalysisChangedError(BridgeError):
    """The analysis changed between two looks at it; the message is tried again."""

    code = "analysis_changed"
