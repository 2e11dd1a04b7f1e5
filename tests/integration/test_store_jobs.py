"""Jobs in the database, on SQLite and on PostgreSQL."""

from datetime import datetime, timedelta
from threading import Barrier, Thread

import pytest
import sqlalchemy as sa

from gateway.errors import ConflictError, NotFoundError
from gateway.job import Claim, State
from gateway.store import Store, jobs, outbox
from gateway.store.tables import outbox as outbox_table
from tests.stores import NOON, add_study

LEASE_S = 60.0
MINUTE = timedelta(minutes=1)
STUDY = "1.2.3"


def make(store: Store, bundle: str = "ct-lung", priority: str = "routine", now: datetime = NOON) -> str:
    """Make a job for the one study there is, and the study first where there is none."""
    with store.write() as connection:
        if not jobs.lock_study(connection, STUDY):
            add_study(connection, STUDY)
        return jobs.create_job(
            connection,
            study_instance_uid=STUDY,
            study_revision=1,
            bundle=bundle,
            priority=priority,  # type: ignore[arg-type] # a parameter of the test
            destinations=("PACS",),
            requested_by="dispatch",
            now=now,
        )


def take(store: Store, job_id: str, now: datetime = NOON, owner: str = "w1") -> Claim:
    """Claim a job that can be claimed."""
    with store.write() as connection:
        claimed = jobs.claim(connection, job_id, owner, now, LEASE_S)
    assert claimed is not None
    return claimed


def finish(store: Store, claimed: Claim, now: datetime = NOON) -> bool:
    """Finish a job without results."""
    with store.write() as connection:
        return jobs.finish(connection, claimed, now, algorithm={"name": "a"}, summary=[], reason=None)


def state(store: Store, job_id: str) -> State:
    """Return where a job stands."""
    with store.read() as connection:
        return jobs.get_job(connection, job_id).state


def due(store: Store, now: datetime = NOON) -> list[str]:
    """Take and publish what is due; return the jobs."""
    with store.write() as connection:
        rows = outbox.take_due(connection, now, 100, timedelta(seconds=10))
        outbox.mark_published(connection, [row.id for row in rows], now)
    return [row.job_id for row in rows]


def test_a_job_goes_from_queued_to_done(store: Store) -> None:
    """Made with a message, claimed once, renewed, finished once."""
    job_id = make(store)
    claimed = take(store, job_id)
    with store.write() as connection:
        second = jobs.claim(connection, job_id, "w2", NOON, LEASE_S)
        is_renewed = jobs.renew(connection, claimed, NOON + MINUTE, LEASE_S)

    assert due(store) == []
    assert second is None
    assert is_renewed
    assert (claimed.attempt, claimed.revision, claimed.destinations) == (1, 1, ("PACS",))
    assert finish(store, claimed)
    assert not finish(store, claimed)
    with store.read() as connection:
        row = jobs.get_job(connection, job_id)
    assert (row.state, row.algorithm, row.lease_owner, row.finished_at) == (State.DONE, {"name": "a"}, None, NOON)


def test_a_job_of_an_unknown_study_is_refused(store: Store) -> None:
    """The error is the one that says 'not found'."""
    with store.write() as connection, pytest.raises(NotFoundError):
        jobs.create_job(
            connection,
            study_instance_uid="9.9",
            study_revision=1,
            bundle="b",
            priority="stat",
            destinations=(),
            requested_by="reprocess",
            now=NOON,
        )


def test_stat_goes_before_routine_and_old_before_new(store: Store) -> None:
    """Both in the table as a queue and in the outbox."""
    old = make(store, "a")
    new = make(store, "b", now=NOON + MINUTE)
    urgent = make(store, "c", "stat", now=NOON + 2 * MINUTE)
    with store.read() as connection:
        candidates = jobs.next_candidates(connection, NOON + 3 * MINUTE, 10)

    assert candidates == [urgent, old, new]
    assert due(store, NOON + 3 * MINUTE) == [urgent, old, new]


def test_a_new_job_replaces_those_that_wait_and_keeps_their_urgency(store: Store) -> None:
    """The replaced one is cancelled with the reason, and its message is not published."""
    old = make(store, priority="stat")
    new = make(store)
    with store.read() as connection:
        replaced, replacing = jobs.get_job(connection, old), jobs.get_job(connection, new)

    assert (replaced.state, replaced.reason) == (State.CANCELLED, "superseded by revision 2")
    assert (replacing.revision, replacing.priority) == (2, "stat")
    assert due(store) == [new]


