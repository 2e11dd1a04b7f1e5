"""What the web process needs to take instances: a spool and an indexer of its own, as a receiver has them."""

from __future__ import annotations

import io
import threading
import time
import uuid
from collections.abc import Set
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import structlog
from pydicom._uid_dict import UID_dictionary

from gateway.elements import Encoding, read_elements
from gateway.errors import CannotUnderstandError, DataSetMismatchError, OutOfResourcesError, RefusedError
from gateway.header import InstanceHeader, read_header, valid_uid
from gateway.indexer import Arrival, Indexer
from gateway.services import Heartbeat, Role
from gateway.spool import DiskLimits, Origin, Spool, Upload, orphans
from gateway.store import Store
from gateway.store.instances import ClosedAssociation, OpenedAssociation, Outcome
from gateway.web.dicomweb.multipart import MultipartReader, PartBegins, PartData, parse_media_type

log = structlog.get_logger()

CALLING_AE = "STOW-RS"
_ADOPT_EVERY_S = 30.0
_LOOK_EVERY_S = 0.2
_META_LIMIT = 1 << 16
_META_START = 144
"""Preamble, prefix and group length (PS3.10 7.1)."""
_SOP_CLASS, _SOP_INSTANCE, _SYNTAX = 0x00020002, 0x00020003, 0x00020010


class SopClassNotSupportedError(RefusedError):
    """No Storage SOP class that we take (PS3.18 table I.2-1)."""

    status = 0x0122
    counter = "sop_class"


class SyntaxNotSupportedError(RefusedError):
    """No transfer syntax that we take."""

    status = 0xC122
    counter = "transfer_syntax"


