"""What the tests of worker and delivery stand on: a real study in the store, a job, and the worker's parts."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pydicom
from sqlalchemy.engine import Connection

from gateway.broker import Broker, EmbeddedBroker
from gateway.config import Destination
from gateway.report import render_outcome, render_pictures
from gateway.report.fhir_input import FhirInput
from gateway.services import Counters, Heartbeat, Role
from gateway.store import Store, jobs
from gateway.store.jobs import JobRow
from gateway.store.results import FhirVersion, IndexEntry
from gateway.worker import Ahead, FindModel, Limits, Renderers, Worker
from tests.services.process import HANGS_S
from tests.stores import add_instance, add_series, add_study

LIMITS = Limits(
    lease_s=30.0, max_attempts=3, retry_first=timedelta(milliseconds=10), retry_limit=timedelta(milliseconds=50)
)


def take_in(store: Store, file: Path, *further: Path) -> str:
    """Put files of one series into the data folder with their rows, as the indexer does; return the study's UID."""
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    uid = str(dataset.StudyInstanceUID)
    with store.write() as connection:
        add_study(connection, uid, patient_id=dataset.PatientID, study_date=dataset.get("StudyDate", ""))
        add_series(connection, uid, dataset.SeriesInstanceUID, modality=dataset.Modality)
        for each in (file, *further):
            _take_in_instance(store, connection, each)
    return uid


def _take_in_instance(store: Store, connection: Connection, file: Path) -> None:
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    path = Path("instances") / digest[:2] / f"{digest}.dcm"
    (store.data_dir / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, store.data_dir / path)
    add_instance(
        connection,
        str(dataset.StudyInstanceUID),
        dataset.SeriesInstanceUID,
        dataset.SOPInstanceUID,
        path=path.as_posix(),
        sop_class_uid=dataset.SOPClassUID,
        transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
    )


def add_job(store: Store, study_uid: str, *, bundle: str = "thresholding", to: Sequence[str] = ()) -> str:
    """Make a job; return its id."""
    with store.write() as connection:
        return jobs.create_job(
            connection,
            study_instance_uid=study_uid,
            study_revision=1,
            bundle=bundle,
            priority="routine",
            destinations=to,
            requested_by="dispatch",
            now=datetime.now(UTC),
        )


def render_report(_connection: Connection, finished: FhirInput, /) -> Sequence[FhirVersion]:
    """Render one resource for each job's study and bundle, which is enough to see versions follow each other."""
    body = {
        "resourceType": "DiagnosticReport",
        "id": finished.study.study_instance_uid,
        "status": "amended" if finished.replaces else "preliminary",
        "result": [artefact.sop_instance_uid for artefact in finished.artefacts],
    }
    index = [IndexEntry("status", value=body["status"])]
    return [FhirVersion("DiagnosticReport", body["id"], body["id"], orjson.dumps(body), index)]


RENDERERS = Renderers(render_outcome, render_pictures, render_report)


def make_worker(  # noqa: PLR0913 # the parts that a test may choose, by name
    store: Store,
    find_model: FindModel,
    *,
    broker: Broker | None = None,
    destinations: Sequence[Destination] = (),
    limits: Limits = LIMITS,
    renderers: Renderers = RENDERERS,
    ahead: Ahead | None = None,
) -> tuple[Worker, Heartbeat]:
    """Build a worker on the embedded queue; its counters and state of health are on the heartbeat."""
    heartbeat = Heartbeat(store, "work", Counters())
    worker = Worker(
        store=store,
        broker=broker or EmbeddedBroker(store, poll_s=0.05),
        heartbeat=heartbeat,
        find_model=find_model,
        renderers=renderers,
        destinations=destinations,
        limits=limits,
        ahead=ahead,
    )
    return worker, heartbeat


@contextmanager
def running(role: Role) -> Iterator[threading.Event]:
    """Run a role in a thread; on leaving it is stopped, must end, and what it raised is raised."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            role.run(stop)
        except BaseException as error:
            raised.append(error)
            raise

    thread = threading.Thread(target=serve, name=f"test-{role.name}")
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(HANGS_S)
    assert not thread.is_alive(), "the role did not end"
    assert not raised, raised


def eventually(is_so: Callable[[], object], what: str, within_s: float = HANGS_S) -> None:
    """Return once a condition holds; fail where it does not in time."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"not in {within_s} s: {what}"
        time.sleep(0.02)


def job_of(store: Store, job_id: str) -> JobRow:
    """Return a job's row."""
    with store.read() as connection:
        return jobs.get_job(connection, job_id)
