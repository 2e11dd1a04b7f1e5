"""C-STORE commands by hand: what pynetdicom makes of the same bytes."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import RE_VALID_UID, UID
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from gateway.receive.command import LARGEST_RESPONSE, answered_uid, encode_store_response, parse_store_request
from tests.receiving import CT


def _request(**fields: object) -> bytes:
    primitive = C_STORE()
    primitive.MessageID = 7
    primitive.AffectedSOPClassUID = UID(CT)
    primitive.AffectedSOPInstanceUID = UID("1.2.3")
    primitive.Priority = 2
    primitive.DataSet = BytesIO(b"\0\0")
    for name, value in fields.items():
        setattr(primitive, name, value)
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    return b"".join(
        value[1:]
        for part in message.encode_msg(1, 16384)
        for _, value in part.presentation_data_value_list
        if value[0] & 1
    )


@given(
    instance=st.from_regex(r"1\.[1-9][0-9]{0,8}(\.[1-9][0-9]{0,5}){0,4}", fullmatch=True),
    message_id=st.integers(0, 65535),
    priority=st.sampled_from([0, 1, 2]),
    is_of_move=st.booleans(),
)
def test_a_request_of_the_library_is_read(instance: str, message_id: int, priority: int, is_of_move: bool) -> None:
    """UIDs, message id, priority, the originator of a C-MOVE: all are understood."""
    more = {"MoveOriginatorApplicationEntityTitle": "MOVER", "MoveOriginatorMessageID": 3} if is_of_move else {}

    request = parse_store_request(
        _request(AffectedSOPInstanceUID=UID(instance), MessageID=message_id, Priority=priority, **more)
    )

    assert request is not None
    assert (request.message_id, request.sop_class_uid, request.sop_instance_uid) == (message_id, CT, instance)


@given(at=st.integers(0, 200), byte=st.integers(0, 255), end=st.integers(0, 200))
def test_a_broken_request_is_read_as_the_library_reads_it_or_left_to_it(at: int, byte: int, end: int) -> None:
    """A byte changed or the end cut off: never an exception, and never another meaning than the library's."""
    command = bytearray(_request())
    command[at % len(command)] = byte
    broken = bytes(command[: end or None])

    request = parse_store_request(broken)

    if request is not None:
        theirs = decode(BytesIO(broken), True, True)
        assert theirs.CommandField == 1
        assert theirs.MessageID == request.message_id
        assert theirs.get_item("AffectedSOPInstanceUID").value.rstrip(b"\0 ") == request.sop_instance_uid.encode()


@pytest.mark.parametrize(("status", "comment"), [(0, None), (0xA700, "disk full"), (0xC000, "c" * 64)])
def test_a_response_is_read_by_the_library(status: int, comment: str | None) -> None:
    """The library finds message id, UIDs, status and comment in it, in one PDU of the length that is promised."""
    pdu = encode_store_response(3, 7, (CT, "1.2.3"), status, comment)
    part, message = P_DATA_TF(), DIMSEMessage()
    part.decode(pdu)
    is_whole = message.decode_msg(part.to_primitive())
    response = message.message_to_primitive()

    assert is_whole
    assert isinstance(message, C_STORE_RSP)
    assert isinstance(response, C_STORE)
    assert (response.MessageIDBeingRespondedTo, response.Status) == (7, status)
    assert (response.AffectedSOPClassUID, response.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert (response.ErrorComment or None) == comment
    assert len(pdu) < LARGEST_RESPONSE


@given(st.text(alphabet="0123.0.1a\n", max_size=70) | st.from_regex(r"[0-2](\.[0-9]{1,8}){1,9}", fullmatch=True))
def test_only_standard_uids_are_answered(uid: str) -> None:
    """As pydicom takes them: no empty component, no leading zero, 64 characters at the most."""
    is_valid = len(uid) <= 64 and RE_VALID_UID.fullmatch(uid) is not None

    assert answered_uid(uid) == (uid if is_valid else "")
