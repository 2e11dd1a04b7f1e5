"""Pages for people: the worklist, a study, its pictures, what went wrong. Rendered here; every value is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.errors import NotFoundError
from gateway.store import Store
from gateway.web.language import COOKIE as LANGUAGE_COOKIE
from gateway.web.language import LANGUAGES, choose_language
from gateway.web.live import LiveFeed
from gateway.web.rendering import THEME_COOKIE, THEMES, Renderer
from gateway.web.sign_in import own_address
from gateway.web.studies import picture_path, study_page
from gateway.web.worklist import Worklist

_ASSETS = Path(__file__).parent / "assets"
_YEAR_S = 365 * 86400
_DONE: Final = ("accept", "correct", "reject", "reprocess", "stat", "resend")


class Pages:
    """The routes.

    Parameters
    ----------
    store
        Where studies and results lie.
    renderer
        Templates.
    live
        Tells open pages of changes.
    """

    def __init__(self, store: Store, renderer: Renderer, live: LiveFeed) -> None:
        self._store = store
        self._renderer = renderer
        self._live = live
        self._worklist = Worklist(store, renderer)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/", self.home, methods=["GET"]),
            Route("/worklist", self._worklist.show, methods=["GET"]),
            Route("/worklist/events", self._live.stream, methods=["GET"]),
            Route("/studies/{uid}", self.study, methods=["GET"]),
            Route("/pictures/{number:int}.png", self.picture, methods=["GET"]),
            Route("/preferences", self.preferences, methods=["GET"]),
            Mount("/assets", StaticFiles(directory=_ASSETS)),
        ]

    def home(self, _request: Request) -> Response:
        """`/`: on to the worklist."""
        return RedirectResponse("/worklist", status_code=307)

    def study(self, request: Request) -> Response:
        """`/studies/{uid}?done=`: pictures, findings, measurements, verification, history, deliveries, priors."""
        uid = request.path_params["uid"]
        if "\x00" in uid:  # no text of PostgreSQL holds one
            raise HTTPException(404, "no such study")
        return self.study_answer(request, uid)

    def study_answer(
        self,
        request: Request,
        study_instance_uid: str,
        *,
        error: str = "",
        status: int = 200,
        filled: Mapping[str, str] | None = None,
    ) -> Response:
        """Return a study's page; HTTPException 404 where there is none.

        Parameters
        ----------
        error
            A sentence on why an action did not work, shown on top.
        filled
            Fields of the form that did not work, so that nobody types a comment twice.
        """
        try:
            with self._store.read() as connection:
                shown = study_page(connection, study_instance_uid, choose_language(request))
        except NotFoundError as missing:
            raise HTTPException(404, "no such study") from missing
        done = request.query_params.get("done", "")
        values: dict[str, Any] = {
            "shown": shown,
            "error": error,
            "done": done if done in _DONE else ("other" if done else ""),
            "filled": filled or {},
            "today": datetime.now(UTC).astimezone().date(),
        }
        return self._renderer.page(request, "study.html", values, status=status)

    def picture(self, request: Request) -> Response:
        """`/pictures/{number}.png`: a picture of a result, by the number of its row."""
        with self._store.read() as connection:
            relative = picture_path(connection, min(request.path_params["number"], 2**31 - 1))
        root = (self._store.data_dir / "results").resolve()
        path = self._store.files.local(relative).resolve() if relative else None
        if path is None or not path.is_relative_to(root) or not path.is_file():
            raise HTTPException(404, "no such picture")
        return FileResponse(path, media_type="image/png")

    def preferences(self, request: Request) -> Response:
        """`/preferences?language=&theme=&next=`: kept in cookies, then back to the page."""
        answer = RedirectResponse(own_address(request.query_params.get("next", "")), status_code=303)
        language, theme = request.query_params.get("language", ""), request.query_params.get("theme", "")
        is_secure = request.url.scheme == "https"
        for name, value, known in ((LANGUAGE_COOKIE, language, LANGUAGES), (THEME_COOKIE, theme, THEMES)):
            if value in known:
                answer.set_cookie(name, value, max_age=_YEAR_S, httponly=True, samesite="lax", secure=is_secure)
        return answer
