"""Logging: JSON lines on stdout, with the ids of the work in hand as fields."""

import logging
import sys

import structlog


def configure(service: str, level: str) -> None:
    """Send this process's logs, the libraries' included, to stdout as JSON lines that name `service`."""

    def put_first(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        first = {"time": line.pop("time"), "level": line.pop("level"), "service": service, "event": line.pop("event")}
        return {**first, **line}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        put_first,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    # Libraries log only warnings and errors; our own code logs requests and reconnections.
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, logging.getLevelName(level)), force=True)
    logging.captureWarnings(capture=True)
    # These report each failed attempt, and each channel of a lost connection, as an error. `chassis.rabbitmq` logs that
    # it waits.
    for noisy in ("aiormq.connection", "aio_pika.robust_connection", "aio_pika.tools"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
