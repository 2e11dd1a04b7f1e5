"""The parameters of a search (PS3.18 8.3.4): attributes by keyword, by tag or by a path into a sequence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import dictionary_has_tag, keyword_for_tag, tag_for_keyword

from gateway.errors import InvalidQueryError
from gateway.query import Level, matching_tags, return_tags
from gateway.query.attributes import BY_TAG, REQUEST_ATTRIBUTES, levels_down_to

MOST_MATCHES = 1000
"""Matches of one answer, whatever `limit` says."""
MOST_SKIPPED = 10_000_000
_MOST_PARAMETERS = 100
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_NUMBER = re.compile(r"\d{1,9}")
_IGNORED = frozenset({"accept", "charset", "multiplevaluematching"})
"""Parameters of PS3.18 that are read elsewhere or change nothing here: several values are always matched."""
_EMPTY = "emptyvaluematching"
_NOT_BY_DEFAULT = frozenset({0x00080062, 0x00100021, 0x00080021, 0x00080031, 0x00180015, 0x00201200, 0x00083002})
"""Returned on request alone: SOP classes in study, issuer, series date and time, body part, transfer syntax, …"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the parameters ask for."""

    keys: dict[int, str]
    wanted: frozenset[int]
    is_fuzzy: bool
    limit: int | None
    offset: int
    ignored: tuple[str, ...]
    """Attributes of DICOM that are not matched at this level, and parameters of PS3.18 that are not supported."""


def read_parameters(items: Iterable[tuple[str, str]], level: Level, parents: frozenset[int]) -> Asked:
    """Read the parameters of a search at a level, below the levels whose UIDs the path names.

    Raises
    ------
    InvalidQueryError
        A parameter is not known, stands twice, or its value is not one that it takes.
    """
    reader = _Reader(level, _defaults(level, parents))
    for number, (name, value) in enumerate(items):
        if number == _MOST_PARAMETERS:
            raise InvalidQueryError(f"a search takes at most {_MOST_PARAMETERS} parameters")
        reader.take(name, value)
    return reader.asked()


class _Reader:
    """Takes one parameter after the other."""

    def __init__(self, level: Level, wanted: frozenset[int]) -> None:
        self._level = level
        self._keys: dict[int, str] = {}
        self._wanted = set(wanted)
        self._ignored: list[str] = []
        self._once: dict[str, str] = {}

    def take(self, name: str, value: str) -> None:
        if name == "includefield":
            self._include(value)
        elif name in ("limit", "offset", "fuzzymatching"):
            if name in self._once:
                raise InvalidQueryError(f"{name} stands twice")
            self._once[name] = value
        elif name == _EMPTY:
            self._ignored += [_EMPTY] if value.lower() == "true" else []
        elif name not in _IGNORED:
            self._match(name, value)

    def asked(self) -> Asked:
        limit, offset = _number("limit", self._once.get("limit")), _number("offset", self._once.get("offset"))
        if limit == 0:
            raise InvalidQueryError("limit takes a whole number from 1")
        fuzzy = self._once.get("fuzzymatching", "false").lower()
        if fuzzy not in ("true", "false"):
            raise InvalidQueryError("fuzzymatching takes true or false")
        if offset is not None and offset > MOST_SKIPPED:
            raise InvalidQueryError(f"offset takes at most {MOST_SKIPPED}")
        wanted = frozenset(self._wanted)
        return Asked(self._keys, wanted, fuzzy == "true", limit, offset or 0, tuple(self._ignored))

    def _include(self, value: str) -> None:
        for name in value.split(","):
            if name.strip().lower() == "all":
                self._wanted |= return_tags(self._level)
            elif name.strip():
                self._wanted.add(_tag(name.strip()))

    def _match(self, name: str, value: str) -> None:
        tag = _tag(name)
        if tag not in matching_tags(self._level):
            self._ignored.append(_shown(tag))
            return
        attribute = BY_TAG[tag]
        if tag in self._keys:
            if attribute.vr != "UI":
                raise InvalidQueryError(f"{attribute.keyword} stands twice")
            value = f"{self._keys[tag]}\\{value}"
        self._keys[tag] = value
        self._wanted.add(attribute.sequence or tag)


def _defaults(level: Level, parents: frozenset[int]) -> frozenset[int]:
    """Return what is always returned (PS3.18 tables 10.6.3-3 to -5); of levels that the path names, the UIDs alone."""
    named = {"PATIENT": parents, "STUDY": parents, "SERIES": parents & {0x0020000E}}
    levels = {each for each in levels_down_to(level) if not named.get(each)}
    known = {each.sequence or each.tag for each in BY_TAG.values() if each.level in levels}
    availability = {0x00080056} if level in ("STUDY", "IMAGE") else set()
    return frozenset((known | availability | {0x00080201}) - _NOT_BY_DEFAULT)


def _tag(name: str) -> int:
    """Return the tag of '00100010', 'PatientName' or, within a sequence, '00400275.00400009'."""
    *sequences, last = (_single_tag(name, part) for part in name.split("."))
    if sequences and (sequences != [REQUEST_ATTRIBUTES] or getattr(BY_TAG.get(last), "sequence", None) is None):
        return sequences[0]
    return last


def _single_tag(name: str, part: str) -> int:
    if _TAG.fullmatch(part):
        return int(part, 16)
    if (tag := tag_for_keyword(part)) is None:
        raise InvalidQueryError(f"{_quoted(name)} is neither a parameter of a search nor an attribute of DICOM")
    return int(tag)


def _shown(tag: int) -> str:
    return keyword_for_tag(tag) if dictionary_has_tag(tag) else f"{tag:08X}"


def _quoted(name: str) -> str:
    """Return a name as it may be said back: short, and of plain characters."""
    return f"'{re.sub(r'[^A-Za-z0-9._-]', '?', name)[:64]}'"


def _number(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isascii() or _NUMBER.fullmatch(value) is None:
        raise InvalidQueryError(f"{name} takes a whole number")
    return int(value)
