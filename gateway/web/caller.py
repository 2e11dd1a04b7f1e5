"""Who asks: `request.state.caller` of every request that was admitted (`auth.py` puts it there).

What is open to all (probes, the sign-in page) may have none: `caller_of` returns None there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from starlette.requests import HTTPConnection

Kind: TypeAlias = Literal["loopback", "token", "session", "oidc", "smart"]
Role: TypeAlias = Literal["viewer", "verifier", "operator", "integrator"]

ROLES: Final[frozenset[Role]] = frozenset({"viewer", "verifier", "operator", "integrator"})
"""viewer reads; verifier gives a person's word; operator reprocesses, sends, deletes; integrator is a program of
FHIR, DICOMweb and metrics."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody, or a program, that proved who it is; on the loopback without authentication, anybody there."""

    name: str
    """For the audit trail: of the token, the person or the client; never a secret."""
    kind: Kind
    """How it was proven. A session is one of a browser, opened by a token or by OpenID Connect."""
    roles: frozenset[Role] = field(default=frozenset())
    """What it may do outside of SMART scopes; any one that a route takes is enough."""
    scopes: frozenset[str] | None = None
    """SMART scopes, which limit what is seen under /fhir; None: the roles alone decide."""
    patient: str | None = None
    """Id of the FHIR Patient to whose compartment the caller is bound; None: to none."""
    person: str | None = None
    """The person's name, 'Family^Given' where it is known so; None: a program, or nobody in particular."""

    def has_any(self, roles: frozenset[Role]) -> bool:
        """Say whether the caller has one of these roles."""
        return not self.roles.isdisjoint(roles)


LOOPBACK: Final = Caller("loopback", "loopback", ROLES)
"""Without authentication: whoever is on this machine."""


def caller_of(request: HTTPConnection) -> Caller | None:
    """Return who asks; None where nobody had to say."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller


def signing_name(caller: Caller | None) -> str | None:
    """Return the name that stands below what a caller says; None: nobody in particular, who writes it by hand."""
    if caller is None:
        return None
    return caller.person or (caller.name if caller.kind == "oidc" else None)
