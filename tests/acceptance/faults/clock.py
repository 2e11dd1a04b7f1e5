"""The gateway's time of day, set ahead and back while it runs: by a small library that is preloaded into it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """What the time of day is off by.

    Parameters
    ----------
    folder
        Where library and file go.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._library, self._file = folder / "clock.so", folder / "clock"
        self.set(0)
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)

    @staticmethod
    def can_make() -> bool:
        """Say whether there is a C compiler."""
        return shutil.which("cc") is not None

    @property
    def env(self) -> Mapping[str, str]:
        """Of a program that is to tell this time."""
        return {"LD_PRELOAD": str(self._library), "TEST_CLOCK_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """Let it be so many seconds off from now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))
