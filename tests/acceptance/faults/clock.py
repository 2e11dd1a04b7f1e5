"""The gateway's time of day, set ahead and back while it runs: by a small library that is preloaded into it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.faults import preload

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """What the time of day is off by.

    Parameters
    ----------
    folder
        Where library and file go.
    """

    def __init__(self, folder: Path) -> None:
        self.library = preload.make(_SOURCE, folder)
        """What is preloaded."""
        self._file = folder / "clock"
        self.set(0)

    @property
    def env(self) -> Mapping[str, str]:
        """Of a program that is to tell this time."""
        return {"TEST_CLOCK_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """Let it be so many seconds off from now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))
