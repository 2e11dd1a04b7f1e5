"""JSON becomes XML and XML JSON, by the order of the definitions, without a loss and within bounds."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from fhir_facade.negotiation import Representation
from fhir_facade.outcome import InvalidError, NotAcceptableError
from fhir_facade.representation import represent
from fhir_facade.xml_reader import read_xml

XML = Representation("xml")
NARRATIVE = '<div xmlns="http://www.w3.org/1999/xhtml"><p class="a">x &amp; <b>y</b></p><br/></div>'
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "meta": {"versionId": "1", "security": [{"code": "AIAST"}]},
    "text": {"status": "generated", "div": NARRATIVE},
    "contained": [{"resourceType": "Organization", "id": "o", "active": True}],
    "extension": [{"url": "http://e.example/x", "valueDecimal": 1.50}],
    "name": [
        {
            "family": "O'\"N<e>&il\n",
            "given": ["Ann", None, "Lee"],
            "_given": [None, {"extension": [{"url": "u", "valueCode": "c"}]}, {"id": "third"}],
        }
    ],
    "gender": "female",
    "_birthDate": {"extension": [{"url": "absent", "valueBoolean": False}]},
    "multipleBirthInteger": 2,
}


def test_a_resource_survives_the_way_to_xml_and_back() -> None:
    """Primitive extensions, gaps in lists, narrative, contained resources, attributes and special characters."""
    assert json.loads(read_xml(represent(orjson.dumps(PATIENT), XML))) == PATIENT


def test_elements_stand_in_the_order_of_the_definitions() -> None:
    """XML has an order, whatever the order of the JSON."""
    turned = dict(reversed(PATIENT.items()))

    assert represent(orjson.dumps(turned), XML) == represent(orjson.dumps(PATIENT), XML)


def test_decimals_keep_their_digits() -> None:
    """0.010 is not 0.01 (R4 datatypes, decimal), neither in XML nor in JSON set out for reading."""
    body = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":0.010}}'

    xml = represent(body, XML)

    assert b'<value value="0.010"/>' in xml
    assert read_xml(xml) == body
    assert b'"value": 0.010' in represent(body, Representation(is_pretty=True))


def test_what_is_stored_is_handed_on_untouched() -> None:
    """The usual answer costs nothing."""
    body = b'{ "resourceType" : "Patient" }'

    assert represent(body, Representation()) is body


def test_pretty_xml_is_the_same_resource() -> None:
    """Lines and indents change nothing."""
    pretty = represent(orjson.dumps(PATIENT), Representation("xml", is_pretty=True))

    assert pretty.count(b"\n") > 10
    assert json.loads(read_xml(pretty)) == PATIENT


def test_characters_that_xml_cannot_hold_are_left_out() -> None:
    """A client's NUL in a stored name makes no broken document."""
    xml = represent(b'{"resourceType":"Patient","name":[{"family":"a\\u0000b\\ufffe"}]}', XML)

    assert json.loads(read_xml(xml))["name"] == [{"family": "ab"}]


ENTITIES = '<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
BOMB = f'{ENTITIES}<Patient xmlns="http://hl7.org/fhir"><id value="&b;"/></Patient>'
PREFIX, SUFFIX = '<Patient xmlns="http://hl7.org/fhir">', "</Patient>"


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<",
        "{}",
        BOMB,
        '<!DOCTYPE Patient SYSTEM "http://e.example/x.dtd"><Patient xmlns="http://hl7.org/fhir"/>',
        '<Patient xmlns="http://other.example"/>',
        '<Nonsense xmlns="http://hl7.org/fhir"/>',
        f"{PREFIX}<nonsense value='1'/>{SUFFIX}",
        f"{PREFIX}<gender value='male'/><gender value='male'/>{SUFFIX}",
        f"{PREFIX}<gender/>{SUFFIX}",
        f"{PREFIX}<gender valeu='male'/>{SUFFIX}",
        f"{PREFIX}<active value='yes'/>{SUFFIX}",
        f"{PREFIX}<multipleBirthInteger value='NaN'/>{SUFFIX}",
        f"{PREFIX}<contained/>{SUFFIX}",
        PREFIX + "<extension url='u'>" * 200 + "</extension>" * 200 + SUFFIX,
        f"{PREFIX}<text><status value='generated'/><div>no name space</div></text>{SUFFIX}",
    ],
)
def test_what_is_no_resource_is_refused(document: str) -> None:
    """Broken XML, entities, depth, unknown elements and wrong values: an error that names it, and nothing worse."""
    with pytest.raises(InvalidError):
        read_xml(document.encode())


def test_a_type_without_a_form_in_r5_is_refused() -> None:
    """Better 406 than an R4 resource that calls itself R5: a Subscription to what has no topic."""
    plain = b'{"resourceType":"Subscription","criteria":"Device","channel":{"type":"rest-hook"}}'
    with pytest.raises(NotAcceptableError, match="Subscription"):
        represent(plain, Representation("json", "5.0"))
