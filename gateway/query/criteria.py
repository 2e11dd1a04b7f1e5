"""What a key's value asks for (PS3.4 C.2.2.2), without a database.

Criterion
├── OneOf       single value matching, list of UID matching; a list of texts or codes means any of them
├── Wildcard    `*` any characters, `?` one character
├── Number      integer strings and numbers
├── Between     dates; times, padded to microseconds; None: an open end
├── Person      names, folded: a wildcard pattern that some run of component groups has
├── Words       `fuzzymatching`: each word begins some word of the name, in any order
└── AnyOf       several of the others
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.errors import InvalidQueryError
from gateway.person_name import fold_group
from gateway.query.attributes import Attribute

LONGEST_TEXT = 1024
MOST_VALUES = 5000
MOST_TEXTS = 100
"""Texts or names of one key: SQLite nests a list of conditions 1000 deep at most."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH = 64
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_DATE = re.compile(r"(\d{4})([.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3])(?:(:?)([0-5]\d)(?:\2([0-5]\d|60)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_WILD = re.compile(r"[*?]")
_STARS = re.compile(r"\*+")
_BETWEEN_WORDS = re.compile(r"[\s^=,*?-]+")


@dataclass(frozen=True, slots=True)
class OneOf:
    """Equal to one of these."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Matched as a whole, case-sensitive."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Number:
    """Equal to this number."""

    value: int


@dataclass(frozen=True, slots=True)
class Between:
    """Neither before `low` nor behind `high`; dates are YYYYMMDD, times HHMMSS.FFFFFF."""

    low: str | None
    high: str | None
    is_range: bool
    """Whether it was written as one."""


@dataclass(frozen=True, slots=True)
class Person:
    """A folded pattern, matched against every run of neighbouring component groups."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Words:
    """Folded words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of these at least."""

    criteria: tuple[Criterion, ...]


Criterion = OneOf | Wildcard | Number | Between | Person | Words | AnyOf


def criterion_of(attribute: Attribute, value: str, *, is_fuzzy: bool = False) -> Criterion | None:
    r"""Return what a value asks for; None where it asks for nothing (universal matching).

    Parameters
    ----------
    value
        As PS3.4 writes it; several values are separated by a backslash.
    is_fuzzy
        Whether names are matched word by word.

    Raises
    ------
    InvalidQueryError
        The value is not one that the attribute takes; the message says what it takes.
    """
    stripped = value.strip()
    if _STARS.fullmatch(stripped) or not stripped:
        return None
    return _PARSERS.get(attribute.vr, _texts)(attribute, stripped, is_fuzzy)


def _uids(attribute: Attribute, value: str, _is_fuzzy: bool) -> Criterion:
    uids = tuple(dict.fromkeys(uid.strip() for uid in re.split(r"[\\,]", value)))
    if len(uids) > MOST_VALUES:
        raise InvalidQueryError(f"{attribute.keyword} takes at most {MOST_VALUES} UIDs")
    if any(len(uid) > _UID_LENGTH or _UID.fullmatch(uid) is None for uid in uids):
        raise InvalidQueryError(
            f"{attribute.keyword} takes UIDs: digits and dots, at most {_UID_LENGTH} characters, without wildcards"
        )
    return OneOf(uids)


def _date(attribute: Attribute, value: str, _is_fuzzy: bool) -> Criterion:
    low, separator, high = value.partition("-")
    ends = [_one_date(attribute, each.strip()) for each in ((low, high) if separator else (low, low))]
    if separator and ends == [None, None]:
        raise _no_date(attribute)
    return Between(ends[0], ends[1], bool(separator))


def _one_date(attribute: Attribute, text: str) -> str | None:
    if not text:
        return None
    if (match := _DATE.fullmatch(text)) is None:
        raise _no_date(attribute)
    return match[1] + match[3] + match[4]


def _no_date(attribute: Attribute) -> InvalidQueryError:
    return InvalidQueryError(f"{attribute.keyword} takes a date YYYYMMDD or a range: from-to, from-, -to")


def _time(attribute: Attribute, value: str, _is_fuzzy: bool) -> Criterion:
    low, separator, high = value.partition("-")
    low, high = low.strip(), (high if separator else low).strip()
    if separator and not low and not high:
        raise _no_time(attribute)
    return Between(_padded(attribute, low, "0"), _padded(attribute, high, "9"), bool(separator))


def _padded(attribute: Attribute, text: str, digit: str) -> str | None:
    """Return the first or the last microsecond of a time that may be given to the hour."""
    if not text:
        return None
    if (match := _TIME.fullmatch(text)) is None:
        raise _no_time(attribute)
    hours, _, minutes, seconds, fraction = match.groups()
    filled = {"0": "00", "9": "59"}[digit]
    return f"{hours}{minutes or filled}{seconds or filled}.{(fraction or '').ljust(6, digit)}"


def _no_time(attribute: Attribute) -> InvalidQueryError:
    return InvalidQueryError(f"{attribute.keyword} takes a time HHMMSS.FFFFFF or a range: from-to, from-, -to")


def _number(attribute: Attribute, value: str, _is_fuzzy: bool) -> Criterion:
    if _INTEGER.fullmatch(value) is None:
        raise InvalidQueryError(f"{attribute.keyword} takes a whole number")
    return Number(int(value))


def _texts(attribute: Attribute, value: str, _is_fuzzy: bool) -> Criterion:
    values = _values(attribute, value, r"[\\,]" if attribute.vr == "CS" else r"\\")
    criteria = tuple(Wildcard(_STARS.sub("*", each)) if _WILD.search(each) else OneOf((each,)) for each in values)
    return criteria[0] if len(criteria) == 1 else AnyOf(criteria)


def _persons(attribute: Attribute, value: str, is_fuzzy: bool) -> Criterion | None:
    criteria: list[Criterion] = []
    for each in _values(attribute, value, r"\\"):
        pattern = _STARS.sub("*", "=".join(fold_group(group) for group in each.split("=")).strip("="))
        words = tuple(word for word in _BETWEEN_WORDS.split(pattern) if word)
        if is_fuzzy and words:
            criteria.append(Words(words))
        criteria.append(Person(pattern))
        while pattern.endswith("^*"):  # components at the end may be left out of the name
            pattern = pattern.removesuffix("^*")
            criteria.append(Person(pattern))
        if pattern in ("", "*"):
            return None
    return criteria[0] if len(criteria) == 1 else AnyOf(tuple(criteria))


def _values(attribute: Attribute, value: str, separator: str) -> list[str]:
    if len(value) > LONGEST_TEXT:
        raise InvalidQueryError(f"{attribute.keyword} takes at most {LONGEST_TEXT} characters")
    if _UNPRINTABLE.search(value):
        raise InvalidQueryError(f"{attribute.keyword} takes no control characters")
    values = [stripped for each in re.split(separator, value) if (stripped := each.strip())] or [value]
    if len(values) > MOST_TEXTS:
        raise InvalidQueryError(f"{attribute.keyword} takes at most {MOST_TEXTS} values")
    return values


_PARSERS: Mapping[str, Callable[[Attribute, str, bool], Criterion | None]] = {
    "UI": _uids,
    "DA": _date,
    "TM": _time,
    "IS": _number,
    "US": _number,
    "PN": _persons,
}
