"""The limit of associations over several processes."""

import subprocess
import sys
from pathlib import Path

from gateway.receive.slots import Slots

_OTHER = """
import sys
from pathlib import Path
from gateway.receive.slots import Slots
slots = Slots(Path(sys.argv[1]), 104, 3)
print(sum(slots.take(number) for number in range(3)), flush=True)
sys.stdin.read()
"""


def test_the_limit_holds_over_processes_and_a_killed_one_gives_back(tmp_path: Path) -> None:
    """One place is taken here, so another process gets two of three; once it is killed, all are free again."""
    slots = Slots(tmp_path, 104, 3)
    assert slots.take("first")
    assert slots.take("first"), "it has its place already"

    command = [sys.executable, "-c", _OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        is_full = not slots.take("second")
        other.kill()

    assert taken == 2
    assert is_full
    assert slots.take("second")
    assert slots.take("third")
    assert not slots.take("fourth")
    slots.give_back("first")
    assert slots.take("fourth")
    slots.close()
