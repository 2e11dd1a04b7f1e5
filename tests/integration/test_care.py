"""Backup and restore as a drill, evidence of a study, support without patient data."""

import hashlib
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.care.backup import back_up, restore, verify
from gateway.care.evidence import export_evidence
from gateway.care.support import write_support
from gateway.config import load_settings
from gateway.errors import ConflictError, NotFoundError
from gateway.store import Store, installation, open_store, schema
from gateway.store.files import Files
from gateway.store.jobs import create_job
from gateway.store.retention import remove_rows
from gateway.store.tables import finding, job, metadata, study
from tests.stores import add_instance, add_series, add_study

NAME, PATIENT, ACCESSION = "Doe^Jane", "PID-4711", "ACC-0815"
TABLES = ("study", "series", "instance", "job", "outbox", "finding", "installation", "schema_floor")


def test_a_backup_is_restored_into_another_database(store: Store, tmp_path: Path) -> None:
    """The drill passes, an empty gateway on SQLite takes it, rows and files are the same, new rows get new numbers."""
    fill(store)
    folder = tmp_path / "backup"
    back_up(store, folder)
    again = back_up(store, folder)
    checked = verify(folder)

    other = open_store(f"sqlite:///{tmp_path}/other.db", tmp_path / "other")
    (tmp_path / "other/installation-id").write_text("00000000-0000-4000-8000-000000000000\n")  # of a start before
    try:
        restore(other, folder)
        with store.read() as here, other.read() as there:
            for name in TABLES:
                query = sa.select(metadata.tables[name]).order_by(*metadata.tables[name].primary_key)
                assert here.execute(query).all() == there.execute(query).all(), name
        with other.write() as connection:
            add_instance(connection, "1.2", "1.2.1", "1.2.1.99")
        with pytest.raises(ConflictError, match="holds studies"):
            restore(other, folder)
    finally:
        other.close()
    assert checked.problems == ()
    assert checked.rows == sum(rows for rows, _ in again.tables.values())
    assert (tmp_path / "other/instances/1.dcm").read_bytes() == b"one"
    assert (tmp_path / "other/installation-id").read_text() == (store.data_dir / "installation-id").read_text()


def test_postgresql_counts_on_after_a_restore(postgres_store: Store, sqlite_store: Store, tmp_path: Path) -> None:
    """A gateway that outgrew SQLite is restored into PostgreSQL, and goes on numbering rows where it was."""
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "backup")

    restore(postgres_store, tmp_path / "backup")
    with postgres_store.write() as connection:
        add_instance(connection, "1.2", "1.2.1", "1.2.1.99")
        count = connection.scalar(sa.text("SELECT count(DISTINCT id) FROM instance"))

    assert count == 3


@pytest.mark.parametrize("fault", ["file changed", "file lost", "table changed", "row without file"])
def test_the_drill_finds_what_is_wrong(sqlite_store: Store, tmp_path: Path, fault: str) -> None:
    """Each fault is named, and nothing is restored from such a backup."""
    fill(sqlite_store)
    if fault == "row without file":
        (sqlite_store.data_dir / "instances/1.dcm").unlink()
    folder = tmp_path / "backup"
    back_up(sqlite_store, folder)
    if fault == "file changed":
        (folder / "files/instances/1.dcm").write_bytes(b"two")
    elif fault == "file lost":
        (folder / "files/instances/1.dcm").unlink()
    elif fault == "table changed":
        [there], [other] = (folder.glob(f"tables/{name}-*") for name in ("study", "series"))
        there.write_bytes(other.read_bytes())
    other = open_store(f"sqlite:///{tmp_path}/other.db", tmp_path / "other")

    try:
        assert verify(folder).problems
        with pytest.raises(ConflictError, match="faults"):
            restore(other, folder)
        assert schema.current_revision(other) is None
    finally:
        other.close()


class Purging(Files):
    """Files of which a study's go at the first look: retention works while a backup is taken."""

    store: Store | None = None

    def local(self, path: str) -> Path:
        """Return a file, a study having gone before."""
        if self.store is not None:
            store, self.store = self.store, None
            with store.write() as connection:
                paths = remove_rows(connection, "9.9", datetime.now(UTC), keep_reports=False)
            for each in paths:
                (store.data_dir / each).unlink()
        return super().local(path)


def test_a_study_that_goes_while_a_backup_is_taken_leaves_it_whole(store: Store, tmp_path: Path) -> None:
    """The tables are read again: no row names the file that retention removed."""
    fill(store)
    files = Purging(store.data_dir)
    files.store = store

    back_up(Store(store.engine, store.data_dir, files), tmp_path / "backup")

    assert verify(tmp_path / "backup").problems == ()


