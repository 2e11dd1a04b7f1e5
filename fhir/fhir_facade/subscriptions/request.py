"""A Subscription as a client sends it -> what it wants, checked, and the resource that is kept of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from fhir_facade.outcome import FhirError
from fhir_facade.parameters import PARAMETERS
from fhir_facade.query import understand
from fhir_facade.refusal import BrokenError
from fhir_facade.resource import Json
from fhir_facade.subscriptions.topic import TOPICS, extension_url
from fhir_facade.timing import period
from gateway.exchange.endpoint import AllowedEndpoints
from gateway.store.fhir_subscriptions import Content, Wanted

WITHHELD = "withheld"
"""What the resource shows of a header's value: it may be a secret."""
_JSON = frozenset({"application/fhir+json", "application/json"})
_CONTENTS: frozenset[Content] = frozenset({"empty", "id-only", "full-resource"})
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x20-\x7e]{0,2048})")
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "te", "upgrade"})
_MOST_HEADERS = 20
_LONGEST_CRITERIA = 4096
_LARGEST_COUNT = 100
_LONGEST_HEARTBEAT_S = 86400
_OF_ANSWER = frozenset({"_count", "_sort", "_include", "_revinclude", "_summary", "_elements", "_total", "_page"})
"""Parameters about the form of an answer; a subscription has none."""
_UNTOLD = frozenset({"Subscription", "AuditEvent"})
"""Types that nobody is told of: telling would make more of them."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who asks, and how it is reached."""

    base: str
    """Address under which the client reached this server."""
    owner: Mapping[str, Any] | None
    endpoints: AllowedEndpoints
    kept_headers: Sequence[Sequence[str]] = ()
    """Names and values that the subscription has already: they stay where a client sends what it was shown."""
    kept_endpoint: str | None = None
    """Whom those are told: values that were meant for one endpoint are sent to no other."""


def read_subscription(content: Json, subscriber: Subscriber, now: datetime) -> Wanted:
    """Return what a Subscription wants.

    Raises
    ------
    BrokenError
        It is of a kind that this server does not have, or an element makes no sense.
    """
    channel = content.get("channel") or {}
    if channel.get("type") != "rest-hook":
        raise BrokenError("channel.type takes rest-hook")
    topic, resource_type, criteria = _criteria(content)
    endpoint = str(channel.get("endpoint", ""))
    refusal = subscriber.endpoints.refusal(endpoint)
    if refusal is not None:
        raise BrokenError(f"channel.endpoint: {refusal}")
    is_same = endpoint == subscriber.kept_endpoint
    most = _number(channel, "backport-max-count", "valuePositiveInt", _LARGEST_COUNT) or 1
    return Wanted(
        resource_type=resource_type,
        criteria=criteria,
        topic=topic,
        endpoint=endpoint,
        headers=_headers(channel.get("header", ()), subscriber.kept_headers, is_same=is_same),
        content=_content(channel, is_topic=topic is not None),
        heartbeat_s=_number(channel, "backport-heartbeat-period", "valueUnsignedInt", _LONGEST_HEARTBEAT_S),
        timeout_s=_number(channel, "backport-timeout", "valueUnsignedInt", _LONGEST_HEARTBEAT_S),
        max_count=1 if topic is None else most,  # R4's own kind has a request for each
        ends_at=_end(content, now),
        base=subscriber.base,
        owner=subscriber.owner,
    )


def kept_resource(content: Json, resource_id: str) -> Json:
    """Return the resource as it is stored and shown: its status is the server's, its headers' values are withheld."""
    kept = {name: value for name, value in content.items() if name not in {"error", "meta"}}
    meta = {name: value for name, value in content.get("meta", {}).items() if name in {"profile", "tag"}}
    channel = dict(content["channel"])
    if "header" in channel:
        channel["header"] = [f"{line.partition(':')[0]}: {WITHHELD}" for line in channel["header"]]
    kept |= {"id": resource_id, "channel": channel}
    return kept | ({"meta": meta} if meta else {})


def criteria_pairs(criteria: str) -> list[tuple[str, str]]:
    """Return the parameters of a query string, in order."""
    return parse_qsl(criteria, keep_blank_values=True)


