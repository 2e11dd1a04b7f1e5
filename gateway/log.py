"""Structured logs: event first, the same keys always, no patient data.

Keys that would carry patient data are withheld even when a call site passes them. Of an exception only its class and
its place are told: messages and tracebacks of libraries quote the values that they could not handle.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import structlog

from gateway.place import place

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_LIBRARIES = {
    **dict.fromkeys(
        ("pydicom", "pika", "pynetdicom", "uvicorn", "asyncio", "sqlalchemy", "py.warnings"), logging.CRITICAL
    ),
    **dict.fromkeys(("highdicom", "httpx", "httpcore", "alembic"), logging.ERROR),
}
"""Lowest level shown of libraries: they write addresses, UIDs and now and then values of data sets."""
FORBIDDEN_KEYS = frozenset({"patient_id", "patient_name", "patient_birth_date", "accession_number", "dataset"})
"""Keys that would carry patient data; dropped, and the line says so."""


def drop_patient_data(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Remove keys that carry patient data."""
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = "(withheld)"
    return event


def name_exceptions(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Put the class and the place of an exception where its traceback would stand."""
    told = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if isinstance(told, tuple):
        told = told[1]
    elif told and not isinstance(told, BaseException):
        told = sys.exception()
    if isinstance(told, BaseException):
        event.setdefault("error", type(told).__name__)
        event.setdefault("place", place(told))
    return event


def configure_logging(log_format: Literal["console", "json"] = "console", level: str = "INFO", role: str = "") -> None:
    """Send structlog and the standard library's log to standard error, one line an event; uncaught exceptions too.

    Parameters
    ----------
    log_format
        'json' for machines, 'console' for people.
    level
        Name of the lowest level shown.
    role
        Bound to every line as `role`, so that the lines of one `serve` can be told apart.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_exceptions,
        drop_patient_data,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library, least in _LIBRARIES.items():
        logging.getLogger(library).setLevel(least)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a line that cannot be formatted would be shown with its arguments
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_ended_thread
    structlog.contextvars.clear_contextvars()
    if role:
        structlog.contextvars.bind_contextvars(role=role)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, Exception):
        structlog.get_logger().critical("program.failed", error=kind.__name__, place=place(error))
    else:
        sys.__excepthook__(kind, error, trace)  # an interrupt ends the program as it always does


def _log_ended_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or isinstance(ended.exc_value, SystemExit):
        return
    structlog.get_logger().critical(
        "thread.failed",
        thread=ended.thread.name if ended.thread is not None else "",
        error=ended.exc_type.__name__,
        place=place(ended.exc_value),
    )
