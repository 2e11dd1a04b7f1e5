"""The role 'receive'."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from gateway.association import Limits, Listening, Receiver
from gateway.commitment_service import CommitmentService, Committing
from gateway.config import Settings
from gateway.decoding import FrameDecoder
from gateway.dimse_service import DimseService, DirectService
from gateway.query_retrieve import FindService, RetrieveService, Retrieving
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.wiring.workitems import build_steps

_MIB = 1 << 20


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Receiver:
    """Return the Storage SCP, with all services over the same port."""
    listening = Listening(
        ae_title=settings.ae_title,
        bind=settings.bind,
        port=settings.dicom_port,
        allowed_aes=settings.allowed_aes,
        private_storage_classes=settings.private_storage_classes,
    )
    limits = Limits(
        max_associations=settings.max_associations,
        max_pdu_bytes=settings.max_pdu_bytes,
        association_timeout_s=settings.association_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        reserve_bytes=settings.reserve_mib * _MIB,
        max_instance_bytes=settings.max_instance_mib * _MIB,
    )
    return Receiver(store, listening, limits, heartbeat, services(settings, store, heartbeat))


def services(settings: Settings, store: Store, heartbeat: Heartbeat) -> Sequence[DimseService | DirectService]:
    """Return the DIMSE services besides storage."""
    retrieving = Retrieving(
        store=store,
        decoder=FrameDecoder(),
        counters=heartbeat.counters,
        peers=settings.dicom_peers,
        ae_title=settings.ae_title,
        timeout=timedelta(seconds=settings.delivery_timeout_s),
    )
    committing = Committing(
        store=store,
        counters=heartbeat.counters,
        ae_title=settings.ae_title,
        known_peers=frozenset(settings.dicom_peers),
        answer_timeout_s=settings.delivery_timeout_s,
    )
    return [
        FindService(store, settings.ae_title, heartbeat.counters, settings.find_limit),
        RetrieveService(retrieving),
        CommitmentService(committing),
        build_steps(settings, store),
    ]
