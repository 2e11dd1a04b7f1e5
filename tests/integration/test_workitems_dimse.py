"""Unified Procedure Step over DIMSE: pynetdicom as the SCU of every SOP class, and as the one that is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined] # made at import
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from gateway.calling import PromptEntity
from gateway.config import DicomAddress
from gateway.job import State
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.jobs import list_jobs
from gateway.store.workitem_events import Listener, write_events
from gateway.workitem.dimse import UnifiedProcedureSteps
from gateway.workitem.mapping import Origin
from gateway.workitem.model import content_of, dataset_of
from gateway.workitem.state import EventType
from gateway.workitem.teller import Teller, TellerLimits
from tests.receiving import receiving
from tests.services.process import free_port
from tests.upsteps import GLOBAL, creation, make_worklist, performed, progress, take_study
from tests.working import eventually, running

# pynetdicom drops the socket of a refused connection without closing it; the interpreter closes it at once and warns.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

CLAIM, OTHER_CLAIM = "1.2.840.99.1", "1.2.840.99.2"
CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = range(1, 6)
PUSH, PULL, WATCH, QUERY = (
    UnifiedProcedureStepPush,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepWatch,
    UnifiedProcedureStepQuery,
)


@pytest.fixture
def store(local_store: Store) -> Store:
    """Give a store with one complete study."""
    take_study(local_store)
    return local_store


@pytest.fixture
def port(store: Store) -> Iterator[int]:
    """Give the port of a receiver that serves workitems and may tell WATCHER."""
    worklist = make_worklist(store, reachable=["WATCHER"])
    origin = Origin("HYBRIDMED", "http://127.0.0.1:8080/dicomweb")
    steps = UnifiedProcedureSteps(worklist.workitems, worklist.subscribing, origin)
    with receiving(store, services=lambda _: [steps]) as receiver:
        yield receiver.port


@contextmanager
def associated(port: int, *sop_classes: str, heard: list[Dataset] | None = None) -> Iterator[Association]:
    """Give an association for SOP classes; the command sets of answers are added to `heard`."""
    entity = PromptEntity("TESTER")
    for sop_class in sop_classes:
        entity.add_requested_context(sop_class)
    answers: list[Dataset] = [] if heard is None else heard
    handlers = [(evt.EVT_DIMSE_RECV, lambda event: answers.append(event.message.command_set))]
    association = entity.associate("127.0.0.1", port, ae_title="HYBRIDMED", evt_handlers=handlers)
    assert association.is_established
    assert len(association.accepted_contexts) == len(sop_classes)
    try:
        yield association
    finally:
        association.release()


def create(port: int, uid: str | None = "1.2.3.44", **more: Any) -> str:
    """N-CREATE a workitem; return its UID."""
    heard: list[Dataset] = []
    with associated(port, PUSH, heard=heard) as association:
        status, _ = association.send_n_create(dataset_of(creation(**more)), PUSH, uid)
    assert status.Status == 0x0000, hex(status.Status)
    return str(heard[0].AffectedSOPInstanceUID)


def act(port: int, sop_class: str, action: int, uid: str, **values: str) -> int:
    """Send an N-ACTION in a context of this SOP class; return the status."""
    information = Dataset()
    for keyword, text in values.items():
        setattr(information, keyword, text)
    with associated(port, sop_class) as association:
        # pynetdicom announces an empty data set that it then does not send.
        status, _ = association.send_n_action(information if values else None, action, PUSH, uid)
    return int(status.Status)


def change_state(port: int, uid: str, state: str, transaction: str = CLAIM) -> int:
    """Ask for a change of state; return the status."""
    return act(port, PULL, CHANGE_STATE, uid, ProcedureStepState=state, TransactionUID=transaction)


def update(port: int, uid: str, content: dict[str, Any], transaction: str = CLAIM) -> int:
    """N-SET attributes as the performer; return the status."""
    changes = dataset_of(content)
    changes.TransactionUID = transaction
    with associated(port, PULL) as association:
        status, _ = association.send_n_set(changes, PUSH, uid)
    return int(status.Status)


def get(port: int, uid: str, tags: Sequence[int] = ()) -> tuple[int, Dataset]:
    """N-GET a workitem; return status and attributes."""
    with associated(port, PULL) as association:
        status, dataset = association.send_n_get(list(tags), PUSH, uid)
    return int(status.Status), dataset or Dataset()


def find(port: int, sop_class: str, **keys: str) -> tuple[list[Dataset], list[int]]:
    """C-FIND workitems; return what was found and all statuses."""
    identifier = Dataset()
    for keyword, text in {"SOPInstanceUID": "", "ProcedureStepState": "", "PatientName": "", **keys}.items():
        setattr(identifier, keyword, text)
    with associated(port, sop_class) as association:
        answers = list(association.send_c_find(identifier, sop_class))
    return [dataset for _, dataset in answers if dataset is not None], [int(status.Status) for status, _ in answers]


def test_the_whole_life_of_a_step(port: int, store: Store) -> None:
    """Push creates it, Pull claims, reports, writes outputs and completes it; N-GET reads what became of it."""
    uid = create(port)

    assert uid == "1.2.3.44"
    assert change_state(port, uid, "IN PROGRESS") == 0x0000
    assert update(port, uid, progress("60")) == 0x0000
    assert update(port, uid, performed()) == 0x0000
    status, halfway = get(port, uid)
    assert status == 0x0000
    assert halfway.ProcedureStepState == "IN PROGRESS"
    assert "TransactionUID" not in halfway
    assert halfway.PatientName == "Doe^Jane"
    assert halfway.InputInformationSequence[0].DICOMRetrievalSequence[0].RetrieveAETitle == "HYBRIDMED"
    assert change_state(port, uid, "COMPLETED") == 0x0000
    assert change_state(port, uid, "COMPLETED") == 0xB306
    with store.read() as connection:
        assert list_jobs(connection)[0].state is State.DONE


def test_a_uid_is_given_where_none_came(port: int, store: Store) -> None:
    """N-CREATE without a UID answers with ours; with modifications it says so, and a UID used before is refused."""
    uid = create(port, None)

    heard: list[Dataset] = []
    with associated(port, PUSH, heard=heard) as association:
        low = creation(label="other", **{"00741200": {"vr": "CS", "Value": ["LOW"]}})
        modified, _ = association.send_n_create(dataset_of(low), PUSH, None)
        twice, _ = association.send_n_create(dataset_of(low), PUSH, uid)

    assert uid.startswith("2.25.")
    assert modified.Status == 0xB300
    assert str(heard[0].AffectedSOPInstanceUID).startswith("2.25.")
    assert twice.Status == 0x0111


def test_creation_is_refused_with_its_status(port: int) -> None:
    """A wrong state, a missing attribute and an unknown study each have a status."""
    wrong_state = creation(**{"00741000": {"vr": "CS", "Value": ["COMPLETED"]}})
    missing = creation(**{"00741204": {"vr": "LO"}})
    with associated(port, PUSH) as association:
        statuses = [
            association.send_n_create(dataset_of(content), PUSH, None)[0].Status
            for content in (wrong_state, missing, creation(study="9.9"))
        ]

    assert statuses == [0xC309, 0x0120, 0x0106]


def test_changes_of_state_are_refused_with_their_status(port: int) -> None:
    """Each wrong step of PS3.4 table CC.2.1-2 is refused with its own status."""
    uid = create(port)

    assert change_state(port, uid, "COMPLETED") == 0xC310
    assert change_state(port, uid, "SCHEDULED") == 0xC303
    assert change_state(port, "1.2.3.99", "IN PROGRESS") == 0xC307
    assert change_state(port, uid, "IN PROGRESS") == 0x0000
    assert change_state(port, uid, "IN PROGRESS", OTHER_CLAIM) == 0xC302
    assert change_state(port, uid, "COMPLETED", OTHER_CLAIM) == 0xC301
    assert change_state(port, uid, "COMPLETED") == 0xC304
    assert update(port, uid, progress("1"), OTHER_CLAIM) == 0xC301
    assert change_state(port, uid, "CANCELED") == 0x0000
    assert change_state(port, uid, "CANCELED") == 0xB304
    assert update(port, uid, progress("1")) == 0xC300
    assert act(port, PUSH, REQUEST_CANCEL, uid) == 0xB304


def test_cancel_is_requested(port: int, store: Store) -> None:
    """By Push or Watch; a claimed step whose performer is not subscribed cannot be cancelled by others."""
    waiting = create(port)
    claimed = create(port, "1.2.3.45", label="other")
    change_state(port, claimed, "IN PROGRESS")

    assert act(port, PUSH, REQUEST_CANCEL, waiting) == 0x0000
    assert act(port, WATCH, REQUEST_CANCEL, claimed, ReasonForCancellation="no need") == 0xC312
    assert act(port, PULL, REQUEST_CANCEL, waiting) == 0x0123
    states = {step.SOPInstanceUID: step.ProcedureStepState for step in find(port, QUERY)[0]}
    assert states == {waiting: "CANCELED", claimed: "IN PROGRESS"}


@pytest.mark.parametrize("sop_class", [PULL, WATCH, QUERY])
def test_steps_are_found(port: int, sop_class: str) -> None:
    """C-FIND matches in every SOP class that has it, and returns what the identifier names."""
    uid = create(port)
    create(port, "1.2.3.45", label="other")

    by_label, statuses = find(port, sop_class, ProcedureStepLabel="thresh*", WorklistLabel="")
    by_name, _ = find(port, sop_class, PatientName="doe*")
    nobody, _ = find(port, sop_class, PatientID="P-2")
    unknown, warned = find(port, sop_class, StudyDescription="x", ProcedureStepLabel="other")

    assert [step.SOPInstanceUID for step in by_label] == [uid]
    assert statuses == [0xFF00, 0x0000]
    assert by_label[0].WorklistLabel == "HybridMed"
    assert "ScheduledProcedureStepPriority" not in by_label[0]
    assert len(by_name) == 2
    assert nobody == []
    assert (len(unknown), warned) == (1, [0xFF01, 0x0000])


def test_attributes_are_read_by_tag(port: int) -> None:
    """N-GET of some attributes returns them alone; one that no workitem has is a warning."""
    uid = create(port)

    status, some = get(port, uid, [0x00741000, 0x00741204])
    warned, _ = get(port, uid, [0x00741000, 0x00280010])
    missing, _ = get(port, "1.2.3.99")

    assert status == 0x0000
    assert {element.keyword for element in some} == {"ProcedureStepState", "ProcedureStepLabel"}
    assert (warned, missing) == (0x0001, 0xC307)


class Watcher:
    """An SCU of UPS Event that listens; `events` holds what it was told."""

    def __init__(self, port: int, status: int = 0x0000) -> None:
        self.events: list[tuple[str, int, Dataset]] = []
        self._status = status
        entity = AE("WATCHER")
        entity.add_supported_context(UnifiedProcedureStepEvent, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        self._server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        assert event.request.AffectedSOPClassUID == PUSH
        uid = str(event.request.AffectedSOPInstanceUID)
        information = Dataset()
        information.update(event.event_information)
        self.events.append((uid, int(event.event_type), information))
        return self._status, None

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()


def teller(store: Store, port: int) -> Teller:
    """Return a teller that knows where WATCHER listens."""
    limits = TellerLimits(timeout_s=5, retry_first=timedelta(milliseconds=50), retry_limit=timedelta(milliseconds=200))
    heartbeat = Heartbeat(store, "deliver", Counters())
    return Teller(store, heartbeat, "HYBRIDMED", {"WATCHER": DicomAddress("WATCHER", "127.0.0.1", port)}, limits)


def cancel_by_web(store: Store, uid: str) -> object:
    """Request a cancellation as UPS-RS does, with a reason that needs a character set."""
    reason = {"00741238": {"vr": "LT", "Value": ["genug für heute: 十分"]}}
    return make_worklist(store).workitems.request_cancel(uid, reason, "NURSE")


def subscribe(port: int, uid: str, action: int = SUBSCRIBE, receiver: str = "WATCHER") -> int:
    """Ask for a subscription; return the status."""
    return act(port, WATCH, action, uid, ReceivingAE=receiver, DeletionLock="FALSE")


def test_a_subscriber_is_told_over_dimse(port: int, store: Store) -> None:
    """A global subscriber is told of restart, creation, claim, progress, a request to cancel and the end, in order."""
    where = free_port()
    watcher = Watcher(where)
    assert subscribe(port, GLOBAL) == 0x0000

    with running(teller(store, where)):
        uid = create(port)
        change_state(port, uid, "IN PROGRESS")
        update(port, uid, progress("50"))
        assert cancel_by_web(store, uid) is None
        change_state(port, uid, "CANCELED")
        eventually(lambda: len(watcher.events) == 6, "all events are told")
    watcher.close()

    assert sorted(kind for _, kind, _ in watcher.events) == [1, 1, 1, 2, 3, 4]
    of_step = [(kind, told) for each, kind, told in watcher.events if each == uid]
    assert [kind for kind, _ in of_step] == [1, 1, 3, 2, 1]
    assert [told.ProcedureStepState for kind, told in of_step if kind == 1] == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    assert (of_step[3][1].RequestingAE, of_step[3][1].ReasonForCancellation) == ("NURSE", "genug für heute: 十分")
    restart = next(told for _, kind, told in watcher.events if kind == 4)
    assert (restart.SCPStatus, restart.SubscriptionListStatus) == ("RESTARTED", "WARM START")


def test_an_event_that_cannot_be_written_holds_up_nobody(port: int, store: Store) -> None:
    """What no data set can hold is dropped; what waits behind it is told."""
    where = free_port()
    watcher = Watcher(where)
    assert subscribe(port, GLOBAL) == 0x0000
    unwritable = {"00741004": {"vr": "DS", "Value": ["half"]}}
    with store.write() as connection:
        now = datetime.now(UTC)
        write_events(connection, [Listener("WATCHER", ("dimse",))], None, EventType.PROGRESS_REPORT, unwritable, now)
    uid = create(port)

    with running(teller(store, where)):
        eventually(lambda: len(watcher.events) == 2, "creation and restart are told")
    watcher.close()

    assert sorted((each, kind) for each, kind, _ in watcher.events) == [(uid, 1), (GLOBAL, 4)]


def test_a_subscriber_that_is_away_is_told_later(port: int, store: Store) -> None:
    """Events wait while nobody listens at the address, keep their order, and come once."""
    where = free_port()
    subscribe(port, GLOBAL)
    uid = create(port)
    change_state(port, uid, "IN PROGRESS")

    with running(teller(store, where)):
        threading.Event().wait(0.8)
        change_state(port, uid, "CANCELED")
        watcher = Watcher(where)
        eventually(lambda: len(watcher.events) >= 4, "what waited is told")
        threading.Event().wait(0.8)
    watcher.close()

    told = [information.ProcedureStepState for each, _, information in watcher.events if each == uid]
    assert told == ["SCHEDULED", "IN PROGRESS", "CANCELED"]


def test_subscriptions_over_dimse_end(port: int, store: Store) -> None:
    """Unknown receivers are refused; after unsubscribing nothing is told; only global subscriptions pause."""
    uid = create(port)

    assert subscribe(port, uid, receiver="STRANGER") == 0xC308
    assert subscribe(port, "1.2.3.99") == 0xC307
    assert subscribe(port, uid, SUSPEND) == 0xC314
    assert subscribe(port, uid) == 0x0000
    assert subscribe(port, uid, UNSUBSCRIBE) == 0x0000
    assert act(port, PUSH, SUBSCRIBE, uid, ReceivingAE="WATCHER") == 0x0123
    change_state(port, uid, "IN PROGRESS")
    where = free_port()
    watcher = Watcher(where)
    with running(teller(store, where)):
        eventually(lambda: len(watcher.events) == 1, "the first report, from before it unsubscribed")
        threading.Event().wait(0.8)
    watcher.close()
    assert [information.ProcedureStepState for _, _, information in watcher.events] == ["SCHEDULED"]


def test_datasets_survive_both_spellings() -> None:
    """What a client writes is the same after a way through the data set and back."""
    content = creation(
        **performed(), **progress("12.5"), **{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "D^J"}]}}
    )

    assert content_of(dataset_of(content)) == content


def test_what_a_subscriber_refuses_is_not_repeated(store: Store, port: int) -> None:
    """A subscriber that knows no such instance is not asked for ever."""
    where = free_port()
    watcher = Watcher(where, status=0x0112)
    subscribe(port, create(port))

    with running(teller(store, where)):
        eventually(lambda: len(watcher.events) == 2, "state and restart are told, though refused")
        threading.Event().wait(0.8)
    watcher.close()

    assert len(watcher.events) == 2
