"""No patient's name leaves by a traceback: what the logs tell of an error is its class and its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "Doe^Jane"

FAILING_THREAD = f"""
import logging, sys, threading, warnings
from pathlib import Path
import sqlalchemy as sa
import structlog
from gateway.log import configure_logging
from gateway.store import open_store
from gateway.store.engine import insert_ignore

configure_logging(sys.argv[1], role="receive")
store = open_store(f"sqlite:///{{sys.argv[2]}}/x.db", Path(sys.argv[2]))
table = sa.Table("patient", sa.MetaData(), *(sa.Column(key, sa.String, unique=True) for key in ("id", "name")))
with store.write() as connection:
    table.create(connection)
    insert_ignore(connection, table, [{{"id": "1", "name": "{NAME}"}}], keys=["id"])

def insert():
    with store.write() as connection:
        insert_ignore(connection, table, [{{"id": "2", "name": "{NAME}"}}], keys=["id"])

def work():
    try:
        insert()
    except sa.exc.IntegrityError:
        structlog.get_logger().exception("role.caught")
        logging.getLogger("library").exception("library caught")
        logging.getLogger("library").error("too many %s", "arguments", "{NAME}")
        logging.getLogger("uvicorn.error").exception("{NAME}")
    warnings.warn("odd value {NAME}")
    raise ValueError("cannot read {NAME}")

thread = threading.Thread(target=work, name="role")
thread.start()
thread.join()
raise KeyError("{NAME}")
"""

FAILING_WEB = """
import sys
from pathlib import Path
from gateway.log import configure_logging
from gateway.services import Counters
from gateway.store import open_store
from gateway.store.schema import upgrade
from gateway.web.app import HttpParts, create_app
from gateway.web.auth import Access
from fhir_facade.app import create_app as create_fhir_app
from tests.unit.web.serving import served

folder = Path(sys.argv[2])
store = open_store(f"sqlite:///{folder}/x.db", folder)
upgrade(store)
configure_logging(sys.argv[1], role="web")
store.read = lambda: int(sys.argv[3])  # what a library does with a value that it cannot read: it quotes it
app = create_app(HttpParts(store, create_fhir_app(store), Access("none"), Counters(), 0))
statuses = []
for path in ("/fhir/Patient", "/metrics"):
    with served(app) as client:  # of its own for each: the server hangs up after an error
        statuses.append(client.get(path, params={"name": sys.argv[3]}).status_code)
print(statuses)
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_failing_thread_tells_class_and_place(tmp_path: Path, log_format: str) -> None:
    """Caught or not, in a thread or not, ours or a library's: classes and places are told, the name is not."""
    ended = _run(FAILING_THREAD, log_format, str(tmp_path))

    assert ended.returncode == 1
    assert NAME not in ended.stderr
    assert ended.stderr.count("IntegrityError") == 2
    assert "thread.failed" in ended.stderr
    assert "ValueError" in ended.stderr
    assert "program.failed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_lines_for_machines_name_the_error_under_keys_of_their_own(tmp_path: Path) -> None:
    """In JSON the class stands under `error` and the line of our own code under `place`."""
    ended = _run(FAILING_THREAD, "json", str(tmp_path))
    lines = {line["event"]: line for line in map(json.loads, ended.stderr.splitlines())}

    assert lines["role.caught"]["error"] == lines["library caught"]["error"] == "IntegrityError"
    assert lines["role.caught"]["place"].startswith("gateway/store/engine.py:")
    assert lines["thread.failed"]["thread"] == "role"
    assert lines["program.failed"]["error"] == "KeyError"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_failing_request_tells_class_and_place(tmp_path: Path, log_format: str) -> None:
    """A request that fails with the searched name in the error's message: answered with 500, and the name unlogged."""
    ended = _run(FAILING_WEB, log_format, str(tmp_path), NAME)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[500, 500]"
    assert NAME not in ended.stderr
    assert "fhir.failed" in ended.stderr
    assert "web.failed" in ended.stderr
    assert "ValueError" in ended.stderr
    assert "fhir_facade/" in ended.stderr
    assert "Traceback" not in ended.stderr
