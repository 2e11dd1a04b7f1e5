"""The seam to pynetdicom's DIMSE: the data set of a C-STORE streams to disk instead of into memory.

pynetdicom hands each P-DATA fragment to the association's DIMSE provider. This one leaves all messages to the library
but C-STORE: from its command on, the fragments of the data set go straight to the spool, and the request is served
from there in the association's own thread.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import structlog
from pydicom.uid import UID
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from gateway import tracing
from gateway.dimse_service import Attendant, DirectService
from gateway.errors import CannotUnderstandError, DataSetMismatchError, OutOfResourcesError, RefusedError
from gateway.header import valid_uid
from gateway.indexer import Arrival, Indexer
from gateway.place import place
from gateway.receive.command import LARGEST_RESPONSE, answered_uid, encode_store_response, parse_store_request
from gateway.receive.operation import StoreOperation, encoded_uid, without_data_set
from gateway.services import Counters
from gateway.spool import Origin, Spool
from gateway.store.instances import ClosedAssociation, OpenedAssociation, Outcome

if TYPE_CHECKING:
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
    wait: Callable[[str], None] = lambda _calling_ae: None
    """Lets a sender wait that is faster than it may be."""


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
        self._coming: StoreOperation | None = None
        self._complete: queue.SimpleQueue[StoreOperation] = queue.SimpleQueue()
        self._message_bytes = 0
        self._begun = self._stored = self._refused = 0
        self._opened_s = time.monotonic()
        self._ended = False
        self._lock = threading.RLock()
        self._is_sending = False
        self._contexts: dict[int, tuple[str, str]] = {}
        self.is_direct = False
        """Whether requests are served in the upper layer's thread and answered past pynetdicom."""

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take fragments from the network, in the upper layer's thread; a message that breaks the rules ends it all."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self.receive_fragment(context_id, fragment)
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
            request = without_data_set(context_id, message)
        self._serve(request)
        return None, None

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send a message; an association on which we talk is not idle, however long the peer listens."""
        self._is_sending = True
        try:
            super().send_msg(primitive, context_id)
        finally:
            self._is_sending = False
        self.dul._idle_timer.restart()

    @property
    def is_receiving(self) -> bool:
        """Whether the next fragment of a data set belongs to a C-STORE."""
        return self._coming is not None

    @property
    def is_attended(self) -> bool:
        """Whether somebody wants to be called while the peer says nothing."""
        return self._attendants is None or bool(self._attendants)

    def receive_data(self, context_id: int, pieces: Sequence[memoryview]) -> None:
        """Take pieces of the data set that is coming."""
        if self._coming is not None:
            self._coming.write(context_id, pieces)

    def end_data(self) -> None:
        """Serve the request whose data set is complete: here, or in the association's thread."""
        request, self._coming = self._coming, None
        if request is None:
            return
        if self.is_direct:
            self._serve(request)
        else:
            self._complete.put(request)

    def end(self, outcome: Outcome) -> None:
        """Take no more; remove what is half-written; report the end. Only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            if self._coming is not None:
                self._coming.discard()
            self._intake.spool.close_ahead(self.association_id)
            while not self._complete.empty():
                self._complete.get_nowait().discard()
            if self._stored:
                self._intake.indexer.submit(ClosedAssociation(self.association_id, outcome, datetime.now(UTC)))
        for attendant in self._attendants or ():
            attendant.end()
        self._intake.counters.add(f'hybridmed_associations_total{{outcome="{outcome}"}}')
        if self._begun:
            lasted_s = time.monotonic() - self._opened_s
            tracing.note_association(self.association_id, lasted_s, outcome=outcome, instances=self._stored)
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

    def receive_fragment(self, context_id: int, fragment: bytes) -> None:
        """Take a fragment with its message control header; ValueError where it breaks the rules."""
        control = fragment[0]
        if self._coming is not None and not control & _IS_COMMAND:
            self.receive_data(context_id, [memoryview(fragment)[1:]])
            if control & _IS_LAST:
                self.end_data()
            return
        if self._coming is None and self.message is None and self.is_direct and control == _IS_COMMAND | _IS_LAST:
            command = parse_store_request(fragment[1:])
            if command is not None:
                self._coming = self._begin(
                    StoreOperation(context_id, command.message_id, command.sop_class_uid, command.sop_instance_uid)
                )
                return
        self._receive_message(context_id, fragment)

    def _receive_message(self, context_id: int, fragment: bytes) -> None:
        """Let pynetdicom put the message together; its C-STORE-RQ is ours again."""
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
            command = self.message.command_set
            self._coming = self._begin(
                StoreOperation(
                    context_id,
                    int(command.MessageID),
                    encoded_uid(command, _AFFECTED_SOP_CLASS_UID),
                    encoded_uid(command, _AFFECTED_SOP_INSTANCE_UID),
                )
            )
            self.message = None
            self._message_bytes = 0

    def _begin(self, request: StoreOperation) -> StoreOperation:
        """Begin to take a data set; ValueError where its presentation context was not accepted."""
        abstract_syntax, transfer_syntax = self._context(request.context_id)
        if self._complete.qsize() >= _OUTSTANDING_LIMIT:
            raise ValueError("more operations outstanding than negotiated")
        with self._lock:
            if self._ended:
                return request
            self._begun += 1
            try:
                valid_uid(request.sop_class_uid, "Affected SOP Class UID")
                valid_uid(request.sop_instance_uid, "Affected SOP Instance UID")
                if request.sop_class_uid != abstract_syntax:
                    raise DataSetMismatchError("SOP class is not the one of its presentation context")
                request.upload = self._intake.spool.begin(self._origin(request, transfer_syntax), self._begun)
            except RefusedError as error:
                request.refusal = error
        return request

    def _context(self, context_id: int) -> tuple[str, str]:
        """Return abstract and transfer syntax of an accepted presentation context."""
        if context_id not in self._contexts:
            for one in self.assoc.accepted_contexts:
                if one.context_id is not None:
                    self._contexts[one.context_id] = (str(one.abstract_syntax), str(one.transfer_syntax[0]))
        if context_id not in self._contexts:
            raise ValueError("a presentation context that was not accepted")
        return self._contexts[context_id]

    def _origin(self, request: StoreOperation, transfer_syntax_uid: str) -> Origin:
        return Origin(
            association_id=self.association_id,
            calling_ae=self._calling_ae,
            called_ae=(self.assoc.acceptor.ae_title or "").strip(),
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
        )

    def _serve(self, request: StoreOperation) -> None:
        """Answer a C-STORE: 0000, A700, A900, C000, or 0110 where we are at fault."""
        self._intake.wait(self._calling_ae)
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
            else:
                self._intake.spool.open_ahead(self.association_id, self._begun + 1)  # while the sender does its part

    def _store(self, request: StoreOperation) -> None:
        """Check the data set against the command, make it durable and report it."""
        if request.refusal is not None:
            raise request.refusal
        if request.upload is None:
            raise CannotUnderstandError("no data set")
        try:
            header = request.upload.header()
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

    def _refuse(self, request: StoreOperation, status: int, comment: str) -> None:
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

    def _respond(self, request: StoreOperation, status: int, comment: str | None = None) -> None:
        """Answer: in one PDU past pynetdicom where its queue is empty and the peer takes PDUs of that size."""
        uids = [answered_uid(uid) for uid in (request.sop_class_uid, request.sop_instance_uid)]
        if self._may_answer_directly() and (peer := self.dul.socket) is not None:
            peer.send(
                encode_store_response(request.context_id, request.message_id, (uids[0], uids[1]), status, comment)
            )
            self.dul._idle_timer.restart()
            return
        response = C_STORE()
        response.MessageIDBeingRespondedTo = request.message_id
        response.Status = status
        if uids[0]:
            response.AffectedSOPClassUID = UID(uids[0])
        if uids[1]:
            response.AffectedSOPInstanceUID = UID(uids[1])
        if comment is not None:
            response.ErrorComment = comment  # type: ignore[assignment] # pynetdicom declares it as None
        self.send_msg(response, request.context_id)

    def _may_answer_directly(self) -> bool:
        dul = self.dul
        return (
            self.is_direct
            and threading.get_ident() == dul.ident
            and dul.state_machine.current_state == "Sta6"
            and not self._is_sending
            and not dul.to_provider_queue.queue  # without its lock: whoever puts something there wakes this thread
            and self._is_answer_taken
        )

    @cached_property
    def _is_answer_taken(self) -> bool:
        """Whether the peer takes PDUs of a response's size."""
        return not 0 < self.maximum_pdu_size < LARGEST_RESPONSE
