"""Storage commitment over real associations: asked by N-ACTION, told by N-EVENT-REPORT, here or there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association

from gateway import commitment_service
from gateway.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, look_up
from gateway.config import DicomAddress
from gateway.delivery.commitments import CommitmentTeller, TellingLimits
from gateway.services import Counters, Heartbeat
from gateway.store import Store, commitments
from gateway.store.commitments import CommitmentRequest
from gateway.store.tables import commitment
from tests.querying import answering, asking
from tests.receiving import CT, EXPLICIT, Running, associated, image, rows, send, sending, until
from tests.services.process import HANGS_S, LOOPBACK, free_port

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

US = "1.2.840.10008.5.1.4.1.1.6.1"


@dataclass
class Heard:
    """The results that a peer was told."""

    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    """Event Type ID and event information."""
    status: int = 0
    """What the peer answers."""

    def take(self, event: evt.Event) -> tuple[int, None]:
        """Answer an N-EVENT-REPORT."""
        self.reports.append((event.request.EventTypeID, event.event_information))  # type: ignore[union-attr]
        return self.status, None

    @property
    def handlers(self) -> list[tuple[Any, Any]]:
        """What pynetdicom binds."""
        return [(evt.EVT_N_EVENT_REPORT, self.take)]


def _request(references: Sequence[tuple[str, str]], transaction_uid: str | None = None) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid or generate_uid()
    request.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        request.ReferencedSOPSequence.append(item)
    return request


def _ask(association: Association, request: Dataset, instance: str = PUSH_MODEL_INSTANCE, action: int = 1) -> int:
    status, _ = association.send_n_action(request, action, PUSH_MODEL, instance)
    assert "Status" in status, "the association was aborted"
    return int(status.Status)


def _store_some(running: Running, count: int = 3) -> list[tuple[str, str]]:
    images = [sending(image()) for _ in range(count)]
    with associated(running.port, images) as association:
        for each in images:
            answer = send(association, each)
            assert answer is not None
            assert answer.status == 0
    return [(each.sop_class_uid, each.sop_instance_uid) for each in images]


def _committed(report: Dataset) -> list[tuple[str, str]]:
    items = report.get("ReferencedSOPSequence") or []
    return [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in items]


def _failed(report: Dataset) -> list[tuple[str, str, int]]:
    items = report.get("FailedSOPSequence") or []
    return [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.FailureReason) for item in items]


def _states(store: Store) -> list[tuple[str, str | None]]:
    with store.read() as connection:
        rows_ = connection.execute(sa.select(commitment.c.state, commitment.c.reason).order_by(commitment.c.id))
        return [(row.state, row.reason) for row in rows_]


def test_all_is_committed_over_the_same_association(store: Store) -> None:
    """Three stored images: N-ACTION 0000, then event type 1 with all three and nothing failed; the row is done."""
    heard = Heard()

    with answering(store) as running:
        references = _store_some(running)
        request = _request(references)
        with asking(running.port, [PUSH_MODEL], evt_handlers=heard.handlers) as association:
            status = _ask(association, request)
            until(lambda: bool(heard.reports) and _states(store) == [("done", None)], "the result is told")

    ((event_type, report),) = heard.reports
    assert (status, event_type) == (0, 1)
    assert report.TransactionUID == request.TransactionUID
    assert sorted(_committed(report)) == sorted(references)
    assert "FailedSOPSequence" not in report
    assert running.counters['hybridmed_commitments_told_total{outcome="all_committed"}'] == 1


def test_what_is_missing_in_another_class_or_lost_fails_with_its_reason(local_store: Store) -> None:
    """Event type 2: 0112 for an unknown instance and one whose file is gone, 0119 for another class; one is good."""
    heard = Heard()
    unknown = (CT, generate_uid())

    with answering(local_store) as running:
        good, other_class, lost = _store_some(running)
        until(lambda: len(rows(local_store)) == 3, "indexed")
        path = next(row.path for row in rows(local_store) if row.sop_instance_uid == lost[1])
        (local_store.data_dir / path).unlink()
        with asking(running.port, [PUSH_MODEL], evt_handlers=heard.handlers) as association:
            _ask(association, _request([good, (US, other_class[1]), lost, unknown]))
            until(lambda: bool(heard.reports), "the result is told")

    ((event_type, report),) = heard.reports
    assert event_type == 2
    assert _committed(report) == [good]
    assert sorted(_failed(report)) == sorted([(US, other_class[1], 0x0119), (*lost, 0x0112), (*unknown, 0x0112)])


def test_images_of_the_same_association_are_committed_though_just_sent(local_store: Store) -> None:
    """Store and ask over one association at once: nothing is refused for not being indexed yet."""
    heard = Heard()
    images = [image() for _ in range(30)]

    with (
        answering(local_store) as running,
        asking(running.port, {CT: [EXPLICIT], PUSH_MODEL: ()}, evt_handlers=heard.handlers) as association,
    ):
        for each in images:
            assert send(association, sending(each)).status == 0  # type: ignore[union-attr]
        _ask(association, _request([(CT, each.SOPInstanceUID) for each in images]))
        until(lambda: bool(heard.reports), "the result is told")

    assert [event_type for event_type, _ in heard.reports] == [1]


def test_what_is_accepted_and_not_indexed_is_waited_for(local_store: Store) -> None:
    """While a file from before the request lies in the spool, a missing instance is not refused, for a while."""
    now = datetime.now(UTC)
    with local_store.write() as connection:
        asked = CommitmentRequest("1.2.3", "CT1", ((CT, "1.2.3.4"),), now)
        wanted = commitments.add_commitment(connection, asked, held_until=now)
    assert wanted is not None
    spool = local_store.data_dir / "incoming" / "some-receiver"
    spool.mkdir(parents=True)
    waiting = spool / "a_1.dcm"
    waiting.write_bytes(b"accepted")

    before = look_up(local_store, _asked_at(wanted, datetime.now(UTC)), now)
    much_later = look_up(local_store, _asked_at(wanted, datetime.now(UTC)), now + timedelta(hours=1))
    asked_earlier = look_up(local_store, _asked_at(wanted, now - timedelta(minutes=1)), now)
    waiting.unlink()
    afterwards = look_up(local_store, wanted, now)

    assert before is None
    assert much_later is not None
    assert [reason for *_, reason in much_later.failed] == [0x0213]
    for result in (asked_earlier, afterwards):
        assert result is not None
        assert [reason for *_, reason in result.failed] == [0x0112]


def _asked_at(wanted: commitments.Commitment, when: datetime) -> commitments.Commitment:
    values = {name: getattr(wanted, name) for name in wanted.__slots__}
    return commitments.Commitment(**values | {"created_at": when})


@contextmanager
def _telling(store: Store, peers: Mapping[str, DicomAddress]) -> Iterator[Heartbeat]:
    """Run what the role 'deliver' runs for commitments."""
    heartbeat = Heartbeat(store, "deliver", Counters())
    limits = TellingLimits(5.0, 2, timedelta(seconds=0.2), timedelta(seconds=1))
    teller = CommitmentTeller(store=store, heartbeat=heartbeat, ae_title="HYBRIDMED", peers=peers, limits=limits)
    stop = threading.Event()
    thread = threading.Thread(target=teller.run, args=(stop,))
    thread.start()
    try:
        yield heartbeat
    finally:
        stop.set()
        thread.join(HANGS_S)
        assert not thread.is_alive()


@contextmanager
def _listening(heard: Heard, address: DicomAddress) -> Iterator[None]:
    """Run the peer's own SCP, which takes results."""
    entity = AE(address.ae_title)
    entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
    server = entity.start_server((LOOPBACK, address.port), block=False, evt_handlers=heard.handlers)
    try:
        yield
    finally:
        server.shutdown()


