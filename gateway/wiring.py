"""Builds the real parts from the settings: the one place that knows them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from inference.bundle import Bundle, default_bundle_dir
from inference.bundle import find_bundles as find_bundles_in

from gateway.association import Limits as ReceiveLimits
from gateway.association import Listening, Receiver
from gateway.broker import Broker, EmbeddedBroker
from gateway.config import Settings, load_settings
from gateway.errors import ConfigurationError, DatabaseAwayError
from gateway.rabbitmq import RabbitBroker
from gateway.routing import BundleOffer, check_rules
from gateway.services import Counters, Heartbeat, Role
from gateway.store import Store, open_store, schema

if TYPE_CHECKING:
    pass

log = structlog.get_logger()
_MIB = 1 << 20


def open_settings_store(settings: Settings) -> Store:
    """Open the settings' database without looking at its schema."""
    return open_store(settings.sqlalchemy_url, settings.data_dir)


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


def describe_bundles(settings: Settings) -> tuple[Sequence[str], Sequence[str]]:
    """Return name and version of each bundle, and a sentence for each that does not load."""
    bundles, problems = find_bundles(settings)
    return [f"{bundle.name} {bundle.version}" for bundle in bundles], problems


def bundle_offers(settings: Settings) -> tuple[BundleOffer, ...]:
    """Return what routing may choose from."""
    bundles, problems = find_bundles(settings)
    for problem in problems:
        log.error("bundle.refused", reason=problem)
    return tuple(BundleOffer(bundle.name, bundle.applicability.wants) for bundle in bundles)


def build_broker(settings: Settings, store: Store) -> Broker:
    """Return the RabbitMQ broker where one is set, the embedded one otherwise; nothing connects yet."""
    if settings.broker_url is None:
        return EmbeddedBroker(store)
    return RabbitBroker(settings.broker_url, settings.broker_prefix)


def check_broker(settings: Settings) -> str:
    """Connect to the broker and say what waits there; BrokerAwayError where it does not answer."""
    store = open_settings_store(settings)
    broker = build_broker(settings, store)
    try:
        return f"RabbitMQ answers, {broker.waiting()} messages wait"
    finally:
        broker.close()
        store.close()


def build_role(name: str, settings: Settings) -> Role:
    """Return a role, ready to run: its database checked, its heartbeat around it.

    Raises
    ------
    ConfigurationError
        The settings do not allow this role; no restart helps.
    DatabaseAwayError
        The database does not answer, and the role is not 'receive', which goes on without.
    """
    if settings.auth == "oidc":
        raise ConfigurationError("auth: oidc is not available in this version: set HYBRIDMED_AUTH=token")
    check_rules(settings.rules)
    store = open_settings_store(settings)
    try:
        schema.require_current(store)
    except DatabaseAwayError as error:
        if name != "receive":
            raise
        log.warning("receive.database_away", reason=str(error))
    heartbeat = Heartbeat(store, name, Counters())
    return _Beating(_BUILDERS[name](settings, store, heartbeat), heartbeat, store)


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


def _build_receiver(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    listening = Listening(
        ae_title=settings.ae_title,
        bind=settings.bind,
        port=settings.dicom_port,
        allowed_aes=settings.allowed_aes,
        private_storage_classes=settings.private_storage_classes,
    )
    limits = ReceiveLimits(
        max_associations=settings.max_associations,
        max_pdu_bytes=settings.max_pdu_bytes,
        association_timeout_s=settings.association_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        reserve_bytes=settings.reserve_mib * _MIB,
        max_instance_bytes=settings.max_instance_mib * _MIB,
    )
    return Receiver(store, listening, limits, heartbeat)


_Builder = Callable[[Settings, Store, Heartbeat], Role]
