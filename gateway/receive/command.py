"""C-STORE request and response by hand (PS3.7 9.3.1); whatever is not plain is left to pynetdicom."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_ELEMENT = struct.Struct("<HHL")
_SHORT = struct.Struct("<H")
_PDV_IN_PDU = struct.Struct(">BxLLBB")
_GROUP_LENGTH, _SOP_CLASS_UID, _COMMAND_FIELD, _MESSAGE_ID = 0x0000, 0x0002, 0x0100, 0x0110
_RESPONDED_TO, _PRIORITY, _DATA_SET_TYPE, _STATUS, _COMMENT = 0x0120, 0x0700, 0x0800, 0x0900, 0x0902
_SOP_INSTANCE_UID, _MOVE_ORIGINATOR, _MOVE_MESSAGE_ID = 0x1000, 0x1030, 0x1031
_KNOWN = {
    *(_GROUP_LENGTH, _SOP_CLASS_UID, _COMMAND_FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE),
    *(_SOP_INSTANCE_UID, _MOVE_ORIGINATOR, _MOVE_MESSAGE_ID),
}
_SHORTS = {_COMMAND_FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE, _MOVE_MESSAGE_ID}
_C_STORE_RQ, _C_STORE_RSP, _NO_DATA_SET = 0x0001, 0x8001, 0x0101
_P_DATA_TF, _LAST_OF_COMMAND = 4, 3
_LONGEST_UID = 64
_NOT_IN_UID = re.compile(r"[^0-9.]|(?:^|\.)(?:\.|0[0-9]|$)")
LARGEST_RESPONSE = 512
"""No response takes more bytes of P-DATA: two UIDs, a comment of 64 characters, fixed fields."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """The command of a C-STORE whose data set follows."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


def parse_store_request(command: bytes) -> StoreRequest | None:
    """Return a plain C-STORE-RQ with a data set; None where the library shall look at it.

    Plain is: ascending elements of PS3.7 table 9.3-1 only, each within the command, UIDs in ASCII.
    """
    values: dict[int, bytes] = {}
    position, last = 0, -1
    while position < len(command):
        if position + 8 > len(command):
            return None
        group, number, length = _ELEMENT.unpack_from(command, position)
        position += 8 + length
        if group or number <= last or number not in _KNOWN or position > len(command):
            return None
        last = number
        values[number] = command[position - length : position]
        if number in _SHORTS and length != 2:  # noqa: PLR2004 # US
            return None
    try:
        field, message_id, data_set_type = (
            _SHORT.unpack(values[number])[0] for number in (_COMMAND_FIELD, _MESSAGE_ID, _DATA_SET_TYPE)
        )
        sop_class_uid, sop_instance_uid = (
            values[number].rstrip(b"\0 ").decode("ascii") for number in (_SOP_CLASS_UID, _SOP_INSTANCE_UID)
        )
    except (KeyError, UnicodeDecodeError):
        return None
    is_plain = field == _C_STORE_RQ and data_set_type != _NO_DATA_SET
    return StoreRequest(message_id, sop_class_uid, sop_instance_uid) if is_plain else None


def answered_uid(uid: str) -> str:
    """Return a UID as a response may hold it; '' for one that PS3.5 9.1 does not allow."""
    return uid if len(uid) <= _LONGEST_UID and not _NOT_IN_UID.search(uid) else ""


def encode_store_response(
    context_id: int, message_id: int, uids: tuple[str, str], status: int, comment: str | None
) -> bytes:
    """Return a whole P-DATA-TF PDU with a C-STORE-RSP.

    Parameters
    ----------
    context_id
        Presentation context of the request.
    message_id
        Of the request.
    uids
        Affected SOP Class and SOP Instance UID; '' is left out.
    status
        PS3.4 table B.2-1.
    comment
        Error Comment in ASCII.
    """
    sop_class_uid, sop_instance_uid = uids
    body = b"".join(
        (
            _element(_SOP_CLASS_UID, sop_class_uid.encode("ascii")) if sop_class_uid else b"",
            _element(_COMMAND_FIELD, _SHORT.pack(_C_STORE_RSP)),
            _element(_RESPONDED_TO, _SHORT.pack(message_id)),
            _element(_DATA_SET_TYPE, _SHORT.pack(_NO_DATA_SET)),
            _element(_STATUS, _SHORT.pack(status)),
            _element(_COMMENT, comment.encode("ascii")[:_LONGEST_UID], pad=b" ") if comment else b"",
            _element(_SOP_INSTANCE_UID, sop_instance_uid.encode("ascii")) if sop_instance_uid else b"",
        )
    )
    command = _element(_GROUP_LENGTH, struct.pack("<L", len(body))) + body
    return _PDV_IN_PDU.pack(_P_DATA_TF, len(command) + 6, len(command) + 2, context_id, _LAST_OF_COMMAND) + command


def _element(number: int, value: bytes, pad: bytes = b"\0") -> bytes:
    if len(value) % 2:
        value += pad
    return _ELEMENT.pack(0, number, len(value)) + value
