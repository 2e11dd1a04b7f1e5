"""The HTTP application over a real database and a real socket."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import httpx
import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app as create_fhir_app
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import BrokerAwayError, ConfigurationError
from gateway.report.summary import summarise
from gateway.services import Counters
from gateway.store import Store, open_store
from gateway.store.quarantine import QuarantinedFile, add_quarantined
from gateway.store.services import ServiceBeat, beat
from gateway.store.tables import artefact, delivery, job
from gateway.web import HttpParts, WebRole, create_app
from gateway.web.auth import Access
from tests.services.process import HANGS_S, free_port
from tests.stores import add_study
from tests.unit.fhir import cases
from tests.unit.web.serving import served

BEARER = "correct horse"
OPEN = Access("none")
DIGEST = hashlib.sha256(BEARER.encode()).hexdigest()
PICTURE = b"\x89PNG\r\n\x1a\n picture"
HOSTILE = "<script>alert(1)</script>"
ROLES = ("receive", "dispatch", "work", "deliver")

Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def serve(store: Store) -> Serve:
    """Give a function that serves the application over `store`."""

    def serve(access: Access = OPEN, **values: object) -> AbstractContextManager[httpx.Client]:
        parts = {"store": store, "fhir": create_fhir_app(store, zone=UTC), "access": access, "counters": Counters()}
        return served(create_app(HttpParts(**parts | {"reserve_bytes": 0} | values)))

    return serve


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    """Give a client of an application without authentication."""
    with serve() as made:
        yield made


def beating(store: Store, *roles: str, state: str = "ready", reason: str | None = None, **counters: float) -> None:
    """Let roles send a heartbeat."""
    now = datetime.now(UTC)
    with store.write() as connection:
        for role in roles:
            beat(connection, ServiceBeat(f"{role}-1", role, "host", 1, now, now, state, reason, counters))


def finished_study(store: Store, path: str = "results/job/picture-overlay-0-00.png") -> None:
    """Put a study in with a done job and a picture on disk."""
    done = cases.finished(cases.pneumonia())
    cases.commit(store, done)
    (store.data_dir / "results" / "job").mkdir(parents=True)
    (store.data_dir / "results" / "job" / "picture-overlay-0-00.png").write_bytes(PICTURE)
    row = {"job_id": done.job.job_id, "kind": "picture-overlay", "ordinal": 0, "variant": "", "path": path}
    row |= {"media_type": "image/png", "study_instance_uid": cases.STUDY_UID, "digest": "00", "size_bytes": 1}
    algorithm = {"name": "cxr-pneumonia", "version": "1.0.0", "weights_digest": "ab" * 32}
    with store.write() as connection:
        connection.execute(sa.insert(artefact).values(**row, created_at=cases.NOW))
        connection.execute(sa.update(job).values(summary=summarise(done.outcomes), algorithm=algorithm))


def test_the_process_lives(client: httpx.Client) -> None:
    """/healthz needs nothing."""
    assert client.get("/healthz").text == "ok\n"


def test_ready_when_all_roles_beat(store: Store, client: httpx.Client) -> None:
    """All roles there: 200, and each part says how it stands."""
    beating(store, *ROLES)

    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json()["state"] == "ready"
    assert {part["state"] for part in answer.json()["parts"].values()} == {"ready"}


@pytest.mark.parametrize("missing", ["receive", "dispatch", "work"])
def test_not_ready_without_a_needed_role(store: Store, client: httpx.Client, missing: str) -> None:
    """A missing receiver, dispatcher or worker: 503, named."""
    beating(store, *(role for role in ROLES if role != missing))

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["parts"][f"role {missing}"] == {"state": "down", "reason": "not running"}


def test_degraded_says_why(store: Store, client: httpx.Client) -> None:
    """A troubled role, dead jobs, quarantined files and results held back: 200, degraded, each with its reason."""
    beating(store, "receive", "dispatch", "deliver")
    beating(store, "work", state="degraded", reason="broker: no answer")
    finished_study(store)
    with store.write() as connection:
        connection.execute(sa.update(job).values(state="dead", reason="x"))
        row = {"job_id": sa.select(job.c.id).scalar_subquery(), "destination": "PACS", "state": "waiting"}
        times = {"available_at": cases.NOW, "created_at": cases.NOW}
        connection.execute(sa.insert(delivery).values(**row, **times, attempts=0, reason="refused"))
        add_quarantined(connection, QuarantinedFile("quarantine/a.dcm", 1, "no pixels", "CT1", cases.NOW))

    answer = client.get("/readyz")

    assert answer.status_code == 200
    parts = answer.json()["parts"]
    assert answer.json()["state"] == "degraded"
    assert parts["role work"] == {"state": "degraded", "reason": "broker: no answer"}
    assert parts["dead jobs"]["reason"] == "1 on the dead list: hybridmed dead list"
    assert parts["quarantine"]["reason"] == "1 files could not be indexed: hybridmed dead list"
    assert parts["deliveries"]["reason"] == "PACS: 1 in back-off"


def test_not_ready_without_disk_or_broker(store: Store, serve: Serve) -> None:
    """A disk under its reserve and a broker that is away: 503; probes share one look at the broker."""
    beating(store, *ROLES)
    looks: list[int] = []

    def away() -> str:
        looks.append(1)
        raise BrokerAwayError("RabbitMQ does not answer")

    with serve(reserve_bytes=1 << 60, broker_check=away) as client:
        answers = [client.get("/readyz") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [503] * 3
    parts = answers[0].json()["parts"]
    assert parts["broker"] == {"state": "down", "reason": "RabbitMQ does not answer"}
    assert "under the reserve" in parts["disk"]["reason"]
    assert len(looks) == 1


def test_without_a_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The database away: alive, not ready, and every way in says 503 in its own words."""
    folder = tmp_path_factory.mktemp("away")
    store = open_store("postgresql://postgres@127.0.0.1:1/none", folder)
    parts = HttpParts(store, create_fhir_app(store), OPEN, Counters(), 0)
    with served(create_app(parts)) as client:
        answers = {address: client.get(address) for address in ("/healthz", "/readyz", "/worklist", "/fhir/Patient")}
        metrics = client.get("/metrics")

    assert {address: answer.status_code for address, answer in answers.items()} == {
        "/healthz": 200,
        "/readyz": 503,
        "/worklist": 503,
        "/fhir/Patient": 503,
    }
    assert answers["/fhir/Patient"].json()["issue"][0]["code"] == "transient"
    assert "hybridmed_database_up 0.0" in metrics.text


