"""Rendered resources of WADO-RS over a real socket: pictures, thumbnails, reports as HTML."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import generate_uid
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.decoding import DecodedFrame, UndecodableError
from gateway.store import Store, open_store
from gateway.web.dicomweb.rendered import Rendered, UnrenderableError
from tests.dicomweb import as_file, dicomweb, instance_path, parts, store_files, store_paths
from tests.receiving import image
from tests.studies import RealData
from tests.unit.web.serving import served

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
DICOM = "application/dicom"
OCTETS = "application/octet-stream"
COMPRESSED = ["MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
NATIVE = ["MR_small_bigendian.dcm", "image_dfl.dcm", "MR_small_implicit.dcm"]
PICTURES = ["liver_1frame.dcm", "SC_rgb_rle_2frame.dcm", "examples_palette.dcm", "examples_ybr_color.dcm"]
UNREADABLE = ["JPGExtended.dcm"]


@pytest.fixture
def server(sqlite_store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server over an empty store."""
    with dicomweb(sqlite_store) as client:
        yield client


@pytest.fixture
def ct(server: httpx.Client, real_data: RealData) -> list[pydicom.Dataset]:
    """Store a real CT series, in Implicit VR; give its data sets."""
    paths = real_data.studies()["ct-philips"][:6]
    store_paths(server, paths)
    return [pydicom.dcmread(path) for path in paths]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[httpx.Client]:
    """Give a client of a server that holds files of many transfer syntaxes, for tests that only read."""
    folder = tmp_path_factory.mktemp("kinds")
    shutil.copyfile(migrated_sqlite, folder / "hybridmed.db")
    store = open_store(f"sqlite:///{folder / 'hybridmed.db'}", folder)
    with dicomweb(store) as client:
        names = {*COMPRESSED, *NATIVE, *PICTURES, *UNREADABLE}
        store_paths(client, [TEST_FILES / name for name in sorted(names)])
        yield client
    store.close()


def source_of(name: str) -> pydicom.Dataset:
    """Read one of pydicom's test files."""
    return pydicom.dcmread(TEST_FILES / name)


def get(server: httpx.Client, path: str, accept: str, **values: str) -> httpx.Response:
    """Retrieve; what is refused has a sentence."""
    answer = server.get(path, headers={"Accept": accept, **values})
    if answer.status_code >= 400 and answer.status_code != 416:
        assert answer.json()["error"]
    return answer


def test_rendered_applies_the_window_and_the_viewport(server: httpx.Client, ct: list[pydicom.Dataset]) -> None:
    """The header's window by default, another where it is asked for (PS3.18 8.3.5.1.4), fitted into the viewport."""
    source = ct[0]
    picture = Image.open(io.BytesIO(get(server, f"{instance_path(source)}/rendered", "image/png").content))
    lung = get(server, f"{instance_path(source)}/rendered?window=-600,1500,linear-exact", "image/png")
    small = get(server, f"{instance_path(source)}/rendered?viewport=100,50&quality=50", "image/jpeg")

    hounsfield = source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)
    expected = np.clip((hounsfield + 600) / 1500 + 0.5, 0, 1) * 255
    assert picture.size == (source.Columns, source.Rows)
    assert np.abs(np.asarray(Image.open(io.BytesIO(lung.content))) - expected).max() <= 1
    assert Image.open(io.BytesIO(small.content)).size == (50, 50)
    assert small.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("name", [*COMPRESSED, *NATIVE, *PICTURES])
def test_what_is_no_plain_ct_is_rendered_too(kinds: httpx.Client, name: str) -> None:
    """Colour, palette, bits, frames and compressed pixels give a picture that is not of one grey."""
    source = source_of(name)
    answer = get(kinds, f"{instance_path(source)}/frames/1/rendered", "image/png")
    thumbnail = get(kinds, f"{instance_path(source)}/thumbnail", "image/jpeg")

    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert picture.shape[:2] == (source.Rows, source.Columns)
    assert np.ptp(picture) > 0
    assert max(Image.open(io.BytesIO(thumbnail.content)).size) == 128


