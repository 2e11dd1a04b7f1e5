"""A quarantined file goes back to `incoming/`, where a receiver finds it as it finds what a dead process left."""

from __future__ import annotations

from uuid import uuid4

from gateway.errors import GatewayError, NotFoundError
from gateway.spool import DiskLimits, Spool, sync_folder
from gateway.store import Store
from gateway.store.quarantine import is_quarantined, remove_quarantined


def put_back(store: Store, path: str) -> None:
    """Move a file back for indexing and take it from the list; a repeated call after a kill is harmless.

    The folder's lock is held until the row is gone, so that no receiver can quarantine the file anew in between. A kill
    before that leaves the file in `incoming/`, where a receiver finds it, and the row, which the next call removes.

    Parameters
    ----------
    path
        As listed: relative to the data folder.

    Raises
    ------
    NotFoundError
        No such file is listed.
    GatewayError
        The file could not be moved; it is where it was.
    """
    with store.read() as connection:
        if not is_quarantined(connection, path):
            raise NotFoundError(f"no quarantined file {path}")
    source = store.data_dir / path
    with Spool(store.data_dir, str(uuid4()), DiskLimits(reserve_bytes=0, max_instance_bytes=0)) as spool:
        try:
            source.rename(spool.folder / source.name)
        except FileNotFoundError:
            pass  # moved by a call that ended before it took the row away
        except OSError as error:
            raise GatewayError(f"it cannot be moved: {error.strerror}") from error
        else:
            sync_folder(spool.folder)
            sync_folder(source.parent)
        with store.write() as connection:
            remove_quarantined(connection, path)
