"""WADO-RS over a real socket, read by dicomweb-client and by hand."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.encaps import generate_frames
from starlette.requests import Request

from gateway.decoding import FrameDecoder
from gateway.store import Store, open_store
from gateway.store.tables import instance, study
from gateway.web.dicomweb.frames import Frames
from gateway.web.dicomweb.preparing import Preparing
from gateway.web.dicomweb.streaming import Made
from tests.dicomweb import AS_STORED, DICOM_PARTS, as_file, dicomweb, instance_path, parts, store_files, store_paths
from tests.receiving import image, kept_files, until
from tests.studies import RealData

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


def test_dicomweb_client_reads_a_series_as_explicit_vr(server: httpx.Client, ct: list[pydicom.Dataset]) -> None:
    """Without a transfer syntax it is Explicit VR Little Endian, with every value and pixel of the source."""
    client = DICOMwebClient(str(server.base_url).rstrip("/"))
    found = client.retrieve_series(ct[0].StudyInstanceUID, ct[0].SeriesInstanceUID)

    assert {one.file_meta.TransferSyntaxUID for one in found} == {"1.2.840.10008.1.2.1"}
    by_uid = {one.SOPInstanceUID: one for one in found}
    for one in ct:
        assert by_uid[one.SOPInstanceUID].PixelData == one.PixelData
        assert by_uid[one.SOPInstanceUID].PatientName == one.PatientName
        assert {tag for tag in by_uid[one.SOPInstanceUID].keys() ^ one.keys() if tag.element != 0} == set()


def test_a_star_gives_the_stored_bytes_with_their_length(
    server: httpx.Client, ct: list[pydicom.Dataset], sqlite_store: Store
) -> None:
    """Each part is a stored file byte for byte, and the answer's length is announced."""
    answer = get(server, f"studies/{ct[0].StudyInstanceUID}", AS_STORED)

    assert sorted(one for _, one in parts(answer)) == sorted(path.read_bytes() for path in kept_files(sqlite_store))
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert all("transfer-syntax=1.2.840.10008.1.2" in part["Content-Type"] for part, _ in parts(answer))


def test_one_instance_comes_as_a_single_part_with_ranges(server: httpx.Client, ct: list[pydicom.Dataset]) -> None:
    """`application/dicom` alone needs no multipart; a range of it continues a broken download."""
    path = instance_path(ct[0])
    whole = get(server, path, f"{DICOM}; transfer-syntax=*")
    part = get(server, path, f"{DICOM}; transfer-syntax=*", Range="bytes=128-131")
    end = get(server, path, f"{DICOM}; transfer-syntax=*", Range="bytes=-10")
    beyond = get(server, path, f"{DICOM}; transfer-syntax=*", Range=f"bytes={len(whole.content)}-")

    assert pydicom.dcmread(io.BytesIO(whole.content)) == ct[0]
    assert (part.status_code, part.content) == (206, b"DICM")
    assert part.headers["content-range"] == f"bytes 128-131/{len(whole.content)}"
    assert end.content == whole.content[-10:]
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    ("accept", "syntax"),
    [
        (f"{DICOM_PARTS}; transfer-syntax=1.2.840.10008.1.2", "1.2.840.10008.1.2"),
        (f"{DICOM_PARTS}; transfer-syntax=1.2.840.10008.1.2.4.70;q=0.9, {DICOM_PARTS};q=0.5", "1.2.840.10008.1.2.1"),
        (f"{DICOM_PARTS}; transfer-syntax=1.2.840.10008.1.2.1, {AS_STORED}", "1.2.840.10008.1.2"),
        (f"{DICOM_PARTS}; transfer-syntax=1.2.840.10008.1.2.1, {AS_STORED};q=0.5", "1.2.840.10008.1.2.1"),
        ("*/*", "1.2.840.10008.1.2.1"),
        ("text/html, */*;q=0.1", "1.2.840.10008.1.2.1"),
    ],
)
def test_the_best_transfer_syntax_that_can_be_had_is_chosen(
    server: httpx.Client, ct: list[pydicom.Dataset], accept: str, syntax: str
) -> None:
    """By quality; among equals that which needs no work."""
    answer = get(server, f"studies/{ct[0].StudyInstanceUID}", accept)

    kinds = {part["Content-Type"] for part, _ in parts(answer)}
    assert kinds == {f"{DICOM}; transfer-syntax={syntax}"}


