"""Storage Commitment Push Model as SCP: N-ACTION asks, N-EVENT-REPORT answers when all is known (PS3.4 J.3).

The result is told over the association that asked, if it still stands a moment later; else the role `deliver` tells it
over a new one (`gateway.delivery.commitments`). A peer whose address is not configured hears it when it associates
again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT, DimseServiceType

from gateway.commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentResult,
    duplicate,
    event_report,
    look_up,
    read_request,
)
from gateway.dimse_service import UNCOMPRESSED
from gateway.errors import CannotUnderstandError, DatabaseAwayError
from gateway.services import Counters
from gateway.store import Store, commitments
from gateway.store.commitments import Commitment, CommitmentRequest

log = structlog.get_logger()

_REQUEST_ACTION = 1
_SUCCESS = 0x0000
_NO_SUCH_INSTANCE, _INVALID_ARGUMENT, _NO_SUCH_ACTION, _RESOURCE_LIMITATION = 0x0112, 0x0115, 0x0123, 0x0213
_MOST_WAITING = 1000
"""Transactions of one peer whose results are untold; further ones are refused."""
_REMEMBERED = 100
"""Results of earlier associations that are told over one."""
_HOLD = timedelta(seconds=120)
"""How long a receiver has a transaction for itself, unless it says again that it has."""
_RENEW_S = 40.0
_GRACE_S = 0.3
"""Many peers release at once and expect the result over a new association."""
_LOOK_S = 0.3
_MESSAGE_IDS = 1 << 15


@dataclass(frozen=True, slots=True)
class Committing:
    """What every association needs."""

    store: Store
    counters: Counters
    ae_title: str
    """Ours: where the instances can be retrieved from."""
    known_peers: frozenset[str]
    """AE titles that the role `deliver` can tell a result to."""
    answer_timeout_s: float
    """How long a peer may take to take note of a result."""


class CommitmentService:
    """The service; see `gateway.dimse_service.DirectService`.

    Parameters
    ----------
    committing
        Where instances and transactions stand.
    """

    contexts: Mapping[str, Sequence[str]] = {PUSH_MODEL: UNCOMPRESSED}

    def __init__(self, committing: Committing) -> None:
        self._committing = committing

    def attend(self, association: Association) -> CommitmentTalk:
        """Begin with an association."""
        return CommitmentTalk(association, self._committing)


@dataclass(slots=True)
class _Untold:
    """A result that is owed to the peer."""

    commitment: Commitment | None
    """None: a duplicate, which is not kept."""
    result: CommitmentResult | None
    look_at: float
    """When to look, on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A result that the peer has yet to take note of."""

    message_id: int
    untold: _Untold
    deadline: float


class CommitmentTalk:
    """The part of one association; see `gateway.dimse_service.Attendant`."""

    def __init__(self, association: Association, parts: Committing) -> None:
        self._association = association
        self._parts = parts
        self._calling_ae = (association.requestor.ae_title or "").strip()
        self._context = next(one for one in association.accepted_contexts if one.abstract_syntax == PUSH_MODEL)
        self._untold: list[_Untold] = []
        self._told: _Told | None = None
        self._numbers = itertools.cycle(range(1, _MESSAGE_IDS))
        self._is_new = True
        self._renew_at = time.monotonic() + _RENEW_S

    def serve(self, context_id: int, message: DimseServiceType) -> bool:
        """Answer an N-ACTION (0000, 0112, 0115, 0123, 0213), and take the answer to an N-EVENT-REPORT."""
        context = next(one for one in self._association.accepted_contexts if one.context_id == context_id)
        if context.abstract_syntax != PUSH_MODEL:
            return False
        self._context = context
        if isinstance(message, N_ACTION) and message.is_valid_request:
            self._answer(context_id, message, self._take(message))
            return True
        if isinstance(message, N_EVENT_REPORT) and message.is_valid_response:
            self._took_note(message)
            return True
        return False

    def idle(self) -> None:
        """Tell the next result that is known; give up waiting for an answer that does not come."""
        if self._is_new:
            self._is_new = False
            self._remember()
        if self._untold and time.monotonic() >= self._renew_at:
            self._renew()
        if self._told is not None:
            if time.monotonic() > self._told.deadline:
                untold, self._told = self._told.untold, None
                self._give_back([untold], "no answer to N-EVENT-REPORT")
        elif self._untold and time.monotonic() >= self._untold[0].look_at:
            self._tell(self._untold[0])

    def end(self) -> None:
        """Leave to the role `deliver` what was not told."""
        owed = [*self._untold, *([self._told.untold] if self._told is not None else [])]
        self._untold, self._told = [], None
        self._give_back(owed)

    def _take(self, message: N_ACTION) -> int:
        """Keep a request and return the status to answer with."""
        if message.RequestedSOPInstanceUID != PUSH_MODEL_INSTANCE:
            return _NO_SUCH_INSTANCE
        if message.ActionTypeID != _REQUEST_ACTION:
            return _NO_SUCH_ACTION
        try:
            transaction_uid, referenced = read_request(message.ActionInformation, self._context.transfer_syntax[0])
        except CannotUnderstandError as error:
            log.warning("commitment.refused", calling_ae=self._calling_ae, reason=error.comment)
            return _INVALID_ARGUMENT
        now = datetime.now(UTC)
        try:
            with self._parts.store.write() as connection:
                if commitments.count_waiting(connection, self._calling_ae) >= _MOST_WAITING:
                    log.warning("commitment.refused", calling_ae=self._calling_ae, reason="too many wait")
                    return _RESOURCE_LIMITATION
                request = CommitmentRequest(transaction_uid, self._calling_ae, tuple(referenced), now)
                kept = commitments.add_commitment(connection, request, held_until=now + _HOLD)
        except DatabaseAwayError:
            return _RESOURCE_LIMITATION
        result = None if kept is not None else duplicate(transaction_uid, referenced)
        self._untold.append(_Untold(kept, result, time.monotonic() + _GRACE_S))
        log.info(
            "commitment.asked", calling_ae=self._calling_ae, transaction_uid=transaction_uid, count=len(referenced)
        )
        return _SUCCESS

    def _answer(self, context_id: int, message: N_ACTION, status: int) -> None:
        response = N_ACTION()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.AffectedSOPClassUID = message.RequestedSOPClassUID
        response.AffectedSOPInstanceUID = message.RequestedSOPInstanceUID
        response.ActionTypeID = message.ActionTypeID
        response.Status = status
        self._association.dimse.send_msg(response, context_id)
        self._parts.counters.add(f'hybridmed_commitments_asked_total{{status="{status:04X}"}}')

    def _remember(self) -> None:
        """Owe the peer the results of earlier associations, if nobody else can tell it."""
        if self._calling_ae in self._parts.known_peers:
            return
        until = datetime.now(UTC) + _HOLD
        try:
            with self._parts.store.read() as connection:
                waiting = commitments.list_waiting(connection, self._calling_ae, _REMEMBERED)
            if not waiting:
                return
            with self._parts.store.write() as connection:
                taken = [commitments.hold(connection, one, until) for one in waiting]
        except DatabaseAwayError:
            return
        self._untold += [_Untold(one, None, time.monotonic() + _GRACE_S) for one in taken if one is not None]

    def _renew(self) -> None:
        """Hold on to what waits to be told; leave what another association of the peer, or `deliver`, has taken."""
        self._renew_at = time.monotonic() + _RENEW_S
        until = datetime.now(UTC) + _HOLD
        try:
            with self._parts.store.write() as connection:
                held = [one.commitment and commitments.hold(connection, one.commitment, until) for one in self._untold]
        except DatabaseAwayError:
            return
        pairs = list(zip(self._untold, held, strict=True))
        self._untold = [replace(one, commitment=anew) for one, anew in pairs if anew is not None or not one.commitment]

    def _tell(self, untold: _Untold) -> None:
        try:
            is_ours = untold.commitment is None or self._look(untold, untold.commitment)
        except DatabaseAwayError:
            is_ours = True  # as far as is known
        if is_ours and untold.result is None:
            untold.look_at = time.monotonic() + _LOOK_S
            return
        self._untold.remove(untold)
        if untold.result is None:
            return
        message_id = next(self._numbers)
        self._told = _Told(message_id, untold, time.monotonic() + self._parts.answer_timeout_s)
        request = event_report(untold.result, self._parts.ae_title, message_id, self._context.transfer_syntax[0])
        self._association.dimse.send_msg(request, self._context.context_id or 0)

    def _look(self, untold: _Untold, kept: Commitment) -> bool:
        """Look what becomes of a transaction, and hold it anew where that is known; False where another has it now."""
        now = datetime.now(UTC)
        result = look_up(self._parts.store, kept, now)
        if result is None:
            return True
        with self._parts.store.write() as connection:
            held = commitments.hold(connection, kept, now + _HOLD)
        if held is not None:
            untold.commitment, untold.result = held, result
        return held is not None

    def _took_note(self, answer: N_EVENT_REPORT) -> None:
        if self._told is None or answer.MessageIDBeingRespondedTo != self._told.message_id:
            return
        untold, self._told = self._told.untold, None
        if answer.Status != _SUCCESS:
            self._give_back([untold], f"the peer answered 0x{answer.Status:04X}")
            return
        result = untold.result
        if result is None:
            return
        if untold.commitment is not None:
            try:
                with self._parts.store.write() as connection:
                    commitments.finish(connection, untold.commitment, datetime.now(UTC), result.note)
            except DatabaseAwayError:
                log.warning(
                    "commitment.told_twice", calling_ae=self._calling_ae, transaction_uid=result.transaction_uid
                )
        note_told(self._parts.counters, self._calling_ae, result, "same association")

    def _give_back(self, owed: Sequence[_Untold], reason: str | None = None) -> None:
        """Leave results to the role `deliver`, from now on."""
        kept = [untold.commitment for untold in owed if untold.commitment is not None]
        if len(kept) < len(owed):
            log.warning("commitment.duplicate_untold", calling_ae=self._calling_ae)
        if not kept:
            return
        try:
            with self._parts.store.write() as connection:
                for one in kept:
                    commitments.put_back(connection, one, datetime.now(UTC), reason)
        except DatabaseAwayError:
            log.warning("commitment.held", calling_ae=self._calling_ae, until_s=_HOLD.total_seconds())


def note_told(counters: Counters, peer_ae: str, result: CommitmentResult, way: str) -> None:
    """Log and count a result that a peer has taken note of."""
    outcome = "some_failed" if result.failed else "all_committed"
    counters.add(f'hybridmed_commitments_told_total{{outcome="{outcome}"}}')
    log.info(
        "commitment.told",
        peer_ae=peer_ae,
        transaction_uid=result.transaction_uid,
        committed=len(result.committed),
        failed=len(result.failed),
        way=way,
    )
