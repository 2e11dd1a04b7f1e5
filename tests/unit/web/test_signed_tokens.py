"""JSON Web Tokens: the right one is taken, every forged one refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from gateway.errors import CredentialError, IssuerAwayError
from gateway.web.access.keys import FetchedKeys, GivenKeys, public_keys, require_safe
from gateway.web.access.signed import Expected, verify
from tests.services.process import HANGS_S

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
S = int(NOW.timestamp())
ISSUER = "https://sso.example"
EXPECTED = Expected(ISSUER, ["hybridmed"], leeway_s=30)
GOOD: Mapping[str, Any] = {"iss": ISSUER, "sub": "u1", "aud": "hybridmed", "exp": S + 60, "iat": S}
EC = ECKey.generate_key("P-256", {"kid": "ec"})
OTHER = ECKey.generate_key("P-256", {"kid": "ec"})
RSA = RSAKey.import_key(rsa.generate_private_key(65537, 2048), {"kid": "rsa"})
JWKS = {"keys": [key.as_dict(private=False) for key in (EC, RSA)]}


def signed(claims: Mapping[str, Any] = GOOD, *, alg: str = "ES256", key: Any = EC, **header: Any) -> str:
    """Return a token; `header` replaces parts of its header."""
    return jwt.encode({"alg": alg, "kid": key.kid} | header, dict(claims), key, algorithms=[alg])


def encoded(part: bytes) -> str:
    """Return bytes as a part of a token."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def unsigned(**header: Any) -> str:
    """Return a token that nobody signed."""
    return f"{encoded(json.dumps({'alg': 'none'} | header).encode())}.{encoded(json.dumps(GOOD).encode())}."


def by_secret(secret: bytes) -> str:
    """Return a token signed by HMAC, as whoever knows the public key could."""
    text = f"{encoded(json.dumps({'alg': 'HS256', 'kid': 'rsa'}).encode())}.{encoded(json.dumps(GOOD).encode())}"
    return f"{text}.{encoded(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def sealed(header: dict[str, Any]) -> str:
    """Return a token with a header that no library would write, rightly signed."""
    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(GOOD).encode())}"
    one, two = decode_dss_signature(EC.private_key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{encoded(one.to_bytes(32, 'big') + two.to_bytes(32, 'big'))}"


def without_kid() -> str:
    """Return a token that names no key."""
    return jwt.encode({"alg": "ES256"}, dict(GOOD), EC, algorithms=["ES256"])


def taken(token: str, keys: Any = None) -> dict[str, Any]:
    """Check a token."""
    return verify(token, keys or GivenKeys(JWKS), EXPECTED, NOW)


def test_tokens_of_known_keys_are_taken() -> None:
    """By RSA and by elliptic curve, for one audience of several, with clocks that differ a little."""
    assert taken(signed())["sub"] == "u1"
    assert taken(signed(alg="RS256", key=RSA))["sub"] == "u1"
    assert taken(signed(alg="RS384", key=RSA))["sub"] == "u1"
    assert taken(signed(GOOD | {"aud": ["other", "hybridmed"]}))
    assert taken(sealed({"alg": "ES256", "kid": "ec"}))
    assert taken(signed(GOOD | {"exp": S - 20, "iat": S + 20, "nbf": S + 20}))


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": S - 31},
        {"exp": None},
        {"exp": "never"},
        {"exp": float("nan")},
        {"exp": True},
        {"nbf": S + 60},
        {"iat": S + 60},
        {"iss": "https://evil.example"},
        {"iss": [ISSUER]},
        {"aud": "other"},
        {"aud": []},
        {"aud": {"hybridmed": 1}},
        {"sub": None},
        {"sub": 7},
    ],
)
def test_claims_that_do_not_hold_are_refused(changed: dict[str, Any]) -> None:
    """Over, not yet, of another issuer, for another audience, without an end."""
    claims = {name: value for name, value in (GOOD | changed).items() if value is not None}

    with pytest.raises(CredentialError):
        taken(signed(claims))


