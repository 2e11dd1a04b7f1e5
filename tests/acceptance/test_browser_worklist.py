"""The worklist and a study's page in Chromium, over a real gateway that delivers to Orthanc."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect
from pydicom.dataset import Dataset

from gateway.config import Destination
from inference.findings import Findings, SourceFrame
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.acceptance.made_results import write_results
from tests.browser import WatchedPage, chromium, watched_page
from tests.services.orthanc import Orthanc
from tests.services.process import HANGS_S, wait_until
from tests.studies import RealData
from tests.unit.report import outcomes

RUN_NOTHING = '[[rules]]\nname = "keep, and run nothing"\nbundles = []\n'
HOSTILE = "<script>document.title='owned'</script>"
_SEEN_MS = 120_000
"""After which a page hangs: no measure of what is fast enough."""


@dataclass(frozen=True)
class Site:
    """A gateway, the PACS behind it, and the studies to send."""

    gateway: GatewayProcess
    pacs: Orthanc
    xrays: Sequence[Path]
    mr: Sequence[Path]
    hostile: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, real_data: RealData) -> Iterator[Site]:
    """Give a gateway without any study; results are written as its worker writes them, without the wait for a model."""
    folder = tmp_path_factory.mktemp("site")
    pacs = Orthanc(folder / "orthanc")
    gateway = GatewayProcess(
        folder / "gateway",
        toml=RUN_NOTHING,
        roles="receive,dispatch,deliver,web",
        HYBRIDMED_QUIET_S="1",
        HYBRIDMED_DESTINATIONS=f"PACS={pacs.dicom_address}",
    )
    try:
        pacs.start()
        gateway.start()
        mr = sorted(real_data.samples.glob("mr-hippocampus/*.dcm"))
        yield Site(gateway, pacs, real_data.cxr, mr, hostile_copy(real_data.cxr[2], folder / "hostile.dcm"))
    finally:
        gateway.stop()
        pacs.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give Chromium."""
    expect.set_options(timeout=_SEEN_MS)
    with chromium() as running:
        yield running


@pytest.fixture
def watched(browser: Browser) -> Iterator[WatchedPage]:
    """Give a page of an English reader; nothing may have gone wrong in it."""
    with watched_page(browser) as page:
        yield page
        assert page.strangers == []
        assert page.refused == []
        assert page.errors == [], page.failed


def hostile_copy(file: Path, target: Path) -> Path:
    """Write a copy whose texts are HTML with a script, as another study."""
    shutil.copyfile(file, target)
    image = pydicom.dcmread(target)
    image.PatientName = image.StudyDescription = HOSTILE
    image.PatientID = "HOSTILE"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = "2.25.901", "2.25.902", "2.25.903"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(target)
    return target


