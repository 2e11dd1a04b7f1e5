"""Which role each address takes: the one place that says so.

The first line that fits decides; one of its roles is enough. What fits none is answered to callers of all roles
alone: a route that was forgotten here is closed, not open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.web.caller import Caller, Role

READERS: Final[frozenset[Role]] = frozenset({"viewer", "verifier", "operator"})
"""Persons: whoever verifies or operates may look, too."""
_ALL: Final[frozenset[Role]] = READERS | {"integrator"}
_NOBODY: Final[frozenset[Role]] = frozenset()
_READING: Final = "GET HEAD"
_WRITING: Final = "POST PUT PATCH DELETE"


@dataclass(frozen=True, slots=True)
class Rule:
    """What requests of these methods to these addresses need."""

    methods: frozenset[str]
    path: re.Pattern[str]
    roles: frozenset[Role]
    is_open: bool = False
    """Answered to whoever asks, known or not."""
    takes_scopes: bool = False
    """A caller with SMART scopes passes here without a role: what lies behind looks at the scopes."""


def _rule(methods: str, path: str, roles: frozenset[Role], *, scopes: bool = False) -> Rule:
    return Rule(frozenset(methods.split()), re.compile(path), roles, takes_scopes=scopes)


def _open(methods: str, path: str) -> Rule:
    return Rule(frozenset(methods.split()), re.compile(path), _NOBODY, is_open=True)


RULES: Final = (
    _open(_READING, r"/healthz|/readyz|/login(/oidc(/callback)?)?|/preferences|/assets/.*"),
    _open("POST", r"/login|/logout|/oauth/token"),
    _open(_READING, r"/fhir/metadata|/fhir/\.well-known/smart-configuration"),
    _rule(_READING, r"/metrics", frozenset({"operator", "integrator"})),
    # pages
    _rule(_READING, r"/|/worklist(/events)?|/studies/[^/]+|/pictures/\d+\.png|/viewer(/.*)?", READERS),
    _rule("POST", r"/studies/[^/]+/verify", frozenset({"verifier"})),
    _rule("POST", r"/studies/[^/]+/(reprocess|stat|resend)", frozenset({"operator"})),
    # DICOMweb
    _rule(_READING, r"/dicomweb/subscribers/[^/]+", frozenset({"operator", "integrator"})),
    _rule(_READING, r"/dicomweb/.*", _ALL),
    _rule(_WRITING, r"/dicomweb/workitems(/.*)?", frozenset({"operator", "integrator"})),
    _rule("DELETE", r"/dicomweb/studies/.*", frozenset({"operator"})),
    _rule("POST", r"/dicomweb/studies(/[^/]+)?", frozenset({"integrator"})),
    # FHIR: which routes SMART scopes open is said in `fhir_facade.scope_guard`, what they show in `fhir_facade.permit`
    # the audit trail tells what persons did: it is not for each of them to read
    _rule("GET HEAD POST", r"/fhir/AuditEvent(/.*)?", frozenset({"operator", "integrator"}), scopes=True),
    _rule(_READING, r"/fhir(/.*)?", _ALL, scopes=True),
    _rule("POST", r"/fhir/([\w.*-]+/)*_search|/fhir/Patient/[^/]+/\$everything", _ALL, scopes=True),
    _rule(_WRITING, r"/fhir(/.*)?", frozenset({"integrator"}), scopes=True),
)


def rule_for(method: str, path: str) -> Rule | None:
    """Return the rule of a request; None where none fits."""
    for rule in RULES:
        if method in rule.methods and rule.path.fullmatch(path) is not None:
            return rule
    return None


def is_open(method: str, path: str) -> bool:
    """Say whether anybody is answered here."""
    rule = rule_for("GET" if method == "HEAD" else method, path)
    return rule is not None and rule.is_open


def refusal(caller: Caller, method: str, path: str) -> tuple[int, str] | None:
    """Return status and sentence where a caller may not do this; None where it may."""
    rule = rule_for(method, path)
    if rule is None:
        return None if caller.roles == _ALL else (404, "no such address")
    if rule.is_open:
        return None
    if caller.has_any(rule.roles) or (rule.takes_scopes and caller.scopes is not None):
        return None
    return 403, f"this needs the role {' or '.join(sorted(rule.roles))}; {_has(caller)}"


def _has(caller: Caller) -> str:
    if caller.scopes is not None and not caller.roles:
        return "SMART scopes hold under /fhir alone"
    return f"this caller has {', '.join(sorted(caller.roles)) or 'none'}"
