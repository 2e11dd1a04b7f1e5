"""Pages for operators and buyers say what the program does, and the commands in them are commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from pydicom.uid import UID

from deploy.check.capacity import Load, arithmetic
from deploy.check.conformance import PAGE, statement
from gateway.cli.app import app
from tests.deployment import DEPLOY, REPOSITORY

PAGES = sorted(DEPLOY.glob("*.md"))


def test_the_conformance_statement_is_what_the_program_negotiates() -> None:
    """The page is the generator's, word for word; it names what every PACS asks for first."""
    page = PAGE.read_text(encoding="utf-8")

    assert page == statement(), "python -m deploy.check.conformance"
    for needed in ("1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.2.2.1", "A700"):
        assert needed in page
    assert [uid for uid in re.findall(r"`([\d.]+)`", page) if not UID(uid).is_valid] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_exist(page: Path) -> None:
    """Every `hybridmed …` names a command, and every path of the repository is there."""
    text = page.read_text(encoding="utf-8")
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined] # a group
    named = set(re.findall(r"(?:^|`|\$ |; )hybridmed ([a-z]+)", text, re.MULTILINE)) - {"deploy"}
    paths = {path.rstrip(".,;:") for path in re.findall(r"(?:deploy|tests)/[\w./-]+", text)}

    assert named - known == set()
    assert [path for path in paths if not (REPOSITORY / path.partition("#")[0]).exists()] == []


def test_capacity_shows_its_arithmetic() -> None:
    """Numbers follow from the inputs: 100 jobs of 36 s in the busiest hour keep one worker busy, and need two."""
    load = Load(studies_per_day=1000, instances_per_study=10, instance_kib=1024, job_s=36, busiest_hour_share=0.1)
    numbers = {need: number for need, _, number in arithmetic(load)}
    command = [sys.executable, "-m", "deploy.check.capacity", "--studies-per-day", "1", "--instances-per-study", "1"]
    ended = subprocess.run(
        [*command, "--instance-kib", "1", "--job-s", "1"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert numbers["busy workers"] == "1.00"
    assert numbers["workers (GPUs)"] == "2"
    assert numbers["files"] == "3704 GiB"
    assert ended.returncode == 0, ended.stderr
