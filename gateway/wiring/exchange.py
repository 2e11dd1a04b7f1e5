"""FHIR with others: what the roles 'web' and 'deliver' need for it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from fhir_facade.demographics import Patients
from fhir_facade.identity import installation_ids
from fhir_facade.polled import Polled
from fhir_facade.server import ExchangeRules
from fhir_facade.subscriptions.notifier import Notifier, NotifierLimits

from gateway.config import Settings
from gateway.config.address import is_loopback
from gateway.exchange.client import HttpClient
from gateway.exchange.endpoint import AllowedEndpoints
from gateway.exchange.poller import Poller, PollLimits
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.tls import Reloading, TlsFiles, client_context


def build_exchange_rules(settings: Settings) -> ExchangeRules:
    """Return what others may have the FHIR server do."""
    return ExchangeRules(allowed_endpoints(settings), settings.exchange.max_subscriptions)


def build_notifier(settings: Settings, store: Store, heartbeat: Heartbeat) -> Notifier:
    """Return what tells subscribers of FHIR resources."""
    exchange = settings.exchange
    return Notifier(
        store=store,
        heartbeat=heartbeat,
        endpoints=allowed_endpoints(settings),
        trust=build_trust(settings),
        limits=NotifierLimits(
            timeout_s=exchange.hook_timeout_s,
            max_failures=exchange.hook_max_failures,
            retry_first=timedelta(seconds=exchange.hook_retry_s),
            retry_limit=timedelta(seconds=exchange.hook_retry_limit_s),
            events_kept=timedelta(days=exchange.hook_events_days),
        ),
    )


def build_pollers(settings: Settings, store: Store, heartbeat: Heartbeat) -> list[Poller]:
    """Return what asks the hospital's FHIR server; none where none is set."""
    exchange, server = settings.exchange, settings.exchange.poll_server
    if server is None:
        return []
    secret = exchange.poll_authorization
    limits = PollLimits(
        every=timedelta(minutes=exchange.poll_minutes),
        overlap=timedelta(seconds=exchange.poll_overlap_s),
        first=timedelta(days=exchange.poll_first_days),
        page=exchange.poll_page,
        pages=exchange.poll_pages,
        retry_first=timedelta(seconds=settings.retry_s),
        retry_limit=timedelta(seconds=settings.retry_limit_s),
    )
    poller = Poller(
        store=store,
        heartbeat=heartbeat,
        server=server,
        client=HttpClient(exchange.poll_timeout_s, exchange.max_answer_mib << 20, build_trust(settings)),
        headers={"Authorization": secret.get_secret_value()} if secret else {},
        types=exchange.poll_types,
        take=Polled(Patients(installation_ids(settings.data_dir)), server.rstrip("/")),
        limits=limits,
    )
    return [poller]


def build_trust(settings: Settings) -> Callable[[], ssl.SSLContext]:
    """Return what gives whom we believe by HTTPS and MLLP over TLS, and who we are."""
    own = None if settings.tls.certificate is None else TlsFiles.of(settings.tls)
    paths = () if own is None else own.paths
    return Reloading(partial(client_context, own, peer_ca=settings.tls.peer_ca), paths, settings.tls.reload_s).current


def allowed_endpoints(settings: Settings) -> AllowedEndpoints:
    """Return which endpoints may be told: this machine alone where nothing is set and nobody else reaches us."""
    hooks = settings.exchange.hooks
    research = [each.url for each in settings.destinations if each.deidentify and each.dicom is None]
    return AllowedEndpoints(hooks, not hooks and is_loopback(settings.bind), research)
