"""A clock that was ahead is set back: nothing waits until it has caught up. On both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from gateway.job import State
from gateway.services import GONE_S, Counters
from gateway.store import Store, jobs
from gateway.store.deliveries import create_deliveries, has_due
from gateway.store.outbox import mark_published, take_due
from gateway.store.studies import list_arriving
from gateway.store.tables import association, delivery, job, outbox
from gateway.sweeper import Sweeper
from gateway.testing import MemoryBroker
from tests.stores import NOON, add_association, add_instance, add_series, add_service, add_study

AHEAD = timedelta(hours=1)
LEASE_S = 60.0
SECOND = timedelta(seconds=1)


class _Site:
    """A sweeper, the clock that people set and the one that nobody does."""

    def __init__(self, store: Store) -> None:
        self.now = NOON + AHEAD
        self.seconds = 1000.0
        self.counters = Counters()
        self.store = store
        self.sweeper = self.started()

    def started(self) -> Sweeper:
        """Return a sweeper that has just begun."""
        stale = timedelta(hours=10)
        return Sweeper(self.store, MemoryBroker(), self.counters, 5, stale, lambda: self.seconds)

    def sweep(self) -> None:
        self.sweeper.sweep(self.now)

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    @property
    def steps(self) -> float:
        return self.counters.snapshot().get("hybridmed_clock_set_back_total", 0)


@pytest.fixture
def site(store: Store) -> _Site:
    """Give a sweeper that has looked once, by a clock that is an hour ahead."""
    site = _Site(store)
    site.sweep()
    return site


def _job(site: _Site, uid: str = "1.2.3") -> str:
    with site.store.write() as connection:
        add_study(connection, uid, state="routed", last_received_at=site.now)
        return jobs.create_job(
            connection,
            study_instance_uid=uid,
            study_revision=1,
            bundle="ct-lung",
            priority="routine",
            destinations=["PACS"],
            requested_by="dispatch",
            now=site.now,
            trace_context={},
        )


def _set_back(site: _Site) -> None:
    site.passes(5)
    site.now -= AHEAD
    site.sweep()


def test_what_waits_is_due(site: _Site) -> None:
    """A study that arrives, a job, its message and a delivery."""
    job_id = _job(site)
    with site.store.write() as connection:
        create_deliveries(connection, job_id, ["PACS"], site.now)
        add_study(connection, "1.2.4", state="receiving", last_received_at=site.now)
        add_series(connection, "1.2.4", "1.2.4.1")
        add_instance(connection, "1.2.4", "1.2.4.1", "1.2.4.1.1", received_at=site.now)

    _set_back(site)

    with site.store.read() as connection:
        assert jobs.next_candidates(connection, site.now, 5) == [job_id]
        assert connection.scalar(sa.select(outbox.c.available_at)) <= site.now
        assert has_due(connection, "PACS", site.now)
        assert [one.study.study_instance_uid for one in list_arriving(connection, site.now)] == ["1.2.4"]
    assert site.steps == 1


def test_a_job_whose_message_was_thrown_away_gets_another(site: _Site) -> None:
    """A worker looked at it after the step, when it was not due yet, and forgot the message."""
    job_id = _job(site)
    with site.store.write() as connection:
        mark_published(connection, list(connection.scalars(sa.select(outbox.c.id))), site.now)

    _set_back(site)

    with site.store.write() as connection:
        assert [row.job_id for row in take_due(connection, site.now, 5, SECOND)] == [job_id]


def test_waiting_goes_on_where_it_was_meant_to(site: _Site) -> None:
    """A delivery whose next try lies further ahead than the step waits for it."""
    job_id = _job(site)
    later = site.now + 3 * AHEAD
    with site.store.write() as connection:
        create_deliveries(connection, job_id, ["PACS"], later)

    _set_back(site)

    with site.store.read() as connection:
        assert connection.scalar(sa.select(delivery.c.available_at)) == later


def test_the_job_of_a_dead_worker_is_taken(site: _Site) -> None:
    """When its lease is over, which it is not before."""
    job_id = _job(site)
    with site.store.write() as connection:
        assert jobs.claim(connection, job_id, "w", site.now, LEASE_S) is not None

    _set_back(site)
    with site.store.read() as connection:
        assert jobs.get_job(connection, job_id).state is State.RUNNING
        assert connection.scalar(sa.select(job.c.lease_expires_at)) == site.now + timedelta(seconds=LEASE_S - 5)
    site.passes(LEASE_S)
    site.sweep()

    with site.store.read() as connection:
        assert jobs.get_job(connection, job_id).state is State.QUEUED


def test_the_associations_of_a_dead_receiver_are_closed(site: _Site) -> None:
    """It was last seen in a time that has not come yet."""
    with site.store.write() as connection:
        add_service(connection, "r1", site.now)
        add_association(connection, "a1", opened_at=site.now)

    _set_back(site)
    for _ in range(int(GONE_S)):
        site.passes(2)
        site.sweep()

    with site.store.read() as connection:
        assert connection.scalar(sa.select(association.c.outcome)) == "lost"


def test_a_step_between_two_runs_is_seen(site: _Site) -> None:
    """By the heartbeats that an earlier process left."""
    job_id = _job(site)
    with site.store.write() as connection:
        add_service(connection, "r1", site.now)
    site.now -= AHEAD
    site.sweeper = site.started()
    site.sweep()

    with site.store.read() as connection:
        assert jobs.next_candidates(connection, site.now, 5) == [job_id]


@pytest.mark.parametrize("step", [timedelta(), -SECOND, SECOND, AHEAD])
def test_a_clock_that_runs_is_left_alone(site: _Site, step: timedelta) -> None:
    """One that is slowed down, and one that is set forward: nothing lies ahead of it."""
    site.passes(5)
    site.now += step
    site.sweep()

    assert site.steps == 0