def test_a_backup_that_is_killed_leaves_the_one_before(sqlite_store: Store, tmp_path: Path) -> None:
    """The same folder serves both; only the manifest decides which tables are meant, and it comes last."""

    class Killed(Files):
        def local(self, path: str) -> Path:
            raise KeyboardInterrupt

    fill(sqlite_store)
    folder = tmp_path / "backup"
    back_up(sqlite_store, folder)
    with sqlite_store.write() as connection:
        connection.execute(sa.update(study).values(patient_id="another"))
    with pytest.raises(KeyboardInterrupt):
        back_up(Store(sqlite_store.engine, sqlite_store.data_dir, Killed(sqlite_store.data_dir)), folder)

    assert verify(folder).problems == ()
    assert len(back_up(sqlite_store, folder).tables) == len(list((folder / "tables").iterdir()))


def test_a_backup_and_its_keys_are_their_owners_alone(sqlite_store: Store, tmp_path: Path) -> None:
    """It holds patients and secrets: nobody else enters the folders, and a key keeps its mode."""
    fill(sqlite_store)
    folder = tmp_path / "backup"
    back_up(sqlite_store, folder)

    assert [path.stat().st_mode & 0o077 for path in (folder, folder / "tables", folder / "files")] == [0, 0, 0]
    assert (folder / "files/installation-id").stat().st_mode & 0o077 == 0


def test_evidence_holds_all_of_one_study_and_nothing_of_another(store: Store, tmp_path: Path) -> None:
    """Rows and files by digest; the archive is its owner's alone; an unknown study has none."""
    fill(store)
    archive = tmp_path / "evidence.zip"
    export_evidence(store, "1.2", archive)

    with zipfile.ZipFile(archive) as opened:
        manifest = json.loads(opened.read("manifest.json"))
        digests = {name: hashlib.sha256(opened.read(name)).hexdigest() for name in manifest["sha256"]}
        content = b"".join(opened.read(name) for name in opened.namelist())
    assert digests == manifest["sha256"]
    assert {"tables/study.jsonl", "tables/job.jsonl", "tables/finding.jsonl", "instances/1.dcm"} <= set(digests)
    assert "instances/2.dcm" not in digests
    assert b"9.9" not in content
    assert archive.stat().st_mode & 0o077 == 0
    with pytest.raises(NotFoundError):
        export_evidence(store, "1.3.5", tmp_path / "none.zip")


def test_support_tells_states_and_times_and_no_patient(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was planted in rows and settings is nowhere; what is too old is left out."""
    fill(store)
    with store.write() as connection:
        connection.execute(sa.update(job).values(reason=f"cancelled by {NAME}: at once"))
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "none.toml"))
    settings = load_settings(
        data_dir=store.data_dir,
        database_url="postgresql://u:s3cret-word@db/h",
        tokens=("ab" * 32,),
        destinations="PACS=HOSPITAL@10.1.2.3:104",
    )
    archive = tmp_path / "support.zip"
    names = write_support(store, settings, datetime.now(UTC), 24, archive, {"more.txt": lambda: b"more"})

    with zipfile.ZipFile(archive) as opened:
        parts = {name: opened.read(name) for name in names}
    content = b"".join(parts.values()).decode()
    planted = (NAME, "Jane", PATIENT, ACCESSION, "1.2.1", "s3cret-word", "abababab", "HOSPITAL", "10.1.2.3")
    assert [word for word in planted if word in content] == []
    assert [row["state"] for row in json.loads(parts["jobs.json"])] == ["queued"]
    assert len(json.loads(parts["studies.json"])) == 1  # the other came two days ago
    assert json.loads(parts["settings.json"])["database_url"] == "set"
    assert parts["more.txt"] == b"more"


def fill(store: Store) -> None:
    """Make two studies, an old one among them, with files and a job."""
    now = datetime.now(UTC)
    (store.data_dir / "instances").mkdir()
    installation.share(store, store.data_dir / "installation-id")
    with store.write() as connection:
        for uid, name, content, when in (("1.2", "1", b"one", now), ("9.9", "2", b"two", now - timedelta(days=2))):
            person = {"patient_name": NAME, "patient_id": PATIENT, "accession_number": ACCESSION}
            add_study(connection, uid, **person, last_received_at=when)
            add_series(connection, uid, f"{uid}.1")
            size = {"path": f"instances/{name}.dcm", "size_bytes": len(content)}
            add_instance(connection, uid, f"{uid}.1", f"{uid}.1.1", **size)
            (store.data_dir / f"instances/{name}.dcm").write_bytes(content)
        job_id = create_job(
            connection,
            study_instance_uid="1.2",
            study_revision=1,
            bundle="b",
            priority="routine",
            destinations=["PACS"],
            requested_by="dispatch",
            now=now,
        )
        row = {"job_id": job_id, "study_instance_uid": "1.2", "bundle": "b", "ordinal": 0, "tracking_id": "t"}
        row |= {"level": "l", "name": "n", "probability": 0.5, "is_positive": True, "is_current": True}
        connection.execute(sa.insert(finding).values(**row))
        assert connection.scalar(sa.select(sa.func.count()).select_from(study)) == 2
