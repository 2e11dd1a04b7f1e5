"""Measurements of segments: by hand, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.errors import BundleError
from inference.findings import Code
from inference.measurement import MeasurementSpec, measure, read_measurement
from inference.table import Table

_QUANTITY = Code("118565006", "SCT", "Volume")
_SPECS = [
    MeasurementSpec("volume", _QUANTITY, Code("mL", "UCUM", "milliliter"), 0.0),
    MeasurementSpec("mean", _QUANTITY, Code("[hnsf'U]", "UCUM", "Hounsfield unit"), 0.0),
    MeasurementSpec("share-below", _QUANTITY, Code("%", "UCUM", "percent"), -950.0),
]
_VOXELS = np.array([[[-1000.0, -960.0, -800.0, -940.0, 500.0]]], dtype=np.float32)
_MASK = np.array([[[True, True, True, True, False]]])


def test_volume_mean_and_share_by_hand() -> None:
    """Four voxels of 500 mm3 are 2 mL, of mean -925, half of them below -950."""
    values = [each.value for each in measure(_SPECS, _MASK, _VOXELS, 500.0)]

    assert values == [2.0, -925.0, 50.0]


def test_a_segment_that_the_stack_cuts_off_has_no_volume() -> None:
    """Density and share of the imaged part stay."""
    units = [each.unit.value for each in measure(_SPECS, _MASK, _VOXELS, 500.0, is_whole=False)]

    assert units == ["[hnsf'U]", "%"]


def test_an_empty_segment_has_volume_0_and_nothing_else() -> None:
    """No mean of nothing is told."""
    measured = measure(_SPECS, np.zeros_like(_MASK), _VOXELS, 500.0)

    assert [each.value for each in measured] == [0.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "median"), ("unit", {"value": "cm3", "scheme": "UCUM", "meaning": "cubic centimeter"})],
)
def test_a_measurement_that_does_not_exist_is_refused(field: str, value: object) -> None:
    """The error names the field."""
    unit = {"value": "mL", "scheme": "UCUM", "meaning": "milliliter"}
    quantity = {"value": "118565006", "scheme": "SCT", "meaning": "Volume"}
    table = {"kind": "volume", "quantity": quantity, "unit": unit, field: value}

    with pytest.raises(BundleError, match=field):
        read_measurement(Table(table, Path("bundle.toml")))
