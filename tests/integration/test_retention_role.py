"""The role and the commands that remove studies: by themselves, with the bucket away, by hand."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.errors import FilesAwayError
from gateway.retention.purge import Purge
from gateway.retention.role import Keeper
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.files import Files
from gateway.store.tables import (
    study,
)
from tests.retaining import KEY, LATER, RULES, UID, fill, mentions


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
