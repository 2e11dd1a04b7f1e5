"""What the statuses of a Storage SCP amount to."""

import pytest

from gateway.delivery.status import is_stored, raise_for
from gateway.errors import DeliveryError, DestinationAwayError


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_success_warnings_and_duplicates_are_stored(status: int) -> None:
    """The peer holds the object."""
    assert is_stored(status)


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0xC123, 0x0122, 0x0124, 0x0110])
def test_everything_else_is_not_stored(status: int) -> None:
    """Neither failures nor refusals count as delivered."""
    assert not is_stored(status)


def test_a_peer_out_of_resources_is_tried_again() -> None:
    """A full disk is mended without us: for ever, like a peer that is away."""
    with pytest.raises(DestinationAwayError, match="A701"):
        raise_for({"seg": 0xA701})


@pytest.mark.parametrize(
    ("status", "words"),
    [(0xA900, "A900, data set does not match"), (0xC123, "C123, cannot understand"), (None, "not accepted")],
)
def test_a_refusal_names_object_and_meaning(status: int | None, words: str) -> None:
    """An operator reads what was refused, and as what."""
    with pytest.raises(DeliveryError, match=f"seg: .*{words}"):
        raise_for({"seg": status})


def test_one_refusal_for_good_outweighs_a_full_disk() -> None:
    """Otherwise the refused object would be sent for ever."""
    with pytest.raises(DeliveryError):
        raise_for({"seg": 0xA700, "sr-findings": 0xC000})


def test_no_refusal_is_no_error() -> None:
    """All stored."""
    raise_for({})
