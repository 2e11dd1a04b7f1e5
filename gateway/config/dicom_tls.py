"""The section `[dicom_tls]`: DICOM over TLS. Certificate, key and authorities are those of `[tls]`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.config.address import AETitle

_NAME = re.compile(r"sha256:[0-9a-f]{64}|dns:.+|cn:.+", re.IGNORECASE)


class DicomTls(BaseModel):
    """The secure transport connection (PS3.15 B.9 and B.10, BCP 195)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = False
    """Whether a port of its own speaks TLS; needs `tls.certificate`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 2762
    """That port; 2762 is the registered one (dicom-tls)."""
    plain: bool = True
    """Whether `dicom_port` goes on without TLS beside it."""
    client_certificate: Literal["required", "optional", "none"] = "required"
    """Whether peers show a certificate of `tls.peer_ca`."""
    certificates: dict[str, tuple[AETitle, ...]] = Field(default_factory=dict)
    """Name of a certificate -> AE titles that it may call itself: `sha256:` and the fingerprint in 64 hexadecimal
    digits, `dns:` and a name that it is made out to, or `cn:` and its common name. A title that stands here is refused
    without its certificate, on the port without TLS, too. Empty: any and any title."""
    handshake_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Time limit of a handshake, in seconds."""
    checks_names: bool = True
    """Whether the certificate of a peer that we call has to be made out to the host that is called."""

    @field_validator("certificates")
    @classmethod
    def _are_names(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in value:
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is not sha256:<64 hexadecimal digits>, dns:<name> or cn:<common name>")
        return {name.lower(): titles for name, titles in value.items()}