@pytest.fixture
def slow_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a peer that releases at once have done so in time, however busy the computer is."""
    monkeypatch.setattr(commitment_service, "_GRACE_S", 600)


@pytest.mark.usefixtures("slow_to_tell")
def test_a_peer_that_releases_at_once_is_told_over_a_new_association(store: Store) -> None:
    """The result comes to the peer's own port, first closed, with the roles turned round; the row is done."""
    heard, at_once = Heard(), Heard()
    peer = DicomAddress("VIEWER", LOOPBACK, free_port())

    with answering(store, [peer]) as running, _telling(store, {"VIEWER": peer}) as heartbeat:
        references = _store_some(running)
        with asking(running.port, [PUSH_MODEL], evt_handlers=at_once.handlers) as association:
            status = _ask(association, _request(references))
        until(lambda: bool(_states(store)[0][1]), "a first try that finds nobody")
        with _listening(heard, peer):
            until(lambda: _states(store) == [("done", None)], "the result is told")

    ((event_type, report),) = heard.reports
    assert (status, event_type, at_once.reports) == (0, 1, [])
    assert sorted(_committed(report)) == sorted(references)
    assert heartbeat.counters.snapshot()['hybridmed_commitments_told_total{outcome="all_committed"}'] == 1


@pytest.mark.usefixtures("slow_to_tell")
def test_a_peer_that_says_no_is_given_up_after_some_tries(local_store: Store) -> None:
    """An N-EVENT-REPORT answered with a failure is repeated as often as allowed; then the row says why."""
    heard = Heard(status=0x0110)
    peer = DicomAddress("VIEWER", LOOPBACK, free_port())

    with answering(local_store, [peer]) as running, _listening(heard, peer), _telling(local_store, {"VIEWER": peer}):
        references = _store_some(running, 1)
        with asking(running.port, [PUSH_MODEL]) as association:
            _ask(association, _request(references))
        until(lambda: _states(local_store) == [("failed", "the peer answered 0x0110")], "given up")

    assert len(heard.reports) == 2


