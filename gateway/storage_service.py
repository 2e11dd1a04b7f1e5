"""The seam to pynetdicom's DIMSE: the data set of a C-STORE streams to disk instead of into memory.

pynetdicom hands each P-DATA fragment to the association's DIMSE provider. This one leaves all messages to the library
but C-STORE: from its command on, the fragments of the data set go straight to the spool, and the request is served
from there in the association's own thread.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from pydicom.uid import UID
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from gateway.dimse_service import Attendant, DirectService
from gateway.errors import CannotUnderstandError, DataSetMismatchError, OutOfResourcesError, RefusedError
from gateway.header import read_header, valid_uid
from gateway.indexer import Arrival, Indexer
from gateway.place import place
from gateway.services import Counters
from gateway.spool import Origin, Spool, Upload
from gateway.store.instances import ClosedAssociation, OpenedAssociation, Outcome

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.association import Association
    from pynetdicom.dimse import _QueueItem
    from pynetdicom.dimse_primitives import DimsePrimitiveType, DimseServiceType

log = structlog.get_logger()

_SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110  # PS3.7 annex C.5.20
_IS_COMMAND, _IS_LAST = 0x01, 0x02  # message control header, PS3.8 annex E.2
_INVALID_PDU = "Evt19"  # PS3.8 table 9-10
_MESSAGE_LIMIT = 1 << 20
"""Bytes of a command, and of the data set of anything but C-STORE."""
_OUTSTANDING_LIMIT = 8
"""Requests of a kind, C-STORE or another, waiting to be served; we never negotiate more than one."""
_AFFECTED_SOP_CLASS_UID, _AFFECTED_SOP_INSTANCE_UID = 0x00000002, 0x00001000


@dataclass(frozen=True, slots=True)
class Intake:
    """Where instances go; shared by all associations of a receiver."""

    spool: Spool
    indexer: Indexer
    counters: Counters
    service_id: str


@dataclass(slots=True)
class _Request:
    """A C-STORE request whose data set is coming, or has come."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    upload: Upload | None = None
    refusal: RefusedError | None = None

    def write(self, context_id: int, data: memoryview) -> None:
        """Take a fragment; what is refused is read to its end and thrown away, so that it can be answered."""
        if self.upload is None or self.refusal is not None:
            return
        try:
            if context_id != self.context_id:
                raise CannotUnderstandError("fragments of two presentation contexts in one message")
            self.upload.write(data)
        except RefusedError as error:
            self.refusal = error
            self.upload.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        if self.upload is not None:
            self.upload.discard()


