"""One pair of a query string -> a criterion: a parameter, a chain, or a chain backwards (`_has`)."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_facade.asked import AskedChain, AskedColumn, AskedIndex, AskedReverse
from fhir_facade.criterion import Asked
from fhir_facade.matching import split_unescaped
from fhir_facade.outcome import TooCostlyError
from fhir_facade.parameters import COLUMNS, PARAMETERS, Parameter

_DEEPEST = 4
_HAS = "_has"


def parse_criterion(types: Sequence[str], name: str, value: str) -> tuple[Asked | None, int]:
    """Return a criterion and how many values it has; None where the parameter is unknown or without a value."""
    values = tuple(part for part in split_unescaped(value, ",") if part)
    if not values:
        return None, 0
    return _criterion(tuple(types), name, values, 0), len(values)


def parameter_of(types: Sequence[str], name: str) -> Parameter | None:
    """Return the parameter that all the types have under this name, of the same kind; None where they do not."""
    found = [PARAMETERS[resource_type].get(name) for resource_type in types]
    first = found[0]
    if first is None or any(
        each is None or (each.kind, each.indexed_as) != (first.kind, first.indexed_as) for each in found
    ):
        return None
    return first


def _criterion(types: tuple[str, ...], name: str, values: tuple[str, ...], depth: int) -> Asked | None:
    if depth > _DEEPEST:
        raise TooCostlyError(f"a chain has at most {_DEEPEST} links")
    if name.startswith(f"{_HAS}:"):
        return _reverse(types, name, values, depth)
    head, dot, rest = name.partition(".")
    base, _, modifier = head.partition(":")
    if dot:
        return _chain(types, head, rest, values, depth)
    if base in COLUMNS:
        return AskedColumn(base, modifier, values)
    parameter = parameter_of(types, base)
    return None if parameter is None else AskedIndex(types, parameter, modifier, values)


def _chain(types: tuple[str, ...], head: str, rest: str, values: tuple[str, ...], depth: int) -> Asked | None:
    """Return the criterion of `head:target.rest`."""
    base, _, target = head.partition(":")
    parameter = parameter_of(types, base)
    if parameter is None or parameter.kind != "reference" or (target and target not in parameter.targets):
        return None
    targets = [each for each in ((target,) if target else parameter.targets) if each in PARAMETERS]
    inner = [(each, _criterion((each,), rest, values, depth + 1)) for each in targets]
    known = tuple((each, criterion) for each, criterion in inner if criterion is not None)
    return AskedChain(types, parameter, known, values if rest == "identifier" else ()) if known else None


def _reverse(types: tuple[str, ...], name: str, values: tuple[str, ...], depth: int) -> Asked | None:
    """Return the criterion of `_has:other:parameter:rest`."""
    _has, _, tail = name.partition(":")
    other, _, tail = tail.partition(":")
    base, _, rest = tail.partition(":")
    parameter = PARAMETERS.get(other, {}).get(base)
    if len(types) != 1 or parameter is None or parameter.kind != "reference" or types[0] not in parameter.targets:
        return None
    inner = _criterion((other,), rest, values, depth + 1) if rest else None
    return None if inner is None else AskedReverse(types[0], other, parameter, inner)