@pytest.mark.parametrize(
    "accept", ["image/jpeg", f"{DICOM_PARTS}; transfer-syntax=1.2.840.10008.1.2.4.90", f"{DICOM_PARTS};q=0", DICOM]
)
def test_what_cannot_be_had_is_not_acceptable(server: httpx.Client, ct: list[pydicom.Dataset], accept: str) -> None:
    """406 with a sentence; a study is never a single part."""
    assert get(server, f"studies/{ct[0].StudyInstanceUID}", accept).status_code == 406


@pytest.mark.parametrize("name", [*COMPRESSED, *NATIVE])
def test_what_is_compressed_is_decoded_where_that_is_asked_for(kinds: httpx.Client, name: str) -> None:
    """The pixels are those that pydicom decodes."""
    source = source_of(name)
    answer = get(kinds, instance_path(source), DICOM)

    decoded = pydicom.dcmread(io.BytesIO(answer.content))
    assert decoded.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert np.array_equal(decoded.pixel_array, source.pixel_array)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_no_decoder_reads_is_had_as_stored(kinds: httpx.Client, name: str) -> None:
    """406 says how; `transfer-syntax=*` works."""
    source = source_of(name)
    refused = get(kinds, instance_path(source), DICOM)

    assert refused.status_code == 406
    assert "transfer-syntax=*" in refused.text
    assert get(kinds, instance_path(source), f"{DICOM}; transfer-syntax=*").status_code == 200


def test_frames_of_a_native_instance(server: httpx.Client) -> None:
    """Octets in the order asked for; one frame alone needs no multipart."""
    source = image(NumberOfFrames=3, SamplesPerPixel=1, BitsAllocated=16, PixelData=bytes(range(24)))
    assert store_files(server, [as_file(source)]).status_code == 200
    two = parts(get(server, f"{instance_path(source)}/frames/3,1", f'multipart/related; type="{OCTETS}"'))
    one = get(server, f"{instance_path(source)}/frames/2", OCTETS)

    assert [body for _, body in two] == [bytes(range(16, 24)), bytes(range(8))]
    assert (one.content, one.headers["content-type"]) == (bytes(range(8, 16)), OCTETS)


def test_frames_of_a_compressed_instance(kinds: httpx.Client) -> None:
    """The stored stream with its media type or as octets that say their syntax, or decoded octets."""
    source = source_of("SC_rgb_rle_2frame.dcm")
    path = instance_path(source)
    as_stored = parts(get(kinds, f"{path}/frames/1,2", "*/*"))
    octets = get(kinds, f"{path}/frames/2", OCTETS)
    said = get(kinds, f"{path}/frames/2", f"{OCTETS}; transfer-syntax=*")

    assert as_stored[0][0]["Content-Type"] == "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5"
    assert [one for _, one in as_stored] == list(generate_frames(source.PixelData, number_of_frames=2))
    assert octets.content == source.pixel_array[1].tobytes()
    assert said.content == as_stored[1][1]
    assert said.headers["content-type"] == f"{OCTETS}; transfer-syntax=1.2.840.10008.1.2.5"


def test_bit_packed_frames_begin_at_a_byte(server: httpx.Client) -> None:
    """A frame of a segmentation that begins within a byte is shifted (PS3.5 8.1.1)."""
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 5), dtype=np.uint8)
    source = image(Rows=5, Columns=5, PhotometricInterpretation="MONOCHROME2", SamplesPerPixel=1, BitsAllocated=1)
    source.BitsStored, source.HighBit, source.PixelRepresentation, source.NumberOfFrames = 1, 0, 0, 3
    source.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    assert store_files(server, [as_file(source)]).status_code == 200
    frame = get(server, f"{instance_path(source)}/frames/2", OCTETS).content
    picture = get(server, f"{instance_path(source)}/frames/3/rendered", "image/png").content

    assert np.array_equal(np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:25], bits[1].ravel())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), bits[2] * 255)