class StorageService(DIMSEServiceProvider):
    """The DIMSE service of one association.

    Parameters
    ----------
    association
        pynetdicom's, as acceptor.
    intake
        Where instances go.
    direct
        Services that talk on the association themselves.
    """

    def __init__(self, association: Association, intake: Intake, direct: Sequence[DirectService] = ()) -> None:
        super().__init__(association)
        self._direct = direct
        self._attendants: list[Attendant] | None = None
        self.association_id = str(uuid.uuid4())
        self._intake = intake
        self._coming: _Request | None = None
        self._complete: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._message_bytes = 0
        self._begun = self._stored = self._refused = 0
        self._ended = False
        self._lock = threading.RLock()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take fragments from the network, in the upper layer's thread; a message that breaks the rules ends it all."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._receive_fragment(context_id, fragment)
        except Exception as error:  # whatever a stranger sends must end in an A-ABORT, not in a dead thread
            log.warning("association.broken", association_id=self.association_id, error=type(error).__name__)
            self.dul.event_queue.put(_INVALID_PDU)

    def get_msg(self, block: bool = False) -> _QueueItem:
        """Serve C-STORE requests that are complete; hand out any other message. Called by the association's thread.

        With `block` a request of ours waits for its response, which is handed out; the peer's requests wait.
        """
        if block:
            return super().get_msg(block=True)
        try:
            request = self._complete.get_nowait()
        except queue.Empty:
            context_id, message = super().get_msg()
            if context_id is None or message is None:
                self._attend_idle()
                return None, None
            if not isinstance(message, C_STORE) or not message.is_valid_request:
                return (None, None) if self._is_attended(context_id, message) else (context_id, message)
            request = _without_data_set(context_id, message)
        self._serve(request)
        return None, None

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message; an association on which we talk is not idle, however long the peer listens."""
        super().send_msg(primitive, context_id)
        self.dul._idle_timer.restart()

    def end(self, outcome: Outcome) -> None:
        """Take no more; remove what is half-written; report the end. Only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            if self._coming is not None:
                self._coming.discard()
            while not self._complete.empty():
                self._complete.get_nowait().discard()
            if self._stored:
                self._intake.indexer.submit(ClosedAssociation(self.association_id, outcome, datetime.now(UTC)))
        for attendant in self._attendants or ():
            attendant.end()
        self._intake.counters.add(f'hybridmed_associations_total{{outcome="{outcome}"}}')
        write = log.info if self._begun else log.debug  # health checks come all day
        write(
            "association.ended",
            association_id=self.association_id,
            calling_ae=self._calling_ae,
            outcome=outcome,
            stored=self._stored,
            refused=self._refused,
        )

    def _attend(self) -> list[Attendant]:
        """Return the attendants, who begin once the association is negotiated."""
        if self._attendants is None:
            accepted = {str(context.abstract_syntax) for context in self.assoc.accepted_contexts}
            chosen = [service for service in self._direct if not accepted.isdisjoint(service.contexts)]
            self._attendants = [service.attend(self.assoc) for service in chosen]
        return self._attendants

    def _attend_idle(self) -> None:
        try:
            for attendant in self._attend():
                attendant.idle()
        except Exception as error:  # a fault of ours must end the association, or the peer waits for ever
            self._break_off(error)

    def _is_attended(self, context_id: int, message: DimseServiceType) -> bool:
        try:
            return any(attendant.serve(context_id, message) for attendant in self._attend())
        except Exception as error:  # as above
            self._break_off(error)
            return True

    def _break_off(self, error: Exception) -> None:
        log.error(
            "association.failed", association_id=self.association_id, error=type(error).__name__, place=place(error)
        )
        self.assoc.abort()

    @property
    def _calling_ae(self) -> str:
        return (self.assoc.requestor.ae_title or "").strip()

    def _receive_fragment(self, context_id: int, fragment: bytes) -> None:
        control = fragment[0]
        if self._coming is not None and not control & _IS_COMMAND:
            self._coming.write(context_id, memoryview(fragment)[1:])
            if control & _IS_LAST:
                self._complete.put(self._coming)
                self._coming = None
            return
        self._message_bytes += len(fragment)
        if self._coming is not None or self._message_bytes > _MESSAGE_LIMIT:
            raise ValueError("a command within a data set, or an endless message")
        part = P_DATA()
        part.presentation_data_value_list.append((context_id, fragment))
        super().receive_primitive(part)
        if self.message is None:
            self._message_bytes = 0
            if self.msg_queue.qsize() > _OUTSTANDING_LIMIT:
                raise ValueError("more operations outstanding than negotiated")
        elif isinstance(self.message, C_STORE_RQ):
            self._coming = self._begin(context_id, self.message.command_set)
            self.message = None
            self._message_bytes = 0

    def _begin(self, context_id: int, command: Dataset) -> _Request:
        request = _Request(
            context_id,
            int(command.MessageID),
            _uid(command, _AFFECTED_SOP_CLASS_UID),
            _uid(command, _AFFECTED_SOP_INSTANCE_UID),
        )
        context = next(one for one in self.assoc.accepted_contexts if one.context_id == context_id)
        if self._complete.qsize() >= _OUTSTANDING_LIMIT:
            raise ValueError("more operations outstanding than negotiated")
        with self._lock:
            if self._ended:
                return request
            self._begun += 1
            try:
                valid_uid(request.sop_class_uid, "Affected SOP Class UID")
                valid_uid(request.sop_instance_uid, "Affected SOP Instance UID")
                if request.sop_class_uid != context.abstract_syntax:
                    raise DataSetMismatchError("SOP class is not the one of its presentation context")
                request.upload = self._intake.spool.begin(
                    self._origin(request, context.transfer_syntax[0]), self._begun
                )
            except RefusedError as error:
                request.refusal = error
        return request

    def _origin(self, request: _Request, transfer_syntax_uid: str) -> Origin:
        return Origin(
            association_id=self.association_id,
            calling_ae=self._calling_ae,
            called_ae=(self.assoc.acceptor.ae_title or "").strip(),
            transfer_syntax_uid=str(transfer_syntax_uid),
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
        )

    def _serve(self, request: _Request) -> None:
        """Answer a C-STORE: 0000, A700, A900, C000, or 0110 where we are at fault."""
        with self._lock:
            if self._ended:
                request.discard()
                return
            try:
                self._store(request)
                self._respond(request, _SUCCESS)
            except RefusedError as error:
                request.discard()
                self._refuse(request, error.status, error.comment)
            except Exception as error:  # a fault of ours must be answered, or the sender waits for ever
                request.discard()
                log.error("instance.failed", association_id=self.association_id, error=type(error).__name__)
                self._refuse(request, _PROCESSING_FAILURE, "processing failure")

    def _store(self, request: _Request) -> None:
        """Check the data set against the command, make it durable and report it."""
        if request.refusal is not None:
            raise request.refusal
        if request.upload is None:
            raise CannotUnderstandError("no data set")
        try:
            header = read_header(request.upload.path)
        except OSError as error:
            raise OutOfResourcesError("the instance could not be read back") from error
        if header.sop_class_uid != request.sop_class_uid:
            raise DataSetMismatchError("SOP Class UID differs from the command's")
        if header.sop_instance_uid != request.sop_instance_uid:
            raise DataSetMismatchError("SOP Instance UID differs from the command's")
        spooled = request.upload.commit()
        if not self._stored:
            self._intake.indexer.submit(self._opened())
        self._stored += 1
        self._intake.indexer.submit(Arrival(spooled, header))
        self._intake.counters.add("hybridmed_instances_received_total")
        self._intake.counters.add("hybridmed_received_bytes_total", spooled.size_bytes)

    def _opened(self) -> OpenedAssociation:
        return OpenedAssociation(
            id=self.association_id,
            service_id=self._intake.service_id,
            calling_ae=self._calling_ae,
            called_ae=(self.assoc.acceptor.ae_title or "").strip(),
            opened_at=datetime.now(UTC),
        )

    def _refuse(self, request: _Request, status: int, comment: str) -> None:
        self._refused += 1
        self._intake.counters.add(f'hybridmed_instances_refused_total{{status="{status:04X}"}}')
        log.warning(
            "instance.refused",
            association_id=self.association_id,
            calling_ae=self._calling_ae,
            status=f"{status:04X}",
            reason=comment,
        )
        self._respond(request, status, comment)

    def _respond(self, request: _Request, status: int, comment: str | None = None) -> None:
        response = C_STORE()
        response.MessageIDBeingRespondedTo = request.message_id
        response.Status = status
        if UID(request.sop_class_uid).is_valid:
            response.AffectedSOPClassUID = UID(request.sop_class_uid)
        if UID(request.sop_instance_uid).is_valid:
            response.AffectedSOPInstanceUID = UID(request.sop_instance_uid)
        if comment is not None:
            response.ErrorComment = comment  # type: ignore[assignment] # pynetdicom declares it as None
        self.send_msg(response, request.context_id)


def _without_data_set(context_id: int, message: C_STORE) -> _Request:
    """Return the request of a C-STORE whose command says that no data set follows."""
    return _Request(
        context_id,
        message.MessageID or 0,
        str(message.AffectedSOPClassUID or ""),
        str(message.AffectedSOPInstanceUID or ""),
    )


def _uid(command: Dataset, tag: int) -> str:
    """Return a UID of the command as it was sent; pydicom would warn of a wrong one, with its value."""
    if tag not in command:
        return ""
    element = command.get_item(tag)
    value = element.value
    return value.rstrip(b" \0").decode("ascii", "replace") if isinstance(value, bytes) else str(value)
