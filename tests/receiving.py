"""A receiver to send to, and a sender that sends exactly the bytes it is given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import pydicom
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from gateway.admission import Admission
from gateway.association import Limits, Listening, Receiver
from gateway.calling import PromptEntity
from gateway.dimse_service import DimseService, DirectService
from gateway.errors import CannotUnderstandError
from gateway.header import read_part10
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.tables import instance
from tests.services.process import HANGS_S

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


receive_path: ContextVar[Literal["fast", "stock"]] = ContextVar("receive_path", default="fast")
"""The path of receivers that say nothing else."""
ServicesOf = Callable[[Heartbeat], Sequence[DimseService | DirectService]]


@dataclass(frozen=True)
class Running:
    """A receiver that listens."""

    port: int
    heartbeat: Heartbeat
    store: Store

    @property
    def counters(self) -> dict[str, float]:
        """What it counted."""
        return dict(self.heartbeat.counters.snapshot())


@contextmanager
def receiving(
    store: Store,
    limits: Limits | None = None,
    services: ServicesOf = lambda _: (),
    admission: Admission | None = None,
    **listening: object,
) -> Iterator[Running]:
    """Run a receiver in a thread of this process, with the DIMSE services made for it; on leaving it has drained."""
    heartbeat = Heartbeat(store, "receive", Counters())
    listening = {"path": receive_path.get(), **listening}
    who = Listening("HYBRIDMED", "127.0.0.1", 0, **listening)  # type: ignore[arg-type] # as the caller gives them
    limits = limits or Limits(reserve_bytes=0, drain_s=2)
    receiver = Receiver(store, who, limits, heartbeat, services(heartbeat), admission)
    stop = threading.Event()
    thread = threading.Thread(target=receiver.run, args=(stop,))
    thread.start()
    try:
        yield Running(receiver.wait_until_listening(HANGS_S), heartbeat, store)
    finally:
        stop.set()
        thread.join(HANGS_S)
        assert not thread.is_alive()


@contextmanager
def over(path: Literal["fast", "stock"]) -> Iterator[None]:
    """Let receivers take this path."""
    token = receive_path.set(path)
    try:
        yield
    finally:
        receive_path.reset(token)


@dataclass(frozen=True)
class Sending:
    """One C-STORE: the command's UIDs and the bytes of the data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes


@dataclass(frozen=True)
class Answer:
    """What the receiver said."""

    status: int
    comment: str


@contextmanager
def associated(port: int, sendings: Sequence[Sending], calling_ae: str = "CT1") -> Iterator[Association]:
    """Open an association with a presentation context for each SOP class and transfer syntax."""
    ae = PromptEntity(calling_ae)
    ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = HANGS_S
    pairs = dict.fromkeys((one.sop_class_uid, one.transfer_syntax_uid) for one in sendings)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    association = ae.associate("127.0.0.1", port, contexts=contexts, ae_title="HYBRIDMED")
    peer = association.dul.socket.socket
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.ident is not None:
            association.join(10)
        if peer is not None:
            peer.close()  # pynetdicom leaves it open where the other side has gone first


def send(association: Association, sending: Sending) -> Answer | None:
    """Send one data set as it is; None where there is no presentation context for it or no answer."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = UID(sending.sop_class_uid)
    request.AffectedSOPInstanceUID = UID(sending.sop_instance_uid)
    request.Priority = 2
    request.DataSet = BytesIO(sending.data)
    context_id = next(
        (
            context.context_id
            for context in association.accepted_contexts
            if (context.abstract_syntax, context.transfer_syntax[0])
            == (sending.sop_class_uid, sending.transfer_syntax_uid)
        ),
        None,
    )
    if context_id is None:
        return None
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.0001)
    association.dimse.send_msg(request, context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return None if response is None else Answer(response.Status, response.ErrorComment or "")


def send_one(port: int, sending: Sending, calling_ae: str = "CT1") -> Answer | None:
    """Send one data set over its own association."""
    with associated(port, [sending], calling_ae) as association:
        return send(association, sending)


def image(study_uid: str | None = None, **changes: object) -> Dataset:
    """Return a small data set that a receiver takes; None removes an attribute."""
    data_set = Dataset()
    data_set.SOPClassUID = CT
    data_set.SOPInstanceUID = generate_uid()
    data_set.StudyInstanceUID = study_uid or generate_uid()
    data_set.SeriesInstanceUID = f"{data_set.StudyInstanceUID[:60]}.1"
    data_set.PatientName = "Doe^Jane"
    data_set.PatientID = "P1"
    data_set.Modality = "CT"
    data_set.Rows = data_set.Columns = 2
    for keyword, value in changes.items():
        if value is None:
            delattr(data_set, keyword)
        else:
            setattr(data_set, keyword, value)
    return data_set


def encoded(data_set: Dataset, transfer_syntax_uid: str = EXPLICIT) -> bytes:
    """Encode a data set without file meta information."""
    syntax = UID(transfer_syntax_uid)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(buffer, data_set)
    return buffer.getvalue()


def sending(data_set: Dataset, transfer_syntax_uid: str = EXPLICIT) -> Sending:
    """Return the honest C-STORE of a data set."""
    data = encoded(data_set, transfer_syntax_uid)
    return Sending(data_set.SOPClassUID, data_set.SOPInstanceUID, transfer_syntax_uid, data)


def as_it_lies(path: Path) -> Sending:
    """Return the C-STORE that sends a file's data set byte for byte, whatever is wrong with it."""
    with path.open("rb") as stream:
        try:
            part10 = read_part10(stream)
        except CannotUnderstandError:
            data_set = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            is_implicit, _ = data_set.original_encoding
            syntax = IMPLICIT if is_implicit else EXPLICIT
            return Sending(str(data_set.SOPClassUID), str(data_set.SOPInstanceUID), syntax, path.read_bytes())
        stream.seek(part10.data_set_offset)
        meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
        return Sending(
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            part10.transfer_syntax_uid,
            stream.read(),
        )


def rows(store: Store) -> list[sa.Row[tuple[object, ...]]]:
    """Return the index, oldest first."""
    with store.read() as connection:
        return list(connection.execute(sa.select(instance).order_by(instance.c.id)))


def kept_files(store: Store) -> list[Path]:
    """Return the indexed files."""
    return sorted((store.data_dir / "instances").glob("*/*.dcm"))


def spooled_files(store: Store) -> list[Path]:
    """Return what lies in the spool, locks aside."""
    files = [path for path in (store.data_dir / "incoming").rglob("*") if path.is_file()]
    return [path for path in files if path.name != "lock" and not path.name.startswith(".slots")]


def until(claim: Callable[[], bool], what: str, timeout_s: float = HANGS_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
