"""Builds the real parts from the settings: the one place that knows them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gateway.association import Limits as ReceiveLimits
from gateway.association import Listening, Receiver
from gateway.broker import Broker, EmbeddedBroker
from gateway.config import Destination, Settings, load_settings
from gateway.delivery import Deliverer, DeliveryLimits, Sender, open_sender
from gateway.dispatcher import Dispatcher, DispatchTimes, Router
from gateway.errors import ConfigurationError, DatabaseAwayError
from gateway.rabbitmq import RabbitBroker
from gateway.routing import BundleOffer
from gateway.services import Counters, Heartbeat, Role
from gateway.store import Store, open_store, schema
from inference.bundle import Bundle, default_bundle_dir
from inference.bundle import find_bundles as find_bundles_in
from inference.errors import InferenceError

if TYPE_CHECKING:
    from gateway.worker.model import FindModel
    from inference.findings import Outcome
    from inference.predict import Predictor

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


def build_router(settings: Settings, store: Store) -> Router:
    """Return the routing of the settings' rules over the bundles installed."""
    names = [destination.name for destination in settings.destinations]
    return Router(store, settings.rules, bundle_offers(settings), names)


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


def _build_dispatcher(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    return Dispatcher(
        store,
        build_broker(settings, store),
        build_router(settings, store),
        heartbeat.counters,
        max_attempts=settings.max_attempts,
        times=DispatchTimes(quiet_s=settings.quiet_s),
    )


def _build_worker(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    find_model = _model_finder(settings)
    # Imported here: rendering brings highdicom, which the other roles need not load.
    from fhir_facade.identity import installation_ids  # noqa: PLC0415
    from fhir_facade.render import FhirRenderer  # noqa: PLC0415

    from gateway.report.picture import render_pictures  # noqa: PLC0415
    from gateway.report.render import render_outcome  # noqa: PLC0415
    from gateway.worker import Limits, Renderers, Worker  # noqa: PLC0415

    return Worker(
        store=store,
        broker=build_broker(settings, store),
        heartbeat=heartbeat,
        find_model=find_model,
        renderers=Renderers(render_outcome, render_pictures, FhirRenderer(installation_ids(store.data_dir))),
        destinations=settings.destinations,
        limits=Limits(
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
        ),
    )


def _model_finder(settings: Settings) -> FindModel:
    """Return what gives the model of a bundle, loaded at its first job and kept.

    Raises
    ------
    ConfigurationError
        torch is not installed here, or the device that is set is not there.
    """
    try:
        from inference.predict import Predictor, resolve_device  # noqa: PLC0415 torch is optional: the worker alone
    except ModuleNotFoundError as error:
        advice = "pip install -c constraints.txt 'hybridmed-gateway[inference]', or serve without the role work"
        raise ConfigurationError(f"{error.name} is not installed: {advice}") from error
    try:
        device = resolve_device(settings.device)
    except InferenceError as error:
        raise ConfigurationError(f"HYBRIDMED_DEVICE: {error}") from error
    bundles, problems = find_bundles(settings)
    for problem in problems:
        log.error("bundle.refused", reason=problem)
    by_name = {bundle.name: bundle for bundle in bundles}
    loaded: dict[str, _BundleModel] = {}

    def find(name: str) -> _BundleModel | None:
        if name in by_name and name not in loaded:
            loaded[name] = _BundleModel(by_name[name], Predictor(by_name[name], str(device)))
        return loaded.get(name)

    return find


class _BundleModel:
    """A bundle and its predictor as the worker's `Model`."""

    def __init__(self, bundle: Bundle, predictor: Predictor) -> None:
        self.algorithm = bundle.algorithm
        self.wants = bundle.applicability.wants
        self._predictor = predictor

    def prepare(self, series: Sequence[Sequence[Path]], /) -> Callable[[], Sequence[Outcome]]:
        """Read and transform; the call infers."""
        return partial(self._predictor.run, self._predictor.prepare(series))


def _build_deliverer(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    def sender(destination: Destination) -> Sender:
        return open_sender(destination, ae_title=settings.ae_title, timeout_s=settings.delivery_timeout_s)

    return Deliverer(
        store=store,
        heartbeat=heartbeat,
        destinations=settings.destinations,
        open_sender=sender,
        limits=DeliveryLimits(
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
        ),
    )


def _build_web(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    # Imported here: the other roles serve no HTTP.
    from fhir_facade.app import create_app as create_fhir_app  # noqa: PLC0415

    from gateway.web.app import HttpParts, create_app  # noqa: PLC0415
    from gateway.web.auth import Access  # noqa: PLC0415
    from gateway.web.role import WebRole  # noqa: PLC0415

    parts = HttpParts(
        store=store,
        fhir=create_fhir_app(store),
        access=Access(mode=settings.auth, token_digests=settings.tokens),
        counters=heartbeat.counters,
        reserve_bytes=settings.reserve_mib * _MIB,
        broker_check=partial(check_broker, settings) if settings.broker_url else None,
    )
    return WebRole(create_app(parts), bind=settings.bind, port=settings.http_port)


_BUILDERS: Mapping[str, Callable[[Settings, Store, Heartbeat], Role]] = {
    "receive": _build_receiver,
    "dispatch": _build_dispatcher,
    "work": _build_worker,
    "deliver": _build_deliverer,
    "web": _build_web,
}
