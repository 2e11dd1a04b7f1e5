"""QIDO-RS: what the gateway holds (PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.query import Level, Match, Query, find
from gateway.query.attributes import SERIES_UID, SOP_INSTANCE_UID, STUDY_UID
from gateway.store import Store
from gateway.web.dicomweb.dicom_json import data_set
from gateway.web.dicomweb.multipart import new_boundary
from gateway.web.dicomweb.native_xml import multipart_type, xml_message
from gateway.web.dicomweb.negotiation import DICOM_XML, chosen_model
from gateway.web.dicomweb.parameters import MOST_MATCHES, Asked, read_parameters
from gateway.web.dicomweb.target import base_url

_PARENTS = {"study": STUDY_UID, "series": SERIES_UID}
_PATHS: Mapping[str, Level] = {
    "/studies": "STUDY",
    "/series": "SERIES",
    "/instances": "IMAGE",
    "/studies/{study}/series": "SERIES",
    "/studies/{study}/instances": "IMAGE",
    "/studies/{study}/series/{series}/instances": "IMAGE",
}
_CUT = "The number of results exceeded the maximum supported by the server. Additional results can be requested."


@dataclass(frozen=True, slots=True)
class _Page:
    body: bytes
    """Empty where nothing matched."""
    is_cut: bool
    """Whether more matched than the server returns at once."""


def routes(store: Store) -> list[BaseRoute]:
    """Return the routes."""
    return [Route(path, _searching(store, level), methods=["GET"]) for path, level in _PATHS.items()]


def _searching(store: Store, level: Level) -> Callable[[Request], object]:
    async def search(request: Request) -> Response:
        """Answer one search: 200 with a list of data sets, or a part for each, 204 where nothing matched."""
        media_type = chosen_model(request)
        parents = {_PARENTS[name]: uid for name, uid in request.path_params.items()}
        asked = read_parameters(request.query_params.multi_items(), level, frozenset(parents))
        page = await run_in_threadpool(_page, store, base_url(request), level, parents, asked)
        headers = _warnings(request, asked, page)
        if not page.body:
            return Response(status_code=204, headers=headers)
        if media_type == DICOM_XML:
            boundary = new_boundary()
            message = await run_in_threadpool(xml_message, orjson.loads(page.body), boundary)
            return Response(message, headers=headers | {"Content-Type": multipart_type(boundary)})
        return Response(page.body, media_type=media_type, headers=headers)

    return search


def _page(store: Store, base: str, level: Level, parents: Mapping[int, str], asked: Asked) -> _Page:
    """Look, and write the answer here too: the event loop would stand still for a thousand matches."""
    limit = min(asked.limit or MOST_MATCHES, MOST_MATCHES)
    query = Query(
        level,
        asked.keys,
        parents,
        is_fuzzy=asked.is_fuzzy,
        limit=limit + 1,
        offset=asked.offset,
        wanted=asked.wanted,
    )
    with store.read() as connection:
        matches = find(connection, query)
    is_cut = len(matches) > limit and (asked.limit is None or asked.limit > limit)
    shown = [data_set(match, _retrieve_url(base, match)) for match in matches[:limit]]
    return _Page(b"[%b]" % b",".join(shown) if shown else b"", is_cut)


def _warnings(request: Request, asked: Asked, page: _Page) -> dict[str, str]:
    """Return the Warning header of PS3.18 8.3.4: an answer that was cut, a key that could not be matched."""
    sentences = [_CUT] if page.is_cut else []
    if asked.ignored:
        sentences.append(f"Not supported and ignored: {', '.join(asked.ignored)}.")
    host = request.url.netloc.replace('"', "") or "hybridmed"
    return {"Warning": ", ".join(f'299 {host} "{each}"' for each in sentences)} if sentences else {}


def _retrieve_url(base: str, match: Match) -> str:
    url = f"{base}/studies/{match[STUDY_UID]}"
    if SERIES_UID in match:
        url += f"/series/{match[SERIES_UID]}"
    if SOP_INSTANCE_UID in match:
        url += f"/instances/{match[SOP_INSTANCE_UID]}"
    return url
