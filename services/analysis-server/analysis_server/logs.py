"""The shape of the log: JSON lines on stdout, our own and the libraries' alike."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SERVICE = "analysis-server"

# At INFO httpx writes every address that it calls, and a webhook's address carries a signature.
_TALKATIVE = ("httpx", "httpcore", "botocore", "aiobotocore", "urllib3", "asyncio", "uvicorn.error")


def set_up(level: str) -> None:
    """Send every log record of this process to stdout as one JSON line with time, level, service and event."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _add_service,
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(shared))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _formatter(foreign: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*foreign, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # A traceback's local variables would bring that signature in again.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            _put_first,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["service"] = SERVICE
    return event


def _put_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Start each line with the fields that a reader looks for."""
    first = {name: event.pop(name) for name in ("time", "level", "service", "event") if name in event}
    return {**first, **event}
