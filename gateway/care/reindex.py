"""Instances that lie on disk and stand in no row: a database that was set back forgets what came since.

A failover to a replica that lagged, `synchronous_commit` switched off, a dump that was brought back: the senders were
answered with success, so they send nothing again, and the files are all that is left.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from gateway.errors import GatewayError
from gateway.spool import DiskLimits, Spool, sync_folder
from gateway.store import Store
from gateway.store.tables import instance, removal

_FIRST_DIGITS = "0123456789abcdef"
"""Of digests: so many passes, so that a sixteenth of them is in memory at a time."""


def unindexed(store: Store) -> Iterator[Path]:
    """Yield the instances on this host's disk that no row names, each with its whole path.

    Left out is what is being indexed at this moment, which has a second name in `incoming/`, and what is to be removed.

    Raises
    ------
    DatabaseAwayError
        The database does not answer.
    """
    folders = sorted((store.data_dir / "instances").glob("[0-9a-f][0-9a-f]"))
    for digit in _FIRST_DIGITS:
        # The disk first: what is indexed between the two looks has a row by the second.
        found = [file for folder in folders if folder.name[0] == digit for file in _alone(folder)]
        if not found:
            continue
        with store.read() as connection:
            rows = connection.scalars(sa.select(instance.c.digest).where(instance.c.digest.like(f"{digit}%")))
            known = {bytes.fromhex(digest) for digest in rows}
            going = set(connection.scalars(sa.select(removal.c.path).where(removal.c.path.like(f"instances/{digit}%"))))
        for file in found:
            if bytes.fromhex(file.stem) not in known and str(file.relative_to(store.data_dir)) not in going:
                yield file


def put_back(store: Store, files: list[Path]) -> None:
    """Hand files to the receiver, which reads and indexes them as it does what a dead process left.

    A repeated call is harmless; no bytes are copied.

    Raises
    ------
    GatewayError
        A file could not be given a name in `incoming/`.
    """
    if not files:
        return
    source = uuid.uuid4()
    with Spool(store.data_dir, str(uuid.uuid4()), DiskLimits(reserve_bytes=0, max_instance_bytes=0)) as spool:
        try:
            for number, file in enumerate(files, start=1):
                (spool.folder / f"{source}_{number}_{file.stem}.dcm").hardlink_to(file)
            sync_folder(spool.folder)
        except OSError as error:
            raise GatewayError(f"the files cannot be handed to the receiver: {error.strerror}") from error


def _alone(folder: Path) -> Iterator[Path]:
    """Yield the files that have no other name."""
    for file in sorted(folder.glob("*.dcm")):
        try:
            bytes.fromhex(file.stem)
            if file.stat().st_nlink == 1:
                yield file
        except (ValueError, FileNotFoundError):
            continue  # not one of ours, or removed meanwhile
