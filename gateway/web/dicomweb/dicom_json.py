"""Values -> DICOM JSON model (PS3.18 annex F)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from gateway.query import Match, Value
from gateway.query.attributes import BY_TAG, INSTANCE_AVAILABILITY, REQUEST_ATTRIBUTES

Element = dict[str, Any]
RETRIEVE_URL = 0x00081190
SPECIFIC_CHARACTER_SET = 0x00080005
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_IF_KNOWN = frozenset({0x00280008, 0x00280010, 0x00280011})
"""Number of Frames, Rows, Columns: left out of objects that are no images."""
_VRS: Mapping[int, str] = {
    **{tag: attribute.vr for tag, attribute in BY_TAG.items()},
    REQUEST_ATTRIBUTES: "SQ",
    INSTANCE_AVAILABILITY: "CS",
    RETRIEVE_URL: "UR",
    SPECIFIC_CHARACTER_SET: "CS",
}
_NAMES = {tag: f"{tag:08X}" for tag in _VRS}
_UTF_8: Element = {"vr": "CS", "Value": ["ISO_IR 192"]}
"""JSON is UTF-8: this is the character set of all texts in it (PS3.18 F.2)."""


def data_set(match: Match, retrieve_url: str) -> bytes:
    """Return a match as a data set in JSON, by ascending tag."""
    if REQUEST_ATTRIBUTES in match:
        return _written(retrieve_url, match.items())
    return _remembered(retrieve_url, tuple(match.items()))


def _written(retrieve_url: str, items: Iterable[tuple[int, Value]]) -> bytes:
    elements = {_NAMES[tag]: element(_VRS[tag], value) for tag, value in items if _is_told(tag, value)}
    elements[_NAMES[SPECIFIC_CHARACTER_SET]] = _UTF_8
    elements[_NAMES[RETRIEVE_URL]] = {"vr": "UR", "Value": [retrieve_url]}
    return orjson.dumps(elements, option=orjson.OPT_SORT_KEYS)


_remembered = lru_cache(maxsize=1 << 13)(_written)
"""Data sets by all that is in them, the index being read anew for each page: the most costly part of one, and most that
are shown have been shown before. The columns of the index bound their length: a few hundred bytes, 10 kB at most."""


def _is_told(tag: int, value: Value) -> bool:
    return value is not None or tag not in _IF_KNOWN


def element(vr: str, value: Value) -> Element:
    r"""Return an element; without 'Value' where it is empty (F.2.5). Several texts are a list or joined by `\`."""
    if vr == "SQ":
        return _with_values(vr, [_item(each) for each in value or ()])  # type: ignore[union-attr,arg-type] # items
    if value is None or value == "":
        return {"vr": vr}
    if isinstance(value, int):
        return {"vr": vr, "Value": [value]}
    texts = value.split("\\") if isinstance(value, str) else [str(each) for each in value]
    if vr == "PN":
        return _with_values(vr, [person_name(each) for each in texts])
    return _with_values(vr, [each or None for each in texts])


def person_name(name: str) -> dict[str, str] | None:
    """Return the component groups of a name that are not empty (F.2.2)."""
    groups = {group: part for group, part in zip(_GROUPS, name.split("="), strict=False) if part.strip("^ ")}
    return groups or None


def _with_values(vr: str, values: Sequence[object]) -> Element:
    return {"vr": vr, "Value": list(values)} if any(each is not None for each in values) else {"vr": vr}


def _item(item: Mapping[int, str]) -> dict[str, Element]:
    return {_NAMES[tag]: element(_VRS[tag], item[tag]) for tag in sorted(item)}
