"""The site that results come from: `[site]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator


class Site(BaseModel):
    """What FHIR resources say of this place."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    public_url: str | None = None
    """Address under which others reach this gateway's HTTP, `https://ai.hospital.example`; unset: FHIR names no
    Endpoint, for an address that only this machine knows would lead others astray."""
    institution: str = ""
    """Who answers for the reports; empty: the institution that the images name (0008,0080)."""

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected http://… or https://…")
        return value.rstrip("/")
