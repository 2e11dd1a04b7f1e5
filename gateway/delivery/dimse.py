"""Results to a Storage SCP by C-STORE, all of a job over one association."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import

from gateway.calling import PromptEntity, ended
from gateway.config import DicomAddress
from gateway.delivery.sender import Outgoing
from gateway.delivery.status import is_stored, raise_for
from gateway.errors import DestinationAwayError
from gateway.secure_channel import ClientChannel, tls_args


class DimseSender:
    """Storage SCU for one destination.

    Parameters
    ----------
    address
        The peer.
    ae_title
        Ours.
    timeout_s
        Limit of each step: connection, negotiation, each answer.
    security
        For a peer that is called by TLS.
    """

    def __init__(
        self, address: DicomAddress, ae_title: str, timeout_s: float, security: ClientChannel | None = None
    ) -> None:
        self._security = security
        self._address = address
        self._ae_title = ae_title
        self._timeout_s = timeout_s
        # The file's bytes go out as they lie, without being parsed; pynetdicom offers this for the whole process.
        _config.STORE_SEND_CHUNKED_DATASET = True

    def send(self, objects: Sequence[Outgoing], /) -> None:
        """Send all over one association; see `Sender`."""
        with self.associated(objects) as association:
            refused: dict[str, int | None] = {}
            for each in objects:
                status = self.store(association, each)
                if status is None or not is_stored(status):
                    refused[each.kind] = status
        raise_for(refused)

    @contextmanager
    def associated(self, objects: Sequence[Outgoing]) -> Iterator[Association]:
        """Give an association that offers what the objects need; DestinationAwayError where there is none."""
        association = self._entity(objects).associate(
            self._address.host,
            self._address.port,
            ae_title=self._address.ae_title,
            tls_args=tls_args(self._address, self._security),
        )
        if not association.is_established:
            raise DestinationAwayError(_why_not(association))
        with ended(association):
            yield association

    def _entity(self, objects: Sequence[Outgoing]) -> PromptEntity:
        entity = PromptEntity(ae_title=self._ae_title)
        entity.acse_timeout = self._timeout_s
        entity.dimse_timeout = self._timeout_s
        entity.network_timeout = self._timeout_s
        entity.connection_timeout = self._timeout_s
        # Verification is offered so that a peer which accepts none of our objects is told from one that is away.
        entity.add_requested_context(Verification)
        for sop_class, syntax in sorted({(each.sop_class_uid, _transfer_syntax(each.path)) for each in objects}):
            entity.add_requested_context(sop_class, syntax)
            if not pydicom.uid.UID(syntax).is_compressed:
                entity.add_requested_context(sop_class, ImplicitVRLittleEndian)  # PS3.5 10.1: every peer knows it
        return entity

    def store(self, association: Association, each: Outgoing) -> int | None:
        """Send one object and return the peer's status, None where it accepts no such object."""
        accepted = {
            (context.abstract_syntax, syntax)
            for context in association.accepted_contexts
            for syntax in context.transfer_syntax
        }
        if (each.sop_class_uid, _transfer_syntax(each.path)) in accepted:
            return self._ask(association, each.path)
        if (each.sop_class_uid, ImplicitVRLittleEndian) in accepted:
            return self._ask(association, pydicom.dcmread(each.path))  # pynetdicom encodes it anew
        return None

    def _ask(self, association: Association, data: Path | Dataset) -> int:
        if not association.is_established:
            raise DestinationAwayError("the association was aborted")
        answer = association.send_c_store(data)
        if "Status" not in answer:
            raise DestinationAwayError("no answer to C-STORE")
        return int(answer.Status)


def _transfer_syntax(path: Path) -> str:
    meta, _ = split_dataset(path)
    return str(meta.TransferSyntaxUID)


def _why_not(association: Association) -> str:
    if association.is_rejected:
        return "the association was rejected"
    return "the association was aborted" if association.is_aborted else "no connection"
