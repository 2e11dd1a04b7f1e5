"""Claims of an OpenID Connect provider -> who asks, and as what (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import CredentialError
from gateway.scope import resource_scopes
from gateway.web.caller import ROLES, Caller, Kind, Role

_LONGEST_NAME = 64
_OF_ID_TOKENS = frozenset({"nonce", "at_hash", "c_hash"})
"""Claims by which an ID token is known: it tells a client who signed in, and opens nothing (RFC 9068, 5)."""


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """Which claim says what."""

    role_claim: str = "roles"
    role_map: Mapping[str, Role] = field(default_factory=dict)
    name_claim: str = "preferred_username"


def caller_of_claims(claims: Mapping[str, Any], rule: ClaimRule, kind: Kind) -> Caller:
    """Return who the claims tell of."""
    name = claims.get(rule.name_claim) or claims.get("sub") or ""
    scopes = _scopes(claims)
    patient = claims.get("patient")
    return Caller(
        name=str(name)[:_LONGEST_NAME],
        kind=kind,
        roles=roles_of_claims(claims, rule),
        scopes=scopes or None,
        patient=patient if isinstance(patient, str) else None,
        person=_person(claims),
    )


def roles_of_claims(claims: Mapping[str, Any], rule: ClaimRule) -> frozenset[Role]:
    """Return the roles that the claims give; those that we do not know give none."""
    found: Any = claims
    for part in rule.role_claim.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    named = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    mapped = {rule.role_map.get(each, each) for each in named if isinstance(each, str)}
    return ROLES & mapped


def refuse_id_token(claims: Mapping[str, Any]) -> None:
    """Raise CredentialError for an ID token that is shown as an access token."""
    if not _OF_ID_TOKENS.isdisjoint(claims) or claims.get("typ") == "ID":
        raise CredentialError("this is an ID token: an access token is needed")


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    said = claims.get("scope", claims.get("scp", ""))
    texts = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return resource_scopes(each for each in texts if isinstance(each, str))


def _person(claims: Mapping[str, Any]) -> str | None:
    """Return a person's name as DICOM has it; None where the claims tell of a program."""
    family, given = claims.get("family_name"), claims.get("given_name")
    if isinstance(family, str) and family and isinstance(given, str):
        return f"{family}^{given}".replace("=", " ").replace("\\", " ")[:_LONGEST_NAME]
    name = claims.get("name")
    return name[:_LONGEST_NAME] if isinstance(name, str) and name else None
