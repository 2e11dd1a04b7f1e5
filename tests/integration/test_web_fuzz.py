"""Broken requests over real connections, a few hundred: the short form of `python -m tests.fuzz --part http`."""

from pathlib import Path

from tests.fuzz.web import campaign, target

_INPUTS = 360


def test_broken_requests_are_answered_with_a_reason(tmp_path: Path) -> None:
    """DICOMweb, UPS-RS, FHIR and forms: no crash, no hang, no growth, no status 500, nothing unforeseen in the log."""
    with target.running(tmp_path / "web") as server:
        findings = campaign.run(server, 7, range(_INPUTS), lambda _next, _findings: True)

    assert findings.faults == []
    outcomes = findings.outcomes[campaign.PATH]
    assert sum(outcomes.values()) == _INPUTS
    assert all(outcomes[f"status {status}"] > 0 for status in (200, 400, 404, 409))
