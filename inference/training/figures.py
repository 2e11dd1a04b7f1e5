"""Figures into `bundle.toml`, everything else in it left as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

OF_THE_WEIGHTS = (
    "calibration",
    "laplace",
    "novelty",
    "evaluation",
    "cross_validation",
    "ablation",
    "compression",
    "self_test",
)
"""Tables of bundle.toml that other weights make untrue."""
_WEIGHTS_DIGEST = re.compile(r'(^\[weights\]\n(?:[^\[\n][^\n]*\n|\n)*?)sha256 = "[0-9a-f]{64}"$', re.MULTILINE)
_HEADER = re.compile(r"^\[{1,2}([^\[\]]+)\]{1,2}\s*$")


def write_table(file: Path, name: str, values: Mapping[str, object]) -> None:
    """Replace the table `name` of a TOML file, its sub-tables included, by `values`; append it where it is missing."""
    write_tables(file, {name: values})


def write_tables(file: Path, tables: Mapping[str, Mapping[str, object] | None]) -> None:
    """As `write_table` for each table, None removing it; the file is replaced once, so that it never holds a part."""
    text = file.read_text(encoding="utf-8")
    for name, values in tables.items():
        text = _without(text, name)
        if values is not None:
            text = text.rstrip("\n") + f"\n\n{render_table(name, values)}"
    _replace(file, text)


def drop_table(file: Path, name: str) -> None:
    """Remove the table `name` of a TOML file, its sub-tables included, where it is there."""
    write_tables(file, {name: None})


def write_digest(file: Path, digest: str) -> None:
    """Set `sha256` of the `[weights]` table."""
    text = file.read_text(encoding="utf-8")
    changed, count = _WEIGHTS_DIGEST.subn(rf'\g<1>sha256 = "{digest}"', text)
    if count != 1:
        raise ValueError(f"{file}: expected one line 'sha256 = \"...\"' in [weights], found {count}")
    _replace(file, changed)


def render_table(name: str, values: Mapping[str, object]) -> str:
    """Return `values` as a TOML table: numbers, strings, lists, and tables of them."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in plain.items())]
    blocks = ["\n".join(lines) + "\n"]
    blocks += [render_table(f"{name}.{key}", value) for key, value in values.items() if isinstance(value, Mapping)]
    return "\n".join(blocks)


def _literal(value: object) -> str:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int | str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(_literal(entry) for entry in value)}]"
    raise TypeError(f"no TOML literal for {type(value).__name__}")


def _without(text: str, name: str) -> str:
    kept, is_inside = [], False
    for line in text.splitlines():
        if header := _HEADER.match(line):
            is_inside = header[1] == name or header[1].startswith(f"{name}.")
        if not is_inside:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
