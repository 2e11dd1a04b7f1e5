"""Write the page of the FHIR server from its own CapabilityStatement: `python -m deploy.check.fhir_capability`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir_facade.query import _CONTROL as OF_RESULTS

from deploy.check.facts import FHIR_ADDRESS, gather
from deploy.check.page import DEPLOY, page, table, write

PAGE = DEPLOY / "fhir-capability.md"
_INTERACTIONS = (
    ("read", "read"),
    ("vread", "vread"),
    ("history-instance", "history"),
    ("search-type", "search"),
    ("create", "create"),
    ("update", "update"),
    ("patch", "patch"),
    ("delete", "delete"),
)
"""Columns of the table of resources; history-type goes with history-instance, which the page says."""
_HELD = "history-type"


def statement() -> str:
    """Return the page."""
    return page(_lines(gather().capability))


def _lines(capability: Mapping[str, Any]) -> Iterator[str]:
    rest = capability["rest"][0]
    resources = rest["resource"]
    yield "# FHIR capability statement"
    yield ""
    yield "Made by `python -m deploy.check.fhir_capability` from what the program answers to `GET /fhir/metadata`: edit"
    yield f"that, not this page. `{FHIR_ADDRESS}` stands for the address of the installation."
    yield ""
    yield "## Overview"
    yield ""
    yield from table(("item", "value"), _overview(capability, rest))
    yield ""
    yield "## Resources"
    yield ""
    yield from table(
        ("resource", *(name for _, name in _INTERACTIONS), "conditional create", "operations"),
        (_row(each) for each in resources),
    )
    yield ""
    yield _about_history(resources)
    yield ""
    yield "## Search parameters of all resources"
    yield ""
    common = [each["name"] for each in rest["searchParam"]]
    yield "Of what is searched: " + ", ".join(f"`{name}`" for name in common) + "."
    yield ""
    yield "Of the answer: " + ", ".join(f"`{name}`" for name in OF_RESULTS) + "."
    yield ""
    yield "Others are passed over and left out of the self link, unless the caller says `Prefer: handling=strict`,"
    yield "which makes them an error."
    for each in resources:
        yield from _searches(each, common)


def _overview(capability: Mapping[str, Any], rest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "software", f"{capability['software']['name']} {capability['software']['version']}"
    yield "FHIR version", capability["fhirVersion"]
    yield "formats", ", ".join(f"`{each}`" for each in capability["format"])
    yield "implementation guides", ", ".join(f"<{each}>" for each in capability["implementationGuide"])
    yield "interactions of the system", ", ".join(each["code"] for each in rest["interaction"])
    yield "operations of the system", _operations(rest)
    yield "compartments", ", ".join(each.rpartition("/")[2] for each in rest["compartment"])
    yield "access", rest["security"]["description"]
    yield "remarks", rest["documentation"]


def _row(resource: Mapping[str, Any]) -> tuple[str, ...]:
    codes = {each["code"] for each in resource["interaction"]}
    is_conditional = "yes" if resource.get("conditionalCreate") else ""
    marks = ("yes" if code in codes else "" for code, _ in _INTERACTIONS)
    return (resource["type"], *marks, is_conditional, _operations(resource))


def _about_history(resources: Sequence[Mapping[str, Any]]) -> str:
    without = [each["type"] for each in resources if _HELD not in {one["code"] for one in each["interaction"]}]
    return f"History is that of one resource and of a type. Without versions and searches: {', '.join(without)}."


def _operations(part: Mapping[str, Any]) -> str:
    return ", ".join(f"`${each['name']}`" for each in part.get("operation", ()))


def _searches(resource: Mapping[str, Any], common: Sequence[str]) -> Iterator[str]:
    own = [each for each in resource.get("searchParam", ()) if each["name"] not in common]
    if not own:
        return
    yield ""
    yield f"## {resource['type']}"
    yield ""
    rows = ((f"`{each['name']}`", each["type"], each.get("documentation", _source(each["definition"]))) for each in own)
    yield from table(("search parameter", "type", "meaning"), rows)
    for name, title in (("searchInclude", "`_include`"), ("searchRevInclude", "`_revinclude`")):
        if resource.get(name):
            yield ""
            yield f"{title}: " + ", ".join(f"`{each}`" for each in resource[name])


def _source(definition: str) -> str:
    """Return which definition of the standard holds."""
    return f"as in the standard: `{definition.rpartition('/')[2]}`"


def main() -> None:
    """Write the page."""
    write(PAGE, statement())


if __name__ == "__main__":
    main()
