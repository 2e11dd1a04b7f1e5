"""DICOM dates and times -> FHIR, and the period that a FHIR date or time means.

A time of day needs an offset in FHIR. A study that gives none (Timezone Offset From UTC, PS3.3 C.12.1.1.8) is taken to
be in the site's zone, which is the zone of this machine unless the caller names another. The same zone decides what
'2024-05-01' means in a search. Dates that are no dates (PS3.5 6.2) become None: nothing is made up.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?")
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
_FHIR = re.compile(
    r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|[+-]\d{2}:\d{2})?)?)?)?"
)
_LAST_SECOND = 59
_LARGEST_OFFSET = timedelta(hours=14)
_YEAR, _MONTH, _DAY, _HOUR, _MINUTE, _SECOND, _FRACTION, _ZONE = range(1, 9)
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)

Period = tuple[datetime, datetime]
"""Start and end of what a value means: the start belongs to it, the end does not."""


def fhir_date(text: str) -> str | None:
    """Return a DICOM date as '2024-05-01'; None where it is none."""
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return datetime(int(match[1]), int(match[2]), int(match[3])).date().isoformat()
    except ValueError:
        return None


def fhir_date_time(date: str, time_of_day: str, offset: str, zone: tzinfo | None = None) -> str | None:
    """Return a DICOM date and time as '2024-05-01T09:30:00+02:00'.

    Parameters
    ----------
    date, time_of_day
        DA and TM. Without a usable time the date alone is returned, without a usable date None.
    offset
        Timezone Offset From UTC, '+0200'; empty or unusable: the site's zone.
    zone
        The site's zone; None: that of this machine.
    """
    day, clock = fhir_date(date), _clock(time_of_day)
    if day is None or clock is None:
        return day
    moment = _aware(datetime.combine(datetime.fromisoformat(day), clock), _offset(offset) or zone)
    if moment is None:
        return day
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def instant(moment: datetime) -> str:
    """Return an instant to the millisecond, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def period(text: str, zone: tzinfo | None = None) -> Period:
    """Return what a FHIR date, dateTime or instant means; ValueError where it is none of these.

    Parameters
    ----------
    text
        From '2024' to '2024-05-01T09:30:00.000+02:00'; seconds may be left out, as searches do.
    zone
        Of values without an offset; None: that of this machine.
    """
    match = _FHIR.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a date or time of FHIR")
    given = [int(match[group]) if match[group] else None for group in range(_YEAR, _SECOND + 1)]
    year, month, day, hour, minute, second = given
    fraction = (match[_FRACTION] or "").ljust(6, "0")[:6]
    start = datetime(
        year or 0, month or 1, day or 1, hour or 0, minute or 0, min(second or 0, _LAST_SECOND), int(fraction)
    )
    start_at = _aware(start, _iso_zone(match[_ZONE]) or zone)
    end_at = _aware(_after(start, given, match[_FRACTION]), _iso_zone(match[_ZONE]) or zone)
    return (start_at or EARLIEST, end_at or LATEST)


def _after(start: datetime, given: list[int | None], fraction: str | None) -> datetime:
    """Return the first moment that a value no longer means, by the precision it was given with."""
    _year, month, day, hour, minute, second = given
    if fraction:
        step = timedelta(microseconds=10 ** max(0, 6 - len(fraction)))
    elif second is not None:
        step = timedelta(seconds=1)
    elif minute is not None or hour is not None:
        step = timedelta(minutes=1)
    elif day is not None:
        step = timedelta(days=1)
    else:
        days = calendar.monthrange(start.year, start.month)[1] if month else 365 + calendar.isleap(start.year)
        step = timedelta(days=days)
    try:
        return start + step
    except OverflowError:
        return LATEST.replace(tzinfo=None)


def _aware(naive: datetime, zone: tzinfo | None) -> datetime | None:
    """Return a moment with whole minutes of offset, or None at the ends of what a datetime can hold."""
    try:
        moment = naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()
        offset = moment.utcoffset() or timedelta()
        whole = timezone(timedelta(minutes=round(offset.total_seconds() / 60)))
        moment = naive.replace(tzinfo=whole)
        return moment if EARLIEST <= moment <= LATEST else None
    except (OverflowError, ValueError, OSError):
        return None


def _iso_zone(text: str | None) -> tzinfo | None:
    if text is None:
        return None
    if text == "Z":
        return UTC
    return _offset(text.replace(":", "")) or _refuse(text)


def _refuse(text: str) -> tzinfo:
    raise ValueError(f"{text} is no offset from UTC")


def _offset(text: str) -> tzinfo | None:
    match = _OFFSET.fullmatch(text.strip())
    if match is None:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if delta > _LARGEST_OFFSET:
        return None
    return timezone(-delta if match[1] == "-" else delta)


def _clock(text: str) -> time | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, second = (int(match[group] or 0) for group in (1, 2, 3))
    try:
        return time(hour, minute, min(second, _LAST_SECOND), int((match[4] or "").ljust(6, "0")))
    except ValueError:
        return None
