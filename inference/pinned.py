"""A file of a bundle with the digest that is declared for it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from inference.errors import BundleError
from inference.table import Table

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Pinned(NamedTuple):
    """A file, and the SHA-256 that it had when it was checked."""

    path: Path
    digest: str


def pinned_file(entry: Table, folder: Path, key: str = "file", digest_key: str = "sha256") -> Pinned:
    """Return a file that a table names and its SHA-256, which must be the one that is declared.

    Raises
    ------
    BundleError
        The file is missing, lies outside the bundle's folder or has another digest; names file and field.
    """
    declared = entry.get(digest_key, str)
    if not _SHA256.fullmatch(declared):
        raise entry.wrong(digest_key, "must be 64 lower-case hexadecimal digits")
    file = folder / entry.get(key, str)
    if not file.resolve().is_relative_to(folder.resolve()):
        raise entry.wrong(key, "must lie in the bundle's folder")
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise entry.wrong(key, f"cannot be read: {error}") from error
    if found != declared:
        raise entry.wrong(digest_key, f"{file.name} has the digest {found}")
    return Pinned(file, found)


def read_pinned(file: Path, digest: str) -> bytes:
    """Return a file's bytes; BundleError where it was changed since its digest was checked."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{file}: was changed after it was checked; restart the service to check it anew")
    return content
