"""Templates with everything that each page needs: texts, brightness, forms, how values are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import gateway
from gateway.web.caller import caller_of, signing_name
from gateway.web.language import LANGUAGES, choose_language
from gateway.web.session import FORM_TOKEN, form_token

THEME_COOKIE: Final = "hybridmed_theme"
THEMES: Final = ("dark", "light", "auto")
"""Dark unless chosen otherwise: most reading rooms are."""
SHOWN: Final = ("name", "id", "birth", "accession")
_DATE_DIGITS = 8
_TIME_DIGITS = 4
_MONTHS_SHOWN = 24
"""Age under which months are told."""
_HTML = re.compile(r"\btext/html\b")


@dataclass(frozen=True, slots=True)
class Site:
    """What the pages say of this installation."""

    ae_title: str = "HYBRIDMED"
    dicom_port: int = 11112
    shows: tuple[str, ...] = SHOWN
    """Which of a patient's details the pages show, of `SHOWN`."""
    viewer_page: Path | None = None
    """The viewer's start page; it is installed where this file exists."""
    destinations: tuple[str, ...] = ()
    """Names."""


class Renderer:
    """Renders templates.

    Parameters
    ----------
    site
        What the pages say of this installation.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self._templates = Environment(
            loader=PackageLoader("gateway.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "dicom_date": dicom_date,
            "dicom_time": dicom_time,
            "measured": measured,
            "moment": moment,
            "path_part": path_part,
            "percent": percent,
            "person": person,
        }
        self._templates.globals |= {"version": gateway.__version__, "site": site, "languages": LANGUAGES.values()}
        self._templates.globals |= {"themes": THEMES, "form_token_name": FORM_TOKEN}

    def page(
        self, request: Request, template: str, values: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> Response:
        """Return a page in the language and brightness that the browser asked for."""
        language = choose_language(request)
        theme = request.cookies.get(THEME_COOKIE, "")
        caller = caller_of(request)
        shared = {
            "t": language,
            "theme": theme if theme in THEMES else THEMES[0],
            "here": _here(request),
            "form_token": form_token(request),
            "is_signed_in": getattr(request.state, "is_session", False),
            "roles": caller.roles if caller is not None else frozenset(),
            "signs_as": signing_name(caller),
            "has_viewer": self.site.viewer_page is not None and self.site.viewer_page.is_file(),
        }
        text = self._templates.get_template(template).render(shared | dict(values or {}))
        return HTMLResponse(text, status, headers={"Vary": "Accept-Language, Cookie"})


def wants_page(request: Request) -> bool:
    """Say whether a browser asks for a page, and not a program for data."""
    return _HTML.search(request.headers.get("accept", "")) is not None


def _here(request: Request) -> str:
    """Return the address of the page, for a link that leads back; of a POST's answer, the worklist."""
    if request.method not in {"GET", "HEAD"}:
        return "/worklist"
    query = urlencode(request.query_params.multi_items())
    return request.url.path + (f"?{query}" if query else "")


def path_part(text: str) -> str:
    """Return a text as one part of an address's path."""
    return quote(text, safe="")


def dicom_date(text: str) -> str:
    """Return '20260301' as '2026-03-01'; what is no date as it stands."""
    if len(text) == _DATE_DIGITS and text.isdecimal():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def dicom_time(text: str) -> str:
    """Return '093005.25' as '09:30'; what is no time as it stands."""
    digits = text[:_TIME_DIGITS]
    return f"{digits[:2]}:{digits[2:]}" if len(digits) == _TIME_DIGITS and digits.isdecimal() else text


def person(name: str) -> str:
    """Return 'Doe^Jane^^Dr.=…' as 'Doe, Jane Dr.', followed by the other component groups."""
    groups = []
    for group in name.split("="):
        family, *others = (part.strip() for part in group.split("^"))
        rest = " ".join(part for part in others if part)
        groups.append(", ".join(part for part in (family, rest) if part))
    return " · ".join(group for group in groups if group)


def measured(value: float | None) -> str:
    """Return a measured value with at most four significant digits."""
    return f"{value:.4g}" if value is not None else "–"  # noqa: RUF001 # a dash stands for no value


def percent(share: float) -> str:
    """Return a probability in per cent; never '0' or '100' for what is neither."""
    shown = 100 * share
    if 0 < shown < 1:
        return "<1"
    return ">99" if 99 < shown < 100 else f"{shown:.0f}"  # noqa: PLR2004 # per cent


def moment(at: datetime | None, *, with_zone: bool = False, today: date | None = None) -> str:
    """Return a time to the minute, in this machine's zone; of `today` without the date, of its year without that."""
    if at is None:
        return ""
    local = at.astimezone()
    if today is not None and local.date() == today:
        text = local.strftime("%H:%M")
    elif today is not None and local.year == today.year:
        text = local.strftime("%m-%d %H:%M")
    else:
        text = local.strftime("%Y-%m-%d %H:%M")
    return f"{text} {local.tzname()}" if with_zone else text


def age_months(birth_date: str, at_date: str) -> int | None:
    """Return the age in whole months on a date (both YYYYMMDD); None where either is no date."""
    try:
        born, at = (datetime.strptime(text, "%Y%m%d").date() for text in (birth_date, at_date))
    except ValueError:
        return None
    months = 12 * (at.year - born.year) + at.month - born.month - (at.day < born.day)
    return months if months >= 0 else None


def is_told_in_months(months: int) -> bool:
    """Say whether an age is told in months: that of a small child."""
    return months < _MONTHS_SHOWN