def test_revisions_of_one_study_and_bundle_run_one_after_the_other(store: Store) -> None:
    """The newer waits for the older that runs, and is told of its end by a message."""
    old = make(store)
    claimed = take(store, old)
    new = make(store)
    other = make(store, "mr-hippocampus")
    published = due(store)
    with store.write() as connection:
        refused = jobs.claim(connection, new, "w2", NOON, LEASE_S)
        candidates = jobs.next_candidates(connection, NOON, 10)
    finish(store, claimed)

    assert set(published) == {new, other}
    assert refused is None
    assert candidates == [other]
    assert due(store) == [new]
    assert take(store, new).revision == 2


def test_a_failed_try_waits_for_its_delay(store: Store) -> None:
    """Until then it is neither claimed nor published; the reason stands in the row."""
    job_id = make(store)
    due(store)
    claimed = take(store, job_id)
    with store.write() as connection:
        assert jobs.release_for_retry(connection, claimed, NOON, "out of memory", MINUTE)
        assert not jobs.release_for_retry(connection, claimed, NOON, "out of memory", MINUTE)
        too_early = jobs.claim(connection, job_id, "w1", NOON, LEASE_S)
        row = jobs.get_job(connection, job_id)

    assert too_early is None
    assert (row.state, row.reason) == (State.QUEUED, "out of memory")
    assert due(store) == []
    assert due(store, NOON + MINUTE) == [job_id]
    assert take(store, job_id, NOON + MINUTE).attempt == 2


def test_a_failed_try_of_a_replaced_job_is_its_last(store: Store) -> None:
    """The newer job takes its place at once."""
    old = make(store)
    claimed = take(store, old)
    new = make(store)
    due(store)
    with store.write() as connection:
        jobs.release_for_retry(connection, claimed, NOON, "out of memory", MINUTE)

    assert state(store, old) is State.CANCELLED
    assert due(store) == [new]


def test_a_lease_that_ran_out_passes_to_another_worker(store: Store) -> None:
    """The first owner can then neither renew nor finish, though it lives."""
    job_id = make(store)
    due(store)
    lost = take(store, job_id)
    with store.write() as connection:
        assert jobs.requeue_expired(connection, NOON + timedelta(seconds=LEASE_S), 5) == 0
        assert jobs.requeue_expired(connection, NOON + 2 * MINUTE, 5) == 1
    claimed = take(store, job_id, NOON + 2 * MINUTE, "w1")

    assert due(store, NOON + 2 * MINUTE) == []
    assert claimed.attempt == 2
    assert not finish(store, lost)
    with store.write() as connection:
        assert not jobs.renew(connection, lost, NOON + 2 * MINUTE, LEASE_S)
        assert not jobs.kill(connection, lost, NOON + 2 * MINUTE, "x")
    assert finish(store, claimed)


def test_a_job_that_kills_its_workers_ends_on_the_dead_list(store: Store) -> None:
    """After the last try, with the reason; 'dead retry' gives it all its tries again."""
    job_id = make(store)
    later = NOON
    for _ in range(2):
        take(store, job_id, later)
        later += 2 * MINUTE
        with store.write() as connection:
            jobs.requeue_expired(connection, later, 2)
    with store.read() as connection:
        dead = jobs.list_dead(connection)

    assert [(row.id, row.reason) for row in dead] == [(job_id, "worker died on try 2 of 2")]
    due(store, later)
    with store.write() as connection:
        jobs.retry_dead(connection, job_id, later)
    assert due(store, later) == [job_id]
    assert take(store, job_id, later).attempt == 1


def test_a_dead_job_that_was_replaced_is_not_retried(store: Store) -> None:
    """Its result would come after the newer one's."""
    old = make(store)
    claimed = take(store, old)
    with store.write() as connection:
        assert jobs.kill(connection, claimed, NOON, "broken weights")
    make(store)

    with store.write() as connection, pytest.raises(ConflictError, match="replaced"):
        jobs.retry_dead(connection, old, NOON)