def test_a_long_list_of_frames_is_read_bit_by_bit(server: httpx.Client, sqlite_store: Store) -> None:
    """What is not a stretch of the file is made when its turn comes, so that no list fills the memory."""
    source = image(Rows=5, Columns=5, SamplesPerPixel=1, BitsAllocated=1, NumberOfFrames=3, PixelData=bytes(10))
    assert store_files(server, [as_file(source)]).status_code == 200
    names = {"study": source.StudyInstanceUID, "series": source.SeriesInstanceUID, "instance": source.SOPInstanceUID}
    scope = {"type": "http", "headers": [], "query_string": b"", "path_params": names | {"frames": "1,2,3,3"}}
    pieces = getattr(Frames(sqlite_store, FrameDecoder()).retrieve(Request(scope)), "pieces", ())

    assert sum(isinstance(piece, Made) for piece in pieces) == 4


@pytest.mark.parametrize(("frames", "status"), [("31", 404), ("0", 400), ("1,x", 400), ("-1", 400), ("9" * 30, 400)])
def test_frames_that_are_none_are_refused(kinds: httpx.Client, frames: str, status: int) -> None:
    """404 beyond the last one, 400 where it is no number."""
    assert (
        get(kinds, f"{instance_path(source_of('examples_ybr_color.dcm'))}/frames/{frames}", "*/*").status_code == status
    )


