"""What the fault harness leaves of a folder when the power is lost: what was synced, and of the rest only a part."""

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from tests.acceptance.faults import preload
from tests.acceptance.faults.power import Loss, Power

pytestmark = pytest.mark.skipif(not preload.can_make(), reason="no C compiler (cc)")


class Lose(Protocol):
    """Runs a program in the data folder, and loses the power when it has ended."""

    def __call__(self, program: str, swallows: str = "") -> Loss:
        """Return what was lost."""


_SYNC = """
import os
from pathlib import Path
def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder."""
    folder = tmp_path / "data"
    (folder / "incoming").mkdir(parents=True)
    return folder


@pytest.fixture
def lose(tmp_path: Path, data: Path) -> Lose:
    """Return what runs a program and loses the power; `data` is the folder there, and `sync` an fsync by path."""

    def run(program: str, swallows: str = "") -> Loss:
        power = Power(tmp_path / "power", data, swallows)
        env = {**os.environ, **preload.env_of([power.library]), **power.env}
        source = f"{_SYNC}\ndata = Path({str(data.resolve())!r})\n{program}"
        subprocess.run([sys.executable, "-c", source], env=env, check=True, timeout=60)
        return power.lose(random.Random(1))

    return run


def test_a_file_is_cut_to_what_was_synced(lose: Lose, data: Path) -> None:
    """Bytes behind the last fsync are gone or zero; a file that was synced whole stays as it is."""
    loss = lose("""
with (data / "incoming/partly").open("wb", buffering=0) as file:
    file.write(b"first")
    os.fsync(file.fileno())
    file.write(b"second")
(data / "incoming/whole").write_bytes(b"whole")
sync(data / "incoming/whole")
sync(data / "incoming")
""")

    assert loss.cut == [data / "incoming" / "partly"]
    assert (data / "incoming" / "partly").read_bytes() in {b"first", b"first" + bytes(6)}
    assert (data / "incoming" / "whole").read_bytes() == b"whole"


def test_a_name_stays_once_its_folder_was_synced(lose: Lose, data: Path) -> None:
    """Of names made since the folder's last fsync some are gone, or are what they were; those before it all stay."""
    loss = lose("""
for number in range(20):
    file = data / f"incoming/{number}"
    file.write_bytes(b"x")
    sync(file)
sync(data / "incoming")
for number in range(10):
    (data / f"incoming/{number}").rename(data / f"incoming/{number}.new")
for number in range(10, 20):
    os.link(data / f"incoming/{number}", data / f"incoming/{number}.new")
""")
    left = {path.name for path in (data / "incoming").iterdir()}

    assert 0 < len(loss.names) < 20
    assert all(str(number) in left for number in range(10, 20))
    assert all((str(number) in left) != (f"{number}.new" in left) for number in range(10))


def test_a_database_goes_back_to_a_state_since_its_last_sync(lose: Lose, data: Path) -> None:
    """SQLite that syncs each commit loses none of them."""
    lose("""
import sqlite3
connection = sqlite3.connect(data / "hybridmed.db", isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous=FULL")
connection.execute("CREATE TABLE kept (number INTEGER)")
for number in range(30):
    connection.execute("INSERT INTO kept VALUES (?)", [number])
os._exit(0)  # as a killed process ends: nothing is written back
""")

    assert _count(data / "hybridmed.db") == 30


def test_what_is_never_synced_is_lost(lose: Lose, data: Path) -> None:
    """Where the library swallows fsync of some paths, they lose what they hold; others lose nothing."""
    lose(
        """
for name in ("incoming/a", "incoming/b"):
    (data / name).write_bytes(b"content")
    sync(data / name)
    sync(data / "incoming")
""",
        "incoming/a",
    )

    assert (data / "incoming" / "a").read_bytes().strip(b"\0") == b""
    assert (data / "incoming" / "b").read_bytes() == b"content"


def _count(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM kept").fetchone()[0])
