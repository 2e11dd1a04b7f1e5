"""OHIF in Chromium, served by a real gateway, opens the studies and every object that the gateway writes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser
from pydicom.dataset import Dataset
from scipy import ndimage

from gateway.report import render_outcome
from gateway.report.assignment import Assignment
from gateway.report.identity import RenderOptions
from gateway.store import open_store
from inference.findings import Code, Findings, HeatMap, SourceFrame
from tests import viewer_files
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.acceptance.made_results import write_results
from tests.acceptance.ohif import SHOW_S, Ohif, coloured
from tests.browser import WatchedPage, chromium, watched_page
from tests.services.process import wait_until
from tests.studies import RealData
from tests.unit.report import outcomes
from tests.verifying import verdict, verifier

RUN_NOTHING = '[[rules]]\nname = "keep, and run nothing"\nbundles = []\n'
ONCOLOGY = Code("126001", "DCM", "Oncology Measurement Report")
LEFT_RGB, RIGHT_RGB = np.array([156, 135, 197]), np.array([132, 184, 119])
"""The colours of `outcomes.lungs`, CIELab (60, 20, -30) and (70, -30, 30), in sRGB."""

TOLD = "console: a request or an image failed: TypeError: Failed to fetch"
SHOWN_TOO_LATE = """() => {
  const [engine] = cornerstone.getRenderingEngines();
  const viewport = engine.getViewports().find((each) => each instanceof cornerstone.StackViewport);
  const id = viewport.getCurrentImageId();
  const image = cornerstone.cache.getImage(id);
  const { element } = viewport;
  let shown = 0;
  element.addEventListener(cornerstone.EVENTS.STACK_NEW_IMAGE, () => { shown += 1; });
  viewport.successCallback(id, image);
  engine.disableElement(viewport.id);
  viewport.successCallback(id, image);
  return shown === 1 ? "shown, then left alone" : `shown ${shown} times`;
}"""


@dataclass(frozen=True)
class Site:
    """A gateway with studies and results."""

    url: str
    ct: str
    mr: str
    dx: str
    left: NDArray[np.bool_]
    """(Z, Y, X), by rising Instance Number."""
    right: NDArray[np.bool_]
    instance_numbers: Sequence[int]


@pytest.fixture(scope="module")
def viewer_dir() -> Path:
    """Give the folder of an installed viewer."""
    return viewer_files.obtain()


@pytest.fixture(scope="module")
def site(viewer_dir: Path, tmp_path_factory: pytest.TempPathFactory, real_data: RealData) -> Iterator[Site]:
    """Give a gateway that received a CT, an MR and an X-ray, with the results that a worker wrote."""
    gateway = GatewayProcess(
        tmp_path_factory.mktemp("gateway"),
        toml=RUN_NOTHING,
        roles="receive,dispatch,web",
        HYBRIDMED_VIEWER_DIR=str(viewer_dir),
        HYBRIDMED_QUIET_S="1",
    )
    gateway.start()
    try:
        yield fill(gateway, real_data, tmp_path_factory.mktemp("rendered"))
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give Chromium."""
    with chromium() as running:
        yield running


@pytest.fixture
def watched(browser: Browser) -> Iterator[WatchedPage]:
    """Give a page; nothing may have gone wrong in it, and it may have asked no other host."""
    with watched_page(browser) as page:
        yield page
        assert page.strangers == []
        assert page.refused == []
        assert page.errors == [], page.failed


def fill(gateway: GatewayProcess, real_data: RealData, folder: Path) -> Site:
    """Send the studies and write the results."""
    ct = sorted(real_data.samples.glob("ct-chest/*.dcm"))
    mr = sorted(real_data.samples.glob("mr-hippocampus/*.dcm"))
    dx = real_data.cxr[0]
    slices = sorted((pydicom.dcmread(file) for file in ct), key=lambda each: int(each.InstanceNumber))
    left, right = lungs_of(slices)
    of_ct = findings_of_ct(slices, left, right)
    assert storescu(gateway.address, [*ct, *mr, dx, *titled_otherwise(of_ct, ct, folder)]).returncode == 0
    gateway.wait_for_studies(3)
    xray = pydicom.dcmread(dx)
    write_results(gateway.data_dir, str(slices[0].StudyInstanceUID), of_ct, "ct-lung")
    job = write_results(gateway.data_dir, str(xray.StudyInstanceUID), findings_of_xray(xray), "cxr-pneumonia")
    store = open_store(f"sqlite:///{gateway.data_dir / 'hybridmed.db'}", gateway.data_dir)
    try:
        verifier(store).verify(verdict(job, "accept"))
    finally:
        store.close()
    reject_one(gateway, str(slices[0].StudyInstanceUID))
    return Site(
        url=gateway.url,
        ct=str(slices[0].StudyInstanceUID),
        mr=str(pydicom.dcmread(mr[0]).StudyInstanceUID),
        dx=str(xray.StudyInstanceUID),
        left=left,
        right=right,
        instance_numbers=[int(each.InstanceNumber) for each in slices],
    )


