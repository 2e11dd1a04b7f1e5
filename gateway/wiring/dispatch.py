"""The role 'dispatch', and the router that `reprocess` shares with it."""

from __future__ import annotations

import gateway.wiring.tasks  # noqa: F401 # loaded now: the first job shall not wait for it inside its transaction
from gateway.config import Settings
from gateway.dispatcher import Dispatcher, DispatchTimes, Router
from gateway.retention.purge import Purge
from gateway.retention.role import Keeper
from gateway.routing import BundleOffer
from gateway.services import Heartbeat, Role
from gateway.store import Store
from gateway.wiring import usable_bundles
from gateway.wiring.audit import chain_key
from gateway.wiring.audit_keepers import build_keepers
from gateway.wiring.queue import build_broker
from gateway.wiring.together import Together


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    """Return the dispatcher, and beside it what follows from the audit trail."""
    keepers = build_keepers(settings, store, heartbeat)
    parts = [build_dispatcher(settings, store, heartbeat), *keepers, build_retention(settings, store, heartbeat)]
    return Together("dispatch", parts)


def build_retention(settings: Settings, store: Store, heartbeat: Heartbeat) -> Keeper:
    """Return what removes studies that have had their time."""
    rules = settings.retention
    return Keeper(Purge(store, rules, chain_key(settings)), heartbeat, rules.every_s if rules.enabled else None)


def build_dispatcher(settings: Settings, store: Store, heartbeat: Heartbeat) -> Dispatcher:
    """Return the dispatcher."""
    return Dispatcher(
        store,
        build_broker(settings, store),
        build_router(settings, store),
        heartbeat,
        max_attempts=settings.max_attempts,
        times=DispatchTimes(quiet_s=settings.quiet_s),
    )


def build_router(settings: Settings, store: Store) -> Router:
    """Return the routing of the settings' rules over the bundles installed."""
    names = [destination.name for destination in settings.destinations]
    offers = [BundleOffer(bundle.name, bundle.applicability.wants) for bundle in usable_bundles(settings)]
    return Router(store, settings.rules, offers, names)
