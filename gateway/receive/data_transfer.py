"""P-DATA-TF PDUs (PS3.8 9.3.5) -> fragments of messages, as they lie in the receive buffer.

A fragment of a C-STORE's data set is handed on piece by piece, before the rest of it has come: a PDU of any size costs
no memory. Every other fragment is put together first.
"""

from __future__ import annotations

import struct
import time
from typing import Protocol

from gateway.receive.peer_buffer import BufferedPeerSocket

_PDU_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LBB")
_P_DATA_TF = 4
_IS_COMMAND, _IS_LAST = 0x01, 0x02  # message control header, annex E.2


class FragmentSink(Protocol):
    """The DIMSE service of an association."""

    @property
    def is_receiving(self) -> bool:
        """Whether the next fragment of a data set belongs to a C-STORE."""

    def receive_data(self, context_id: int, pieces: list[memoryview]) -> None:
        """Take pieces of the data set of a C-STORE; they are overwritten after this call."""

    def end_data(self) -> None:
        """Take note that the data set of a C-STORE is complete, and answer."""

    def receive_fragment(self, context_id: int, fragment: bytes) -> None:
        """Take any other fragment with its message control header."""


class DataTransfer:
    """What one association sends while it is established.

    Parameters
    ----------
    peer
        The connection.
    sink
        Where fragments go.
    """

    def __init__(self, peer: BufferedPeerSocket, sink: FragmentSink) -> None:
        self._peer = peer
        self._sink = sink
        self._pdu_left = 0
        self._value_left = 0
        self._context_id = self._control = 0
        self._is_data = False
        self._pieces: list[memoryview] = []
        self._fragment = bytearray()

    def receive(self) -> bool:
        """Take what lies in the buffer; False where another PDU than P-DATA begins, which is the library's to read.

        Raises
        ------
        ValueError
            The PDU is not built as it should be, or its message breaks the rules.
        OSError
            A PDU longer or slower than the limit.
        """
        peer = self._peer
        peer.is_unread = False
        while True:
            if self._value_left:
                if not self._take_value():
                    break
            elif self._pdu_left:
                if peer.end - peer.start < _PDV_HEADER.size:
                    break
                self._begin_value()
            elif peer.end - peer.start < _PDU_HEADER.size:
                break
            elif not self._begin_pdu():
                return False
        self._flush()
        self._note_time(peer.end > peer.start)
        return True

    def _begin_pdu(self) -> bool:
        kind, length = _PDU_HEADER.unpack_from(self._peer.view, self._peer.start)
        self._peer.due_at = None  # each PDU has its own time, however many come without a pause
        if kind != _P_DATA_TF:
            return False
        if length > self._peer.largest_pdu:
            raise OSError("PDU longer than the limit")
        self._peer.start += _PDU_HEADER.size
        self._pdu_left = length
        return True

    def _begin_value(self) -> None:
        length, context_id, self._control = _PDV_HEADER.unpack_from(self._peer.view, self._peer.start)
        if context_id != self._context_id:
            self._flush()
            self._context_id = context_id
        self._peer.start += _PDV_HEADER.size
        self._pdu_left -= 4 + length
        self._value_left = length - 2
        if self._pdu_left < 0 or self._value_left < 0:
            raise ValueError("a presentation data value that does not fit its PDU")
        self._is_data = self._sink.is_receiving and not self._control & _IS_COMMAND
        if self._value_left == 0:
            self._end_value()

    def _take_value(self) -> bool:
        """Take of a fragment what is there; False where nothing is."""
        peer = self._peer
        count = min(self._value_left, peer.end - peer.start)
        if count == 0:
            return False
        piece = peer.view[peer.start : peer.start + count]
        peer.start += count
        self._value_left -= count
        if self._is_data:
            self._pieces.append(piece)
        else:
            self._fragment += piece
        if self._value_left == 0:
            self._end_value()
        return True

    def _end_value(self) -> None:
        if self._is_data:
            if self._control & _IS_LAST:
                self._flush()
                self._sink.end_data()
            return
        fragment = bytes((self._control,)) + self._fragment
        self._fragment.clear()
        self._sink.receive_fragment(self._context_id, fragment)

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._sink.receive_data(self._context_id, pieces)

    def _note_time(self, is_header_cut: bool) -> None:
        """Begin or end the time limit of a PDU."""
        peer = self._peer
        if not (self._pdu_left or self._value_left or is_header_cut):
            peer.due_at = None
        elif peer.due_at is None:
            peer.due_at = time.monotonic() + peer.pdu_timeout_s
        elif time.monotonic() > peer.due_at:
            raise TimeoutError("PDU slower than the limit")
