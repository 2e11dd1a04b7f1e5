"""P-DATA as it lies in the buffer: the same fragments however the bytes were cut on their way."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.receive.data_transfer import DataTransfer

_LAST, _COMMAND = 2, 1


@dataclass
class _Peer:
    """The buffer of a connection."""

    view: memoryview = field(default_factory=lambda: memoryview(bytearray(1 << 16)))
    start: int = 0
    end: int = 0
    largest_pdu: int = 1 << 15
    pdu_timeout_s: float = 30.0
    due_at: float | None = None
    is_unread: bool = False

    def put(self, data: bytes) -> None:
        held = bytes(self.view[self.start : self.end])
        self.start, self.end = 0, len(held) + len(data)
        self.view[: self.end] = held + data


@dataclass
class _Sink:
    """A service for which a command opens a data set, and the last fragment closes it."""

    is_receiving: bool = False
    said: list[tuple[str, int, bytes]] = field(default_factory=list)
    _data: bytes = b""
    _context_id: int = 0

    def receive_data(self, context_id: int, pieces: list[memoryview]) -> None:
        self._data += b"".join(pieces)
        self._context_id = context_id

    def end_data(self) -> None:
        self.said.append(("data", self._context_id if self._data else 0, self._data))
        self._data, self.is_receiving = b"", False

    def receive_fragment(self, context_id: int, fragment: bytes) -> None:
        self.said.append(("fragment", context_id, fragment))
        self.is_receiving = fragment[:1] == bytes((_COMMAND | _LAST,))


def _pdu(*values: tuple[int, int, bytes]) -> bytes:
    body = b"".join(struct.pack(">LBB", len(data) + 2, cid, control) + data for cid, control, data in values)
    return struct.pack(">BxL", 4, len(body)) + body


def _received(stream: bytes, cuts: list[int]) -> list[tuple[str, int, bytes]]:
    peer, sink = _Peer(), _Sink()
    transfer = DataTransfer(peer, sink)  # type: ignore[arg-type] # a buffer without a connection
    at = 0
    for cut in [*cuts, len(stream)]:
        peer.put(stream[at : at + cut])
        at = min(len(stream), at + cut)
        assert transfer.receive()
    assert peer.due_at is None
    return sink.said


@given(
    data=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    are_together=st.booleans(),
    cuts=st.lists(st.integers(min_value=1, max_value=400), max_size=40),
)
def test_fragments_do_not_depend_on_where_the_stream_was_cut(
    data: list[bytes], are_together: bool, cuts: list[int]
) -> None:
    """One PDU for all values or one for each, cut anywhere: a command, then the whole data set, twice."""
    values = [(1, _COMMAND | _LAST, b"command")]
    values += [(1, _LAST if at == len(data) - 1 else 0, piece) for at, piece in enumerate(data)]
    message = _pdu(*values) if are_together else b"".join(_pdu(value) for value in values)

    said = _received(message * 2, cuts)

    whole = b"".join(data)
    once = [("fragment", 1, b"\x03command"), ("data", 1 if whole else 0, whole)]
    assert said == once * 2


def test_another_pdu_is_left_to_the_library() -> None:
    """Behind P-DATA comes an A-RELEASE-RQ: it stays in the buffer, whole."""
    peer, sink = _Peer(), _Sink()
    release = struct.pack(">BxL4x", 5, 4)
    peer.put(_pdu((1, _COMMAND | _LAST, b"c")) + release)

    is_data = DataTransfer(peer, sink).receive()  # type: ignore[arg-type] # as above

    assert not is_data
    assert bytes(peer.view[peer.start : peer.end]) == release
    assert sink.said == [("fragment", 1, b"\x03c")]


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (struct.pack(">BxLLBB", 4, 8, 100, 1, 3), ValueError),
        (struct.pack(">BxLLBB", 4, 6, 1, 1, 3), ValueError),
        (struct.pack(">BxLLBB", 4, 3, 2, 1, 3), ValueError),
        (struct.pack(">BxL", 4, 0xFFFFFFFF), OSError),
    ],
)
def test_lengths_that_do_not_add_up_end_the_association(stream: bytes, error: type[Exception]) -> None:
    """A value longer than its PDU, one shorter than its own header, a PDU over the limit."""
    peer = _Peer()
    peer.put(stream)

    with pytest.raises(error):
        DataTransfer(peer, _Sink()).receive()  # type: ignore[arg-type] # as above


def test_a_pdu_that_never_ends_is_ended() -> None:
    """A PDU of which another byte comes now and then is over once its time is."""
    peer = _Peer(pdu_timeout_s=0.0)
    transfer = DataTransfer(peer, _Sink())  # type: ignore[arg-type] # as above
    peer.put(struct.pack(">BxLLBB", 4, 1006, 1002, 1, 3))
    assert transfer.receive()
    peer.put(b"x")

    with pytest.raises(TimeoutError):
        transfer.receive()


def test_each_pdu_has_its_own_time() -> None:
    """A stream whose reads always end within a PDU is not slow: the limit begins anew with every PDU."""
    peer = _Peer()
    transfer = DataTransfer(peer, _Sink(is_receiving=True))  # type: ignore[arg-type] # as above
    pdu = _pdu((1, 0, bytes(100)))
    peer.put(pdu[:50])
    assert transfer.receive()
    first = peer.due_at
    peer.put(pdu[50:] + pdu[:50])
    assert transfer.receive()

    assert first is not None
    assert peer.due_at is not None
    assert peer.due_at > first