def test_metrics_are_what_prometheus_reads(store: Store, client: httpx.Client) -> None:
    """The independent parser reads counters by role and gauges of the database, each with HELP and TYPE."""
    finished_study(store)
    beating(
        store, "receive", **{"hybridmed_instances_stored_total": 7, 'refused_total{status="A700"}': 2, "bad name": 1}
    )
    beating(store, "work", **{"hybridmed_job_seconds": 1.5})

    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}

    stored, refused = families["hybridmed_instances_stored"], families["hybridmed_refused"]
    assert (stored.type, stored.samples[0].value) == ("counter", 7)
    assert stored.samples[0].labels == {"role": "receive", "service": "receive-1"}
    assert refused.samples[0].labels["status"] == "A700"
    assert families["hybridmed_job_seconds"].type == "gauge"
    assert [sample.labels["state"] for sample in families["hybridmed_studies"].samples] == ["routed"]
    assert [sample.value for sample in families["hybridmed_jobs"].samples] == [1]
    assert families["hybridmed_disk_free_bytes"].samples[0].value > 0
    assert all(family.documentation and family.type != "unknown" for family in families.values())


def test_the_list_shows_findings(store: Store, client: httpx.Client) -> None:
    """Studies with state and findings; `/` leads there."""
    finished_study(store)

    page = client.get("/", follow_redirects=True)

    assert page.url.path == "/worklist"
    assert "Pneumonia <b>97&nbsp;%</b>" in page.text
    assert "Bacterial pneumonia <b>90&nbsp;%</b>" in page.text
    assert f'href="/studies/{cases.STUDY_UID}"' in page.text


def test_a_study_shows_classes_measurements_and_pictures(store: Store, client: httpx.Client) -> None:
    """Every class with its probability, the measurements, the pictures, and links into FHIR that lead somewhere."""
    finished_study(store)
    page = client.get(f"/studies/{cases.STUDY_UID}").text
    address = page.split('<img src="')[1].split('"')[0]
    report = page.split('href="/fhir/DiagnosticReport')[1].split('"')[0].replace("&amp;", "&")

    assert "97.0 %" in page
    assert "Viral pneumonia" in page
    assert "Left lung" in page
    assert client.get(address).content == PICTURE
    assert client.get(f"/fhir/DiagnosticReport{report}").json()["resourceType"] == "DiagnosticReport"


def test_nothing_from_a_study_becomes_markup(store: Store, client: httpx.Client) -> None:
    """Hostile names and descriptions are shown as text."""
    with store.write() as connection:
        add_study(connection, "1.2.3", patient_name=HOSTILE, study_description=HOSTILE, patient_id='" onload="x')

    pages = [client.get("/worklist").text, client.get("/studies/1.2.3").text]

    for page in pages:
        assert page.count("<script") == page.count('<script src="/assets/') == 2
        assert "&lt;script&gt;" in page
        assert 'onload="x' not in page


def test_pages_of_the_list(store: Store, client: httpx.Client) -> None:
    """More than a page: the rest follows; nonsense as page number is the first."""
    with store.write() as connection:
        for number in range(60):
            add_study(connection, f"1.2.{number}")

    counts = [client.get(f"/worklist?page={page}").text.count('class="open"') for page in ("1", "2", "3", "x", "-1")]

    assert counts == [50, 10, 0, 50, 50]


