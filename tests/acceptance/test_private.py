"""Marked patients through a whole gateway: the marks stay in files, database and answers, and nowhere else."""

from __future__ import annotations

import subprocess
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pika
import pydicom
import pytest
import sqlalchemy as sa
from pika.exceptions import ChannelClosedByBroker
from pydicom.uid import UID, generate_uid

from tests.acceptance.conftest import MakeGateway
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.delivering import storescp
from tests.querying import dcmtk
from tests.services.process import HANGS_S, LOOPBACK, free_port, wait_until
from tests.studies import RealData

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1500)]

MARK = "ZQXMARK"
BIRTH = "19330707"
MARKS = (MARK.encode(), BIRTH.encode(), b"1933-07-07")
RULES = """
[[rules]]
name = "volumes"
match.modality = ["MR"]
bundles = ["mr-hippocampus"]

[[rules]]
name = "everything else"
bundles = ["cxr-pneumonia"]
"""
OPERATING_COLUMNS = {
    "service": ("reason", "counters"),
    "job": ("reason", "trace_context", "destinations"),
    "delivery": ("reason", "destination"),
    "quarantine": ("path", "reason"),
    "workitem": ("label", "worklist_label"),
}
"""What operators read, and what goes on to metrics and queues; all other columns may name patients."""


def marked(files: list[Path], folder: Path) -> list[Path]:
    """Return studies that name a patient wherever a hospital does, and some that are broken."""
    folder.mkdir()
    made = []
    studies: defaultdict[str, UID] = defaultdict(generate_uid)
    for number, file in enumerate(files):
        data_set = pydicom.dcmread(file)
        study_uid = studies[data_set.StudyInstanceUID]
        of_study = list(studies.values()).index(study_uid)
        data_set.PatientName, data_set.PatientID = f"{MARK}^Jane", f"{MARK}-{of_study}"
        data_set.PatientBirthDate, data_set.AccessionNumber = BIRTH, f"{MARK}{of_study}"
        data_set.ReferringPhysicianName, data_set.InstitutionName = f"{MARK}^Doc", f"{MARK} Clinic"
        data_set.StudyDescription = data_set.SeriesDescription = f"{MARK} chest"
        data_set.StudyInstanceUID, data_set.SOPInstanceUID = study_uid, generate_uid()
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        made.append(folder / f"{number}.dcm")
        data_set.save_as(made[-1])
    odd = pydicom.dcmread(made[-1])
    odd.SOPInstanceUID = odd.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    odd.StudyInstanceUID = generate_uid()
    odd.Rows, odd.StationName = 3, MARK  # pixels that cannot be decoded
    made.append(folder / "odd.dcm")
    odd.save_as(made[-1])
    return made


def destinations(absent: int, pacs: int, research: int) -> str:
    """Return the tables of three destinations, by their ports."""
    addresses = {"AWAY": f"GONE@{LOOPBACK}:{absent}", "PACS": f"PACS@{LOOPBACK}:{pacs}"}
    addresses["RESEARCH"] = f"RESEARCH@{LOOPBACK}:{research}"
    tables = "".join(f'[destinations.{name}]\naddress = "{address}"\n' for name, address in addresses.items())
    return f'{tables}deidentify = "basic"\n'


def dumped(file: Path) -> bytes:
    """Return what dcmtk reads in a file."""
    return dcmtk("dcmdump", "+L", "-Un", "+U8", str(file)).encode()


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Take whatever traces are posted; give the address and what came."""
    came: list[bytes] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer((LOOPBACK, 0), Taking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/v1/traces", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def waiting(url: str, prefix: str) -> int:
    """Count what waits in the queues; whoever takes and gives back too often sends it to the dead queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        try:
            counted = [channel.queue_declare(f"{prefix}.{name}", passive=True) for name in ("stat", "routine")]
        except ChannelClosedByBroker:  # nobody has made them yet
            return 0
    return sum(each.method.message_count for each in counted)


def dead_letter(url: str, prefix: str) -> None:
    """Refuse a message, which RabbitMQ then puts into the dead queue, and publish it again for its job."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        got, properties, body = channel.basic_get(f"{prefix}.routine")
        channel.basic_reject(got.delivery_tag, requeue=False)
        channel.basic_publish("", f"{prefix}.routine", body, properties)


def queued(url: str, prefix: str, *names: str) -> list[bytes]:
    """Return bodies and properties of what waits in queues, which stays there."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    found: list[bytes] = []
    for name in names:
        while (got := channel.basic_get(f"{prefix}.{name}"))[0] is not None:
            found += [bytes(got[2]), str(got[1]).encode()]
    connection.close()  # what was not acknowledged goes back
    return found


