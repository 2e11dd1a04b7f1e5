"""Planes -> stacks: order, spacing and affine (pure; knows no file and no pixel).

Order comes from the position along the normal alone, never from instance numbers, so the answer does not depend on
the order in which planes are handed in.

The rule of evenness: the planes' positions are fitted by a straight, even line of points; each may lie at most 5 % of
the step away from its point (or 0.06 mm where that is more, which admits positions rounded to 0.1 mm). Otherwise the
stack is refused: 'geometry.missing-slice' when all gaps are whole multiples of the usual one, else 'geometry.uneven'.

The line need not be parallel to the normal: a CT with gantry tilt is accepted, its affine sheared as its planes are.
Beyond 45 degrees it is refused ('geometry.tilt'). `spacing_mm` is then the perpendicular distance between planes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.errors import NotEvaluableError
from inference.plane import SPLIT_SOURCES, Plane

SAME_POSITION_MM = 1e-3
RELATIVE_TOLERANCE = 0.05
ROUNDING_TOLERANCE_MM = 0.06
MAX_TILT_DEG = 45.0
SAME_DIRECTION = 1e-3
"""Largest difference of two direction cosines that count as equal; 0.25 mm at the edge of a 500 mm field."""
SAME_SPACING = 1e-3
"""Relative."""
UNIT_TOLERANCE = 1e-2
MAX_GROUPS = 64
LEAST_SHARE_OF_PART = 8
"""A part that is split off covers at least 1/8 of the positions, or the split is no split by acquisition."""
SPACE_KEYS = frozenset({"AcquisitionNumber", "StackID"})
"""What may tell apart stacks that lie at different places; the other keys tell apart planes at one place."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Planes in order along their normal, with the affine that places them."""

    planes: tuple[Plane, ...]
    affine_lps: NDArray[np.float64]
    """(4, 4): voxel index (x, y, z, 1) to mm LPS; right-handed."""
    spacing_mm: tuple[float, float, float]
    """(z, y, x); z is perpendicular to the planes."""


def find_stacks(planes: Iterable[Plane]) -> tuple[list[Stack], list[NotEvaluableError]]:
    """Sort the planes of one series into regular stacks.

    Planes that differ in orientation, matrix, pixel spacing or frame of reference never share a stack. Planes that
    share all this but lie twice at one position are told apart by acquisition, temporal position, echo and so on
    (`SPLIT_SOURCES`); acquisitions one above the other that differ in spacing by acquisition number or stack.

    Returns
    -------
    stacks, refusals
        Every usable stack, the one with most voxels first, and why each other group of planes is not usable.
    """
    stacks: list[Stack] = []
    refusals: list[NotEvaluableError] = []
    for group in _comparable_groups(sorted(planes, key=_identity)):
        try:
            usable, unusable = _separate(group)
            stacks += usable
            refusals += unusable
        except NotEvaluableError as refusal:
            refusals.append(refusal)
    stacks.sort(key=_rank)
    return stacks, refusals


def stack_planes(planes: Sequence[Plane]) -> Stack:
    """Order comparable planes and place them.

    Raises
    ------
    NotEvaluableError
        'geometry.duplicate-positions', 'geometry.missing-slice', 'geometry.uneven', 'geometry.tilt', or
        'geometry.spacing' for a lone plane without a declared thickness.
    """
    rows_dir, columns_dir, normal = directions(planes[0])
    positions = np.array([plane.position for plane in planes], dtype=np.float64)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    ordered = tuple(planes[i] for i in order)
    if len(planes) == 1:
        origin, step = positions[0], normal * _lone_step(planes[0])
    else:
        _check_gaps(np.diff(along[order]))
        origin, step = _fit_line(positions[order], normal)
    spacing = planes[0].spacing or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3, 0] = rows_dir * spacing[1]
    affine[:3, 1] = columns_dir * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return Stack(ordered, affine, (float(step @ normal), spacing[0], spacing[1]))


