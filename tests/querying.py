"""A receiver that answers queries, retrievals and commitments, and the peers that ask it."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from gateway.association import Limits
from gateway.calling import PromptEntity
from gateway.commitment_service import CommitmentService, Committing
from gateway.config import DicomAddress
from gateway.decoding import FrameDecoder
from gateway.dimse_service import DimseService, DirectService
from gateway.query_retrieve import FindService, RetrieveService, Retrieving
from gateway.query_retrieve.model import PATIENT_ROOT, STUDY_ROOT
from gateway.services import Heartbeat
from gateway.store import Store
from tests.receiving import Running, receiving
from tests.services.process import HANGS_S, LOOPBACK, free_port

FIND_PATIENT, FIND_STUDY = PATIENT_ROOT.find, STUDY_ROOT.find
MOVE_STUDY, GET_STUDY = STUDY_ROOT.move, STUDY_ROOT.get


@contextmanager
def answering(  # noqa: PLR0913 # what a test may want otherwise
    store: Store,
    peers: Sequence[DicomAddress] = (),
    *,
    find_limit: int = 100_000,
    page: int = 500,
    timeout_s: float = 10,
    limits: Limits | None = None,
) -> Iterator[Running]:
    """Run a receiver with all services; `timeout_s` is the limit of each step with a peer."""
    known = {peer.ae_title: peer for peer in peers}
    decoder = FrameDecoder()

    def services(heartbeat: Heartbeat) -> list[DimseService | DirectService]:
        counters, timeout = heartbeat.counters, timedelta(seconds=timeout_s)
        return [
            FindService(store, "HYBRIDMED", counters, find_limit, page),
            RetrieveService(Retrieving(store, decoder, counters, known, "HYBRIDMED", timeout)),
            CommitmentService(Committing(store, counters, "HYBRIDMED", frozenset(known), timeout_s)),
        ]

    with receiving(store, limits, services) as running:
        yield running


@contextmanager
def asking(
    port: int, contexts: Mapping[str, Sequence[str]] | Sequence[str], calling_ae: str = "VIEWER", **options: object
) -> Iterator[Association]:
    """Open an association; contexts by SOP class, in all usual transfer syntaxes if none is named."""
    ae = PromptEntity(calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = HANGS_S
    given = contexts if isinstance(contexts, Mapping) else dict.fromkeys(contexts, ())
    proposed = [build_context(uid, list(syntaxes) or None) for uid, syntaxes in given.items()]
    association = ae.associate(LOOPBACK, port, contexts=proposed, ae_title="HYBRIDMED", **options)  # type: ignore[arg-type]
    assert association.is_established
    peer = association.dul.socket.socket  # type: ignore[union-attr]
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        association.join(10)
        if peer is not None:
            peer.close()


def identifier(level: str, **keys: object) -> Dataset:
    """Return the identifier of a query or retrieval."""
    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


@dataclass(frozen=True)
class Found:
    """What a C-FIND brought."""

    status: int
    comment: str
    answers: list[Dataset]
    pending: list[int]
    """Status of each answer."""


def ask(association: Association, model: str, wanted: Dataset) -> Found:
    """Send one C-FIND and return all that came."""
    answers, pending = [], []
    for status, answer in association.send_c_find(wanted, model):
        assert "Status" in status, "the association was aborted"
        if status.Status not in (0xFF00, 0xFF01):
            return Found(status.Status, str(status.get("ErrorComment", "")), answers, pending)
        assert answer is not None
        answers.append(answer)
        pending.append(status.Status)
    raise AssertionError("no final response")


@dataclass
class Got:
    """What a C-GET or C-MOVE brought."""

    status: int = -1
    comment: str = ""
    counts: tuple[int, int, int] = (-1, -1, -1)
    """Completed, failed, with warning."""
    failed: list[str] = field(default_factory=list)
    received: list[Dataset] = field(default_factory=list)
    pending: int = 0


def get(port: int, wanted: Dataset, storage: Mapping[str, Sequence[str]], model: str = GET_STUDY) -> Got:
    """Retrieve over the same association, which takes these SOP classes in these transfer syntaxes."""
    got = Got()

    def take(event: evt.Event) -> int:
        event.dataset.file_meta = event.file_meta
        got.received.append(event.dataset)
        return 0

    options = {
        "ext_neg": [build_role(uid, scp_role=True) for uid in storage],
        "evt_handlers": [(evt.EVT_C_STORE, take)],
    }
    with asking(port, {model: (), **storage}, **options) as association:
        _follow(got, association.send_c_get(wanted, model))
    return got


def move(association: Association, wanted: Dataset, destination: str, model: str = MOVE_STUDY) -> Got:
    """Have something sent to another application entity."""
    got = Got()
    _follow(got, association.send_c_move(wanted, destination, model))
    return got


def _follow(got: Got, responses: Iterator[tuple[Dataset, Dataset | None]]) -> None:
    for status, failed in responses:
        assert "Status" in status, "the association was aborted"
        got.pending += status.Status == 0xFF00
        got.status, got.comment = status.Status, str(status.get("ErrorComment", ""))
        names = ("Completed", "Failed", "Warning")
        got.counts = tuple(int(status.get(f"NumberOf{name}Suboperations", 0)) for name in names)  # type: ignore[assignment]
        if failed is not None:
            uids = failed.get("FailedSOPInstanceUIDList") or []
            got.failed = [uids] if isinstance(uids, str) else list(uids)


@dataclass
class Target:
    """A move destination that answers as a test says."""

    address: DicomAddress
    received: list[Dataset] = field(default_factory=list)
    originators: list[tuple[str, int]] = field(default_factory=list)


@contextmanager
def target(
    answer: Callable[[Dataset], int], contexts: Sequence[tuple[str, str]], ae_title: str = "TARGET"
) -> Iterator[Target]:
    """Run a Storage SCP for these pairs of SOP class and transfer syntax."""
    made = Target(DicomAddress(ae_title, LOOPBACK, free_port()))

    def store(event: evt.Event) -> int:
        event.dataset.file_meta = event.file_meta
        made.received.append(event.dataset)
        request = event.request
        made.originators.append((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))  # type: ignore[union-attr]
        return answer(event.dataset)

    entity = AE(ae_title)
    for uid, syntax in contexts:
        entity.add_supported_context(uid, syntax)
    address = (LOOPBACK, made.address.port)
    server = entity.start_server(address, block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield made
    finally:
        server.shutdown()


def dcmtk(program: str, *arguments: str, cwd: Path | None = None) -> str:
    """Run a program of dcmtk, not the one of the same name that pynetdicom brings; return all that it said."""
    path = shutil.which(program, path="/usr/bin:/usr/local/bin")
    assert path is not None, f"dcmtk's {program} is not installed"
    ended = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=HANGS_S, cwd=cwd, check=False)
    return ended.stdout + ended.stderr


def in_background(action: Callable[[], None]) -> threading.Thread:
    """Start a thread."""
    thread = threading.Thread(target=action)
    thread.start()
    return thread