def _criteria(content: Json) -> tuple[str | None, str, str]:
    """Return topic, resource type and query of a Subscription."""
    text = str(content.get("criteria", ""))
    if text in TOPICS:
        filters = _texts(content.get("_criteria"), "backport-filter-criteria")
        parts = [_filter(each, TOPICS[text]) for each in filters]
        return text, TOPICS[text], _checked(TOPICS[text], "&".join(part for part in parts if part))
    resource_type, _, query = text.partition("?")
    if resource_type not in PARAMETERS or resource_type in _UNTOLD:
        types = ", ".join(name for name in PARAMETERS if name not in _UNTOLD)
        topics = ", ".join(TOPICS)
        raise BrokenError(f"criteria takes Type?query of {types}, or one of the topics {topics}")
    return None, resource_type, _checked(resource_type, query)


def _filter(text: str, resource_type: str) -> str:
    """Return the query of a filter; the type may stand before it, or before each parameter."""
    named, mark, query = text.partition("?")
    if mark and named != resource_type:
        raise BrokenError(f"a filter of this topic is about {resource_type}")
    pairs = (query if mark else text).split("&")
    return "&".join(pair.removeprefix(f"{resource_type}.") for pair in pairs)


def _checked(resource_type: str, query: str) -> str:
    """Return a query that this server understands whole; BrokenError where it does not."""
    if len(query) > _LONGEST_CRITERIA:
        raise BrokenError("the criteria are too long")
    pairs = criteria_pairs(query)
    if any(name in _OF_ANSWER for name, _ in pairs):
        raise BrokenError("criteria have no parameters about the form of an answer")
    try:
        understand([resource_type], pairs, is_strict=True)
    except FhirError as error:
        raise BrokenError(f"criteria: {error}") from error
    return query


def _content(channel: Json, *, is_topic: bool) -> Content:
    payload = channel.get("payload")
    if payload is not None and payload.partition(";")[0].strip().lower() not in _JSON:
        raise BrokenError("channel.payload takes application/fhir+json, or nothing")
    if not is_topic:
        return "empty" if payload is None else "full-resource"
    asked = [each["valueCode"] for each in _extensions(channel.get("_payload"), "backport-payload-content")]
    for each in _CONTENTS:
        if asked == [each]:
            return each
    raise BrokenError("channel.payload needs the extension backport-payload-content: empty, id-only or full-resource")


def _headers(lines: Sequence[str], kept: Sequence[Sequence[str]], *, is_same: bool) -> list[list[str]]:
    """Return names and values; what is withheld is what the subscription has under that name, in the same order.

    Parameters
    ----------
    is_same
        Whether the endpoint is still the one that the values were meant for.
    """
    left = [list(each) for each in kept]
    if len(lines) > _MOST_HEADERS:
        raise BrokenError(f"channel.header has more than {_MOST_HEADERS} lines")
    headers = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None or match[1].lower() in _OURS:
            raise BrokenError("channel.header takes 'Name: value' in ASCII, and no name that HTTP itself needs")
        name, value = match[1], match[2].strip()
        if value == WITHHELD:
            held = next((each for each in left if each[0].lower() == name.lower()), None)
            if held is None or not is_same:
                raise BrokenError(f"channel.header: a value for {name} is needed; none is kept for this endpoint")
            left.remove(held)
            value = held[1]
        headers.append([name, value])
    return headers


def _end(content: Json, now: datetime) -> datetime | None:
    text = content.get("end")
    if text is None:
        return None
    try:
        end = period(str(text))[0]
    except (ValueError, OverflowError):
        raise BrokenError("end is no instant") from None
    if end <= now:
        raise BrokenError("end has passed")
    return end


def _number(element: Json, name: str, value: str, largest: int) -> int | None:
    found = _extensions(element, name)
    if not found:
        return None
    number = found[0].get(value)
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= largest:
        raise BrokenError(f"the extension {name} takes {value} from 1 to {largest}")
    return number


def _texts(element: Json | None, name: str) -> list[str]:
    return [str(each.get("valueString", "")) for each in _extensions(element, name)]


def _extensions(element: Json | None, name: str) -> list[Json]:
    url = extension_url(name)
    return [each for each in (element or {}).get("extension", ()) if each.get("url") == url]
