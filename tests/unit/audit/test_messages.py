"""Audit messages are what the schema of PS3.15 A.5.1 says, whatever strangers put into them."""

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from gateway.audit import acts
from gateway.audit.dicom_xml import AuditSource, audit_message
from gateway.audit.event import AuditEvent, decode, encode
from gateway.audit.syslog import framed, syslog_message
from tests.auditing import FIND, MOVED, every_act

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[2] / "data" / "audit" / "audit-message.rng"))
SOURCE = AuditSource("HYBRIDMED", "Example Hospital")


def parsed(event: AuditEvent) -> etree._Element:
    """Return the message as an independent parser reads it."""
    return etree.fromstring(audit_message(event, SOURCE))


@pytest.mark.parametrize("event", every_act(), ids=lambda event: event.kind.value)
def test_every_act_is_valid(event: AuditEvent) -> None:
    """By the standard's schema; and an event survives its own encoding."""
    SCHEMA.assertValid(parsed(event))
    assert decode(encode(event)) == event


def test_the_schema_finds_what_is_wrong() -> None:
    """A message without its participants, and one with an action that does not exist, are refused."""
    message = parsed(every_act()[0])
    message.remove(message.find("ActiveParticipant"))

    assert not SCHEMA.validate(message)
    message = parsed(every_act()[0])
    message.find("EventIdentification").set("EventActionCode", "X")
    assert not SCHEMA.validate(message)


def test_instances_transferred_says_who_what_and_whom() -> None:
    """Source and destination with their roles, the study with counts, the patient's id, and no patient's name."""
    message = parsed(acts.transferred("HYBRIDMED", "CT1", MOVED, direction="in", address="192.0.2.1"))

    assert message.find("EventIdentification/EventID").get("csd-code") == "110104"
    roles = {
        each.get("UserID"): each.find("RoleIDCode").get("csd-code") for each in message.findall("ActiveParticipant")
    }
    assert roles == {"HYBRIDMED": "110152", "CT1": "110153"}
    objects = {each.get("ParticipantObjectID"): each for each in message.findall("ParticipantObjectIdentification")}
    assert set(objects) == {"1.2.3", "P1"}
    assert objects["1.2.3"].find("ParticipantObjectDescription/SOPClass").get("NumberOfInstances") == "3"
    assert objects["P1"].findtext("ParticipantObjectName") == ""


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_what_strangers_send_stays_valid(name: str, query: str) -> None:
    """AE titles, addresses and queries of any characters, NUL and lone surrogates among them."""
    events = [acts.refused_node(name, query, "calling AE"), acts.transferred("HYBRIDMED", name, MOVED, direction="in")]

    for event in events:
        SCHEMA.assertValid(parsed(event))
        assert decode(encode(event)) == event


def test_a_query_keeps_its_identifier() -> None:
    """The data set that was asked with stands in the message, base64 as the schema wants."""
    message = parsed(acts.queried("HYBRIDMED", acts.peer("VIEWER"), FIND, b"\0\1", "1.2.840.10008.1.2"))

    assert base64.b64decode(message.findtext(".//ParticipantObjectQuery")) == b"\0\1"
    syntax = message.find(".//ParticipantObjectDetail[@type='TransferSyntax']").get("value")
    assert base64.b64decode(syntax) == b"1.2.840.10008.1.2"


def test_the_syslog_frame_is_that_of_rfc_5424_and_5425() -> None:
    """Length in octets, priority 85 (security, notice), version 1, message id of PS3.15, a BOM before the XML."""
    event = every_act()[0]
    message = syslog_message(audit_message(event, SOURCE), event.recorded_at)
    head, bom, xml = message.partition(b"\xef\xbb\xbf")

    fields = head.decode("ascii").split(" ")
    assert fields[0] == "<85>1"
    assert fields[3:] == ["hybridmed", fields[4], "DICOM+RFC3881", "-", ""]
    assert bom
    SCHEMA.assertValid(etree.fromstring(xml))
    assert framed(message) == str(len(message)).encode() + b" " + message
