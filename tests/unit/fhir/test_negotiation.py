"""What a client accepts decides format and release of the answer."""

from __future__ import annotations

from contextlib import suppress

import pytest
from fhir_facade.negotiation import Representation, body_format, negotiate_accept
from fhir_facade.outcome import NotAcceptableError
from hypothesis import given
from hypothesis import strategies as st

JSON, XML = Representation(), Representation("xml")
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "asked", "wanted"),
    [
        (None, None, JSON),
        ("", None, JSON),
        ("*/*", None, JSON),
        ("application/fhir+json", None, JSON),
        ("application/fhir+xml", None, XML),
        ("text/xml", None, XML),
        ("application/fhir+xml;q=0.3, application/json", None, JSON),
        ("application/fhir+json;q=0.5, application/fhir+xml;q=0.6", None, XML),
        ("application/fhir+json;q=0, application/fhir+xml", None, XML),
        (BROWSER, None, JSON),
        ("application/fhir+json", "xml", XML),
        ("text/csv", "application/fhir xml", XML),
        ("application/fhir+json; fhirVersion=5.0", None, Representation("json", "5.0", names_release=True)),
        ('application/fhir+xml; fhirVersion="4.0"', None, Representation("xml", "4.0", names_release=True)),
        ("application/fhir+json; fhirVersion=3.0, application/fhir+xml", None, XML),
        (None, "application/fhir+json; fhirVersion=5.0", Representation("json", "5.0", names_release=True)),
    ],
)
def test_the_best_of_what_is_accepted_is_written(accept: str | None, asked: str | None, wanted: Representation) -> None:
    """Quality first, then order; `_format` goes before Accept; a browser gets JSON."""
    assert negotiate_accept(accept, asked) == wanted


@pytest.mark.parametrize(
    ("accept", "asked"),
    [
        ("text/csv", None),
        ("application/fhir+json;q=0", None),
        ("application/fhir+json; fhirVersion=3.0", None),
        ("*/*", "turtle"),
        ("*/*", "xml; fhirVersion=1.0"),
    ],
)
def test_what_is_not_written_is_refused(accept: str, asked: str | None) -> None:
    """406 and no guess."""
    with pytest.raises(NotAcceptableError):
        negotiate_accept(accept, asked)


@given(st.text(max_size=60), st.none() | st.text(max_size=20))
def test_any_header_is_understood_or_refused(accept: str, asked: str | None) -> None:
    """No header breaks the server."""
    with suppress(NotAcceptableError):
        assert negotiate_accept(accept, asked).format in {"json", "xml"}


def test_the_answer_names_the_release_where_the_client_did() -> None:
    """As in R5 http: the version is a parameter of the media type."""
    assert negotiate_accept("application/fhir+xml").media_type == "application/fhir+xml"
    assert (
        negotiate_accept("application/fhir+json;fhirVersion=5.0").media_type == "application/fhir+json; fhirVersion=5.0"
    )


@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        ("application/fhir+json; charset=utf-8", ("json", "4.0")),
        ("application/fhir+xml;fhirVersion=4.0", ("xml", "4.0")),
        ("application/fhir+xml;fhirVersion=3.0", None),
        ("*/*", None),
        (None, None),
    ],
)
def test_a_body_is_read_by_its_content_type(content_type: str | None, found: tuple[str, str] | None) -> None:
    """What is not FHIR of a known release is not read."""
    assert body_format(content_type) == found
