"""Tests of `inference.volume`: whole series, made and real, against what made them and against highdicom."""

import random
import zlib
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info

from inference.errors import NotEvaluableError
from inference.volume import Volume, load_series, load_volumes
from tests.studies import RealData, dicom_files
from tests.unit.inference.made_series import SERIES_UID, enhanced, image, place, series, stored_values, write

DX = uid.DigitalXRayImageStorageForPresentation


def refusal_of(paths: list[Path]) -> NotEvaluableError:
    """Return why a series is refused."""
    with pytest.raises(NotEvaluableError) as refusal:
        load_volumes(paths)
    assert "secret" not in str(refusal.value).lower()
    return refusal.value


def test_planes_are_sorted_by_position(tmp_path: Path) -> None:
    """Planes come in the order of their heights, with their frames, whatever their files and numbers say."""
    heights = [4.0, 0.0, 6.0, 2.0]
    paths = series(tmp_path, heights)

    (volume,) = load_volumes(paths)

    order = [1, 3, 0, 2]
    assert np.array_equal(volume.voxels, np.stack([stored_values(n) for n in order]) - 1024.0)
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in paths]
    assert [frame.sop_instance_uid for frame in volume.frames] == [uids[n] for n in order]
    assert all(frame.frame_number is None for frame in volume.frames)
    assert volume.voxels.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((2.0, 0.5, 0.25))
    assert volume.affine_lps is not None
    assert np.allclose(volume.affine_lps @ [3, 5, 1, 1], [10.75, 22.5, 2.0, 1.0])
    assert (volume.series_instance_uid, volume.modality) == (SERIES_UID, "CT")
    assert volume.tilt_deg == 0.0


def test_attributes_hold_no_identity(tmp_path: Path) -> None:
    """Attributes say what was imaged and how; neither name nor id is among them."""

    def describe(ds: Dataset, _: int) -> None:
        ds.BodyPartExamined, ds.PatientAge = "CHEST", "005Y"

    (volume,) = load_volumes(series(tmp_path, [0, 2], describe))

    assert volume.attributes["BodyPartExamined"] == "CHEST"
    assert volume.attributes["PatientAge"] == "005Y"
    assert volume.attributes["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert "ViewPosition" not in volume.attributes
    assert not any("secret" in value.lower() for value in volume.attributes.values())


def test_slope_and_intercept_are_each_planes_own(tmp_path: Path) -> None:
    """A series whose planes differ in rescaling comes out on one scale."""

    def rescale(ds: Dataset, n: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = n + 0.5, -10 * n

    (volume,) = load_volumes(series(tmp_path, [0, 2, 4], rescale))

    for n in range(3):
        assert np.array_equal(volume.voxels[n], stored_values(n) * (n + 0.5) - 10 * n)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 1000))
def test_the_order_of_files_does_not_matter(tmp_path: Path, seed: int) -> None:
    """Any order of paths gives the same volumes, with two phases in the series too."""

    def number(ds: Dataset, n: int) -> None:
        ds.TemporalPositionIdentifier = 1 + n // 4

    paths = series(tmp_path, [0, 2, 4, 6] * 2, number) if not any(tmp_path.iterdir()) else dicom_files(tmp_path)
    first, second = load_volumes(paths)
    shuffled = random.Random(seed).sample(paths, len(paths))

    again = load_volumes(shuffled)

    assert [v.frames for v in again] == [first.frames, second.frames]
    assert np.array_equal(again[1].voxels, second.voxels)


def test_enhanced_frames_are_placed_and_rescaled_one_by_one(tmp_path: Path) -> None:
    """An Enhanced CT takes position and rescaling from each frame, orientation and spacing from the shared group."""
    path = write(enhanced([4.0, 0.0, 2.0]), tmp_path / "enhanced.dcm")

    (volume,) = load_volumes([path])

    assert [frame.frame_number for frame in volume.frames] == [2, 3, 1]
    for k, n in enumerate([1, 2, 0]):
        assert np.array_equal(volume.voxels[k], stored_values(n) * (n + 1.0) - n)
    assert volume.spacing_mm == pytest.approx((2.0, 0.5, 0.25))


def test_enhanced_in_rle_is_read_frame_by_frame(tmp_path: Path) -> None:
    """Compressed frames of an Enhanced CT land on their planes."""
    ds = enhanced([4.0, 0.0, 2.0])
    ds.compress(uid.RLELossless, generate_instance_uid=False)

    (volume,) = load_volumes([write(ds, tmp_path / "enhanced.dcm")])

    assert np.array_equal(volume.voxels[2], stored_values(0))


def test_enhanced_without_groups_for_all_frames_is_refused(tmp_path: Path) -> None:
    """Frames that no functional group describes cannot be placed; a billion of them are not even tried."""
    ds = enhanced([0.0, 2.0])
    ds.NumberOfFrames = 1_000_000_000

    assert refusal_of([write(ds, tmp_path / "enhanced.dcm")]).code == "geometry.no-position"


