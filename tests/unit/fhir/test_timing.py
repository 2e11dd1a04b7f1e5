"""DICOM dates and times become FHIR ones, and FHIR ones become periods; nothing is made up."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from fhir_facade.timing import fhir_date, fhir_date_time, instant, period
from hypothesis import given
from hypothesis import strategies as st

BERLIN = ZoneInfo("Europe/Berlin")
FHIR_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d+)?[+-]\d{2}:\d{2})?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20240229", "2024-02-29"),
        ("2024.02.29", "2024-02-29"),
        (" 20240229 ", "2024-02-29"),
        ("20230229", None),
        ("20241301", None),
        ("00000000", None),
        ("2024", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_a_date_is_a_date_or_nothing(text: str, expected: str | None) -> None:
    """Dates that do not exist are left out."""
    assert fhir_date(text) == expected


@pytest.mark.parametrize(
    ("clock", "offset", "expected"),
    [
        ("093005", "+0100", "2026-07-01T09:30:05+01:00"),
        ("093005.25", "-0330", "2026-07-01T09:30:05.250-03:30"),
        ("09", "+0000", "2026-07-01T09:00:00+00:00"),
        ("09:30:05", "", "2026-07-01T09:30:05+02:00"),
        ("093005", "+9999", "2026-07-01T09:30:05+02:00"),
        ("235960", "+0000", "2026-07-01T23:59:59+00:00"),
        ("", "+0100", "2026-07-01"),
        ("256000", "+0100", "2026-07-01"),
        ("noon", "", "2026-07-01"),
    ],
)
def test_a_time_has_the_offset_of_the_study_or_the_site(clock: str, offset: str, expected: str) -> None:
    """The study's offset counts, else the site's zone at that date; without a usable time the date stands alone."""
    assert fhir_date_time("20260701", clock, offset, BERLIN) == expected


@given(st.text(max_size=12), st.text(max_size=18), st.text(max_size=8))
def test_no_text_breaks_it(date: str, clock: str, offset: str) -> None:
    """Whatever stands in a study, what comes out is a FHIR dateTime or nothing."""
    made = fhir_date_time(date, clock, offset, BERLIN)

    assert made is None or FHIR_DATE_TIME.fullmatch(made)


@given(st.dates(), st.times())
def test_every_date_and_time_of_dicom_is_kept(date: object, clock: object) -> None:
    """Years from 1 to 9999 come out as they went in, without a word of the machine's zone where the study says it."""
    day, time_of_day = f"{date:%Y%m%d}".zfill(8), f"{clock:%H%M%S}"
    made = fhir_date_time(day, time_of_day, "+0000")

    assert made is not None
    assert made.startswith(f"{day[:4]}-{day[4:6]}-{day[6:]}")


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2024", "2024-01-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00"),
        ("2024-02", "2024-02-01T00:00:00+00:00", "2024-03-01T00:00:00+00:00"),
        ("2024-02-28", "2024-02-28T00:00:00+00:00", "2024-02-29T00:00:00+00:00"),
        ("2024-02-28T10:00", "2024-02-28T10:00:00+00:00", "2024-02-28T10:01:00+00:00"),
        ("2024-02-28T10:00:07+02:00", "2024-02-28T08:00:07+00:00", "2024-02-28T08:00:08+00:00"),
        ("2024-02-28T10:00:07.5Z", "2024-02-28T10:00:07.500000+00:00", "2024-02-28T10:00:07.600000+00:00"),
    ],
)
def test_a_value_means_all_that_its_precision_covers(text: str, low: str, high: str) -> None:
    """The end is the first moment that is no longer meant."""
    assert period(text, UTC) == (datetime.fromisoformat(low), datetime.fromisoformat(high))


def test_a_day_is_the_day_of_the_site() -> None:
    """Without an offset a date is meant where the gateway stands: the day of the time change has 23 hours."""
    low, high = period("2026-03-29", BERLIN)

    assert high - low == timedelta(hours=23)


@pytest.mark.parametrize("text", ["", "24", "2024-13", "2024-02-30", "2024-01-01T25:00", "2024-01-01T10:00+99:00", "x"])
def test_nonsense_is_refused(text: str) -> None:
    """What is no date raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        period(text, UTC)


def test_an_instant_is_in_utc_to_the_millisecond() -> None:
    """As FHIR wants it."""
    at = datetime(2026, 3, 2, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))

    assert instant(at) == "2026-03-02T12:00:00.123Z"