def test_metadata_are_the_header_with_references(server: httpx.Client, ct: list[pydicom.Dataset]) -> None:
    """dicomweb-client reads them back as the data set without its pixels, and the reference leads to the pixels."""
    client = DICOMwebClient(str(server.base_url).rstrip("/"))
    found = client.retrieve_series_metadata(ct[0].StudyInstanceUID, ct[0].SeriesInstanceUID)

    uri = next(one for one in found if one["00080018"]["Value"] == [ct[0].SOPInstanceUID])["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(uri) == [ct[0].PixelData]
    for one in ct:
        model = next(each for each in found if each["00080018"]["Value"] == [one.SOPInstanceUID])
        read = pydicom.Dataset.from_json({k: v for k, v in model.items() if "BulkDataURI" not in v})
        assert read.PatientName == one.PatientName
        assert read.ImagePositionPatient == one.ImagePositionPatient
        assert read.RescaleIntercept == one.RescaleIntercept


def test_metadata_are_cached_until_the_series_grows(
    server: httpx.Client, real_data: RealData, sqlite_store: Store
) -> None:
    """Files are read once: later answers come without them; a new instance is the only one read anew."""
    paths = real_data.studies()["ct-philips"][:3]
    store_paths(server, paths[:2])
    path = f"studies/{pydicom.dcmread(paths[0]).StudyInstanceUID}/metadata"
    first = get(server, path, "application/dicom+json").json()
    for file in kept_files(sqlite_store):
        file.rename(file.with_suffix(".away"))
    second = get(server, path, "application/dicom+json").json()
    store_paths(server, paths[2:])
    third = get(server, path, "application/dicom+json").json()

    assert first == second
    assert len(third) == 3
    assert all("7FE00010" in one for one in third)


def test_a_torn_or_closed_cache_is_no_obstacle(
    server: httpx.Client, ct: list[pydicom.Dataset], sqlite_store: Store
) -> None:
    """A pack that a crash cut is read as far as it is right; a folder that cannot be written is done without."""
    path = f"studies/{ct[0].StudyInstanceUID}/metadata"
    whole = get(server, path, "application/dicom+json").json()
    (pack,) = (sqlite_store.data_dir / "cache").rglob("*.pack")
    pack.write_bytes(pack.read_bytes()[:-2000] + bytes(500))
    torn = get(server, path, "application/dicom+json").json()
    shutil.rmtree(sqlite_store.data_dir / "cache")
    (sqlite_store.data_dir / "cache").write_bytes(b"")
    closed = get(server, path, "application/dicom+json").json()

    assert whole == torn == closed


def test_metadata_are_made_ahead(server: httpx.Client, ct: list[pydicom.Dataset], sqlite_store: Store) -> None:
    """Once a study is complete nobody waits for its files to be read; of two that could make them one does."""
    with sqlite_store.write() as connection:
        connection.execute(sa.update(study).values(completed_at=datetime.now(UTC)))
    stop = threading.Event()
    loops = [threading.Thread(target=Preparing(sqlite_store, 0.02).run, args=(stop,)) for _ in range(2)]
    packs = sqlite_store.data_dir / "cache" / "metadata"
    for loop in loops:
        loop.start()
    until(lambda: sum(pack.read_bytes().count(b"\n") for pack in packs.rglob("*.pack")) == len(ct), "a line for each")
    stop.set()
    for loop in loops:
        loop.join(30)
    for path in kept_files(sqlite_store):
        path.unlink()
    answer = get(server, f"studies/{ct[0].StudyInstanceUID}/metadata", "application/dicom+json").json()

    assert {one["00080018"]["Value"][0] for one in answer} == {one.SOPInstanceUID for one in ct}
    assert all(one["00280010"]["Value"] == [512] for one in answer)


def test_hostile_values_stay_values(server: httpx.Client) -> None:
    """Markup, a long text, a wrong number and an address in a value neither break nor change the metadata."""
    hostile = image(PatientName="<script>alert(1)</script>", ImageComments='"BulkDataURI":"\\u0001')
    hostile.DerivationDescription = "a" * 1000
    hostile.add_new(0x00091010, "UT", "y" * 70000)
    hostile.add_new(0x00280030, "DS", "")
    assert store_files(server, [as_file(hostile)]).status_code == 200
    (model,) = get(server, f"{instance_path(hostile)}/metadata", "application/dicom+json").json()

    assert model["00100010"]["Value"] == [{"Alphabetic": "<script>alert(1)</script>"}]
    assert model["00204000"]["Value"] == ['"BulkDataURI":"\\u0001']
    assert model["00280030"] == {"vr": "DS"}
    assert get(server, model["00091010"]["BulkDataURI"], OCTETS).content == b"y" * 70000


@pytest.mark.parametrize(
    ("uid", "status"),
    [("..%2F..%2Fetc", 404), ("1.2.x", 400), ("1" * 65, 400), ("1.2.826.0.1.3680043.8.498.404", 404), ("1.2.", 400)],
)
def test_uids_that_are_none_and_unknown_ones_are_refused(server: httpx.Client, uid: str, status: int) -> None:
    """400 for what is no UID, 404 for what is not there; the value is not repeated."""
    answer = server.get(f"studies/{uid}")

    assert answer.status_code == status
    assert uid not in answer.text


def test_a_missing_file_leaves_the_others(server: httpx.Client, ct: list[pydicom.Dataset], sqlite_store: Store) -> None:
    """The parts that are there are sent; where nothing is left it is the server's fault."""
    kept_files(sqlite_store)[0].unlink()
    with sqlite_store.read() as connection:
        gone = {row.sop_instance_uid for row in connection.execute(instance.select())} - {
            str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in kept_files(sqlite_store)
        }
    answer = get(server, f"studies/{ct[0].StudyInstanceUID}", AS_STORED)
    missing = next(one for one in ct if one.SOPInstanceUID in gone)

    assert len(parts(answer)) == len(ct) - 1
    assert get(server, instance_path(missing), AS_STORED).status_code == 500
    assert get(server, f"{instance_path(missing)}/rendered", "image/png").status_code == 500


def test_a_client_that_goes_leaves_no_file_open(
    server: httpx.Client, ct: list[pydicom.Dataset], sqlite_store: Store
) -> None:
    """Descriptors are closed when the connection is cut in the middle."""
    with server.stream("GET", f"studies/{ct[0].StudyInstanceUID}", headers={"Accept": AS_STORED}) as answer:
        next(answer.iter_raw(1000))

    names = {str(path) for path in kept_files(sqlite_store)}
    until(lambda: not names & open_files(), "all files closed")


def open_files() -> set[str]:
    """Name what this process has open; what is closed meanwhile is left out."""
    names = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(str(link.readlink()))
    return names
