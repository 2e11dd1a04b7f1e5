"""JSON Web Tokens: a signature checked by a public key, then the claims (RFC 7519, RFC 8725); pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry, extract_compact

from gateway.errors import CredentialError

PublicKey: TypeAlias = RSAKey | ECKey
Claims: TypeAlias = dict[str, Any]

ALGORITHMS: Final = ("RS256", "RS384", "ES256", "ES384")
"""Signatures by a private key alone: with `none` nobody signs, and with HS… whoever knows the public key would."""
_OF_KEY: Final[Mapping[str, Collection[str]]] = {
    "RSA": ("RS256", "RS384"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
}
_LONGEST = 1 << 14


class _Registry(JWSRegistry):
    """Headers of real providers: longer than the library's bound, with names of their own."""

    max_header_length = 4096


class Keys(Protocol):
    """Where public keys come from."""

    def find(self, kid: str | None) -> PublicKey | None:
        """Return the key of this id; of none, the only key there is."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the claims have to say."""

    issuer: str
    audiences: Sequence[str]
    """Any one of them is enough."""
    leeway_s: int
    """How far the clocks may differ."""
    essential: Sequence[str] = ("iss", "sub", "aud", "exp")


def verify(token: str, keys: Keys, expected: Expected, now: datetime, algorithms: Sequence[str] = ALGORITHMS) -> Claims:
    """Return the claims of a token that is what it says.

    Raises
    ------
    CredentialError
        It is not; the message says why, and nothing of what it holds.
    """
    if len(token) > _LONGEST:
        raise CredentialError("the token is too long")
    registry = _Registry(algorithms=algorithms, strict_check_header=False)
    try:
        header = extract_compact(token.encode(), registry=registry).headers()
        algorithm = str(header.get("alg"))
        if algorithm not in algorithms:
            raise CredentialError(f"the token is signed by none of {', '.join(algorithms)}")
        key = keys.find(_text(header.get("kid")))
        if key is None:
            raise CredentialError("the token names no key that is known")
        if algorithm not in algorithms_of(key):
            raise CredentialError("the token's algorithm is not that of its key")
        claims = jwt.decode(token, key, algorithms=[algorithm], registry=registry).claims
        _registry_of(expected, now).validate(claims)
    except (JoseError, ValueError) as error:
        raise CredentialError(f"the token is not taken: {type(error).__name__.removesuffix('Error')}") from None
    return claims


def algorithms_of(key: PublicKey) -> Collection[str]:
    """Return the algorithms that a key signs by: those of its kind, of which it may name one."""
    kind = "RSA" if isinstance(key, RSAKey) else str(key.curve_name)
    named = key.alg
    return [each for each in _OF_KEY.get(kind, ()) if named in {None, each}]


def only_key(keys: Mapping[str | None, PublicKey], kid: str | None) -> PublicKey | None:
    """Return the key of an id; of no id, the only key there is."""
    if kid is None:
        return next(iter(keys.values())) if len(keys) == 1 else None
    return keys.get(kid)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise CredentialError("the token's key id is no text")


def _registry_of(expected: Expected, now: datetime) -> jwt.JWTClaimsRegistry:
    options: dict[str, jwt.ClaimsOption] = {name: {"essential": True} for name in expected.essential}
    options["iss"] = {"essential": "iss" in expected.essential, "value": expected.issuer}
    options["aud"] = {"essential": True, "values": list(expected.audiences)}
    return jwt.JWTClaimsRegistry(now=int(now.timestamp()), leeway=expected.leeway_s, **options)
