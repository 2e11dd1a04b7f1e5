"""The bundles for volumes from C-STORE to the eye: validators judge what they write, and OHIF lays it over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser
from pydicom.dataset import Dataset
from scipy import ndimage

from tests import validators, viewer_files
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.acceptance.ohif import Ohif, coloured
from tests.browser import WatchedPage, chromium, watched_page
from tests.services.process import HANGS_S, wait_until
from tests.studies import RealData, dicom_files

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
COLOURS = {
    "Right lung": (148, 144, 224),
    "Left lung": (185, 209, 91),
    "Anterior hippocampus": (255, 134, 72),
    "Posterior hippocampus": (39, 195, 203),
}
"""The recommended CIELab colours of the bundles' segments in sRGB."""


@dataclass(frozen=True)
class Segmented:
    """A series and what its bundle wrote."""

    study: str
    images: Sequence[Dataset]
    """By Instance Number."""
    seg: Path
    reports: Sequence[Path]

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Return the segments by label, (Z, Y, X) in the order of `images`, as pydicom reads them."""
        seg = pydicom.dcmread(self.seg)
        at = {image.SOPInstanceUID: k for k, image in enumerate(self.images)}
        labels = {each.SegmentNumber: str(each.SegmentLabel) for each in seg.SegmentSequence}
        shape = (len(self.images), seg.Rows, seg.Columns)
        found = {label: np.zeros(shape, bool) for label in labels.values()}
        for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
            source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            found[labels[number]][at[source]] = frame > 0
        return found


@dataclass(frozen=True)
class Laid:
    """What the page shows of an image with a segmentation laid over it."""

    picture: NDArray[np.uint8]
    to_page: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]

    def at(self, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the pixels of the page where a mask of the image is, (1, N, 3)."""
        y, x = (np.rint(each).astype(int) for each in self.to_page(*np.nonzero(mask)))
        return self.picture[y, x][None]


