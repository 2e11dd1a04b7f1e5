"""Retention on a real store: what holds a study, what goes with it, and kills at every moment."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app as create_fhir_app
from fhir_facade.resource import parse
from sqlalchemy.engine import Connection
from typer.testing import CliRunner

from gateway.audit.acts import operator
from gateway.audit.chain import ChainKey
from gateway.audit.lines import LineFilter, list_lines, verify
from gateway.cli.app import app
from gateway.config.retention import Retention
from gateway.errors import FilesAwayError
from gateway.header import read_header
from gateway.indexer import Arrival, Indexer
from gateway.retention.purge import Purge
from gateway.retention.role import Keeper
from gateway.services import Counters, Heartbeat
from gateway.spool import DiskLimits, Origin, Spool
from gateway.store import Store, open_store
from gateway.store.files import Files
from gateway.store.retention import hold, release
from gateway.store.tables import (
    artefact,
    association,
    commitment,
    delivery,
    demographic_issue,
    fhir_resource,
    instance,
    job,
    metadata,
    removal,
    study,
    workitem,
    workitem_subscription,
)
from tests.receiving import encoded, image
from tests.stores import NOON, add_association, add_instance, add_series, add_study
from tests.unit.fhir import cases
from tests.unit.web.serving import served

KEY = ChainKey()
RULES = Retention(max_age_days=30, keep_unverified=False)
LATER = NOON + timedelta(days=40)
UID = "1.2.7"


def fill(connection: Connection, data_dir: Path, uid: str = UID) -> list[Path]:
    """Put a finished study in, with a done job and everything that belongs to one; return its files."""
    add_study(connection, uid, patient_id="P7", accession_number="A7")
    add_series(connection, uid, f"{uid}.1")
    names = [f"instances/ab/{uid}.{number}.dcm" for number in range(3)]
    for number, name in enumerate(names):
        add_instance(connection, uid, f"{uid}.1", f"{uid}.1.{number}", path=name, is_current=number > 0)
    now, job_id = {"created_at": NOON}, f"job-{uid}"
    row = {"id": job_id, "study_instance_uid": uid, "study_revision": 1, "bundle": "b", "revision": 1, "state": "done"}
    row |= {"priority": "routine", "destinations": [], "attempts": 1, "available_at": NOON, "requested_by": "dispatch"}
    connection.execute(sa.insert(job).values(**row, **now))
    result = f"results/{job_id}/seg.dcm"
    made = {"job_id": job_id, "kind": "seg", "ordinal": 0, "variant": "", "media_type": "application/dicom"}
    made |= {
        "study_instance_uid": uid,
        "series_instance_uid": f"{uid}.9",
        "path": result,
        "digest": "0",
        "size_bytes": 5,
    }
    connection.execute(sa.insert(artefact).values(**made, **now))
    sent = {"job_id": job_id, "destination": "PACS", "state": "done", "attempts": 1, "available_at": NOON}
    connection.execute(sa.insert(delivery).values(**sent, **now))
    connection.execute(sa.insert(workitem).values(job_id=job_id, attributes={}, updated_at=NOON))
    differs = {"study_instance_uid": uid, "patient": "p", "elements": ["name"], "source": "EHR", "noted_at": NOON}
    connection.execute(sa.insert(demographic_issue).values(**differs))
    files = [data_dir / name for name in [*names, result]]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"bytes")
    return files


@pytest.fixture
def files(store: Store) -> list[Path]:
    """Give the files of a finished study."""
    with store.write() as connection:
        return fill(connection, store.data_dir)


def purge(store: Store, rules: Retention = RULES) -> list[str]:
    """Remove what has had its time; return which."""
    work = Purge(store, rules, KEY)
    return [one.study_instance_uid for one in work.run(work.plan(LATER), operator(), LATER)]


def mentions(store: Store, uid: str = UID) -> list[str]:
    """Return the tables that still name the study; the audit trail, and what was removed lately, aside."""
    named = []
    with store.read() as connection:
        for table in metadata.sorted_tables:
            due = [table.c.removed_at.is_(None)] if table is removal else []
            rows = [str(tuple(row)) for row in connection.execute(sa.select(table).where(*due))]
            if table.name != "audit_event" and any(uid in row for row in rows):
                named.append(table.name)
    return named


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


def test_the_role_removes_by_itself(sqlite_store: Store) -> None:
    """And works off the files that a killed purge listed, even where it may remove no study."""
    with sqlite_store.write() as connection:
        files = fill(connection, sqlite_store.data_dir)
    heartbeat = Heartbeat(sqlite_store, "dispatch", Counters())
    keeper = Keeper(Purge(sqlite_store, RULES, KEY), heartbeat, 600, now=lambda: LATER)

    assert keeper.turn(threading.Event()) == 1
    assert not any(file.exists() for file in files)
    assert heartbeat.counters.snapshot()["hybridmed_studies_removed_total"] == 1


class BucketAway:
    """A bucket that does not answer."""

    def put(self, path: str, source: Path) -> None:
        """Take nothing."""
        raise FilesAwayError("the bucket does not answer")

    def size(self, path: str) -> int | None:
        """Tell nothing."""
        raise FilesAwayError("the bucket does not answer")

    def fetch(self, path: str, target: Path) -> None:
        """Give nothing."""
        raise FilesAwayError("the bucket does not answer")

    def remove(self, path: str) -> None:
        """Remove nothing."""
        raise FilesAwayError("the bucket does not answer")


class TwoLooks(threading.Event):
    """Is set by the second look, without a wait."""

    looks = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Count a look."""
        self.looks += 1
        return self.looks > 1


