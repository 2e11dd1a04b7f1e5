"""Retention on a real store: what holds a study, what goes with it, and kills at every moment."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app as create_fhir_app
from fhir_facade.resource import parse
from sqlalchemy.engine import Connection

from gateway.audit.acts import operator
from gateway.audit.lines import LineFilter, list_lines, verify
from gateway.config.retention import Retention
from gateway.header import read_header
from gateway.indexer import Arrival, Indexer
from gateway.retention.purge import Purge
from gateway.services import Counters, Heartbeat
from gateway.spool import DiskLimits, Origin, Spool
from gateway.store import Store, open_store
from gateway.store.retention import hold, release
from gateway.store.tables import (
    association,
    commitment,
    delivery,
    fhir_resource,
    instance,
    job,
    removal,
    study,
    workitem_subscription,
)
from tests.receiving import encoded, image
from tests.retaining import KEY, LATER, RULES, UID, fill, mentions
from tests.stores import NOON, add_association, add_study
from tests.unit.fhir import cases
from tests.unit.web.serving import served


@pytest.fixture
def files(store: Store) -> list[Path]:
    """Give the files of a finished study."""
    with store.write() as connection:
        return fill(connection, store.data_dir)


def purge(store: Store, rules: Retention = RULES) -> list[str]:
    """Remove what has had its time; return which."""
    work = Purge(store, rules, KEY)
    return [one.study_instance_uid for one in work.run(work.plan(LATER), operator(), LATER)]


def test_a_study_goes_with_all_that_belongs_to_it(store: Store, files: list[Path]) -> None:
    """Rows of all tables, files of all revisions, the folder of its results; the trail names study and patient."""
    with store.write() as connection:
        others = fill(connection, store.data_dir, "1.3.9")
        files += _cached(store.data_dir, f"{UID} {UID}.1", f"{UID} {UID}.9")
        connection.execute(sa.update(study).where(study.c.study_instance_uid == "1.3.9").values(last_received_at=LATER))

    assert purge(store) == [UID]

    assert mentions(store) == []
    assert not any(file.exists() for file in files)
    assert not (store.data_dir / "results" / f"job-{UID}").exists()
    assert all(file.exists() for file in others)
    with store.read() as connection:
        [line] = list_lines(connection, LineFilter(kind="study-deleted"), limit=10)
        assert verify(connection, KEY).faults == ()
    assert (line.study_instance_uid, line.patient_id) == (UID, "P7")
    assert "older than 30 days" in line.body


def _cached(data_dir: Path, *names: str) -> list[Path]:
    """Write what DICOMweb keeps of the metadata of series."""
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    packs = [data_dir / "cache" / "metadata" / digest[:2] / f"{digest}.pack" for digest in digests]
    for pack in packs:
        pack.parent.mkdir(parents=True, exist_ok=True)
        pack.write_bytes(b"metadata")
    return packs


def _update(table: sa.Table, **values: Any) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(sa.update(table).values(**values))


def _open_association(connection: Connection) -> None:
    add_association(connection, "a1")


def _lock(connection: Connection) -> None:
    row = {"subject": f"job-{UID}", "subscriber_ae": "WATCHER", "is_subscribed": True, "has_deletion_lock": True}
    connection.execute(
        sa.insert(workitem_subscription).values(**row, by_websocket=False, by_dimse=True, created_at=NOON)
    )


def _commit(connection: Connection) -> None:
    row = {"transaction_uid": "1.9", "calling_ae": "CT1", "referenced": [["1.2", f"{UID}.1.1"]], "state": "waiting"}
    connection.execute(sa.insert(commitment).values(**row, attempts=0, available_at=NOON, created_at=NOON))


BLOCKING: dict[str, Callable[[Connection], object]] = {
    "held": lambda connection: hold(connection, UID, "curie", "a court asks", NOON),
    "still receiving": _update(study, state="receiving"),
    "an association brings more": _open_association,
    "a job waits or runs": _update(job, state="running"),
    "a job is on the dead list": _update(job, state="dead"),
    "a delivery waits": _update(delivery, state="waiting"),
    "a delivery failed": _update(delivery, state="failed"),
    "a workitem is claimed or locked": _lock,
    "storage commitment is open": _commit,
    "results are not verified": lambda _: None,
}


def test_nothing_unfinished_is_removed(store: Store, files: list[Path]) -> None:
    """Each thing that is not finished keeps the study by itself, and is named; so does what comes after the plan."""
    for reason, begin in BLOCKING.items():
        rules = RULES.model_copy(update={"keep_unverified": reason == "results are not verified"})
        with store.engine.connect() as connection, connection.begin() as undone:
            begin(connection)
            undone.commit()
        work = Purge(store, rules, KEY)
        [decision] = work.plan(LATER)
        assert decision.blockers == (reason,)
        assert purge(store, rules) == []
        with store.write() as connection:
            release(connection, UID)
            connection.execute(sa.update(study).values(state="routed"))
            connection.execute(sa.update(job).values(state="done"))
            connection.execute(sa.update(delivery).values(state="done"))
            for table in (association, workitem_subscription, commitment):
                connection.execute(sa.delete(table))

    work = Purge(store, RULES, KEY)
    planned = work.plan(LATER)
    with store.write() as connection:
        connection.execute(sa.update(delivery).values(state="waiting"))
    assert list(work.run(planned, operator(), LATER)) == []
    assert all(file.exists() for file in files)


def test_studies_are_read_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over any number of pages each study is planned once, the oldest first; those of one moment, too."""
    monkeypatch.setattr("gateway.retention.purge._PAGE", 2)
    with store.write() as connection:
        for number, hours in ((1, 0), (2, 0), (3, 0), (4, 5), (5, 3)):
            add_study(connection, f"1.2.{number}", last_received_at=NOON + timedelta(hours=hours))

    planned = [one.study_instance_uid for one in Purge(store, RULES, KEY).plan(LATER)]

    assert planned == ["1.2.1", "1.2.2", "1.2.3", "1.2.5", "1.2.4"]


