"""Storage commitment (PS3.4 annex J): what a transaction asks, and what becomes of its instances.

What counts is the index and the disk, looked at when everything accepted before the request is indexed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from gateway.errors import CannotUnderstandError
from gateway.header import valid_uid
from gateway.query import locate_many
from gateway.query_retrieve.model import read_identifier
from gateway.store import Store
from gateway.store.commitments import Commitment, Reference

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
NO_SUCH_OBJECT, CLASS_CONFLICT, DUPLICATE_TRANSACTION = 0x0112, 0x0119, 0x0131
NOT_KNOWN_YET = 0x0213
"""Resource limitation: the peer keeps its copy and may ask again (PS3.3 C.14.1.1)."""
_ALL_COMMITTED, _SOME_FAILED = 1, 2
_LAG_LIMIT = timedelta(minutes=10)
"""How long a missing instance may be on its way to the index."""


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """What became of a transaction's instances."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[str, str, int], ...]
    """SOP Class UID, SOP Instance UID, Failure Reason."""

    @property
    def event_type(self) -> int:
        """Event Type ID (PS3.4 table J.3-3)."""
        return _SOME_FAILED if self.failed else _ALL_COMMITTED

    @property
    def note(self) -> str | None:
        """What is kept of it; None where all is well."""
        return f"{len(self.failed)} of {len(self.failed) + len(self.committed)} failed" if self.failed else None

    def report(self, ae_title: str) -> Dataset:
        """Return the event information; `ae_title` is where the instances can be retrieved from."""
        report = Dataset()
        report.RetrieveAETitle = ae_title
        report.TransactionUID = self.transaction_uid
        if self.failed:
            report.FailedSOPSequence = [_item(sop_class, uid, reason) for sop_class, uid, reason in self.failed]
        if self.committed or not self.failed:
            report.ReferencedSOPSequence = [_item(sop_class, uid) for sop_class, uid in self.committed]
        return report


def _item(sop_class_uid: str, sop_instance_uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def read_request(information: BytesIO | None, syntax: UID) -> tuple[str, list[Reference]]:
    """Return Transaction UID and references of an N-ACTION (PS3.4 table J.3-1).

    Raises
    ------
    CannotUnderstandError
        One of them is missing or wrong; the comment says which.
    """
    request = read_identifier(information, syntax)
    transaction_uid = valid_uid(str(request.get("TransactionUID") or ""), "Transaction UID")
    items = request.get("ReferencedSOPSequence") or []
    references = [
        (
            valid_uid(str(item.get("ReferencedSOPClassUID") or ""), "Referenced SOP Class UID"),
            valid_uid(str(item.get("ReferencedSOPInstanceUID") or ""), "Referenced SOP Instance UID"),
        )
        for item in items
    ]
    if not references:
        raise CannotUnderstandError("Referenced SOP Sequence is missing")
    return transaction_uid, list(dict.fromkeys(references))


def duplicate(transaction_uid: str, referenced: list[Reference]) -> CommitmentResult:
    """Return the result of a request whose Transaction UID stands for other instances."""
    failed = tuple((sop_class, uid, DUPLICATE_TRANSACTION) for sop_class, uid in referenced)
    return CommitmentResult(transaction_uid, (), failed)


def look_up(store: Store, wanted: Commitment, now: datetime) -> CommitmentResult | None:
    """Return what becomes of a transaction; None while instances accepted before it are still to be indexed.

    An instance is committed where the index has it in the class asked for and its file is there in full.
    """
    is_behind = _is_behind(store, wanted.created_at)
    with store.read() as connection:
        known = {one.sop_instance_uid: one for one in locate_many(connection, (uid for _, uid in wanted.referenced))}
    committed: list[Reference] = []
    failed: list[tuple[str, str, int]] = []
    for sop_class, uid in wanted.referenced:
        stored = known.get(uid)
        if stored is None and is_behind:
            if now < wanted.created_at + _LAG_LIMIT:
                return None
            failed.append((sop_class, uid, NOT_KNOWN_YET))
        elif stored is None or not _is_there(store, stored.path, stored.size_bytes):
            failed.append((sop_class, uid, NO_SUCH_OBJECT))
        elif stored.sop_class_uid != sop_class:
            failed.append((sop_class, uid, CLASS_CONFLICT))
        else:
            committed.append((sop_class, uid))
    return CommitmentResult(wanted.transaction_uid, tuple(committed), tuple(failed))


def _is_behind(store: Store, when: datetime) -> bool:
    """Say whether a file that may have been accepted before a time is not indexed yet (see `gateway.spool`)."""
    for path in (store.data_dir / "incoming").glob("*/*.dcm"):
        try:
            if path.stat().st_mtime <= when.timestamp():
                return True
        except FileNotFoundError:
            continue
    return False


def _is_there(store: Store, path: str, size_bytes: int) -> bool:
    try:
        return store.files.size(path) == size_bytes
    except OSError:
        return False


def event_report(result: CommitmentResult, ae_title: str, message_id: int, syntax: UID) -> N_EVENT_REPORT:
    """Return the N-EVENT-REPORT request that tells a result."""
    request = N_EVENT_REPORT()
    request.MessageID = message_id
    request.AffectedSOPClassUID = UID(PUSH_MODEL)
    request.AffectedSOPInstanceUID = UID(PUSH_MODEL_INSTANCE)
    request.EventTypeID = result.event_type
    encoded = encode(result.report(ae_title), syntax.is_implicit_VR, syntax.is_little_endian)
    request.EventInformation = BytesIO(encoded or b"")
    return request
