"""`make audit` never says that all is well where nothing was asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

from deploy.check.vulnerabilities import NONE_KNOWN, NOT_CHECKED, SOME_KNOWN, judge
from tests.services.process import HANGS_S

HARMLESS = {"name": "good", "version": "1", "vulns": []}
HARMFUL = {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"], "aliases": ["CVE-1"]}]}
SKIPPED = {"name": "odd", "skip_reason": "Dependency not found"}


def told(*packages: object) -> tuple[int, list[str]]:
    """Judge what was printed of packages."""
    return judge(json.dumps({"dependencies": packages, "fixes": []}), "")


def test_what_is_known_is_told_with_the_version_that_mends_it() -> None:
    """And the exit status is 1, whatever was skipped."""
    status, lines = told(HARMLESS, HARMFUL, SKIPPED)

    assert status == SOME_KNOWN
    assert lines[0] == "bad 2: PYSEC-1 CVE-1, mended in 3"


def test_a_package_that_was_skipped_is_not_called_safe() -> None:
    """pip-audit itself ends with 0 and 'No known vulnerabilities found' then."""
    assert told(HARMLESS) == (NONE_KNOWN, ["audit: no vulnerability of the 1 packages is known"])
    status, lines = told(HARMLESS, SKIPPED)

    assert status == NOT_CHECKED
    assert "1 of 2 packages were not checked" in lines[0]


def test_without_internet_it_says_that_nothing_was_checked(tmp_path: Path) -> None:
    """The real program, behind a proxy that is not there."""
    file = tmp_path / "pinned.txt"
    file.write_text("hl7==0.4.5\n")
    nowhere = {name: "http://127.0.0.1:9" for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")}
    command = [sys.executable, "-m", "deploy.check.vulnerabilities", str(file)]
    ended = subprocess.run(
        command, env=os.environ | nowhere, capture_output=True, text=True, timeout=HANGS_S, check=False
    )

    assert ended.returncode == NOT_CHECKED
    assert "not" in ended.stdout and "checked" in ended.stdout and "internet" in ended.stdout
