"""Access tokens: those that a command made, and the short-lived ones of registered clients.

A token is 256 random bits, of which the SHA-256 digest is kept. A slow hash with a salt is for passwords, which can be
guessed; nobody guesses 256 bits, and a plain digest can be looked up by an index. The look-up tells nothing by its
time: who asks chooses a token, not its digest.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import ConflictError, NotFoundError
from gateway.store.tables import access_token, smart_client

TokenKind: TypeAlias = Literal["token", "smart"]
PREFIXES: Final[dict[TokenKind, str]] = {"token": "hmt_", "smart": "hms_"}
"""By which a search of source code and chats for lost secrets knows ours."""
USE_STEP: Final = timedelta(minutes=5)
"""How fine the time of last use is kept: a busy token costs one write in so long."""
_RANDOM_BYTES = 32
_KEPT = timedelta(days=1)
"""How long a client's token is kept when it is over; those of commands stay for the list."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows, and whose it is."""

    kind: TokenKind
    name: str
    roles: Sequence[str]
    scopes: Sequence[str] | None
    patient: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as an operator sees it."""

    id: int
    name: str
    roles: Sequence[str]
    scopes: Sequence[str] | None
    patient: str | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


def new_token(kind: TokenKind) -> str:
    """Return a token, to be shown once."""
    return PREFIXES[kind] + secrets.token_urlsafe(_RANDOM_BYTES)


def token_digest(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def add_token(connection: Connection, token: str, grant: Grant, now: datetime) -> None:
    """Keep a token's digest; ConflictError where a command's token of that name is in use already."""
    if grant.kind == "token" and _in_use(connection, grant.name, now):
        raise ConflictError(f"there is a token named {grant.name}: revoke it first, or choose another name")
    if grant.kind == "smart":
        over = (access_token.c.kind == "smart", access_token.c.expires_at < now - _KEPT)
        connection.execute(sa.delete(access_token).where(*over))
    connection.execute(
        sa.insert(access_token).values(
            digest=token_digest(token),
            kind=grant.kind,
            name=grant.name,
            roles=list(grant.roles),
            scopes=None if grant.scopes is None else list(grant.scopes),
            patient=grant.patient,
            created_at=now,
            expires_at=grant.expires_at,
        )
    )


def find_grant(connection: Connection, digest: str, now: datetime) -> Grant | None:
    """Return what the token of this digest allows; None where there is none, or it is over or revoked."""
    row = connection.execute(sa.select(access_token).where(access_token.c.digest == digest)).first()
    if row is None or row.revoked_at is not None or row.expires_at <= now:
        return None
    return Grant(row.kind, row.name, row.roles, row.scopes, row.patient, row.expires_at)


def was_used_since(connection: Connection, digest: str, moment: datetime) -> bool:
    """Say whether the token's last use is kept as not before `moment`."""
    at = connection.scalar(sa.select(access_token.c.last_used_at).where(access_token.c.digest == digest))
    return at is not None and at >= moment


def note_use(connection: Connection, digest: str, now: datetime) -> None:
    """Keep that the token was used now."""
    connection.execute(sa.update(access_token).where(access_token.c.digest == digest).values(last_used_at=now))


def list_tokens(connection: Connection) -> list[TokenRow]:
    """Return the tokens that commands made, the newest first."""
    columns = [access_token.c[name] for name in TokenRow.__dataclass_fields__]
    query = sa.select(*columns).where(access_token.c.kind == "token").order_by(access_token.c.id.desc())
    return [TokenRow(**row._mapping) for row in connection.execute(query)]


def revoke_token(connection: Connection, name: str, now: datetime) -> None:
    """End the token of this name; NotFoundError where none is in use."""
    if not _end(connection, name, "token", now):
        raise NotFoundError(f"no token named {name} is in use")


def revoke_of_client(connection: Connection, client_id: str, now: datetime) -> None:
    """End all tokens of a registered client."""
    _end(connection, client_id, "smart", now)


def is_revoked(connection: Connection, kind: str, name: str) -> bool:
    """Say whether access was taken back from whom a token of this name or a client of this id let in."""
    if kind == "smart":
        return connection.scalar(sa.select(smart_client.c.revoked_at).where(smart_client.c.id == name)) is not None
    if kind != "token":
        return False
    query = sa.select(access_token.c.revoked_at).where(access_token.c.name == name, access_token.c.kind == "token")
    return connection.scalar(query.order_by(access_token.c.id.desc()).limit(1)) is not None  # the newest has the name


def _end(connection: Connection, name: str, kind: TokenKind, now: datetime) -> int:
    those = (access_token.c.name == name, access_token.c.kind == kind, access_token.c.revoked_at.is_(None))
    query = sa.update(access_token).where(*those, access_token.c.expires_at > now)
    return connection.execute(query.values(revoked_at=now)).rowcount


def _in_use(connection: Connection, name: str, now: datetime) -> bool:
    those = (access_token.c.name == name, access_token.c.kind == "token", access_token.c.revoked_at.is_(None))
    return connection.scalar(sa.select(access_token.c.id).where(*those, access_token.c.expires_at > now)) is not None
