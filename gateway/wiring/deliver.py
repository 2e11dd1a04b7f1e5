"""The role 'deliver'."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from gateway.config import Settings
from gateway.delivery import Deliverer, DeliveryLimits, open_sender
from gateway.delivery.commitments import CommitmentTeller, TellingLimits
from gateway.services import Heartbeat, Role
from gateway.store import Store
from gateway.wiring.together import Together
from gateway.wiring.workitems import build_teller


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    """Return the deliverer, and beside it what tells subscribers of workitems, and results of storage commitment."""
    parts = (build_deliverer, build_teller, build_commitment_teller)
    return Together("deliver", [part(settings, store, heartbeat) for part in parts])


def build_deliverer(settings: Settings, store: Store, heartbeat: Heartbeat) -> Deliverer:
    """Return the deliverer of results."""
    return Deliverer(
        store=store,
        heartbeat=heartbeat,
        destinations=settings.destinations,
        open_sender=partial(open_sender, ae_title=settings.ae_title, timeout_s=settings.delivery_timeout_s),
        limits=DeliveryLimits(
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
        ),
    )


def build_commitment_teller(settings: Settings, store: Store, heartbeat: Heartbeat) -> CommitmentTeller:
    """Return what tells results of storage commitment over new associations."""
    return CommitmentTeller(
        store=store,
        heartbeat=heartbeat,
        ae_title=settings.ae_title,
        peers=settings.dicom_peers,
        limits=TellingLimits(
            timeout_s=settings.delivery_timeout_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
        ),
    )
