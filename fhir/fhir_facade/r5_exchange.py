"""R4 -> R5 of what tells of others: AuditEvent, Subscription, SearchParameter, which R5 made anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl

from fhir_facade.resource import Json, present
from fhir_facade.subscriptions.topic import TOPICS, extension_url

_OUTCOME = "http://terminology.hl7.org/CodeSystem/audit-event-outcome"
_CHANNEL = "http://terminology.hl7.org/CodeSystem/subscription-channel-type"
_TOPIC_OF: Final = {resource_type: topic for topic, resource_type in TOPICS.items()}


class NoFormError(LookupError):
    """A resource that has no form in R5; the message says which."""


def audit_event_as_r5(content: Json) -> Json:
    """Return an AuditEvent: what was done is its code, what kind of doing its category."""
    codes = content.get("subtype") or [content["type"]]
    outcome = {"code": {"system": _OUTCOME, "code": content["outcome"]}} if "outcome" in content else {}
    detail = [{"text": content["outcomeDesc"]}] if "outcomeDesc" in content else []
    entities = content.get("entity", [])
    patients = [each["what"] for each in entities if each.get("what", {}).get("reference", "").startswith("Patient/")]
    kept = ("resourceType", "id", "meta", "language", "action", "recorded")
    return present(
        {
            **{name: content[name] for name in kept if name in content},
            "category": [{"coding": [content["type"]]}],
            "code": {"coding": [codes[0]]},
            "outcome": present({**outcome, "detail": detail}) if outcome else None,
            "patient": patients[0] if patients else None,
            "agent": [_agent(each) for each in content["agent"]],
            "source": _source(content["source"]),
            "entity": [_entity(each) for each in entities],
        }
    )


def _agent(agent: Json) -> Json:
    kept = {name: agent[name] for name in ("type", "role", "who", "requestor", "policy") if name in agent}
    return kept | present({"networkString": agent.get("network", {}).get("address")})


def _source(source: Json) -> Json:
    return present(
        {
            "site": {"display": source["site"]} if "site" in source else None,
            "observer": source["observer"],
            "type": [{"coding": [each]} for each in source.get("type", [])],
        }
    )


def _entity(entity: Json) -> Json:
    details = [{**each, "type": {"text": each["type"]}} for each in entity.get("detail", [])]
    return present(
        {
            "what": entity.get("what"),
            "role": {"coding": [entity["role"]]} if "role" in entity else None,
            "query": entity.get("query"),
            "detail": details,
        }
    )


def subscription_as_r5(content: Json) -> Json:
    """Return a Subscription to a topic; NoFormError where no topic of this server says what its criteria say."""
    channel = content["channel"]
    topic, resource_type, filters = _wanted(content)
    headers = (line.partition(":") for line in channel.get("header", []))
    kept = ("resourceType", "id", "meta", "status", "contact", "end", "reason")
    whole = "full-resource" if "payload" in channel else "empty"
    return present(
        {
            **{name: content[name] for name in kept if name in content},
            "meta": {name: value for name, value in content.get("meta", {}).items() if name != "profile"},
            "topic": topic,
            "filterBy": [_filter(resource_type, *pair) for text in filters for pair in _pairs(text)],
            "channelType": {"system": _CHANNEL, "code": channel["type"]},
            "endpoint": channel.get("endpoint"),
            "parameter": [{"name": name, "value": value.strip()} for name, _, value in headers if value.strip()],
            "heartbeatPeriod": _extension(channel, "backport-heartbeat-period"),
            "timeout": _extension(channel, "backport-timeout"),
            "contentType": channel.get("payload"),
            "content": _extension(channel.get("_payload", {}), "backport-payload-content") or whole,
            "maxCount": _extension(channel, "backport-max-count"),
        }
    )


def _wanted(content: Json) -> tuple[str, str, list[str]]:
    """Return topic, type and the query strings that filter."""
    criteria = content["criteria"]
    if criteria in TOPICS:
        url = extension_url("backport-filter-criteria")
        extensions = content.get("_criteria", {}).get("extension", [])
        return criteria, TOPICS[criteria], [each["valueString"] for each in extensions if each["url"] == url]
    resource_type, _, query = criteria.partition("?")
    if resource_type not in _TOPIC_OF:
        raise NoFormError("a Subscription without a topic")
    return _TOPIC_OF[resource_type], resource_type, [query]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    _, mark, query = text.partition("?")
    yield from parse_qsl(query if mark else text)


def _filter(resource_type: str, name: str, value: str) -> Json:
    head, dot, rest = name.removeprefix(f"{resource_type}.").partition(".")
    base, _, modifier = head.partition(":")
    # A chain, and the type of its target, is part of the parameter's name.
    is_plain = not dot and modifier[:1].islower()
    named = {"filterParameter": base if is_plain else head + dot + rest, "modifier": modifier if is_plain else None}
    return present({"resourceType": resource_type, **named, "value": value})


def _extension(element: Json, name: str) -> Any:
    url = extension_url(name)
    found = [each for each in element.get("extension", []) if each.get("url") == url]
    return next((value for each in found for key, value in each.items() if key.startswith("value")), None)


def search_parameter_as_r5(content: Json) -> Json:
    """Return a SearchParameter; what was a Media is a DocumentReference."""
    changed = dict(content)
    for name in ("base", "target"):
        if name in content:
            changed[name] = ["DocumentReference" if each == "Media" else each for each in content[name]]
    if "expression" in content:
        changed["expression"] = content["expression"].replace("Media.", "DocumentReference.")
    return changed
