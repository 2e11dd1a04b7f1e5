"""What a job says, in words and numbers; and a measurement over time."""

from __future__ import annotations

import pytest

from gateway.job import State
from gateway.web.rendering import age_months, moment, percent, person
from gateway.web.results import most_urgent, uncertainty, work_state
from gateway.web.trend import Key, trend
from tests.stores import NOON

KEY: Key = ("lung-left", "118565006", "SCT", "mL")


@pytest.mark.parametrize(
    ("state", "reason", "verification", "shown"),
    [
        (State.QUEUED, None, None, "waiting"),
        (State.RUNNING, None, None, "running"),
        (State.DEAD, "x", None, "failed"),
        (State.DONE, None, None, "preliminary"),
        (State.DONE, "not evaluable: x", None, "not-evaluable"),
        (State.DONE, None, {"action": "accept"}, "verified"),
        (State.DONE, None, {"action": "correct"}, "corrected"),
        (State.DONE, None, {"action": "reject"}, "rejected"),
    ],
)
def test_a_job_in_the_words_of_a_radiologist(
    state: State, reason: str | None, verification: dict[str, str] | None, shown: str
) -> None:
    """Done means preliminary until a person said something."""
    assert work_state(state, reason, verification) == shown


def test_of_several_bundles_the_one_that_asks_most_is_shown() -> None:
    """A failure beside a result is not hidden by it."""
    assert most_urgent(["verified", "failed", "preliminary"]) == "failed"
    assert most_urgent(["verified", "preliminary"]) == "preliminary"


@pytest.mark.parametrize(("shares", "expected"), [([1.0, 0.0], 0.0), ([0.5, 0.5], 1.0), ([0.25] * 4, 1.0)])
def test_uncertainty_is_the_spread_over_the_classes(shares: list[float], expected: float) -> None:
    """None at certainty, all of it where every class is as likely."""
    finding = {"alternatives": [{"probability": share} for share in shares]}

    assert uncertainty(finding) == pytest.approx(expected)


def test_a_single_class_has_no_uncertainty() -> None:
    """There is nothing to be undecided between."""
    assert uncertainty({"alternatives": [{"probability": 1.0}]}) is None


def test_a_trend_runs_from_the_earliest_to_the_present_value() -> None:
    """Time goes to the right by days, values go up; the change is against the last prior."""
    made = trend("20260301", 90.0, KEY, [("20250301", {KEY: 120.0}), ("20260201", {KEY: 100.0})])

    assert made is not None
    assert [point.value for point in made.points] == [120.0, 100.0, 90.0]
    assert made.change_percent == pytest.approx(-10.0)
    (x0, y0), (x1, _), (x2, y2) = made.dots
    assert (x0, x2) == (4.0, 116.0)
    assert x1 > 100  # eleven of the twelve months later
    assert (y0, y2) == (4.0, 24.0)
    assert made.line.split()[0] == "4.0,4.0"


def test_no_trend_without_a_comparable_prior() -> None:
    """Another unit or segment is not compared."""
    assert trend("20260301", 90.0, KEY, [("20250301", {(*KEY[:3], "L"): 0.1})]) is None
    assert trend("20260301", None, KEY, [("20250301", {KEY: 0.1})]) is None


def test_equal_values_and_dates_still_have_a_place() -> None:
    """A flat line lies in the middle; a prior of the same day, or of none, does not divide by zero."""
    made = trend("20260301", 5.0, KEY, [("", {KEY: 5.0}), ("20260301", {KEY: 0.0})])
    flat = trend("20260301", 5.0, KEY, [("20260301", {KEY: 5.0})])

    assert made is not None
    assert made.change_percent is None
    assert flat is not None
    assert flat.dots == ((60.0, 14.0), (60.0, 14.0))


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0"), (1.0, "100"), (0.999, ">99"), (0.004, "<1"), (0.5, "50"), (0.97, "97")]
)
def test_only_what_is_certain_reads_as_certain(share: float, text: str) -> None:
    """99.9 % does not become 100 %."""
    assert percent(share) == text


def test_names_ages_and_times_as_people_write_them() -> None:
    """DICOM's own forms are for machines."""
    assert person("Wang^Xiaodong=王^小东") == "Wang, Xiaodong · 王, 小东"
    assert age_months("20240301", "20260228") == 23
    assert age_months("20240231", "20260228") is None
    assert age_months("20270101", "20260101") is None
    assert moment(NOON, today=NOON.astimezone().date()) == NOON.astimezone().strftime("%H:%M")
    assert moment(None) == ""