def test_forged_signatures_are_refused() -> None:
    """None at all, by the public key as a secret, by another key, by another algorithm, of changed claims."""
    head, _, signature = signed().split(".")
    other_claims = base64.urlsafe_b64encode(json.dumps(GOOD | {"sub": "admin"}).encode()).rstrip(b"=").decode()
    forged = {
        "none": unsigned(),
        "none with a kid": unsigned(kid="rsa"),
        "NONE": unsigned(alg="NONE", kid="ec"),
        "public key as secret": by_secret(RSA.as_pem(private=False)),
        "another key": signed(key=OTHER),
        "unknown kid": signed(kid="x"),
        "kid of another kind": signed(kid="rsa"),
        "no kid where there are two keys": without_kid(),
        "PS256": signed(alg="PS256", key=RSA),
        "ES256 in the header of RSA": signed(alg="ES256", kid="rsa"),
        "changed claims": f"{head}.{other_claims}.{signature}",
        "no signature": f"{head}.{other_claims}.",
        "a critical header nobody knows": sealed({"alg": "ES256", "kid": "ec", "crit": ["x"], "x": 1}),
        "a key of its own": signed(key=OTHER, jwk=OTHER.as_dict(private=False)),
        "nothing": "",
        "dots": "..",
        "text": "a.b.c",
        "long": signed(GOOD | {"x": "y" * 20_000}),
        "five parts": "a.b.c.d.e",
        "no text": "é.é.é",
    }

    for name, token in forged.items():
        with pytest.raises(CredentialError) as refused:
            taken(token)
        assert "u1" not in str(refused.value), name


def test_one_key_needs_no_kid() -> None:
    """A token that names no key is taken where there is one alone."""
    assert taken(without_kid(), GivenKeys({"keys": [EC.as_dict(private=False)]}))


def test_key_sets_with_the_wrong_keys() -> None:
    """Private, secret, short and absent keys are refused; kinds that we do not know are left out."""
    short = {"kty": "RSA", "e": "AQAB", "n": encoded(b"\xff" * 128)}
    for keys in ([EC.as_dict(private=True)], [{"kty": "oct", "k": "AAAA"}], [short], [], ["x"], [{"kty": "EC"}]):
        with pytest.raises(CredentialError):
            public_keys({"keys": keys})
    with pytest.raises(CredentialError):
        public_keys({})

    found = public_keys({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}, EC.as_dict(private=False)]})

    assert set(found) == {"ec"}


def test_fetched_keys_are_kept_and_renewed_with_limits() -> None:
    """Made-up key ids do not make us ask each time; a new key is found; an issuer that is away does no harm at once."""
    now, asked = [0.0], []
    answers: list[Any] = [JWKS]

    def fetch(address: str) -> Mapping[str, Any]:
        asked.append(address)
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    keys = FetchedKeys(lambda: "https://sso.example/keys", fetch, lambda: now[0])
    assert keys.find("ec") is not None
    for index in range(50):
        assert keys.find(f"made-up-{index}") is None
    assert len(asked) == 1

    now[0] = 61.0
    answers.append({"keys": [*JWKS["keys"], ECKey.generate_key("P-384", {"kid": "new"}).as_dict(private=False)]})
    assert keys.find("new") is not None
    assert len(asked) == 2

    now[0] = 4000.0
    answers.append(IssuerAwayError("away"))
    assert keys.find("ec") is not None
    assert keys.find("ec") is not None
    assert len(asked) == 3
    now[0] = 100_000.0
    with pytest.raises(IssuerAwayError):
        keys.find("ec")


def test_nobody_waits_while_known_keys_are_renewed() -> None:
    """One thread asks an issuer that does not answer; the others go on with the keys that there are."""
    now, asked, answered = [0.0], threading.Event(), threading.Event()
    answered.set()

    def fetch(_address: str) -> Mapping[str, Any]:
        asked.set()
        assert answered.wait(HANGS_S)
        return JWKS

    keys = FetchedKeys(lambda: "https://sso.example/keys", fetch, lambda: now[0])
    keys.find("ec")
    asked.clear()
    answered.clear()
    now[0] = 4000.0
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(keys.find, "ec")
        try:
            assert asked.wait(HANGS_S)
            assert pool.submit(keys.find, "ec").result(HANGS_S / 2) is not None
        finally:
            answered.set()
        assert first.result(HANGS_S) is not None


def test_addresses_over_which_keys_could_be_forged() -> None:
    """Plain HTTP is taken on this machine alone."""
    for good in ("https://sso.example/x", "http://127.0.0.1:8000/x", "http://localhost/x", "http://[::1]:1/x"):
        require_safe(good)
    for bad in ("http://sso.example/x", "ftp://127.0.0.1/x", "https:///x", "file:///etc/passwd", ""):
        with pytest.raises(CredentialError):
            require_safe(bad)
