"""The section `[audit]`: where the audit trail goes besides the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_SCHEMES = frozenset({"tls", "tcp", "udp"})


class Audit(BaseModel):
    """The audit trail (PS3.15 A.5): always in the database, on request to an audit repository too."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    repository: str | None = None
    """`tls://host:6514` (RFC 5425), `tcp://host:601` or `udp://host:514`: the audit record repository that gets every
    message as syslog (RFC 5424); unset: none. What it has not taken waits in the database."""
    ca_file: Path | None = None
    """Certificates (PEM) that may sign the repository's; unset: those of the system."""
    certificate_file: Path | None = None
    """Our certificate chain (PEM), where the repository wants to know who we are."""
    private_key_file: Path | None = None
    """Key (PEM) of `certificate_file`."""
    chain_key_file: Path | None = None
    """Secret (at least 32 bytes) of the hash chain; unset: a hash without a secret, which shows what was changed by
    accident, but not what was changed by somebody who writes to the database and knows how."""
    fhir: bool = True
    """Whether each event is also a FHIR AuditEvent under /fhir."""
    enterprise_site: str = ""
    """Audit Enterprise Site ID: the organisation, as the repository knows it."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Limit of each step with the repository, in seconds."""

    @field_validator("repository")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in _SCHEMES or not parts.hostname or parts.port is None:
                raise ValueError("expected tls://host:port, tcp://host:port or udp://host:port")
        return value

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Audit:
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError("certificate_file and private_key_file belong together")
        return self

    @property
    def address(self) -> tuple[Literal["tls", "tcp", "udp"], str, int] | None:
        """Way, host and port of the repository."""
        if self.repository is None:
            return None
        parts = urlsplit(self.repository)
        return parts.scheme, parts.hostname or "", parts.port or 0  # type: ignore[return-value] # checked above
