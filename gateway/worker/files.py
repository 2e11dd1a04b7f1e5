"""Result files: written once, synced, with the digest in the name; those that no row names are removed at start."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.spool import sync_folder
from gateway.store import Store
from gateway.store.results import settled_files

FOLDER = "results"
_SUFFIXES = {"application/dicom": ".dcm", "image/png": ".png", "text/html": ".html", "application/pdf": ".pdf"}
_FORBIDDEN = re.compile(r"[^A-Za-z0-9-]+")
_DIGEST_DIGITS = 16
_JOBS_PER_QUERY = 500
_PROBE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that is on disk for good."""

    path: str
    """Relative to the data folder."""
    digest: str
    """SHA-256."""
    size_bytes: int


def make_folder(data_dir: Path, job_id: str) -> Path:
    """Make the folder of a job's results, so that its name outlives a power cut."""
    folder = data_dir / FOLDER / job_id
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
    sync_folder(data_dir)
    return folder


def write_result(folder: Path, kind: str, ordinal: int, media_type: str, content: bytes) -> WrittenFile:
    """Write `<kind>-<ordinal>-<digest>.<suffix>` into a job's folder and sync it.

    The same content gives the same file; other content never overwrites it.
    """
    digest = hashlib.sha256(content).hexdigest()
    stem = _FORBIDDEN.sub("-", kind)
    path = folder / f"{stem}-{ordinal}-{digest[:_DIGEST_DIGITS]}{_SUFFIXES[media_type]}"
    partial = folder / f"{uuid.uuid4().hex}.part"
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(folder)
    return WrittenFile(f"{FOLDER}/{folder.name}/{path.name}", digest, len(content))


def probe(data_dir: Path) -> None:
    """Write as much as results take, and remove it; OSError where that is not possible."""
    folder = data_dir / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f".probe-{uuid.uuid4().hex}"
    try:
        path.write_bytes(bytes(_PROBE_BYTES))
    finally:
        path.unlink(missing_ok=True)


def remove_unused(store: Store, older_than_s: float = 3600.0) -> int:
    """Remove result files that no row names and that lie for a while, of jobs that neither wait nor run.

    They are left by workers that were killed or lost their lease between writing and committing.

    Returns
    -------
    int
        How many files were removed.
    """
    root = store.data_dir / FOLDER
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    before = time.time() - older_than_s
    chunks = [folders[start : start + _JOBS_PER_QUERY] for start in range(0, len(folders), _JOBS_PER_QUERY)]
    return sum(_remove_unused_of(store, chunk, before) for chunk in chunks)


def _remove_unused_of(store: Store, folders: Sequence[Path], before: float) -> int:
    with store.read() as connection:
        settled = settled_files(connection, [folder.name for folder in folders])
    removed = 0
    for folder in folders:
        if folder.name not in settled:
            continue
        for path in folder.iterdir():
            is_named = path.relative_to(store.data_dir).as_posix() in settled[folder.name]
            if not is_named and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                removed += 1
    return removed
