"""The role 'receive'."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial

from gateway.admission import Admission
from gateway.association import Limits, Listening, Receiver
from gateway.commitment_service import CommitmentService, Committing
from gateway.config import Settings
from gateway.config.peers import Right
from gateway.decoding import FrameDecoder
from gateway.dimse_service import DimseService, DirectService
from gateway.query_retrieve import FindService, RetrieveService, Retrieving
from gateway.receive.contexts import storage_classes
from gateway.receive.slots import SharedTurns
from gateway.secure_channel import ClientChannel, SecureChannel
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.wiring.workitems import build_steps
from gateway.workitem.dimse import UnifiedProcedureSteps

_MIB = 1 << 20


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Receiver:
    """Return the Storage SCP, with all services over the same port."""
    listening = Listening(
        ae_title=settings.ae_title,
        bind=settings.bind,
        port=settings.dicom_port,
        allowed_aes=settings.calling_aes,
        private_storage_classes=settings.private_storage_classes,
        path=settings.receive_path,
        processes=settings.receive_processes,
        secure_port=settings.dicom_tls.port if settings.dicom_tls.enabled else None,
        is_plain=settings.dicom_tls.plain,
    )
    limits = Limits(
        max_associations=settings.max_associations,
        max_pdu_bytes=settings.max_pdu_bytes,
        association_timeout_s=settings.association_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        reserve_bytes=settings.reserve_mib * _MIB,
        max_instance_bytes=settings.max_instance_mib * _MIB,
    )
    served = services(settings, store, heartbeat)
    channel = (
        SecureChannel(settings.tls, settings.dicom_tls, heartbeat.counters) if settings.dicom_tls.enabled else None
    )
    return Receiver(store, listening, limits, heartbeat, served, build_admission(settings, served), channel)


def build_admission(settings: Settings, served: Sequence[DimseService | DirectService]) -> Admission:
    """Return who may associate, and what each right opens."""
    of_service: dict[type[object], Right] = {
        FindService: "query",
        RetrieveService: "retrieve",
        CommitmentService: "commit",
        UnifiedProcedureSteps: "workitem",
    }
    classes: dict[Right, Collection[str]] = {of_service[type(one)]: set(one.contexts) for one in served}
    classes["store"] = storage_classes() | set(settings.private_storage_classes)
    admission = partial(
        Admission,
        settings.calling_peers,
        settings.dicom_tls.certificates,
        classes,
        without_patient=settings.research_aes,
    )
    if settings.receive_processes == 1:
        return admission()
    return admission(turns=partial(SharedTurns, settings.data_dir, settings.dicom_port))


def services(settings: Settings, store: Store, heartbeat: Heartbeat) -> Sequence[DimseService | DirectService]:
    """Return the DIMSE services besides storage."""
    retrieving = Retrieving(
        store=store,
        decoder=FrameDecoder(),
        counters=heartbeat.counters,
        peers=settings.identified_peers,
        research_aes=settings.research_aes,
        ae_title=settings.ae_title,
        timeout=timedelta(seconds=settings.delivery_timeout_s),
        security=ClientChannel(settings.tls, settings.dicom_tls),
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
