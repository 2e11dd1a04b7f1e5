"""What is open to callers with SMART scopes at all: the routes that ask `permit.py`.

It stands around the routes, so that the entries of a batch pass here too. A route that is added is closed to such
callers until it asks for a permit and stands here.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from fhir_facade.outcome import outcome_response

_OPEN: Final = (
    ("GET", r"/?|/metadata|/_history|/(Patient/)?\$export|/\$export/[^/]+(/[^/]+)?"),
    ("GET", r"/[A-Z]\w+(/[\w.-]+)?(/_history(/\d+)?)?|/[A-Z]\w+/[\w.-]+/(\*|[A-Z]\w+)"),
    ("GET", r"/Patient/[^/]+/\$everything|/DiagnosticReport/\$latest-per-study"),
    ("POST", r"/?|/([\w.*-]+/)*_search|/Patient/[^/]+/\$everything"),
    ("DELETE", r"/\$export/[^/]+|/Subscription/[^/]+"),
    ("GET", r"/Subscription(/[^/]+)?/\$status|/Subscription/[^/]+/\$events"),
    ("POST", r"/Patient|/ServiceRequest|/Subscription"),
    ("PUT", r"/(Patient|Subscription)/[^/]+"),
)


class ScopeGuard:
    """Refuses what is not open to a caller with SMART scopes; whoever has none passes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        caller = scope.get("state", {}).get("caller")
        if scope["type"] != "http" or caller is None or caller.scopes is None or _is_open(scope):
            await self._app(scope, receive, send)
            return
        refusal = outcome_response(403, "SMART scopes do not open this", code="forbidden")
        await refusal(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return any(method == each and re.fullmatch(pattern, path) is not None for each, pattern in _OPEN)
