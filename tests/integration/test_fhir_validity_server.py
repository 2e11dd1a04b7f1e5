"""What the FHIR server answers, checked by validators of R4, R5 and XML that share no code with what writes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fhir_facade.app import create_app

from gateway.store import Store
from tests.unit.fhir import cases, node
from tests.unit.web.serving import served

PATHS = (
    "/metadata",
    "/Patient?name=müller&_count=1",
    "/DiagnosticReport?_include=DiagnosticReport:subject&_include=DiagnosticReport:result",
    "/Media",
    "/ServiceRequest",
    "/Endpoint",
    "/Device?identifier=nobody",
    "/Patient/none",
    "/Patient?_nonsense:nonsense=1",
)


def apart(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a Bundle without its resources, and these beside it: R5 types tell nothing of what is in a Bundle."""
    inside = [each["resource"] for each in content.get("entry", ())]
    entries = [{name: value for name, value in each.items() if name != "resource"} for each in content.get("entry", ())]
    return [content | ({"entry": entries} if entries else {}), *inside]


def test_what_the_server_answers_is_valid(local_store: Store, tmp_path: Path) -> None:
    """CapabilityStatement, searchsets with and without entries and errors: R4, the same as XML, and R5."""
    for job_done in (cases.whole(cases.pneumonia()), cases.whole(cases.pneumonia(with_fine=False), revision=2)):
        cases.commit(local_store, job_done, replace(cases.RENDERER, site=cases.SITE))
    with served(create_app(local_store)) as client:
        r4, xml, r5 = (
            [client.get(path, headers={"Accept": f"application/fhir+{form}"}).text for path in PATHS]
            for form in ("json", "xml", "json; fhirVersion=5.0")
        )

    assert node.complaints([json.loads(each) for each in r4], tmp_path) == []
    assert node.complaints_of_r5([one for each in r5 for one in apart(json.loads(each))], tmp_path) == []
    as_text = [json.loads(each, parse_float=str, parse_int=str) for each in r4]
    theirs = node.convert([{"json": each, "xml": ours} for each, ours in zip(as_text, xml, strict=True)], tmp_path)
    for path, ours, each in zip(PATHS[1:], xml[1:], theirs[1:], strict=True):  # the first tells when it was made
        assert ElementTree.canonicalize(ours) == ElementTree.canonicalize(each["xml"], strip_text=True), path
