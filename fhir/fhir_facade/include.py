"""`_include` and `_revinclude`: resources that go along with those that were found (R4 search, 3.1.1.5.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.matching import one_of
from fhir_facade.parameters import PARAMETERS
from fhir_facade.rows import index_rows, resource_rows
from fhir_facade.stored import COLUMNS, Stored, stored

LARGEST_INCLUDED = 1000
_MOST_ROUNDS = 4
_MOST_KEPT = 32
"""Statements, each for includes over some types."""
_ITERATING = frozenset({"iterate", "recurse"})


@dataclass(frozen=True, slots=True)
class Include:
    """One `_include` or `_revinclude`."""

    is_reverse: bool
    is_iterating: bool
    source: str
    """Type that refers to the other."""
    parameters: tuple[str, ...]
    """Names of its index rows."""
    target: str
    """Type that is referred to; empty: any."""


def parse_include(name: str, value: str) -> Include | None:
    """Return what `_include:iterate=DiagnosticReport:result:Observation` asks for; None where it means nothing here."""
    base, _, modifier = name.partition(":")
    source, _, tail = value.partition(":")
    parameter_name, _, target = tail.partition(":")
    if modifier and modifier not in _ITERATING:
        return None
    known = PARAMETERS.get(source, {})
    references = [each for each in known.values() if each.kind == "reference" and parameter_name in (each.name, "*")]
    if target:
        references = [each for each in references if target in each.targets]
    if not references:
        return None
    names = tuple(dict.fromkeys(row for each in references for row in each.indexed_as))
    # `patient` looks at the rows of `subject`, of which it takes Patients alone.
    single = references[0].targets if len(references) == 1 and len(references[0].targets) == 1 else ()
    return Include(base == "_revinclude", bool(modifier), source, names, target or "".join(single))


def included(connection: Connection, includes: Sequence[Include], found: Sequence[Stored]) -> tuple[list[Stored], bool]:
    """Return what goes along with the resources of a page, and whether there was more than is given."""
    seen = {each.number: each for each in found}
    gathered: list[Stored] = []
    fresh, wanted = list(found), list(includes)
    for _round in range(_MOST_ROUNDS):
        room = LARGEST_INCLUDED - len(gathered)
        new = [each for each in _next(connection, wanted, fresh, room + 1) if each.number not in seen]
        gathered += new[:room]
        if len(new) > room:
            return gathered, True
        seen |= {each.number: each for each in new}
        fresh, wanted = new, [each for each in includes if each.is_iterating]
        if not fresh or not wanted:
            break
    return gathered, False


def _next(connection: Connection, includes: Sequence[Include], pages: Sequence[Stored], most: int) -> list[Stored]:
    """Return what the includes bring to these resources, in one step, each once."""
    numbers: dict[str, list[int]] = {}
    ids: dict[str, list[str]] = {}
    for each in pages:
        numbers.setdefault(each.type, []).append(each.number)
        ids.setdefault(each.type, []).append(each.resource_id)
    found: dict[int, Stored] = {}
    for make, given in ((_forward, numbers), (_backward, ids)):
        statement = make(tuple(includes), tuple(given))
        if statement is not None:
            bound = {_name(resource_type): each for resource_type, each in given.items()}
            for row in connection.execute(statement, {**bound, "most": most + len(pages)}):
                found[row.id] = stored(row)
    return list(found.values())


def _name(resource_type: str) -> str:
    return f"of_{resource_type}"


def _of(resource_type: str) -> sa.BindParameter[Any]:
    """Return the resources of a type, to be bound."""
    return sa.bindparam(_name(resource_type), expanding=True)


@lru_cache(maxsize=_MOST_KEPT)
def _forward(includes: Sequence[Include], types: Sequence[str]) -> sa.Select[Any] | None:
    """Return the statement for what resources of these types refer to, by their numbers; None where they do not."""
    rows, target = index_rows(), resource_rows()
    # Not by the rows' type: with it SQLite would go through the rows of all resources of that type.
    ways = [
        sa.and_(
            rows.c.resource_pk.in_(_of(each.source)),
            one_of(rows.c.parameter, each.parameters),
            *([rows.c.system == each.target] if each.target else []),
        )
        for each in includes
        if not each.is_reverse and each.source in types
    ]
    if not ways:
        return None
    is_target = sa.and_(target.c.type == rows.c.system, target.c.resource_id == rows.c.value, target.c.is_current)
    return _resources(sa.select(target.c.id).join_from(rows, target, is_target).where(sa.or_(*ways)))


@lru_cache(maxsize=_MOST_KEPT)
def _backward(includes: Sequence[Include], types: Sequence[str]) -> sa.Select[Any] | None:
    """Return the statement for what refers to resources of these types, by their ids; None where nothing does."""
    rows = index_rows()
    ways = [
        sa.and_(
            rows.c.type == each.source,
            one_of(rows.c.parameter, each.parameters),
            rows.c.system == referred,
            rows.c.value.in_(_of(referred)),
        )
        for each in includes
        if each.is_reverse
        for referred in types
        if each.target in ("", referred)
    ]
    return _resources(sa.select(rows.c.resource_pk).where(sa.or_(*ways))) if ways else None


def _resources(numbers: sa.Select[Any]) -> sa.Select[Any]:
    """Return the statement for the resources of these numbers, in order, `most` at the most."""
    resource = resource_rows()
    query = sa.select(*(resource.c[name] for name in COLUMNS)).where(resource.c.id.in_(numbers))
    return query.order_by(resource.c.id).limit(sa.bindparam("most", type_=sa.Integer()))
