"""What a loss of power leaves on the disk: what the gateway made durable, and of the rest only a part.

The model is what POSIX promises and no more, so every file system that keeps POSIX is covered:

- Of a file the bytes up to its size at its last fsync (or fdatasync) are there; those behind are cut off or zero. Our
  files are written once, so a size says all. sync_file_range promises nothing and counts as nothing.
- A name is there once its folder was synced after it was made; before that it is there or not, each by itself. ext4
  is kinder: it keeps the names of a file that was synced, and loses names only in the order of their making.
- A name that was removed stays removed. (What comes back there is indexed once more, as after a kill.)
- SQLite writes over what it wrote: its database and its write-ahead log go back to their last sync, or to any state
  between that and the last write, in the order of the writes.

`power.c` is preloaded into the gateway and writes down what is needed for this.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.faults import preload

_SOURCE = Path(__file__).with_name("power.c")
_FOLDERS = ("incoming", "instances", "results", "quarantine")
_DATABASES = ("hybridmed.db", "hybridmed.db-wal")
_UNDO = struct.Struct("=qqq")
"""Offset, size of the file before, bytes that were there."""


@dataclass(frozen=True)
class Loss:
    """What a loss of power took."""

    cut: list[Path] = field(default_factory=list)
    """Files that lost bytes."""
    names: list[Path] = field(default_factory=list)
    """That are gone."""
    undone: int = 0
    """Writes of the database."""


@dataclass(frozen=True)
class _Made:
    """A name that is not durable."""

    at_ns: int
    before: Path | None
    """What it was called when that was durable; None where it was not there."""


class Power:
    """Writes down what is durable in a folder, and takes the rest.

    Parameters
    ----------
    home
        Where library and journal go; on another file system than the folder.
    folder
        The data folder of the gateway.
    swallows
        Paths that hold it are never made durable; '' none.
    """

    def __init__(self, home: Path, folder: Path, swallows: str = "") -> None:
        self.library = preload.make(_SOURCE, home)
        """What is preloaded."""
        self._home, self._folder, self._swallows = home.resolve(), folder.resolve(), swallows
        self._journal = self._home / "journal"

    @property
    def env(self) -> Mapping[str, str]:
        """Of a program whose writes are followed."""
        swallows = {"TEST_POWER_SWALLOWS": self._swallows} if self._swallows else {}
        return {"TEST_POWER_FOLDER": str(self._folder), "TEST_POWER_HOME": str(self._home), **swallows}

    def lose(self, dice: random.Random) -> Loss:
        """Take what was not durable; no process of the gateway may run."""
        journal = _Journal(self._journal, self._folder)
        names = [path for path in journal.not_durable() if dice.random() < 1 / 2 and _take_name(path, journal)]
        cut = [path for path in self._files() if _cut(path, journal.durable_size(path), dice)]
        undone = sum(self._undo(self._folder / name, dice) for name in _DATABASES)
        self._journal.unlink(missing_ok=True)
        for undo in self._home.glob("undo.*"):
            undo.unlink()
        return Loss(cut, names, undone)

    def _files(self) -> Iterator[Path]:
        for name in _FOLDERS:
            yield from (path for path in sorted((self._folder / name).rglob("*")) if path.is_file())

    def _undo(self, path: Path, dice: random.Random) -> int:
        """Take back the last writes of a database, those after its last sync at the most; return how many."""
        if not path.is_file():
            return 0
        kept = self._home / f"undo.{path.stat().st_ino}"
        writes = list(_read_undo(kept)) if kept.is_file() else []
        taken = writes[dice.randint(0, len(writes)) :]
        with path.open("r+b") as file:
            for offset, size_before, content in reversed(taken):
                file.seek(offset)
                file.write(content)
                file.truncate(size_before)
        return len(taken)


class _Journal:
    """What is durable, read from the lines of the library."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[int, int] = {}
        """Inode -> how many of its bytes are durable; all where it is not named: it stood there before."""
        self._names: dict[Path, _Made] = {}
        self._synced_of_day_ns = 0
        for line in path.read_text().splitlines() if path.is_file() else ():
            what, _, rest = line.partition(" ")
            getattr(self, f"_read_{what}")(rest)

    def not_durable(self) -> list[Path]:
        """Return the names that may be lost, what lies in a folder before the folder."""
        ours = (path for path in self._names if path.relative_to(self._folder).parts[0] in _FOLDERS)
        return sorted(ours, key=lambda path: (-len(path.parts), path))

    def before(self, path: Path) -> Path | None:
        """Return what a name was when that was durable."""
        return self._names[path].before

    def durable_size(self, path: Path) -> int:
        """Return how many bytes of a file are durable."""
        facts = path.stat()
        if facts.st_mtime_ns < self._synced_of_day_ns:
            return facts.st_size
        return self._sizes.get(facts.st_ino, facts.st_size)

    def _read_made(self, rest: str) -> None:
        inode, at_ns, path = rest.split(" ", 2)
        self._sizes[int(inode)] = 0
        self._names[Path(path)] = _Made(int(at_ns), None)

    def _read_linked(self, rest: str) -> None:
        at_ns, path = rest.split(" ", 1)
        self._names[Path(path)] = _Made(int(at_ns), None)

    def _read_renamed(self, rest: str) -> None:
        at_ns, paths = rest.split(" ", 1)
        old, new = map(Path, paths.split("\t"))
        made = self._names.pop(old, None)
        self._names = {_moved(path, old, new): each for path, each in self._names.items()}
        self._names[new] = _Made(int(at_ns), old if made is None else made.before)

    def _read_gone(self, rest: str) -> None:
        self._names.pop(Path(rest), None)

    def _read_synced(self, rest: str) -> None:
        inode, size = rest.split()
        self._sizes[int(inode)] = max(int(size), self._sizes.get(int(inode), 0))

    def _read_folder(self, rest: str) -> None:
        began_ns, folder = rest.split(" ", 1)
        self._forget(int(began_ns), Path(folder))

    def _read_all(self, rest: str) -> None:
        began_ns, self._synced_of_day_ns = map(int, rest.split())
        self._forget(began_ns, None)

    def _forget(self, began_ns: int, folder: Path | None) -> None:
        """Forget the names, of one folder or of all, that were made before a sync began: they are durable."""
        kept = {}
        for path, made in self._names.items():
            is_synced = made.at_ns < began_ns and folder in (None, path.parent)
            if not is_synced:
                kept[path] = made
        self._names = kept


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old) if path.is_relative_to(old) else path


def _take_name(path: Path, journal: _Journal) -> bool:
    """Take a name, or give back the one before; say whether there was something to take."""
    if not path.exists():
        return False
    before = journal.before(path)
    if before is not None and before.parent.is_dir():
        path.rename(before)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return True


def _cut(path: Path, durable_bytes: int, dice: random.Random) -> bool:
    """Take what lies behind the durable bytes of a file: it ends there, or zero bytes follow."""
    size = path.stat().st_size
    if size <= durable_bytes:
        return False
    os.truncate(path, durable_bytes)
    if dice.random() < 1 / 2:
        os.truncate(path, size)
    return True


def _read_undo(kept: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield offset, size before and content before of each write since the last sync."""
    with kept.open("rb") as file:
        while head := file.read(_UNDO.size):
            offset, size_before, length = _UNDO.unpack(head)
            yield offset, size_before, file.read(length)
