"""What the tests of delivery stand on: rendered results of a real X-ray, and peers that take or refuse them."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import pydicom
from pynetdicom import AE, AllStoragePresentationContexts, evt

from gateway.config import Destination
from gateway.delivery import Deliverer, DeliveryLimits, Outgoing, Sending, open_sender
from gateway.report import render_outcome
from gateway.report.assignment import Assignment
from gateway.services import Counters, Heartbeat
from gateway.store import Store, deliveries, jobs
from gateway.store.deliveries import DeliveryRow
from gateway.store.results import NewArtefact, commit_results
from tests.services.process import HANGS_S, LOOPBACK, Program, free_port, listens, wait_until
from tests.thresholding import Thresholding
from tests.working import add_job, take_in

LIMITS = DeliveryLimits(30.0, 3, timedelta(milliseconds=100), timedelta(milliseconds=500))


def render_results(xray: Path, folder: Path) -> list[Outgoing]:
    """Render what the thresholding model says about an X-ray into a folder."""
    (outcome,) = Thresholding().prepare([[xray]])()
    study_uid = str(pydicom.dcmread(xray, stop_before_pixels=True).StudyInstanceUID)
    assignment = Assignment(UUID(int=7), 1, study_uid, datetime.now(UTC))
    objects = []
    for rendered in render_outcome(outcome, assignment, [xray]):
        path = folder / f"{rendered.reference.kind}.dcm"
        pydicom.dcmwrite(path, rendered.dataset, enforce_file_format=True)
        reference = rendered.reference
        objects.append(Outgoing(reference.kind, path, reference.sop_class_uid, reference.sop_instance_uid))
    return objects


def commit_objects(store: Store, xray: Path, objects: Sequence[Outgoing], to: Sequence[str]) -> str:
    """Make a done job whose results are these objects; return its id."""
    study_uid = take_in(store, xray)
    job_id = add_job(store, study_uid, to=to)
    folder = store.data_dir / "results" / job_id
    folder.mkdir(parents=True)
    artefacts = []
    for each in objects:
        shutil.copyfile(each.path, folder / each.path.name)
        content = each.path.read_bytes()
        artefacts.append(
            NewArtefact(
                kind=each.kind,
                ordinal=0,
                variant="",
                media_type="application/dicom",
                study_instance_uid=study_uid,
                series_instance_uid="2.25.1",
                sop_class_uid=each.sop_class_uid,
                sop_instance_uid=each.sop_instance_uid,
                path=f"results/{job_id}/{each.path.name}",
                digest=hashlib.sha256(content).hexdigest(),
                size_bytes=len(content),
            )
        )
    now = datetime.now(UTC)
    with store.write() as connection:
        claim = jobs.claim(connection, job_id, "w1", now, 60)
        assert claim is not None
        done = {"algorithm": {}, "summary": {}, "reason": None, "resources": []}
        assert commit_results(connection, claim, now, artefacts=artefacts, deliveries=to, **done)
    return job_id


def make_deliverer(
    store: Store, destinations: Sequence[Destination], timeout_s: float = 60.0
) -> tuple[Deliverer, Heartbeat]:
    """Build a deliverer; its counters and state of health are on the heartbeat."""
    heartbeat = Heartbeat(store, "deliver", Counters())
    deliverer = Deliverer(
        store=store,
        heartbeat=heartbeat,
        destinations=destinations,
        open_sender=partial(open_sender, sending=Sending("HYBRIDMED", timeout_s)),
        limits=LIMITS,
    )
    return deliverer, heartbeat


def rows_of(store: Store) -> dict[str, DeliveryRow]:
    """Return the deliveries by destination."""
    with store.read() as connection:
        return {row.destination: row for row in deliveries.list_deliveries(connection)}


@contextmanager
def storescp(folder: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """Run dcmtk's storescp, which keeps what it gets as it came, and give its port."""
    folder.mkdir(exist_ok=True)
    chosen = port or free_port()
    argv = ["storescp", "--bit-preserving", "--output-directory", str(folder), *options, str(chosen)]
    program = Program(argv, log=folder.with_suffix(".log"))
    program.start()
    try:
        wait_until(lambda: listens(chosen), HANGS_S, "storescp listens")
        yield chosen
    finally:
        program.stop()


@dataclass
class ScriptedPeer:
    """A Storage SCP that answers as a test says, and what it got."""

    port: int
    received: list[str]
    """SOP Instance UIDs."""


@contextmanager
def scripted_peer(answer: Callable[[str], int], without: Sequence[str] = ()) -> Iterator[ScriptedPeer]:
    """Run an SCP that answers each object with the status for its SOP class, and knows no class of `without`."""
    peer = ScriptedPeer(free_port(), [])

    def store(event: evt.Event) -> int:
        status = answer(str(event.request.AffectedSOPClassUID))
        if status == 0:
            peer.received.append(str(event.request.AffectedSOPInstanceUID))
        return status

    entity = AE(ae_title="PEER")
    entity.supported_contexts = [cx for cx in AllStoragePresentationContexts if cx.abstract_syntax not in without]
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server((LOOPBACK, peer.port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield peer
    finally:
        server.shutdown()


@contextmanager
def silent_peer() -> Iterator[int]:
    """Accept TCP connections and say nothing; give the port."""
    ending = threading.Event()
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(0.1)
        held: list[socket.socket] = []

        def accept() -> None:
            while not ending.is_set():
                try:
                    held.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            ending.set()
            thread.join()
            for connection in held:
                connection.close()
