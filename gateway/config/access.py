"""The sections `[access]` and `[oidc]`: who may ask over HTTP, how often, and from where."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

RoleName = Literal["viewer", "verifier", "operator", "integrator"]
_Rate = Annotated[float, Field(gt=0, le=1_000_000)]


class AccessLimits(BaseModel):
    """The section `[access]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses and networks (`10.0.0.5`, `10.1.0.0/16`) of proxies in front that speak TLS: their X-Forwarded-For and
    X-Forwarded-Proto are believed, and nobody else's."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """`https://app.example`: sites whose scripts may call /fhir and /dicomweb with a token of their own."""
    requests_per_s: _Rate = 500.0
    """Requests of one caller in the long run, over all web processes of one `hybridmed serve`; more: 429."""
    burst: _Rate = 2000.0
    """Requests of one caller at once."""
    address_requests_per_s: _Rate = 1000.0
    """As `requests_per_s`, for one network address, whoever calls from there."""
    address_burst: _Rate = 4000.0
    """As `burst`, for one network address."""
    failures_per_minute: _Rate = 30.0
    """Refused tokens and sign-ins of one network address; after these it is answered 429 for a while."""

    @field_validator("trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            parts = urlsplit(each)
            if parts.scheme not in {"http", "https"} or not parts.netloc or f"{parts.scheme}://{parts.netloc}" != each:
                raise ValueError(f"{each!r} is no origin such as https://app.example (no path, no *)")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                network = ipaddress.ip_network(each, strict=False)
            except ValueError:
                raise ValueError(f"{each!r} is no network address") from None
            if network.prefixlen == 0:
                raise ValueError(f"{each!r} is everybody: name the proxy")
        return value


class Oidc(BaseModel):
    """The section `[oidc]`: an OpenID Connect provider, for browsers and for programs that bring its access tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    issuer: str = ""
    """As in its discovery document: `https://sso.example/realms/hospital`."""
    audience: str = ""
    """What access tokens of programs are made out to (`aud`); unset: such tokens are not taken."""
    client_id: str = ""
    """Ours, for the sign-in of browsers; its redirect address is `site.public_url` and /login/oidc/callback. Unset:
    browsers do not sign in by the provider."""
    client_secret: SecretStr | None = None
    """Of a confidential client; unset: a public one, which PKCE protects."""
    client_secret_file: Path | None = None
    """File whose first line is the secret."""
    scopes: str = "openid profile"
    """What a browser's sign-in asks for."""
    role_claim: str = "roles"
    """Where the roles stand; a dot leads into an object: `realm_access.roles`."""
    role_map: Mapping[str, RoleName] = Field(default_factory=dict)
    """The provider's roles or groups -> ours; our four names stand for themselves."""
    name_claim: str = "preferred_username"
    """Who it is, for the audit trail; where the token has none, `sub`."""
    ca_file: Path | None = None
    """Authorities of the provider's certificate; unset: those that this machine trusts."""
    leeway_s: Annotated[int, Field(ge=0, le=300)] = 30
    """How far its clock and ours may differ."""
    session_hours: Annotated[float, Field(gt=0, le=24)] = 12.0
    """How long a browser stays signed in."""

    @model_validator(mode="after")
    def _adds_up(self) -> Oidc:
        if self.client_secret is not None and self.client_secret_file is not None:
            raise ValueError("oidc: client_secret or client_secret_file, not both")
        if self.issuer and not (self.audience or self.client_id):
            raise ValueError("oidc: set audience (programs), client_id (browsers) or both")
        return self
