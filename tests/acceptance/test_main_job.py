"""The main job on real studies: in by C-STORE, out as SR, SEG and FHIR, with nobody touching anything."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from tests import validators
from tests.acceptance.conftest import MakeGateway
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.services.orthanc import Orthanc
from tests.studies import RealData

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1500)]

RULES = """
[[rules]]
name = "everything to the chest model, which says what it cannot evaluate"
bundles = ["cxr-pneumonia"]
"""
SR_COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def test_every_real_study_ends_in_a_result_that_others_accept(
    make_gateway: MakeGateway, orthanc: Orthanc, real_data: RealData, tmp_path: Path
) -> None:
    """X-rays get findings, CT and MR a reasoned 'not evaluable'; the PACS holds SR and SEG that validators accept."""
    gateway = make_gateway(toml=RULES, HYBRIDMED_DESTINATIONS=f"PACS={orthanc.dicom_address}")
    gateway.start()
    studies = {name: files for name, files in real_data.studies().items() if name != "odd"}
    sent = [file for files in studies.values() for file in files]
    uids = {_header(file).StudyInstanceUID for file in sent}

    for files in studies.values():
        ended = storescu(gateway.address, files)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    gateway.wait_for_studies(len(uids))
    jobs = gateway.wait_for_jobs(len(uids))
    deliveries = gateway.wait_for_deliveries()

    assert {job["study_instance_uid"] for job in jobs} == uids
    assert len(gateway.stored_files()) == len(sent)
    assert {delivery["state"] for delivery in deliveries} == {"done"}
    xrays = {_header(file).StudyInstanceUID for file in studies["xrays"]}
    for job in jobs:
        if job["study_instance_uid"] in xrays:
            assert job["reason"] is None, job
        else:
            assert job["reason"].startswith("not evaluable"), job
    results = orthanc.save_files(tmp_path / "pacs")
    _assert_validators_accept(results, sent)
    _assert_fhir_says_the_same(gateway, jobs, results)


def test_a_study_that_nothing_wants_is_listed_with_the_reason(
    make_embedded: MakeGateway, real_data: RealData, tmp_path: Path
) -> None:
    """Without rules, a CT of a knee, which no bundle takes, is kept and listed as unrouted."""
    gateway = make_embedded()
    gateway.start()
    files = [_of_a_knee(file, tmp_path) for file in real_data.studies()["ct-philips"][:5]]

    ended = storescu(gateway.address, files)
    studies = gateway.wait_for_studies(1)

    assert ended.returncode == 0
    assert [study["state"] for study in studies] == ["unrouted"]
    assert "CT" in studies[0]["state_reason"]
    assert gateway.json("jobs", "list") == []
    assert len(gateway.stored_files()) == len(files)


def test_reprocess_replaces_a_result_by_a_new_revision(
    make_embedded: MakeGateway, orthanc: Orthanc, real_data: RealData, tmp_path: Path
) -> None:
    """The new SR names the old one as predecessor, and the FHIR report becomes `amended` in place."""
    gateway = make_embedded(HYBRIDMED_DESTINATIONS=f"PACS={orthanc.dicom_address}")
    gateway.start()
    study = str(_header(real_data.cxr[0]).StudyInstanceUID)
    storescu(gateway.address, real_data.cxr[:1])
    gateway.wait_for_jobs(1)
    gateway.wait_for_deliveries()
    earlier = list(map(_header, orthanc.save_files(tmp_path / "first")))
    first = {header.SOPInstanceUID for header in earlier}
    report = gateway.get("/fhir/DiagnosticReport")["entry"][0]["resource"]

    by_uid = gateway.cli("reprocess", study, "--stat")
    jobs = gateway.wait_for_jobs(2)
    gateway.wait_for_deliveries()
    second = [file for file in orthanc.save_files(tmp_path / "second") if _header(file).SOPInstanceUID not in first]
    amended = gateway.get(f"/fhir/DiagnosticReport/{report['id']}")
    by_modality = gateway.cli("reprocess", "--modality", "DX", "--since", "2020-01-01")
    gateway.wait_for_jobs(3)

    assert by_uid.returncode == by_modality.returncode == 0, by_uid.stderr + by_modality.stderr
    assert sorted(job["revision"] for job in jobs) == [1, 2]
    reports = [dataset for dataset in map(pydicom.dcmread, second) if dataset.SOPClassUID == SR_COMPREHENSIVE_3D]
    assert reports
    replaced = {header.SOPInstanceUID for header in earlier if header.SOPClassUID == SR_COMPREHENSIVE_3D}
    for dataset in reports:
        assert _references(dataset.PredecessorDocumentsSequence) == replaced
    assert (report["status"], amended["status"]) == ("preliminary", "amended")
    assert gateway.cli("reprocess", "1.2.3.4").returncode == 3


def test_a_repeated_send_changes_nothing(make_embedded: MakeGateway, real_data: RealData) -> None:
    """The same files once more are answered with success and make no second row, file, job or report."""
    gateway = make_embedded()
    gateway.start()
    storescu(gateway.address, real_data.cxr)
    gateway.wait_for_jobs(3)
    before = gateway.json("studies", "list")

    again = storescu(gateway.address, real_data.cxr)
    after = gateway.wait_for_studies(3)

    assert again.returncode == 0
    assert [study["revision"] for study in after] == [1, 1, 1] == [study["revision"] for study in before]
    assert len(gateway.json("jobs", "list")) == 3
    assert len(gateway.stored_files()) == 3


def test_logs_and_metrics_hold_no_patient_data(make_embedded: MakeGateway, real_data: RealData) -> None:
    """Names, patient ids and accession numbers of the studies sent stand in no log line and no metric."""
    gateway = make_embedded()
    gateway.start()
    storescu(gateway.address, real_data.cxr)
    gateway.wait_for_jobs(3)

    metrics = httpx.get(gateway.url + "/metrics", timeout=120, trust_env=False).text
    gateway.stop()

    said = gateway.log_text() + metrics
    for file in real_data.cxr:
        header = _header(file)
        for secret in (str(header.PatientName), str(header.PatientID), str(header.get("AccessionNumber", ""))):
            assert not secret or secret not in said


def _of_a_knee(file: Path, folder: Path) -> Path:
    dataset = pydicom.dcmread(file)
    dataset.BodyPartExamined = "KNEE"
    dataset.save_as(folder / file.name)
    return folder / file.name


def _header(file: Path) -> pydicom.Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True)


def _references(predecessors: Sequence[pydicom.Dataset]) -> set[str]:
    of_series = [series for study in predecessors for series in study.ReferencedSeriesSequence]
    return {str(one.ReferencedSOPInstanceUID) for series in of_series for one in series.ReferencedSOPSequence}


def _assert_validators_accept(results: Sequence[Path], sources: Sequence[Path]) -> None:
    headers = {file: _header(file) for file in results}
    reports = [file for file, header in headers.items() if header.SOPClassUID == SR_COMPREHENSIVE_3D]
    segmentations = [file for file, header in headers.items() if header.SOPClassUID == SEGMENTATION]
    assert reports
    assert segmentations
    for file in results:
        assert validators.dciodvfy(file) == []
    for file in reports:
        assert validators.dsrdump(file) == []
    for file in _sample(reports):
        assert validators.pixelmed(file) == []
    for file in segmentations:
        assert validators.segimage2itkimage(file)
    for study in {header.StudyInstanceUID for header in headers.values()}:
        of_study = [file for file, header in headers.items() if header.StudyInstanceUID == study]
        images = [file for file in sources if _header(file).StudyInstanceUID == study]
        # The two series of the real MR study tell different study times: there the results must agree among themselves.
        agree_by_themselves = not validators.dcentvfy(images)
        assert validators.dcentvfy([*(images if agree_by_themselves else []), *of_study]) == []


def _sample(files: Sequence[Path], count: int = 12) -> Sequence[Path]:
    """Return a stable choice: PixelMed takes seconds for each, and reports of one kind are alike."""
    by_name = sorted(files, key=lambda file: hashlib.sha256(_header(file).SOPInstanceUID.encode()).digest())
    kinds: dict[str, list[Path]] = {}
    for file in by_name:
        kinds.setdefault(f"{_header(file).SeriesDescription}{_header(file).StudyDate}", []).append(file)
    rounds = max(map(len, kinds.values()))
    return [files[i] for i in range(rounds) for files in kinds.values() if i < len(files)][:count]


def _assert_fhir_says_the_same(
    gateway: GatewayProcess, jobs: Sequence[dict[str, Any]], results: Sequence[Path]
) -> None:
    """Each job has one report that names its SR; a search by patient finds it, with the findings of the SR."""
    reports = [entry["resource"] for entry in gateway.get("/fhir/DiagnosticReport", _count="200")["entry"]]
    assert len(reports) == len(jobs)
    assert {report["status"] for report in reports} == {"preliminary"}
    told = {identifier["value"] for report in reports for identifier in report.get("identifier", [])}
    for file in results:
        header = pydicom.dcmread(file)
        if header.SOPClassUID == SR_COMPREHENSIVE_3D and "finding" in header.SeriesDescription.lower():
            assert f"urn:oid:{header.SOPInstanceUID}" in told
    for report in reports[:3]:
        found = gateway.get("/fhir/DiagnosticReport", patient=report["subject"]["reference"])
        assert report["id"] in {entry["resource"]["id"] for entry in found["entry"]}
        for result in report.get("result", []):
            observation = gateway.get(f"/fhir/{result['reference']}")
            assert observation["subject"] == report["subject"]