def test_localizers_and_captures_are_left_out(tmp_path: Path) -> None:
    """Localizer, secondary capture and screen save beside axial planes are left out and named."""
    paths = series(tmp_path, [0, 2, 4])
    for n, (sop_class, image_type) in enumerate(
        [
            (uid.CTImageStorage, ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
            (uid.SecondaryCaptureImageStorage, ["DERIVED", "SECONDARY"]),
            (uid.CTImageStorage, ["DERIVED", "SECONDARY", "SCREEN SAVE"]),
        ]
    ):
        ds = place(image(sop_class), [0, 0, 1.0])
        ds.ImageType = image_type
        paths.append(write(ds, tmp_path / f"extra{n}.dcm"))

    loaded = load_series(paths)

    assert [volume.voxels.shape[0] for volume in loaded.volumes] == [3]
    assert sorted(refusal.code for refusal in loaded.refusals) == [
        "series.localizer",
        "series.secondary-capture",
        "series.secondary-capture",
    ]


def test_derived_secondary_images_are_used(tmp_path: Path) -> None:
    """A reformatted or cropped series says DERIVED and SECONDARY and is a volume all the same."""

    def derive(ds: Dataset, _: int) -> None:
        ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]

    assert len(load_volumes(series(tmp_path, [0, 2, 4], derive))) == 1


def test_each_projection_image_is_a_volume(tmp_path: Path) -> None:
    """Two X-rays give two volumes of one plane without a place in the patient; a spoilt third leaves them standing."""
    known, unknown, spoilt = (image(DX) for _ in range(3))
    known.ImagerPixelSpacing = [0.2, 0.1]
    known.ViewPosition = "AP"
    unknown.PixelSpacing = [0, 0]
    spoilt.PixelData = b"\0\0"
    paths = [write(ds, tmp_path / f"{n}.dcm") for n, ds in enumerate([known, unknown, spoilt])]

    loaded = load_series(paths)

    assert [volume.spacing_mm for volume in loaded.volumes] == [(1.0, 0.2, 0.1), None]
    assert all(v.affine_lps is None and v.voxels.shape == (1, 6, 4) for v in loaded.volumes)
    assert loaded.volumes[0].attributes["ViewPosition"] == "AP"
    assert [refusal.code for refusal in loaded.refusals] == ["pixels.undecodable"]


@pytest.mark.parametrize(
    ("heights", "code"),
    [
        ([0, 2, 6, 8], "geometry.missing-slice"),
        ([0, 2, 4, 7.3], "geometry.uneven"),
        ([0, 2, 2, 4], "geometry.duplicate-positions"),
    ],
)
def test_irregular_series_are_refused(tmp_path: Path, heights: list[float], code: str) -> None:
    """What cannot be placed on an even grid becomes a typed refusal."""
    assert refusal_of(series(tmp_path, heights)).code == code


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("PixelSpacing", None, "geometry.no-position"),
        ("PixelSpacing", ["-0.5", "0.5"], "geometry.spacing"),
        ("PixelSpacing", ["0", "0.5"], "geometry.spacing"),
        ("PixelSpacing", ["NaN", "0.5"], "geometry.spacing"),
        ("PixelSpacing", ["0.5"], "geometry.spacing"),
        ("ImagePositionPatient", None, "geometry.no-position"),
        ("ImagePositionPatient", ["inf", "0", "0"], "geometry.no-position"),
        ("ImagePositionPatient", ["0", "0", "1e30"], "geometry.no-position"),
        ("ImageOrientationPatient", ["0"] * 6, "geometry.orientation"),
        ("NumberOfFrames", 3, "geometry.no-position"),
        ("NumberOfFrames", 0, "pixels.header"),
        ("SOPClassUID", uid.UltrasoundImageStorage, "series.unsupported"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], "series.mosaic"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Invalid value for VR:UserWarning", "ignore:.*value length:UserWarning")
def test_hostile_headers_are_refused(tmp_path: Path, keyword: str, value: object, code: str) -> None:
    """Each spoilt attribute of a plane is refused with its own code, never with another exception."""
    ds = place(image(), [0, 0, 0])
    setattr(ds, keyword, value)

    assert refusal_of([write(ds, tmp_path / "one.dcm")]).code == code


