"""The outbox goes to the broker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.broker import Broker, JobMessage
from gateway.services import Counters
from gateway.store import Store
from gateway.store.outbox import OutboxRow, has_due, mark_published, release_messages, take_due

_BATCH = 100
_HOLD = timedelta(seconds=30)


class Relay:
    """Publishes what is due; several may run at once.

    Parameters
    ----------
    store
        The database.
    broker
        Where messages go.
    counters
        Counts what was published.
    """

    def __init__(self, store: Store, broker: Broker, counters: Counters) -> None:
        self._store = store
        self._broker = broker
        self._counters = counters

    def publish_due(self, now: datetime) -> int:
        """Publish the messages that are due and return how many.

        A message that was published but not marked, because we died between the two, is published again in time.

        Raises
        ------
        ServiceAwayError
            The broker did not confirm, or the database is away; what was not confirmed stays due.
        """
        published = 0
        while (batch := self._publish_batch(now)) > 0:
            published += batch
        return published

    def _publish_batch(self, now: datetime) -> int:
        with self._store.read() as connection:
            if not has_due(connection, now):
                return 0
        with self._store.write() as connection:
            rows = take_due(connection, now, _BATCH, _HOLD)
        confirmed: list[int] = []
        try:
            for row in rows:
                self._broker.publish(JobMessage(row.job_id, row.priority, row.trace_context))
                confirmed.append(row.id)
        finally:
            self._note(rows, confirmed, now)
        return len(confirmed)

    def _note(self, rows: Sequence[OutboxRow], confirmed: Sequence[int], now: datetime) -> None:
        unconfirmed = [row.id for row in rows if row.id not in confirmed]
        with self._store.write() as connection:
            mark_published(connection, confirmed, now)
            release_messages(connection, unconfirmed, now)
        self._counters.add("hybridmed_messages_published_total", len(confirmed))
