"""DT values (PS3.5 table 6.2-1) to and from datetimes; without an offset they are UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_DT = re.compile(
    r"(?P<year>\d{4})(?P<rest>(?:\d{2}){0,5})(?:\.(?P<fraction>\d{1,6}))?(?:(?P<sign>[+-])(?P<hours>0\d|1[0-4])(?P<minutes>[0-5]\d))?"
)
_PARTS = ("month", "day", "hour", "minute", "second")
_FIRST = {"month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0}


def format_dt(moment: datetime) -> str:
    """Return a moment as DT, with its offset from UTC."""
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f") + "+0000"


def parse_dt(text: str) -> tuple[datetime, datetime]:
    """Return the first moment that a DT means, and the first one after; ValueError where it is none."""
    match = _DT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip()[:40]!r} is not YYYYMMDDHHMMSS.FFFFFF&ZZXX")
    rest = match["rest"]
    given = {name: int(rest[at * 2 : at * 2 + 2]) for at, name in enumerate(_PARTS) if at * 2 < len(rest)}
    zone = UTC
    if match["sign"]:
        offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
        zone = timezone(-offset if match["sign"] == "-" else offset)
    values = {**_FIRST, **given}
    microsecond = int((match["fraction"] or "").ljust(6, "0"))
    start = datetime(
        int(match["year"]),
        values["month"],
        values["day"],
        values["hour"],
        values["minute"],
        values["second"],
        microsecond,
        zone,
    )
    return start, _end(start, len(given), match["fraction"])


def parse_dt_range(text: str) -> tuple[datetime | None, datetime | None]:
    """Return the bounds of a value or range (PS3.4 C.2.2.2.5): from the first on, before the second; None: open.

    `20260302120000-0500` is a moment with an offset; ValueError where it is neither moment nor range.
    """
    text = text.strip()
    if _DT.fullmatch(text):
        return parse_dt(text)
    for dash in (at for at, character in enumerate(text) if character == "-"):
        before, after = text[:dash], text[dash + 1 :]
        if all(not part or _DT.fullmatch(part) for part in (before, after)) and (before or after):
            return (parse_dt(before)[0] if before else None, parse_dt(after)[1] if after else None)
    raise ValueError(f"{text[:40]!r} is neither a date and time nor a range of them")


def _end(start: datetime, parts: int, fraction: str | None) -> datetime:
    """Return the first moment after a value of this precision."""
    if fraction is not None:
        return start + timedelta(microseconds=10 ** (6 - len(fraction)))
    if parts == 0:
        return start.replace(year=start.year + 1)
    if parts == 1:
        return (start + timedelta(days=32)).replace(day=1)
    return start + {2: timedelta(days=1), 3: timedelta(hours=1), 4: timedelta(minutes=1)}.get(
        parts, timedelta(seconds=1)
    )