def test_a_peer_without_an_address_is_told_when_it_comes_again(local_store: Store) -> None:
    """Nobody can be called back: the row says what to set, and the next association of this peer hears the result."""
    heard = Heard()

    with answering(local_store) as running, _telling(local_store, {}):
        references = _store_some(running, 1)
        with asking(running.port, [PUSH_MODEL]) as association:
            _ask(association, _request(references))
        until(lambda: "move_destinations" in (_states(local_store)[0][1] or ""), "the row says so")
        with asking(running.port, [PUSH_MODEL], "OTHER", evt_handlers=heard.handlers):
            pass
        with asking(running.port, [PUSH_MODEL], evt_handlers=heard.handlers):
            until(lambda: _states(local_store) == [("done", None)], "told at last")

    assert [event_type for event_type, _ in heard.reports] == [1]


def test_a_transaction_uid_stands_for_one_request(local_store: Store) -> None:
    """The same request again is told again; the same Transaction UID for others fails with 0131."""
    heard = Heard()

    with answering(local_store) as running:
        first, second = _store_some(running, 2)
        with asking(running.port, [PUSH_MODEL], evt_handlers=heard.handlers) as association:
            for number, reference in enumerate((first, first, second), start=1):
                assert _ask(association, _request([reference], "1.2.3.4.5")) == 0
                until(lambda count=number: len(heard.reports) == count, "the result is told")  # type: ignore[misc]
        with asking(running.port, [PUSH_MODEL], "OTHER", evt_handlers=heard.handlers) as association:
            _ask(association, _request([second], "1.2.3.4.5"))
            until(lambda: len(heard.reports) == 4, "another peer may use it")

    assert [event_type for event_type, _ in heard.reports] == [1, 1, 2, 1]
    assert _failed(heard.reports[2][1]) == [(*second, 0x0131)]


