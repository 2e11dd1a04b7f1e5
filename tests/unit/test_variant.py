"""What a destination wants otherwise."""

import pytest

from gateway.config import Destination
from gateway.variant import takes, variant_name


@pytest.mark.parametrize(
    ("wishes", "name"),
    [
        ({}, ""),
        ({"seg_encoding": "LABELMAP"}, "seg=LABELMAP"),
        (
            {"sr_title": "oncology-measurement-report", "seg_encoding": "LABELMAP"},
            "sr=oncology-measurement-report,seg=LABELMAP",
        ),
    ],
)
def test_a_variant_is_named_by_what_differs(wishes: dict[str, str], name: str) -> None:
    """Destinations with the same wishes share one rendering; the name fits its column."""
    destination = Destination(name="PACS", address="PACS@127.0.0.1:104", **wishes)  # type: ignore[arg-type] # by name

    assert variant_name(destination) == name
    assert len(name) <= 64


def test_kinds_are_taken_by_their_family() -> None:
    """Every SR and every heat map, whatever its class; a picture is no DICOM object."""
    destination = Destination(name="PACS", address="PACS@127.0.0.1:104", send=("sr", "heatmap"))

    kinds = ["sr-findings", "sr-measurements", "seg", "heatmap-viral", "picture-overlay"]

    assert [kind for kind in kinds if takes(destination, kind)] == ["sr-findings", "sr-measurements", "heatmap-viral"]
