"""Verified results of real studies, judged by other people's validators, and kept by a real PACS."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gateway.config import Destination
from gateway.store import Store
from gateway.store.verifications import NOTE
from inference.findings import Findings, SourceFrame
from tests import validators
from tests.delivering import make_deliverer
from tests.services.orthanc import Orthanc
from tests.studies import RealData
from tests.unit.report.outcomes import ALGORITHM, findings_of_two_levels, lungs
from tests.verifying import files_of, take_in_all, verdict, verifier, work
from tests.working import eventually, running

CORRECTED = {"class:0:fine": "viral", "remove:0:1": "1", "observer": "王 小明", "organisation": "Klinik Süd"}
REMOVED = {"remove:0:1": "1", "comment": "Wrong side"}


def _series(files: Sequence[Path]) -> list[Path]:
    """Return the files of the first series along its normal."""
    images = [(pydicom.dcmread(path, stop_before_pixels=True), path) for path in files]
    uid = images[0][0].SeriesInstanceUID
    members = [(image, path) for image, path in images if image.SeriesInstanceUID == uid]
    if len(members) > 1:
        members.sort(key=lambda member: float(member[0].ImagePositionPatient[2]))
    return [path for _, path in members]


def _outcome(files: Sequence[Path]) -> Findings:
    """Give two segments, the bright pixels of either half, and of a single image two levels."""
    images = [pydicom.dcmread(path) for path in files]
    voxels = np.stack([image.pixel_array.astype(np.float32) for image in images])  # (Z, Y, X)
    bright = voxels > voxels.mean()
    left, right = bright.copy(), bright.copy()
    middle = bright.shape[-1] // 2
    left[..., :middle], right[..., middle:] = False, False
    frames = tuple(SourceFrame(str(image.SOPInstanceUID)) for image in images)
    findings = findings_of_two_levels() if len(files) == 1 else ()
    return Findings(ALGORITHM, str(images[0].SeriesInstanceUID), frames, findings, lungs(left, right))


@pytest.mark.parametrize(
    ("name", "fields", "judged"), [("xrays", CORRECTED, "sr-findings"), ("mr", REMOVED, "sr-measurements")]
)
def test_corrected_results_pass_the_validators(
    sqlite_store: Store, real_data: RealData, name: str, fields: dict[str, str], judged: str
) -> None:
    """No error in reports, segmentation and note; dcmqi finds the segment that stayed, voxel by voxel.

    PixelMed, which is slow, judges a report of each kind.
    """
    files = real_data.cxr[:1] if name == "xrays" else _series(real_data.studies()[name])
    outcome = _outcome(files)
    job_id = work(sqlite_store, take_in_all(sqlite_store, files), outcome)

    made = verifier(sqlite_store).verify(verdict(job_id, "correct", fields))

    written = files_of(sqlite_store, made.job_id)
    assert {"sr-measurements", "seg", NOTE} <= set(written)
    for kind, path in written.items():
        assert validators.dciodvfy(path) == [], kind
        if kind != "seg":
            assert validators.dsrdump(path) == [], kind
    assert validators.pixelmed(written[judged]) == []
    assert validators.dcentvfy([*files, *written.values()]) == []
    np.testing.assert_array_equal(validators.segimage2itkimage(written["seg"])[1], outcome.segments[1].mask)
    groups = validators.tid1500reader(written["sr-measurements"])["Measurements"]
    assert isinstance(groups, list)
    assert [group["TrackingIdentifier"] for group in groups] == ["lung-right"]


def test_the_pacs_receives_what_the_person_said(sqlite_store: Store, real_data: RealData, orthanc: Orthanc) -> None:
    """Orthanc holds the algorithm's report, the verified one that names it, and then the note that withdraws both."""
    pacs = Destination(name="PACS", address=orthanc.dicom_address, send=("sr", "seg"))
    files = real_data.cxr[:1]
    job_id = work(sqlite_store, take_in_all(sqlite_store, files), _outcome(files), [pacs])
    word = verifier(sqlite_store)
    accepted = word.verify(verdict(job_id, "accept"))
    deliverer, _ = make_deliverer(sqlite_store, [pacs])

    with running(deliverer):
        eventually(lambda: len(orthanc.list_instances(Modality="SR")) == 4, "four reports in the PACS")
        rejected = word.verify(verdict(accepted.job_id, "reject"))
        eventually(lambda: orthanc.list_instances(Modality="KO"), "the note in the PACS")

    own = pydicom.dcmread(files_of(sqlite_store, accepted.job_id)["sr-findings"])
    (instance,) = orthanc.list_instances(SOPInstanceUID=str(own.SOPInstanceUID))
    received = pydicom.dcmread(io.BytesIO(orthanc.get_file(instance)))
    assert (received.VerificationFlag, received.PreliminaryFlag) == ("VERIFIED", "FINAL")
    assert str(received.VerifyingObserverSequence[0].VerifyingObserverName) == "Curie^Marie"
    first = pydicom.dcmread(files_of(sqlite_store, job_id)["sr-findings"]).SOPInstanceUID
    predecessor = received.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == first
    assert orthanc.list_instances(SOPInstanceUID=str(first))
    note = pydicom.dcmread(files_of(sqlite_store, rejected.job_id)[NOTE])
    named = {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in note.ContentSequence[1:]}
    assert received.SOPInstanceUID in named
