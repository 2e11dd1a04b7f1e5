"""Documents and pictures of a job: written by the worker, named by the report, served with what the report says."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources import get_fhir_model_class
from fhir_facade.app import create_app
from fhir_facade.render import FhirRenderer
from fhir_facade.xml_reader import read_xml

from gateway.report import render_outcome, render_pictures
from gateway.report.document.render import render_documents
from gateway.store import Store, jobs
from gateway.store.files import Files
from gateway.store.results import list_artefacts
from gateway.verification.verify import Verifier
from gateway.worker import Renderers
from gateway.worker.execution import Execution
from tests import verifying
from tests.unit.fhir import node
from tests.unit.report.outcomes import write_xray
from tests.unit.web.serving import served
from tests.working import add_job


@pytest.fixture
def worked(local_store: Store, tmp_path: Path) -> Iterator[tuple[Store, str, httpx.Client]]:
    """Give a database with one done job over an X-ray, its id, and a client of its FHIR server."""
    folder = tmp_path / "xray"
    folder.mkdir()
    (local_store.data_dir / "instances").mkdir(exist_ok=True)
    study_uid = verifying.take_in_all(local_store, write_xray(folder))
    job_id = add_job(local_store, study_uid, bundle=verifying.BUNDLE)
    with local_store.write() as connection:
        claim = jobs.claim(connection, job_id, "w1", datetime.now(UTC), 60)
    assert claim is not None
    outcome = verifying.OUTCOME
    renderers = Renderers(render_outcome, render_pictures, renderer(local_store), render_documents)
    model = verifying.Answering([outcome])
    execution = Execution(local_store, lambda _: model, renderers, (), lambda: datetime.now(UTC))
    prepared = execution.prepare(claim)
    assert execution.commit(prepared, execution.complete(prepared, execution.publish(prepared, (outcome,))))
    with served(create_app(local_store)) as client:
        yield local_store, job_id, client


def renderer(store: Store) -> FhirRenderer:
    """Return the renderer of the tests, which knows where the files are."""
    return replace(verifying.RENDER_FHIR, data_dir=store.data_dir)


def report(store: Store) -> dict[str, Any]:
    """Return the current report."""
    (found,) = verifying.resources(store, "DiagnosticReport")
    return found


def test_attachments_are_what_the_report_says(worked: tuple[Store, str, httpx.Client], tmp_path: Path) -> None:
    """Four documents and the key picture: media type, size, SHA-1, language; as themselves and as Binary resources."""
    store, _, client = worked
    made = report(store)
    (media,) = verifying.resources(store, "Media")
    attachments = [*made["presentedForm"], media["content"]]
    binaries = []
    for each in attachments:
        got = client.get(f"/{each['url']}")
        binary = client.get(f"/{each['url']}", headers={"Accept": "application/fhir+json"}).json()
        assert got.headers["content-type"].partition(";")[0] == each["contentType"] == binary["contentType"]
        assert len(got.content) == each["size"]
        assert base64.b64encode(hashlib.sha1(got.content, usedforsecurity=False).digest()).decode() == each["hash"]
        assert base64.b64decode(binary["data"]) == got.content
        assert got.headers["x-security-context"] == f"DiagnosticReport/{made['id']}"
        binaries.append(binary)

    assert [(each["contentType"], each.get("language")) for each in attachments] == [
        ("text/html", "en"),
        ("application/pdf", "en"),
        ("text/html", "zh"),
        ("application/pdf", "zh"),
        ("image/png", None),
    ]
    assert [each["link"]["reference"] for each in made["media"]] == [f"Media/{media['id']}"]
    assert node.complaints([*binaries, media, made], tmp_path) == []


def test_a_document_is_asked_for_in_all_forms(worked: tuple[Store, str, httpx.Client]) -> None:
    """XML of the Binary, 304 for what is held, 404 for what is not there; HTML runs nothing."""
    store, job_id, client = worked
    url = f"/{report(store)['presentedForm'][0]['url']}"

    shown = client.get(url, headers={"Accept": "text/html,application/xml;q=0.9,*/*;q=0.8"})
    xml = client.get(url, headers={"Accept": "application/fhir+xml"})

    assert shown.headers["content-security-policy"].endswith("sandbox")
    assert xml.headers["content-type"].startswith("application/fhir+xml")
    assert b'<contentType value="text/html"/>' in xml.content
    assert client.get(url, headers={"If-None-Match": shown.headers["etag"]}).status_code == 304
    for wrong in (
        f"{job_id}.0000000000000000",
        "nonsense",
        f"{job_id}.%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25%25",
    ):
        assert client.get(f"/Binary/{wrong}").status_code == 404


class _Folder:
    """A bucket that holds one file."""

    def __init__(self, path: str, content: bytes) -> None:
        self.held = {path: content}

    def put(self, path: str, source: Path) -> None:
        self.held[path] = source.read_bytes()

    def size(self, path: str) -> int | None:
        return len(self.held[path]) if path in self.held else None

    def fetch(self, path: str, target: Path) -> None:
        target.write_bytes(self.held[path])

    def remove(self, path: str) -> None:
        self.held.pop(path, None)


def test_a_document_that_another_host_wrote_is_brought_from_the_bucket(worked: tuple[Store, str, httpx.Client]) -> None:
    """It is not missing where only this host's copy is."""
    store, job_id, client = worked
    url = f"/{report(store)['presentedForm'][0]['url']}"
    content = client.get(url, headers={"Accept": "text/html"}).content
    with store.read() as connection:
        made = list_artefacts(connection, job_id)
    (path,) = (each.path for each in made if each.digest == hashlib.sha256(content).hexdigest())
    (store.data_dir / path).unlink()
    store.files = Files(store.data_dir, _Folder(path, content), cache_gib=1.0)

    assert client.get(url, headers={"Accept": "text/html"}).content == content


