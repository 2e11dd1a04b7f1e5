"""Builds the real parts from the settings: the only place that knows them all.

Here stands what every command needs; `queue.py` and a module for each role load the libraries of theirs, so that
`studies list` starts without pynetdicom and a receiver without highdicom.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog

from gateway.config import Settings, load_settings
from gateway.errors import ConfigurationError, DatabaseAwayError
from gateway.services import Counters, Heartbeat, Role
from gateway.store import Store, open_store, schema
from inference.bundle import Bundle, default_bundle_dir
from inference.bundle import find_bundles as find_bundles_in

log = structlog.get_logger()


def open_settings_store(settings: Settings) -> Store:
    """Open the settings' database without looking at its schema; ConfigurationError names the setting to correct.

    No sentence holds the URL, nor what a library says of it: there may be a password in it.
    """
    try:
        return open_store(settings.sqlalchemy_url, settings.data_dir)
    except OSError as error:
        advice = "set HYBRIDMED_DATA_DIR to a folder that this user may write"
        raise ConfigurationError(f"the data folder {settings.data_dir}: {error.strerror}; {advice}") from error
    except ModuleNotFoundError as error:
        advice = "HYBRIDMED_DATABASE_URL takes sqlite:///… and postgresql://…"
        raise ConfigurationError(f"{advice}; the driver {error.name} is not installed") from error
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigurationError("HYBRIDMED_DATABASE_URL is not sqlite:///… or postgresql://…") from error


@contextmanager
def operator_store() -> Iterator[Store]:
    """Give the store for one command: settings read, schema current."""
    store = open_settings_store(load_settings())
    try:
        schema.require_current(store)
        yield store
    finally:
        store.close()


def bundle_dirs(settings: Settings) -> tuple[Path, ...]:
    """Return the folders of bundles, the one that wins first."""
    own = () if settings.bundle_dir is None else (settings.bundle_dir,)
    return (*own, default_bundle_dir())


def find_bundles(settings: Settings) -> tuple[tuple[Bundle, ...], tuple[str, ...]]:
    """Return the bundles that load, and a sentence for each that does not."""
    bundles, errors = find_bundles_in(bundle_dirs(settings))
    return tuple(bundles), tuple(str(error) for error in errors)


def usable_bundles(settings: Settings) -> tuple[Bundle, ...]:
    """Return the bundles that load; each other one becomes a line in the log."""
    bundles, problems = find_bundles(settings)
    for problem in problems:
        log.error("bundle.refused", reason=problem)
    return bundles


def describe_bundles(settings: Settings) -> tuple[Sequence[str], Sequence[str]]:
    """Return name and version of each bundle, and a sentence for each that does not load."""
    bundles, problems = find_bundles(settings)
    return [f"{bundle.name} {bundle.version}" for bundle in bundles], problems


def build_role(name: str, settings: Settings) -> Role:
    """Return a role, ready to run: its database checked, its heartbeat around it.

    Raises
    ------
    ConfigurationError
        The settings do not allow this role; no restart helps.
    DatabaseAwayError
        The database does not answer, and the role is not 'receive', which goes on without.
    """
    store = open_settings_store(settings)
    try:
        schema.require_current(store)
    except DatabaseAwayError as error:
        if name != "receive":
            raise
        log.warning("receive.database_away", reason=str(error))
    heartbeat = Heartbeat(store, name, Counters())
    role: Role = importlib.import_module(f"gateway.wiring.{name}").build(settings, store, heartbeat)
    return _Beating(role, heartbeat, store)


class _Beating:
    """A role with its heartbeat around it; closes the store behind it."""

    def __init__(self, role: Role, heartbeat: Heartbeat, store: Store) -> None:
        self.name = role.name
        self._role = role
        self._heartbeat = heartbeat
        self._store = store

    def run(self, stop: threading.Event) -> None:
        """Run the role."""
        try:
            with self._heartbeat:
                self._role.run(stop)
        finally:
            self._store.close()
