"""Who else writes when a job changes, in the transaction that changes it.

Functions that change jobs take a connection alone; what listens is an option of the engine that it came from, so that
every command and role of an installation tells the same listener.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from sqlalchemy.engine import Connection

from gateway.store.engine import Store

_OPTION = "hybridmed_on_job"


class OnJob(Protocol):
    """Is told of a job that was made or changed; what it raises ends the transaction."""

    def __call__(self, connection: Connection, job_id: str, now: datetime, /) -> None:
        """Write what follows from the job as it is now."""


def watch_jobs(store: Store, on_job: OnJob) -> None:
    """Tell a listener of every job that transactions of this store change."""
    store.engine.update_execution_options(**{_OPTION: on_job})


def job_changed(connection: Connection, job_id: str, now: datetime) -> None:
    """Tell the listener, where there is one."""
    on_job: OnJob | None = connection.get_execution_options().get(_OPTION)
    if on_job is not None:
        on_job(connection, job_id, now)
