"""OpenID Connect: access tokens of programs, and the authorization code flow of browsers (with PKCE).

The provider is asked for its addresses and keys when they are first needed, and again after an hour. While it is away,
tokens signed by keys that we have are taken all the same.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import httpx
import orjson

from gateway.errors import CredentialError, IssuerAwayError, ServiceAwayError
from gateway.web.access.claims import ClaimRule, caller_of_claims, refuse_id_token, roles_of_claims
from gateway.web.access.keys import FetchedKeys, fetch_json, require_safe
from gateway.web.access.signed import Claims, Expected, verify
from gateway.web.caller import Caller

_FRESH_S: Final = 3600.0
_RETRY_S: Final = 10.0
_TIMEOUT_S = 10.0
_LARGEST_ANSWER = 1 << 18
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Registration:
    """What we agreed on with the provider."""

    issuer: str
    audience: str = ""
    """Of access tokens; empty: none are taken."""
    client_id: str = ""
    """Ours; empty: browsers do not sign in here."""
    client_secret: str | None = None
    scopes: str = "openid profile"
    claims: ClaimRule = field(default_factory=ClaimRule)
    leeway_s: int = 30
    session: timedelta = timedelta(hours=12)

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Registration({self.issuer!r}, client_id={self.client_id!r})"


@dataclass(frozen=True, slots=True)
class Pending:
    """What a browser keeps while it is with the provider."""

    state: str
    nonce: str
    verifier: str
    """PKCE (RFC 7636): only who began the sign-in can end it."""
    onward: str
    """Where it wanted to go."""


class Provider:
    """An OpenID Connect provider; for any thread.

    Parameters
    ----------
    registration
        What we agreed on.
    client
        Makes the calls.
    now
        The clock.
    clock
        Monotonic, in seconds.
    """

    def __init__(
        self,
        registration: Registration,
        client: httpx.Client,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require_safe(registration.issuer)
        self.registration = registration
        self._client = client
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: Mapping[str, Any] = {}
        self._asked_at = self._fetched_at = float("-inf")
        self._keys = FetchedKeys(lambda: self._endpoint("jwks_uri"), self._fetch, clock)

    def caller(self, token: str) -> tuple[Caller, datetime]:
        """Return whose access token this is, and until when it holds.

        Raises
        ------
        CredentialError
            It is not one of the provider, for us, now.
        IssuerAwayError
            The provider's keys are needed and cannot be had.
        """
        claims = self._claims_of_access_token(token)
        found = caller_of_claims(claims, self.registration.claims, "oidc")
        return found, datetime.fromtimestamp(min(claims["exp"], 1 << 40), UTC)

    def begin(self, redirect_uri: str, onward: str) -> tuple[str, Pending]:
        """Return where a browser signs in, and what it keeps until it comes back."""
        state, nonce, verifier = (secrets.token_urlsafe(_RANDOM_BYTES) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.registration.client_id,
            "redirect_uri": redirect_uri,
            "scope": self.registration.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = self._endpoint("authorization_endpoint")
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", Pending(state, nonce, verifier, onward)

    def finish(self, code: str, pending: Pending, redirect_uri: str) -> Caller:
        """Return who signed in; CredentialError where the provider does not vouch for anybody."""
        answer = self._redeem(code, pending.verifier, redirect_uri)
        id_token = answer.get("id_token")
        if not isinstance(id_token, str):
            raise CredentialError("the provider gave no ID token")
        expected = Expected(
            self.registration.issuer,
            [self.registration.client_id],
            self.registration.leeway_s,
            essential=("iss", "sub", "aud", "exp", "iat", "nonce"),
        )
        claims = verify(id_token, self._keys, expected, self._now())
        if not secrets.compare_digest(str(claims["nonce"]).encode(), pending.nonce.encode()):
            raise CredentialError("the ID token belongs to another sign-in")
        if claims.get("azp", self.registration.client_id) != self.registration.client_id:
            raise CredentialError("the ID token was made out to another client")
        found = caller_of_claims(claims, self.registration.claims, "session")
        found = replace(found, person=found.person or found.name, scopes=None, patient=None)
        return found if found.roles else replace(found, roles=self._roles_of_access_token(answer))

    def _roles_of_access_token(self, answer: Mapping[str, Any]) -> frozenset[Any]:
        """Return the roles of the access token that came along: some providers put them there alone."""
        token = answer.get("access_token")
        try:
            claims = self._claims_of_access_token(token if isinstance(token, str) else "")
        except (CredentialError, ServiceAwayError):
            return frozenset()
        return roles_of_claims(claims, self.registration.claims)

    def _claims_of_access_token(self, token: str) -> Claims:
        if not self.registration.audience:
            raise CredentialError("access tokens of the provider are not taken here")
        expected = Expected(self.registration.issuer, [self.registration.audience], self.registration.leeway_s)
        claims = verify(token, self._keys, expected, self._now())
        refuse_id_token(claims)
        return claims

    def _redeem(self, code: str, verifier: str, redirect_uri: str) -> Mapping[str, Any]:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        form |= {"code_verifier": verifier, "client_id": self.registration.client_id}
        secret = self.registration.client_secret
        # Both parts are encoded as in a form first (RFC 6749, 2.3.1).
        id_and_secret = (quote_plus(self.registration.client_id), quote_plus(secret or ""))
        auth = httpx.Auth() if secret is None else httpx.BasicAuth(*id_and_secret)
        if secret is not None:
            del form["client_id"]
        endpoint = self._endpoint("token_endpoint")
        try:
            answer = self._client.post(endpoint, data=form, auth=auth, timeout=_TIMEOUT_S)
            content = orjson.loads(answer.content[:_LARGEST_ANSWER])
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            raise IssuerAwayError(f"the provider's token endpoint: {type(error).__name__}") from error
        if answer.status_code != httpx.codes.OK or not isinstance(content, dict):
            raise CredentialError("the provider does not take the code; sign in again")
        return content

    def _endpoint(self, name: str) -> str:
        address = self._discovered().get(name)
        if not isinstance(address, str):
            raise IssuerAwayError(f"the provider's discovery document names no {name}")
        require_safe(address)
        return address

    def _discovered(self) -> Mapping[str, Any]:
        with self._lock:
            now = self._clock()
            if now - self._fetched_at >= _FRESH_S and now - self._asked_at >= _RETRY_S:
                self._asked_at = now
                try:
                    self._discover(now)
                except IssuerAwayError:
                    if not self._metadata:
                        raise
            if not self._metadata:
                raise IssuerAwayError("the provider did not answer; try again in a few seconds")
            return self._metadata

    def _discover(self, now: float) -> None:
        issuer = self.registration.issuer
        metadata = self._fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        # Whoever answers in the provider's place must not bring keys of its own (RFC 8414, 3.3).
        if metadata.get("issuer") != issuer:
            raise IssuerAwayError("the discovery document is of another issuer: see HYBRIDMED_OIDC__ISSUER")
        self._metadata, self._fetched_at = metadata, now

    def _fetch(self, address: str) -> Mapping[str, Any]:
        return fetch_json(address, self._client)
