"""The `[input]` table of a bundle: what the network is shown, as projection images or as volumes.

Volumes are shown on a grid whose axes are those of the patient (LPS), whatever the scanner's (`inference.grid`)::

    [input]
    kind = "volume"
    spacing_mm = [5.0, 2.5, 2.5]          # of that grid; z, y, x as everywhere
    patch = [16, 128, 128]                # voxels that the network sees at once
    overlap = 0.25                        # share that neighbouring patches have in common
    window = [-1000.0, 400.0]             # modality values that become -1 and 1, clipped; or
    percentiles = [0.5, 99.5]             # clipped to these, then to mean 0 and standard deviation 1
    edge_below = -320.0                   # ? where the network is unsure of an edge, voxels below this belong inside
    mirrors = ["x"]                       # ? show it mirrored along these axes, too, and average
    planes = [10, 2000]                   # least and most source planes
    least_extent_mm = [100.0, 150.0, 150.0]
    most_extent_mm = [1200.0, 700.0, 700.0]
    most_spacing_mm = [10.0, 2.0, 2.0]    # of the source, along the axes of its own that lie nearest to z, y, x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inference.table import Table

Triple = tuple[float, float, float]
_PER_CENT = 100


@dataclass(frozen=True, slots=True)
class ProjectionInput:
    """What a network for projection images is shown."""

    kind: ClassVar[str] = "projection"
    size: int
    detail: int
    margin: float
    percentiles: tuple[float, float]
    least_side_px: int


@dataclass(frozen=True, slots=True)
class VolumeInput:
    """What a network for volumes is shown; triples are (z, y, x)."""

    kind: ClassVar[str] = "volume"
    spacing_mm: Triple
    patch: tuple[int, int, int]
    overlap: float
    window: tuple[float, float] | None
    percentiles: tuple[float, float] | None
    """Exactly one of window and percentiles is given."""
    edge_below: float | None
    """Modality value under which a voxel belongs to the segment where the network is unsure of it; None: it decides."""
    mirrors: tuple[str, ...]
    """Axes of the patient along which the volume is shown mirrored, too; the answers are averaged."""
    planes: tuple[int, int]
    least_extent_mm: Triple
    most_extent_mm: Triple
    most_spacing_mm: Triple


def read_input(entry: Table) -> ProjectionInput | VolumeInput:
    """Read the table; raises BundleError naming file and field."""
    kind = entry.get("kind", str)
    if kind == ProjectionInput.kind:
        return _projection(entry)
    if kind == VolumeInput.kind:
        return _volume(entry)
    raise entry.wrong("kind", f"must be {ProjectionInput.kind!r} or {VolumeInput.kind!r}")


def _projection(entry: Table) -> ProjectionInput:
    spec = ProjectionInput(
        size=entry.get("size", int),
        detail=entry.get("detail", int),
        margin=entry.get("margin", float),
        percentiles=_percentiles(entry),
        least_side_px=entry.get("least_side_px", int),
    )
    for key, value in (("size", spec.size), ("detail", spec.detail), ("margin", spec.margin)):
        if value <= 0:
            raise entry.wrong(key, "must be positive")
    return spec


def _volume(entry: Table) -> VolumeInput:
    if ("window" in entry.values) == ("percentiles" in entry.values):
        raise entry.wrong("window", "either this or percentiles must be given")
    patch = entry.items("patch", int)
    if len(patch) != 3 or min(patch) <= 0:  # noqa: PLR2004 -- z, y, x
        raise entry.wrong("patch", "must hold 3 positive whole numbers")
    overlap = entry.get("overlap", float)
    if not 0 <= overlap < 1:
        raise entry.wrong("overlap", "must lie within 0 and 1")
    mirrors = entry.items("mirrors", str, ())
    if not set(mirrors) <= {"z", "y", "x"}:
        raise entry.wrong("mirrors", "must be of z, y and x")
    planes = entry.items("planes", int)
    if len(planes) != 2 or not 0 < planes[0] <= planes[1]:  # noqa: PLR2004 -- least and most
        raise entry.wrong("planes", "must be the least and the most number of planes")
    return VolumeInput(
        spacing_mm=_lengths(entry, "spacing_mm"),
        patch=(patch[0], patch[1], patch[2]),
        overlap=overlap,
        window=_rising(entry, "window") if "window" in entry.values else None,
        percentiles=_percentiles(entry) if "percentiles" in entry.values else None,
        edge_below=entry.get("edge_below", float) if "edge_below" in entry.values else None,
        mirrors=mirrors,
        planes=(planes[0], planes[1]),
        least_extent_mm=_lengths(entry, "least_extent_mm"),
        most_extent_mm=_lengths(entry, "most_extent_mm"),
        most_spacing_mm=_lengths(entry, "most_spacing_mm"),
    )


def _percentiles(entry: Table) -> tuple[float, float]:
    low, high = entry.numbers("percentiles", 2)
    if not 0 <= low < high <= _PER_CENT:
        raise entry.wrong("percentiles", "must rise within 0 and 100")
    return low, high


def _rising(entry: Table, key: str) -> tuple[float, float]:
    low, high = entry.numbers(key, 2)
    if low >= high:
        raise entry.wrong(key, "must rise")
    return low, high


def _lengths(entry: Table, key: str) -> Triple:
    z, y, x = entry.numbers(key, 3)
    if min(z, y, x) <= 0:
        raise entry.wrong(key, "must be positive")
    return z, y, x