def ask_with_marks(gateway: GatewayProcess) -> list[bytes]:
    """Ask for the patient in every way, right and wrong; return what errors said."""
    asked = [
        ("GET", f"/fhir/Patient?name={MARK}", None),
        ("GET", f"/fhir/Patient/{MARK}", None),
        ("GET", f"/fhir/Patient?birthdate=xx{BIRTH}", None),
        ("POST", "/fhir/Patient/_search", f"name={MARK}&birthdate=xx{MARK}".encode()),
        ("GET", f"/dicomweb/studies?PatientName={MARK}*&limit={MARK}", None),
        ("GET", f"/dicomweb/studies/{MARK}/metadata", None),
        ("GET", f"/studies/{MARK}", None),
        ("GET", f"/worklist?q={MARK}&page={MARK}", None),
        ("POST", "/dicomweb/studies", MARK.encode()),
    ]
    errors = []
    with httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as client:
        for method, path, content in asked:
            kind = "application/x-www-form-urlencoded" if path.endswith("_search") else "application/dicom"
            answer = client.request(method, path, content=content, headers={"Content-Type": kind} if content else {})
            if answer.status_code >= 400:
                errors.append(answer.content)
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"PatientName={MARK}*", "-k", f"StudyDate={MARK}"]
    find = ["findscu", "-S", "-aec", "HYBRIDMED", LOOPBACK, str(gateway.dicom_port), *keys]
    subprocess.run(find, capture_output=True, timeout=HANGS_S, check=False)
    return errors


def error_pages(gateway: GatewayProcess, study_uids: Collection[str]) -> list[bytes]:
    """Return what a browser is told that asks for what is not there, by addresses without marks: pages name them."""
    paths = ["/nowhere", "/studies/1.2.3", "/worklist?page=x", *(f"/studies/{uid}/nowhere" for uid in study_uids)]
    with httpx.Client(base_url=gateway.url, timeout=120, trust_env=False, headers={"Accept": "text/html"}) as browser:
        answers = [browser.get(path) for path in paths]
        answers.append(browser.post("/studies/1.2.3/verify", data={"action": "x"}))
    return [answer.content for answer in answers if answer.is_error]


def operating_texts(url: str) -> list[bytes]:
    """Return the columns that operators, metrics and queues see."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    found = []
    with engine.connect() as connection:
        for table, columns in OPERATING_COLUMNS.items():
            query = sa.select(*(sa.column(name) for name in columns)).select_from(sa.table(table))
            found += [str(tuple(row)).encode() for row in connection.execute(query)]
    return found


def test_marks_are_found_nowhere_that_they_may_not_be(
    make_grown: MakeGateway, real_data: RealData, tmp_path: Path, broker_url: str, postgres_url: str
) -> None:
    """Logs, metrics, queue messages, traces, errors, file names, reasons; the trail and FHIR do name the patient.

    Of three destinations one is away, one takes everything, and one is for research: what it got is searched, too.
    """
    with (
        collector() as (traces_url, traces),
        storescp(tmp_path / "pacs") as pacs,
        storescp(tmp_path / "research") as research,
    ):
        settings = {"HYBRIDMED_TRACING__ENDPOINT": traces_url, "HYBRIDMED_LOG_LEVEL": "DEBUG"}
        toml = destinations(free_port(), pacs, research) + RULES
        front = make_grown(toml=toml, roles="receive,dispatch,deliver,web", **settings)
        front.start()
        files = marked([*real_data.cxr, *real_data.studies()["mr"]], tmp_path / "marked")
        studies = {str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID) for file in files}
        storescu(front.address, files)
        front.wait_for_studies(len(studies))
        wait_until(lambda: waiting(broker_url, "hybridmed.jobs") >= len(studies), HANGS_S, "messages in the queues")
        dead_letter(broker_url, "hybridmed.jobs")
        messages = queued(broker_url, "hybridmed.jobs", "stat", "routine")
        dead_messages = queued(broker_url, "hybridmed.jobs", "dead")
        work = make_grown(toml=toml, roles="work", HYBRIDMED_DATA_DIR=str(front.data_dir), **settings)
        work.program.start()
        jobs = front.wait_for_jobs(len(studies))
        delivered = [*front.wait_for_deliveries("PACS"), *front.wait_for_deliveries("RESEARCH")]
        errors = ask_with_marks(front)
        pages = error_pages(front, studies)
        wait_until(lambda: "delivery.away" in front.log_text(), HANGS_S, "the PACS that is away is noticed")
        metrics = httpx.get(f"{front.url}/metrics", timeout=120, trust_env=False).content
        audit = front.cli("audit", "export").stdout.encode()
        patients = httpx.get(f"{front.url}/fhir/Patient?name={MARK}", timeout=120, trust_env=False).content
        work.stop()
        front.stop()

    names = "\n".join(str(path.relative_to(front.data_dir)) for path in front.data_dir.rglob("*")).encode()
    places = {
        "logs": [front.log_text().encode(), work.log_text().encode()],
        "metrics": [metrics],
        "queue": messages,
        "dead queue": dead_messages,
        "traces": traces,
        "errors": errors,
        "error pages": pages,
        "research": [dumped(file) for file in (tmp_path / "research").iterdir()],
        "file names": [names],
        "reasons": operating_texts(postgres_url),
    }
    leaks = {
        name: text[:500] for name, texts in places.items() for text in texts if any(mark in text for mark in MARKS)
    }
    assert leaks == {}
    assert len(jobs) == len(studies)
    assert all(places[name] for name in places)
    assert {row["state"] for row in delivered} == {"done"}
    assert all(MARK.encode() in dumped(file) for file in (tmp_path / "pacs").iterdir())
    assert all(b"<html" in page for page in pages[:2])
    assert [uid for uid in studies if any(uid.encode() in text for text in places["research"])] == []
    assert MARK.encode() in audit
    assert MARK.encode() in patients
