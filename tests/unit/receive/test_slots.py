"""Limits over several processes."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.receive.slots import SharedTurns, Slots
from tests.services.process import HANGS_S

_OTHER = """
import sys
from pathlib import Path
from gateway.receive.slots import Slots
slots = Slots(Path(sys.argv[1]), 104, 3)
print(sum(slots.take(number, *sys.argv[2:]) for number in range(3)), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("address", [[], ["10.0.0.1"]], ids=["everybody", "an address"])
def test_the_limit_holds_over_processes_and_a_killed_one_gives_back(tmp_path: Path, address: list[str]) -> None:
    """One place is taken here, so another process gets two of three; once it is killed, all are free again."""
    slots = Slots(tmp_path, 104, 3)
    assert slots.take("first", *address)
    assert slots.take("first", *address), "it has its place already"

    command = [sys.executable, "-c", _OTHER, str(tmp_path), *address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        is_full = not slots.take("second", *address)
        other.kill()

    assert taken == 2
    assert is_full
    assert slots.take("second", *address)
    assert slots.take("third", *address)
    assert not slots.take("fourth", *address)
    slots.give_back("first")
    assert slots.take("fourth", *address)
    slots.close()


def test_an_ae_title_has_places_of_its_own(tmp_path: Path) -> None:
    """Whatever stands in the title; nobody else's places are taken by it."""
    everybody, one, other = (Slots(tmp_path, 104, 1, title) for title in ("", "A/../B", "A"))

    assert [slots.take("first") for slots in (everybody, one, other)] == [True] * 3
    assert not one.take("second")
    for slots in (everybody, one, other):
        slots.close()


def test_an_address_has_places_of_its_own(tmp_path: Path) -> None:
    """Who borrows a title at another address takes none of its owner's places."""
    here = Slots(tmp_path, 104, 1, "CT1")

    assert here.take("borrowed", "10.0.0.9")
    assert here.take("own", "10.0.0.1")
    assert here.take("no address")
    assert not here.take("second of its own", "10.0.0.1")
    here.give_back("own")
    assert here.take("second of its own", "10.0.0.1")
    here.close()


def test_processes_share_the_turns_of_an_ae_title(tmp_path: Path) -> None:
    """Two processes and two threads take 60 turns: each has its own, one gap apart."""
    command = [sys.executable, "-c", _TURNS, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = [float(line) for process in processes for line in process.communicate(timeout=HANGS_S)[0].split()]
    (last,) = [SharedTurns(tmp_path, 104, "CT1").take(100.0, 0.5)]

    turns = sorted([*taken, last])
    assert len(taken) == 60
    assert turns == [turns[0] + 0.5 * number for number in range(61)]


def test_a_disk_that_fails_holds_up_nobody(tmp_path: Path) -> None:
    """The file is a folder, so that even root cannot open it: whoever writes instances tells of the disk."""
    turns = SharedTurns(tmp_path, 104, "CT1")
    (tmp_path / "incoming" / f".turns_{socket.gethostname()}_104_435431").mkdir()

    assert [turns.take(100.0, 0.5) for _ in range(3)] == [100.0] * 3


_TURNS = """
import sys, threading
from pathlib import Path
from gateway.receive.slots import SharedTurns
turns = SharedTurns(Path(sys.argv[1]), 104, "CT1")
def take():
    for _ in range(15):
        sys.stdout.write(f"{turns.take(100.0, 0.5)}\\n")  # whole lines: print writes text and end apart
threads = [threading.Thread(target=take) for _ in range(2)]
for each in threads: each.start()
for each in threads: each.join()
"""
