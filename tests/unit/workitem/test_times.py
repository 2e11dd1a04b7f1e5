"""DT values: what they mean, and what is none."""

from datetime import UTC, datetime

import pytest

from gateway.workitem.times import format_dt, parse_dt, parse_dt_range

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026", datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("202612", datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("20260302", datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC)),
        ("202603021200", NOON, datetime(2026, 3, 2, 12, 1, tzinfo=UTC)),
        ("20260302120000", NOON, datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC)),
        ("20260302120000.5", NOON.replace(microsecond=500000), NOON.replace(microsecond=600000)),
        ("20260302140000+0200", NOON, datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC)),
        ("20260302070000-0500", NOON, datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC)),
    ],
)
def test_a_value_means_as_much_as_it_says(text: str, start: datetime, end: datetime) -> None:
    """The parts left out widen it, an offset shifts it."""
    assert parse_dt(text) == (start, end)


def test_what_is_written_is_read() -> None:
    """A moment survives the way through its text."""
    moment = NOON.replace(microsecond=123456)

    assert parse_dt(format_dt(moment))[0] == moment


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("20260302-", (datetime(2026, 3, 2, tzinfo=UTC), None)),
        ("-20260302", (None, datetime(2026, 3, 3, tzinfo=UTC))),
        ("20260301-20260302", (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))),
        ("20260302070000-0500-20260302080000-0500", (NOON, datetime(2026, 3, 2, 13, 0, 1, tzinfo=UTC))),
        ("20260302070000-0500", (NOON, datetime(2026, 3, 2, 12, 0, 1, tzinfo=UTC))),
        ("2020-2090", (datetime(2020, 1, 1, tzinfo=UTC), datetime(2091, 1, 1, tzinfo=UTC))),
    ],
)
def test_ranges_are_told_from_offsets(text: str, bounds: tuple[datetime | None, datetime | None]) -> None:
    """A minus before four digits is an offset where that makes a moment, else a range."""
    assert parse_dt_range(text) == bounds


@pytest.mark.parametrize("text", ["", "-", "now", "20261302", "2026-03-02", "20260302250000", "20260302120000+9900"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Neither words nor a thirteenth month."""
    with pytest.raises(ValueError, match=r"."):
        parse_dt(text)
