"""Presentation contexts: the storage classes that are taken, and what is accepted of a proposal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

_RETIRED_IMAGES = ("1.2.840.10008.5.1.4.1.1.", "1.2.840.10008.5.1.4.34.1")


def storage_classes() -> frozenset[str]:
    """Return every Storage SOP class that pynetdicom knows, and the retired ones for what stands in archives."""
    retired = {
        uid
        for uid, (name, kind, _info, status, _keyword) in UID_dictionary.items()
        if kind == "SOP Class" and status and "Storage" in name and uid.startswith(_RETIRED_IMAGES)
    }
    return frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts) | retired


def supported_contexts(
    proposed: Sequence[PresentationContext],
    supported: Mapping[str, Collection[str]],
    roles: Mapping[UID, SCP_SCU_RoleSelectionNegotiation],
    storage_classes: Collection[str],
) -> list[PresentationContext]:
    """Return what we support of what is proposed, transfer syntaxes in the order of the proposal.

    pynetdicom takes the first of the acceptor's transfer syntaxes that was proposed, so the order decides. An abstract
    syntax that stands in several proposals gets their transfer syntaxes one after the other. Where the peer is to be
    the SCP of a storage class only, for the sub-operations of its C-GET, what it takes uncompressed comes first: any
    object can be sent so, and a compressed syntax fits only the objects that are stored in it.
    """
    orders: dict[str, dict[str, None]] = {}
    for context in proposed:
        uid = str(context.abstract_syntax)
        order = dict.fromkeys(str(one) for one in context.transfer_syntax if one in supported.get(uid, ()))
        if order:
            orders.setdefault(uid, {}).update(order)
    contexts = []
    for uid, order in orders.items():
        role = roles.get(UID(uid))
        is_to_receive = role is not None and bool(role.scp_role) and not role.scu_role
        context = build_context(uid, sorted(order, key=lambda one: is_to_receive and UID(one).is_compressed))
        if role is not None:  # SCP/SCU role selection, PS3.7 D.3.3.4: what we grant if it is asked for
            context.scu_role, context.scp_role = True, uid in storage_classes
        contexts.append(context)
    return contexts
