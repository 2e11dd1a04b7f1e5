"""What a Storage SCP's status means for us (PS3.4 table B.2-1, PS3.7 annex C)."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import DeliveryError, DestinationAwayError

_DUPLICATE_INSTANCE = 0x0111
_WARNING = 0xB
_CANNOT_UNDERSTAND = 0xC
_OUT_OF_RESOURCES = 0xA7
_MEANINGS = {
    0x0110: "processing failure",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
}
_FAMILIES = {0xA900: "data set does not match SOP class", 0xC000: "cannot understand"}


def is_stored(status: int) -> bool:
    """Say whether the peer holds the object: success, a warning, or it had it already (what we send never changes)."""
    return status in {0x0000, _DUPLICATE_INSTANCE} or status >> 12 == _WARNING


def is_out_of_resources(status: int) -> bool:
    """Say whether the peer may take the object later (A7xx)."""
    return status >> 8 == _OUT_OF_RESOURCES


def raise_for(refused: Mapping[str, int | None]) -> None:
    """Raise what the answers to some objects amount to; nothing where `refused` is empty.

    Parameters
    ----------
    refused
        Kind of object -> status; None where the peer accepts no such object.
    """
    if not refused:
        return
    text = "; ".join(f"{kind}: {_meaning(status)}" for kind, status in refused.items())
    if all(status is not None and is_out_of_resources(status) for status in refused.values()):
        raise DestinationAwayError(f"out of resources ({text})")
    raise DeliveryError(f"refused {text}")


def _meaning(status: int | None) -> str:
    if status is None:
        return "such objects are not accepted"
    family = status & (0xF000 if status >> 12 == _CANNOT_UNDERSTAND else 0xFF00)
    words = _MEANINGS.get(status) or _FAMILIES.get(family)
    return f"status {status:04X}" + (f", {words}" if words else "")
