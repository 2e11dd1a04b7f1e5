"""Bundles that are bad: each is refused with a sentence that says what is wrong, and its neighbours work on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.config import Settings
from gateway.job import State
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.services import list_services
from gateway.wiring.models import Models
from gateway.wiring.work import build
from inference.bundle import BUNDLE_FILE
from inference.errors import BundleError
from tests.foreign_bundles import make_onnx
from tests.services.process import HANGS_S
from tests.studies import REPOSITORY, RealData
from tests.training import make_tiny
from tests.working import add_job, eventually, job_of, running, take_in

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from gateway.cli.app import app
app(["bundles", "verify"])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tiny bundle that nobody may change."""
    return make_tiny(tmp_path_factory.mktemp("made") / "tiny", "good")


@pytest.fixture
def bundles(made: Path, tmp_path: Path) -> Path:
    """Give a folder with a good bundle, and 'ward' to be spoilt."""
    shutil.copytree(made, tmp_path / "bundles" / "good")
    shutil.copytree(made, tmp_path / "bundles" / "ward")
    _edit(tmp_path / "bundles" / "ward", '^name = "good"', 'name = "ward"')
    return tmp_path / "bundles"


def _edit(folder: Path, pattern: str, text: str) -> None:
    file = folder / BUNDLE_FILE
    changed, count = re.subn(pattern, text, file.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count, pattern
    file.write_text(changed, encoding="utf-8")


def _expect_other_answers(folder: Path) -> None:
    _edit(folder, r"^expected = \[[-0-9.e]+", "expected = [100.0")


def _change_weights(folder: Path) -> None:
    with (folder / "weights.safetensors").open("ab") as weights:
        weights.write(b"\0")


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "backbone": (
        lambda folder: _edit(folder, '^backbone = "resnet10"', 'backbone = "resnet19"'),
        r"bundle\.toml: network\.backbone: 'resnet19' is none of resnet10, resnet18",
    ),
    "inputs": (
        lambda folder: _edit(folder, r"^\[network\]", "[network]\ninputs = 2"),
        r"bundle\.toml: network\.inputs: must be 1, is 2: \[input\] gives one image",
    ),
    "digest": (_change_weights, r"weights\.sha256: weights\.safetensors has the digest"),
    "shape": (
        lambda folder: _edit(folder, "^channels = 8", "channels = 16"),
        r"weights\.safetensors: does not fit the network of bundle\.toml: size mismatch for [^\n]* in all\)",
    ),
    "size": (
        lambda folder: _edit(folder, "^size = 64", "size = 1"),
        r"weights\.safetensors: cannot evaluate a made-up input: ",
    ),
    "self-test": (_expect_other_answers, r"self_test\.expected: the network's answer is .* off, at most .* is allowed"),
    "guards": (
        lambda folder: _edit(folder, "^least_confidence = .*$", ""),
        r"bundle\.toml: thresholds\.least_confidence: is missing",
    ),
}


@pytest.fixture
def _configured(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "absent.toml"))
    monkeypatch.setenv("HYBRIDMED_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HYBRIDMED_BUNDLE_DIR", str(bundles))
    monkeypatch.setenv("HYBRIDMED_DEVICE", "cpu")


@pytest.mark.usefixtures("_configured")
@pytest.mark.parametrize("kind", BAD)
def test_verify_refuses_a_bad_bundle_and_shows_the_good_ones(bundles: Path, kind: str) -> None:
    """Exit code 1 and the sentence; the neighbour is good."""
    spoil, sentence = BAD[kind]
    spoil(bundles / "ward")

    ended = CliRunner().invoke(app, ["bundles", "verify", "good", "ward"])

    assert ended.exit_code == 1
    assert re.match(rf"refused: \S*/ward/.*{sentence}[^\n]*\n\Z", ended.stderr)
    assert [line.split()[:2] for line in ended.stdout.splitlines()] == [["good", "good"]]


@pytest.mark.usefixtures("_configured")
def test_verify_opens_what_it_is_asked_for_alone(bundles: Path) -> None:
    """A bundle that does not open is no matter while another is named."""
    _expect_other_answers(bundles / "ward")

    good, bad = (CliRunner().invoke(app, ["bundles", "verify", name]) for name in ("good", "ward"))

    assert (good.exit_code, good.stdout.split()[:2]) == (0, ["good", "good"])
    assert (bad.exit_code, bad.stdout) == (1, "")


