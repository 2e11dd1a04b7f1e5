"""What the commands print: rich tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

# No markup: what senders, peers and errors say is text, and brackets in it are brackets.
out = Console(soft_wrap=not sys.stdout.isatty(), markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)

Column = tuple[str, Callable[[Any], object]]
"""Heading, and what to show of a row; a `Text` is shown with its style."""


def print_heading(text: str) -> None:
    """Print a heading with an empty line above."""
    out.print(Text(f"\n{text}", style="bold"))


def print_error(lead: str, sentence: object) -> None:
    """Print a sentence to standard error behind a word in red."""
    err.print(Text.assemble((lead, "red"), " ", str(sentence)))


def working(what: str) -> Status:
    """Show on standard error that something takes its time; nothing where that is no terminal."""
    return err.status(Text(what))


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
        table.add_column(Text(heading), overflow="fold")
    for row in rows:
        table.add_row(*(_as_cell(value(row)) for _, value in columns))
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
        table.add_row(Text(name), _as_cell(value))
    out.print(table)


def _fields(record: object) -> list[tuple[str, object]]:
    if isinstance(record, Mapping):
        return list(record.items())
    fields = dataclasses.fields(record)  # type: ignore[arg-type] # records are dataclasses
    return [(field.name, getattr(record, field.name)) for field in fields]


def _as_cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    # A description from a sender must not steer the terminal either.
    return Text(
        "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in _as_text(value))
    )


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