@pytest.mark.parametrize("keep_reports", [True, False])
def test_reports_stay_or_are_gone(store: Store, *, keep_reports: bool) -> None:
    """As configured: readable as before, or gone, with no word of the patient left in the history."""
    cases.commit(store, cases.finished(cases.pneumonia()))
    with store.write() as connection:
        connection.execute(sa.update(study).values(last_received_at=NOON, state="routed"))
        connection.execute(sa.update(delivery).values(state="done"))
    with served(create_fhir_app(store, zone=UTC)) as client:
        address = parse(client.get("/DiagnosticReport").content)["entry"][0]["fullUrl"]
        assert purge(store, RULES.model_copy(update={"keep_reports": keep_reports})) == [cases.STUDY_UID]
        status = client.get(address).status_code

    assert (status == 200) == keep_reports
    with store.read() as connection:
        of_study = sa.select(fhir_resource.c.body, fhir_resource.c.is_deleted).where(
            fhir_resource.c.type.in_(("Observation", "DiagnosticReport", "ImagingStudy"))
        )
        versions = connection.execute(of_study).all()
    assert versions
    assert all(bool(row.body) == keep_reports and row.is_deleted != keep_reports for row in versions)


KILLED_AT = 9


@contextmanager
def dying_at(step: int, engine: sa.Engine) -> Iterator[list[int]]:
    """End the process without a word at the so-manieth statement, commit or removal of a file."""
    count = [0]

    def look(*_ignored: object) -> None:
        count[0] += 1
        if count[0] == step:
            os._exit(KILLED_AT)

    sa.event.listen(engine, "before_cursor_execute", look)
    sa.event.listen(engine, "commit", look)
    sys.addaudithook(lambda event, _: look() if event in {"os.remove", "os.rmdir"} else None)
    yield count


def test_a_kill_at_any_moment_leaves_nothing_wrong(sqlite_store: Store, tmp_path: Path) -> None:
    """After each kill the study is whole, or its rows are gone; the next look removes what is left of its files."""
    url = str(sqlite_store.engine.url)
    steps = 0
    while True:
        steps += 1
        with sqlite_store.write() as connection:
            files = fill(connection, tmp_path)
        sqlite_store.close()
        child = os.fork()
        if child == 0:
            own = open_store(url, tmp_path)
            with dying_at(steps, own.engine):
                purge(own)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        left = mentions(sqlite_store)
        if "study" in left:
            assert all(file.exists() for file in files)
            assert {"instance", "artefact", "job"} <= set(left)
        else:
            assert set(left) <= {"removal"}
        purge(sqlite_store)
        Purge(sqlite_store, RULES, KEY).remove_files(LATER)
        assert mentions(sqlite_store) == []
        assert not any(file.exists() for file in files)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == KILLED_AT

    assert steps > 20
    with sqlite_store.read() as connection:
        verdict = verify(connection, KEY)
    assert (verdict.lines, verdict.faults) == (steps, ())


class Racing(Store):
    """A store whose first transaction finds that a file has just been removed."""

    victim: Path | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction; before the first, the file goes."""
        victim, self.victim = self.victim, None
        if victim is not None:
            victim.unlink()
        with super().write() as connection:
            yield connection


def _arrive(store: Store, data: bytes, uids: tuple[str, str], victim: Path | None = None) -> str:
    """Store an instance as the receiver does, and index it; return the path of its file."""
    racing = Racing(store.engine, store.data_dir)
    heartbeat = Heartbeat(store, "receive", Counters())
    with (
        Spool(store.data_dir, heartbeat.service_id, DiskLimits(0, 1 << 30)) as spool,
        Indexer(racing, heartbeat) as indexer,
    ):
        upload = spool.begin(Origin("a7", "CT1", "HYBRIDMED", "1.2.840.10008.1.2.1", *uids), 1)
        upload.write(data)
        header = read_header(upload.path)
        racing.victim = victim
        indexer.submit(Arrival(upload.commit(), header))
    with store.read() as connection:
        [path] = connection.scalars(sa.select(instance.c.path).where(instance.c.is_current))
    return str(path)


def test_a_study_that_comes_again_while_it_goes_is_kept(store: Store) -> None:
    """The same bytes after the rows went and before the files did, and in the very moment the file goes."""
    data_set = image()
    data, uids = encoded(data_set), (data_set.SOPClassUID, data_set.SOPInstanceUID)
    file = store.data_dir / _arrive(store, data, uids)
    with store.write() as connection:
        connection.execute(sa.update(study).values(last_received_at=NOON, state="routed"))
    work = Purge(store, RULES, KEY)
    assert work._remove(work.plan(LATER)[0], operator(), LATER)

    _arrive(store, data, uids, victim=file)
    work.remove_files(LATER)

    assert file.read_bytes().endswith(data)
    with store.read() as connection:
        assert connection.execute(sa.select(removal)).all() == []
        assert connection.scalar(sa.select(study.c.revision)) == 1
