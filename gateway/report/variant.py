"""What a destination wants otherwise than the default rendering, and which kinds of object it takes."""

from __future__ import annotations

from gateway.config import Destination
from gateway.report.identity import RenderOptions
from inference.findings import Code

_SR_TITLES = {
    "imaging-measurement-report": Code("126000", "DCM", "Imaging Measurement Report"),
    "imaging-report": Code("126001", "DCM", "Oncology Measurement Report"),
}
"""CID 7021; the second is the one that viewers show as text where they cannot show the first."""


def variant_name(destination: Destination) -> str:
    """Return '' for the default rendering, else the options that differ, for example 'seg=LABELMAP'."""
    differing = []
    if destination.sr_title != Destination.model_fields["sr_title"].default:
        differing.append(f"sr={destination.sr_title}")
    if destination.seg_encoding != Destination.model_fields["seg_encoding"].default:
        differing.append(f"seg={destination.seg_encoding}")
    return ",".join(differing)


def options_for(destination: Destination) -> RenderOptions:
    """Return the rendering options of a destination."""
    return RenderOptions(sr_title=_SR_TITLES[destination.sr_title], seg_encoding=destination.seg_encoding)


def takes(destination: Destination, kind: str) -> bool:
    """Say whether a destination takes objects of a kind such as 'sr-findings', 'seg' or 'heatmap-pneumonia'."""
    return kind.partition("-")[0] in destination.send
