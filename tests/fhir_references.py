"""References in FHIR resources, and whether they lead anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx

_OURS = re.compile(r"[A-Z]\w+/[A-Za-z0-9.-]{1,64}(/_history/\d+)?")


def references(element: Any) -> Iterator[str]:
    """Yield what an element refers to on its own server: references, and addresses of attachments."""
    if isinstance(element, list):
        for each in element:
            yield from references(each)
    elif isinstance(element, dict):
        for name in ("reference", "url"):
            text = element.get(name)
            if isinstance(text, str) and _OURS.fullmatch(text):
                yield text
        for value in element.values():
            yield from references(value)


def broken(client: httpx.Client, types: list[str]) -> tuple[set[str], list[str]]:
    """Return the types that are held, and the references in any version of any resource that lead nowhere."""
    held: set[str] = set()
    named: dict[str, str] = {}
    for resource_type in types:
        address: str | None = f"/{resource_type}/_history?_count=500"
        while address is not None:
            bundle = client.get(address).json()
            for entry in bundle.get("entry", ()):
                held.add(resource_type)
                named |= {each: entry["fullUrl"] for each in references(entry.get("resource", {}))}
            links = {link["relation"]: link["url"] for link in bundle["link"]}
            address = links.get("next")
    return held, [f"{where} -> {name}" for name, where in named.items() if client.get(f"/{name}").status_code != 200]