def directions(plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return unit vectors along a row, along a column, and their cross product, LPS.

    Raises
    ------
    NotEvaluableError
        'geometry.orientation' when the cosines are no two perpendicular unit vectors.
    """
    cosines = np.array(plane.orientation, dtype=np.float64).reshape(2, 3)
    lengths = np.sqrt((cosines**2).sum(axis=1))
    if np.any(np.abs(lengths - 1) > UNIT_TOLERANCE) or abs(cosines[0] @ cosines[1]) > UNIT_TOLERANCE:
        raise NotEvaluableError("geometry.orientation", "The direction cosines are no two perpendicular unit vectors.")
    along_row, along_column = cosines / lengths[:, None]
    normal = np.cross(along_row, along_column)
    return along_row, along_column, normal / np.sqrt(normal @ normal)


def tilt_deg(affine_lps: NDArray[np.float64]) -> float:
    """Return the angle between the stacking direction and the planes' normal (gantry tilt), degrees."""
    normal = np.cross(affine_lps[:3, 0], affine_lps[:3, 1])
    step = affine_lps[:3, 2]
    across = np.cross(normal, step)
    return float(np.degrees(np.arctan2(np.sqrt(across @ across), normal @ step)))


def _check_gaps(gaps: NDArray[np.float64]) -> None:
    """Refuse equal positions, missing planes and gaps that differ; `gaps` are sorted neighbours' distances, mm."""
    equal = int((gaps <= SAME_POSITION_MM).sum())
    if equal:
        reason = f"{equal} of {len(gaps) + 1} slices lie at the position of another one."
        raise NotEvaluableError("geometry.duplicate-positions", reason)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    tolerance = 2 * _tolerance(usual)
    multiples = np.maximum(np.rint(gaps / usual), 1)
    if not np.all(np.abs(gaps - multiples * usual) <= tolerance * multiples):
        raise _uneven(gaps)
    missing = int((multiples - 1).sum())
    if missing:
        reason = f"{missing} slices are missing between {len(gaps) + 1} slices {usual:.3g} mm apart."
        raise NotEvaluableError("geometry.missing-slice", reason)


def _fit_line(
    positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit `origin + i * step` to ordered positions by least squares and hold each plane to the rule of evenness."""
    index = np.arange(len(positions)) - (len(positions) - 1) / 2
    centre = positions.mean(axis=0)
    step = index @ positions / (index @ index)
    along = float(step @ normal)
    fitted = centre + index[:, None] * step
    off = np.sqrt(((positions - fitted) ** 2).sum(axis=1))
    if off.max() > _tolerance(along):
        raise _uneven(np.diff(positions @ normal))
    angle = float(np.degrees(np.arccos(min(1.0, along / float(np.sqrt(step @ step))))))
    if angle > MAX_TILT_DEG:
        reason = f"The slices are stacked at {angle:.0f} degrees to their normal, at most {MAX_TILT_DEG:.0f} are read."
        raise NotEvaluableError("geometry.tilt", reason)
    return fitted[0], step


def _tolerance(step_mm: float) -> float:
    return max(RELATIVE_TOLERANCE * step_mm, min(ROUNDING_TOLERANCE_MM, step_mm / 4))


def _uneven(gaps: NDArray[np.float64]) -> NotEvaluableError:
    reason = f"The slices are not evenly stacked: {gaps.min():.3g} to {gaps.max():.3g} mm apart."
    return NotEvaluableError("geometry.uneven", reason)


def _lone_step(plane: Plane) -> float:
    if plane.step_mm is None:
        raise NotEvaluableError("geometry.spacing", "A single slice without a declared thickness.")
    return plane.step_mm


def _identity(plane: Plane) -> tuple[str, int]:
    return plane.frame.sop_instance_uid, plane.index


def _rank(stack: Stack) -> tuple[int, list[tuple[float, str]], tuple[str, int]]:
    first = stack.planes[0]
    voxels = len(stack.planes) * first.rows * first.columns
    return -voxels, [_sortable(value) for value in first.split_values], min(map(_identity, stack.planes))


def _sortable(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def _comparable_groups(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Group planes that could share a stack; each is compared with the first of every group."""
    groups: list[list[Plane]] = []
    for plane in planes:
        group = next((g for g in groups if _is_comparable(g[0], plane)), None)
        if group is not None:
            group.append(plane)
        elif len(groups) < MAX_GROUPS:
            groups.append([plane])
        else:
            reason = f"The series holds planes of more than {MAX_GROUPS} orientations or matrices."
            raise NotEvaluableError("geometry.orientation", reason)
    return groups


def _is_comparable(one: Plane, other: Plane) -> bool:
    if (one.rows, one.columns, one.frame_of_reference) != (other.rows, other.columns, other.frame_of_reference):
        return False
    one_place, other_place = (one.orientation or ()), (other.orientation or ())
    one_spacing, other_spacing = (one.spacing or ()), (other.spacing or ())
    return all(abs(a - b) <= SAME_DIRECTION for a, b in zip(one_place, other_place, strict=True)) and all(
        abs(a - b) <= SAME_SPACING * a for a, b in zip(one_spacing, other_spacing, strict=True)
    )


def _separate(group: Sequence[Plane]) -> tuple[list[Stack], list[NotEvaluableError]]:
    """Return the group as one stack, or split by what tells its acquisitions apart.

    One key is tried, then two together. A split counts when every part is regular; failing that, the one that leaves
    most planes in regular parts, none of its parts holding a position twice. Missing slices are never split away.
    """
    try:
        return [stack_planes(group)], []
    except NotEvaluableError as refusal:
        if refusal.code not in {"geometry.duplicate-positions", "geometry.uneven"}:
            raise
        best: tuple[list[Stack], list[NotEvaluableError]] = [], []
        for keys in _key_sets(group, is_space_only=refusal.code == "geometry.uneven"):
            stacks, refusals = _split(group, keys)
            if stacks and not refusals:
                return stacks, refusals
            if sum(len(s.planes) for s in stacks) > sum(len(s.planes) for s in best[0]):
                best = stacks, refusals
        if not best[0]:
            raise
        return best


def _key_sets(group: Sequence[Plane], is_space_only: bool) -> list[tuple[int, ...]]:
    """Return the sets of one or two split keys that differ within the group."""
    varying = [
        number
        for number, (keyword, _, _) in enumerate(SPLIT_SOURCES)
        if (keyword in SPACE_KEYS or not is_space_only) and len({p.split_values[number] for p in group}) > 1
    ]
    return [*itertools.combinations(varying, 1), *itertools.combinations(varying, 2)]


def _split(group: Sequence[Plane], keys: tuple[int, ...]) -> tuple[list[Stack], list[NotEvaluableError]]:
    """Return the regular parts and what is wrong with the others; nothing when this is no split by acquisition."""
    parts: defaultdict[tuple[str, ...], list[Plane]] = defaultdict(list)
    for plane in group:
        parts[tuple(plane.split_values[key] for key in keys)].append(plane)
    if min(map(len, parts.values())) < _least_part(group):
        return [], []
    stacks: list[Stack] = []
    refusals: list[NotEvaluableError] = []
    for part in parts.values():
        try:
            stacks.append(stack_planes(part))
        except NotEvaluableError as refusal:
            if refusal.code == "geometry.duplicate-positions":
                return [], []
            refusals.append(refusal)
    return stacks, refusals


def _least_part(group: Sequence[Plane]) -> int:
    _, _, normal = directions(group[0])
    along = np.sort(np.array([plane.position for plane in group], dtype=np.float64) @ normal)
    places = 1 + int((np.diff(along) > SAME_POSITION_MM).sum())
    return min(places, max(3, -(-places // LEAST_SHARE_OF_PART)))
