"""What subscribers are told at the end of a resource, and what becomes of the secrets that they gave."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.results import delete_resource
from gateway.store.tables import fhir_index, fhir_subscription
from tests.subscribing import JSON, Hooked, hooked, subscription, topical
from tests.unit.fhir import cases

__all__ = ["hooked"]


def test_of_a_topic_it_is_told_that_a_resource_is_gone(hooked: Hooked) -> None:
    """To those whose criteria it met: an entry that deletes, without the resource; nothing of it is left behind."""
    for wanted in (topical(hooked.endpoint.url, "full-resource", "status=preliminary"), subscription("http://[::1]")):
        wanted["channel"]["endpoint"] = f"{hooked.endpoint.url}/told"
        assert hooked.http.post("/Subscription", json=wanted, headers=JSON).status_code == 201
    other = topical(hooked.endpoint.url, "id-only", "status=final")
    other["channel"]["endpoint"] = f"{hooked.endpoint.url}/other"
    assert hooked.http.post("/Subscription", json=other, headers=JSON).status_code == 201
    hooked.tell()
    cases.commit(hooked.store, cases.finished(cases.pneumonia()))
    hooked.tell()
    hooked.endpoint.take()
    report = hooked.http.get("/DiagnosticReport").json()["entry"][0]["resource"]
    with hooked.store.write() as connection:
        assert delete_resource(connection, "DiagnosticReport", report["id"], hooked.now)
    hooked.tell()
    (told,) = hooked.endpoint.take()
    _, entry = told.json()["entry"]

    assert told.path == "/told"
    assert entry["request"] == {"method": "DELETE", "url": f"DiagnosticReport/{report['id']}"}
    assert (entry["response"]["status"], entry["response"]["etag"]) == ("204", 'W/"2"')
    assert "resource" not in entry
    with hooked.store.read() as connection:
        hidden = sa.select(sa.func.count()).select_from(fhir_index).where(fhir_index.c.type.startswith("-"))
        assert connection.scalar(hidden) == 0


def test_secrets_of_an_endpoint_are_kept_for_it_alone(hooked: Hooked) -> None:
    """What was read may be put again; a value that is not kept, or was meant for another endpoint, is asked for."""
    lines = ["X-Key: one", "Authorization: Bearer two", "X-Key: three"]
    created = hooked.subscribe(payload="application/fhir+json", header=lines)
    address = f"/Subscription/{created['id']}"
    shown = created["channel"]["header"]

    def put(*header: str, **channel: str) -> int:
        stands = hooked.http.get(address).json()
        body = stands | {"channel": stands["channel"] | {"header": list(header)} | channel}
        return hooked.http.put(address, json=body, headers=JSON).status_code

    def kept() -> list[list[str]]:
        with hooked.store.read() as connection:
            headers: list[list[str]] = connection.execute(sa.select(fhir_subscription.c.headers)).scalar_one()
        return headers

    assert shown == ["X-Key: withheld", "Authorization: withheld", "X-Key: withheld"]
    assert put(*shown) == 200
    assert kept() == [["X-Key", "one"], ["Authorization", "Bearer two"], ["X-Key", "three"]]
    assert put(*shown, endpoint=f"{hooked.endpoint.url}/elsewhere") == 422
    assert put(*shown, shown[0]) == 422
    assert put("Authorization: withheld", "X-Key: new") == 200
    assert kept() == [["Authorization", "Bearer two"], ["X-Key", "new"]]
    assert put() == 200
    assert put("Authorization: withheld") == 422
    assert kept() == []
    everything = hooked.http.get(f"{address}/_history").text + hooked.http.get("/Subscription").text
    assert "Bearer two" not in everything
    afresh = hooked.http.post("/Subscription", json=subscription(hooked.endpoint.url, header=shown), headers=JSON)
    assert afresh.status_code == 422
