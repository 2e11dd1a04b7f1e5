"""The worklist as a whole: what UPS-RS and DIMSE are given."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.workitem.service import Workitems
from gateway.workitem.subscribing import Subscribing


@dataclass(frozen=True, slots=True)
class Worklist:
    """What answers, and who it says it is."""

    workitems: Workitems
    subscribing: Subscribing
    ae_title: str
