"""The role 'deliver'."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from gateway.config import Settings
from gateway.delivery import Deliverer, DeliveryLimits, Sending, open_sender
from gateway.delivery.commitments import CommitmentTeller, TellingLimits
from gateway.exchange.deidentified import KeyedPseudonyms, secret_key
from gateway.secure_channel import ClientChannel
from gateway.services import Heartbeat, Role
from gateway.store import Store
from gateway.wiring.exchange import build_notifier, build_pollers, build_trust
from gateway.wiring.together import Together
from gateway.wiring.workitems import build_teller


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Role:
    """Return the deliverer, and beside it what tells subscribers and commitments, and asks a FHIR server."""
    parts = (build_deliverer, build_teller, build_commitment_teller, build_notifier)
    made = [part(settings, store, heartbeat) for part in parts]
    return Together("deliver", [*made, *build_pollers(settings, store, heartbeat)])


def build_deliverer(settings: Settings, store: Store, heartbeat: Heartbeat) -> Deliverer:
    """Return the deliverer of results."""
    return Deliverer(
        store=store,
        heartbeat=heartbeat,
        destinations=settings.destinations,
        ae_title=settings.ae_title,
        open_sender=partial(open_sender, sending=build_sending(settings)),
        limits=DeliveryLimits(
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
        ),
    )


def build_sending(settings: Settings) -> Sending:
    """Return what the ways of sending share."""
    has_pseudonyms = any(each.deidentify for each in settings.destinations)
    return Sending(
        ae_title=settings.ae_title,
        timeout_s=settings.delivery_timeout_s,
        security=ClientChannel(settings.tls, settings.dicom_tls),
        trust=build_trust(settings),
        pseudonyms=KeyedPseudonyms(secret_key(settings.data_dir)) if has_pseudonyms else None,
    )


def build_commitment_teller(settings: Settings, store: Store, heartbeat: Heartbeat) -> CommitmentTeller:
    """Return what tells results of storage commitment over new associations."""
    return CommitmentTeller(
        store=store,
        heartbeat=heartbeat,
        ae_title=settings.ae_title,
        peers=settings.dicom_peers,
        security=ClientChannel(settings.tls, settings.dicom_tls),
        limits=TellingLimits(
            timeout_s=settings.delivery_timeout_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
        ),
    )
