"""Search parameters with their values, as they were asked; `settled`, they are criteria that make statements.

Asked
├── AskedColumn   `_id`, `_lastUpdated`
├── AskedIndex    a parameter of the type
├── AskedChain    `patient.identifier=…`
├── AskedReverse  `_has:Observation:patient:code=…`
├── AskedWithin   what belongs to one patient, or to one device
├── CareDate      `start` and `end` of `$everything` (`operation.py`)
└── Criterion     whatever has no values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fhir_facade.criteria import Chain, OnColumn, OnIndex, Reverse, Within
from fhir_facade.criterion import Asked, Criterion
from fhir_facade.held import Held, Values
from fhir_facade.matching import (
    Clock,
    hold_date,
    hold_quantity,
    hold_reference,
    hold_string,
    hold_text,
    hold_token,
    hold_uri,
    split_unescaped,
    unescape,
)
from fhir_facade.outcome import InvalidError, NotSupportedError
from fhir_facade.parameters import Kind, Parameter

_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"not", "text"}),
    "reference": frozenset({"identifier", "text"}),
    "string": frozenset({"exact", "contains"}),
}
_LONGEST_ID = 128


@dataclass(frozen=True, slots=True)
class AskedColumn(Asked):
    """`_id` or `_lastUpdated`."""

    name: str
    modifier: str
    values: tuple[str, ...]

    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return the criterion; NotSupportedError with a modifier, InvalidError where a value is no date."""
        if self.modifier:
            raise NotSupportedError(f"{self.name}: the modifier :{self.modifier[:32]} is not supported")
        if self.name == "_id":
            return OnColumn(self.name, values.hold_each([unescape(each)[:_LONGEST_ID] for each in self.values]))
        return OnColumn(self.name, tuple(hold_date(values, each, clock) for each in self.values))


@dataclass(frozen=True, slots=True)
class AskedIndex(Asked):
    """A parameter as it was asked: `name:modifier=value,value`."""

    types: tuple[str, ...]
    parameter: Parameter
    modifier: str
    values: tuple[str, ...]
    """Each may match; still escaped."""

    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return the criterion; NotSupportedError with an unknown modifier, InvalidError where a value is none."""
        if self.modifier == "missing":
            if self.values not in (("true",), ("false",)):
                raise InvalidError(f"{self.parameter.name}:missing takes true or false")
            return OnIndex(self.types, self.parameter, self.modifier, is_missing=self.values == ("true",))
        known = _MODIFIERS.get(self.parameter.kind, frozenset()) | set(self.parameter.targets)
        if self.modifier and self.modifier not in known:
            raise NotSupportedError(f"{self.parameter.name}: the modifier :{self.modifier[:32]} is not supported")
        held = tuple(self._hold(values, each, clock) for each in self.values)
        return OnIndex(self.types, self.parameter, self.modifier, held)

    def _hold(self, values: Values, text: str, clock: Clock) -> tuple[Held, ...]:
        if self.modifier == "text":
            return (hold_text(values, text),)
        if self.modifier == "identifier":
            return (hold_token(values, text),)
        if self.parameter.kind != "composite":
            return (_hold_simple(values, self.parameter.kind, text, self.modifier, clock),)
        parts = split_unescaped(text, "$", 1)
        if len(parts) == 1:
            raise InvalidError(f"{self.parameter.name} takes two values with $ between them")
        return (hold_token(values, parts[0]), _hold_simple(values, self.parameter.second, parts[1], "", clock))


def _hold_simple(values: Values, kind: Kind, text: str, modifier: str, clock: Clock) -> Held:
    if kind == "token":
        return hold_token(values, text)
    if kind == "reference":
        return hold_reference(values, text)
    if kind == "date":
        return hold_date(values, text, clock)
    if kind == "quantity":
        return hold_quantity(values, text)
    return hold_uri(values, text) if kind == "uri" else hold_string(values, text, modifier)


@dataclass(frozen=True, slots=True)
class AskedChain(Asked):
    """`parameter.rest=…`: a resource refers to another that meets a criterion."""

    types: tuple[str, ...]
    parameter: Parameter
    inner: tuple[tuple[str, Asked], ...]
    """Type that is referred to, and what it has to meet."""
    identifiers: tuple[str, ...] = ()
    """Of a chain to `identifier`: the values, which references may hold without leading to a resource."""

    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return the criterion."""
        inner = tuple((target, each.settled(values, clock)) for target, each in self.inner)
        identifiers = tuple(hold_token(values, each) for each in self.identifiers)
        return Chain(self.types, self.parameter, inner, identifiers)


@dataclass(frozen=True, slots=True)
class AskedReverse(Asked):
    """`_has:other:parameter:rest=…`: a resource is referred to by one that meets a criterion."""

    resource_type: str
    other: str
    parameter: Parameter
    inner: Asked

    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return the criterion."""
        return Reverse(self.resource_type, self.other, self.parameter, self.inner.settled(values, clock))


@dataclass(frozen=True, slots=True)
class AskedWithin(Asked):
    """What belongs to the compartment of one resource."""

    ways: tuple[tuple[str, tuple[str, ...]], ...]
    """Type, and the names of its index rows that count."""
    resource_type: str
    resource_id: str

    def settled(self, values: Values, clock: Clock) -> Criterion:
        """Return the criterion."""
        del clock
        return Within(self.ways, self.resource_type, values.hold("", self.resource_id))


def settle(asked: Sequence[Asked], values: Values, clock: Clock) -> tuple[Criterion, ...]:
    """Return the criteria of what was asked, in order; what they say goes into `values`."""
    return tuple(each.settled(values, clock) for each in asked)
