"""Workitems: what the roles 'receive' and 'web' serve, and 'deliver' tells of."""

from __future__ import annotations

import ipaddress
from datetime import timedelta

from gateway.config import Settings
from gateway.secure_channel import ClientChannel
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.wiring.dispatch import build_router
from gateway.workitem.dimse import UnifiedProcedureSteps
from gateway.workitem.mapping import Origin
from gateway.workitem.service import Workitems
from gateway.workitem.subscribing import Subscribing
from gateway.workitem.teller import Teller, TellerLimits
from gateway.workitem.worklist import Worklist


def build_worklist(settings: Settings, store: Store) -> Worklist:
    """Return what UPS-RS serves."""
    workitems = Workitems(store, build_router(settings, store), settings.workitem_lease_s)
    return Worklist(workitems, Subscribing(store, settings.identified_peers), settings.ae_title)


def build_steps(settings: Settings, store: Store) -> UnifiedProcedureSteps:
    """Return the SOP classes of Unified Procedure Step."""
    worklist = build_worklist(settings, store)
    origin = Origin(settings.ae_title, _dicomweb_url(settings))
    return UnifiedProcedureSteps(worklist.workitems, worklist.subscribing, origin)


def build_teller(settings: Settings, store: Store, heartbeat: Heartbeat) -> Teller:
    """Return what tells subscribers by N-EVENT-REPORT."""
    limits = TellerLimits(
        timeout_s=settings.delivery_timeout_s,
        retry_first=timedelta(seconds=settings.retry_s),
        retry_limit=timedelta(seconds=settings.retry_limit_s),
    )
    return Teller(
        store,
        heartbeat,
        settings.ae_title,
        settings.identified_peers,
        limits,
        ClientChannel(settings.tls, settings.dicom_tls),
    )


def _dicomweb_url(settings: Settings) -> str | None:
    """Return the address of DICOMweb as we know it; None where we listen on every address."""
    if settings.site.public_url is not None:
        return f"{settings.site.public_url}/dicomweb"
    host, scheme = settings.bind, "https" if settings.tls.is_on_http else "http"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{scheme}://{host}:{settings.http_port}/dicomweb"
    if address.is_unspecified:
        return None
    shown = f"[{host}]" if address.version == 6 else host  # noqa: PLR2004 # IPv6
    return f"{scheme}://{shown}:{settings.http_port}/dicomweb"
