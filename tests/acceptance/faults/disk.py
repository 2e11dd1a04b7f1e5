"""A small file system of the harness's own under the data folder, which can run full and become read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_ROOM_MIB = 3072


class Disk:
    """A tmpfs; a context manager around its mount. Needs the right to mount.

    Parameters
    ----------
    folder
        Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_only: list[Path] = []

    @staticmethod
    def can_mount(scratch: Path) -> bool:
        """Say whether this process may mount one."""
        if os.geteuid() != 0:
            return False
        probe = scratch / "mount-probe"
        probe.mkdir()
        try:
            if not _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(probe)):
                return False
            _unmount(probe)
            return True
        finally:
            probe.rmdir()

    def __enter__(self) -> Disk:
        self._folder.mkdir(parents=True)
        if not _mount("-t", "tmpfs", "-o", f"size={_ROOM_MIB}m", "tmpfs", str(self._folder)):
            raise RuntimeError(f"cannot mount a tmpfs on {self._folder}")
        return self

    def __exit__(self, *_exception: object) -> None:
        self.make_writable()
        _unmount(self._folder)

    def shrink(self, free_bytes: int) -> None:
        """Leave so much free."""
        used = shutil.disk_usage(self._folder).used
        _mount("-o", f"remount,size={used + free_bytes}", str(self._folder))

    def grow(self) -> None:
        """Give all the room back."""
        _mount("-o", f"remount,size={_ROOM_MIB}m", str(self._folder))

    def make_read_only(self, name: str) -> None:
        """Let nothing be written in a folder of it, such as 'incoming'."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)  # before the first result there is none
        if not _mount("--bind", str(folder), str(folder)):
            raise RuntimeError(f"cannot make {folder} read-only")
        self._read_only.append(folder)
        _mount("-o", "remount,bind,ro", str(folder))

    def make_writable(self) -> None:
        """Undo `make_read_only`."""
        while self._read_only:
            _unmount(self._read_only.pop())


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, timeout=30, check=False).returncode == 0


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, timeout=30, check=True)
