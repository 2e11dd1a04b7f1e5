"""Whatever workers, sweepers and operators do in whatever order: no job finishes twice and none is stuck."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy.engine.interfaces import DBAPIConnection

from gateway.errors import ConflictError
from gateway.job import ALLOWED, Claim, State
from gateway.store import Store, jobs, open_store, outbox
from gateway.store.tables import metadata
from tests.stores import NOON, add_study

LEASE_S = 60.0
MAX_ATTEMPTS = 3
STALE = timedelta(minutes=10)
BUNDLES = ("ct-lung", "mr-hippocampus")
OWNERS = ("w1", "w2", "w3")


def forget_power_cuts(connection: DBAPIConnection, _record: object) -> None:
    """Do not wait for the disk: thousands of transactions, none of which must outlive the test."""
    connection.cursor().execute("PRAGMA synchronous=OFF")


class JobLife(RuleBasedStateMachine):
    """One study, two bundles, three workers, a broker that may lose and double messages, a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        path = Path(self.folder.name)
        self.store: Store = open_store(f"sqlite:///{path / 'jobs.db'}", path)
        sa.event.listen(self.store.engine, "connect", forget_power_cuts)
        with self.store.write() as connection:
            metadata.create_all(connection)
            add_study(connection, "1.2")
        self.now: datetime = NOON
        self.messages: list[str] = []
        self.claims: list[Claim] = []
        self.finished: Counter[str] = Counter()
        self.seen: dict[str, State] = {}

    def teardown(self) -> None:
        """Let everything come to its end, then look: nothing waits, nothing runs."""
        for _ in range(200):
            self.now += STALE + timedelta(seconds=1)
            self.sweep()
            self.lose_nothing_and_publish()
            for job_id in list(self.messages):
                self.work_off(job_id)
            if not self.open_jobs():
                break
        stuck = self.open_jobs()
        self.store.close()
        self.folder.cleanup()
        assert stuck == []
        assert max(self.finished.values(), default=0) <= 1

    def open_jobs(self) -> list[jobs.JobRow]:
        """Return the jobs that have not ended."""
        with self.store.read() as connection:
            return jobs.list_jobs(connection, jobs.JobFilter(states=(State.QUEUED, State.RUNNING)))

    def place(self, job_id: str) -> tuple[datetime, str, int]:
        """Return where a job stands among the others, whatever its random id: a run that is repeated draws the same."""
        with self.store.read() as connection:
            row = next(row for row in jobs.list_jobs(connection) if row.id == job_id)
        return row.created_at, row.bundle, row.revision

    def work_off(self, job_id: str) -> None:
        """Do what a good worker does with a message."""
        self.messages.remove(job_id)
        with self.store.write() as connection:
            claimed = jobs.claim(connection, job_id, "good", self.now, LEASE_S)
        if claimed is not None:
            self.end(claimed)

    def end(self, claimed: Claim) -> None:
        """Finish a job and count it."""
        with self.store.write() as connection:
            self.finished[claimed.job_id] += jobs.finish(
                connection, claimed, self.now, algorithm=None, summary=None, reason=None
            )

    @rule()
    def lose_nothing_and_publish(self) -> None:
        """Relay what is due."""
        with self.store.write() as connection:
            rows = outbox.take_due(connection, self.now, 100, timedelta(seconds=30))
            outbox.mark_published(connection, [row.id for row in rows], self.now)
        self.messages += sorted((row.job_id for row in rows), key=self.place)

    @rule(bundle=st.sampled_from(BUNDLES), is_relayed=st.booleans())
    def create(self, bundle: str, is_relayed: bool) -> None:
        """Dispatch or reprocess; the relay is quick, or not."""
        with self.store.write() as connection:
            jobs.create_job(
                connection,
                study_instance_uid="1.2",
                study_revision=1,
                bundle=bundle,
                priority="routine",
                destinations=(),
                requested_by="dispatch",
                now=self.now,
            )
        if is_relayed:
            self.lose_nothing_and_publish()

    @rule(seconds=st.sampled_from([1, 45, 61, 700]))
    def wait(self, seconds: int) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)

    @rule(data=st.data())
    def lose_or_double_a_message(self, data: st.DataObject) -> None:
        """Be a bad broker."""
        if self.messages:
            chosen = data.draw(st.sampled_from(self.messages))
            if data.draw(st.booleans()):
                self.messages.append(chosen)
            else:
                self.messages.remove(chosen)

    @rule(data=st.data(), owner=st.sampled_from(OWNERS), keeps_message=st.booleans())
    def claim(self, data: st.DataObject, owner: str, keeps_message: bool) -> None:
        """Receive a message and claim its job; the acknowledgement may be lost."""
        if not self.messages:
            return
        job_id = data.draw(st.sampled_from(self.messages))
        if not keeps_message:
            self.messages.remove(job_id)
        with self.store.write() as connection:
            claimed = jobs.claim(connection, job_id, owner, self.now, LEASE_S)
        if claimed is not None:
            self.claims.append(claimed)

    @rule(data=st.data(), how=st.sampled_from(["finish", "renew", "retry", "kill", "die"]))
    def act_on_a_claim(self, data: st.DataObject, how: str) -> None:
        """Be a worker, perhaps one that has long lost its lease."""
        if not self.claims:
            return
        claimed = data.draw(st.sampled_from(self.claims))
        if how == "finish":
            self.end(claimed)
            return
        with self.store.write() as connection:
            if how == "renew":
                jobs.renew(connection, claimed, self.now, LEASE_S)
            elif how == "retry":
                jobs.release_for_retry(connection, claimed, self.now, "may pass", timedelta(seconds=30))
            elif how == "kill":
                jobs.kill(connection, claimed, self.now, "for good")

    @rule()
    def sweep(self) -> None:
        """Requeue what ran out and what was lost."""
        with self.store.write() as connection:
            jobs.requeue_expired(connection, self.now, MAX_ATTEMPTS)
            jobs.requeue_stale(connection, self.now, STALE)

    @rule(data=st.data(), retries=st.booleans())
    def operate(self, data: st.DataObject, retries: bool) -> None:
        """Cancel a job or retry a dead one, where that is allowed."""
        with self.store.read() as connection:
            rows = jobs.list_jobs(connection)
        if not rows:
            return
        chosen = data.draw(st.sampled_from(sorted(rows, key=lambda row: (row.created_at, row.bundle, row.revision))))
        try:
            with self.store.write() as connection:
                (jobs.retry_dead if retries else jobs.cancel)(connection, chosen.id, self.now)
        except ConflictError:
            return

    @invariant()
    def states_follow_the_table(self) -> None:
        """No step leaves the transitions of `job.py`; of a study and bundle one job runs, and it finishes once."""
        with self.store.read() as connection:
            rows = jobs.list_jobs(connection, limit=10_000)
        for row in rows:
            before = self.seen.get(row.id, State.QUEUED)
            # A step may pass through QUEUED or RUNNING and on; what has ended for good stays.
            assert row.state == before or row.state in ALLOWED[before]
            self.seen[row.id] = row.state
        running = Counter(row.bundle for row in rows if row.state is State.RUNNING)
        waiting = Counter(row.bundle for row in rows if row.state is State.QUEUED)
        assert max(running.values(), default=0) <= 1
        assert max(waiting.values(), default=0) <= 1
        assert max(self.finished.values(), default=0) <= 1


JobLife.TestCase.settings = settings(
    max_examples=40, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestJobLife = JobLife.TestCase
