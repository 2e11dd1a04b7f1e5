"""A report becomes ORU^R01: what the status of each result says, and what stands in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.exchange.oru import Parties, oru
from gateway.exchange.report import Report

CODE = {"coding": [{"system": "http://loinc.org", "code": "30745-4", "display": "XR Chest Views"}]}


def statuses(status: str, **observation: Any) -> dict[str, list[str]]:
    """Return OBR-25 and OBX-11 of a report with one observation, both of this status."""
    head = {"status": status, "code": CODE}
    made = [
        {"resourceType": "DiagnosticReport", "id": "r", "conclusion": "Said", **head},
        {"resourceType": "Observation", "id": "o", **head, **observation},
    ]
    sent = oru(Report("j", "1.2.3", made), Parties("US", ""), "ID", datetime(2026, 3, 2, tzinfo=UTC))
    assert sent is not None
    segments = [each.split("|") for each in sent.decode().split("\r")]
    return {
        "OBR": [each[25] for each in segments if each[0] == "OBR"],
        "OBX": [each[11] for each in segments if each[0] == "OBX"],
    }


@pytest.mark.parametrize(
    ("status", "report", "results"),
    [("preliminary", "P", "P"), ("final", "F", "F"), ("amended", "C", "C"), ("entered-in-error", "X", "W")],
)
def test_a_status_is_told_as_its_table_knows_it(status: str, report: str, results: str) -> None:
    """What was rejected is 'wrong' (table 0085) beside the value that was sent, not 'no result'."""
    component = {"code": CODE, "valueString": "By the algorithm one of: a, b."}

    assert statuses(status, valueCodeableConcept=CODE, component=[component]) == {"OBR": [report], "OBX": [results] * 3}


def test_what_has_no_value_has_no_result_unless_it_was_wrong_to_say_so() -> None:
    """Not evaluable is X of table 0085; that, rejected, is W."""
    absent = {"text": "not evaluable"}

    assert statuses("final", dataAbsentReason=absent)["OBX"] == ["F", "X"]
    assert statuses("entered-in-error", dataAbsentReason=absent)["OBX"] == ["W", "W"]
