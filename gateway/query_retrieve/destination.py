"""Associations of ours to the peers that C-MOVE sends to."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from gateway.calling import PromptEntity
from gateway.config import DicomAddress
from gateway.errors import DestinationAwayError
from gateway.query import StoredObject
from gateway.query_retrieve.decode import DECODABLE
from gateway.query_retrieve.recode import EXPLICIT, IMPLICIT, RECODABLE
from gateway.secure_channel import ClientChannel, tls_args
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

_MOST_CONTEXTS = 128
_LARGEST_PDU = 1 << 16
"""That we take: nothing but responses comes back."""


def open_association(
    address: DicomAddress,
    ae_title: str,
    objects: Sequence[StoredObject],
    timeout_s: float,
    security: ClientChannel | None = None,
) -> Association:
    """Return an association that offers each object as it is stored, and uncompressed where that can be made.

    Raises
    ------
    DestinationAwayError
        The peer does not answer, or refuses.
    """
    return connect(address, ae_title, _contexts(objects), timeout_s, security=security)


def connect(
    address: DicomAddress,
    ae_title: str,
    contexts: list[PresentationContext],
    timeout_s: float,
    *roles: SCP_SCU_RoleSelectionNegotiation,
    security: ClientChannel | None = None,
) -> Association:
    """Return an association with a peer, each step with a time limit.

    Raises
    ------
    DestinationAwayError
        The peer's name is unknown, it does not answer, or it refuses.
    """
    try:
        association = _entity(ae_title, timeout_s).associate(
            address.host,
            address.port,
            contexts=contexts,
            ae_title=address.ae_title,
            max_pdu=_LARGEST_PDU,
            ext_neg=list(roles),
            tls_args=tls_args(address, security),
        )
    except OSError as error:  # of the name's resolution
        raise DestinationAwayError(f"the host of {address.ae_title} is unknown") from error
    if not association.is_established:
        raise DestinationAwayError(f"{address.ae_title} {_why_not(association)}")
    _bound(association, timeout_s)
    return association


def _entity(ae_title: str, timeout_s: float) -> PromptEntity:
    ae = PromptEntity(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    return ae


def _bound(association: Association, timeout_s: float) -> None:
    """End the connection where the peer takes nothing for so long; pynetdicom would wait for ever."""
    transport = association.dul.socket
    if transport is not None and isinstance(transport.socket, socket.socket):
        transport.socket.settimeout(timeout_s)


def _contexts(objects: Sequence[StoredObject]) -> list[PresentationContext]:
    """Return a context for each SOP class and stored transfer syntax, then uncompressed ones of what can be made so."""
    pairs = dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in objects)
    convertible = {each.sop_class_uid for each in objects if each.transfer_syntax_uid in RECODABLE | DECODABLE}
    pairs |= dict.fromkeys((uid, syntax) for uid in sorted(convertible) for syntax in (EXPLICIT, IMPLICIT))
    return [build_context(uid, syntax) for uid, syntax in list(pairs)[:_MOST_CONTEXTS]]


def _why_not(association: Association) -> str:
    if association.is_rejected:
        return "rejects our association"
    return "does not answer"