def reject_one(gateway: GatewayProcess, study: str) -> None:
    """Take one report back by way of DICOMweb, which leaves a rejection note in the study."""
    found = gateway.get(f"/dicomweb/studies/{study}/series", Modality="SR")
    series = found[0]["0020000E"]["Value"][0]
    httpx.delete(f"{gateway.url}/dicomweb/studies/{study}/series/{series}", timeout=120).raise_for_status()


def lungs_of(slices: Sequence[Dataset]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what holds air inside of the body, (Z, Y, X), on the patient's left and on the right."""
    volume = np.stack([each.pixel_array * float(each.RescaleSlope) + float(each.RescaleIntercept) for each in slices])
    labels, _ = ndimage.label(volume < -500)  # (Z, Y, X)
    outside = np.unique(np.concatenate([labels[:, 0].ravel(), labels[:, -1].ravel(), labels[..., 0].ravel()]))
    inside = (labels > 0) & ~np.isin(labels, outside)
    sizes = np.bincount(labels[inside])
    air = inside & (sizes > 10_000)[np.minimum(labels, sizes.size - 1)]
    is_left = np.arange(volume.shape[2]) >= volume.shape[2] // 2  # the patient's left is on the right of the image
    return air & is_left, air & ~is_left


def findings_of_ct(slices: Sequence[Dataset], left: NDArray[np.bool_], right: NDArray[np.bool_]) -> Findings:
    """Give classes and two lungs."""
    frames = tuple(SourceFrame(str(each.SOPInstanceUID)) for each in slices)
    series = str(slices[0].SeriesInstanceUID)
    classes = outcomes.findings_of_two_levels()
    return Findings(outcomes.ALGORITHM, series, frames, classes, outcomes.lungs(left, right))


def findings_of_xray(image: Dataset) -> Findings:
    """Give classes, two rectangles for lungs, and a heat map."""
    frame = SourceFrame(str(image.SOPInstanceUID))
    shape = (image.Rows, image.Columns)
    left, right = np.zeros((1, *shape), bool), np.zeros((1, *shape), bool)
    rows = slice(shape[0] // 4, shape[0] // 2)
    left[:, rows, shape[1] * 5 // 8 : shape[1] * 7 // 8] = True
    right[:, rows, shape[1] // 8 : shape[1] * 3 // 8] = True
    heat = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    return Findings(
        outcomes.ALGORITHM,
        str(image.SeriesInstanceUID),
        (frame,),
        outcomes.findings_of_two_levels(),
        outcomes.lungs(left, right),
        (HeatMap("pneumonia", "coarse", frame, heat),),
    )


def titled_otherwise(outcome: Findings, sources: Sequence[Path], folder: Path) -> list[Path]:
    """Write the structured reports of an outcome with the title (126001, DCM), as another gateway would send them."""
    study = str(pydicom.dcmread(sources[0], stop_before_pixels=True).StudyInstanceUID)
    assignment = Assignment(uuid.UUID(int=11), 1, study, datetime.now(UTC))
    written = []
    for rendered in render_outcome(outcome, assignment, sources, options=RenderOptions(sr_title=ONCOLOGY)):
        if rendered.reference.kind.startswith("sr"):
            written.append(folder / f"{rendered.reference.kind}.dcm")
            rendered.dataset.save_as(written[-1], enforce_file_format=True)
    return written


def test_the_lungs_of_a_ct_lie_where_they_are(site: Site, watched: WatchedPage) -> None:
    """Inside of each lung the pixels take the segment's colour, and outside of both they stay as they were."""
    viewer = Ohif(site.url, watched)
    viewer.open(f"/viewer/viewer?StudyInstanceUIDs={site.ct}")
    viewer.scroll(7)
    viewer.wait_until_still()
    number = viewer.instance_number()
    plain = watched.picture(keep_as="viewer-ct-plain")
    position = next(k for k, text in enumerate(viewer.series()) if text.startswith("SEG"))
    viewer.show(position)
    viewer.wait_for_colour()
    viewer.scroll(site.instance_numbers.index(number) - site.instance_numbers.index(viewer.instance_number()))
    viewer.wait_until_still()
    laid_over = watched.picture(keep_as="viewer-ct-overlay")

    k = site.instance_numbers.index(number)
    change = laid_over.astype(float) - plain
    rows, columns = site.left.shape[1:]
    to_page = viewer.box().image_to_page(rows, columns)
    for mask, rgb in ((site.left[k], LEFT_RGB), (site.right[k], RIGHT_RGB)):
        inside = np.nonzero(ndimage.binary_erosion(mask, iterations=6))
        assert inside[0].size > 1000
        y, x = (np.rint(each).astype(int) for each in to_page(*inside))
        before, after = plain[y, x].astype(float), laid_over[y, x].astype(float)
        assert np.median(colour_mixed_in(before, after), axis=0) == pytest.approx(rgb, abs=15)
    outside = np.nonzero(~ndimage.binary_dilation(site.left[k] | site.right[k], iterations=6))
    y, x = (np.rint(each).astype(int) for each in to_page(*outside))
    middle = (abs(outside[0] - rows / 2) < rows / 3) & (abs(outside[1] - columns / 2) < columns / 3)
    assert np.abs(change[y[middle], x[middle]]).max() < 3


def colour_mixed_in(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colour that was mixed half and half into each pixel."""
    return 2 * after - before


def test_an_xray_opens_with_its_segmentation_laid_over(site: Site, watched: WatchedPage) -> None:
    """The link that the study's page gives needs no click more; the image has no place in the patient, and it fits."""
    viewer = Ohif(site.url, watched)
    viewer.open(f"/viewer/studies/{site.dx}")
    viewer.wait_for_colour()
    viewer.wait_until_still()
    picture = watched.picture(keep_as="viewer-xray")

    image = httpx.get(
        f"{site.url}/dicomweb/studies/{site.dx}/instances", params={"ModalitiesInStudy": "DX"}, timeout=120
    ).json()
    rows, columns = next((each["00280010"]["Value"][0], each["00280011"]["Value"][0]) for each in image if _is_dx(each))
    to_page = viewer.box().image_to_page(rows, columns)
    for across, is_bluish in ((0.75, True), (0.25, False)):  # left lung: violet; right lung: green
        y, x = to_page(np.array(0.375 * rows), np.array(across * columns))
        red, green, blue = picture[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].reshape(-1, 3).mean(axis=0)
        assert blue > max(red, green) + 10 if is_bluish else green > max(red, blue) + 10
    y, x = to_page(np.array(0.8 * rows), np.array(0.25 * columns))
    assert not coloured(picture[int(y) - 5 : int(y) + 5, int(x) - 5 : int(x) + 5]).any()


def test_an_mr_study_opens(site: Site, watched: WatchedPage) -> None:
    """Its slices are shown, one after the other."""
    viewer = Ohif(site.url, watched)
    viewer.open(f"/viewer/studies/{site.mr}")
    viewer.wait_until_still()
    first = viewer.viewport()
    viewer.scroll(5)
    viewer.wait_until_still()

    assert (np.abs(viewer.viewport().astype(int) - first) > 5).mean() > 0.05
    assert "(6/32)" in viewer.text()
    watched.picture(keep_as="viewer-mr")


def test_every_object_that_the_gateway_writes_opens(site: Site, watched: WatchedPage) -> None:
    """Reports of both titles as text, verified ones too; SEG and heat map as pictures; a rejection note harmlessly."""
    viewer = Ohif(site.url, watched)
    for study, kinds in ((site.dx, ["OT", "SEG", "SR"]), (site.ct, ["KO", "SEG", "SR"])):
        viewer.open(f"/viewer/viewer?StudyInstanceUIDs={study}")
        listed = viewer.series()
        for position, text in enumerate(listed):
            kind = next((kind for kind in kinds if text.split()[0] == kind or f" {kind} " in f" {text} "), None)
            viewer.show(position)
            if kind == "SR":
                viewer.wait_for_text("test-model")
            elif kind in {"SEG", "OT"}:
                viewer.wait_for_colour()
            watched.picture(keep_as=f"viewer-object-{study[-4:]}-{position}")
            assert watched.errors == [], watched.failed
        assert sum(text.startswith("SR") for text in listed) >= 3


def test_an_image_that_arrives_when_its_viewport_is_gone_is_no_error(site: Site, watched: WatchedPage) -> None:
    """On a busy computer the viewport of a segmentation may take its place before the image has come."""
    Ohif(site.url, watched).open(f"/viewer/viewer?StudyInstanceUIDs={site.mr}")

    assert watched.page.evaluate(SHOWN_TOO_LATE) == "shown, then left alone"


def test_an_image_that_does_not_come_is_told_with_the_reason(site: Site, browser: Browser) -> None:
    """The console holds what failed, which a reader's service desk will ask for."""
    with watched_page(browser) as page:
        page.page.route("**/frames/**", lambda route: route.abort("connectionreset"))

        page.page.goto(f"{site.url}/viewer/viewer?StudyInstanceUIDs={site.mr}")

        def is_told() -> bool:
            page.page.wait_for_timeout(100)  # what a page says is heard while Playwright waits
            return any(TOLD in each for each in page.errors)

        wait_until(is_told, SHOW_S, "the reason in the console")
        assert not any("handler is not a function" in each for each in page.errors)
        assert any(each.endswith("net::ERR_CONNECTION_RESET") for each in page.failed)


def _is_dx(instance: dict[str, dict[str, list[str]]]) -> bool:
    return instance["00080016"]["Value"][0].startswith("1.2.840.10008.5.1.4.1.1.1")
