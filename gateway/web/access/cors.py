"""Scripts of other sites at /fhir and /dicomweb: by allow-list, with a token of their own and never with our cookie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_APIS: Final = ("/fhir", "/dicomweb", "/oauth/token")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ASKED: Final = (
    "Authorization",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "If-None-Exist",
    "If-Modified-Since",
    "Prefer",
)
_SHOWN: Final = ("Content-Location", "ETag", "Last-Modified", "Location", "Retry-After", "Warning", "WWW-Authenticate")
_REMEMBERED_S = 600


class ApiCors:
    """Answers preflights and marks answers, for these addresses alone; stands around the check of access.

    Parameters
    ----------
    origins
        `https://app.example`, …
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._marking = CORSMiddleware(
            app,
            allow_origins=list(origins),
            allow_methods=_METHODS,
            allow_headers=_ASKED,
            expose_headers=_SHOWN,
            allow_credentials=False,
            max_age=_REMEMBERED_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        is_api = scope["type"] == "http" and any(path == each or path.startswith(f"{each}/") for each in _APIS)
        await (self._marking if is_api else self._app)(scope, receive, send)
