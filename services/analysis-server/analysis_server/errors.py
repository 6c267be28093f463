"""What can go wrong, each with a stable code: refused requests (HTTP problems) and failed analyses.

- ProblemError: a request is refused; becomes an application/problem+json answer (RFC 9457)
- AnalysisError: an accepted job fails; its sentence goes to the webhook
- StorageError: an object cannot be read from S3 or written to it
- UnusableFileError: a reference's file cannot be used; the job goes on without it
"""


class ProblemError(Exception):
    """A request that is refused, with the problem that the caller reads."""

    def __init__(self, status: int, code: str, title: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.retry_after_s = retry_after_s


class AnalysisError(Exception):
    """A job that fails, with a sentence for people; survives pickling on its way out of a worker."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence


class StorageError(Exception):
    """An object cannot be read or written; `fault` is one of missing, forbidden, too_large, unavailable."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


class UnusableFileError(Exception):
    """A file that is left out; `fault` is a stable code, `sentence` is for people."""

    def __init__(self, fault: str, sentence: str) -> None:
        super().__init__(fault, sentence)
        self.fault = fault
        self.sentence = sentence
