"""A FHIR server with subscribers: the loop that tells them, an endpoint, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fhir_facade.app import create_app
from fhir_facade.server import ExchangeRules
from fhir_facade.subscriptions.matcher import Matcher
from fhir_facade.subscriptions.notifier import Notifier, NotifierLimits

from gateway.exchange.endpoint import AllowedEndpoints
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.fhir_subscriptions import due_subscriptions
from tests.hooks import Receiver, receiver
from tests.unit.web.serving import served

TOPIC = "urn:hybridmed:subscription-topic:diagnostic-report"
GUIDE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
LOOPBACK = AllowedEndpoints((), with_loopback=True)
JSON = {"Content-Type": "application/fhir+json"}


@dataclass
class Hooked:
    """A served FHIR server, its notifier, an endpoint, and a clock that the test moves."""

    store: Store
    http: httpx.Client
    endpoint: Receiver
    counters: Counters
    now: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(hours=1))

    def notifier(self, max_failures: int = 3) -> Notifier:
        """Return a notifier, as after a restart."""
        limits = NotifierLimits(60.0, max_failures, timedelta(seconds=10), timedelta(hours=1), timedelta(days=30))
        heartbeat = Heartbeat(self.store, "deliver", self.counters)
        return Notifier(store=self.store, heartbeat=heartbeat, endpoints=LOOPBACK, limits=limits, now=lambda: self.now)

    def tell(self, **limits: int) -> None:
        """Match and tell what is due, as one turn of the loop does."""
        notifier = self.notifier(**limits)
        while Matcher(self.store, UTC, lambda: self.now).match_some():
            continue
        with self.store.read() as connection:
            due = due_subscriptions(connection, self.now, 10)
        for resource_id in due:
            notifier.tell(resource_id)

    def wait(self, **time: float) -> None:
        """Let time pass."""
        self.now += timedelta(**time)

    def subscribe(self, **values: Any) -> dict[str, Any]:
        """Create a subscription and return it."""
        created = self.http.post("/Subscription", json=subscription(self.endpoint.url, **values), headers=JSON)
        assert created.status_code == 201, created.text
        answer: dict[str, Any] = created.json()
        return answer

    def read(self, resource_id: str) -> dict[str, Any]:
        """Return a subscription as it stands."""
        answer: dict[str, Any] = self.http.get(f"/Subscription/{resource_id}").json()
        return answer


def subscription(url: str, criteria: str = "DiagnosticReport?status=preliminary", **channel: Any) -> dict[str, Any]:
    """Return R4's own kind; `channel` adds to the channel."""
    of_channel = {"type": "rest-hook", "endpoint": f"{url}/hook", **channel}
    head = {"resourceType": "Subscription", "status": "requested", "reason": "to tell the EHR"}
    return {**head, "criteria": criteria, "channel": of_channel}


def topical(url: str, content: str, *filters: str, **numbers: int) -> dict[str, Any]:
    """Return a subscription of the backport; `numbers` are extensions of the channel."""
    kinds = {"heartbeat-period": "valueUnsignedInt", "timeout": "valueUnsignedInt", "max-count": "valuePositiveInt"}
    of_channel = [
        {"url": f"{GUIDE}/backport-{name.replace('_', '-')}", kinds[name.replace("_", "-")]: number}
        for name, number in numbers.items()
    ]
    made = subscription(url, TOPIC, payload="application/fhir+json")
    made["meta"] = {"profile": [f"{GUIDE}/backport-subscription"]}
    made["_criteria"] = {
        "extension": [{"url": f"{GUIDE}/backport-filter-criteria", "valueString": each} for each in filters]
    }
    made["channel"]["_payload"] = {"extension": [{"url": f"{GUIDE}/backport-payload-content", "valueCode": content}]}
    if of_channel:
        made["channel"]["extension"] = of_channel
    if not filters:
        del made["_criteria"]
    return made


def parameters(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the status at the head of a notification; events as a list under their name."""
    found: dict[str, Any] = {"notification-event": []}
    for each in bundle["entry"][0]["resource"]["parameter"]:
        if "part" in each:
            found[each["name"]].append({part["name"]: _value(part) for part in each["part"]})
        else:
            found[each["name"]] = _value(each)
    return found


def _value(element: dict[str, Any]) -> Any:
    return next(value for name, value in element.items() if name.startswith("value"))


@pytest.fixture
def hooked(store: Store) -> Iterator[Hooked]:
    """Give all of it, over both databases."""
    app = create_app(store, zone=UTC, exchange=ExchangeRules(LOOPBACK, 3))
    with served(app) as http, receiver() as endpoint:
        yield Hooked(store, http, endpoint, Counters())
