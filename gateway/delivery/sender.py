"""What a way of sending has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One object to send."""

    kind: str
    """'sr-findings', 'seg', …; what an operator reads where it is refused."""
    path: Path
    """A Part 10 file."""
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str = ""


class Sender(Protocol):
    """Sends objects to one destination."""

    def send(self, objects: Sequence[Outgoing], /) -> None:
        """Send all; returns when the destination has answered each with success or a warning.

        Raises
        ------
        DestinationAwayError
            It does not answer, or takes nothing for now: the same call may succeed later.
        DeliveryError
            It answered, and refuses at least one object; the others were sent all the same.
        """
