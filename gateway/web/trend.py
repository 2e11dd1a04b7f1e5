"""A measurement over a patient's earlier studies: values, change, and the line that a page draws (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias

from gateway.web.results import outcomes

_WIDTH, _HEIGHT, _MARGIN = 120.0, 28.0, 4.0
_LEAST_PRIORS = 1

Key: TypeAlias = tuple[str, str, str, str]
"""Segment, code value and scheme of the quantity, unit: what makes two values comparable."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at one study."""

    study_date: str
    """YYYYMMDD."""
    value: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A value with those before it."""

    points: tuple[Point, ...]
    """The earliest first; the last is the present one."""

    @property
    def change_percent(self) -> float | None:
        """Change since the last prior, in per cent of it; None where that was zero."""
        before, now = self.points[-2].value, self.points[-1].value
        return 100 * (now - before) / abs(before) if before else None

    @property
    def dots(self) -> tuple[tuple[float, float], ...]:
        """Places of the points in a box of 120 x 28, time to the right and value upwards."""
        days = [_day(point.study_date) for point in self.points]
        values = [point.value for point in self.points]
        across = _scaled([float(day) for day in days], _MARGIN, _WIDTH - _MARGIN)
        upwards = _scaled(values, _HEIGHT - _MARGIN, _MARGIN)
        return tuple((round(x, 1), round(y, 1)) for x, y in zip(across, upwards, strict=True))

    @property
    def line(self) -> str:
        """The points as SVG's `polyline` wants them."""
        return " ".join(f"{x},{y}" for x, y in self.dots)


def values_of(summary: Any) -> Iterator[tuple[Key, float]]:
    """Yield every measurement of a job's summary."""
    for outcome in outcomes(summary):
        for segment in outcome.get("segments", []):
            for measurement in segment.get("measurements", []):
                if measurement["value"] is not None:
                    yield measurement_key(segment, measurement), float(measurement["value"])


def measurement_key(segment: Mapping[str, Any], measurement: Mapping[str, Any]) -> Key:
    """Return what a measurement is of."""
    quantity = measurement["quantity"]
    return str(segment["id"]), str(quantity["value"]), str(quantity["scheme"]), str(measurement["unit"])


def trend(
    study_date: str, value: float | None, key: Key, before: Sequence[tuple[str, Mapping[Key, float]]]
) -> Trend | None:
    """Return the trend of a value; None where no earlier study has one.

    Parameters
    ----------
    before
        Study Date and values of each earlier study, the earliest first.
    """
    priors = [Point(at, values[key]) for at, values in before if key in values]
    if value is None or len(priors) < _LEAST_PRIORS:
        return None
    return Trend((*priors, Point(study_date, value)))


def _day(text: str) -> int:
    try:
        return datetime.strptime(text, "%Y%m%d").date().toordinal()
    except ValueError:
        return date.min.toordinal()


def _scaled(values: Sequence[float], low: float, high: float) -> list[float]:
    """Return the values spread between two coordinates; equal ones in the middle."""
    least, most = min(values), max(values)
    if most == least:
        return [(low + high) / 2] * len(values)
    return [low + (high - low) * (value - least) / (most - least) for value in values]