def test_monochrome1_is_shown_inverted(server: httpx.Client) -> None:
    """Its lowest value is white."""
    source = image(Rows=1, Columns=2, PhotometricInterpretation="MONOCHROME1", SamplesPerPixel=1, BitsAllocated=8)
    source.BitsStored, source.HighBit, source.PixelRepresentation, source.PixelData = 8, 7, 0, b"\x00\xff"
    assert store_files(server, [as_file(source)]).status_code == 200
    answer = get(server, f"{instance_path(source)}/rendered", "image/png")

    assert np.asarray(Image.open(io.BytesIO(answer.content))).tolist() == [[255, 0]]


def test_a_series_is_rendered_part_by_part(server: httpx.Client, ct: list[pydicom.Dataset]) -> None:
    """One picture for each instance as multipart; one that stands for all as a single part, and as thumbnail."""
    series = f"studies/{ct[0].StudyInstanceUID}/series/{ct[0].SeriesInstanceUID}"
    many = get(server, f"{series}/rendered", 'multipart/related; type="image/jpeg"')

    assert len(parts(many)) == len(ct)
    assert get(server, f"{series}/rendered", "image/png").headers["content-type"] == "image/png"
    assert get(server, f"studies/{ct[0].StudyInstanceUID}/thumbnail", "*/*").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    "query", ["window=1", "window=1,0", "window=a,b", "window=1,2,cubic", "viewport=0,1", "viewport=9", "quality=101"]
)
def test_parameters_that_are_none_are_refused(server: httpx.Client, ct: list[pydicom.Dataset], query: str) -> None:
    """400 says what was expected."""
    assert get(server, f"{instance_path(ct[0])}/rendered?{query}", "image/png").status_code == 400


def test_a_report_is_rendered_as_escaped_html(server: httpx.Client) -> None:
    """The content tree with its values; markup in a name is text."""
    source = source_of("reportsi.dcm")
    source.PatientName, source.SOPInstanceUID = "<b>x</b>", generate_uid()
    assert store_files(server, [as_file(source)]).status_code == 200
    answer = get(server, f"{instance_path(source)}/rendered", "text/html")

    assert answer.headers["content-type"].startswith("text/html")
    assert "&lt;b&gt;x&lt;/b&gt;" in answer.text
    assert "<b>x" not in answer.text
    assert answer.text.count("<li>") > 5
    assert get(server, f"{instance_path(source)}/rendered", "image/png").status_code == 406


class _Blocked:
    """A decoder that waits until it is let go, and has decoded nothing."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.waiting = threading.Semaphore(0)

    def frames(self, _path: Path, _indices: Sequence[int]) -> list[DecodedFrame]:
        self.waiting.release()
        self.go.wait(120)
        raise UndecodableError("let go")


def test_pictures_do_not_take_the_threads_of_everything_else(sqlite_store: Store) -> None:
    """While more are asked for than there are threads, and none gets done, others are answered."""
    with dicomweb(sqlite_store) as storing:
        store_paths(storing, [TEST_FILES / "MR_small_RLE.dcm"])
    decoder = _Blocked()
    rendered = Rendered(sqlite_store, decoder)  # type: ignore[arg-type] # the one method that it calls
    pictures = Route("/studies/{study}/series/{series}/instances/{instance}/rendered", rendered.rendered)
    plain = Route("/plain", lambda _request: PlainTextResponse("here"))
    address = f"/{instance_path(source_of('MR_small_RLE.dcm'))}/rendered"
    app = Starlette(routes=[pictures, plain], exception_handlers={UnrenderableError: _unrenderable})
    with served(app) as client, ThreadPoolExecutor(45) as askers:
        asked = [askers.submit(httpx.get, client.base_url.join(address), timeout=120) for _ in range(45)]
        try:
            assert all(decoder.waiting.acquire(timeout=60) for _ in range(4))
            answer = client.get("/plain")
        finally:
            decoder.go.set()
        statuses = {each.result().status_code for each in asked}

    assert answer.text == "here"
    assert statuses == {406}


async def _unrenderable(_request: Request, _error: Exception) -> Response:
    return Response(status_code=406)