def test_a_bucket_that_is_away_ends_no_role(sqlite_store: Store) -> None:
    """The role goes on and says so; the files wait in the list and go once the bucket is back."""
    with sqlite_store.write() as connection:
        fill(connection, sqlite_store.data_dir)
    away = Store(sqlite_store.engine, sqlite_store.data_dir, Files(sqlite_store.data_dir, BucketAway()))
    heartbeat = Heartbeat(sqlite_store, "dispatch", Counters())

    Keeper(Purge(away, RULES, KEY), heartbeat, 600, now=lambda: LATER).run(TwoLooks())

    assert "removal" in mentions(sqlite_store)
    assert "retention" in heartbeat._degraded
    Keeper(Purge(sqlite_store, RULES, KEY), heartbeat, None, now=lambda: LATER).run(TwoLooks())
    assert mentions(sqlite_store) == []
    assert heartbeat._degraded == {}


def test_the_commands_say_what_and_why(sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run removes nothing; a held study stays and is named; then it goes, and the trail tells of all of it."""
    monkeypatch.setenv("HYBRIDMED_CONFIG", os.devnull)
    monkeypatch.setenv("HYBRIDMED_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HYBRIDMED_RETENTION__MAX_AGE_DAYS", "30")
    monkeypatch.setenv("HYBRIDMED_RETENTION__KEEP_UNVERIFIED", "false")
    with sqlite_store.write() as connection:
        files = fill(connection, tmp_path)
        long_ago = datetime.now(UTC) - timedelta(days=31)
        connection.execute(sa.update(study).values(last_received_at=long_ago))

    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(app, arguments)
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    assert json.loads(run("purge", "--dry-run", "--json"))[0]["outcome"] == "would go"
    run("studies", "hold", UID, "--reason", "a court asks")
    held = json.loads(run("purge", "--json"))[0]
    assert (held["outcome"], held["kept_by"]) == ("stays", ["held"])
    assert all(file.exists() for file in files)
    run("studies", "release", UID)
    assert "removed" in run("purge")
    assert not any(file.exists() for file in files)
    kinds = [line["kind"] for line in json.loads(run("audit", "list", "--json"))]
    assert kinds == ["audit-log-used", "study-deleted", "procedure-record", "procedure-record"]
    assert "all in order" in run("audit", "verify")
