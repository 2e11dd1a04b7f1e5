"""What research destinations get, as other people's programs see it: nothing of the patient, whatever is sent."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from gateway.config import load_settings
from gateway.services import Counters, Heartbeat
from gateway.store import Store, deliveries
from gateway.store.deliveries import DeliveryRow
from gateway.store.tables import artefact, instance, study
from gateway.wiring.deliver import build_deliverer
from tests.delivering import storescp
from tests.exchange import mllp_listener
from tests.querying import dcmtk
from tests.services.orthanc import Orthanc
from tests.services.process import LOOPBACK
from tests.unit.report.outcomes import write_xray, xray_findings
from tests.verifying import take_in_all, told, verdict, verifier, work
from tests.working import eventually, running

MARK, BIRTH = "ZQXMARK", "19330707"
SR, SEG, KO = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.59"
_UID = re.compile(rb"[0-2](?:\.\d+){2,}")


def marked(header: Dataset) -> None:
    """Write marks wherever an X-ray of a hospital carries something of a person or a place."""
    header.PatientName, header.PatientID, header.IssuerOfPatientID = f"{MARK}^Jane", f"{MARK}1", f"{MARK}HOSP"
    header.PatientBirthDate, header.AccessionNumber, header.StudyID = BIRTH, f"{MARK}2", f"{MARK}3"
    header.ReferringPhysicianName, header.OperatorsName = f"{MARK}^Doc", f"{MARK}^Op"
    header.InstitutionName, header.StationName, header.PatientComments = f"{MARK} Clinic", MARK, MARK
    header.StudyDescription = header.SeriesDescription = f"{MARK} chest"
    header.file_meta.SourceApplicationEntityTitle = MARK
    header.add_new(0x00090010, "LO", MARK)
    header.add_new(0x00091001, "LO", MARK)


@pytest.fixture
def store(sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Give a database; deliveries are the same on both kinds."""
    monkeypatch.setenv("HYBRIDMED_CONFIG", os.devnull)
    monkeypatch.setenv("HYBRIDMED_DATA_DIR", str(sqlite_store.data_dir))
    return sqlite_store


def deliver_all(store: Store) -> list[DeliveryRow]:
    """Run the deliverer that the settings make until nothing waits; return the deliveries."""
    deliverer = build_deliverer(load_settings(), store, Heartbeat(store, "deliver", Counters()))

    def rows() -> list[DeliveryRow]:
        with store.read() as connection:
            return deliveries.list_deliveries(connection)

    with running(deliverer):
        eventually(lambda: all(row.state != "waiting" for row in rows()), "deliveries end")
    return rows()


def speak_and_deliver(store: Store, folder: Path) -> list[DeliveryRow]:
    """Have a model, and then persons who name the patient, speak of a marked X-ray; each word is sent at once."""
    folder.mkdir()
    uid = take_in_all(store, write_xray(folder, marked))
    said = {"patient_name": f"{MARK}^Jane", "patient_birth_date": BIRTH, "accession_number": f"{MARK}2"}
    said |= {"referring_physician": f"{MARK}^Doc", "study_description": f"{MARK} chest"}
    said |= {"patient_id_issuer": f"{MARK}HOSP"}
    with store.write() as connection:
        connection.execute(sa.update(study).where(study.c.study_instance_uid == uid).values(**said))
    job_id = work(store, uid, told(xray_findings()), load_settings().destinations)
    deliver_all(store)
    person = {"observer": f"{MARK} Doc", "organisation": f"{MARK} Clinic", "comment": f"{MARK} came late"}
    corrections = {**person, "class:0:fine": "viral", "remove:0:1": "1"}
    corrected = verifier(store).verify(verdict(job_id, "correct", corrections))
    deliver_all(store)
    verifier(store).verify(verdict(corrected.job_id, "reject", person))
    return deliver_all(store)


def of_patient(arrived: bytes, store: Store) -> list[bytes]:
    """Return what leads back to the patient: marks, and UIDs of images and results as they are here."""
    marks = [mark.encode() for mark in (MARK, BIRTH, "1933-07-07") if mark.encode() in arrived.upper()]
    columns = [instance.c.study_instance_uid, instance.c.series_instance_uid, instance.c.sop_instance_uid]
    columns += [artefact.c.series_instance_uid, artefact.c.sop_instance_uid]
    with store.read() as connection:
        ours = {uid.encode() for column in columns for uid in connection.scalars(sa.select(column)) if uid}
    return [*marks, *sorted(ours & set(_UID.findall(arrived)))]


def test_nothing_of_the_patient_arrives(
    store: Store, orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SR, SEG, corrections and rejection notes by C-STORE and STOW-RS, as dcmdump reads them; the report by HL7 v2."""
    with storescp(tmp_path / "research") as port, mllp_listener() as listener:
        addresses = {
            "RESEARCH": f"RESEARCH@{LOOPBACK}:{port}",
            "WEB": orthanc.dicomweb_url,
            "HL7": f"mllp://{LOOPBACK}:{listener.port}",
        }
        tables = [f'[destinations.{name}]\naddress = "{at}"\ndeidentify = "basic"\n' for name, at in addresses.items()]
        (tmp_path / "hybridmed.toml").write_text("\n".join(tables))
        monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "hybridmed.toml"))
        ended = speak_and_deliver(store, tmp_path / "source")

    by_store = sorted((tmp_path / "research").iterdir())
    by_stow = orthanc.save_files(tmp_path / "web")
    dumps = {file: dcmtk("dcmdump", "+L", "-Un", "+U8", str(file)).encode() for file in (*by_store, *by_stow)}
    classes = [{pydicom.dcmread(file).SOPClassUID for file in files} for files in (by_store, by_stow)]
    messages = "\r".join(str(each) for each in listener.received).encode()
    assert {(row.destination, row.state, row.reason) for row in ended} == {(name, "done", None) for name in addresses}
    assert [classes[0] >= {SR, SEG, KO}, classes[1] >= {SR, SEG, KO}] == [True, True]
    leaks = {file.name: found for file, dump in dumps.items() if (found := of_patient(dump + file.read_bytes(), store))}
    assert leaks == {}
    assert of_patient(messages, store) == []
    assert all(b"(0012,0062) CS [YES]" in dump for dump in dumps.values())
    assert len({re.search(rb"\(0010,0020\) LO \[(\w{20})\]", dump)[1] for dump in dumps.values()}) == 1  # type: ignore[index]
