"""C-MOVE and C-GET SCP (PS3.4 C.4.2, C.4.3): sub-operations that stream from disk, one after the other."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE, DimseServiceType

from gateway.audit.acts import Moved, transferred
from gateway.audit.event import AuditEvent
from gateway.audit.trail import record
from gateway.calling import ended, held_still
from gateway.config import DicomAddress
from gateway.decoding import FrameDecoder
from gateway.dimse_service import UNCOMPRESSED
from gateway.errors import DatabaseAwayError, DestinationAwayError, OutOfResourcesError, RefusedError
from gateway.query import StoredObject
from gateway.query_retrieve.destination import open_association
from gateway.query_retrieve.model import MODELS, model_of, read_identifier
from gateway.query_retrieve.negotiation import is_relational
from gateway.query_retrieve.response import Tally, respond
from gateway.query_retrieve.selection import select_objects
from gateway.query_retrieve.store_user import Originator, StoreUser, has_ended
from gateway.secure_channel import ClientChannel
from gateway.services import Counters
from gateway.store import Store

log = structlog.get_logger()

_PENDING, _CANCELLED = 0xFF00, 0xFE00
_CANNOT_COUNT, _CANNOT_PERFORM, _UNKNOWN_DESTINATION = 0xA701, 0xA702, 0xA801
_MOST_OBJECTS = 65535
"""The counters of sub-operations are 16 bits wide."""
_STORED_WITH_WARNING = frozenset({0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000)})


@dataclass(frozen=True, slots=True)
class Retrieving:
    """What every retrieval needs; shared by all associations."""

    store: Store
    decoder: FrameDecoder
    counters: Counters
    peers: Mapping[str, DicomAddress]
    """AE title -> address, of those that C-MOVE may send to."""
    ae_title: str
    timeout: timedelta
    """Limit of each step with a peer."""
    security: ClientChannel | None = None
    """For peers that are called by TLS."""
    research_aes: Collection[str] = ()
    """AE titles of destinations that get objects without the patient: no C-MOVE goes there."""


class RetrieveService:
    """The service; see `gateway.dimse_service.DirectService`.

    Parameters
    ----------
    retrieving
        Where the objects are, and whom they may be sent to.
    """

    contexts: Mapping[str, Sequence[str]] = {uid: UNCOMPRESSED for model in MODELS for uid in (model.move, model.get)}

    def __init__(self, retrieving: Retrieving) -> None:
        self._retrieving = retrieving

    def attend(self, association: Association) -> Retriever:
        """Begin with an association."""
        return Retriever(association, self._retrieving)


class Retriever:
    """The part of one association; see `gateway.dimse_service.Attendant`."""

    def __init__(self, association: Association, retrieving: Retrieving) -> None:
        self._association = association
        self._retrieving = retrieving

    def serve(self, context_id: int, message: DimseServiceType) -> bool:
        """Answer a C-MOVE or C-GET request, which takes as long as its sub-operations do."""
        context = next(one for one in self._association.accepted_contexts if one.context_id == context_id)
        if str(context.abstract_syntax) not in RetrieveService.contexts or not isinstance(message, C_MOVE | C_GET):
            return False
        if not message.is_valid_request:
            return False
        self._association.dimse.cancel_req = {}  # of earlier requests: message ids come again
        Retrieval(self._association, context_id, message, self._retrieving).run()
        return True

    def idle(self) -> None:
        """Nothing is ever due."""

    def end(self) -> None:
        """Nothing is left behind."""


class Retrieval:
    """One C-MOVE or C-GET.

    Parameters
    ----------
    association
        Over which it was asked for.
    context_id, request
        What was asked for.
    retrieving
        Where the objects are.
    """

    def __init__(self, association: Association, context_id: int, request: C_MOVE | C_GET, retrieving: Retrieving):
        self._association = association
        self._context = next(one for one in association.accepted_contexts if one.context_id == context_id)
        self._request = request
        self._parts = retrieving
        self._tally = Tally()
        self._began = time.monotonic()
        self._sent: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Study -> SOP class -> instances that the peer has."""

    def run(self) -> None:
        """Perform the sub-operations and answer: 0000, A701, A702, A801, A900, B000, C000 or FE00."""
        try:
            open_user = self._way()
            objects = self._select()
        except RefusedError as error:
            self._finish(error.status, error.comment)
            return
        except DatabaseAwayError:
            self._finish(_CANNOT_COUNT, "the database does not answer")
            return
        self._tally.remaining = len(objects)
        for study_uid in sorted({stored.study_instance_uid for stored in objects}):
            record(self._told(Moved(study_uid), is_begin=True))
        if not objects:
            self._finish(0)
            return
        try:
            with open_user(objects) as user:
                self._store_all(user, objects)
        except DestinationAwayError as error:
            self._tally.fail_rest(objects, str(error))
        if has_ended(self._association):
            self._note(None)
        elif self._tally.is_cancelled:
            self._finish(_CANCELLED)
        else:
            self._finish(self._final_status(), self._tally.first_reason)

    def _way(self) -> Callable[[Sequence[StoredObject]], AbstractContextManager[StoreUser]]:
        """Return what opens the way for the objects: to the move destination, or back over the same association."""
        if isinstance(self._request, C_GET):
            return self._same_association
        title = (self._request.MoveDestination or "").strip()
        address = self._parts.peers.get(title)
        if address is None or title in self._parts.research_aes:
            is_research = title in self._parts.research_aes
            reason = "takes objects without the patient only" if is_research else "is not in move_destinations"
            calling_ae = (self._association.requestor.ae_title or "").strip()
            log.warning(
                "move.refused", calling_ae=calling_ae, destination=title, reason=f"the move destination {reason}"
            )
            raise UnknownDestinationError(f"the move destination {reason}")
        return lambda objects: self._new_association(address, objects)

    def _select(self) -> list[StoredObject]:
        sop_class = str(self._context.abstract_syntax)
        identifier = read_identifier(self._request.Identifier, self._context.transfer_syntax[0])
        with self._parts.store.read() as connection:
            objects = select_objects(
                connection,
                identifier,
                model_of(sop_class),
                is_relational=is_relational(self._association, sop_class),
            )
        if len(objects) > _MOST_OBJECTS:
            raise TooManyObjectsError(f"more than {_MOST_OBJECTS} objects in one request")
        return objects

    @contextmanager
    def _same_association(self, _objects: Sequence[StoredObject]) -> Iterator[StoreUser]:
        yield StoreUser(self._association, self._parts.decoder, self._parts.timeout.total_seconds())

    @contextmanager
    def _new_association(self, address: DicomAddress, objects: Sequence[StoredObject]) -> Iterator[StoreUser]:
        timeout_s = self._parts.timeout.total_seconds()
        originator = Originator((self._association.requestor.ae_title or "").strip(), self._request.MessageID or 0)
        association = open_association(address, self._parts.ae_title, objects, timeout_s, self._parts.security)
        with ended(association), held_still(association):
            yield StoreUser(association, self._parts.decoder, timeout_s, originator)

    def _store_all(self, user: StoreUser, objects: Sequence[StoredObject]) -> None:
        for stored in objects:
            if has_ended(self._association):
                return
            if self._request.MessageID in self._association.dimse.cancel_req:
                self._tally.is_cancelled = True
                return
            self._store(user, stored)
            if self._tally.remaining:
                self._respond(_PENDING)

    def _store(self, user: StoreUser, stored: StoredObject) -> None:
        try:
            status = user.store(stored, self._parts.store.files.local(stored.path))
        except DestinationAwayError:
            raise
        except OSError as error:
            self._tally.failed(stored, f"its file cannot be read (errno {error.errno})")
        except Exception as error:  # whatever a library makes of one object, the others go on
            reason = str(error) if isinstance(error, RefusedError) else f"cannot be sent: {type(error).__name__}"
            self._tally.failed(stored, reason)
        else:
            if status == 0 or status in _STORED_WITH_WARNING:
                self._sent[stored.study_instance_uid][stored.sop_class_uid] += 1
            if status == 0:
                self._tally.completed()
            elif status in _STORED_WITH_WARNING:
                self._tally.warned()
            else:
                self._tally.failed(stored, f"the peer answered 0x{status:04X}")

    def _final_status(self) -> int:
        if self._tally.failures and not self._tally.successes and not self._tally.warnings:
            return _CANNOT_PERFORM
        return 0xB000 if self._tally.failures or self._tally.warnings else 0

    def _finish(self, status: int, comment: str | None = None) -> None:
        self._respond(status, comment)
        self._note(status)

    def _respond(self, status: int, comment: str | None = None) -> None:
        respond(self._association, self._context, self._request, status, self._tally, comment)

    def _told(self, moved: Moved, *, is_begin: bool = False, failure: str = "") -> AuditEvent:
        """Return what goes out for the audit trail; of a C-MOVE who asked is a third."""
        requestor = self._association.requestor
        asking = (requestor.ae_title or "").strip()
        is_move = isinstance(self._request, C_MOVE)
        return transferred(
            self._parts.ae_title,
            (self._request.MoveDestination or "").strip() if isinstance(self._request, C_MOVE) else asking,
            moved,
            direction="out",
            is_begin=is_begin,
            address="" if is_move else requestor.address or "",
            asked_by=asking,
            failure=failure,
        )

    def _note(self, status: int | None) -> None:
        """Log, count and tell how it went; None: the peer has gone."""
        failure = "" if status == 0 else "not all were taken" if status is not None else "the peer has gone"
        for study_uid, classes in sorted(self._sent.items()):
            record(self._told(Moved(study_uid, tuple(classes.items())), failure=failure))
        kind = "move" if isinstance(self._request, C_MOVE) else "get"
        outcome = "gone" if status is None else f"{status:04X}"
        self._parts.counters.add(f'hybridmed_{kind}s_total{{status="{outcome}"}}')
        for name, count in self._tally.counts().items():
            self._parts.counters.add(f'hybridmed_suboperations_total{{outcome="{name}"}}', count)
        log.info(
            f"{kind}.done",
            calling_ae=(self._association.requestor.ae_title or "").strip(),
            status=outcome,
            **self._tally.counts(),
            reasons=dict(self._tally.reasons) or None,
            took_s=round(time.monotonic() - self._began, 3),
        )


class UnknownDestinationError(RefusedError):
    """A move destination that is not configured (PS3.4 table C.4-2)."""

    status = _UNKNOWN_DESTINATION


class TooManyObjectsError(OutOfResourcesError):
    """More than the counters of sub-operations can tell (PS3.4 table C.4-2)."""

    status = _CANNOT_COUNT
