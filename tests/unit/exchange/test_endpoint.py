"""Which addresses subscribers may have told."""

from __future__ import annotations

import pytest

from gateway.exchange.endpoint import AllowedEndpoints

LISTED = AllowedEndpoints(("https://ehr.example/hooks", "http://10.0.0.7:8080"), with_loopback=False)
LOOPBACK = AllowedEndpoints((), with_loopback=True)


@pytest.mark.parametrize(
    "url",
    ["https://ehr.example/hooks", "https://EHR.example:443/hooks/a?b=c", "http://10.0.0.7:8080/anything"],
)
def test_what_is_listed_is_told(url: str) -> None:
    """By scheme, host, port and whole segments of the path."""
    assert LISTED.refusal(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://ehr.example/hooks",
        "https://ehr.example/hooks2",
        "https://ehr.example/hooks/../admin",
        "https://ehr.example/hooks/%2e%2e/admin",
        "https://ehr.example.evil.example/hooks",
        "https://ehr.example@evil.example/hooks",
        "https://evil.example\\@ehr.example/hooks",
        "http://10.0.0.7/anything",
        "http://127.0.0.1/hook",
        "http://localhost/hook",
        "ftp://ehr.example/hooks",
        "https://ehr.example/hooks#x",
        "https://ehr.example:0/hooks",
        "https://[ehr/hooks",
        "https://ehr.example/ho oks",
        "",
    ],
)
def test_what_is_not_listed_is_refused(url: str) -> None:
    """However it is written."""
    assert LISTED.refusal(url)


def test_this_machine_alone_where_it_is_allowed() -> None:
    """By its very names; a name that leads here today may lead elsewhere tomorrow."""
    assert LOOPBACK.refusal("http://127.0.0.1:9000/x") is None
    assert LOOPBACK.refusal("http://[::1]:9000/x") is None
    assert LOOPBACK.refusal("http://localhost:9000/x") is None
    assert LOOPBACK.refusal("http://localhost.example/x")
    assert LOOPBACK.refusal("http://169.254.169.254/latest")
    assert LOOPBACK.refusal("http://0.0.0.0/x")


def test_a_destination_without_the_patient_is_never_told() -> None:
    """What is told of a subscription names the patient; another path of the same host is another's."""
    rule = AllowedEndpoints(("https://ehr.example",), with_loopback=False, without_patient=("https://ehr.example/r4",))

    assert rule.refusal("https://ehr.example/r4/hook")
    assert rule.refusal("https://ehr.example/hooks") is None
