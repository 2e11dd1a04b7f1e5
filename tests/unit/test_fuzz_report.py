"""A fuzz run that ended goes on from its report."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.fuzz import report
from tests.fuzz.campaign import Findings
from tests.fuzz.report import PartReport, Report
from tests.services.process import HANGS_S


def test_stretches_add_up_and_come_back_from_the_file(tmp_path: Path) -> None:
    """Counts and times are summed, faults kept, of growth the most."""
    file = tmp_path / "report.json"
    first = Findings({"web": Counter({"status 200": 2})}, ["input 1: hang"], {"web": 3.0})
    second = Findings({"web": Counter({"status 200": 1, "closed": 1})}, [], {"web": 2.0})
    told = Report(7, 100, 0, {"http": PartReport().plus(first, 2, 1.5).plus(second, 2, 1.0)})

    told.write(file)
    stood = report.read(file)

    assert stood == told
    assert stood is not None and stood.parts["http"] == PartReport(
        4, 2.5, {"web": {"closed": 1, "status 200": 3}}, {"web": 3.0}, {}, ["input 1: hang"]
    )
    assert report.read(tmp_path / "none.json") is None


def test_a_report_of_another_run_is_left_alone(tmp_path: Path) -> None:
    """Exit code 2, and the file is as it was."""
    file = tmp_path / "report.json"
    Report(7, 100, 0, {"http": PartReport()}).write(file)
    before = file.read_bytes()
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "8", "--inputs", "100", "--part", "http"]
    ended = subprocess.run(
        [*command, "--report", str(file)], capture_output=True, text=True, timeout=HANGS_S, check=False
    )

    assert ended.returncode == 2
    assert "is of another run" in ended.stderr
    assert file.read_bytes() == before
