"""Reports to a FHIR server, each as a transaction (R4 http, 3.1.0.11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from gateway.errors import DeliveryError, DestinationAwayError
from gateway.exchange.client import Answer, HttpClient
from gateway.exchange.deidentified import Pseudonyms, deidentified
from gateway.exchange.report import Json, Report
from gateway.exchange.transaction import location, of_gateway, of_hospital, transaction

_MEDIA_TYPE = "application/fhir+json"
LARGEST_ANSWER = 1 << 24
"""Bytes."""
_REFUSED = frozenset({400, 406, 409, 410, 412, 413, 415, 422})
"""Codes that speak of what was sent; all others but success speak of the server or of our access to it."""
_MOST_CODES = 5


@dataclass(frozen=True, slots=True)
class FhirSender:
    """Client of one FHIR server.

    Parameters
    ----------
    base
        Its address.
    authorization
        Value of the header; empty: none.
    client
        What asks it.
    pseudonyms
        What stands for patients; None: reports are sent with the patient.
    """

    base: str
    authorization: str
    client: HttpClient
    pseudonyms: Pseudonyms | None

    def send_report(self, report: Report, /) -> None:
        """Send; see `ReportSender`."""
        sent = report if self.pseudonyms is None else deidentified(report, self.pseudonyms)
        known: dict[str, str] = {}
        shared = of_hospital(sent)
        if shared:
            for content, entry in zip(shared, self._post(shared, {}), strict=True):
                there = location(content, entry)
                if there is None:
                    raise DeliveryError(f"the answer does not say where the {content['resourceType']} is")
                known[f"{content['resourceType']}/{content['id']}"] = there
        self._post(of_gateway(sent), known)

    def _post(self, resources: Sequence[Json], known: Mapping[str, str]) -> list[Json]:
        """Send a transaction and return the entries of its answer, all of which say that it was taken."""
        headers = {"Content-Type": _MEDIA_TYPE, "Accept": _MEDIA_TYPE, "Prefer": "return=minimal"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        answer = self.client.ask("POST", self.base, content=transaction(resources, known), headers=headers)
        if answer.status in _REFUSED:
            raise DeliveryError(f"refused with HTTP {answer.status}{_issues(answer)}")
        if not 200 <= answer.status < 300:  # noqa: PLR2004 # HTTP's success
            raise DestinationAwayError(f"HTTP {answer.status}")
        content = _content(answer)
        entries = list(_entries(content))
        refused = sorted({status[:3] for status in map(_status, entries) if not status.startswith("2")})
        if refused:
            raise DeliveryError(f"refused a resource with HTTP {', '.join(refused)}")
        if content.get("type") != "transaction-response" or len(entries) != len(resources):
            raise DeliveryError("the answer is not that to a transaction")
        return entries


def _issues(answer: Answer) -> str:
    """Return the codes of an OperationOutcome; its sentences may say whose report it was about."""
    issues = _content(answer).get("issue")
    codes = {str(each.get("code", "")) for each in issues if isinstance(each, dict)} if isinstance(issues, list) else ()
    known = sorted(code for code in codes if code.replace("-", "").isalpha() and code.isascii())
    return f" ({', '.join(known[:_MOST_CODES])})" if known else ""


def _content(answer: Answer) -> Json:
    try:
        content = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _entries(content: Json) -> Iterator[Json]:
    entries = content.get("entry")
    for each in entries if isinstance(entries, list) else ():
        yield each if isinstance(each, dict) else {}


def _status(entry: Json) -> str:
    response = entry.get("response")
    return str(response.get("status", "")) if isinstance(response, dict) else ""
