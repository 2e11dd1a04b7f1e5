"""Where results go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.config.address import DicomAddress

Kind: TypeAlias = Literal["dicom", "dicomweb", "fhir", "hl7"]
_BY_SCHEME: dict[str, Kind] = {
    "http": "dicomweb",
    "https": "dicomweb",
    "fhir+http": "fhir",
    "fhir+https": "fhir",
    "mllp": "hl7",
    "mllps": "hl7",
}


class Destination(BaseModel):
    """Where results go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: str
    """`AET@host:port` for C-STORE, `https://…` for STOW-RS, `fhir+https://…` for a FHIR server, `mllp://host:port` or
    `mllps://host:port` (TLS) for HL7 v2."""
    kind: Kind | None = None
    """What is sent and how; unset: as the address says. `fhir` makes `https://…` that of a FHIR server."""
    sr_title: Literal["imaging-measurement-report", "oncology-measurement-report"] = "imaging-measurement-report"
    """(126000, DCM) or (126001, DCM): some viewers show only one of them."""
    seg_encoding: Literal["BINARY", "LABELMAP"] = "BINARY"
    """Encoding of segmentations; many peers refuse LABELMAP."""
    send: tuple[Literal["sr", "seg", "heatmap"], ...] = ("sr", "seg", "heatmap")
    """Kinds of object that this destination takes."""
    tls: bool = False
    """Whether it is called by DICOM over TLS; certificates are those of `[tls]`."""
    deidentify: Literal["basic"] | None = None
    """`basic`: a research destination gets results de-identified by the Basic Profile of PS3.15 E, and nothing else: no
    C-MOVE goes to its AE title, and under that title nobody queries or retrieves."""

    authorization: SecretStr | None = None
    """Value of the header Authorization of a FHIR server, such as `Bearer …`."""
    receiver: str = Field(default="", pattern=r"^[\x20-\x7e]{0,180}(\|[\x20-\x7e]{0,180})?$")
    """`APPLICATION|FACILITY` of an HL7 v2 receiver: MSH-5 and MSH-6."""

    @model_validator(mode="after")
    def _adds_up(self) -> Destination:
        scheme = self.address.partition("://")[0] if "://" in self.address else ""
        if not scheme:
            DicomAddress.parse(self.address)
        elif scheme not in _BY_SCHEME or not _is_address(self.address, needs_port=scheme.startswith("mllp")):
            raise ValueError("an address is AET@host:port, https://…, fhir+https://… or mllp://host:port")
        if self.kind not in {None, self._kind_of_address} and not (
            self.kind == "fhir" and self._kind_of_address == "dicomweb"
        ):
            raise ValueError(f"kind {self.kind} does not go with the address")
        return self

    @property
    def _kind_of_address(self) -> Kind:
        return _BY_SCHEME[self.address.partition("://")[0]] if "://" in self.address else "dicom"

    @property
    def way(self) -> Kind:
        """What is sent and how."""
        return self.kind or self._kind_of_address

    @property
    def takes_reports(self) -> bool:
        """Whether the report is sent as FHIR resources or an HL7 message, and not the DICOM objects."""
        return self.way in {"fhir", "hl7"}

    @property
    def url(self) -> str:
        """The address without what says that it is a FHIR server's, and without a slash at the end."""
        return self.address.removeprefix("fhir+").rstrip("/")

    @property
    def dicom(self) -> DicomAddress | None:
        """The C-STORE address, or None where results go another way."""
        if self.way != "dicom":
            return None
        address = DicomAddress.parse(self.address)
        return replace(address, tls=True) if self.tls else address

    @property
    def endpoint(self) -> DicomAddress | str:
        """Who is reached, by TLS or without."""
        address = self.dicom
        return self.url if address is None else replace(address, tls=False)


def _is_address(text: str, *, needs_port: bool) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and (parts.port is not None or not needs_port) and parts.username is None
    except ValueError:
        return False


def parse_destination(text: str) -> dict[str, str]:
    """Read `NAME=AET@host:port` or `NAME=https://…`; ValueError says what was expected."""
    name, equals, address = text.strip().partition("=")
    if not equals:
        raise ValueError(f"destination {text.strip()!r} is not NAME=AET@host:port or NAME=https://…")
    return {"name": name.strip(), "address": address.strip()}


def as_table(entry: object) -> dict[str, Any]:
    """Return a destination's TOML entry, an address alone or a table, as a table."""
    return {"address": entry} if isinstance(entry, str) else dict(entry)  # type: ignore[call-overload] # pydantic reports other types