@dataclass(frozen=True)
class Site:
    """A gateway that processed a CT and an MR."""

    url: str
    ct: Segmented
    mr: Segmented


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, real_data: RealData) -> Iterator[Site]:
    """Give a gateway that received both studies and ran the shipped bundles over them."""
    viewer_dir = viewer_files.obtain()
    folder = None if real_data.shared is None else real_data.shared / "dicom"
    ct = dicom_files(real_data.samples / "ct-chest" if folder is None else folder / "ct-chest-philips")
    mr = dicom_files(real_data.samples / "mr-hippocampus" if folder is None else folder / "mr-hippocampus")
    gateway = GatewayProcess(
        tmp_path_factory.mktemp("gateway"), roles="receive,dispatch,work,web", HYBRIDMED_VIEWER_DIR=str(viewer_dir)
    )
    try:
        gateway.start()
        assert storescu(gateway.address, [*ct, *mr]).returncode == 0
        jobs = gateway.wait_for_jobs(2)
        assert {job["bundle"]: job["reason"] for job in jobs} == {"ct-lung": None, "mr-hippocampus": None}
        yield Site(gateway.url, segmented(gateway, ct), segmented(gateway, mr))
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give Chromium."""
    with chromium() as running:
        yield running


@pytest.fixture
def watched(browser: Browser) -> Iterator[WatchedPage]:
    """Give a page; nothing may have gone wrong in it."""
    with watched_page(browser) as page:
        yield page
        assert page.refused == []
        assert page.errors == [], page.failed


def segmented(gateway: GatewayProcess, sources: Sequence[Path]) -> Segmented:
    """Find what was written about the series that was segmented."""
    sent = [pydicom.dcmread(file) for file in sources]
    study = str(sent[0].StudyInstanceUID)
    results = [path for path in gateway.data_dir.rglob("*.dcm") if _is_result(path, study)]
    (seg,) = (path for path in results if _sop_class(path) == SEGMENTATION)
    series = pydicom.dcmread(seg, stop_before_pixels=True).ReferencedSeriesSequence[0].SeriesInstanceUID
    images = sorted((one for one in sent if one.SeriesInstanceUID == series), key=lambda one: int(one.InstanceNumber))
    return Segmented(study, images, seg, [path for path in results if _sop_class(path) == REPORT])


def _is_result(path: Path, study: str) -> bool:
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SOPInstanceUID"])
    return header.StudyInstanceUID == study and header.SOPInstanceUID.startswith("2.25.")


def _sop_class(path: Path) -> str:
    return str(pydicom.dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID)


def test_validators_find_no_fault_in_what_the_bundles_write(site: Site) -> None:
    """dciodvfy, dcentvfy, dsrdump and PixelMed are silent; dcmqi reads the segments and the measurements."""
    for one in (site.ct, site.mr):
        assert one.reports
        assert validators.dcentvfy([one.seg, *one.reports]) == []
        assert validators.dciodvfy(one.seg) == []
        sizes = sorted(int(mask.sum()) for mask in one.masks().values())
        assert sorted(int(mask.sum()) for mask in validators.segimage2itkimage(one.seg).values()) == sizes
        for report in one.reports:
            assert validators.dciodvfy(report) == []
            assert validators.dsrdump(report) == []
            assert validators.pixelmed(report) == []
        assert any(validators.tid1500reader(report)["Measurements"] for report in one.reports)


def test_the_lungs_are_coloured_where_the_lungs_are(site: Site, watched: WatchedPage) -> None:
    """What holds air inside of the body is coloured, each side in its colour; the rest of the image stays grey."""
    all_air = air_inside([_hounsfield(image) for image in site.ct.images])
    area = all_air.sum(axis=(1, 2))
    position = int((area > 0.7 * area.max()).argmax())  # the first with much of both lungs
    laid = shown(site, site.ct, position, watched, "viewer-ct-lung")

    air, masks = all_air[position], {label: mask[position] for label, mask in site.ct.masks().items()}
    is_left = np.arange(air.shape[1]) >= air.shape[1] // 2  # the patient's left is on the right of the image
    for label, side in (("Right lung", ~is_left), ("Left lung", is_left)):
        inside = ndimage.binary_erosion(air & side, iterations=8)
        assert inside.sum() > 1000
        assert coloured(laid.at(inside)).mean() > 0.9
        assert (masks[label] & inside).sum() > 0.9 * inside.sum()
        assert_colour(laid.at(ndimage.binary_erosion(masks[label], iterations=6)), label)
    marked = ndimage.binary_dilation(np.logical_or.reduce([*masks.values()]), iterations=4)
    assert not coloured(laid.at(_middle(~marked))).any()


def test_the_hippocampus_is_coloured_in_two_parts(site: Site, watched: WatchedPage) -> None:
    """Each part lies over the image in its colour, and nothing lies elsewhere."""
    all_masks = site.mr.masks()
    position = int(np.prod([1 + mask.sum(axis=(1, 2)) for mask in all_masks.values()], axis=0).argmax())
    laid = shown(site, site.mr, position, watched, "viewer-mr-hippocampus")

    masks = {label: mask[position] for label, mask in all_masks.items()}
    for label, mask in masks.items():
        inside = ndimage.binary_erosion(mask)
        assert inside.sum() > 10
        assert_colour(laid.at(inside), label)
    marked = ndimage.binary_dilation(np.logical_or.reduce([*masks.values()]), iterations=2)
    assert not coloured(laid.at(_middle(~marked))).any()


def shown(site: Site, one: Segmented, position: int, watched: WatchedPage, keep_as: str) -> Laid:
    """Open the SEG, which brings up the first image that has a segment, and scroll to an image by its position."""
    viewer = Ohif(site.url, watched)
    viewer.open(f"/viewer/viewer?StudyInstanceUIDs={one.study}")
    viewer.show(next(k for k, text in enumerate(viewer.series()) if text.startswith("SEG")))
    wait_until(lambda: coloured(viewer.viewport()).any(), HANGS_S, "a segment")
    wanted = int(one.images[position].InstanceNumber)
    direction = 1
    for _ in range(4 * len(one.images)):  # the viewer's order may go either way, and a slow one may skip an image
        left = abs(wanted - viewer.instance_number())
        if left == 0:
            break
        viewer.scroll(direction)
        if abs(wanted - viewer.instance_number()) > left:
            direction = -direction
    viewer.wait_for_colour()
    viewer.wait_until_still()
    assert viewer.instance_number() == wanted
    rows, columns = one.images[position].Rows, one.images[position].Columns
    return Laid(watched.picture(keep_as=keep_as), viewer.box().image_to_page(rows, columns))


def assert_colour(pixels: NDArray[np.uint8], label: str) -> None:
    """See that a colour was mixed half and half into grey: what is left without it has no hue."""
    left = 2 * np.median(pixels[0].astype(float), axis=0) - np.array(COLOURS[label])
    assert left.max() - left.min() < 30, (label, left)


def air_inside(planes: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Return the large stretches of air that do not touch the edge of the image, (Z, Y, X)."""
    labels, _ = ndimage.label(np.stack(planes) < -500)
    edges = [labels[:, 0], labels[:, -1], labels[..., 0], labels[..., -1]]
    outside = np.unique(np.concatenate([edge.ravel() for edge in edges]))
    inside = (labels > 0) & ~np.isin(labels, outside)
    return inside & (np.bincount(labels.ravel()) > 10_000)[labels]


def _hounsfield(image: Dataset) -> NDArray[np.float64]:
    return image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)


def _middle(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out the edge, where the viewer writes."""
    kept = np.zeros_like(mask)
    rows, columns = mask.shape
    part = np.s_[rows // 5 : -rows // 5, columns // 5 : -columns // 5]
    kept[part] = mask[part]
    return kept
