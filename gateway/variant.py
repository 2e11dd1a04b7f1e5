"""What a destination wants otherwise than the default rendering, and which kinds of object it takes (pure)."""

from __future__ import annotations

from gateway.config import Destination


def variant_name(destination: Destination) -> str:
    """Return '' for the default rendering, else the options that differ, for example 'seg=LABELMAP'."""
    differing = []
    if destination.sr_title != Destination.model_fields["sr_title"].default:
        differing.append(f"sr={destination.sr_title}")
    if destination.seg_encoding != Destination.model_fields["seg_encoding"].default:
        differing.append(f"seg={destination.seg_encoding}")
    return ",".join(differing)


def takes(destination: Destination, kind: str) -> bool:
    """Say whether a destination takes objects of a kind such as 'sr-findings', 'seg' or 'heatmap-pneumonia'.

    A 'note-…', which withdraws objects, goes to all.
    """
    family = kind.partition("-")[0]
    return family == "note" or family in destination.send
