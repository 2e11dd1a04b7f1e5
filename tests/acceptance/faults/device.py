"""The device of a worker, which fails on order: `hook/sitecustomize.py`, in the worker, obeys at its next inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Order = Literal["lose", "hang", "stick"]
"""Nothing but CUDA errors from now on; never return; never return nor let any other thread have a turn."""


class Device:
    """Orders for the workers of one gateway.

    Parameters
    ----------
    file
        Where orders lie, the process id added.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def env(self) -> Mapping[str, str]:
        """Of a program whose workers obey."""
        return {"PYTHONPATH": str(Path(__file__).with_name("hook")), "TEST_DEVICE_FILE": str(self._file)}

    def order(self, pid: int, what: Order) -> None:
        """Let a worker's device fail."""
        whole = self._file.with_name(f"{self._file.name}.{pid}.part")
        whole.write_text(what)
        whole.rename(whole.with_suffix(""))