@pytest.mark.parametrize("sop_class", [uid.CTImageStorage, DX])
def test_huge_declared_sizes_are_refused_before_anything_is_allocated(tmp_path: Path, sop_class: str) -> None:
    """65535 by 65535 pixels in a file of 1 kB are above the limit."""
    ds = place(image(sop_class), [0, 0, 0])
    ds.Rows = ds.Columns = 65535

    assert refusal_of([write(ds, tmp_path / "one.dcm")]).code == "pixels.too-large"


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    """A small deflated file that inflates beyond the limit is refused without being inflated whole."""
    path = tmp_path / "bomb.dcm"
    ds = place(image(), [0, 0, 0])
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    write(ds, path)
    start = 144 + read_file_meta_info(path).FileMetaInformationGroupLength
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(path.read_bytes()[:start] + packer.compress(bytes(20 << 20)) + packer.flush())

    with pytest.raises(NotEvaluableError, match=r"pixels\.too-large"):
        load_volumes([path], limit_bytes=10 << 20)


def test_a_file_that_is_no_dicom_is_refused(tmp_path: Path) -> None:
    """Bytes without a preamble are unreadable; a file that is not there is no property of the study."""
    path = tmp_path / "text.dcm"
    path.write_text("Secret^Name")

    assert refusal_of([path]).code == "series.unreadable"
    with pytest.raises(FileNotFoundError):
        load_volumes([tmp_path / "none.dcm"])


def test_one_undecodable_plane_spoils_its_stack(tmp_path: Path) -> None:
    """A truncated plane makes the whole stack undecodable: a volume never has an empty plane."""

    def truncate(ds: Dataset, n: int) -> None:
        if n == 1:
            ds.PixelData = ds.PixelData[:-4]

    assert refusal_of(series(tmp_path, [0, 2, 4], truncate)).code == "pixels.undecodable"


def test_files_of_two_series_are_the_callers_mistake(tmp_path: Path) -> None:
    """Series are never mixed."""

    def other(ds: Dataset, n: int) -> None:
        ds.SeriesInstanceUID = f"2.25.{n}"

    with pytest.raises(ValueError, match="2 series"):
        load_volumes(series(tmp_path, [0, 2], other))


def test_an_empty_series_is_refused() -> None:
    """No files, no volume."""
    assert refusal_of([]).code == "series.empty"


def by_highdicom(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read a series with highdicom; return voxels (Z, Y, X) and the affine from (x, y, z), along the normal."""
    read = hd.get_volume_from_series([pydicom.dcmread(path) for path in paths], apply_real_world_transform=False)
    affine, voxels = np.array(read.affine)[:, [2, 1, 0, 3]], np.array(read.array)
    if np.linalg.det(affine[:3, :3]) < 0:
        affine[:3, 3] += affine[:3, 2] * (len(voxels) - 1)
        affine[:3, 2] *= -1
        voxels = voxels[::-1]
    return voxels, affine


def real_series(real_data: RealData) -> list[list[Path]]:
    """Return the cross-sectional series at hand, shipped ones always."""
    folders = [real_data.samples / "ct-chest", real_data.samples / "mr-hippocampus"]
    if real_data.shared is not None:
        dicom = real_data.shared / "dicom"
        folders += [dicom / "ct-chest-philips", *sorted((dicom / "ct-chest-siemens").iterdir())]
        folders += sorted((dicom / "mr-hippocampus").iterdir())
    return [dicom_files(folder) for folder in folders]


def test_real_series_agree_with_highdicom(real_data: RealData) -> None:
    """Voxels are those of highdicom, affines to 1 micrometre."""
    for paths in real_series(real_data):
        (volume,) = load_volumes(paths)

        voxels, affine = by_highdicom(paths)
        assert np.array_equal(volume.voxels, voxels)
        assert volume.affine_lps is not None
        assert np.allclose(volume.affine_lps, affine, atol=1e-3)
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
        positions = {ds.SOPInstanceUID: ds.ImagePositionPatient for ds in headers}
        for k, frame in enumerate(volume.frames):
            position = positions[frame.sop_instance_uid]
            assert np.allclose(volume.affine_lps @ [0, 0, k, 1], [*position, 1], atol=1e-3)


def test_odd_files_are_volumes_or_refusals(real_data: RealData) -> None:
    """Every odd file, each taken for a series, ends as finite voxels or as a refusal; nothing else escapes."""
    paths = dicom_files(Path(pydicom.__file__).parent / "data" / "test_files") + real_data.studies()["odd"]
    volumes: dict[str, Volume] = {}
    for path in paths:
        try:
            (volumes[path.name],) = load_volumes([path])
        except NotEvaluableError as refusal:
            assert refusal.reason.endswith(".")

    assert all(np.isfinite(volume.voxels).all() for volume in volumes.values())
    pairs = [(f"MR_small_{kind}.dcm", "MR_small.dcm") for kind in ("RLE", "jp2klossless", "jpeg_ls_lossless", "expb")]
    if real_data.shared is not None:
        pairs += [("693_J2KR.dcm", "693_UNCR.dcm"), ("MR2_J2KR.dcm", "MR2_UNCR.dcm")]
    for coded, plain in pairs:
        assert np.array_equal(volumes[coded].voxels, volumes[plain].voxels)
