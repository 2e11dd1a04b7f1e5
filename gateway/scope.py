"""SMART scopes, versions 1 and 2 (SMART App Launch 2.2, 'Scopes and Launch Context'): what a text allows (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Permission: TypeAlias = Literal["c", "r", "u", "d", "s"]
"""create; read, vread and the history of one resource; update; delete; search, and the history of a type."""

_FORM = re.compile(
    r"(?P<context>patient|user|system)/(?P<type>\*|[A-Z][A-Za-z]{1,63})\.(?P<how>\*|read|write|[cruds]+)"
)
_OF_VERSION_1: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_ORDER: Final = "cruds"


@dataclass(frozen=True, slots=True)
class Scope:
    """One scope: whose resources, of which type, and what may be done."""

    context: str
    """`patient`: of one compartment; `user` and `system`: all that there are."""
    resource_type: str
    """`*`: any."""
    permissions: frozenset[str]

    def allows(self, resource_type: str, permission: Permission) -> bool:
        """Say whether it takes this."""
        return self.resource_type in {"*", resource_type} and permission in self.permissions

    def covers(self, other: Scope) -> bool:
        """Say whether it takes all that the other one takes."""
        is_wide = self.context == other.context and self.resource_type in {"*", other.resource_type}
        return is_wide and other.permissions <= self.permissions


def parse_scope(text: str) -> Scope | None:
    """Return a scope of resources; None for what is none: `openid`, a misspelt one, one narrowed by a query.

    Letters of version 2 stand in the order of 'cruds' and once each: others are no scope.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    letters = _OF_VERSION_1.get(found["how"], found["how"])
    if letters != "".join(letter for letter in _ORDER if letter in letters):
        return None
    return Scope(found["context"], found["type"], frozenset(letters))


def resource_scopes(texts: Iterable[str]) -> frozenset[str]:
    """Return those of the texts that are scopes of resources."""
    return frozenset(text for text in texts if parse_scope(text) is not None)


def granted(asked: Iterable[str], allowed: Iterable[str]) -> frozenset[str]:
    """Return those of the asked scopes that one of the allowed ones covers."""
    known = [scope for scope in map(parse_scope, allowed) if scope is not None]
    wanted = {text: parse_scope(text) for text in asked}
    return frozenset(
        text for text, scope in wanted.items() if scope is not None and any(each.covers(scope) for each in known)
    )


def contexts_allowing(scopes: Iterable[str], resource_type: str, permission: Permission) -> frozenset[str]:
    """Return for whose resources the scopes take this: of `patient`, `user`, `system`; empty: nobody's."""
    known = (scope for scope in map(parse_scope, scopes) if scope is not None)
    return frozenset(scope.context for scope in known if scope.allows(resource_type, permission))
