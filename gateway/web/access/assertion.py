"""What a registered client proves itself by: a JSON Web Token signed by its key (RFC 7523, SMART Backend Services)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from joserfc.errors import JoseError
from joserfc.jws import extract_compact

from gateway.errors import CredentialError
from gateway.store import Store
from gateway.store.access_clients import SmartClient, find_client, is_first_use
from gateway.web.access.keys import FetchedKeys, GivenKeys
from gateway.web.access.signed import Claims, Expected, Keys, verify

ALGORITHMS: Final = ("RS384", "ES384")
"""Those that SMART names; a client may register keys for either."""
_LONGEST_LIFE_S = 300
_LEEWAY_S = 10
_LONGEST_JTI = 256
_MOST_FETCHED = 1000


class Assertions:
    """Checks assertions; for any thread.

    Parameters
    ----------
    store
        Where clients are registered, and what they have shown is kept: no process takes it twice.
    fetch
        Returns the JSON object at an address.
    now
        The clock.
    """

    def __init__(self, store: Store, fetch: Callable[[str], Mapping[str, Any]], now: Callable[[], datetime]) -> None:
        self._store = store
        self._fetch = fetch
        self._now = now
        self._fetched: OrderedDict[tuple[str, str], FetchedKeys] = OrderedDict()

    def check(self, token: str, audience: str) -> SmartClient:
        """Return the client that an assertion is of.

        Raises
        ------
        CredentialError
            It is of no client that is registered, not signed by its key, not for us, over, too long, or seen before.
        IssuerAwayError
            The client's keys are not to be had.
        """
        now = self._now()
        client = self._client_of(_issuer(token))
        expected = Expected(client.id, [audience], _LEEWAY_S, essential=("iss", "sub", "aud", "exp", "jti"))
        claims = verify(token, self._keys_of(client), expected, now, ALGORITHMS)
        if claims["sub"] != client.id:
            raise CredentialError("the assertion's iss and sub differ")
        self._refuse_replay(client, claims, now)
        return client

    def _client_of(self, client_id: str) -> SmartClient:
        with self._store.read() as connection:
            client = find_client(connection, client_id)
        if client is None:
            raise CredentialError("no such client is registered")
        return client

    def _keys_of(self, client: SmartClient) -> Keys:
        if client.jwks is not None:
            return GivenKeys(client.jwks)
        address = client.jwks_url or ""
        keys = self._fetched.setdefault((client.id, address), FetchedKeys(lambda: address, self._fetch))
        while len(self._fetched) > _MOST_FETCHED:
            self._fetched.popitem(last=False)
        return keys

    def _refuse_replay(self, client: SmartClient, claims: Claims, now: datetime) -> None:
        left_s = claims["exp"] - now.timestamp()
        if left_s > _LONGEST_LIFE_S + _LEEWAY_S:
            raise CredentialError("the assertion's exp lies more than 5 minutes ahead")
        jti = claims["jti"]
        if not 0 < len(jti) <= _LONGEST_JTI:
            raise CredentialError(f"the assertion's jti has 1 to {_LONGEST_JTI} characters")
        expires_at = datetime.fromtimestamp(claims["exp"], UTC) + timedelta(seconds=2 * _LEEWAY_S)
        with self._store.write() as connection:
            is_first = is_first_use(connection, client.id, jti, expires_at, now)
        if not is_first:
            raise CredentialError("the assertion was shown before")


def _issuer(token: str) -> str:
    """Return whose a token says it is, before anything is believed."""
    try:
        claims = orjson.loads(extract_compact(token.encode()).payload)
    except (JoseError, ValueError) as error:
        raise CredentialError(f"the assertion is no signed token: {type(error).__name__}") from None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    if not isinstance(issuer, str) or "\0" in issuer:
        raise CredentialError("the assertion names no iss")
    return issuer
