"""Committed versions -> events of the subscriptions whose criteria they meet.

Criteria are put to the index, which holds current versions: of a version that was replaced before its turn came, within
a second, the one that replaced it is told. That a resource is gone is told to those of a topic whose criteria it met;
R4's own kind has no word for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo

import structlog
from sqlalchemy.engine import Connection

from fhir_facade.matching import Clock
from fhir_facade.outcome import FhirError
from fhir_facade.permit import EVERYTHING, Permit
from fhir_facade.query import understand
from fhir_facade.search import meeting
from fhir_facade.subscriptions.request import criteria_pairs
from gateway.store import Store
from gateway.store.fhir_subscriptions import (
    Changed,
    SubscriptionRow,
    Wanted,
    add_events,
    has_changes,
    listeners,
    take_changes,
)
from gateway.store.results import drop_index, restore_index

log = structlog.get_logger()
_BATCH = 500


class Matcher:
    """Gives subscribers their events.

    Parameters
    ----------
    store
        Where changes and subscriptions are.
    zone
        The site's zone, for dates in criteria.
    now
        The clock.
    """

    def __init__(self, store: Store, zone: tzinfo | None, now: Callable[[], datetime]) -> None:
        self._store = store
        self._zone = zone
        self._now = now

    def match_some(self) -> int:
        """Match a batch of changes and return how many there were; 0 too where another process matches."""
        with self._store.read() as connection:
            if not has_changes(connection):
                return 0
        with self._store.write() as connection:
            changes = take_changes(connection, _BATCH)
            if changes:
                self._give_events(connection, changes)
        return len(changes or ())

    def _give_events(self, connection: Connection, changes: Sequence[Changed]) -> None:
        by_pk = {change.resource_pk: change for change in changes}
        gone = [change.resource_pk for change in changes if change.is_deleted]
        restore_index(connection, gone)
        for row in listeners(connection, sorted({change.resource_type for change in changes})):
            told = list(by_pk) if row.topic is not None else list(by_pk.keys() - set(gone))
            met = [by_pk[pk] for pk in self._met(connection, row, told)]
            if met:
                add_events(connection, row.resource_id, sorted(met, key=lambda change: change.change_id))
        drop_index(connection, gone)

    def _met(self, connection: Connection, row: SubscriptionRow, pks: Sequence[int]) -> Sequence[int]:
        """Return those versions that meet a subscription's criteria, and that its owner may see."""
        try:
            return met(connection, row, Clock(self._now(), self._zone), pks)
        except FhirError as error:
            # A later version of this program may have lost a parameter; the others go on.
            log.error("subscription.criteria_refused", subscription=row.resource_id, reason=str(error))
            return ()


def met(connection: Connection, wanted: Wanted, clock: Clock, numbers: Sequence[int]) -> Sequence[int]:
    """Return those of the rows of versions that a subscription tells of; FhirError where its criteria make no sense."""
    search = understand([wanted.resource_type], criteria_pairs(wanted.criteria), is_strict=True)
    return meeting(connection, _permit(wanted).narrow(search), clock, numbers)


def _permit(row: Wanted) -> Permit:
    """Return what the subscriber might see when it subscribed."""
    if row.owner is None:
        return EVERYTHING
    scopes = row.owner.get("scopes")
    return Permit(None if scopes is None else frozenset(scopes), row.owner.get("patient"), sees_audit=False)
