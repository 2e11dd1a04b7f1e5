"""Which volumes a bundle takes: what is refused is told with value and expectation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.applicability import Applicability
from inference.errors import NotEvaluableError
from inference.findings import SourceFrame
from inference.fit import OTHER_SERIES, check_volume
from inference.input_spec import VolumeInput
from inference.volume import Volume

_MEANT = Applicability(("CT",), ("CHEST",), True, ("KNEE",), (), (18, 120))
_SPEC = VolumeInput(
    spacing_mm=(5.0, 2.5, 2.5),
    patch=(16, 96, 96),
    overlap=0.25,
    window=(-1000.0, 400.0),
    percentiles=None,
    edge_below=None,
    mirrors=(),
    planes=(10, 100),
    least_extent_mm=(100.0, 150.0, 200.0),
    most_extent_mm=(1200.0, 600.0, 600.0),
    most_spacing_mm=(10.0, 10.0, 10.0),
)


def _volume(spacing: tuple[float, float, float] = (5.0, 8.0, 8.0), planes: int = 30, **attributes: str) -> Volume:
    affine = np.diag([*reversed(spacing), 1.0])
    voxels = np.arange(planes * 40 * 40, dtype=np.float32).reshape(planes, 40, 40)
    frames = tuple(SourceFrame(f"1.{number}") for number in range(planes))
    return Volume(voxels, affine, spacing, frames, "1.2", "CT", attributes)


def test_a_volume_within_the_declared_input_passes() -> None:
    """Its affine is handed on."""
    volume = _volume(BodyPartExamined="CHEST", PatientAge="058Y")

    assert check_volume(volume, _MEANT, _SPEC) is volume.affine_lps


@pytest.mark.parametrize(
    ("volume", "code", "said"),
    [
        (replace(_volume(), modality="MR"), "modality", "Modality is MR, expected CT"),
        (_volume(BodyPartExamined="HEAD"), "body-part", "HEAD, expected CHEST"),
        (_volume(SeriesDescription="left knee"), "body-part", "another part"),
        (_volume(PatientAge="004Y"), "age", "18 to 120"),
        (replace(_volume(), affine_lps=None), "geometry.not-a-volume", "projection"),
        (_volume(planes=8), "geometry.planes", "8 planes, expected 10 to 100"),
        (_volume(planes=15), "geometry.extent", "75 mm from foot to head, expected 100 to 1200 mm"),
        (_volume(spacing=(5.0, 8.0, 4.0)), "geometry.extent", "160 mm from side to side"),
        (_volume(spacing=(12.0, 8.0, 8.0)), "geometry.resolution", "12 mm apart from foot to head"),
        (replace(_volume(), voxels=np.zeros((30, 40, 40), dtype=np.float32)), "image.blank", "same value"),
    ],
)
def test_what_lies_outside_is_refused_with_value_and_expectation(volume: Volume, code: str, said: str) -> None:
    """Each has a code, and a sentence that tells what was found and what was expected."""
    with pytest.raises(NotEvaluableError, match=said) as refused:
        check_volume(volume, _MEANT, _SPEC)

    assert refused.value.code == code


def test_damage_is_never_taken_for_another_series() -> None:
    """Codes that tell of lost or broken images are told even where another series was evaluated."""
    assert not {"geometry.missing-slice", "geometry.uneven", "pixels.undecodable", "image.blank"} & OTHER_SERIES
