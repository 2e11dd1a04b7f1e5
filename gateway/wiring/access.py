"""Who may ask over HTTP, and what stands in front of the application."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from fhir_facade.security import security

from gateway.config import Settings
from gateway.config.access import Oidc
from gateway.config.address import is_loopback
from gateway.errors import ConfigurationError, CredentialError
from gateway.supervisor import shared_memory
from gateway.tls import Reloading, TlsFiles, client_context, server_context
from gateway.web.access.claims import ClaimRule
from gateway.web.access.limits import Rates
from gateway.web.access.oidc import Provider, Registration
from gateway.web.access.smart import TOKEN_PATH
from gateway.web.auth import Access
from gateway.web.role import Front


def build_access(settings: Settings) -> Access:
    """Return who may ask."""
    limits = settings.access
    if "oidc" in settings.auth and settings.oidc.client_id and not public_url(settings):
        raise ConfigurationError("the sign-in of browsers needs HYBRIDMED_SITE__PUBLIC_URL: they are sent back there")
    return Access(
        mode=settings.auth,
        token_digests=settings.tokens,
        provider=_build_provider(settings.oidc) if "oidc" in settings.auth else None,
        public_url=public_url(settings),
        rates=Rates(
            requests_per_s=limits.requests_per_s,
            burst=limits.burst,
            address_requests_per_s=limits.address_requests_per_s,
            address_burst=limits.address_burst,
            failures_per_minute=limits.failures_per_minute,
        ),
        shared_memory=shared_memory() if settings.web_process_count > 1 else None,
        cors_origins=limits.cors_origins,
    )


def build_security(settings: Settings) -> dict[str, Any] | None:
    """Return what the CapabilityStatement says of access; None where nobody has to say who they are."""
    if settings.auth == ("none",):
        return None
    url = public_url(settings)
    return security(token_url=url + TOKEN_PATH if url else "", has_cors=bool(settings.access.cors_origins))


def build_front(settings: Settings) -> Front:
    """Return what stands between the network and the application."""
    proxies, shares_port = settings.access.trusted_proxies, settings.web_process_count > 1
    if not settings.tls.is_on_http:
        return Front(trusted_proxies=proxies, shares_port=shares_port)
    files = TlsFiles.of(settings.tls)
    build = partial(server_context, files, settings.tls.http_client_certificate)
    return Front(Reloading(build, files.paths, settings.tls.reload_s), proxies, shares_port)


def public_url(settings: Settings) -> str:
    """Return how callers reach us: as set, or on this machine as we know it; empty where nobody said."""
    if settings.site.public_url is not None:
        return settings.site.public_url
    if not is_loopback(settings.bind):
        return ""
    host = f"[{settings.bind}]" if ":" in settings.bind else settings.bind
    return f"{'https' if settings.tls.is_on_http else 'http'}://{host}:{settings.http_port}"


def _build_provider(oidc: Oidc) -> Provider:
    registration = Registration(
        issuer=oidc.issuer,
        audience=oidc.audience,
        client_id=oidc.client_id,
        client_secret=_secret(oidc),
        scopes=oidc.scopes,
        claims=ClaimRule(oidc.role_claim, oidc.role_map, oidc.name_claim),
        leeway_s=oidc.leeway_s,
        session=timedelta(hours=oidc.session_hours),
    )
    client = httpx.Client(verify=client_context(peer_ca=oidc.ca_file), follow_redirects=False)
    try:
        return Provider(registration, client)
    except CredentialError as error:
        raise ConfigurationError(f"HYBRIDMED_OIDC__ISSUER: {error}") from error


def _secret(oidc: Oidc) -> str | None:
    if oidc.client_secret is not None:
        return oidc.client_secret.get_secret_value()
    return None if oidc.client_secret_file is None else _first_line(oidc.client_secret_file)


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the secret in {file} cannot be read: {type(error).__name__}") from None
