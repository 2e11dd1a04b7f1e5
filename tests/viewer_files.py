"""OHIF for the tests: its package fetched once into `build/viewer`, then used from there."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

from gateway.viewer import fetch_package, install, viewer_installed

FOLDER = Path(__file__).resolve().parent.parent / "build" / "viewer"


def obtain() -> Path:
    """Install the viewer unless it is there, and return the folder to serve it from; of two test runs, one waits.

    Raises
    ------
    GatewayError
        npm is missing, or could not fetch the package.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not viewer_installed(FOLDER):
            with tempfile.TemporaryDirectory() as scratch:
                install(fetch_package(Path(scratch)), FOLDER)
    return FOLDER
