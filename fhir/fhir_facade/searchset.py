"""Resources -> Bundle, joined from the bytes as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

import orjson

from fhir_facade.include import LARGEST_INCLUDED
from fhir_facade.query import Search
from fhir_facade.search import Page
from fhir_facade.stored import Stored
from fhir_facade.summary import is_whole, subset

_CUT = {
    "resourceType": "OperationOutcome",
    "issue": [
        {
            "severity": "warning",
            "code": "too-costly",
            "diagnostics": f"more than {LARGEST_INCLUDED} resources go along with this page: the others are left out",
        }
    ],
}


def searchset(base: str, search: Search, page: Page) -> bytes:
    """Return the Bundle of a search.

    Parameters
    ----------
    base
        Address of this FHIR server, without a slash at the end.
    """
    address = f"{base}/{search.path}" if search.path else base
    links = [{"relation": "self", "url": _url(address, search.understood)}]
    if page.next_page is not None:
        links.append({"relation": "next", "url": _url(address, (*search.understood, ("_page", page.next_page)))})
    head = {"resourceType": "Bundle", "type": "searchset"} | ({} if page.total is None else {"total": page.total})
    entries = [
        *(_entry(base, each, b"match", search) for each in page.found),
        *(_entry(base, each, b"include", search) for each in page.included),
    ]
    if page.is_cut:
        entries.append(b'{"resource":%b,"search":{"mode":"outcome"}}' % orjson.dumps(_CUT))
    return joined(head | {"link": links}, entries)


def joined(head: object, entries: Iterable[bytes]) -> bytes:
    """Return a Bundle of these entries."""
    inside = b",".join(entries)
    head_bytes = orjson.dumps(head)
    return head_bytes[:-1] + b',"entry":[' + inside + b"]}" if inside else head_bytes


def _entry(base: str, each: Stored, mode: bytes, search: Search) -> bytes:
    body = each.body
    if not is_whole(search.summary, search.elements):
        body = subset(body, each.type, search.summary, search.elements)
    address = orjson.dumps(f"{base}/{each.type}/{each.resource_id}")
    return b'{"fullUrl":%b,"resource":%b,"search":{"mode":"%b"}}' % (address, body, mode)


def _url(address: str, pairs: Sequence[tuple[str, str]]) -> str:
    return f"{address}?{urlencode(pairs)}" if pairs else address
