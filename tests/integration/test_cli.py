"""The command line as an operator types it: what it prints and with what code it ends."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.doctor import _check_dicomweb, _check_lists
from gateway.errors import ConfigurationError
from gateway.store import Store
from gateway.store.quarantine import QuarantinedFile, add_quarantined
from tests.services.process import free_port
from tests.stores import NOON, add_study
from tests.studies import REPOSITORY, RealData


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Give an empty data folder."""
    return tmp_path / "data"


def hybridmed(data_dir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command on a data folder of its own."""
    settings = {"HYBRIDMED_CONFIG": os.devnull, "HYBRIDMED_DATA_DIR": str(data_dir), "COLUMNS": "200", **env}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env={**os.environ, **settings},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("group", ["studies", "jobs", "dead", "deliveries", "services"])
def test_lists_of_an_empty_gateway_are_empty(data_dir: Path, group: str) -> None:
    """The database is made at the first command, and `--json` prints a list."""
    ended = hybridmed(data_dir, group, "list", "--json")

    assert (ended.returncode, json.loads(ended.stdout)) == (0, []), ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("studies", "show", "1.2.3"), 3, "no study 1.2.3"),
        (("jobs", "show", "nothing"), 3, "no job nothing"),
        (("jobs", "cancel", "nothing"), 3, "no job nothing"),
        (("dead", "retry"), 2, "--all"),
        (("reprocess",), 2, "--modality"),
        (("reprocess", "1.2.3"), 3, "no study 1.2.3"),
        (("reprocess", "1.2.3", "--bundle", "none"), 3, "no bundle none"),
        (("serve", "--only", "cook"), 2, "roles are"),
        (("send", "absent.dcm"), 2, "absent.dcm"),
        (("bundles", "show", "none"), 3, "no bundle none"),
        (("bundles", "verify", "none"), 3, "no bundle none"),
        (("train", "none", "--data", "."), 3, "no bundle none"),
    ],
)
def test_what_is_not_there_or_not_meant_is_said(
    data_dir: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Usage ends with 2, what does not exist with 3, each with a sentence."""
    ended = hybridmed(data_dir, *arguments)

    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_wrong_settings_end_with_2_and_name_the_field(data_dir: Path) -> None:
    """A setting that is no number is named, without a traceback."""
    ended = hybridmed(data_dir, "studies", "list", HYBRIDMED_QUIET_S="soon")

    assert ended.returncode == 2
    assert "quiet_s" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_that_is_away_ends_with_4(data_dir: Path) -> None:
    """The exit code says that a service is away, the sentence which."""
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"

    ended = hybridmed(data_dir, "studies", "list", HYBRIDMED_DATABASE_URL=url)

    assert ended.returncode == 4, ended.stderr
    assert "database" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_another_database_wants_the_upgrade_by_command(data_dir: Path, postgres_url: str) -> None:
    """On PostgreSQL nothing migrates by itself: the sentence names the command, and the command does it."""
    before = hybridmed(data_dir, "studies", "list", HYBRIDMED_DATABASE_URL=postgres_url)
    upgraded = hybridmed(data_dir, "db", "upgrade", HYBRIDMED_DATABASE_URL=postgres_url)
    after = hybridmed(data_dir, "studies", "list", HYBRIDMED_DATABASE_URL=postgres_url)

    assert (before.returncode, upgraded.returncode, after.returncode) == (1, 0, 0), before.stderr + after.stderr
    assert "hybridmed db upgrade" in before.stderr


def test_doctor_names_what_is_away_and_what_to_do(data_dir: Path) -> None:
    """A broker and a destination that do not answer are failures with advice; a database that works is none."""
    ended = hybridmed(
        data_dir,
        "doctor",
        "--json",
        HYBRIDMED_BROKER_URL=f"amqp://user:secret-word@127.0.0.1:{free_port()}/",
        HYBRIDMED_DESTINATIONS=f"PACS=NOBODY@127.0.0.1:{free_port()}",
        HYBRIDMED_RESERVE_MIB="1",
    )

    checks = {check["part"]: check for check in json.loads(ended.stdout)}
    assert ended.returncode == 1
    assert checks["database (sqlite)"]["verdict"] == "warning"  # empty as yet: the first start makes it
    assert "db upgrade" in checks["database (sqlite)"]["advice"]
    assert checks["data folder"]["verdict"] == "ok"
    assert checks["broker"]["verdict"] == "failed"
    assert checks["destination PACS"]["verdict"] == "failed"
    assert all(check["advice"] for check in checks.values() if check["verdict"] != "ok")
    assert "secret-word" not in ended.stdout + ended.stderr


def test_doctor_names_a_data_folder_that_cannot_be_made(data_dir: Path) -> None:
    """A file where the folder should be is a failed check that names the setting; other commands end with 2."""
    data_dir.write_text("a file")
    environment = {"HYBRIDMED_CONFIG": os.devnull, "HYBRIDMED_DATA_DIR": str(data_dir)}

    examined = CliRunner().invoke(app, ["doctor", "--json"], env=environment)
    listed = CliRunner().invoke(app, ["studies", "list"], env=environment)

    (check,) = json.loads(examined.stdout)
    assert (examined.exit_code, check["verdict"]) == (1, "failed")
    assert "HYBRIDMED_DATA_DIR" in check["found"]
    assert isinstance(listed.exception, ConfigurationError)


def test_doctor_counts_the_files_that_could_not_be_indexed(sqlite_store: Store) -> None:
    """Files in quarantine were answered with success: doctor says how many wait for somebody."""
    with sqlite_store.write() as connection:
        add_quarantined(connection, QuarantinedFile("quarantine/a1_1.dcm", 1, "no pixels", "CT1", NOON))

    checks = {check.part: check for check in _check_lists(sqlite_store)}

    assert checks["quarantine"].verdict == "warning"
    assert checks["quarantine"].found.startswith("1 files")


def test_a_named_study_without_a_job_ends_reprocess_with_1(sqlite_store: Store) -> None:
    """A study that is still arriving gets no job: the reason is printed, and the exit code says so."""
    with sqlite_store.write() as connection:
        add_study(connection, "1.2.3", state="receiving")
    environment = {"HYBRIDMED_CONFIG": os.devnull, "HYBRIDMED_DATA_DIR": str(sqlite_store.data_dir)}

    ended = CliRunner().invoke(app, ["reprocess", "1.2.3", "--json"], env=environment)

    assert ended.exit_code == 1
    assert "still arriving" in json.loads(ended.stdout)[0]["reason"]


def test_sending_to_nobody_ends_with_4(data_dir: Path, real_data: RealData) -> None:
    """A peer that does not answer is a service away."""
    ended = hybridmed(data_dir, "send", str(real_data.cxr[0]), "--to", f"NOBODY@127.0.0.1:{free_port()}")

    assert ended.returncode == 4, ended.stderr
    assert "NOBODY" in ended.stderr


def test_the_shipped_bundle_is_listed_and_verified(data_dir: Path) -> None:
    """Schema and digest of what ships are good, and its figures and intended use can be read."""
    listed = hybridmed(data_dir, "bundles", "list", "--json")
    verified = hybridmed(data_dir, "bundles", "verify")
    shown = hybridmed(data_dir, "bundles", "show", "cxr-pneumonia", "--json")

    assert "cxr-pneumonia" in [bundle["name"] for bundle in json.loads(listed.stdout)]
    assert verified.returncode == 0, verified.stderr
    assert "not a medical device" in json.loads(shown.stdout)["intended_use"].lower()
    assert json.loads(shown.stdout)["evaluation"]


def test_a_bundle_with_other_weights_is_refused_and_the_others_work(data_dir: Path, tmp_path: Path) -> None:
    """A changed weights file is named by `verify`, with exit code 1; the shipped bundle still verifies."""
    shipped = REPOSITORY / "inference" / "bundles" / "cxr-pneumonia"
    broken = tmp_path / "bundles" / "broken"
    broken.mkdir(parents=True)
    (broken / "bundle.toml").write_text((shipped / "bundle.toml").read_text().replace("cxr-pneumonia", "broken"))
    (broken / "weights.safetensors").write_bytes(b"not the weights")

    ended = hybridmed(data_dir, "bundles", "verify", HYBRIDMED_BUNDLE_DIR=str(tmp_path / "bundles"))

    assert ended.returncode == 1
    assert "good cxr-pneumonia" in ended.stdout
    assert "broken" in ended.stderr


def test_doctor_asks_a_dicomweb_destination_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As deliveries do: a proxy of the environment that does not answer changes nothing."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    with HTTPServer(("127.0.0.1", 0), _Empty) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        check = _check_dicomweb("destination WEB", f"http://127.0.0.1:{server.server_port}/dicom-web")

    assert check.verdict == "ok", check.found


class _Empty(BaseHTTPRequestHandler):
    """Answers every GET with 204."""

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""
