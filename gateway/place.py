"""Where an error arose, for logs: a file and a line, and never what the error says."""

from __future__ import annotations

import traceback
from pathlib import Path

_OWN = frozenset({"gateway", "inference", "fhir_facade"})


def place(error: BaseException) -> str:
    """Return the innermost line of our own code that the error passed through, else of any."""
    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, line in reversed(frames):
        module = str(frame.f_globals.get("__name__", "")).split(".")
        if module[0] in _OWN:
            path = Path(frame.f_code.co_filename)
            depth = len(module) + (path.name == "__init__.py")
            return f"{'/'.join(path.parts[-depth:])}:{line}"
    return f"{Path(frames[-1][0].f_code.co_filename).name}:{frames[-1][1]}" if frames else "an unknown place"
