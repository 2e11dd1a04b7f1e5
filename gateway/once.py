"""A small secret file of an installation, made at its first use."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_once(path: Path, line: str) -> None:
    """Write a file of one line, for its owner alone, whole or not at all.

    Of several processes that start at once, the first one's stays: read the file afterwards.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # made with mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
