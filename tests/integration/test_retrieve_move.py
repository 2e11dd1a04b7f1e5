"""C-MOVE: how it goes is told; destinations that are unknown, absent or hang; cancelled and long ones."""

from __future__ import annotations

import threading
import time

import pytest
from pydicom.dataset import Dataset

from gateway.association import Limits
from gateway.config import DicomAddress
from gateway.store import Store
from tests.delivering import silent_peer
from tests.querying import (
    FIND_STUDY,
    MOVE_STUDY,
    answering,
    ask,
    asking,
    get,
    identifier,
    in_background,
    move,
    target,
)
from tests.receiving import (
    CT,
    EXPLICIT,
    IMPLICIT,
    Running,
    Sending,
    associated,
    image,
    rows,
    send,
    sending,
    until,
)
from tests.services.process import HANGS_S, LOOPBACK, free_port

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

STUDY = "1.2.3.1"
J2K = "1.2.840.10008.1.2.4.90"
US = "1.2.840.10008.5.1.4.1.1.6.1"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


def _fill(running: Running, images: list[Sending]) -> None:
    before = len(rows(running.store))
    with associated(running.port, images) as association:
        for each in images:
            answer = send(association, each)
            assert answer is not None
            assert answer.status == 0
    until(lambda: len(rows(running.store)) == before + len(images), "all indexed")


def _numbered(count: int, **changes: object) -> list[Dataset]:
    return [
        image(STUDY, SOPInstanceUID=f"{STUDY}.1.{number}", InstanceNumber=number, **changes) for number in range(count)
    ]


def _whole_study(uid: str = STUDY) -> Dataset:
    return identifier("STUDY", StudyInstanceUID=uid)


def test_a_move_tells_how_it_goes_and_who_asked(local_store: Store) -> None:
    """Of four objects one is refused and one coerced: pending responses, B000, the refused one, the originator."""
    answers = {f"{STUDY}.1.1": 0xA700, f"{STUDY}.1.2": 0xB000}

    with target(lambda one: answers.get(one.SOPInstanceUID, 0), [(CT, IMPLICIT)]) as peer:  # noqa: SIM117 # reads better
        with answering(local_store, [peer.address]) as running, asking(running.port, [MOVE_STUDY]) as association:
            _fill(running, [sending(each) for each in _numbered(4)])
            got = move(association, _whole_study(), "TARGET")

    assert (got.status, got.counts, got.pending) == (0xB000, (2, 1, 1), 3)
    assert got.failed == [f"{STUDY}.1.1"]
    assert got.comment == "the peer answered 0xA700"
    assert [each.InstanceNumber for each in peer.received] == [0, 1, 2, 3]
    assert peer.originators == [("VIEWER", 1)] * 4


def test_unknown_and_absent_destinations_are_told_apart(local_store: Store) -> None:
    """A801 for an AE title that is not configured; A702 with all failed for one where nobody answers."""
    absent = DicomAddress("ABSENT", LOOPBACK, free_port())
    unnamed = DicomAddress("NAMELESS", "no.such.host.invalid", 104)

    with answering(local_store, [absent, unnamed]) as running, asking(running.port, [MOVE_STUDY]) as association:
        _fill(running, [sending(each) for each in _numbered(2)])
        unknown = move(association, _whole_study(), "NOBODY")
        away = move(association, _whole_study(), "ABSENT")
        nameless = move(association, _whole_study(), "NAMELESS")

    assert (unknown.status, unknown.comment) == (0xA801, "the move destination is not in move_destinations")
    assert (away.status, away.counts) == (0xA702, (0, 2, 0))
    assert away.failed == [f"{STUDY}.1.0", f"{STUDY}.1.1"]
    assert away.comment == "ABSENT does not answer"
    assert (nameless.status, nameless.comment) == (0xA702, "the host of NAMELESS is unknown")


def test_a_destination_that_hangs_ends_in_time_and_holds_up_nobody(local_store: Store) -> None:
    """While one C-MOVE waits for a peer that says nothing, another association stores and queries; then A702."""
    with (
        silent_peer() as port,
        answering(local_store, [DicomAddress("SILENT", LOOPBACK, port)], timeout_s=10) as running,
    ):
        _fill(running, [sending(each) for each in _numbered(2)])
        outcome: list[int] = []

        def hang() -> None:
            with asking(running.port, [MOVE_STUDY]) as association:
                outcome.append(move(association, _whole_study(), "SILENT").status)

        hanging = in_background(hang)
        others = get(running.port, _whole_study(), {CT: []})
        outcome_meanwhile = list(outcome)
        hanging.join(HANGS_S)

    assert others.status == 0
    assert outcome_meanwhile == []
    assert outcome == [0xA702]


def test_a_move_can_be_cancelled(local_store: Store) -> None:
    """C-CANCEL after the second of twenty objects: FE00 with what is done and what remains, nothing more is sent."""
    is_cancelled = threading.Event()

    def slowly(one: Dataset) -> int:
        if one.InstanceNumber >= 2:
            assert is_cancelled.wait(HANGS_S)
            time.sleep(0.5)  # a cancel is on its way, and the receiver looks for it between two objects
        return 0

    with (
        target(slowly, [(CT, EXPLICIT)]) as peer,
        answering(local_store, [peer.address], timeout_s=HANGS_S) as running,
    ):
        _fill(running, [sending(each) for each in _numbered(20)])
        with asking(running.port, [MOVE_STUDY]) as association:
            statuses = []
            for status, _ in association.send_c_move(_whole_study(), "TARGET", MOVE_STUDY, msg_id=9):
                statuses.append(status)
                if len(statuses) == 2:
                    association.send_c_cancel(9, query_model=MOVE_STUDY)
                    is_cancelled.set()
    last = statuses[-1]

    assert last.Status == 0xFE00
    assert last.NumberOfCompletedSuboperations == len(peer.received) < 10
    assert last.NumberOfRemainingSuboperations == 20 - len(peer.received)


def test_a_long_move_does_not_make_its_association_idle(local_store: Store) -> None:
    """A C-MOVE that takes longer than the idle timeout leaves an association that answers the next question."""

    def slowly(_one: Dataset) -> int:
        time.sleep(1.3)
        return 0

    impatient = Limits(reserve_bytes=0, drain_s=2, idle_timeout_s=4)
    with target(slowly, [(CT, EXPLICIT)]) as peer, answering(local_store, [peer.address], limits=impatient) as running:
        _fill(running, [sending(each) for each in _numbered(4)])
        with asking(running.port, [MOVE_STUDY, FIND_STUDY]) as association:
            moved = move(association, _whole_study(), "TARGET")
            found = ask(association, FIND_STUDY, _whole_study())

    assert (moved.status, moved.counts) == (0, (4, 0, 0))
    assert len(found.answers) == 1