@pytest.mark.parametrize("path", ["../outside.png", "results/../../outside.png", "results/none.png", "/etc/hostname"])
def test_no_picture_from_outside_of_the_results(store: Store, client: httpx.Client, path: str) -> None:
    """Even a row that names another file gives nothing."""
    finished_study(store, path)
    (store.data_dir.parent / "outside.png").write_bytes(b"secret")
    with store.read() as connection:
        number = connection.scalar(sa.select(artefact.c.id))

    assert client.get(f"/pictures/{number}.png").status_code == 404
    assert client.get("/pictures/99999999999999999999.png").status_code == 404


@pytest.mark.parametrize("address", ["/worklist", "/fhir/Patient", "/healthz", "/nowhere", "/fhir/nowhere"])
def test_every_answer_is_guarded(client: httpx.Client, address: str) -> None:
    """Answers forbid foreign content, framing, sniffing, referrers and shared caches."""
    headers = client.get(address).headers

    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "private, no-cache"


def test_pages_name_no_other_site(store: Store, client: httpx.Client) -> None:
    """Pages work without any network."""
    finished_study(store)

    for address in ("/worklist", f"/studies/{cases.STUDY_UID}", "/assets/style.css"):
        text = client.get(address).text
        assert "http://" not in text
        assert "https://" not in text
        assert "style=" not in text


def test_no_door_but_those_named(client: httpx.Client) -> None:
    """No interactive documentation, no schema, nothing to write to."""
    assert [client.get(address).status_code for address in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    assert client.post("/worklist").status_code == 405


def test_without_authentication_only_loopback_names_are_answered(client: httpx.Client) -> None:
    """A foreign name that points to the loopback gets nothing (DNS rebinding)."""
    foreign = {"Host": "evil.example:8080"}

    assert client.get("/worklist", headers=foreign).status_code == 421
    assert client.get("/fhir/Patient", headers=foreign).json()["resourceType"] == "OperationOutcome"
    assert client.get("/worklist", headers={"Host": "localhost:8080"}).status_code == 200


def test_tokens(store: Store, serve: Serve) -> None:
    """With `auth = token` only the health of the process is told to strangers."""
    beating(store, *ROLES)
    with serve(Access("token", [DIGEST.upper()])) as client:
        bearer = {"Authorization": f"Bearer {BEARER}"}
        closed = ("/worklist", "/metrics", "/fhir/Patient", "/fhir/$export", "/pictures/1.png", "/nowhere", "/readyz/")
        refused = [client.get(address) for address in closed]
        wrong = [
            client.get("/worklist", headers={"Authorization": text}) for text in ("Bearer x", BEARER, f"Basic {BEARER}")
        ]
        allowed = client.get("/fhir/Patient", headers=bearer)
        ready, stranger_ready = client.get("/readyz", headers=bearer), client.get("/readyz")

    assert {answer.status_code for answer in [*refused, *wrong]} == {401}
    assert refused[0].headers["www-authenticate"].startswith("Bearer")
    assert refused[2].json()["issue"][0]["code"] == "login"
    assert allowed.status_code == 200
    assert "parts" in ready.json()
    assert stranger_ready.json() == {"state": "ready"}


@pytest.mark.parametrize(
    ("mode", "digests", "named"),
    [("oidc", [], "HYBRIDMED_OIDC__ISSUER"), ("token", ["secret"], "SHA-256")],
)
def test_access_that_cannot_work_is_refused_at_the_start(mode: str, digests: list[str], named: str) -> None:
    """The message names what to set, and not the token."""
    with pytest.raises(ConfigurationError, match=named) as refused:
        Access(mode, digests)

    assert "secret" not in str(refused.value)


def test_the_role_serves_and_stops(store: Store) -> None:
    """The role answers until told to stop; a request in hand is finished, and the port is free afterwards."""
    port = free_port()
    parts = HttpParts(store, create_fhir_app(store), OPEN, Counters(), 0)
    stop = threading.Event()
    role = WebRole(create_app(parts), bind="127.0.0.1", port=port)
    thread = threading.Thread(target=role.run, args=(stop,))
    thread.start()
    answers = _until_answered(f"http://127.0.0.1:{port}/healthz")
    stop.set()
    thread.join(timeout=30)

    assert answers == 200
    assert not thread.is_alive()
    assert role.name == "web"
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_taken_port_is_named(store: Store) -> None:
    """The role refuses at once, with the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        role = WebRole(create_fhir_app(store), bind="127.0.0.1", port=taken.getsockname()[1])

        with pytest.raises(ConfigurationError, match="HYBRIDMED_HTTP_PORT"):
            role.run(threading.Event())


def _until_answered(address: str) -> int:
    deadline = time.monotonic() + HANGS_S
    while time.monotonic() < deadline:
        try:
            return httpx.get(address, timeout=60).status_code
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("no answer")
