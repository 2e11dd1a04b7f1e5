"""Structured logs: event first, the same keys always, no patient data.

Keys that would carry patient data are withheld even when a call site passes them.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_LIBRARIES = {
    "pydicom": logging.CRITICAL,
    "pika": logging.CRITICAL,
    **dict.fromkeys(("pynetdicom", "highdicom", "uvicorn", "httpx", "httpcore", "alembic"), logging.ERROR),
}
"""Lowest level shown of libraries: they write addresses, UIDs and now and then values of data sets."""
FORBIDDEN_KEYS = frozenset({"patient_id", "patient_name", "patient_birth_date", "accession_number", "dataset"})
"""Keys that would carry patient data; dropped, and the line says so."""


def drop_patient_data(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Remove keys that carry patient data."""
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = "(withheld)"
    return event


def configure_logging(log_format: Literal["console", "json"] = "console", level: str = "INFO", role: str = "") -> None:
    """Send structlog and the standard library's log to standard error, one line an event.

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
        drop_patient_data,
    ]
    tail: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
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
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library, least in _LIBRARIES.items():
        logging.getLogger(library).setLevel(least)
    structlog.contextvars.clear_contextvars()
    if role:
        structlog.contextvars.bind_contextvars(role=role)
