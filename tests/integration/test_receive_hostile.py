"""Peers that connect and say nothing, stop in the middle, or send what no peer should."""

from __future__ import annotations

import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom.uid import generate_uid
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from gateway.admission import Admission
from gateway.association import Limits
from gateway.config import DicomAddress
from gateway.config.peers import Peer
from gateway.doctor import echo
from gateway.store import Store
from tests.fuzz.peer import associate_rq
from tests.receiving import (
    CT,
    EXPLICIT,
    Running,
    Sending,
    associated,
    encoded,
    image,
    kept_files,
    over,
    receiving,
    rows,
    send,
    send_one,
    sending,
    spooled_files,
    until,
)

HASTY = Limits(reserve_bytes=0, association_timeout_s=1.0, idle_timeout_s=2.0, drain_s=1)
_THREADS_OF_AN_ADDRESS = 2 * 64 + 32
"""Two for each connection that may wait, and those that are just ending."""


@pytest.fixture(params=["fast", "stock"], autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file holds for both paths."""
    with over(request.param):
        yield


def _connect(running: Running, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=60, source_address=(source, 0))


def _threads_of(running: Running, before: int) -> None:
    until(lambda: threading.active_count() <= before, f"{threading.active_count()} threads, {before} before")


def test_bare_connections_leave_nothing(local_store: Store) -> None:
    """200 connections that close at once and 50 that say nothing cost nothing; a sender is served meanwhile."""
    limits = replace(HASTY, association_timeout_s=5.0)  # the sender needs some of it, too, among 250 others

    with receiving(local_store, limits) as running:
        before = threading.active_count()
        for _ in range(200):
            _connect(running).close()
        silent = [_connect(running) for _ in range(50)]
        meanwhile = send_one(running.port, sending(image()))
        closed_by_us = [peer.recv(1) for peer in silent]
        _threads_of(running, before)
        for peer in silent:
            peer.close()
        counters = running.counters

    assert meanwhile is not None
    assert meanwhile.status == 0
    assert closed_by_us == [b""] * 50
    assert counters["hybridmed_connections_bare_total"] == 250
    assert len(rows(local_store)) == 1
    assert spooled_files(local_store) == []


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.1"], ids=["elsewhere", "the sender's address"])
@pytest.mark.parametrize("said", [b"", b"\x01"], ids=["silent", "one byte"])
def test_a_crowd_without_associations_keeps_nobody_out(local_store: Store, said: bytes, source: str) -> None:
    """300 that stay, with places for four: C-ECHO and C-STORE go through, of one that was before it, too."""
    limits = Limits(reserve_bytes=0, max_associations=4, drain_s=1, association_timeout_s=60)

    with receiving(local_store, limits) as running, ExitStack() as stack:
        those = [sending(image()) for _ in range(4)]
        senders = [stack.enter_context(associated(running.port, those[:1]))]
        before = threading.active_count()
        for _ in range(300):
            stack.enter_context(_connect(running, source)).sendall(said)
        crowd = threading.active_count() - before
        heard = echo(DicomAddress("HYBRIDMED", "127.0.0.1", running.port), "CT1")
        senders += [stack.enter_context(associated(running.port, [one])) for one in those[1:]]
        answers = [send(sender, one) for sender, one in zip(senders, those, strict=True)]
        with associated(running.port, [those[0]]) as fifth:
            refused = fifth.acceptor.primitive

    assert crowd <= _THREADS_OF_AN_ADDRESS
    assert heard
    assert [answer is not None and answer.status for answer in answers] == [0] * 4
    assert (refused.result, refused.result_source, refused.diagnostic) == (2, 3, 2)


def test_an_address_of_no_peer_is_closed_before_it_has_a_thread(local_store: Store) -> None:
    """Every peer has its addresses: who comes from another one is not waited for; the peer is served."""
    admission = Admission([Peer(ae_title="CT1", addresses=("127.0.0.1",))])

    with receiving(local_store, admission=admission) as running:
        before = threading.active_count()
        for _ in range(20):
            with _connect(running, "127.0.0.2") as stranger, suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
        after = threading.active_count()
        answer = send_one(running.port, sending(image()))
        counters = running.counters

    assert answer is not None
    assert after == before
    assert counters['hybridmed_connections_refused_total{reason="address of no peer"}'] == 20


@pytest.mark.parametrize(
    "said",
    [
        b"\x01",
        b"\x01\x00\x00\x00\x01\x00" + b"\x00" * 20,
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x06\x01\x03abcd",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["one byte", "half a request", "four gigabytes announced", "data first", "HTTP"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_half_associations_leave_nothing(local_store: Store, said: bytes) -> None:
    """What begins no association is ended within the time limit, and its threads with it."""
    with receiving(local_store, HASTY) as running:
        before = threading.active_count()
        peers = [_connect(running) for _ in range(5)]
        for peer in peers:
            peer.sendall(said)
        _threads_of(running, before)
        for peer in peers:
            peer.close()
        answer = send_one(running.port, sending(image()))

    assert answer is not None
    assert len(rows(local_store)) == 1


@pytest.mark.parametrize(
    "request_pdu",
    [
        struct.pack(">BxL", 1, 74) + bytes(74),
        associate_rq(CT, EXPLICIT).replace(b"\x20\0\0\x38\x01", b"\x20\0\0\x38\x10"),
    ],
    ids=["nothing but zeros", "an even presentation context id"],
)
def test_a_request_that_cannot_be_read_holds_no_place(local_store: Store, request_pdu: bytes) -> None:
    """As many broken A-ASSOCIATE-RQ as there are places: the next sender is served at once, not ten minutes later."""
    limits = Limits(reserve_bytes=0, max_associations=4, drain_s=1, association_timeout_s=600)

    with receiving(local_store, limits) as running:
        for _ in range(8):
            with _connect(running) as peer:
                peer.sendall(request_pdu)
                while peer.recv(4096):
                    continue
        until(lambda: send_one(running.port, sending(image())) is not None, "a sender that is served")


def _fragment(context_id: int, control: int, data: bytes) -> bytes:
    value = struct.pack(">LBB", len(data) + 2, context_id, control) + data
    return struct.pack(">BBL", 4, 0, len(value)) + value


@pytest.mark.parametrize("ending", ["abort", "close", "silence"])
def test_an_association_that_ends_in_the_middle_of_an_instance_leaves_nothing(local_store: Store, ending: str) -> None:
    """Abort, closed connection or silence within a C-STORE: the half-written file goes, and the threads end."""
    one = sending(image(BitsAllocated=8, PixelData=bytes(400_000)))

    with receiving(local_store, HASTY) as running:
        before = threading.active_count()
        with associated(running.port, [one]) as scu:
            peer = scu.dul.socket.socket
            _send_half(scu, one)
            until(lambda: len(spooled_files(local_store)) == 1, "an instance is being written")
            if ending == "abort":
                scu.abort()
            elif ending == "close":
                peer.shutdown(socket.SHUT_RDWR)
            until(lambda: spooled_files(local_store) == [], "the half-written file is gone")
        _threads_of(running, before)
        until(
            lambda: running.counters.get('hybridmed_associations_total{outcome="aborted"}') == 1, "its end is counted"
        )

    assert rows(local_store) == []
    assert kept_files(local_store) == []


def _send_half(scu: Association, one: Sending) -> None:
    """Send the command and half of the data set."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    request.DataSet = BytesIO(one.data)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    fragments = list(message.encode_msg(scu.accepted_contexts[0].context_id, 16384))
    for fragment in fragments[: len(fragments) // 2]:
        scu.dul.send_pdu(fragment)


@pytest.mark.parametrize(
    "fragments",
    [
        [(1, 0x02, b"data before any command")],
        [(1, 0x03, b"\xff" * 40)],
        [(1, 0x01, bytes(100_000))] * 12,
        [(99, 0x03, b"\x00" * 8)],
    ],
    ids=["no command", "nonsense", "endless command", "unknown context"],
)
def test_messages_that_break_the_rules_end_their_association(
    local_store: Store, fragments: list[tuple[int, int, bytes]]
) -> None:
    """A peer that breaks DIMSE is aborted; the next one is served."""
    one = sending(image())

    with receiving(local_store, HASTY) as running:
        before = threading.active_count()
        with associated(running.port, [one]) as scu:
            for fragment in fragments:
                scu.dul.socket.socket.sendall(_fragment(*fragment))
            until(lambda: not scu.is_established, "the association is aborted")
        _threads_of(running, before)
        answer = send_one(running.port, one)

    assert answer is not None
    assert answer.status == 0


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_command_with_a_wrong_uid_is_answered(local_store: Store) -> None:
    """An Affected SOP Instance UID that is none gets C000; the association goes on."""
    good = sending(image())
    wrong = [Sending(CT, uid, EXPLICIT, good.data) for uid in ("1.2.x", "1..2")]

    with receiving(local_store) as running, associated(running.port, [good]) as scu:
        answers = [send(scu, one) for one in (*wrong, good)]

    assert [answer.status for answer in answers if answer is not None] == [0xC000, 0xC000, 0]


def test_nesting_and_inflation_bombs_are_refused(local_store: Store) -> None:
    """Sequences without end, and a small deflated data set that inflates to a gigabyte: C000, in bounded time."""
    nested = (
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"
        + b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" * 50_000
    )
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    blank = b"\x08\x00\x01\x00UN\0\0" + (1 << 28).to_bytes(4, "little")
    bomb = deflater.compress(blank) + b"".join(deflater.compress(bytes(1 << 24)) for _ in range(16)) + deflater.flush()
    sendings = [
        Sending(CT, generate_uid(), EXPLICIT, nested),
        Sending(CT, generate_uid(), "1.2.840.10008.1.2.1.99", bomb),
        sending(image()),
    ]

    with receiving(local_store) as running, associated(running.port, sendings) as scu:
        answers = [send(scu, one) for one in sendings]

    assert [answer.status for answer in answers if answer is not None] == [0xC000, 0xC000, 0]


def test_encoding_is_told_from_the_data(local_store: Store) -> None:
    """A data set in the other VR encoding than its presentation context says is read all the same, and kept as sent."""
    data_set = image()
    lie = Sending(CT, data_set.SOPInstanceUID, EXPLICIT, encoded(data_set, "1.2.840.10008.1.2"))

    with receiving(local_store) as running:
        answer = send_one(running.port, lie)

    assert answer is not None
    assert answer.status == 0
    assert kept_files(local_store)[0].read_bytes().endswith(lie.data)
