"""Whether the data folder has room, and may be written to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

FOLDERS = (".", "incoming", "instances", "results", "quarantine")
"""Of the data folder: each may be a mount of its own."""
_MIB = 1 << 20


def free_mib(data_dir: Path) -> int:
    """Return the free space in MiB; OSError where the folder cannot be read."""
    return shutil.disk_usage(data_dir).free // _MIB


def read_only_folders(data_dir: Path) -> Sequence[str]:
    """Return the folders on file systems that take no writes, as the kernel makes them after an error of the disk."""
    return [name for name in FOLDERS if _is_read_only(data_dir / name)]


def _is_read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except FileNotFoundError:
        return False
