"""Whole requests to the DIMSE services besides storage, to begin with."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom.dataset import Dataset

from tests.fuzz.corpus import Seed
from tests.receiving import CT, EXPLICIT, encoded

STUDY, INSTANCE, STEP, TRANSACTION = "2.25.1", "2.25.2", "2.25.5", "2.25.6"
COMPLETE_STUDY = "2.25.7"
"""That nobody sends, so that workitems can be made for it."""
_VERIFICATION, _COMMITMENT, _COMMITMENT_INSTANCE = "1.2.840.10008.1.1", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
_FIND, _MOVE, _GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
_PUSH, _WATCH, _PULL = (f"1.2.840.10008.5.1.4.34.6.{number}" for number in (1, 2, 3))
_NO_DATA = 0x0101


@dataclass(frozen=True)
class Request:
    """A request of one service."""

    name: str
    context: Seed
    """Abstract and transfer syntax, and the data set, which may be none."""
    command: bytes


def requests() -> list[Request]:
    """Return a request of each kind that a receiver answers (PS3.7 chapter 9 and 10), always in the same order."""
    return [
        _composite("C-ECHO", 0x0030, _VERIFICATION, None),
        _composite("C-FIND", 0x0020, _FIND, _identifier("STUDY", StudyInstanceUID="", PatientName="Y*")),
        _composite("C-FIND", 0x0020, _FIND, _identifier("SERIES", StudyInstanceUID=STUDY, Modality="CT")),
        _composite("C-FIND", 0x0020, f"{_PUSH[:-1]}5", _step(ProcedureStepState="SCHEDULED")),
        _composite("C-MOVE", 0x0021, _MOVE, _identifier("STUDY", StudyInstanceUID=STUDY), (0x0600, b"FUZZ")),
        _composite("C-GET", 0x0010, _GET, _identifier("STUDY", StudyInstanceUID=STUDY)),
        _normalized("N-ACTION", 0x0130, _COMMITMENT, _COMMITMENT_INSTANCE, _commitment(), (0x1008, b"\x01\0")),
        _normalized("N-CREATE", 0x0140, _PUSH, STEP, _new_step()),
        _normalized("N-GET", 0x0110, _PUSH, STEP, None),
        _normalized("N-SET", 0x0120, _PULL, STEP, _step(TransactionUID=TRANSACTION, WorklistLabel="fuzz")),
        _normalized("N-ACTION", 0x0130, _PULL, STEP, _change("IN PROGRESS"), (0x1008, b"\x01\0")),
        _normalized("N-ACTION", 0x0130, _PUSH, STEP, _step(ReasonForCancellation="none"), (0x1008, b"\x02\0")),
        _normalized("N-ACTION", 0x0130, _WATCH, STEP, _subscription(), (0x1008, b"\x03\0")),
    ]


def element(number: int, value: bytes) -> bytes:
    """Return an element of a command (PS3.7 6.3.1)."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def command(*elements: tuple[int, bytes]) -> bytes:
    """Return a command set with its group length, the elements in ascending order."""
    body = b"".join(element(number, value) for number, value in sorted(elements))
    return element(0x0000, struct.pack("<L", len(body))) + body


def _composite(
    name: str, field: int, sop_class_uid: str, data_set: Dataset | None, *more: tuple[int, bytes]
) -> Request:
    return _request(name, field, sop_class_uid, data_set, (0x0002, sop_class_uid.encode()), *more)


def _normalized(
    name: str, field: int, context: str, instance_uid: str, data_set: Dataset | None, *more: tuple[int, bytes]
) -> Request:
    """Return a request that names its instance; those of worklists name the class UPS Push whatever the context is."""
    sop_class_uid = _PUSH if context in {_PULL, _WATCH} else context
    is_new = name == "N-CREATE"
    named = (
        (0x0002 if is_new else 0x0003, sop_class_uid.encode()),
        (0x1000 if is_new else 0x1001, instance_uid.encode()),
    )
    return _request(name, field, context, data_set, *named, *more)


def _request(name: str, field: int, context: str, data_set: Dataset | None, *more: tuple[int, bytes]) -> Request:
    data = b"" if data_set is None else encoded(data_set)
    has_data = struct.pack("<H", _NO_DATA if data_set is None else 0)
    given = (0x0100, struct.pack("<H", field)), (0x0110, b"\x01\0"), (0x0700, b"\0\0"), (0x0800, has_data)
    return Request(name, Seed(context, INSTANCE, EXPLICIT, data), command(*given, *more))


def _identifier(level: str, **keys: str) -> Dataset:
    return _data_set(QueryRetrieveLevel=level, **keys)


def _commitment() -> Dataset:
    referenced = _data_set(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=INSTANCE)
    return _data_set(TransactionUID=TRANSACTION, ReferencedSOPSequence=[referenced])


def _step(**values: object) -> Dataset:
    return _data_set(**values)


def _new_step() -> Dataset:
    return _step(
        ProcedureStepState="SCHEDULED",
        ScheduledProcedureStepPriority="MEDIUM",
        ProcedureStepLabel="cxr-pneumonia",
        ScheduledProcedureStepStartDateTime="20240102",
        InputReadinessState="READY",
        InputInformationSequence=[_data_set(StudyInstanceUID=COMPLETE_STUDY)],
    )


def _change(state: str) -> Dataset:
    return _step(ProcedureStepState=state, TransactionUID=TRANSACTION)


def _subscription() -> Dataset:
    return _data_set(ReceivingAE="FUZZ", DeletionLock="FALSE")


def _data_set(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made
