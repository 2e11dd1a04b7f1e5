"""Signed-in browsers: the digest of each session's number, and of the token that opened it."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.tables import web_session


def add_session(
    connection: Connection, digest: str, token_digest: str, created_at: datetime, expires_at: datetime
) -> None:
    """Open a session; those that are over are deleted."""
    connection.execute(sa.delete(web_session).where(web_session.c.expires_at <= created_at))
    row = {"digest": digest, "token_digest": token_digest, "created_at": created_at, "expires_at": expires_at}
    connection.execute(sa.insert(web_session).values(**row))


def session_token_digest(connection: Connection, digest: str, now: datetime) -> str | None:
    """Return the digest of the token that opened a session; None where there is no such session or it is over."""
    is_open = (web_session.c.digest == digest, web_session.c.expires_at > now)
    return connection.scalar(sa.select(web_session.c.token_digest).where(*is_open))


def end_session(connection: Connection, digest: str) -> None:
    """End a session."""
    connection.execute(sa.delete(web_session).where(web_session.c.digest == digest))
