"""What becomes of a quarantined file: back to `incoming/`, where a receiver finds it, or away for good."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import structlog

from gateway.errors import GatewayError, NotFoundError
from gateway.spool import DiskLimits, Spool, sync_folder
from gateway.store import Store
from gateway.store.quarantine import is_quarantined, remove_quarantined

log = structlog.get_logger()


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
    source = _listed(store, path)
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


def discard(store: Store, path: str) -> None:
    """Remove a file and take it from the list; a repeated call after a kill is harmless.

    Parameters
    ----------
    path
        As listed: relative to the data folder.

    Raises
    ------
    NotFoundError
        No such file is listed.
    GatewayError
        The file could not be removed; it is listed as before.
    """
    source = _listed(store, path)
    try:
        source.unlink(missing_ok=True)  # before the row: what is listed may be gone, what lies there is always listed
        sync_folder(source.parent)
    except OSError as error:
        raise GatewayError(f"it cannot be removed: {error.strerror}") from error
    with store.write() as connection:
        remove_quarantined(connection, path)
    log.warning("quarantine.discarded", path=path)


def _listed(store: Store, path: str) -> Path:
    """Return where a listed file lies; NotFoundError where no such file is listed."""
    with store.read() as connection:
        if not is_quarantined(connection, path):
            raise NotFoundError(f"no quarantined file {path}")
    return store.data_dir / path
