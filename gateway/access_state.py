"""What `doctor` says of access over HTTP: who is let in, tokens about to end, the certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
from cryptography import x509

from gateway.config import Settings
from gateway.errors import GatewayError
from gateway.store import Store
from gateway.store.access import list_tokens
from gateway.tls import TlsFiles, client_context, has_hybrid_group, server_context

_SOON = timedelta(days=14)
_TIMEOUT_S = 5


class Finding(NamedTuple):
    """What one look found."""

    part: str
    verdict: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def look_at_access(settings: Settings, store: Store) -> Iterator[Finding]:
    """Yield what there is to say; the schema has to be there. No token and no secret is named."""
    if settings.auth == ("none",):
        yield Finding("access", "ok", "none: whoever is on this machine")
    if "token" in settings.auth:
        yield _tokens(settings, store)
    if "oidc" in settings.auth:
        yield _provider(settings)
    if settings.tls.certificate is not None:
        yield _certificate(settings, settings.tls.certificate)


def _tokens(settings: Settings, store: Store) -> Finding:
    now = datetime.now(UTC)
    with store.read() as connection:
        rows = [row for row in list_tokens(connection) if row.revoked_at is None and row.expires_at > now]
    found = f"{len(rows)} tokens in use, and {len(settings.tokens)} of the settings"
    if not rows and not settings.tokens:
        return Finding("tokens", "warning", "none: nobody is let in", "hybridmed tokens create")
    ending = [row.name for row in rows if row.expires_at - now < _SOON]
    if ending:
        advice = "make new ones in time: hybridmed tokens create"
        return Finding("tokens", "warning", f"{found}; within two weeks end {', '.join(ending)}", advice)
    return Finding("tokens", "ok", found)


def _provider(settings: Settings) -> Finding:
    part, issuer = "OpenID Connect", settings.oidc.issuer
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        answer = httpx.get(address, timeout=_TIMEOUT_S, verify=client_context(peer_ca=settings.oidc.ca_file))
        named = answer.json().get("issuer")
    except (httpx.HTTPError, GatewayError, ValueError, AttributeError) as error:
        advice = "start the provider, or correct HYBRIDMED_OIDC__ISSUER"
        return Finding(part, "failed", f"{issuer}: {type(error).__name__}", advice)
    if named != issuer:
        return Finding(part, "failed", f"{issuer} calls itself otherwise", "set HYBRIDMED_OIDC__ISSUER to its own word")
    return Finding(part, "ok", issuer)


def _certificate(settings: Settings, file: Path) -> Finding:
    part = "certificate"
    try:
        server_context(TlsFiles.of(settings.tls))
        ends = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (GatewayError, OSError, ValueError) as error:
        told = str(error) if isinstance(error, GatewayError) else type(error).__name__
        return Finding(part, "failed", told, "see HYBRIDMED_TLS__CERTIFICATE and HYBRIDMED_TLS__KEY")
    hybrid = "X25519MLKEM768" if has_hybrid_group() else f"no hybrid key exchange ({ssl.OPENSSL_VERSION})"
    found = f"holds until {ends:%Y-%m-%d}; {hybrid}"
    if ends - datetime.now(UTC) < _SOON:
        return Finding(part, "warning", found, "renew it: the files are read again without a restart")
    return Finding(part, "ok", found)
