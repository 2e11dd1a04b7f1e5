"""One outcome as a set of objects: identity, order, repetition."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from gateway.errors import NotFoundError
from gateway.report import render_outcome, render_pictures
from gateway.report.source import SourceFiles
from inference.findings import Findings, HeatMap, SourceFrame
from tests.unit.report.outcomes import (
    ALGORITHM,
    SERIES_UID,
    assignment,
    distinct_masks,
    instance_uid,
    lungs,
    volume_findings,
    write_series,
    write_xray,
    xray_findings,
)


def test_an_xray_yields_reports_segmentation_and_heat_maps(tmp_path: Path) -> None:
    """Each kind is an object in a series of its own, in the source's study."""
    objects = render_outcome(xray_findings(), assignment(), write_xray(tmp_path))

    kinds = [each.reference.kind for each in objects]
    assert kinds == ["sr-findings", "seg", "sr-measurements", "heatmap-pneumonia", "heatmap-bacterial"]
    assert len({each.reference.series_instance_uid for each in objects}) == 5
    assert len({each.dataset.SeriesNumber for each in objects}) == 5
    for each in objects:
        assert each.dataset.StudyInstanceUID == each.reference.study_instance_uid == "2.25.100"
        assert each.dataset.SOPInstanceUID == each.reference.sop_instance_uid
        assert each.reference.sop_instance_uid.startswith("2.25.")


def test_a_retry_gives_the_same_bytes(tmp_path: Path) -> None:
    """One job in one revision is rendered alike, however often."""
    files = write_xray(tmp_path)

    first, second = (render_outcome(xray_findings(), assignment(), files) for _ in range(2))

    assert [_bytes(each.dataset) for each in first] == [_bytes(each.dataset) for each in second]


@pytest.mark.parametrize("is_volume", [False, True])
def test_headers_that_were_read_before_give_the_same_bytes(tmp_path: Path, is_volume: bool) -> None:
    """Reading once for all objects, and looking at what was read, changes nothing in what is written."""
    files = write_series(tmp_path, 3) if is_volume else write_xray(tmp_path)
    outcome = volume_findings(files) if is_volume else xray_findings()
    looked_at = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in files}
    for header in looked_at.values():
        str(header)  # decodes every element
    plain = render_outcome(outcome, assignment(), files)

    once = SourceFiles(files, looked_at.get)
    first, second = (render_outcome(outcome, assignment(), once) for _ in range(2))

    wanted = [_bytes(each.dataset) for each in plain]
    assert [_bytes(each.dataset) for each in first] == wanted
    assert [_bytes(each.dataset) for each in second] == wanted
    assert render_pictures(outcome, once) == render_pictures(outcome, files)


@pytest.mark.parametrize(("revision", "ordinal"), [(2, 0), (1, 1)])
def test_another_revision_or_image_gives_other_uids(tmp_path: Path, revision: int, ordinal: int) -> None:
    """A reprocess, and another image of the same job, never collide with what is stored."""
    files = write_xray(tmp_path)
    first = render_outcome(xray_findings(), assignment(), files)

    other = render_outcome(xray_findings(), assignment(revision), files, ordinal=ordinal)

    uids = [{r for o in objects for r in (o.reference.sop_instance_uid, o.reference.series_instance_uid)}
            for objects in (first, other)]  # fmt: skip
    assert not uids[0] & uids[1]


def test_a_missing_series_is_named_as_such(tmp_path: Path) -> None:
    """Files of another series are no source."""
    files = write_xray(tmp_path)
    outcome = Findings(ALGORITHM, "2.25.999", (SourceFrame(instance_uid(0)),))

    with pytest.raises(NotFoundError):
        render_outcome(outcome, assignment(), files)


def test_heat_map_says_what_it_is(tmp_path: Path) -> None:
    """A heat map is a derived colour image with burned-in words and a reference to its source."""
    objects = render_outcome(xray_findings(), assignment(), write_xray(tmp_path))

    heat_map = objects[3].dataset
    assert heat_map.BurnedInAnnotation == "YES"
    assert heat_map.SourceImageSequence[0].ReferencedSOPInstanceUID == instance_uid(0)
    assert "not for diagnosis" in heat_map.DerivationDescription
    pixels = heat_map.pixel_array
    assert (pixels[:12] == 255).all(axis=-1).any(), "white letters stand at the upper edge"
    assert (pixels[pixels.shape[0] // 2, -5, 0] > pixels[pixels.shape[0] // 2, 5, 0]).all(), "red where it is hot"


def test_equal_class_names_of_two_levels_stay_apart(tmp_path: Path) -> None:
    """Two levels may both know 'normal'; their heat maps are two objects."""
    frame = SourceFrame(instance_uid(0))
    weight = np.zeros((12, 10), dtype=np.float32)
    maps = (HeatMap("normal", "coarse", frame, weight), HeatMap("normal", "fine", frame, weight))

    objects = render_outcome(
        Findings(ALGORITHM, SERIES_UID, (frame,), heat_maps=maps), assignment(), write_xray(tmp_path)
    )

    assert [each.reference.kind for each in objects] == ["heatmap-normal", "heatmap-fine-normal"]


def test_pictures_show_segments_in_their_colours(tmp_path: Path) -> None:
    """The overlay is tinted where the mask is and grey elsewhere."""
    outcome = xray_findings()

    pictures = render_pictures(outcome, write_xray(tmp_path))

    assert set(pictures) == {"overlay", "heatmap-pneumonia", "heatmap-bacterial"}
    overlay = np.asarray(Image.open(io.BytesIO(pictures["overlay"])).convert("RGB")).astype(int)
    scale = overlay.shape[0] / 12
    spread = np.ptp(overlay, axis=-1)
    assert spread[int(2 * scale), int(2 * scale)] > 20
    assert spread[int(7 * scale), int(7 * scale)] == 0


def test_picture_of_a_volume_is_a_montage(tmp_path: Path) -> None:
    """Three planes with segments lie side by side."""
    files = write_series(tmp_path, 3)

    pictures = render_pictures(volume_findings(files), files)

    width, height = Image.open(io.BytesIO(pictures["overlay"])).size
    assert width > 2 * height


def test_planes_without_position_cannot_share_a_segmentation(tmp_path: Path) -> None:
    """Two X-rays in one outcome have no common geometry; the caller is told to part them."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    files = write_xray(first) + write_xray(second, lambda header: setattr(header, "SOPInstanceUID", instance_uid(1)))
    frames = (SourceFrame(instance_uid(0)), SourceFrame(instance_uid(1)))
    outcome = Findings(ALGORITHM, SERIES_UID, frames, segments=lungs(*distinct_masks(2)))

    with pytest.raises(ValueError, match="single frame"):
        render_outcome(outcome, assignment(), files)


def _bytes(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
