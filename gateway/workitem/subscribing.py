"""Who is told of what: subscriptions to a workitem, to all, to what a filter takes (PS3.4 CC.2.3).

Deletion locks are granted and ask nothing more of us: the gateway deletes no workitem.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import NotFoundError
from gateway.store import Store, subscriptions
from gateway.store.subscriptions import Present, Subscription
from gateway.store.workitem_events import Channel, Listener, write_events
from gateway.store.workitems import get_workitem
from gateway.workitem.refusal import Refusal, WorkitemError
from gateway.workitem.state import FILTERED, GLOBAL, EventType, state_report

_AE_LENGTH = 16
_MOST_SUBSCRIPTIONS = 100_000
_FIRST_REPORTS = 1000
"""Workitems whose present state a new global subscriber is told: those that have not ended, the newest."""


class Subscribing:
    """Subscriptions to workitems.

    Parameters
    ----------
    store
        Where they stand.
    reachable
        AE titles whose address is known: these are told by N-EVENT-REPORT.
    now
        The clock.
    """

    def __init__(
        self, store: Store, reachable: Collection[str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._reachable = frozenset(reachable)
        self._now = now

    def subscribe(self, uid: str, subscriber: str, *, lock: bool, keys: Mapping[str, str], by_websocket: bool) -> None:
        """Subscribe to a workitem or, by a well-known UID, to all or to those that matching keys take.

        The subscriber is told the present state at once. Over HTTP it is told by web socket and, where its address is
        known, by N-EVENT-REPORT too; over DIMSE by N-EVENT-REPORT.

        Raises
        ------
        WorkitemError
            There is no such workitem, the subscriber cannot be reached, or the keys cannot be read.
        """
        subscriber = read_ae_title(subscriber)
        if not by_websocket and subscriber not in self._reachable:
            raise WorkitemError(Refusal.UNKNOWN_RECEIVER, "no address is configured for the receiving AE title")
        if uid == FILTERED and not keys:
            raise WorkitemError(Refusal.INVALID_VALUE, "a filtered subscription needs matching keys")
        try:
            with self._store.write() as connection:
                self._add(connection, uid, subscriber, lock, keys, by_websocket)
        except sa.exc.IntegrityError:
            # The same subscriber asked twice at once, and the other request was faster: it stands.
            return

    def unsubscribe(self, uid: str, subscriber: str) -> None:
        """End a subscription; that to all ends every one of the subscriber."""
        subscriber = read_ae_title(subscriber)
        with self._store.write() as connection:
            subject = _subject(connection, uid)
            if subject in {GLOBAL, FILTERED}:
                subscriptions.drop_subscriptions(connection, subscriber)
            elif subscriptions.is_subscribed(connection, GLOBAL, subscriber):
                subscriptions.add_exception(connection, subject, subscriber, self._now())
            else:
                subscriptions.drop_subscription(connection, subject, subscriber)

    def suspend(self, uid: str, subscriber: str) -> None:
        """Subscribe to nothing that is made from now on; what is subscribed stays so."""
        subscriber = read_ae_title(subscriber)
        if uid not in {GLOBAL, FILTERED}:
            raise WorkitemError(Refusal.NOT_APPROPRIATE, "only a global subscription can be suspended")
        with self._store.write() as connection:
            if not subscriptions.suspend(connection, uid, subscriber, self._now()):
                raise WorkitemError(Refusal.NO_SUCH_WORKITEM, "there is no such subscription")

    def _add(  # noqa: PLR0913, PLR0917 # as of `subscribe`
        self,
        connection: Connection,
        uid: str,
        subscriber: str,
        lock: bool,
        keys: Mapping[str, str],
        by_websocket: bool,
    ) -> None:
        if subscriptions.count_subscriptions(connection) >= _MOST_SUBSCRIPTIONS:
            raise WorkitemError(Refusal.TOO_MANY, "there are too many subscriptions")
        now, by_dimse = self._now(), subscriber in self._reachable
        subject = _subject(connection, uid)
        wanted = Subscription(subject, subscriber, lock, by_websocket, by_dimse)
        filtering = keys if subject == FILTERED else {}
        present = _present(connection, subject, filtering)
        subscriptions.add_subscription(connection, wanted, now, filtering)
        if subject == FILTERED:
            for each in present:
                subscriptions.add_subscription(connection, wanted.to(each.job_id), now)
        channels: list[Channel] = []
        if by_websocket:
            channels.append("websocket")
        if by_dimse:
            channels.append("dimse")
        listener = Listener(subscriber, tuple(channels))
        for each in present:
            report = state_report(each.state, each.reason)
            write_events(connection, [listener], each.job_id, EventType.STATE_REPORT, report, now)


def read_ae_title(text: str) -> str:
    """Return an AE title (PS3.5 6.2); WorkitemError where it is none."""
    title = text.strip()
    if not 1 <= len(title) <= _AE_LENGTH or "\\" in title or not title.isascii() or not title.isprintable():
        raise WorkitemError(Refusal.INVALID_VALUE, "an AE title is 1 to 16 printable ASCII characters, no backslash")
    return title


def _subject(connection: Connection, uid: str) -> str:
    if uid in {GLOBAL, FILTERED}:
        return uid
    try:
        return get_workitem(connection, uid).job.id
    except NotFoundError as error:
        raise WorkitemError(Refusal.NO_SUCH_WORKITEM, str(error)) from error


def _present(connection: Connection, subject: str, keys: Mapping[str, str]) -> list[Present]:
    if subject not in {GLOBAL, FILTERED}:
        return [subscriptions.present_of(connection, subject)]
    try:
        return subscriptions.open_jobs(connection, keys, _FIRST_REPORTS)
    except KeyError as error:
        raise WorkitemError(Refusal.INVALID_VALUE, f"{error.args[0]} is not supported as a matching key") from error
    except (ValueError, OverflowError) as error:
        raise WorkitemError(Refusal.INVALID_VALUE, str(error)) from error
