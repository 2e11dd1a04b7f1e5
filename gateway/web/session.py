"""Browsers: signed in by a token, known by a cookie; and what a POST from a page has to prove.

A session is a random number. The browser keeps it in a cookie that no script reads and that no other site makes it
send; the database keeps its SHA-256 digest, beside the digest of the token that opened it, so that a token taken out
of the settings ends its sessions. Handlers of a POST call `await read_form(request)`: it proves origin and form.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.store import Store
from gateway.store.sessions import add_session, end_session, session_token_digest

COOKIE: Final = "hybridmed_session"
FORM_TOKEN: Final = "form_token"  # noqa: S105 # the name of a field
"""Name of the hidden field that every form of ours carries."""
LIFETIME = timedelta(hours=12)
"""A working day: then the token is asked for again."""
_FORM_LIMIT = 1 << 18
_FIELDS_LIMIT = 2000
_NUMBER_LENGTH = 43
"""Of `secrets.token_urlsafe(32)`."""


def require_same_origin(request: Request) -> None:
    """Refuse what another site made the browser send: HTTPException 403 (cross-site request forgery).

    A bearer token proves enough: no browser adds one by itself. Without one, `Sec-Fetch-Site` decides and, where the
    browser sends none (plain HTTP), `Origin`. A program that sends neither passes, unless it shows a session's cookie.
    """
    if getattr(request.state, "is_bearer", False):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_ours = site in {"same-origin", "none"}
    elif origin is not None:
        is_ours = urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != ""
    else:
        is_ours = not session_number(request)
    if not is_ours:
        raise HTTPException(403, "the request came from another site; open the page here and try again")


def form_token(request: Request) -> str:
    """Return what the forms of a session carry; '' without a session."""
    number = session_number(request)
    return hmac.new(number.encode(), b"form", hashlib.sha256).hexdigest() if number else ""


async def read_form(request: Request, limit: int = _FORM_LIMIT) -> dict[str, str]:
    """Return the fields of a form (`application/x-www-form-urlencoded`), of a name that stands twice the last.

    Raises
    ------
    HTTPException
        403: the form came from another site, or is not one of this session. 413: too large. 400: not a form.
    """
    require_same_origin(request)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, f"a form has at most {limit} bytes")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_LIMIT, errors="strict")
    except ValueError as error:
        raise HTTPException(400, "the request holds no form in UTF-8") from error
    fields = dict(pairs)
    given = fields.pop(FORM_TOKEN, "")
    is_session = getattr(request.state, "is_session", False)
    if is_session and not hmac.compare_digest(given.encode(), form_token(request).encode()):
        raise HTTPException(403, "the form is of an earlier sign-in; reload the page and try again")
    return fields


def session_number(request: Request) -> str:
    """Return the number in the session's cookie; '' where there is none, or what is there is none."""
    number = request.cookies.get(COOKIE, "")
    return number if len(number) == _NUMBER_LENGTH else ""


class Sessions:
    """Signed-in browsers.

    Parameters
    ----------
    store
        Where they are kept: any process of the role `web` knows them.
    token_digests
        SHA-256 of each token, in hexadecimal.
    now
        The clock.
    """

    def __init__(
        self, store: Store, token_digests: Sequence[str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._token_digests = tuple(digest.lower() for digest in token_digests)
        self._now = now

    def is_open(self, request: Request) -> bool:
        """Say whether the request's cookie is of an open session."""
        number = session_number(request)
        if not number:
            return False
        with self._store.read() as connection:
            token_digest = session_token_digest(connection, _digest(number), self._now())
        return token_digest in self._token_digests

    def sign_in(self, request: Request, token: str, response: Response) -> bool:
        """Open a session for a token and give its cookie to the browser; False where no such token is known."""
        given = _digest(token.strip())
        # Every digest is compared: the time taken tells nothing of which one, if any, it is.
        if not any([hmac.compare_digest(given, digest) for digest in self._token_digests]):
            return False
        number, now = secrets.token_urlsafe(32), self._now()
        with self._store.write() as connection:
            add_session(connection, _digest(number), given, now, now + LIFETIME)
        response.set_cookie(
            COOKIE,
            number,
            max_age=int(LIFETIME.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return True

    def sign_out(self, request: Request, response: Response) -> None:
        """End the session and take its cookie back."""
        number = session_number(request)
        if number:
            with self._store.write() as connection:
                end_session(connection, _digest(number))
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
