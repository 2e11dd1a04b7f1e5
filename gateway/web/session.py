"""Browsers: signed in by a token or by OpenID Connect, known by a cookie; and what a POST from a page has to prove.

A session is a random number. The browser keeps it in a cookie that no script reads and that no other site makes it
send. The database keeps its SHA-256 digest, beside the digest of the token that opened it (one that is revoked, or
taken out of the settings, ends its sessions) or beside the person that the provider named. Handlers of a POST call
`await read_form(request)`: it proves origin and form.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from gateway.store import Store
from gateway.store.access import token_digest
from gateway.store.sessions import SessionRow, add_session, end_session, find_session
from gateway.web.access.tokens import TokenBook
from gateway.web.caller import ROLES, Caller

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


def session_number(request: HTTPConnection) -> str:
    """Return the number in the session's cookie; '' where there is none, or what is there is none."""
    number = request.cookies.get(COOKIE, "")
    return number if len(number) == _NUMBER_LENGTH else ""


class Sessions:
    """Signed-in browsers.

    Parameters
    ----------
    store
        Where they are kept: any process of the role `web` knows them.
    tokens
        Knows the tokens that open one; None: tokens open none.
    now
        The clock.
    takes_persons
        Whether those whom the provider named are known; where it is not asked any more, their sessions are over too.
    """

    def __init__(
        self,
        store: Store,
        tokens: TokenBook | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        takes_persons: bool = True,
    ) -> None:
        self._takes_persons = takes_persons
        self._store = store
        self._tokens = tokens
        self._now = now

    def caller(self, request: HTTPConnection) -> Caller | None:
        """Return who signed in with this browser; None where nobody did, or the token is not taken any more."""
        number = session_number(request)
        if not number:
            return None
        with self._store.read() as connection:
            found = find_session(connection, token_digest(number), self._now())
        if found is None:
            return None
        if found.person is not None:
            return _from_kept(found.person) if self._takes_persons else None
        caller = self._tokens.find(found.token_digest or "") if self._tokens is not None else None
        return None if caller is None else replace(caller, kind="session")

    def sign_in(self, request: HTTPConnection, token: str, response: Response) -> bool:
        """Open a session for a token and give its cookie to the browser; False where no such token is known."""
        digest = token_digest(token.strip())
        caller = self._tokens.find(digest) if self._tokens is not None else None
        if caller is None:
            return False
        self._open(request, SessionRow(token_digest=digest), LIFETIME, response)
        request.state.caller = replace(caller, kind="session")  # the audit trail tells who signed in
        return True

    def sign_in_person(self, request: HTTPConnection, caller: Caller, lifetime: timedelta, response: Response) -> None:
        """Open a session for whom the provider named, and give its cookie to the browser."""
        self._open(request, SessionRow(person=_to_keep(caller)), lifetime, response)
        request.state.caller = caller

    def sign_out(self, request: HTTPConnection, response: Response) -> None:
        """End the session and take its cookie back."""
        number = session_number(request)
        if number:
            with self._store.write() as connection:
                end_session(connection, token_digest(number))
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=is_secure(request))

    def _open(self, request: HTTPConnection, opened_by: SessionRow, lifetime: timedelta, response: Response) -> None:
        number, now = secrets.token_urlsafe(32), self._now()
        with self._store.write() as connection:
            add_session(connection, token_digest(number), opened_by, now, now + lifetime)
        response.set_cookie(
            COOKIE,
            number,
            max_age=int(lifetime.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=is_secure(request),
        )


def is_secure(request: HTTPConnection) -> bool:
    """Say whether the browser speaks TLS to us, or to the proxy in front."""
    return request.url.scheme in {"https", "wss"}


def _to_keep(caller: Caller) -> dict[str, Any]:
    return {"name": caller.name, "person": caller.person, "roles": sorted(caller.roles)}


def _from_kept(kept: Mapping[str, Any]) -> Caller:
    roles = ROLES & frozenset(kept.get("roles", ()))
    return Caller(str(kept.get("name", "")), "session", roles, person=kept.get("person"))
