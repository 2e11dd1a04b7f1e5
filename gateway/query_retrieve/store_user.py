"""C-STORE as SCU for the sub-operations of C-MOVE and C-GET: from disk to the network, a few fragments in memory."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from gateway.decoding import FrameDecoder
from gateway.errors import CannotUnderstandError, DestinationAwayError
from gateway.header import read_part10
from gateway.query import StoredObject
from gateway.query_retrieve.decode import DECODABLE, decoded
from gateway.query_retrieve.recode import EXPLICIT, IMPLICIT, RECODABLE, recoded

_FRAGMENT_LIMIT = 1 << 17
"""Bytes of a fragment, whatever more the peer would take."""
_FRAGMENTS_WAITING = 8
"""Fragments handed to the upper layer and not yet sent."""
_LOOK_S = 0.0005
_MADE_AHEAD = 1 << 26
"""Bytes of a data set made anew that are at hand before it is begun: most faults show before the peer hears of it."""
_MESSAGE_IDS = 65535
_DATA_FOLLOWS = 0x0001
_NO_CONTEXT = "the peer accepts no such object in a transfer syntax that we can give"


@dataclass(frozen=True, slots=True)
class Originator:
    """The C-MOVE that a C-STORE belongs to (PS3.7 9.1.1.1)."""

    ae_title: str
    message_id: int


class StoreUser:
    """Sends objects over an association that stands.

    Parameters
    ----------
    association
        One of ours, whose reactor is held still by `gateway.calling.held_still`, or the peer's in whose thread this
        runs.
    decoder
        For objects that the peer takes uncompressed only.
    timeout_s
        Limit of each step: fragments taken, answer given.
    originator
        Of a C-MOVE.
    """

    def __init__(
        self, association: Association, decoder: FrameDecoder, timeout_s: float, originator: Originator | None = None
    ) -> None:
        self._association = association
        self._decoder = decoder
        self._timeout_s = timeout_s
        self._originator = originator
        self._numbers = itertools.cycle(range(1, _MESSAGE_IDS + 1))
        self._contexts: dict[tuple[str, str], PresentationContext] = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): context
            for context in association.accepted_contexts
            if context.as_scu
        }

    def store(self, stored: StoredObject, path: Path) -> int:
        """Send one object and return the peer's status.

        Raises
        ------
        CannotUnderstandError, OSError, UndecodableError
            The object cannot be sent; the next one may.
        DestinationAwayError
            The association has ended, or was ended here because the peer took too long.
        """
        context = self._context_for(stored)
        syntax = str(context.transfer_syntax[0])
        if syntax == stored.transfer_syntax_uid:
            chunks = _as_stored(path)
        elif stored.transfer_syntax_uid in RECODABLE:
            chunks = _made_ahead(recoded(path, syntax))
        else:
            chunks = _made_ahead(decoded(path, syntax, self._decoder))
        first = next(chunks, b"")  # what cannot be read at all fails alone: nothing is sent yet
        request = self._request(stored)
        try:
            self._send(request, context, itertools.chain([first], chunks))
            return self._answer(request)
        except BaseException:  # half a message cannot be taken back
            self._association.abort()
            raise

    def _context_for(self, stored: StoredObject) -> PresentationContext:
        """Return the presentation context to use: as stored, else Explicit, else Implicit VR Little Endian."""
        is_convertible = stored.transfer_syntax_uid in RECODABLE | DECODABLE
        for syntax in (stored.transfer_syntax_uid, *((EXPLICIT, IMPLICIT) if is_convertible else ())):
            if (context := self._contexts.get((stored.sop_class_uid, syntax))) is not None:
                return context
        raise CannotUnderstandError(_NO_CONTEXT)

    def _request(self, stored: StoredObject) -> C_STORE:
        request = C_STORE()
        request.MessageID = next(self._numbers)
        request.Priority = 2
        request.AffectedSOPClassUID = UID(stored.sop_class_uid)
        request.AffectedSOPInstanceUID = UID(stored.sop_instance_uid)
        if self._originator is not None:
            request.MoveOriginatorApplicationEntityTitle = self._originator.ae_title
            request.MoveOriginatorMessageID = self._originator.message_id
        return request

    def _send(self, request: C_STORE, context: PresentationContext, chunks: Iterator[bytes]) -> None:
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        message.command_set.CommandDataSetType = _DATA_FOLLOWS
        context_id = context.context_id or 0
        for part in message.encode_msg(context_id, self._fragment_length + 6):
            self._hand_over(part)
        for fragment, is_last in _fragments(chunks, self._fragment_length):
            part = P_DATA()
            part.presentation_data_value_list.append((context_id, (b"\2" if is_last else b"\0") + fragment))
            self._hand_over(part)

    @property
    def _fragment_length(self) -> int:
        return min(self._association.dimse.maximum_pdu_size or _FRAGMENT_LIMIT, _FRAGMENT_LIMIT) - 6

    def _hand_over(self, part: P_DATA) -> None:
        """Give a fragment to the upper layer once there is room; DestinationAwayError where the peer takes nothing."""
        dul = self._association.dul
        deadline = time.monotonic() + self._timeout_s
        while dul.to_provider_queue.qsize() >= _FRAGMENTS_WAITING:
            if has_ended(self._association):
                raise DestinationAwayError("the association has ended")
            if time.monotonic() > deadline:
                raise DestinationAwayError("the peer takes no data")
            time.sleep(_LOOK_S)
        if has_ended(self._association):
            raise DestinationAwayError("the association has ended")
        dul.send_pdu(part)

    def _answer(self, request: C_STORE) -> int:
        _, answer = self._association.dimse.get_msg(block=True)
        if answer is None:
            raise DestinationAwayError("no answer to C-STORE")
        is_answer = isinstance(answer, C_STORE) and answer.MessageIDBeingRespondedTo == request.MessageID
        if not is_answer or answer.Status is None:
            raise DestinationAwayError("something else than the answer to C-STORE")
        return int(answer.Status)


def has_ended(association: Association) -> bool:
    """Say whether the peer has released or aborted an association, or its connection has broken."""
    return not association.is_established or association.dul.peek_next_pdu() is not None


def _as_stored(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(read_part10(stream).data_set_offset)
        while chunk := stream.read(_FRAGMENT_LIMIT):
            yield chunk


def _made_ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Take the first `_MADE_AHEAD` bytes now, so that what cannot be made is known before it is begun to be sent."""
    at_hand: list[bytes] = []
    size = 0
    for chunk in chunks:
        at_hand.append(chunk)
        size += len(chunk)
        if size >= _MADE_AHEAD:
            break
    return itertools.chain(at_hand, chunks)


def _fragments(chunks: Iterable[bytes], length: int) -> Iterator[tuple[bytes, bool]]:
    """Cut chunks into fragments of a length; the last one is marked."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        start = 0
        while len(waiting) - start > length:
            yield bytes(memoryview(waiting)[start : start + length]), False
            start += length
        del waiting[:start]
    yield bytes(waiting), True
