"""Public keys of others: a JSON Web Key Set (RFC 7517), given, or fetched from its address and kept for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from gateway.config.address import is_loopback
from gateway.errors import CredentialError, IssuerAwayError
from gateway.web.access.signed import PublicKey, algorithms_of, only_key

_MOST_KEYS = 100
_LARGEST_ANSWER = 1 << 18
_TIMEOUT_S = 5.0
_FRESH_S: Final = 3600.0
"""How long fetched keys are used without asking again."""
_UNKNOWN_S: Final = 60.0
"""An unknown key id makes us ask again, once in so long: tokens with made-up ids must not turn us on the issuer."""
_STALE_S: Final = 86400.0
"""How long keys are still used while their issuer is away."""
_SMALLEST_RSA_BITS = 2048
_BITS_OF_BASE64 = 6
_SECRET_PARTS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def public_keys(jwks: Mapping[str, Any]) -> dict[str | None, PublicKey]:
    """Return the keys of a set that sign as we ask for; others are left out (RFC 7517, 5).

    Raises
    ------
    CredentialError
        It is no key set, or holds a private or a secret key, or none that we can use.
    """
    entries = jwks.get("keys")
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise CredentialError(f"a key set is a JSON object with at most {_MOST_KEYS} `keys`")
    found: dict[str | None, PublicKey] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise CredentialError("an entry of the key set is no key")
        if not _SECRET_PARTS.isdisjoint(entry):
            raise CredentialError("the key set holds a private key: give public keys alone, and replace this one")
        key = _usable(entry)
        if key is not None:
            found[entry.get("kid")] = key
    if not found:
        raise CredentialError("the key set holds no RSA key of 2048 bits or more and no P-256 or P-384 key")
    return found


def _usable(entry: Mapping[str, Any]) -> PublicKey | None:
    kinds: dict[str, type[RSAKey] | type[ECKey]] = {"RSA": RSAKey, "EC": ECKey}
    kind = kinds.get(str(entry.get("kty")))
    if kind is None or entry.get("use", "sig") != "sig" or not isinstance(entry.get("kid"), str | None):
        return None
    if kind is RSAKey and len(str(entry.get("n"))) * _BITS_OF_BASE64 < _SMALLEST_RSA_BITS:
        return None
    try:
        key: PublicKey = kind.import_key(dict(entry))
        return key if algorithms_of(key) else None
    except (JoseError, ValueError, TypeError):
        return None


class GivenKeys:
    """Keys that were registered.

    Parameters
    ----------
    jwks
        The key set.
    """

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._keys = public_keys(jwks)

    def find(self, kid: str | None) -> PublicKey | None:
        """Return the key of this id."""
        return only_key(self._keys, kid)


class FetchedKeys:
    """Keys that lie at an address; for any thread.

    Parameters
    ----------
    address
        Returns the address; called before each fetch.
    fetch
        Returns the JSON object at an address.
    clock
        Monotonic, in seconds.
    """

    def __init__(
        self,
        address: Callable[[], str],
        fetch: Callable[[str], Mapping[str, Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str | None, PublicKey] = {}
        self._fetched_at = self._asked_at = float("-inf")

    def find(self, kid: str | None) -> PublicKey | None:
        """Return the key of this id, fetched where it is not here yet; IssuerAwayError where that fails."""
        known, age_s = only_key(self._keys, kid), self._clock() - self._fetched_at
        if known is not None and age_s < _FRESH_S:
            return known  # without waiting for another thread that asks for a key nobody knows
        # Nor for one that renews what is known: an issuer that does not answer would hold up every caller.
        if not self._lock.acquire(blocking=known is None or age_s >= _STALE_S):
            return known
        try:
            now = self._clock()
            if now - self._asked_at >= _UNKNOWN_S:
                self._asked_at = now
                self._renew(now)
            elif not self._keys:
                raise IssuerAwayError("the keys of the issuer were not to be had; try again in a minute")
            return only_key(self._keys, kid)
        finally:
            self._lock.release()

    def _renew(self, now: float) -> None:
        try:
            self._keys = public_keys(self._fetch(self._address()))
            self._fetched_at = now
        except (IssuerAwayError, CredentialError) as error:
            if now - self._fetched_at >= _STALE_S:
                self._keys = {}
                raise IssuerAwayError(f"the keys of the issuer cannot be had: {error}") from error


def fetch_json(address: str, client: httpx.Client) -> Mapping[str, Any]:
    """Return the JSON object at an address.

    Raises
    ------
    IssuerAwayError
        It does not answer, or with something else, or too much.
    """
    require_safe(address)
    try:
        with client.stream("GET", address, timeout=_TIMEOUT_S, headers={"Accept": "application/json"}) as answer:
            body = bytearray()
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > _LARGEST_ANSWER:
                    raise IssuerAwayError(f"{_host(address)} answers with more than {_LARGEST_ANSWER} bytes")
        if answer.status_code != httpx.codes.OK:
            raise IssuerAwayError(f"{_host(address)} answers {answer.status_code}")
        content = orjson.loads(bytes(body))
    except (httpx.HTTPError, orjson.JSONDecodeError) as error:
        raise IssuerAwayError(f"{_host(address)}: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise IssuerAwayError(f"{_host(address)} answers with no JSON object")
    return content


def require_safe(address: str) -> None:
    """Refuse an address over which keys could be forged: CredentialError, unless it is HTTPS or on this machine."""
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname and (parts.hostname == "localhost" or is_loopback(parts.hostname)):
        return
    raise CredentialError("an issuer and its keys have https addresses (http on this machine alone)")


def _host(address: str) -> str:
    return urlsplit(address).hostname or "the issuer"
