"""`verify`, `studies stat` and `deliveries resend`, as an operator types them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.config import Destination
from gateway.errors import ConflictError, NotFoundError
from gateway.store import Store, deliveries
from gateway.verification.verdict import VerdictError
from tests.unit.report.outcomes import write_xray
from tests.verifying import OUTCOME, resources, take_in_all, work
from tests.working import job_of

PACS = Destination(name="PACS", address="PACS@127.0.0.1:104")


@pytest.fixture
def job_id(sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a finished job in the data folder that the settings name."""
    monkeypatch.setenv("HYBRIDMED_CONFIG", os.devnull)
    monkeypatch.setenv("HYBRIDMED_DATA_DIR", str(sqlite_store.data_dir))
    folder = tmp_path / "source"
    folder.mkdir()
    return work(sqlite_store, take_in_all(sqlite_store, write_xray(folder)), OUTCOME, [PACS])


def test_a_result_is_corrected(sqlite_store: Store, job_id: str) -> None:
    """The job it prints holds the correction, and the report is amended."""
    arguments = ["verify", "correct", job_id, "--observer", "Curie Marie", "--class", "fine=viral", "--remove", "1"]

    ended = CliRunner().invoke(app, [*arguments, "--json"])

    assert ended.exit_code == 0, ended.output
    printed = ended.stdout[ended.stdout.index("{") :]  # behind the log, which the real command keeps to standard error
    row = job_of(sqlite_store, json.loads(printed)["job_id"])
    assert row.verification is not None
    assert [each.get("answer", each.get("segment")) for each in row.verification["corrections"]] == ["viral", 1]
    assert {each["status"] for each in resources(sqlite_store, "DiagnosticReport", is_current=False)} >= {"amended"}
    assert "said before" in CliRunner().invoke(app, arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["verify", "accept", "nothing", "--observer", "A B"], NotFoundError),
        (["verify", "accept", "JOB", "--observer", " "], VerdictError),
        (["verify", "correct", "JOB", "--observer", "A B", "--class", "fine=fungal"], VerdictError),
        (["studies", "stat", "1.2.3"], NotFoundError),
        (["deliveries", "resend", "1.2.3"], NotFoundError),
        (["deliveries", "resend", "2.25.100"], ConflictError),
    ],
)
def test_what_cannot_be_done_is_said(job_id: str, arguments: list[str], error: type[Exception]) -> None:
    """With a sentence, and the exit code of its error."""
    ended = CliRunner().invoke(app, [job_id if each == "JOB" else each for each in arguments])

    assert isinstance(ended.exception, error)


def test_a_study_is_raised_and_sent_again(sqlite_store: Store, job_id: str) -> None:
    """Both commands say how much that was."""
    now, uid = datetime.now(UTC), job_of(sqlite_store, job_id).study_instance_uid
    with sqlite_store.write() as connection:
        claimed = deliveries.claim(connection, "PACS", now, 30)
        assert claimed is not None
        deliveries.finish(connection, claimed, now)

    raised = CliRunner().invoke(app, ["studies", "stat", uid])
    resent = CliRunner().invoke(app, ["deliveries", "resend", uid, "--to", "PACS"])

    assert raised.stdout.strip() == "STAT: 1 studies, 0 jobs that wait."
    assert resent.stdout.strip() == "1 deliveries will be made again."
