"""What the commands print: rich tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

out = Console(soft_wrap=True) if not sys.stdout.isatty() else Console()
err = Console(stderr=True, soft_wrap=True)

Column = tuple[str, Callable[[Any], object]]
"""Heading, and what to show of a row."""


def print_json(value: object) -> None:
    """Print one JSON document: dataclasses as objects, times as RFC 3339."""
    sys.stdout.write(orjson.dumps(value, default=_as_json, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_rows(rows: Sequence[Any], columns: Sequence[Column], *, as_json: bool, empty: str) -> None:
    """Print rows as a table, or as a JSON list of whole rows.

    Parameters
    ----------
    empty
        What to say where there are none.
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        out.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, _ in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_as_text(value(row)) for _, value in columns))
    out.print(table)


def print_record(record: object, *, as_json: bool) -> None:
    """Print one thing, a line a field."""
    if as_json:
        print_json(record)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _fields(record):
        table.add_row(name, _as_text(value))
    out.print(table)


def _fields(record: object) -> list[tuple[str, object]]:
    if isinstance(record, Mapping):
        return list(record.items())
    return [(field.name, getattr(record, field.name)) for field in dataclasses.fields(record)]  # type: ignore[arg-type] # records are dataclasses


def _as_text(value: object) -> str:
    if value is None or value in ("", (), []):
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, Mapping | list | tuple):
        return orjson.dumps(value, default=_as_json, option=orjson.OPT_INDENT_2).decode()
    return str(value)


def _as_json(value: object) -> object:
    if hasattr(value, "_asdict"):
        return value._asdict()
    return str(value)
