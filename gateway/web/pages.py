"""Pages for people: the study list, a study, its pictures. Rendered here; every value is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

import gateway
from gateway.errors import NotFoundError
from gateway.store import Store
from gateway.web.studies import picture_path, study_lines, study_page

PAGE_LENGTH = 50
_PAGE_DIGITS = 6
_ASSETS = Path(__file__).parent / "assets"
_DATE_DIGITS = 8
_TIME_DIGITS = 4


class Pages:
    """The routes.

    Parameters
    ----------
    store
        Where studies and results lie.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._templates = Environment(
            loader=PackageLoader("gateway.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters |= {
            "dicom_date": dicom_date,
            "dicom_time": dicom_time,
            "measured": measured,
            "moment": moment,
            "person": person,
        }
        self._templates.globals["version"] = gateway.__version__

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/", self.home, methods=["GET"]),
            Route("/worklist", self.worklist, methods=["GET"]),
            Route("/studies/{uid}", self.study, methods=["GET"]),
            Route("/pictures/{number:int}.png", self.picture, methods=["GET"]),
            Route("/assets/style.css", self.style, methods=["GET"]),
        ]

    def home(self, _request: Request) -> Response:
        """`/`: on to the study list."""
        return RedirectResponse("/worklist", status_code=307)

    def worklist(self, request: Request) -> Response:
        """`/worklist?page=`: studies with their findings, the latest received first."""
        page = _page_number(request)
        with self._store.read() as connection:
            lines = study_lines(connection, limit=PAGE_LENGTH + 1, offset=(page - 1) * PAGE_LENGTH)
        has_more = len(lines) > PAGE_LENGTH
        return self._rendered("worklist.html", {"lines": lines[:PAGE_LENGTH], "page": page, "has_more": has_more})

    def study(self, request: Request) -> Response:
        """`/studies/{uid}`: series, jobs, findings, measurements, pictures."""
        try:
            with self._store.read() as connection:
                shown = study_page(connection, request.path_params["uid"])
        except NotFoundError as error:
            raise HTTPException(404, "no such study") from error
        return self._rendered("study.html", {"shown": shown})

    def picture(self, request: Request) -> Response:
        """`/pictures/{number}.png`: a picture of a result, by the number of its row."""
        with self._store.read() as connection:
            relative = picture_path(connection, min(request.path_params["number"], 2**31 - 1))
        root = (self._store.data_dir / "results").resolve()
        path = (self._store.data_dir / relative).resolve() if relative else None
        if path is None or not path.is_relative_to(root) or not path.is_file():
            raise HTTPException(404, "no such picture")
        return FileResponse(path, media_type="image/png")

    def style(self, _request: Request) -> Response:
        """`/assets/style.css`."""
        return FileResponse(_ASSETS / "style.css", media_type="text/css")

    def _rendered(self, template: str, values: Mapping[str, Any]) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(**values))


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
    return f"{value:.4g}" if value is not None else "-"


def moment(at: datetime | None) -> str:
    """Return a time to the minute, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M UTC") if at is not None else ""


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    is_number = text.isascii() and text.isdecimal() and len(text) <= _PAGE_DIGITS
    return max(1, int(text)) if is_number else 1
