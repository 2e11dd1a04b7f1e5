"""A page of resources -> Bundle, joined from the bytes as they are stored."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson

from fhir_facade.search import Page, Search


def searchset(base: str, search: Search, page: Page) -> bytes:
    """Return the Bundle.

    Parameters
    ----------
    base
        Address of this FHIR server, without a slash at the end.
    """
    address = f"{base}/{search.resource_type}"
    links = [{"relation": "self", "url": _url(address, search.understood)}]
    if page.next_page is not None:
        links.append({"relation": "next", "url": _url(address, (*search.understood, ("_page", page.next_page)))})
    head = {"resourceType": "Bundle", "type": "searchset"} | ({} if page.total is None else {"total": page.total})
    head_bytes = orjson.dumps(head | {"link": links})
    if not page.rows:
        return head_bytes
    entries = b",".join(_entry(f"{address}/{row.resource_id}", row.body) for row in page.rows)
    return head_bytes[:-1] + b',"entry":[' + entries + b"]}"


def _entry(address: str, body: bytes) -> bytes:
    return b'{"fullUrl":%b,"resource":%b,"search":{"mode":"match"}}' % (orjson.dumps(address), body)


def _url(address: str, pairs: tuple[tuple[str, str], ...]) -> str:
    return f"{address}?{urlencode(pairs)}" if pairs else address
