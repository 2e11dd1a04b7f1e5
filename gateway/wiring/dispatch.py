"""The role 'dispatch', and the router that `reprocess` shares with it."""

from __future__ import annotations

from gateway.config import Settings
from gateway.dispatcher import Dispatcher, DispatchTimes, Router
from gateway.routing import BundleOffer
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.wiring import usable_bundles
from gateway.wiring.queue import build_broker


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Dispatcher:
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