def findings_of(image: Dataset) -> Findings:
    """Give the classes pneumonia and bacterial, and two lungs."""
    left, right = np.zeros((2, 1, image.Rows, image.Columns), dtype=bool)
    left[:, 100:200, image.Columns // 2 + 50 : -50] = right[:, 100:200, 50 : image.Columns // 2 - 50] = True
    frames = (SourceFrame(str(image.SOPInstanceUID)),)
    classes = outcomes.findings_of_two_levels()
    return Findings(outcomes.ALGORITHM, str(image.SeriesInstanceUID), frames, classes, outcomes.lungs(left, right))


def find(site: Site, file: Path) -> str:
    """Write the results of a study that has arrived, for delivery to the PACS; return its Study Instance UID."""
    image = pydicom.dcmread(file)
    uid = str(image.StudyInstanceUID)
    destination = Destination(name="PACS", address=site.pacs.dicom_address)
    write_results(site.gateway.data_dir, uid, findings_of(image), "cxr-pneumonia", [destination])
    return uid


def test_the_worklist_fills_while_a_study_arrives(site: Site, watched: WatchedPage) -> None:
    """The row comes and its findings follow, on a page that is never loaded again."""
    page = watched.page
    page.goto(f"{site.gateway.url}/worklist")
    expect(page.get_by_text("No study has arrived yet")).to_be_visible()
    watched.picture(keep_as="worklist-empty")
    page.evaluate("window.isTheSamePage = true")
    assert storescu(site.gateway.address, [site.xrays[0]]).returncode == 0

    row = page.locator("#rows tr")
    expect(row).to_have_count(1, timeout=_SEEN_MS)
    expect(row).to_contain_text("DX")
    expect(row).not_to_contain_text("90", timeout=_SEEN_MS)
    site.gateway.wait_for_studies(1)
    find(site, site.xrays[0])
    expect(row).to_contain_text("90 %", timeout=_SEEN_MS)
    expect(row).to_contain_text("Pneumonia")
    assert page.evaluate("window.isTheSamePage") is True
    watched.picture(keep_as="worklist-filled")


def test_filters_leave_what_matches(site: Site, watched: WatchedPage) -> None:
    """By modality, by text, and by state; what nobody matches says how to go on."""
    assert storescu(site.gateway.address, [site.xrays[1], *site.mr]).returncode == 0
    site.gateway.wait_for_studies(3)
    page = watched.page
    page.goto(f"{site.gateway.url}/worklist")
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(3)

    page.get_by_label("State").select_option("preliminary")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Pneumonia")
    watched.picture(keep_as="worklist-filtered")
    page.goto(f"{site.gateway.url}/worklist?modality=MR")
    expect(page.get_by_label("Modality")).to_have_value("MR")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("MR")
    page.goto(f"{site.gateway.url}/worklist")
    page.locator("#search").fill(str(pydicom.dcmread(site.xrays[1], stop_before_pixels=True).PatientID))
    page.locator("#search").press("Enter")
    expect(rows).to_have_count(1)
    page.locator("#search").fill("nobody of that name")
    page.locator("#search").press("Enter")
    expect(page.get_by_text("No study matches these filters")).to_be_visible()


def test_texts_of_a_sender_are_shown_as_text(site: Site, watched: WatchedPage) -> None:
    """A name made of HTML and script is read, not run."""
    assert storescu(site.gateway.address, [site.hostile]).returncode == 0
    site.gateway.wait_for_study("2.25.901")
    page = watched.page
    page.goto(f"{site.gateway.url}/worklist?q=HOSTILE")

    expect(page.locator("#rows tr")).to_contain_text(HOSTILE)
    page.goto(f"{site.gateway.url}/studies/2.25.901")
    expect(page.locator("main")).to_contain_text(HOSTILE)
    assert "owned" not in page.title()


def test_the_language_is_the_browsers_or_the_one_chosen(site: Site, browser: Browser) -> None:
    """A Chinese browser gets Chinese; the switch changes it, and the choice stays."""
    with watched_page(browser, locale="zh-CN") as watched:
        page = watched.page
        page.goto(f"{site.gateway.url}/worklist")
        expect(page.locator("h1")).to_have_text("工作列表")
        assert language_of(page) == "zh-Hans"
        watched.picture(keep_as="worklist-zh")

        page.get_by_role("link", name="English").click()
        expect(page.locator("h1")).to_have_text("Worklist")
        page.goto(f"{site.gateway.url}/worklist")
        assert language_of(page) == "en"
        assert watched.errors == [], watched.failed


def test_a_verification_reaches_the_report_and_the_pacs(site: Site, watched: WatchedPage) -> None:
    """Accepted on the study's page: FHIR says final, and the PACS holds an SR that names the person."""
    assert storescu(site.gateway.address, [site.xrays[2]]).returncode == 0
    site.gateway.wait_for_study(str(pydicom.dcmread(site.xrays[2], stop_before_pixels=True).StudyInstanceUID))
    uid = find(site, site.xrays[2])
    page = watched.page
    page.goto(f"{site.gateway.url}/studies/{uid}")
    watched.picture(keep_as="study-preliminary")
    assert statuses(site, uid) == {"preliminary"}
    page.locator("input[name=observer]").fill("Curie^Marie")
    page.locator("input[name=organisation]").fill("Institut du Radium")
    page.locator("button[value=accept]").click()

    expect(page.locator("main")).to_contain_text("Verified", timeout=_SEEN_MS)
    watched.picture(keep_as="study-verified")
    assert statuses(site, uid) == {"final"}
    wait_until(lambda: verified_reports(site, uid) != [], HANGS_S, "a verified SR in the PACS")
    for report in verified_reports(site, uid):
        assert str(report.VerifyingObserverSequence[0].VerifyingObserverName).startswith("Curie^Marie")
        assert report.VerifyingObserverSequence[0].VerifyingOrganization == "Institut du Radium"
        assert report.PredecessorDocumentsSequence


def language_of(page: Page) -> str | None:
    """Return the language that the page states."""
    return page.locator("html").get_attribute("lang")


def statuses(site: Site, uid: str) -> set[str]:
    """Return the statuses of the FHIR reports of a study."""
    found = site.gateway.get("/fhir/DiagnosticReport", **{"imagingStudy.identifier": f"urn:dicom:uid|urn:oid:{uid}"})
    return {entry["resource"]["status"] for entry in found.get("entry", [])}


def verified_reports(site: Site, uid: str) -> list[Dataset]:
    """Return the verified SRs of a study that lie in the PACS."""
    folder = site.gateway.data_dir.parent / "from-pacs"
    shutil.rmtree(folder, ignore_errors=True)
    reports = [pydicom.dcmread(file) for file in site.pacs.save_files(folder, StudyInstanceUID=uid, Modality="SR")]
    return [report for report in reports if report.VerificationFlag == "VERIFIED"]