def test_a_result_is_told_once_though_the_peer_has_two_associations(local_store: Store) -> None:
    """The association that comes later takes what an earlier one has yet to tell; the earlier one says nothing."""
    earlier, later = Heard(), Heard()

    with answering(local_store) as running:
        references = _store_some(running, 1)
        with asking(running.port, [PUSH_MODEL], evt_handlers=earlier.handlers) as association:
            _ask(association, _request(references))
            with asking(running.port, [PUSH_MODEL], evt_handlers=later.handlers):
                until(lambda: _states(local_store) == [("done", None)], "told")
                time.sleep(2 * commitment_service._LOOK_S)

    assert len(earlier.reports) + len(later.reports) == 1


def test_what_waits_long_to_be_told_is_still_held(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a file lies in the spool the result waits; the hold is renewed, so that the role `deliver` leaves it."""
    monkeypatch.setattr(commitment_service, "_RENEW_S", 0.2)
    monkeypatch.setattr(commitment_service, "_HOLD", timedelta(seconds=4))
    heard, here = Heard(), Heard()
    peer = DicomAddress("VIEWER", LOOPBACK, free_port())
    waiting = local_store.data_dir / "incoming" / "some-receiver" / "a_1.dcm"

    with (
        answering(local_store, [peer]) as running,
        _listening(heard, peer),
        _telling(local_store, {"VIEWER": peer}),
        asking(running.port, [PUSH_MODEL], evt_handlers=here.handlers) as association,
    ):
        waiting.parent.mkdir(parents=True)
        waiting.write_bytes(b"accepted")
        _ask(association, _request([(CT, "1.2.3.4")]))
        time.sleep(6)
        waiting.unlink()
        until(lambda: bool(here.reports) and _states(local_store)[0][0] == "done", "told over the association")

    assert (len(here.reports), heard.reports) == (1, [])


@pytest.mark.parametrize(
    ("request_", "instance", "action", "status"),
    [
        (_request([(CT, "1.2.3")]), "1.2.3.4", 1, 0x0112),
        (_request([(CT, "1.2.3")]), PUSH_MODEL_INSTANCE, 2, 0x0123),
        (_request([]), PUSH_MODEL_INSTANCE, 1, 0x0115),
        (Dataset(), PUSH_MODEL_INSTANCE, 1, 0x0115),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    local_store: Store, request_: Dataset, instance: str, action: int, status: int
) -> None:
    """A wrong instance, action or content gets its status of PS3.7, and no row."""
    with answering(local_store) as running, asking(running.port, [PUSH_MODEL]) as association:
        request_.PatientComments = ""  # an empty data set would not be sent
        answered = _ask(association, request_, instance, action)

    assert answered == status
    assert _states(local_store) == []


def test_a_receiver_that_was_killed_leaves_its_transactions(store: Store) -> None:
    """A row that a receiver holds is taken once the hold is over, by one only, and is forgotten long after."""
    now = datetime.now(UTC)
    with store.write() as connection:
        asked = CommitmentRequest("1.2.3", "CT1", ((CT, "1.2.3.4"),), now)
        commitments.add_commitment(connection, asked, held_until=now + timedelta(minutes=2))
    later = now + timedelta(minutes=3)

    with store.write() as connection:
        early = commitments.list_due(connection, now, 10)
        (due,) = commitments.list_due(connection, later, 10)
        taken = [commitments.hold(connection, due, later + timedelta(minutes=1)) for _ in range(2)]
        assert taken[0] is not None
        commitments.finish(connection, taken[0], later, "1 of 1 failed")
        kept = commitments.forget_told(connection, later - timedelta(days=1))
        forgotten = commitments.forget_told(connection, later + timedelta(days=1))

    assert early == []
    assert due.referenced == ((CT, "1.2.3.4"),)
    assert taken[1] is None
    assert (kept, forgotten) == (0, 1)
