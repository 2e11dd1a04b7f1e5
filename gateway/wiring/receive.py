"""The role 'receive'."""

from __future__ import annotations

from gateway.association import Limits, Listening, Receiver
from gateway.config import Settings
from gateway.services import Heartbeat
from gateway.store import Store

_MIB = 1 << 20


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Receiver:
    """Return the Storage SCP."""
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
    return Receiver(store, listening, limits, heartbeat)