def test_a_persons_word_gives_new_documents(worked: tuple[Store, str, httpx.Client]) -> None:
    """Accepted: documents that say so, and the picture stays; rejected: no finding and no picture any more."""
    store, job_id, client = worked
    verifier = Verifier(store, renderer(store), render_documents=render_documents)
    before = report(store)

    accepted = verifier.verify(verifying.verdict(job_id, "accept"))
    verified = report(store)
    page = client.get(f"/{verified['presentedForm'][0]['url']}").text

    assert "Verified" in page
    assert "data:image/jpeg" in page
    assert verified["media"] == before["media"]
    assert client.get(f"/{before['presentedForm'][0]['url']}").status_code == 200

    verifier.verify(verifying.verdict(accepted.job_id, "reject", {"comment": "wrong patient"}))
    rejected = report(store)
    page = client.get(f"/{rejected['presentedForm'][0]['url']}").text

    assert "Withdrawn" in page
    assert "data:image" not in page
    assert "media" not in rejected
    assert [each["status"] for each in verifying.resources(store, "Media")] == ["entered-in-error"]


def test_everything_is_had_as_xml_and_as_r5(worked: tuple[Store, str, httpx.Client]) -> None:
    """A read, a search, the CapabilityStatement and an error, each in the form that was asked for."""
    store, _, client = worked
    made = report(store)
    paths = {f"/DiagnosticReport/{made['id']}": 200, "/DiagnosticReport": 200, "/metadata": 200, "/Patient/none": 404}
    for path, status in paths.items():
        xml = client.get(path, headers={"Accept": "application/fhir+xml"})
        r5 = client.get(path, headers={"Accept": "application/fhir+json; fhirVersion=5.0"})

        assert (xml.status_code, r5.status_code) == (status, status)
        assert xml.headers["content-type"].startswith("application/fhir+xml")
        assert r5.headers["content-type"] == "application/fhir+json; fhirVersion=5.0"
        resource = r5.json()
        assert json.loads(read_xml(xml.content))["resourceType"] == resource["resourceType"]
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)

    assert client.get(f"/DiagnosticReport/{made['id']}?_format=xml").content.startswith(b"<?xml")
    linked = client.get("/Media", headers={"Accept": "application/fhir+json; fhirVersion=5.0"}).json()["entry"][0]
    r5_name = linked["resource"]["resourceType"] + "/" + linked["resource"]["id"]
    assert linked["fullUrl"].endswith(r5_name)
    r5_read = client.get(f"/{r5_name}", headers={"Accept": "application/fhir+json; fhirVersion=5.0"})
    assert r5_read.json() == linked["resource"]
