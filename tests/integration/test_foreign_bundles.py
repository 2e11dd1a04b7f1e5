"""A study through the worker with each kind of foreign network; without the operator's leave, none runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.config import Settings
from gateway.job import State
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.results import list_artefacts
from gateway.store.tables import fhir_resource
from gateway.wiring import describe_bundles
from gateway.wiring.work import build
from inference.bundle import Bundle, load_bundle
from inference.foreign.spec import Allowance
from tests.foreign_bundles import make_monai, make_onnx, make_torchscript
from tests.studies import RealData, dicom_files
from tests.working import add_job, eventually, job_of, running, take_in


def _settings(store: Store, bundles: Path, *allowed: str) -> Settings:
    return Settings(
        data_dir=store.data_dir,
        database_url=store.engine.url.render_as_string(hide_password=False),
        bundle_dir=bundles,
        foreign_bundles=allowed,
        device="cpu",
    )


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (make_torchscript, {"sr-findings", "seg"}),
        (make_onnx, {"sr-findings"}),
        (make_monai, {"sr-measurements", "seg"}),
    ],
)
def test_a_study_goes_through_a_foreign_network(
    sqlite_store: Store, real_data: RealData, tmp_path: Path, make: Callable[[Path], Bundle], kinds: set[str]
) -> None:
    """From the stored study to SR, SEG and the report of FHIR, by the worker that `serve` runs."""
    bundle = make(tmp_path / "bundles" / "ward")
    is_volume = make is make_monai
    files = dicom_files(real_data.samples / "ct-chest") if is_volume else [real_data.cxr[0]]
    uid = take_in(sqlite_store, *files)
    job_id = add_job(sqlite_store, uid, bundle="ward")
    settings = _settings(sqlite_store, tmp_path / "bundles", f"ward={bundle.algorithm.weights_digest}")

    worker = build(settings, sqlite_store, Heartbeat(sqlite_store, "work", Counters()))
    with running(worker):
        eventually(lambda: job_of(sqlite_store, job_id).state in {State.DONE, State.DEAD}, "the job is over")

    job = job_of(sqlite_store, job_id)
    assert (job.state, job.reason) == (State.DONE, None)
    with sqlite_store.read() as connection:
        artefacts = list_artefacts(connection, job_id)
        types = {row.type for row in connection.execute(fhir_resource.select())}
    assert kinds <= {one.kind for one in artefacts}
    assert {"DiagnosticReport", "Observation"} <= types
    report = next(one for one in artefacts if one.kind in {"sr-findings", "sr-measurements"})
    assert bundle.algorithm.weights_digest in str(pydicom.dcmread(sqlite_store.data_dir / report.path))


def test_without_leave_it_is_refused_everywhere(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bundles list` and doctor say what to set; the shipped bundles go on."""
    digest = make_onnx(tmp_path / "bundles" / "ward").algorithm.weights_digest
    line = f'foreign_bundles = ["ward={digest}"]'
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "absent.toml"))
    monkeypatch.setenv("HYBRIDMED_BUNDLE_DIR", str(tmp_path / "bundles"))

    good, bad = describe_bundles(_settings(sqlite_store, tmp_path / "bundles"))
    listed = CliRunner().invoke(app, ["bundles", "list", "--json"])
    monkeypatch.setenv("HYBRIDMED_FOREIGN_BUNDLES", f"ward={digest}")
    allowed = CliRunner().invoke(app, ["bundles", "list", "--json"])

    assert len(good) >= 3
    assert [line in sentence for sentence in bad] == [True]
    assert listed.exit_code == 1
    assert f"ward={digest}" in listed.stderr.replace("\n", "")
    assert allowed.exit_code == 0
    assert "ward" in {row["name"] for row in json.loads(allowed.stdout)}


def test_pinning_prints_what_to_allow(tmp_path: Path) -> None:
    """`hybridmed bundles pin` writes digests and self-test, and the setting's line."""
    folder = make_torchscript(tmp_path / "ward").path
    text = (folder / "bundle.toml").read_text()
    digest = load_bundle(folder, allowance=Allowance(("ward",))).algorithm.weights_digest
    (folder / "bundle.toml").write_text(text[: text.index("[self_test]")].replace(digest, ""))

    done = CliRunner().invoke(app, ["bundles", "pin", str(folder)])

    assert done.exit_code == 0, done.output
    assert (folder / "bundle.toml").read_text() == text
    assert f'foreign_bundles = ["ward={digest}"]' in done.output.replace("\n", "")
