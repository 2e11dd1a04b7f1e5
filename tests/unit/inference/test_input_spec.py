"""The `[input]` table for volumes: what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import BundleError
from inference.input_spec import VolumeInput, read_input
from inference.table import Table

_GOOD: dict[str, object] = {
    "kind": "volume",
    "spacing_mm": [5.0, 2.5, 2.5],
    "patch": [16, 96, 96],
    "overlap": 0.25,
    "window": [-1000.0, 400.0],
    "planes": [10, 3000],
    "least_extent_mm": [100.0, 150.0, 200.0],
    "most_extent_mm": [1200.0, 900.0, 900.0],
    "most_spacing_mm": [10.0, 2.0, 2.0],
}


def test_a_good_table_is_read() -> None:
    """Every field arrives; without mirrors there are none."""
    spec = read_input(Table(_GOOD, Path("bundle.toml")))

    assert isinstance(spec, VolumeInput)
    assert (spec.window, spec.percentiles, spec.mirrors) == ((-1000.0, 400.0), None, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "video"),
        ("spacing_mm", [5.0, 2.5]),
        ("spacing_mm", [5.0, 0.0, 2.5]),
        ("patch", [16, 96]),
        ("patch", [16, 96, -8]),
        ("overlap", 1.0),
        ("window", [400.0, -1000.0]),
        ("percentiles", [1.0, 99.0]),
        ("planes", [20, 10]),
        ("mirrors", ["left"]),
        ("most_extent_mm", "large"),
    ],
)
def test_a_field_that_does_not_fit_is_named(field: str, value: object) -> None:
    """The error names the field; a window beside percentiles is one too many."""
    named = "window" if field == "percentiles" else field

    with pytest.raises(BundleError, match=named):
        read_input(Table({**_GOOD, field: value}, Path("bundle.toml")))
