"""Builds the real parts from the settings: the only place that knows them all.

Here stands what every command needs; `queue.py` and a module for each role load the libraries of theirs, so that
`studies list` starts without pynetdicom and a receiver without highdicom.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
import structlog
from fhir_facade.identity import FILE_NAME
from sqlalchemy.engine import Connection

from gateway import tracing
from gateway.audit.acts import application_activity
from gateway.audit.chain import load_key
from gateway.audit.trail import Trail, record
from gateway.config import Settings, load_settings
from gateway.errors import ConfigurationError, DatabaseAwayError
from gateway.services import Counters, Heartbeat, Role
from gateway.store import Store, installation, open_store, schema
from gateway.store.files import Files
from gateway.store.transitions import OnJob, watch_jobs
from gateway.supervisor import count_restarts, predecessor
from inference.bundle import Bundle, default_bundle_dir
from inference.bundle import find_bundles as find_bundles_in
from inference.foreign.spec import Allowance

log = structlog.get_logger()


def open_settings_store(settings: Settings) -> Store:
    """Open the settings' database without looking at its schema; ConfigurationError names the setting to correct.

    No sentence holds the URL, nor what a library says of it: there may be a password in it.
    """
    try:
        store = open_store(settings.sqlalchemy_url, settings.data_dir, open_files(settings))
    except OSError as error:
        advice = "set HYBRIDMED_DATA_DIR to a folder that this user may write"
        raise ConfigurationError(f"the data folder {settings.data_dir}: {error.strerror}; {advice}") from error
    except ModuleNotFoundError as error:
        advice = "HYBRIDMED_DATABASE_URL takes sqlite:///… and postgresql://…"
        raise ConfigurationError(f"{advice}; the driver {error.name} is not installed") from error
    except (sa.exc.ArgumentError, ValueError) as error:
        raise ConfigurationError("HYBRIDMED_DATABASE_URL is not sqlite:///… or postgresql://…") from error
    _follow_jobs(store)
    return store


def _follow_jobs(store: Store) -> None:
    """Have the Task of each job written with it; what writes it is loaded with the first job that changes."""

    @functools.cache
    def writer() -> OnJob:
        made: OnJob = importlib.import_module("gateway.wiring.tasks").build_task_writer(store)
        return made

    def on_job(connection: Connection, job_id: str, now: datetime, /) -> None:
        writer()(connection, job_id, now)

    watch_jobs(store, on_job)


def open_files(settings: Settings) -> Files:
    """Return where stored files lie; nothing connects yet."""
    if settings.s3.bucket is None:
        return Files(settings.data_dir)
    try:
        from gateway.store.bucket import Bucket  # noqa: PLC0415 # its library is an extra
    except ModuleNotFoundError as missing:
        advice = "pip install 'hybridmed-gateway[grown]'"
        raise ConfigurationError(f"{missing.name} is not installed, which [s3] needs: {advice}") from missing
    return Files(settings.data_dir, Bucket(settings.s3), settings.s3.cache_gib)


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


def allowance(settings: Settings) -> Allowance:
    """Return which foreign bundles may run."""
    return Allowance(settings.foreign_bundles)


def find_bundles(settings: Settings) -> tuple[tuple[Bundle, ...], tuple[str, ...]]:
    """Return the bundles that load, and a sentence for each that does not."""
    bundles, errors = find_bundles_in(bundle_dirs(settings), allowance(settings))
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
    else:
        installation.share(store, store.data_dir / FILE_NAME)
    tracing.configure(settings.tracing, name)
    heartbeat = Heartbeat(store, name, Counters(), predecessor())
    count_restarts(heartbeat.counters)
    role: Role = importlib.import_module(f"gateway.wiring.{name}").build(settings, store, heartbeat)
    trail = Trail(store, load_key(settings.audit.chain_key_file), heartbeat.counters)
    return _Beating(role, heartbeat, store, trail)


class _Beating:
    """A role with its heartbeat and its audit trail around it; closes the store behind it."""

    def __init__(self, role: Role, heartbeat: Heartbeat, store: Store, trail: Trail) -> None:
        self.name = role.name
        self._role = role
        self._heartbeat = heartbeat
        self._store = store
        self._trail = trail

    def run(self, stop: threading.Event) -> None:
        """Run the role; its start and its end stand in the trail."""
        try:
            with self._heartbeat, self._trail:
                record(application_activity(self.name, is_start=True))
                try:
                    self._role.run(stop)
                finally:
                    record(application_activity(self.name, is_start=False))
        finally:
            tracing.close()
            self._store.close()
