"""What every way of compressing a bundle is given: where the new one is made, and what it is made of."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from inference.bundle import BUNDLE_FILE, Bundle
from inference.errors import BundleError
from inference.foreign.spec import Allowance
from inference.training.figures import OF_THE_WEIGHTS, drop_table, write_table
from inference.training.progress import Progress
from inference.training.run import write_self_test

_NAME_LINE = re.compile(r"^name\s*=.*$", re.MULTILINE)
_CHECKPOINTS = "checkpoint-*.pt"


@dataclass(frozen=True, slots=True)
class Work:
    """One bundle in the making."""

    bundle: Bundle
    """The original."""
    folder: Path
    """Of the new one; its name becomes the bundle's."""
    data_dir: Path
    device: str
    report: Callable[[Progress], None]
    _asked: list[Path] = field(default_factory=list, init=False)
    """Checkpoints of this one."""

    @property
    def weights(self) -> Path:
        """The new weights file."""
        return self.folder / self.bundle.weights_path.name

    @property
    def allowance(self) -> Allowance:
        """The new one alone: its graphs, where it holds some, were written here."""
        return Allowance((self.folder.name,))

    def checkpoint(self, *settings: object) -> Path:
        """Return where learning with these settings is kept, so that other settings never go on from it."""
        key = json.dumps([self.bundle.algorithm.weights_digest, *settings], default=str)
        file = self.folder.parent / _CHECKPOINTS.replace("*", hashlib.sha256(key.encode()).hexdigest()[:12])
        self._asked.append(file)
        return file

    def forget(self) -> None:
        """Remove the checkpoint, for what was learnt is kept or refused; those of other settings stay."""
        for file in self._asked:
            file.unlink(missing_ok=True)

    def describe(self, encoding: str, network: Mapping[str, object] | None = None) -> None:
        """Write bundle.toml: the original's with name, weights, network and self-test of the new one."""
        file = self.folder / BUNDLE_FILE
        text = (self.bundle.path / BUNDLE_FILE).read_text(encoding="utf-8")
        # The first: TOML has the bundle's own name above every table.
        file.write_text(_NAME_LINE.sub(f'name = "{self.folder.name}"', text, count=1), encoding="utf-8")
        for table in OF_THE_WEIGHTS:
            drop_table(file, table)
        if network is not None:
            write_table(file, "network", network)
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        write_table(file, "weights", {"file": self.weights.name, "encoding": encoding, "sha256": digest})
        write_self_test(self.folder, self.allowance)


class Method(Protocol):
    """A way to make a bundle smaller or faster."""

    @property
    def suffix(self) -> str:
        """What the new bundle's name ends with."""

    @property
    def title(self) -> str:
        """What it is called in the table of the result."""

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError where it cannot be done to the bundle, before anything is begun."""

    def write(self, work: Work) -> None:
        """Write the new weights and bundle.toml."""


@contextmanager
def staging(out_dir: Path, name: str) -> Iterator[Path]:
    """Give the empty folder `name` in a hidden one of `out_dir`, a level too deep to be found as a bundle.

    Afterwards all of it is removed, unless a checkpoint lies beside: then a run that was cut off goes on from it.

    Raises
    ------
    BundleError
        Another run is making the same bundle.
    """
    missing = [folder for folder in (out_dir, *out_dir.parents) if not folder.exists()]
    hidden = out_dir / f".compress-{name}"
    with _locked(hidden):
        made = hidden / name
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
            if not any(hidden.glob(_CHECKPOINTS)):
                gone = hidden.rename(hidden.with_name(f"{hidden.name}.{os.getpid()}"))  # at once, with its lock
                shutil.rmtree(gone)
                _remove_empty(missing)


@contextmanager
def _locked(hidden: Path) -> Iterator[None]:
    """Hold the lock in a folder, which is made where it is missing; its holder may remove both.

    Whoever has opened a lock that is removed before it is his holds one that nobody else will see: he opens it anew.
    """
    file = hidden / "lock"
    while True:
        hidden.mkdir(parents=True, exist_ok=True)
        with file.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BundleError(f"{hidden}: another run is making this bundle") from error
            if file.exists() and os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                yield
                return


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if not any(folder.iterdir()):
            folder.rmdir()
