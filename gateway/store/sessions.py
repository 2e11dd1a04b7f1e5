"""Signed-in browsers: the digest of each session's number, and of the token that opened it, or whom OIDC named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.tables import web_session


@dataclass(frozen=True, slots=True)
class SessionRow:
    """What opened a session: a token, or a person's sign-in."""

    token_digest: str | None = None
    person: Mapping[str, Any] | None = None
    """Name and roles, as OpenID Connect gave them."""


def add_session(
    connection: Connection, digest: str, opened_by: SessionRow, created_at: datetime, expires_at: datetime
) -> None:
    """Open a session; those that are over are deleted."""
    connection.execute(sa.delete(web_session).where(web_session.c.expires_at <= created_at))
    row = {"digest": digest, "token_digest": opened_by.token_digest, "person": opened_by.person}
    connection.execute(sa.insert(web_session).values(**row, created_at=created_at, expires_at=expires_at))


def find_session(connection: Connection, digest: str, now: datetime) -> SessionRow | None:
    """Return what opened a session; None where there is no such session or it is over."""
    is_open = (web_session.c.digest == digest, web_session.c.expires_at > now)
    row = connection.execute(sa.select(web_session.c.token_digest, web_session.c.person).where(*is_open)).first()
    return None if row is None else SessionRow(row.token_digest, row.person)


def end_session(connection: Connection, digest: str) -> None:
    """End a session."""
    connection.execute(sa.delete(web_session).where(web_session.c.digest == digest))
