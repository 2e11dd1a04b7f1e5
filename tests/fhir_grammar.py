"""Searches as R4's grammar lets clients write them, drawn at random from the parameters that the server holds.

Values come from what a database holds, so that searches find something, or are odd on purpose. The same grammar serves
the property tests (`test_fhir_grammar.py`) and the benchmark (`python -m tests.benchmarks.fhir --searches`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from fhir_facade.compartment import COMPARTMENTS
from fhir_facade.parameters import PARAMETERS, SEARCHED, Parameter

from gateway.store import Store
from gateway.store.tables import fhir_index, fhir_resource

Pair = tuple[str, str]
PREFIXES = ("", "", "", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "token": ("not", "text", "missing"),
    "reference": ("identifier", "text", "missing"),
    "string": ("exact", "contains", "missing"),
    "date": ("missing",),
    "quantity": ("missing",),
    "uri": ("missing",),
    "composite": ("missing",),
}
REFUSED = ("in", "not-in", "above", "below", "of-type", "code-text", "iterate", "x", "", "Patient", "Nonsense")
"""Modifiers that no parameter here takes, or not every one."""
ODD = (
    *("", " ", ",", ",,", "|", "||", "|||", "$", "$$", "\\", "\\\\", "\\,", "a\\", "-", ".", "..", ":", "&", "=", "?"),
    *("%", "_", "%%", "*", "'", '"', "';--", "(", ")", "{}", "[]", "<a>", "\x00", "\x01", "\x7f", "\u0085", "\u2028"),
    *("\ufeff", "\uffff", "\U0010ffff", "ß", "İ", "漢字", "e\u0301", "\u202eabc", "🩻", "NaN", "inf", "-0", "1e308"),
    *("1e-308", "1e999", "0x10", "1_000", "٣", "2024-13", "2024-02-30", "0000", "9999", "24:00", "2024-01-01T", "gt"),
    *("ge", "ap9999", "ap0001", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00+99:99", "true", "false", "null", "-1"),
    *("Patient/", "/", "Patient/1/_history/1", "http://", "urn:uuid:", "#x", "x" * 200, "x" * 201, "x" * 2048),
    *("x" * 2049, "x" * 20_000, "1" * 400, "漢" * 900, "a," * 150, "a," * 300, "\\," * 1000, "|" * 2000),
)
_LOCAL_TYPES = frozenset(SEARCHED)
_DEEPEST = 3


@dataclass(frozen=True)
class Held:
    """What a database holds, sampled."""

    values: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
    """Type and parameter -> rows of the index."""
    ids: Mapping[str, Sequence[str]]
    """Type -> ids."""

    @classmethod
    def of(cls, store: Store, chance: Random, most: int = 400) -> Held:
        """Look at some current resources of each type."""
        values: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        ids: dict[str, list[str]] = {}
        with store.read() as connection:
            for resource_type in SEARCHED:
                is_such = (fhir_resource.c.type == resource_type, fhir_resource.c.is_current)
                bounds = sa.select(sa.func.min(fhir_resource.c.id), sa.func.max(fhir_resource.c.id)).where(*is_such)
                low, high = connection.execute(bounds).one()
                drawn = [] if low is None else [chance.randint(low, high) for _ in range(most)]
                numbers = [low, high, *drawn]
                query = sa.select(fhir_resource.c.id, fhir_resource.c.resource_id)
                rows = connection.execute(query.where(*is_such, fhir_resource.c.id.in_(numbers))).all()
                ids[resource_type] = [row.resource_id for row in rows]
                pks = [row.id for row in rows]
                found = connection.execute(sa.select(fhir_index).where(fhir_index.c.resource_pk.in_(pks)))
                for row in found.mappings():
                    values[resource_type, row["parameter"]].append({str(name): each for name, each in row.items()})
        return cls(values, ids)


class Grammar:
    """Draws searches.

    Parameters
    ----------
    chance
        Every draw comes from it.
    held
        What values are taken from.
    odd
        Share of values, modifiers and names that make no sense.
    """

    def __init__(self, chance: Random, held: Held, odd: float = 0.0) -> None:
        self._chance = chance
        self._held = held
        self._odd = odd

    def address(self) -> str:
        """Return an address below that of the server."""
        path, types = self._path()
        pairs = [pair for _ in range(self._chance.choice((0, 1, 1, 1, 2, 2, 3, 4))) for pair in self.criterion(types)]
        if self._chance.random() < 0.6:
            pairs += self._control(types)
        self._chance.shuffle(pairs)
        return f"{path}?{written(pairs)}"

    def criterion(self, types: Sequence[str], depth: int = 0) -> list[Pair]:
        """Return a criterion on one of the types: a parameter, a chain, or one backwards."""
        resource_type = self._chance.choice(types)
        way = self._chance.random()
        if depth < _DEEPEST and way < 0.2:
            found = self._chain(resource_type, depth)
        elif depth < _DEEPEST and way < 0.35:
            found = self._reverse(resource_type, depth)
        else:
            found = [self._simple(resource_type)]
        return found or [self._simple(resource_type)]

    def _path(self) -> tuple[str, tuple[str, ...]]:
        """Return an address without query, and the types that it searches."""
        way = self._chance.random()
        filled = [each for each in SEARCHED if self._held.ids.get(each)] or list(SEARCHED)
        if way < 0.8:
            # What holds much is asked most.
            resource_type = self._chance.choice((*SEARCHED, *filled, *filled))
            return resource_type, (resource_type,)
        if way < 0.9:
            owner = self._chance.choice(tuple(COMPARTMENTS))
            member = self._chance.choice((*COMPARTMENTS[owner], "*"))
            one = self._id(owner)
            types = tuple(COMPARTMENTS[owner]) if member == "*" else (member,)
            return f"{owner}/{one}/{member}", types
        if way < 0.95:
            return f"Patient/{self._id('Patient')}/$everything", tuple(COMPARTMENTS["Patient"])
        return "DiagnosticReport/$latest-per-study", ("DiagnosticReport",)

    def _id(self, resource_type: str) -> str:
        return self._chance.choice(self._held.ids.get(resource_type) or ["none"])

    def _simple(self, resource_type: str) -> Pair:
        known = PARAMETERS[resource_type]
        filled = [
            each for each in known.values() if any((resource_type, row) in self._held.values for row in each.indexed_as)
        ]
        parameter = self._chance.choice((*known.values(), *filled, *filled, *filled))
        modifier = self._modifier(parameter)
        count = self._chance.choice((1, 1, 1, 1, 2, 4))
        values = [self.value(resource_type, parameter, modifier) for _ in range(count)]
        name = parameter.name if not self._is_odd() else self._chance.choice((*ODD[:40], "nonsense", "_filter"))
        return f"{name}:{modifier}" if modifier is not None else name, ",".join(values)

    def _modifier(self, parameter: Parameter) -> str | None:
        if self._is_odd():
            return self._chance.choice(REFUSED)
        if parameter.name in ("_id", "_lastUpdated") or self._chance.random() < 0.75:
            return None
        return self._chance.choice((*MODIFIERS[parameter.kind], *parameter.targets))

    def _chain(self, resource_type: str, depth: int) -> list[Pair]:
        references = [each for each in PARAMETERS[resource_type].values() if self._targets(each)]
        if not references:
            return []
        parameter = self._chance.choice(references)
        target = self._chance.choice(self._targets(parameter))
        head = parameter.name if len(parameter.targets) == 1 else f"{parameter.name}:{target}"
        return [(f"{head}.{name}", value) for name, value in self.criterion((target,), depth + 1)]

    def _targets(self, parameter: Parameter) -> list[str]:
        return [each for each in parameter.targets if each in _LOCAL_TYPES]

    def _reverse(self, resource_type: str, depth: int) -> list[Pair]:
        ways = [
            (other, parameter.name)
            for other in SEARCHED
            for parameter in PARAMETERS[other].values()
            if parameter.kind == "reference" and resource_type in parameter.targets
        ]
        if not ways:
            return []
        other, name = self._chance.choice(ways)
        return [(f"_has:{other}:{name}:{rest}", value) for rest, value in self.criterion((other,), depth + 1)]

    def value(self, resource_type: str, parameter: Parameter, modifier: str | None) -> str:
        """Return a value of a parameter, escaped as R4 wants it unless it is odd."""
        if self._is_odd():
            return self._chance.choice(ODD)
        if modifier == "missing":
            return self._chance.choice(("true", "false"))
        if parameter.name == "_id":
            return self._id(resource_type)
        return self._held_value(resource_type, parameter, modifier)

    def _held_value(self, resource_type: str, parameter: Parameter, modifier: str | None) -> str:
        if parameter.name == "_lastUpdated":
            return self._date({"low": datetime.fromisoformat("2026-03-02T13:00:00+00:00")})
        rows = [row for name in parameter.indexed_as for row in self._held.values.get((resource_type, name), ())]
        row: Mapping[str, Any] = self._chance.choice(rows) if rows else _NOTHING
        if modifier == "text":
            return escaped(self._part(str(row["text"] or "ct")))
        if modifier == "identifier":
            return self._token({"system": None, "value": "x"})
        if parameter.kind == "composite":
            second = {**row, "system": row["other_system"], "value": row["other_value"]}
            return f"{self._token(row)}${self._of_kind(parameter.second, second)}"
        return self._of_kind(parameter.kind, row)

    def _of_kind(self, kind: str, row: Mapping[str, Any]) -> str:
        ways = {"token": self._token, "reference": self._reference, "date": self._date, "quantity": self._quantity}
        return ways.get(kind, self._text)(row)

    def _token(self, row: Mapping[str, Any]) -> str:
        system, value = escaped(str(row["system"] or "")), escaped(str(row["value"] or "final"))
        return self._chance.choice((value, value, f"{system}|{value}", f"|{value}", f"{system}|" if system else value))

    def _reference(self, row: Mapping[str, Any]) -> str:
        value, target = str(row["value"] or "none"), row["system"]
        ways = (value, value, f"{target}/{value}", f"http://other.example/fhir/{target}/{value}")
        return escaped(self._chance.choice(ways) if target else value)

    def _date(self, row: Mapping[str, Any]) -> str:
        moment: datetime = row["low"] or datetime.fromisoformat("2024-06-01T00:00:00+00:00")
        text = f"{max(moment.year, 1):04}{moment.isoformat(timespec='seconds')[4:]}"
        length = self._chance.choice((4, 7, 10, len(text)))
        return self._chance.choice(PREFIXES) + text[:length]

    def _quantity(self, row: Mapping[str, Any]) -> str:
        number = row["number"]
        text = self._chance.choice(PREFIXES) + (f"{number:g}" if number is not None else "5.4")
        unit = f"|{escaped(str(row['system'] or ''))}|{escaped(str(row['value'] or ''))}"
        return text + self._chance.choice(("", "", unit))

    def _text(self, row: Mapping[str, Any]) -> str:
        return escaped(self._part(str(row["text"] or row["value"] or "m")))

    def _part(self, text: str) -> str:
        """Return the text, or its beginning."""
        return self._chance.choice((text, text[:3], text[: len(text) // 2] or text))

    def _control(self, types: Sequence[str]) -> list[Pair]:
        """Return parameters about the answer."""
        ways = (
            lambda: ("_count", self._chance.choice(("0", "1", "2", "10", "50", "500", "100000"))),
            lambda: ("_sort", self.sort(types)),
            lambda: ("_sort", self.sort(types)),
            lambda: ("_summary", self._chance.choice(("true", "text", "data", "count", "false"))),
            lambda: ("_elements", self._chance.choice(("id", "status,code", "subject", "nonsense", "status"))),
            lambda: ("_total", self._chance.choice(("none", "estimate", "accurate"))),
            lambda: ("_contained", self._chance.choice(("true", "false", "both"))),
            lambda: self._include(types),
            lambda: self._include(types),
        )
        found = [self._chance.choice(ways)() for _ in range(self._chance.choice((1, 1, 2, 3)))]
        return [(name, self._chance.choice(ODD)) if self._is_odd() else (name, value) for name, value in found]

    def sort(self, types: Sequence[str]) -> str:
        """Return an order by up to three keys."""
        names = list(PARAMETERS[self._chance.choice(types)])
        keys = self._chance.choices(names, k=self._chance.choice((1, 1, 2, 3)))
        return ",".join(self._chance.choice(("", "-")) + key for key in keys)

    def _include(self, types: Sequence[str]) -> Pair:
        modifier = self._chance.choice(("", "", ":iterate"))
        if self._chance.random() < 0.4:
            target = self._chance.choice(types)
            ways = [
                f"{other}:{each.name}"
                for other in SEARCHED
                for each in PARAMETERS[other].values()
                if each.kind == "reference" and target in each.targets
            ]
            return f"_revinclude{modifier}", self._chance.choice(ways or ["Provenance:target"])
        source = self._chance.choice(types if not modifier else SEARCHED)
        names = [each.name for each in PARAMETERS[source].values() if each.kind == "reference"]
        return f"_include{modifier}", f"{source}:{self._chance.choice((*names, '*'))}"

    def _is_odd(self) -> bool:
        return self._odd > 0 and self._chance.random() < self._odd


_NOTHING: Mapping[str, Any] = dict.fromkeys(fhir_index.c.keys())


def escaped(text: str) -> str:
    """Return a value with backslashes before what separates values and their parts (R4 search, 3.1.1.4.1)."""
    for char in "\\,|$":
        text = text.replace(char, f"\\{char}")
    return text


def written(pairs: Sequence[Pair]) -> str:
    """Return pairs as a query string."""
    return "&".join(f"{quote(name, safe=':._-')}={quote(value, safe=':._-/,')}" for name, value in pairs)
