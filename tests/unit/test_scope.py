"""SMART scopes: what is one, what it allows, and what a client gets of what it asks for."""

from __future__ import annotations

import pytest

from gateway.scope import contexts_allowing, granted, parse_scope


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("system/DiagnosticReport.rs", "rs"),
        ("system/*.read", "rs"),
        ("patient/Observation.write", "cud"),
        ("user/*.*", "cruds"),
        ("system/*.cruds", "cruds"),
        ("patient/Patient.s", "s"),
    ],
)
def test_both_versions_are_read(text: str, letters: str) -> None:
    """The words of version 1 stand for letters of version 2."""
    scope = parse_scope(text)

    assert scope is not None
    assert scope.permissions == frozenset(letters)


@pytest.mark.parametrize(
    "text",
    [
        "openid",
        "launch/patient",
        "system/*",
        "system/*.sr",
        "system/*.rr",
        "system/*.rx",
        "system/diagnosticreport.rs",
        "admin/*.rs",
        "system/*.rs ",
        "system/Observation.rs?category=laboratory",
        "",
    ],
)
def test_what_is_no_scope_gives_nothing(text: str) -> None:
    """Letters out of order, unknown words, and scopes narrowed by a query, which we could not hold."""
    assert parse_scope(text) is None


def test_no_more_is_granted_than_was_registered() -> None:
    """By context, type and letter."""
    allowed = ["system/DiagnosticReport.rs", "system/Patient.r", "patient/*.rs"]

    asked = ["system/DiagnosticReport.s", "system/DiagnosticReport.cruds", "system/*.rs", "system/Patient.r"]
    assert granted(asked, allowed) == {"system/DiagnosticReport.s", "system/Patient.r"}
    assert granted(["patient/Observation.read", "user/Observation.read", "openid"], allowed) == {
        "patient/Observation.read"
    }
    assert granted(["system/DiagnosticReport.read"], allowed) == {"system/DiagnosticReport.read"}


def test_whose_resources_a_scope_opens() -> None:
    """A patient's scope opens a compartment, a system's everything."""
    scopes = ["patient/Observation.rs", "system/DiagnosticReport.read"]

    assert contexts_allowing(scopes, "Observation", "s") == {"patient"}
    assert contexts_allowing(scopes, "DiagnosticReport", "r") == {"system"}
    assert contexts_allowing(scopes, "DiagnosticReport", "d") == frozenset()
    assert contexts_allowing(scopes, "Patient", "r") == frozenset()
