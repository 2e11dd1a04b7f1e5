"""SOP Class Extended Negotiation of the Query/Retrieve services (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.query_retrieve.model import MODELS

if TYPE_CHECKING:
    from pynetdicom import evt
    from pynetdicom.association import Association

_FIND = frozenset(model.find for model in MODELS)
_RETRIEVE = frozenset(uid for model in MODELS for uid in (model.move, model.get))
_RELATIONAL, _COMBINED, _FUZZY = 0, 1, 2
"""Bytes of the application information of C-FIND; the first one is that of C-MOVE and C-GET too."""


def negotiate(event: evt.Event) -> dict[str, bytes]:
    """Grant what is asked for and offered: relational queries and retrievals, date and time as one, fuzzy names."""
    granted: dict[str, bytes] = {}
    for uid, asked in event.app_info.items():  # type: ignore[attr-defined] # of this event
        if uid in _FIND or uid in _RETRIEVE:
            offered = {_RELATIONAL, _COMBINED, _FUZZY} if uid in _FIND else {_RELATIONAL}
            granted[str(uid)] = bytes(int(bool(byte) and at in offered) for at, byte in enumerate(asked))
    return granted


def is_relational(association: Association, sop_class_uid: str) -> bool:
    """Say whether unique keys of higher levels may be left out."""
    return _is_granted(association, sop_class_uid, _RELATIONAL)


def is_combined(association: Association, sop_class_uid: str) -> bool:
    """Say whether ranges of a date and of its time are one range (PS3.4 C.2.2.2.5)."""
    return _is_granted(association, sop_class_uid, _COMBINED)


def is_fuzzy(association: Association, sop_class_uid: str) -> bool:
    """Say whether names are to be matched by words."""
    return _is_granted(association, sop_class_uid, _FUZZY)


def _is_granted(association: Association, sop_class_uid: str, at: int) -> bool:
    for uid, granted in association.acceptor.sop_class_extended.items():
        if uid == sop_class_uid:
            return granted[at : at + 1] == b"\1"
    return False
