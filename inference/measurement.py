"""What is measured of a segment, as a bundle says.

::

[[measurements]]
kind = "volume"        # the segment's volume, mL; left out where the stack cuts the segment off
quantity, unit = code
[[measurements]]
kind = "mean"          # mean modality value of the segment's voxels
[[measurements]]
kind = "share-below"   # share of the segment's voxels under `bound`, per cent
bound = -950
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.findings import Code, Measurement
from inference.table import Table

KINDS = ("volume", "mean", "share-below")
_UNITS = {"volume": "mL", "share-below": "%"}
_MM3_PER_ML = 1000.0
_PER_CENT = 100.0


@dataclass(frozen=True, slots=True)
class MeasurementSpec:
    """One measurement that is taken of every segment."""

    kind: str
    """One of `KINDS`."""
    quantity: Code
    unit: Code
    bound: float
    """For 'share-below'."""


def read_measurement(entry: Table) -> MeasurementSpec:
    """Read one of `[[measurements]]`; raises BundleError naming file and field."""
    kind = entry.get("kind", str)
    if kind not in KINDS:
        raise entry.wrong("kind", f"{kind!r} is none of {', '.join(KINDS)}")
    unit = entry.needed_code("unit")
    if unit.scheme != "UCUM" or unit.value != _UNITS.get(kind, unit.value):
        raise entry.wrong("unit", f"must be a UCUM code{' ' + _UNITS[kind] if kind in _UNITS else ''}")
    bound = entry.get("bound", float) if kind == "share-below" else 0.0
    return MeasurementSpec(kind, entry.needed_code("quantity"), unit, bound)


def measure(
    specs: Sequence[MeasurementSpec],
    mask: NDArray[np.bool_],
    voxels: NDArray[np.float32],
    voxel_mm3: float,
    *,
    is_whole: bool = True,
) -> tuple[Measurement, ...]:
    """Measure one segment; an empty one has a volume of 0 and nothing else.

    Parameters
    ----------
    mask, voxels
        (Z, Y, X) of the source grid; modality values.
    voxel_mm3
        Volume of one voxel.
    is_whole
        False where the stack ends within the segment: its volume is not known then.
    """
    inside = voxels[mask]  # (N,)
    taken = []
    for spec in specs:
        value = _value(spec, inside, voxel_mm3)
        if value is not None and (is_whole or spec.kind != "volume"):
            taken.append(Measurement(spec.quantity, value, spec.unit))
    return tuple(taken)


def _value(spec: MeasurementSpec, inside: NDArray[np.float32], voxel_mm3: float) -> float | None:
    if spec.kind == "volume":
        return inside.size * voxel_mm3 / _MM3_PER_ML
    if not inside.size:
        return None
    if spec.kind == "mean":
        return float(inside.mean(dtype=np.float64))
    return _PER_CENT * float((inside < spec.bound).mean())
