"""Criteria -> SQL, on SQLite and PostgreSQL. Values travel as parameters."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from gateway.person_name import WORD_STARTS
from gateway.query.criteria import AnyOf, Between, Criterion, Number, OneOf, Person, Wildcard, Words

_LIKE_SPECIAL = re.compile(r"([\\%_])")
_NO_TIME = "000000.000000"
Column = sa.ColumnElement[Any]


class Conditions:
    """Writes conditions for one kind of database.

    Parameters
    ----------
    dialect_name
        'sqlite' or 'postgresql'.
    """

    def __init__(self, dialect_name: str) -> None:
        self._is_sqlite = dialect_name == "sqlite"

    def of(self, criterion: Criterion, column: Column, vr: str) -> sa.ColumnElement[bool]:
        """Return what a column must be; for names the column is the folded one."""
        match criterion:
            case Wildcard(pattern):
                return self._like(column, pattern)
            case Person(pattern):
                return self._like(column, f"*={pattern}=*")
            case Words(words):
                return sa.and_(*(self._begins_a_word(column, word) for word in words))
            case AnyOf(criteria):
                return sa.or_(*(self.of(each, column, vr) for each in criteria))
            case _:
                return _compared(criterion, column, vr)

    def _begins_a_word(self, column: Column, word: str) -> sa.ColumnElement[bool]:
        return sa.or_(*(self._like(column, f"*{before}{word}*") for before in WORD_STARTS))

    def _like(self, column: Column, pattern: str) -> sa.ColumnElement[bool]:
        """Match a pattern of `*` and `?`, case-sensitive: SQLite's LIKE is not, PostgreSQL has no GLOB."""
        if self._is_sqlite:
            return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
        escaped = _LIKE_SPECIAL.sub(r"\\\1", pattern).replace("*", "%").replace("?", "_")
        return column.like(escaped, escape="\\")


def _compared(criterion: OneOf | Number | Between, column: Column, vr: str) -> sa.ColumnElement[bool]:
    match criterion:
        case OneOf(values):
            return column == values[0] if len(values) == 1 else column.in_(values)
        case Number(value):
            return column == value
        case Between():
            return _between(padded_time(column) if vr == "TM" else column, column, criterion)


def _between(value: Column, column: Column, ends: Between) -> sa.ColumnElement[bool]:
    """Return that a value lies between two ends; an empty column does not."""
    conditions = [column != ""]
    if ends.low is not None:
        conditions.append(value >= ends.low)
    if ends.high is not None:
        conditions.append(value <= ends.high)
    return sa.and_(*conditions)


def combined(date: Column, time: Column, dates: Between, times: Between) -> sa.ColumnElement[bool]:
    """Return that date and time together lie between two moments (PS3.4 C.2.2.2.5.1); no time is midnight."""
    clock = padded_time(time)
    conditions: list[sa.ColumnElement[bool]] = [date != ""]
    if dates.low is not None:
        at_low = clock >= times.low if times.low is not None else sa.true()
        conditions.append(sa.or_(date > dates.low, sa.and_(date == dates.low, at_low)))
    if dates.high is not None:
        at_high = clock <= times.high if times.high is not None else sa.true()
        conditions.append(sa.or_(date < dates.high, sa.and_(date == dates.high, at_high)))
    return sa.and_(*conditions)


def padded_time(column: Column) -> Column:
    """Return a time as HHMMSS.FFFFFF: senders write it to the minute, to the millisecond, and with colons."""
    digits = sa.func.replace(column, ":", "", type_=sa.String())
    return digits.concat(sa.func.substr(_NO_TIME, sa.func.length(digits) + 1, type_=sa.String()))
