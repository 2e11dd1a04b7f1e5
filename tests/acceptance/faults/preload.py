"""Small C libraries that are preloaded into the gateway."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def can_make() -> bool:
    """Say whether there is a C compiler."""
    return shutil.which("cc") is not None


def make(source: Path, folder: Path) -> Path:
    """Compile a library into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder.resolve() / f"{source.stem}.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def env_of(libraries: Sequence[Path]) -> Mapping[str, str]:
    """Return the environment of a program that loads them."""
    return {"LD_PRELOAD": " ".join(map(str, libraries))} if libraries else {}
