"""Alerts and dashboards speak of metrics that the program has, and of pages that are there."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deployment import DEPLOY, REPOSITORY, read_yaml

MONITORING = DEPLOY / "monitoring"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
NAME = re.compile(r"hybridmed_[a-z0-9_]+")
SUFFIX = re.compile(r"_(bucket|sum|count|total)$")


@pytest.fixture(scope="module")
def told() -> set[str]:
    """Give the names of metrics that stand in the source, without prefix and the suffix of their kind."""
    named = set()
    for path in (REPOSITORY / "gateway").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= {_stem(name) for name in NAME.findall(text)}
        if path.name == "metrics.py":
            named |= set(re.findall(r'"([a-z_]+)", "[A-Z]', text)) | set(re.findall(r'{_PREFIX}([a-z_]+)"', text))
        if path.name == "role.py":
            named |= {f"{name}" for name in re.findall(r'_count\("([a-z_]+)"', text)}
            named |= {
                name for pair in re.findall(r'"(jobs_[a-z]+)" if \w+ else "(jobs_[a-z]+)"', text) for name in pair
            }
    return named


def test_promtool_takes_rules_and_configuration() -> None:
    """Rules, what a made-up day does to them, and the scrape configuration."""
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is missing (apt: prometheus)"

    for command in (
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "--syntax-only", "../compose/prometheus/prometheus.yml"),
    ):
        ended = subprocess.run([promtool, *command], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_its_page() -> None:
    """The link of each rule leads to a heading of the runbooks, and no page is left over."""
    headings = {
        line[3:].lower() for line in (DEPLOY / "runbooks.md").read_text().splitlines() if line.startswith("## ")
    }
    links = [rule["annotations"]["runbook_url"] for rule in _rules()]

    assert all(link.startswith("deploy/runbooks.md#") for link in links)
    assert {link.partition("#")[2] for link in links} == headings
    assert {rule["alert"].lower() for rule in _rules()} == headings


def test_alerts_ask_for_metrics_that_there_are(told: set[str]) -> None:
    """No rule waits for a name that nobody tells."""
    asked = {_stem(name) for rule in _rules() for name in NAME.findall(rule["expr"])}

    assert asked
    assert asked - told == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_show_metrics_that_there_are(path: Path, told: set[str]) -> None:
    """Every panel has a query, and every query names metrics of the program; panels do not overlap."""
    board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]

    assert all(panel["targets"] for panel in board["panels"])
    assert {_stem(name) for query in queries for name in NAME.findall(query)} - told == set()
    assert len(set(places)) == len(places)


def test_there_are_two_dashboards() -> None:
    """One for operations, one for clinical use."""
    assert [path.stem for path in DASHBOARDS] == ["clinical-use", "operations"]


def _rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(MONITORING / "alerts.yml")["groups"] for rule in group["rules"]]


def _stem(name: str) -> str:
    return SUFFIX.sub("", name.removeprefix("hybridmed_"))
