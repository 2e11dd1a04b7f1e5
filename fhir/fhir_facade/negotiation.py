"""What a client wants to be answered in: `_format`, `_pretty` and Accept -> a representation (R4 http, 3.1.0.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from fhir_facade.elements import Release
from fhir_facade.outcome import NotAcceptableError

Format = Literal["json", "xml"]
_FORMATS: Mapping[str, Format] = {
    "application/fhir+json": "json",
    "application/json": "json",
    "text/json": "json",
    "json": "json",
    "application/fhir+xml": "xml",
    "application/xml": "xml",
    "text/xml": "xml",
    "xml": "xml",
    "*/*": "json",
    "application/*": "json",
}
_RELEASES: Mapping[str, Release] = {"4.0": "4.0", "4.0.1": "4.0", "5.0": "5.0", "5.0.0": "5.0"}
_QUALITY = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")
_MOST_RANGES = 30


@dataclass(frozen=True, slots=True)
class Representation:
    """How a resource is written."""

    format: Format = "json"
    release: Release = "4.0"
    is_pretty: bool = False
    names_release: bool = False
    """Whether the client named the release: the answer then names it too."""

    @property
    def is_stored(self) -> bool:
        """Whether it is how resources lie in the database."""
        return self.format == "json" and self.release == "4.0" and not self.is_pretty

    @property
    def media_type(self) -> str:
        """Of the answer."""
        return f"application/fhir+{self.format}" + (f"; fhirVersion={self.release}" if self.names_release else "")


STORED = Representation()
REPRESENTATION_STATE = "fhir_representation"
"""Where a request's state holds what was negotiated."""


@lru_cache(maxsize=256)
def negotiate_accept(accept: str | None, format_asked: str | None = None, pretty: str | None = None) -> Representation:
    """Return how to answer.

    Parameters
    ----------
    accept
        The Accept header; None or empty: anything.
    format_asked
        `_format`, which goes before Accept. It may carry `fhirVersion` too.
    pretty
        `_pretty`.

    Raises
    ------
    NotAcceptableError
        Nothing of what the client takes is written here.
    """
    # A plus sign that was not escaped arrives as a space.
    ranges = [format_asked.strip().replace("fhir ", "fhir+")] if format_asked else (accept or "*/*").split(",")
    found = _best(ranges[:_MOST_RANGES], is_browser="text/html" in (accept or "").lower())
    if found is None:
        raise NotAcceptableError(
            "this server writes application/fhir+json and application/fhir+xml of FHIR 4.0 and 5.0"
        )
    format_, release = found
    return Representation(format_, release or "4.0", pretty == "true", release is not None)


def body_format(content_type: str | None) -> tuple[Format, Release] | None:
    """Return in what a client has written a body, by its Content-Type; None where we do not read that."""
    format_, parameters = _parts(content_type or "")
    if format_ not in _FORMATS or "*" in format_:
        return None
    named = parameters.get("fhirversion")
    release = _RELEASES.get(named) if named else "4.0"
    return None if release is None else (_FORMATS[format_], release)


def _best(ranges: Iterable[str], *, is_browser: bool) -> tuple[Format, Release | None] | None:
    """Return the first of the formats that the client likes most."""
    best: tuple[float, Format, Release | None] | None = None
    for each in ranges:
        name, parameters = _parts(each)
        format_, quality = _FORMATS.get(name), _quality(parameters)
        named = parameters.get("fhirversion")
        if format_ is None or quality == 0 or (named is not None and named not in _RELEASES):
            continue
        if is_browser and name == "application/xml":
            # A browser names XML for want of HTML; it shows JSON better.
            continue
        if best is None or quality > best[0]:
            best = (quality, format_, _RELEASES[named] if named else None)
    return None if best is None else best[1:]


def _parts(text: str) -> tuple[str, dict[str, str]]:
    name, *parameters = (part.strip() for part in text.split(";"))
    pairs = (part.partition("=") for part in parameters)
    return name.lower(), {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}


def _quality(parameters: Mapping[str, str]) -> float:
    given = parameters.get("q", "1")
    return float(given) if _QUALITY.fullmatch(given) else 0.0
