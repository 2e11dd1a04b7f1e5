"""The role 'web'."""

from __future__ import annotations

from functools import partial

from fhir_facade.app import create_app as create_fhir_app
from fhir_facade.reindex import start_reindex

from gateway.config import Settings
from gateway.receive.contexts import storage_classes
from gateway.services import Heartbeat, Role
from gateway.store import Store
from gateway.viewer import installed_folder
from gateway.web.app import HttpParts, create_app
from gateway.web.dicomweb.preparing import Preparing
from gateway.web.intake import ReceivingRole, StowIntake, StowLimits, Taken, known_transfer_syntaxes
from gateway.web.rendering import Site
from gateway.web.role import WebRole
from gateway.wiring.access import build_access, build_front, build_security
from gateway.wiring.actions import build_doing
from gateway.wiring.exchange import build_exchange_rules
from gateway.wiring.queue import check_broker
from gateway.wiring.together import Together
from gateway.wiring.workitems import build_worklist

_MIB = 1 << 20


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    """Return the HTTP server with FHIR mounted, and what it needs to take instances around it."""
    intake = build_intake(settings, store, heartbeat)
    start_reindex(store, None)
    parts = HttpParts(
        store=store,
        fhir=create_fhir_app(store, exchange=build_exchange_rules(settings), security=build_security(settings)),
        access=build_access(settings),
        counters=heartbeat.counters,
        reserve_bytes=settings.reserve_mib * _MIB,
        broker_check=partial(check_broker, settings) if settings.broker_url else None,
        viewer_dir=settings.viewer_folder,
        site=describe_site(settings),
        worklist=build_worklist(settings, store),
        doing=build_doing(settings, store),
        intake=intake,
    )
    role = WebRole(
        create_app(parts),
        bind=settings.bind,
        port=settings.http_port,
        closing=parts.closing,
        front=build_front(settings),
    )
    return Together("web", [ReceivingRole(role, intake), Preparing(store)])


def build_intake(settings: Settings, store: Store, heartbeat: Heartbeat) -> StowIntake:
    """Return what takes instances by STOW-RS, within the bounds that hold for C-STORE."""
    limits = StowLimits(
        reserve_bytes=settings.reserve_mib * _MIB,
        max_instance_bytes=settings.max_instance_mib * _MIB,
        timeout_s=settings.association_timeout_s,
    )
    taken = Taken(
        ae_title=settings.ae_title,
        storage_classes=storage_classes() | set(settings.private_storage_classes),
        transfer_syntaxes=known_transfer_syntaxes(),
    )
    return StowIntake(store, heartbeat, limits, taken)


def describe_site(settings: Settings) -> Site:
    """Return what the pages say of this installation."""
    return Site(
        ae_title=settings.ae_title,
        dicom_port=settings.dicom_port,
        shows=settings.worklist_shows,
        viewer_page=installed_folder(settings.viewer_folder) / "index.html",
        destinations=tuple(destination.name for destination in settings.destinations),
    )
