"""The shipped bundles for volumes, from a study that is sent to SEG, SR and FHIR, and back to the right place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from inference.bundle import SelfTest, default_bundle_dir, load_bundle
from inference.errors import BundleError
from inference.findings import Findings, NotEvaluable
from inference.predict_volume import VolumePredictor
from inference.volume import load_series
from inference.volume_labels import find_labels, onto_grid
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.studies import RealData, dicom_files

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_SHIPPED = default_bundle_dir()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: on a busy machine two wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lungs() -> VolumePredictor:
    """Give the shipped lung model."""
    return VolumePredictor(load_bundle(_SHIPPED / "ct-lung"), "cpu")


def test_a_ct_gets_both_lungs_on_its_own_planes(lungs: VolumePredictor, real_data: RealData) -> None:
    """The sample's stack ends within the lungs: no volume is told, mean density and share are, in their units."""
    paths = dicom_files(real_data.samples / "ct-chest")

    (found,) = lungs.run(lungs.prepare([paths]))

    assert isinstance(found, Findings)
    assert [segment.tracking_id for segment in found.segments] == ["right-lung", "left-lung"]
    for segment in found.segments:
        assert segment.mask.shape == (22, 512, 512)
        density, share = segment.measurements
        assert -950 < density.value < -650
        assert 0 < share.value < 40
        assert [density.unit.value, share.unit.value] == ["[hnsf'U]", "%"]


@pytest.mark.parametrize("axis", [0, 2])
def test_right_stays_right_however_the_volume_is_stored(lungs: VolumePredictor, real_data: RealData, axis: int) -> None:
    """A CT whose planes or columns are stored the other way round gives the same lungs in the same place."""
    volume = load_series(dicom_files(real_data.samples / "ct-chest")).volumes[0]
    assert volume.affine_lps is not None
    flip = np.eye(4)
    flip[2 - axis, 2 - axis], flip[2 - axis, 3] = -1, volume.voxels.shape[axis] - 1
    flipped = np.flip(volume.voxels, axis).copy()

    plain, turned = (
        find_labels(lungs.network, onto_grid(voxels, affine, lungs.spec), lungs.spec, voxels, affine).numbers
        for voxels, affine in ((volume.voxels, volume.affine_lps), (flipped, volume.affine_lps @ flip))
    )

    back = np.flip(turned, axis)
    for number in (1, 2):
        assert 2 * ((plain == number) & (back == number)).sum() > 0.999 * (
            (plain == number).sum() + (back == number).sum()
        )


def test_an_mr_is_no_ct(lungs: VolumePredictor, real_data: RealData) -> None:
    """The reason names what was found and what was expected."""
    (refused,) = lungs.run(lungs.prepare([dicom_files(real_data.samples / "mr-hippocampus")]))

    assert isinstance(refused, NotEvaluable)
    assert (refused.code, refused.reason) == ("modality", "Modality is MR, expected CT.")


def test_a_network_that_answers_otherwise_is_refused(lungs: VolumePredictor) -> None:
    """A self-test that expects other numbers is a bundle error that says how far off the answer is."""
    shipped = lungs.bundle.self_test
    assert shipped is not None
    shifted = SelfTest(tuple(value + 1 for value in shipped.expected), shipped.tolerance)

    with pytest.raises(BundleError, match=r"self_test\.expected: the network's answer is 1 off"):
        VolumePredictor(replace(lungs.bundle, self_test=shifted), "cpu")


def test_a_ct_that_is_sent_gives_seg_sr_and_fhir(tmp_path: Path, real_data: RealData) -> None:
    """Nobody touches anything between C-STORE and the results; FHIR tells the measurements with UCUM units."""
    gateway = GatewayProcess(tmp_path / "gateway", HYBRIDMED_DEVICE="cpu")
    paths = dicom_files(real_data.samples / "ct-chest")
    try:
        gateway.start()
        sent = storescu(gateway.address, paths)
        jobs = gateway.wait_for_jobs(1)
        observations = [entry["resource"] for entry in gateway.get("/fhir/Observation", _count="100")["entry"]]
    finally:
        gateway.stop()

    assert sent.returncode == 0
    assert [(job["bundle"], job["state"], job["reason"]) for job in jobs] == [("ct-lung", "done", None)]
    told = {one["valueQuantity"]["code"] for one in observations if "valueQuantity" in one}
    assert {"[hnsf'U]", "%"} <= told
    made = [pydicom.dcmread(file, stop_before_pixels=True) for file in gateway.data_dir.rglob("*.dcm")]
    assert _SEGMENTATION in {dataset.SOPClassUID for dataset in made}
