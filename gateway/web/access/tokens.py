"""Bearer tokens of ours: those that a command made, those of registered clients, and those of the settings."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from gateway.errors import ServiceAwayError
from gateway.store import Store
from gateway.store.access import PREFIXES, USE_STEP, Grant, find_grant, note_use, was_used_since
from gateway.web.caller import ROLES, Caller

log = structlog.get_logger()

_NAMED_BY = 8
"""Digits of its digest by which a token of the settings is named: it has no name."""


class TokenBook:
    """Knows tokens by their digests.

    Parameters
    ----------
    store
        Where those of commands and clients are.
    digests
        SHA-256 of the tokens of the settings, which have all roles.
    now
        The clock.
    takes_tokens
        Whether tokens of commands are taken; those of registered clients always are.
    """

    def __init__(
        self, store: Store, digests: Sequence[str], now: Callable[[], datetime], *, takes_tokens: bool = True
    ) -> None:
        self._takes_tokens = takes_tokens
        self._store = store
        self._digests = tuple(digest.lower() for digest in digests)
        self._now = now

    def of_settings(self, digest: str) -> Caller | None:
        """Return who a token of the settings stands for: nobody in particular, with all roles."""
        # Every digest is compared: the time taken tells nothing of which one, if any, it is.
        matches = [hmac.compare_digest(digest, each) for each in self._digests]
        return Caller(f"token-{digest[:_NAMED_BY]}", "token", ROLES) if any(matches) else None

    def find(self, digest: str) -> Caller | None:
        """Return whose token this is, of the settings or kept; None where it is nobody's, or over, or revoked."""
        caller = self.of_settings(digest)
        if caller is not None:
            return caller
        now = self._now()
        with self._store.read() as connection:
            grant = find_grant(connection, digest, now)
            is_noted = grant is None or was_used_since(connection, digest, now - USE_STEP)
        if grant is None or (grant.kind == "token" and not self._takes_tokens):
            return None
        if not is_noted:
            self._note(digest, now)
        return _caller(grant)

    def _note(self, digest: str, now: datetime) -> None:
        try:
            with self._store.write() as connection:
                note_use(connection, digest, now)
        except ServiceAwayError as error:  # the use stands unnoted; the request is none the worse for it
            log.warning("access.use_not_noted", reason=str(error))


def is_ours(token: str) -> bool:
    """Say whether a text looks like a token that we made: only then the database is asked."""
    return token.startswith(tuple(PREFIXES.values()))


def _caller(grant: Grant) -> Caller:
    roles = ROLES & frozenset(grant.roles)
    scopes = None if grant.scopes is None else frozenset(grant.scopes)
    # A token that may verify is a person's own: its name stands below what that person says.
    person = grant.name if "verifier" in roles else None
    return Caller(grant.name, grant.kind, roles, scopes, grant.patient, person)