def test_cancelling_takes_a_running_job_from_its_worker(store: Store) -> None:
    """The worker notices when it renews or finishes; what has ended cannot be cancelled."""
    job_id = make(store)
    claimed = take(store, job_id)
    with store.write() as connection:
        jobs.cancel(connection, job_id, NOON)

    assert not finish(store, claimed)
    with store.write() as connection:
        with pytest.raises(ConflictError, match="is cancelled: it cannot become cancelled"):
            jobs.cancel(connection, job_id, NOON)
        with pytest.raises(ConflictError, match="is cancelled, not dead"):
            jobs.retry_dead(connection, job_id, NOON)
        with pytest.raises(NotFoundError):
            jobs.cancel(connection, "no-such-job", NOON)


def test_a_message_that_the_broker_lost_is_written_again(store: Store) -> None:
    """Neither while it is fresh nor for a job that runs."""
    lost = make(store, "a")
    running = make(store, "b")
    due(store)
    take(store, running)
    with store.write() as connection:
        early = jobs.requeue_stale(connection, NOON + MINUTE, 5 * MINUTE)
        count = jobs.count_stale(connection, NOON + 6 * MINUTE, 5 * MINUTE)
        written = jobs.requeue_stale(connection, NOON + 6 * MINUTE, 5 * MINUTE)

    assert (early, count, written) == (0, 1, 1)
    assert due(store, NOON + 6 * MINUTE) == [lost]


def test_a_message_whose_dispatcher_died_comes_up_again(store: Store) -> None:
    """Taken but never marked as published: after the hold it is due once more, and not before."""
    job_id = make(store)
    hold = timedelta(seconds=10)
    with store.write() as connection:
        first = outbox.take_due(connection, NOON, 100, hold)
    with store.write() as connection:
        meanwhile = outbox.take_due(connection, NOON, 100, hold)

    assert [row.job_id for row in first] == [job_id]
    assert meanwhile == []
    assert due(store, NOON + hold) == [job_id]


def test_published_messages_are_forgotten_in_time(store: Store) -> None:
    """The outbox does not grow for ever; what is not published stays."""
    make(store, "a")
    due(store)
    make(store, "b")
    with store.write() as connection:
        forgotten = outbox.forget_published(connection, NOON + MINUTE)
        left = connection.scalar(sa.select(sa.func.count()).select_from(outbox_table))

    assert (forgotten, left) == (1, 1)


def test_lists(store: Store) -> None:
    """By state, study, bundle and time, the newest first."""
    first = make(store, "a")
    second = make(store, "b", now=NOON + MINUTE)
    take(store, first)
    with store.read() as connection:
        everything = jobs.list_jobs(connection)
        running = jobs.list_jobs(connection, jobs.JobFilter(states=(State.RUNNING,)))
        recent = jobs.list_jobs(connection, jobs.JobFilter(created_since=NOON + MINUTE, study_instance_uid=STUDY))
        of_bundle = jobs.list_jobs(connection, jobs.JobFilter(bundle="a"), limit=1)

    assert [row.id for row in everything] == [second, first]
    assert [row.id for row in running] == [row.id for row in of_bundle] == [first]
    assert [row.id for row in recent] == [second]


def test_of_many_workers_one_gets_the_job(store: Store) -> None:
    """Eight claims at the same moment, one of them holds."""
    job_id = make(store)
    claims: list[Claim | None] = []
    together = Barrier(8)

    def try_to_claim(owner: str) -> None:
        together.wait()
        with store.write() as connection:
            claims.append(jobs.claim(connection, job_id, owner, NOON, LEASE_S))

    threads = [Thread(target=try_to_claim, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claims) == 8
    assert len([claimed for claimed in claims if claimed is not None]) == 1


def test_of_two_reprocessings_at_once_one_job_is_left_waiting(store: Store) -> None:
    """Each gets its own revision; the later one replaces the earlier."""
    make(store)
    together = Barrier(2)
    made: list[str] = []

    def reprocess() -> None:
        together.wait()
        made.append(make(store))

    threads = [Thread(target=reprocess) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        rows = jobs.list_jobs(connection)

    assert len(made) == 2
    assert sorted(row.revision for row in rows) == [1, 2, 3]
    assert [row.revision for row in rows if row.state is State.QUEUED] == [3]
