"""The section `[exchange]`: FHIR with other systems."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode


class Exchange(BaseModel):
    """Subscriptions of others, and the hospital's FHIR server that we ask."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    hooks: Annotated[tuple[str, ...], NoDecode] = ()
    """`https://host/path`, …: what an endpoint of a subscription has to begin with. Empty: this machine alone, where
    the gateway listens on the loopback alone; else none, so that no subscriber turns it against its own network."""
    hook_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0
    """Longest wait for an endpoint, in seconds; a subscription may ask for less."""
    hook_max_failures: Annotated[int, Field(ge=1, le=1000)] = 12
    """Notifications in a row that fail before a subscription is switched off, with the reason in it."""
    hook_retry_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """First wait after one that failed; doubles each time."""
    hook_retry_limit_s: Annotated[float, Field(gt=0, le=86400)] = 3600.0
    """Longest wait."""
    hook_events_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """Days that events stay for `$events`."""
    max_subscriptions: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Subscriptions that are not off, of all clients together."""

    poll_server: str | None = None
    """Base address of the hospital's FHIR server that is asked for updates; unset: none."""
    poll_authorization: SecretStr | None = None
    """Value of the header Authorization there, such as `Bearer …`."""
    poll_types: Annotated[tuple[str, ...], NoDecode] = ("Patient", "ImagingStudy")
    """Resource types that are asked for."""
    poll_minutes: Annotated[float, Field(gt=0, le=1440)] = 5.0
    """Minutes between rounds."""
    poll_overlap_s: Annotated[float, Field(ge=0, le=86400)] = 120.0
    """Seconds by which a round begins before the last one did: for clocks that differ and commits that come late."""
    poll_first_days: Annotated[float, Field(ge=0, le=36500)] = 1.0
    """Days before the first round from which on updates are taken."""
    poll_page: Annotated[int, Field(ge=1, le=1000)] = 100
    """Resources asked for in one page."""
    poll_pages: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Most pages of a round; what is left comes in the next."""
    poll_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest wait for a page."""
    max_answer_mib: Annotated[int, Field(ge=1, le=1024)] = 32
    """Largest answer read of another system."""

    @field_validator("hooks", "poll_types", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("hooks")
    @classmethod
    def _are_prefixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            _require_address(prefix)
        return value

    @field_validator("poll_server")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            _require_address(value)
        return value

    @field_validator("poll_types")
    @classmethod
    def _are_taken(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if set(value) - {"Patient", "ImagingStudy"}:
            raise ValueError("expected Patient, ImagingStudy or both")
        return value

    @model_validator(mode="after")
    def _limits_add_up(self) -> Exchange:
        if self.hook_retry_s > self.hook_retry_limit_s:
            raise ValueError("exchange: hook_retry_s is more than hook_retry_limit_s")
        return self


def _require_address(text: str) -> None:
    """Raise ValueError where a text is no http(s) address without user, query and fragment."""
    parts = urlsplit(text)
    is_plain = not (parts.username or parts.query or parts.fragment)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not is_plain:
        raise ValueError("expected https://host/path")
