"""Structured logs: one JSON object per line in production, readable lines in development, without secrets."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

from app.ops.redaction import redact, redact_text

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ("configure_logging",)

_QUIET = ("httpx", "httpx2", "httpcore", "httpcore2", "authlib", "asyncio", "aiosqlite", "sqlalchemy", "alembic", "hpack")
"""Libraries that log URLs or parameters when they are chatty."""


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send structlog and the standard library's loggers through the same redaction to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = structlog.processors.JSONRenderer() if as_json else _console()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, _redact_trace, renderer],
    )
    handler = _StderrHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    # Handlers of test runners and agents stay.
    root.handlers[:] = [*(other for other in root.handlers if not isinstance(other, _StderrHandler)), handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    # Its access log has query strings with the code and state of every login; ours does not.
    logging.getLogger("uvicorn.access").disabled = True
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`; ignores a closed stream."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)


def _redact_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Redact tracebacks too: the last line is the error's message, which may quote what a client sent."""
    del logger, method
    if isinstance(event.get("exception"), str):
        event["exception"] = redact_text(event["exception"])
    return event


def _console() -> Any:  # noqa: ANN401 - structlog's own renderer
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
