"""What clients write into workitems can always be written again, as JSON and as a data set."""

from __future__ import annotations

from typing import Any

import pytest
from pynetdicom.dsutils import encode

from gateway.workitem.model import dataset_of, read_content
from gateway.workitem.refusal import WorkitemError

ROWS, NUMBER, PROGRESS, TEXT = "00280010", "00200013", "00741004", "00741238"
FLOATING, DOUBLE, AE_TITLE, STATE = "00089459", "00720074", "00741236", "00741000"


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (ROWS, -1),
        (ROWS, 1 << 16),
        (ROWS, 1.5),
        (ROWS, "1"),
        (NUMBER, "one"),
        (NUMBER, 1.5),
        (NUMBER, "٣"),
        (PROGRESS, "half"),
        (PROGRESS, "nan"),
        (PROGRESS, True),
        (FLOATING, 1e300),
        (DOUBLE, float("inf")),
        (DOUBLE, float("nan")),
        (DOUBLE, 10**400),
        (AE_TITLE, "STÄTION"),
        (STATE, "\ud800"),
    ],
)
def test_a_value_that_no_data_set_can_hold_is_refused(tag: str, value: object) -> None:
    """It would else make every search over DIMSE fail that finds it, and every event that tells of it."""
    item = {"00741002": {"vr": "SQ", "Value": [{tag: {"vr": "LT", "Value": [value]}}]}}

    with pytest.raises(WorkitemError):
        read_content(item)


@pytest.mark.parametrize(
    ("tag", "value"),
    [(ROWS, 65535), (NUMBER, "-12"), (PROGRESS, 12.5), (PROGRESS, "1e-3"), (FLOATING, 1e38), (DOUBLE, -1e300)],
)
def test_a_value_that_fits_is_taken(tag: str, value: Any) -> None:
    """It is in the JSON model as it came, a decimal string as text, and a data set holds it."""
    content = read_content({tag: {"vr": "UN", "Value": [value]}})

    assert float(content[tag]["Value"][0]) == float(value)
    assert encode(dataset_of(content), False, True)
