"""What is read before its series is complete gives the very same volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from inference.errors import NotEvaluableError
from inference.pixels import Target
from inference.preread import Preread, coding_of, planes_of
from inference.volume import SeriesVolumes, load_series, load_volumes
from tests.studies import RealData, dicom_files
from tests.unit.inference.made_series import enhanced, series, write

ROOM = 1 << 30


def read_ahead(paths: Sequence[Path], limit_bytes: int = ROOM) -> Preread:
    """Read files, the last first."""
    preread = Preread(limit_bytes)
    for path in reversed(paths):
        preread.read(path)
    return preread


def facts(loaded: SeriesVolumes) -> list[object]:
    """Return all that a series yields, voxels to the bit."""
    volumes = [
        (
            each.voxels.tobytes(),
            each.voxels.shape,
            None if each.affine_lps is None else each.affine_lps.tobytes(),
            each.spacing_mm,
            each.frames,
            each.series_instance_uid,
            each.modality,
            dict(each.attributes),
        )
        for each in loaded.volumes
    ]
    return [*volumes, *((refusal.code, refusal.reason) for refusal in loaded.refusals)]


@pytest.mark.parametrize("study", ["ct-chest", "mr-hippocampus"])
def test_a_real_series_is_the_same_to_the_bit(real_data: RealData, study: str) -> None:
    """Every plane was read ahead, or every second one: nothing tells."""
    paths = dicom_files(real_data.samples / study)
    plain = facts(load_series(paths))

    whole, half = read_ahead(paths), read_ahead(paths[::2])

    assert whole.held_bytes > 1.9 * half.held_bytes > 0
    assert facts(load_series(paths, preread=whole)) == plain
    assert facts(load_series(paths, preread=half)) == plain


def test_a_real_x_ray_is_the_same_to_the_bit(real_data: RealData) -> None:
    """Projection images are read ahead, too."""
    for path in real_data.cxr:
        preread = read_ahead([path])

        assert preread.held_bytes > 0
        assert facts(load_series([path], preread=preread)) == facts(load_series([path]))


def test_a_multi_frame_instance_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """Each of its frames has a plane of its own."""
    path = write(enhanced([0, 2, 4, 6]), tmp_path / "enhanced.dcm")

    preread = read_ahead([path])

    assert preread.held_bytes > 0
    assert facts(load_series([path], preread=preread)) == facts(load_series([path]))


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    """Once all is held, it does not matter what the files hold by now, as long as they are those that were read."""
    paths = series(tmp_path, [0, 2, 4])
    plain = facts(load_series(paths))
    preread = read_ahead(paths)
    for path in paths:
        with path.open("r+b") as file:
            file.seek(-2, 2)
            file.write(b"\x07\x07")

    assert facts(load_series(paths, preread=preread)) == plain
    assert facts(load_series(paths)) != plain


def test_another_file_at_its_place_is_read(tmp_path: Path) -> None:
    """A file that was replaced is another one, even where it is as long."""
    paths = series(tmp_path, [0, 2, 4])
    preread = read_ahead(paths)
    content = bytearray(paths[1].read_bytes())
    content[-2:] = b"\x07\x07"
    (tmp_path / "other").write_bytes(content)
    (tmp_path / "other").rename(paths[1])

    assert facts(load_series(paths, preread=preread)) == facts(load_series(paths))


def test_what_is_held_is_bounded(tmp_path: Path) -> None:
    """Beyond the limit nothing is kept; what is let go makes room."""
    paths = series(tmp_path, [0, 2, 4])
    one = read_ahead(paths[:1]).held_bytes
    preread = Preread(2 * one)

    kept = [preread.read(path) for path in paths]
    preread.forget(paths[:1])

    assert kept == [True, True, False]
    assert preread.held_bytes == one
    assert preread.read(paths[2])
    assert facts(load_series(paths, preread=preread)) == facts(load_series(paths))


def test_a_lower_limit_of_the_series_holds(tmp_path: Path) -> None:
    """A file that is too large for its reader is refused as ever."""
    (path,) = series(tmp_path, [0])
    preread = read_ahead([path])

    with pytest.raises(NotEvaluableError) as refused:
        load_volumes([path], limit_bytes=path.stat().st_size - 1)
    with pytest.raises(NotEvaluableError) as refused_ahead:
        load_series([path], limit_bytes=path.stat().st_size - 1, preread=preread)

    assert (refused_ahead.value.code, refused_ahead.value.reason) == (refused.value.code, refused.value.reason)


def test_what_cannot_be_read_is_not_kept_and_its_reason_is_told(real_data: RealData) -> None:
    """Odd and broken files, each alone: the outcome is the same in any case."""
    for path in real_data.studies()["odd"][:25]:
        preread = Preread(ROOM)
        preread.read(path)

        assert outcome(path, preread) == outcome(path, None), path.name


def outcome(path: Path, preread: Preread | None) -> object:
    """Return what reading a file alone comes to."""
    try:
        return facts(load_series([path], preread=preread))
    except NotEvaluableError as refusal:
        return refusal.code, refusal.reason


def test_frames_of_another_coding_are_not_taken(tmp_path: Path) -> None:
    """What is wanted with another slope is decoded anew; its targets are left alone."""
    (path,) = series(tmp_path, [0])
    preread = read_ahead([path])
    header = preread.header(path, ROOM)
    assert header is not None
    (plane,) = planes_of(header, path)
    values = np.zeros((plane.rows, plane.columns), dtype=np.float32)

    is_filled = preread.fill(path, coding_of(header), {0: Target(values, plane.slope + 1, plane.intercept)})

    assert not is_filled
    assert not values.any()
