"""What the pages that are made from the program have in common: tables of Markdown, and how a page is written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[1]


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(heading)} |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def page(lines: Iterable[str]) -> str:
    """Return lines as the text of a file."""
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write a page and say so."""
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{path.name} is written\n")