@dataclass(frozen=True, slots=True)
class StowLimits:
    """What a store request may cost."""

    reserve_bytes: int
    """Free disk space under which nothing is taken."""
    max_instance_bytes: int
    timeout_s: float = 30.0
    """Without a byte, after which a request is given up."""
    max_requests: int = 16


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken, and under whose name."""

    ae_title: str
    storage_classes: Set[str]
    """UIDs."""
    transfer_syntaxes: Set[str]
    """UIDs."""


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """What became of a part; of a refused one the UIDs may be unknown, and are empty then."""

    status: int | None
    """None: stored; else the failure reason."""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""


class StowIntake:
    """Spool and indexer under the web process's own service id; a context manager around its life.

    Parameters
    ----------
    store
        Database and data folder.
    heartbeat
        Of the role; its service id names the spool's folder and the requests' associations.
    limits
        Sizes, counts and times.
    taken
        SOP classes and transfer syntaxes.
    """

    def __init__(self, store: Store, heartbeat: Heartbeat, limits: StowLimits, taken: Taken) -> None:
        self.limits = limits
        self.taken = taken
        self.counters = heartbeat.counters
        self.service_id = heartbeat.service_id
        self.spool = Spool(
            store.data_dir, heartbeat.service_id, DiskLimits(limits.reserve_bytes, limits.max_instance_bytes)
        )
        self.indexer = Indexer(store, heartbeat)
        self._data_dir = store.data_dir
        self._stack = ExitStack()
        self._is_entered = False

    @property
    def is_open(self) -> bool:
        """Whether instances are taken."""
        return self._is_entered and self.indexer.is_alive

    def __enter__(self) -> StowIntake:
        with ExitStack() as stack:
            stack.enter_context(self.spool)
            stack.callback(self._keep_what_is_left)
            stack.enter_context(self.indexer)
            self._stack = stack.pop_all()
        self.adopt()
        self._is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_entered = False
        self._stack.__exit__(kind, error, trace)

    def adopt(self) -> None:
        """Hand what processes that are gone left in their spools to the indexer."""
        for orphan in orphans(self._data_dir):
            self.indexer.submit(orphan)

    def _keep_what_is_left(self) -> None:
        if not self.indexer.is_drained:
            self.spool.leave_for_others()


class ReceivingRole:
    """The role `web` with its intake around it.

    Parameters
    ----------
    role
        That serves.
    intake
        Open as long as it does.
    adopt_every_s
        Between two looks for what processes that are gone left behind.
    """

    def __init__(self, role: Role, intake: StowIntake, adopt_every_s: float = _ADOPT_EVERY_S) -> None:
        self.name = role.name
        self._role = role
        self._intake = intake
        self._adopt_every_s = adopt_every_s

    def run(self, stop: threading.Event) -> None:
        """Run the role; RuntimeError where its indexer ended, so that the role is started anew."""
        ending = threading.Event()
        with self._intake:
            watcher = threading.Thread(target=self._watch, args=(stop, ending), name="intake", daemon=True)
            watcher.start()
            try:
                self._role.run(ending)
            finally:
                ending.set()
                watcher.join()
        if not stop.is_set():
            raise RuntimeError("the indexer ended")

    def _watch(self, stop: threading.Event, ending: threading.Event) -> None:
        adopt_at = time.monotonic() + self._adopt_every_s
        try:
            while not ending.is_set() and not stop.wait(_LOOK_EVERY_S) and self._intake.indexer.is_alive:
                if time.monotonic() >= adopt_at:
                    self._intake.adopt()
                    adopt_at = time.monotonic() + self._adopt_every_s
        finally:
            ending.set()


class Session:
    """One store request: an association that carries instances. Each call may come from another thread, one at a time.

    Parameters
    ----------
    intake
        Where instances go.
    reader
        Of the body.
    study_instance_uid
        To which all instances must belong; None: any.
    """

    def __init__(self, intake: StowIntake, reader: MultipartReader, study_instance_uid: str | None) -> None:
        self.id = str(uuid.uuid4())
        self.outcomes: list[PartOutcome] = []
        self.spooled: list[Path] = []
        self._intake = intake
        self._reader = reader
        self._study_uid = study_instance_uid
        self._part: _Part | None = None
        self._begun = 0

    @property
    def is_complete(self) -> bool:
        """Whether the closing boundary has come."""
        return self._reader.is_complete

    def feed(self, data: bytes) -> None:
        """Take a piece of the body; MultipartError where it is no multipart message."""
        for event in self._reader.feed(data):
            if isinstance(event, PartBegins):
                self._begun += 1
                self._part = _Part(self._intake, self.id, self._begun, event)
            elif self._part is not None and isinstance(event, PartData):
                self._part.write(event.data)
            elif self._part is not None:
                self.outcomes.append(self._finish(self._part))
                self._part = None

    def end(self, outcome: Outcome) -> None:
        """Remove what is half-written and close the association."""
        if self._part is not None:
            self._part.discard()
        if self.spooled:
            self._intake.indexer.submit(ClosedAssociation(self.id, outcome, datetime.now(UTC)))
        log.info(
            "stow.ended",
            association_id=self.id,
            outcome=outcome,
            stored=len(self.spooled),
            refused=sum(one.status is not None for one in self.outcomes),
        )

    def _finish(self, part: _Part) -> PartOutcome:
        """Make a part durable and report it; or say why not."""
        try:
            header, upload = part.checked(self._study_uid)
            spooled = upload.commit()
        except RefusedError as error:
            part.discard()
            return self._refused(part, error)
        intake = self._intake
        if not self.spooled:
            intake.indexer.submit(
                OpenedAssociation(self.id, intake.service_id, CALLING_AE, intake.taken.ae_title, datetime.now(UTC))
            )
        self.spooled.append(spooled.path)
        intake.indexer.submit(Arrival(spooled, header))
        intake.counters.add("hybridmed_instances_received_total")
        intake.counters.add("hybridmed_received_bytes_total", spooled.size_bytes)
        return PartOutcome(
            None,
            header.sop_class_uid,
            header.sop_instance_uid,
            header.study_instance_uid,
            header.series_instance_uid,
        )

    def _refused(self, part: _Part, error: RefusedError) -> PartOutcome:
        self._intake.counters.add(f'hybridmed_instances_refused_total{{status="{error.status:04X}"}}')
        log.warning(
            "instance.refused",
            association_id=self.id,
            calling_ae=CALLING_AE,
            status=f"{error.status:04X}",
            reason=error.comment,
        )
        return PartOutcome(error.status, part.sop_class_uid, part.sop_instance_uid)


class _Part:
    """A Part 10 file on its way to the spool; once refused, the rest of it is read and thrown away."""

    def __init__(self, intake: StowIntake, association_id: str, number: int, begins: PartBegins) -> None:
        self.sop_class_uid = self.sop_instance_uid = ""
        self._intake = intake
        self._association_id = association_id
        self._number = number
        self._head: bytearray | None = bytearray()
        self._upload: Upload | None = None
        self._refusal: RefusedError | None = None
        media_type = parse_media_type(begins.headers.get("content-type", "application/dicom"))[0]
        if media_type != "application/dicom":
            self._refusal = CannotUnderstandError("the part is not application/dicom")

    def write(self, data: bytes | memoryview) -> None:
        """Take a piece."""
        if self._refusal is not None:
            return
        try:
            if self._upload is not None:
                self._upload.write(data)
            elif self._head is not None:
                self._head += data
                self._try_begin(self._head)
        except RefusedError as error:
            self._refusal = error
            self.discard()

    def checked(self, study_instance_uid: str | None) -> tuple[InstanceHeader, Upload]:
        """Return header and upload of a whole part; RefusedError where it is not to be stored."""
        if self._refusal is not None:
            raise self._refusal
        if self._upload is None:
            raise CannotUnderstandError("the file meta information is incomplete")
        try:
            header = read_header(self._upload.path)
        except OSError as error:
            raise OutOfResourcesError("the instance could not be read back") from error
        if header.sop_class_uid != self.sop_class_uid:
            raise DataSetMismatchError("SOP Class UID differs from the file meta information's")
        if header.sop_instance_uid != self.sop_instance_uid:
            raise DataSetMismatchError("SOP Instance UID differs from the file meta's")
        if study_instance_uid is not None and header.study_instance_uid != study_instance_uid:
            raise DataSetMismatchError("the instance belongs to another study than the path")
        return header, self._upload

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._upload is not None:
            self._upload.discard()

    def _try_begin(self, head: bytearray) -> None:
        """Open the upload once the file meta information (PS3.10 7.1) is there."""
        if len(head) < _META_START:
            return
        if head[128:132] != b"DICM":
            raise CannotUnderstandError("not a DICOM file")
        if head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
            raise CannotUnderstandError("the file meta information has no group length")
        end = _META_START + int.from_bytes(head[140:144], "little")
        if end > _META_LIMIT:
            raise CannotUnderstandError("the file meta information is too long")
        if len(head) < end:
            return
        syntax = self._read_meta(bytes(head[_META_START:end]))
        origin = Origin(
            self._association_id,
            CALLING_AE,
            self._intake.taken.ae_title,
            syntax,
            self.sop_class_uid,
            self.sop_instance_uid,
        )
        self._upload = self._intake.spool.begin(origin, self._number)
        self._head = None
        self._upload.write(memoryview(head)[end:])

    def _read_meta(self, meta: bytes) -> str:
        """Take the SOP UIDs and return the transfer syntax; RefusedError where we do not take them."""
        wanted = {_SOP_CLASS, _SOP_INSTANCE, _SYNTAX}
        values = read_elements(io.BytesIO(meta), Encoding(is_implicit=False), wanted, last=0x0002FFFF).values
        found = {tag: values.get(tag, b"").strip(b" \0").decode("ascii", "replace") for tag in wanted}
        sop_class_uid = valid_uid(found[_SOP_CLASS], "Media Storage SOP Class UID")
        sop_instance_uid = valid_uid(found[_SOP_INSTANCE], "Media Storage SOP Instance UID")
        self.sop_class_uid, self.sop_instance_uid = sop_class_uid, sop_instance_uid
        syntax = valid_uid(found[_SYNTAX], "transfer syntax")
        if sop_class_uid not in self._intake.taken.storage_classes:
            raise SopClassNotSupportedError("SOP class not supported")
        if syntax not in self._intake.taken.transfer_syntaxes:
            raise SyntaxNotSupportedError("transfer syntax not supported")
        return syntax


def known_transfer_syntaxes() -> frozenset[str]:
    """Return every transfer syntax of DICOM, the retired ones for what stands in archives."""
    return frozenset(uid for uid, (_name, kind, *_rest) in UID_dictionary.items() if kind == "Transfer Syntax")
