"""A request -> who asks."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from gateway.errors import CredentialError
from gateway.store.access import token_digest
from gateway.web.access.oidc import Provider
from gateway.web.access.tokens import TokenBook, is_ours
from gateway.web.caller import LOOPBACK, Caller
from gateway.web.session import Sessions

_LOOPBACK_NAME = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_KNOWN_FOR = timedelta(seconds=5)
"""How long a token is taken without looking again: so late does a revocation come to be felt."""
_MOST_KNOWN = 4096
_LONGEST_TOKEN = 1 << 14
_DOTS_OF_A_JWT = 2


class Callers:
    """Tells who asks.

    Parameters
    ----------
    is_open
        Nobody has to say who they are; they have to be on this machine.
    tokens
        Knows our own tokens; None: none are taken.
    sessions
        Signed-in browsers; None: nobody signs in.
    provider
        Knows the tokens of OpenID Connect; None: none are taken.
    now
        The clock.
    """

    def __init__(
        self,
        *,
        is_open: bool,
        tokens: TokenBook | None,
        sessions: Sessions | None,
        provider: Provider | None,
        now: Callable[[], datetime],
    ) -> None:
        self._is_open = is_open
        self._tokens = tokens
        self._sessions = sessions
        self._provider = provider
        self._now = now
        self._known: OrderedDict[str, tuple[Caller, datetime]] = OrderedDict()

    async def of(self, request: HTTPConnection) -> Caller | None:
        """Return who asks; None where nothing is shown that would tell.

        Raises
        ------
        CredentialError
            A token is shown that is not taken.
        ServiceAwayError
            What knows the token is away.
        """
        if self._is_open:
            # A page of another site that had its own name point to 127.0.0.1 (DNS rebinding) comes under that name.
            is_local = _LOOPBACK_NAME.fullmatch(request.headers.get("host", "")) is not None
            return LOOPBACK if is_local else None
        said = request.headers.get("authorization")
        if said is not None:
            return await self._of_bearer(said)
        if self._sessions is None:
            return None
        return await run_in_threadpool(self._sessions.caller, request)

    def knew(self, request: HTTPConnection) -> bool:
        """Say whether the token that is shown was taken before, not long ago."""
        token = request.headers.get("authorization", "").partition(" ")[2].strip()
        digest = token_digest(token[:_LONGEST_TOKEN])
        return digest in self._known or (self._tokens is not None and self._tokens.of_settings(digest) is not None)

    async def _of_bearer(self, said: str) -> Caller:
        scheme, _, token = said.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise CredentialError("a bearer token is needed")
        digest = token_digest(token)
        known = self._known.get(digest)
        now = self._now()
        if known is not None and now < known[1]:
            return known[0]
        caller = self._tokens.of_settings(digest) if self._tokens is not None else None
        if caller is not None:
            return caller
        found, until = await run_in_threadpool(self._look_up, token, digest, now)
        self._known[digest] = found, until
        self._known.move_to_end(digest)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    def _look_up(self, token: str, digest: str, now: datetime) -> tuple[Caller, datetime]:
        if is_ours(token):
            caller = self._tokens.find(digest) if self._tokens is not None else None
            if caller is not None:
                return caller, now + _KNOWN_FOR
        elif self._provider is not None and token.count(".") == _DOTS_OF_A_JWT:
            caller, expires_at = self._provider.caller(token)
            return caller, min(now + _KNOWN_FOR, expires_at)
        raise CredentialError("the token is not known, or is over")
