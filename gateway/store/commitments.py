"""Storage commitment: a row for each transaction, until its result has been told or nobody could be told for long.

`available_at` is when a row may be taken for telling; whoever takes it moves that on, so that no two tell it at once:
what is done to a row later is done only where it stands as it was taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import insert_ignore
from gateway.store.tables import commitment

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What a peer asks for."""

    transaction_uid: str
    calling_ae: str
    referenced: tuple[Reference, ...]
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Commitment:
    """A transaction whose result is to be told."""

    id: int
    transaction_uid: str
    calling_ae: str
    referenced: tuple[Reference, ...]
    attempts: int
    """Times that the peer was told and said no."""
    available_at: datetime
    created_at: datetime


def add_commitment(connection: Connection, request: CommitmentRequest, *, held_until: datetime) -> Commitment | None:
    """Keep a request; None where its Transaction UID stands for other instances already.

    The same request come again is told anew: the peer has not heard the result, or asks for the present one.
    """
    pairs = [list(reference) for reference in request.referenced]
    anew = {"state": "waiting", "attempts": 0, "available_at": held_until, "created_at": request.asked_at}
    keys = {"calling_ae": request.calling_ae, "transaction_uid": request.transaction_uid}
    insert_ignore(connection, commitment, [{**keys, "referenced": pairs, **anew}], keys=list(keys))
    which = [commitment.c[name] == value for name, value in keys.items()]
    if connection.execute(sa.select(commitment.c.referenced).where(*which)).scalar_one() != pairs:
        return None
    connection.execute(sa.update(commitment).where(*which).values(**anew, finished_at=None, reason=None))
    return _commitment(connection.execute(sa.select(commitment).where(*which)).one())


def count_waiting(connection: Connection, calling_ae: str) -> int:
    """Return how many of a peer's transactions wait."""
    query = sa.select(sa.func.count()).select_from(commitment)
    which = (commitment.c.calling_ae == calling_ae, commitment.c.state == "waiting")
    return connection.scalar(query.where(*which)) or 0


def list_waiting(connection: Connection, calling_ae: str, limit: int) -> list[Commitment]:
    """Return a peer's transactions that wait, held or not, the oldest first."""
    which = (commitment.c.calling_ae == calling_ae, commitment.c.state == "waiting")
    rows = connection.execute(sa.select(commitment).where(*which).order_by(commitment.c.id).limit(limit))
    return [_commitment(row) for row in rows]


def list_due(connection: Connection, now: datetime, limit: int) -> list[Commitment]:
    """Return the transactions that may be taken, the one that waits longest first."""
    due = (commitment.c.state == "waiting", commitment.c.available_at <= now)
    query = sa.select(commitment).where(*due).order_by(commitment.c.available_at, commitment.c.id)
    return [_commitment(row) for row in connection.execute(query.limit(limit))]


def hold(connection: Connection, which: Commitment, until: datetime) -> Commitment | None:
    """Take a transaction until a time; None where somebody else has taken it since, or its result is told."""
    return replace(which, available_at=until) if _update(connection, which, {"available_at": until}) else None


def put_back(
    connection: Connection,
    which: Commitment,
    available_at: datetime,
    reason: str | None = None,
    *,
    counts: bool = False,
) -> None:
    """Let a transaction be taken again from a time on; `counts`: the peer was told and said no."""
    values: dict[str, object] = {"available_at": available_at, "attempts": commitment.c.attempts + int(counts)}
    if reason is not None:
        values["reason"] = reason
    _update(connection, which, values)


def finish(connection: Connection, which: Commitment, now: datetime, note: str | None = None) -> None:
    """Mark a result as told."""
    _update(connection, which, {"state": "done", "finished_at": now, "reason": note})


def fail(connection: Connection, which: Commitment, now: datetime, reason: str) -> None:
    """Give up telling a result."""
    _update(connection, which, {"state": "failed", "finished_at": now, "reason": reason})


def forget_told(connection: Connection, before: datetime) -> int:
    """Remove the transactions that ended before a time; return how many."""
    ended = (commitment.c.state != "waiting", commitment.c.finished_at < before)
    return connection.execute(sa.delete(commitment).where(*ended)).rowcount


def _update(connection: Connection, which: Commitment, values: dict[str, object]) -> bool:
    stands = (commitment.c.available_at == which.available_at, commitment.c.state == "waiting")
    statement = sa.update(commitment).where(commitment.c.id == which.id, *stands).values(**values)
    return connection.execute(statement).rowcount == 1


def _commitment(row: sa.Row[tuple[object, ...]]) -> Commitment:
    return Commitment(
        id=row.id,
        transaction_uid=row.transaction_uid,
        calling_ae=row.calling_ae,
        referenced=tuple((sop_class, sop_instance) for sop_class, sop_instance in row.referenced),
        attempts=row.attempts,
        available_at=row.available_at,
        created_at=row.created_at,
    )