@pytest.mark.usefixtures("_configured")
def test_verify_opens_a_foreign_bundle_that_is_allowed(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the operator's leave its network is not run; with it, its self-test is."""
    foreign = make_onnx(bundles / "elsewhere")
    _expect_other_answers(foreign.path)

    refused = CliRunner().invoke(app, ["bundles", "verify", "ward"])
    monkeypatch.setenv("HYBRIDMED_FOREIGN_BUNDLES", foreign.name)
    opened = CliRunner().invoke(app, ["bundles", "verify", foreign.name])

    assert "serves only where the operator allows it" in refused.stderr
    assert opened.exit_code == 1
    assert re.search(BAD["self-test"][1], opened.stderr)


def test_without_torch_verify_says_what_it_did_not_check(bundles: Path, tmp_path: Path) -> None:
    """Schema and digests are checked on every host; that no network was run stands beside it."""
    _expect_other_answers(bundles / "ward")
    environment = {
        **os.environ,
        "HYBRIDMED_CONFIG": str(tmp_path / "absent.toml"),
        "HYBRIDMED_DATA_DIR": str(tmp_path / "data"),
        "HYBRIDMED_BUNDLE_DIR": str(bundles),
    }

    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=HANGS_S, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "good ward" in done.stdout
    assert "torch is not installed: schema and digests are checked, no network is run" in done.stderr


def _settings(store: Store, bundles: Path) -> Settings:
    return Settings(
        data_dir=store.data_dir,
        database_url=store.engine.url.render_as_string(hide_password=False),
        bundle_dir=bundles,
        device="cpu",
    )


def _troubles(store: Store, heartbeat: Heartbeat) -> str:
    """Return what the worker's heartbeat says is not as it should be."""
    heartbeat.beat_now()
    with store.read() as connection:
        (service,) = list_services(connection, datetime.now(UTC) - timedelta(minutes=1))
    return service.reason or ""


def test_a_worker_refuses_a_bad_bundle_and_works_on(sqlite_store: Store, real_data: RealData, bundles: Path) -> None:
    """Its jobs end on the dead list with the sentence, read once; corrected, it takes jobs again without a restart."""
    correct = (bundles / "ward" / BUNDLE_FILE).read_text(encoding="utf-8")
    _expect_other_answers(bundles / "ward")
    uid = take_in(sqlite_store, real_data.cxr[0])
    heartbeat = Heartbeat(sqlite_store, "work", Counters())

    def finished(bundle: str) -> tuple[State, str]:
        job_id = add_job(sqlite_store, uid, bundle=bundle)
        eventually(lambda: job_of(sqlite_store, job_id).state in {State.DONE, State.DEAD}, f"a job of {bundle}")
        job = job_of(sqlite_store, job_id)
        return State(job.state), job.reason or ""

    with capture_logs() as lines, running(build(_settings(sqlite_store, bundles), sqlite_store, heartbeat)):
        eventually(lambda: "bundle ward: " in _troubles(sqlite_store, heartbeat), "the bundle is bad before any job")
        jobs = [finished("ward"), finished("good"), finished("ward")]
        before = _troubles(sqlite_store, heartbeat)
        (bundles / "ward" / BUNDLE_FILE).write_text(correct, encoding="utf-8")
        corrected = finished("ward")
        after = _troubles(sqlite_store, heartbeat)

    assert [state for state, _ in jobs] == [State.DEAD, State.DONE, State.DEAD]
    assert all(re.match(rf"BundleError: .*ward/.*{BAD['self-test'][1]}$", jobs[index][1]) for index in (0, 2))
    assert re.search(rf"^bundle ward: .*{BAD['self-test'][1]}$", before)
    assert [line["event"] for line in lines].count("bundle.refused") == 1
    assert (corrected[0], after) == (State.DONE, "")


def test_a_bundle_that_was_refused_when_the_worker_began_is_told_to_its_jobs(
    sqlite_store: Store, bundles: Path
) -> None:
    """It lies in the folder of its name: neither 'not installed', nor refused for ever once it is corrected."""
    correct = (bundles / "ward" / BUNDLE_FILE).read_text(encoding="utf-8")
    BAD["backbone"][0](bundles / "ward")
    models = Models(_settings(sqlite_store, bundles), Heartbeat(sqlite_store, "work", Counters()), None)

    for _ in range(2):
        with pytest.raises(BundleError, match=BAD["backbone"][1]):
            models.find("ward")
    (bundles / "ward" / BUNDLE_FILE).write_text(correct, encoding="utf-8")
    corrected = models.find("ward")

    assert corrected is not None and corrected.algorithm.name == "ward"
    assert models.find("nowhere") is None


def test_a_worker_opens_no_program_before_its_first_study(sqlite_store: Store, bundles: Path) -> None:
    """What a network from elsewhere does to the process counts as a try of its job."""
    foreign = make_onnx(bundles / "elsewhere")
    settings = _settings(sqlite_store, bundles).model_copy(update={"foreign_bundles": (foreign.name,)})

    models = Models(settings, Heartbeat(sqlite_store, "work", Counters()), None)

    assert set(models.opened_early) == {"ct-lung", "cxr-pneumonia", "good", "mr-hippocampus", "ward"}
    assert models.find(foreign.name) is not None
