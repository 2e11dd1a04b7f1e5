"""What a caller may see: SMART scopes by type and interaction, and the compartment of one patient.

The gateway says who asks (`request.state.caller`); a server that runs by itself lets everybody see everything. A scope
`patient/…`, and a token that is bound to one patient, show what belongs to that patient, and beside it Device and
Organization, which tell of no patient. What a caller may not see can neither be reached by `_include` nor asked about
by a chain or `_has`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from starlette.requests import Request

from fhir_facade.asked import AskedChain, AskedReverse, AskedWithin
from fhir_facade.compartment import COMPARTMENTS, within
from fhir_facade.criterion import Asked
from fhir_facade.held import Values
from fhir_facade.matching import Clock
from fhir_facade.outcome import FhirError
from fhir_facade.query import Search
from fhir_facade.rows import resource_rows
from fhir_facade.stored import Stored
from gateway.scope import Permission, contexts_allowing

_AUDITORS: Final = frozenset({"operator", "integrator"})
_AUDIT: Final = "AuditEvent"
_OF_NO_PATIENT: Final = frozenset({"Device", "Organization"})


class NotPermittedError(FhirError):
    """The caller's scopes or roles do not take this."""

    status = 403
    code = "forbidden"


class _Caller(Protocol):
    """As much of `gateway.web.caller.Caller` as is needed here."""

    @property
    def roles(self) -> frozenset[str]: ...

    @property
    def scopes(self) -> frozenset[str] | None: ...

    @property
    def patient(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Permit:
    """What one caller may see."""

    scopes: frozenset[str] | None = None
    """None: every type and interaction."""
    patient: str | None = None
    """Id of the Patient to whom the caller is bound."""
    sees_audit: bool = True
    """Whether AuditEvents are shown, which tell what everybody did."""

    @classmethod
    def of(cls, request: Request) -> Permit:
        """Return that of whoever asks."""
        caller = cast("_Caller | None", getattr(request.state, "caller", None))
        if caller is None:
            return EVERYTHING
        sees_audit = caller.scopes is not None or not _AUDITORS.isdisjoint(caller.roles)
        return cls(caller.scopes, caller.patient, sees_audit)

    def takes(self, resource_type: str, permission: Permission) -> bool:
        """Say whether a type may be read, searched and so on, in some compartment at least."""
        if resource_type == _AUDIT and not self.sees_audit:
            return False
        if self.scopes is None:
            return True
        contexts = contexts_allowing(self.scopes, resource_type, permission)
        return bool(contexts - {"patient"}) or ("patient" in contexts and self.patient is not None)

    def require(self, resource_type: str, permission: Permission) -> None:
        """Raise NotPermittedError unless it may."""
        if not self.takes(resource_type, permission):
            asked = "scope" if self.scopes is not None else "role"
            raise NotPermittedError(f"no {asked} of this caller takes {resource_type}.{permission}")

    def narrow(self, search: Search) -> Search:
        """Return a search for what the caller may see of what it asks for; NotPermittedError where that is nothing."""
        if self is EVERYTHING:
            return search
        types = tuple(each for each in search.types if self.takes(each, "s"))
        if not types:
            self.require(search.types[0], "s")
        asked = set(_asked_about(search.criteria))
        for each in asked:
            self.require(each, "s")
        bound = [each for each in types if self.is_bound(each, "s")]
        if not bound:
            if any(self.is_bound(each, "s") for each in asked):
                raise NotPermittedError("a caller that is bound to a patient cannot ask for others through a Device")
            return replace(search, types=types)
        if any(self.is_bound(each, "s") for each in _asked_behind(search.criteria)):
            raise NotPermittedError("a caller that is bound to a patient cannot ask for others behind a chain")
        # Where one of several types is bound, all are: less is shown than might be, and never more.
        return replace(search, types=types, criteria=(*search.criteria, self._within(types)))

    def visible(self, connection: Connection, resources: Sequence[Stored], clock: Clock) -> tuple[Stored, ...]:
        """Return those of some resources that the caller may see; for what goes along with a page."""
        if self is EVERYTHING:
            return tuple(resources)
        taken = [each for each in resources if self.takes(each.type, "r")]
        bound = [each.number for each in taken if self.is_bound(each.type, "r")]
        if not bound:
            return tuple(taken)
        resource, values = resource_rows(), Values()
        mine = self._within({each.type for each in taken}).settled(values, clock).holds(resource.c.id, resource)
        query = sa.select(resource.c.id).where(resource.c.id.in_(bound), mine)
        shown = set(connection.scalars(query, values.bound()))
        hidden = set(bound) - shown
        return tuple(each for each in taken if each.number not in hidden)

    def sees(self, connection: Connection, resource_type: str, resource_id: str, clock: Clock) -> bool:
        """Say whether a resource of a type that may be read belongs to what is seen; its newest version decides."""
        return not self.is_bound(resource_type, "r") or self.owns(connection, resource_type, resource_id, clock)

    def owns(self, connection: Connection, resource_type: str, resource_id: str, clock: Clock) -> bool:
        """Say whether a resource belongs to the one patient to whom the caller is bound."""
        resource, values = resource_rows(), Values()
        that = (resource.c.type == resource_type, resource.c.resource_id == resource_id, resource.c.is_current)
        mine = self._within([resource_type]).settled(values, clock).holds(resource.c.id, resource)
        return connection.scalar(sa.select(resource.c.id).where(*that, mine), values.bound()) is not None

    def is_bound(self, resource_type: str, permission: Permission = "r") -> bool:
        """Say whether of a type only what belongs to one patient is seen."""
        if resource_type in _OF_NO_PATIENT:
            return False
        if self.patient is not None:
            return True
        return self.scopes is not None and contexts_allowing(self.scopes, resource_type, permission) == {"patient"}

    def _within(self, types: Iterable[str]) -> AskedWithin:
        return within("Patient", self.patient or "", [each for each in types if each in COMPARTMENTS["Patient"]])


EVERYTHING: Final = Permit()


def _asked_about(criteria: Iterable[Asked]) -> Iterable[str]:
    """Yield the types that chains and `_has` look at on the way."""
    for each in criteria:
        if isinstance(each, AskedChain):
            for resource_type, inner in each.inner:
                yield resource_type
                yield from _asked_about([inner])
        elif isinstance(each, AskedReverse):
            yield each.other
            yield from _asked_about([each.inner])


def _asked_behind(criteria: Iterable[Asked], *, is_behind: bool = False) -> Iterable[str]:
    """Yield the types that `_has` looks at from where a chain led: to a Device, say, that results of others share."""
    for each in criteria:
        if isinstance(each, AskedChain):
            yield from _asked_behind((inner for _, inner in each.inner), is_behind=True)
        elif isinstance(each, AskedReverse):
            if is_behind:
                yield each.other
            yield from _asked_behind([each.inner], is_behind=is_behind)
