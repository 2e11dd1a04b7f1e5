"""Tests of `inference.geometry`: order, evenness, affine and the splitting of mixed series."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import NotEvaluableError
from inference.findings import SourceFrame
from inference.geometry import find_stacks, stack_planes, tilt_deg
from inference.plane import SPLIT_SOURCES, Plane

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
KEYS = [keyword for keyword, _, _ in SPLIT_SOURCES]


def plane(
    position: tuple[float, float, float],
    orientation: tuple[float, ...] = AXIAL,
    step_mm: float | None = None,
    **split: str,
) -> Plane:
    """Make a plane of 4 by 3 pixels, 0.5 mm between rows, 0.25 mm between columns."""
    return Plane(
        path=Path("unread"),
        frame=SourceFrame("2.25." + "".join(f"{abs(v):.4f}".replace(".", "") for v in position) + str(len(split))),
        index=0,
        rows=4,
        columns=3,
        slope=1.0,
        intercept=0.0,
        position=position,
        orientation=orientation,
        spacing=(0.5, 0.25),
        step_mm=step_mm,
        split_values=tuple(split.get(key, "") for key in KEYS),
    )


def code_of(planes: list[Plane]) -> str:
    """Return the code that the planes are refused with."""
    with pytest.raises(NotEvaluableError) as refusal:
        stack_planes(planes)
    return refusal.value.code


@st.composite
def regular_stacks(draw: st.DrawFn) -> tuple[list[Plane], np.ndarray]:
    """Draw planes of a rotated, possibly tilted stack in any order, with the affine they were made from."""
    angles = [draw(st.floats(-3, 3)) for _ in range(3)]
    rotation = np.linalg.multi_dot([_turn(axis, angle) for axis, angle in enumerate(angles)])
    along_row, along_column, normal = rotation.T
    step = draw(st.floats(0.5, 10)) * (normal + draw(st.floats(-0.5, 0.5)) * along_column)
    origin = np.array([draw(st.floats(-500, 500)) for _ in range(3)])
    count = draw(st.integers(2, 12))
    affine = np.eye(4)
    affine[:3] = np.column_stack([0.25 * along_row, 0.5 * along_column, step, origin])
    cosines = (*map(float, along_row), *map(float, along_column))
    planes = [
        plane((p[0], p[1], p[2]), cosines)
        for p in (map(float, origin + k * step) for k in range(count))
        for p in [tuple(p)]
    ]
    return draw(st.permutations(planes)), affine


def _turn(axis: int, angle: float) -> np.ndarray:
    i, j = [n for n in range(3) if n != axis]
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn


@settings(max_examples=60, deadline=None)
@given(regular_stacks())
def test_affine_is_found_whatever_the_order(drawn: tuple[list[Plane], np.ndarray]) -> None:
    """Any order of the planes of any regular stack gives back the affine that made them, right-handed."""
    planes, affine = drawn

    stack = stack_planes(planes)

    assert np.allclose(stack.affine_lps, affine, atol=1e-6)
    assert np.linalg.det(stack.affine_lps[:3, :3]) > 0
    assert stack.spacing_mm[0] * 0.5 * 0.25 == pytest.approx(np.linalg.det(affine[:3, :3]))
    for k, placed in enumerate(stack.planes):
        assert np.allclose(affine @ [0, 0, k, 1], [*(placed.position or ()), 1], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 30), st.floats(0.5, 8), st.data())
def test_a_missing_slice_is_never_silent(count: int, step: float, data: st.DataObject) -> None:
    """Taking any inner slice out of an even stack is refused as a missing slice."""
    gone = data.draw(st.integers(1, count - 2))
    planes = [plane((0.0, 0.0, k * step)) for k in range(count) if k != gone]

    assert code_of(planes) == "geometry.missing-slice"


@pytest.mark.parametrize(
    ("heights", "code"),
    [
        ([0, 1, 2, 4.5, 5.5], "geometry.uneven"),
        ([0, 5, 10, 11, 12], "geometry.missing-slice"),
        ([0, 1, 2, 2, 3], "geometry.duplicate-positions"),
        ([0, 1, 2.2, 3, 4], "geometry.uneven"),
        ([0, 1, 2, 3, 4, 5.3, 6.6, 7.9, 9.2], "geometry.uneven"),
    ],
)
def test_irregular_heights_are_refused(heights: list[float], code: str) -> None:
    """Each way of being irregular has its own code."""
    assert code_of([plane((0.0, 0.0, float(z))) for z in heights]) == code


def test_positions_rounded_to_a_tenth_are_even() -> None:
    """A 0.625 mm stack whose positions were rounded to 0.1 mm is accepted with the true step."""
    stack = stack_planes([plane((0.0, 0.0, round(0.625 * k, 1))) for k in range(100)])

    assert stack.spacing_mm[0] == pytest.approx(0.625, abs=1e-3)


def test_a_plane_shifted_sideways_is_refused() -> None:
    """A plane at the right height but moved within its plane makes the stack uneven."""
    planes = [plane((3.0 if k == 2 else 0.0, 0.0, 2.0 * k)) for k in range(5)]

    assert code_of(planes) == "geometry.uneven"


def test_gantry_tilt_shears_the_affine() -> None:
    """A tilted CT keeps its shear in the affine and its perpendicular distance in the spacing."""
    tilt = np.radians(20)
    cosines = (1.0, 0.0, 0.0, 0.0, float(np.cos(tilt)), float(np.sin(tilt)))

    stack = stack_planes([plane((0.0, 0.0, 5.0 * k), cosines) for k in range(6)])

    assert np.allclose(stack.affine_lps[:3, 2], [0, 0, 5])
    assert stack.spacing_mm[0] == pytest.approx(5 * np.cos(tilt))
    assert tilt_deg(stack.affine_lps) == pytest.approx(20)


def test_a_stack_along_its_own_planes_is_refused() -> None:
    """Beyond 45 degrees the direction of stacking is no tilt of a gantry."""
    assert code_of([plane((3.0 * k, 0.0, 1.0 * k)) for k in range(5)]) == "geometry.tilt"


@pytest.mark.parametrize("orientation", [(0.0,) * 6, (1.0, 0, 0, 1.0, 0, 0), (2.0, 0, 0, 0, 1.0, 0)])
def test_directions_that_are_none_are_refused(orientation: tuple[float, ...]) -> None:
    """Zero, parallel and long direction cosines are refused."""
    assert code_of([plane((0.0, 0.0, float(k)), orientation) for k in range(3)]) == "geometry.orientation"


def test_a_lone_plane_needs_a_thickness() -> None:
    """One plane takes its depth from its declared thickness, or is refused."""
    assert stack_planes([plane((0.0, 0.0, 0.0), step_mm=3.0)]).spacing_mm == (3.0, 0.5, 0.25)
    assert code_of([plane((0.0, 0.0, 0.0))]) == "geometry.spacing"


def test_orientations_become_stacks() -> None:
    """Axial and sagittal planes of one series are two stacks, the larger one first."""
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    planes = [plane((float(k), 0.0, 0.0), sagittal) for k in range(3)]
    planes += [plane((0.0, 0.0, 2.0 * k)) for k in range(5)]

    stacks, refusals = find_stacks(planes)

    assert [len(stack.planes) for stack in stacks] == [5, 3]
    assert not refusals


@pytest.mark.parametrize("key", ["AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime", "ImageType"])
def test_planes_at_one_place_are_told_apart(key: str) -> None:
    """Two acquisitions, phases, echoes or image types at the same positions become two stacks, in their order."""
    planes = [plane((0.0, 0.0, 2.0 * k), **{key: str(n)}) for n in (10, 9) for k in range(4)]

    stacks, refusals = find_stacks(planes)

    number = KEYS.index(key)
    assert [{p.split_values[number] for p in stack.planes} for stack in stacks] == [{"9"}, {"10"}]
    assert not refusals


def test_two_keys_are_tried_together() -> None:
    """Two echoes at each of two phases are four stacks."""
    planes = [
        plane((0.0, 0.0, 2.0 * k), EchoTime=echo, TemporalPositionIdentifier=phase)
        for echo in ("10", "80")
        for phase in ("1", "2")
        for k in range(4)
    ]

    stacks, _ = find_stacks(planes)

    assert [len(stack.planes) for stack in stacks] == [4, 4, 4, 4]


def test_one_volume_with_many_acquisition_numbers_stays_whole() -> None:
    """A step-and-shoot series that numbers every slice as an acquisition is one stack."""
    stacks, _ = find_stacks([plane((0.0, 0.0, 2.0 * k), AcquisitionNumber=str(k)) for k in range(6)])

    assert [len(stack.planes) for stack in stacks] == [6]


@pytest.mark.parametrize("heights", [[0, 2, 4, 8, 10, 12], [0, 2, 4, 4, 6, 8], [0, 2, 4, 9, 11, 16]])
def test_numbering_does_not_excuse_irregular_slices(heights: list[int]) -> None:
    """Numbers that differ from slice to slice never turn an irregular series into many regular ones."""
    planes = [plane((0.0, 0.0, float(z)), AcquisitionNumber=str(n)) for n, z in enumerate(heights)]

    stacks, refusals = find_stacks(planes)

    assert not stacks
    assert len(refusals) == 1


def test_a_phase_with_a_missing_slice_is_refused_alone() -> None:
    """Of two phases, the whole one is given and the other one is named as refused."""
    planes = [plane((0.0, 0.0, 2.0 * k), TemporalPositionIdentifier="1") for k in range(5)]
    planes += [plane((0.0, 0.0, 2.0 * k), TemporalPositionIdentifier="2") for k in range(5) if k != 2]

    stacks, refusals = find_stacks(planes)

    assert [len(stack.planes) for stack in stacks] == [5]
    assert [refusal.code for refusal in refusals] == ["geometry.missing-slice"]
