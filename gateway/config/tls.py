"""The section `[tls]`: certificate, key and whom we believe, for HTTP and DICOM alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Tls(BaseModel):
    """Files of our identity, in PEM. They are read again when they change: nothing has to be restarted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    certificate: Path | None = None
    """Our certificate, the intermediate ones behind it; unset: no TLS."""
    key: Path | None = None
    """Its private key; unset: in the file of the certificate."""
    key_password_file: Path | None = None
    """File whose first line opens the key; unset: the key is not encrypted."""
    peer_ca: Path | None = None
    """Authorities whose certificates we take of clients, and of servers that we call; unset: of clients none, of
    servers those that this machine trusts."""
    http: bool = True
    """Whether the HTTP port speaks TLS, where there is a certificate; false behind a proxy that does it."""
    http_client_certificate: Literal["none", "optional", "required"] = "none"
    """Whether clients of the HTTP port show a certificate of `peer_ca` (mutual TLS), besides what `auth` asks for."""
    reload_s: Annotated[float, Field(ge=1, le=86400)] = 10.0
    """Seconds between looks at the files."""

    @model_validator(mode="after")
    def _adds_up(self) -> Tls:
        if self.certificate is None and (self.key is not None or self.http_client_certificate != "none"):
            raise ValueError("tls: a key or client certificates need `certificate` (HYBRIDMED_TLS__CERTIFICATE)")
        if self.http_client_certificate != "none" and self.peer_ca is None:
            raise ValueError("tls: client certificates need `peer_ca` (HYBRIDMED_TLS__PEER_CA), which says whose")
        return self

    @property
    def is_on_http(self) -> bool:
        """Whether the HTTP port speaks TLS."""
        return self.certificate is not None and self.http
