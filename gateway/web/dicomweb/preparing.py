"""Metadata made ahead, of studies when they are complete and of results: nobody waits for the first look at a study.

One process of all that share the data folder does it, which a lock on a file in the cache says. It works half of the
time at most: requests come first.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby

import sqlalchemy as sa
import structlog

from gateway.errors import ServiceAwayError
from gateway.place import place
from gateway.query import locate
from gateway.store import Store
from gateway.store.tables import artefact, study
from gateway.web.dicomweb.metadata import Metadata

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0
_BACK = timedelta(hours=1)
"""What became complete so long before the start is looked at too; what is there already costs little."""
_AT_ONCE = 100
"""Objects after which the pack is written and others get their turn; studies of one look."""


class Preparing:
    """A loop beside the server.

    Parameters
    ----------
    store
        Database and data folder.
    look_every_s
        Between two looks for studies.
    """

    name = "web"

    def __init__(self, store: Store, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._store = store
        self._metadata = Metadata(store)
        self._look_every_s = look_every_s
        self._since = datetime.now(UTC) - _BACK

    def run(self, stop: threading.Event) -> None:
        """Prepare until `stop` is set."""
        while not stop.wait(self._look_every_s):
            with self._alone() as is_alone:
                while is_alone and not stop.wait(self._look_every_s):
                    self._look(stop)

    def _look(self, stop: threading.Event) -> None:
        try:
            for uid in self._new():
                self._prepare(uid, stop)
        except ServiceAwayError as error:
            log.warning("metadata.away", reason=str(error))
        except Exception as error:  # reason: a file that nobody foresaw must not end the server beside this
            log.error("metadata.unprepared", error=type(error).__name__, place=place(error))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Say whether no other process prepares, and see that none begins."""
        folder = self._store.data_dir / "cache" / "metadata"
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                fcntl.flock(stack.enter_context((folder / "lock").open("w")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another one does, or the folder is closed to us
                is_alone = False
            else:
                is_alone = True
            yield is_alone

    def _new(self) -> Sequence[str]:
        """Return the studies that became complete, or got results, since the last look; the oldest first.

        One that slips through, by a commit that took long, is prepared by the first request as ever.
        """
        complete = sa.select(study.c.study_instance_uid, study.c.completed_at.label("at"))
        written = sa.select(artefact.c.study_instance_uid, artefact.c.created_at)
        both = sa.union_all(
            complete.where(study.c.completed_at > self._since), written.where(artefact.c.created_at > self._since)
        ).subquery()
        with self._store.read() as connection:
            rows = connection.execute(sa.select(both).order_by(both.c.at).limit(_AT_ONCE)).all()
        if rows:
            self._since = rows[-1].at
        return list(dict.fromkeys(row.study_instance_uid for row in rows))

    def _prepare(self, study_instance_uid: str, stop: threading.Event) -> None:
        with self._store.read() as connection:
            objects = locate(connection, study_instance_uid=study_instance_uid)
        for _, group in groupby(objects, key=lambda one: one.series_instance_uid):
            series = list(group)
            for start in range(0, len(series), _AT_ONCE):
                began = time.monotonic()
                self._metadata.prepare(series[start : start + _AT_ONCE])
                if stop.wait(time.monotonic() - began):
                    return
