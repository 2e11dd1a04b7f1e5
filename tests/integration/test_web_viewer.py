"""What is served under /viewer, with a small stand-in for OHIF's files and without any."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import httpx
import pytest
from fhir_facade.app import create_app as create_fhir_app

from gateway.services import Counters
from gateway.store import Store
from gateway.viewer import ROOT, installed_folder
from gateway.web import HttpParts, create_app
from gateway.web.auth import Access
from tests.stores import add_instance, add_series, add_study
from tests.unit.web.serving import served

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SCRIPT = b"console.log('viewer');" * 100


@pytest.fixture
def client(sqlite_store: Store) -> Iterator[httpx.Client]:
    """Give a client of a gateway without a viewer yet."""
    fhir = create_fhir_app(sqlite_store, zone=UTC)
    parts = HttpParts(sqlite_store, fhir=fhir, access=Access("none"), counters=Counters(), reserve_bytes=0)
    with served(create_app(parts)) as made:
        yield made


@pytest.fixture
def folder(sqlite_store: Store) -> Path:
    """Put a stand-in for the viewer where its files are expected, and return that folder."""
    folder = installed_folder(sqlite_store.data_dir / "viewer")
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>the start page</title>")
    (folder / "a.0123456789abcdef.js").write_bytes(SCRIPT)
    (folder / "a.0123456789abcdef.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "a.wasm").write_bytes(b"\0asm")
    (folder / "assets" / "a.png").write_bytes(b"png")
    (folder.parent / "secret.js").write_text("not for you")
    return folder


def test_without_a_viewer_the_page_names_the_command_and_the_studys_page(client: httpx.Client) -> None:
    """The sentence stands in for the viewer; a study named in the address is linked, anything else is not echoed."""
    named = client.get("/viewer/viewer", params={"StudyInstanceUIDs": "1.2.3"})
    hostile = client.get("/viewer/viewer", params={"StudyInstanceUIDs": "<script>alert(1)</script>"})

    assert named.status_code == hostile.status_code == 404
    assert "hybridmed viewer install" in named.text
    assert 'href="/studies/1.2.3"' in named.text
    assert "alert" not in hostile.text
    assert "unsafe" not in named.headers["content-security-policy"]


@pytest.mark.usefixtures("folder")
def test_every_address_of_the_viewers_own_gets_the_start_page(client: httpx.Client) -> None:
    """The viewer reads the address by itself; the page is asked for again each time."""
    paths = ("/viewer", "/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2", "/viewer/x/y")
    answers = [client.get(path) for path in paths]

    assert {answer.status_code for answer in answers} == {200}
    assert all("the start page" in answer.text for answer in answers)
    assert answers[0].headers["cache-control"] == "private, no-cache"


@pytest.mark.usefixtures("folder")
def test_files_have_their_type_and_are_kept_by_the_browser(client: httpx.Client) -> None:
    """The address holds the version, so what lies there never changes."""
    types = {"a.0123456789abcdef.js": "text/javascript", "a.wasm": "application/wasm", "assets/a.png": "image/png"}
    answers = {name: client.get(ROOT + name) for name in types}

    assert {name: answer.headers["content-type"].partition(";")[0] for name, answer in answers.items()} == types
    for answer in answers.values():
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.usefixtures("folder")
def test_large_files_go_out_compressed_to_whoever_takes_that(client: httpx.Client) -> None:
    """Compressed and plain are the same bytes, and caches are told what the difference hangs on."""
    path = f"{ROOT}a.0123456789abcdef.js"
    compressed = client.get(path, headers={"Accept-Encoding": "gzip"})
    plain = client.get(path, headers={"Accept-Encoding": "identity"})

    assert compressed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert compressed.content == plain.content == SCRIPT
    assert compressed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


def test_no_name_leads_out_of_the_folder(client: httpx.Client, folder: Path) -> None:
    """What is no file of the viewer is not found, however the way to it is written."""
    assert (folder.parent / "secret.js").exists()
    for name in ("%2e%2e/secret.js", "..%2fsecret.js", "a/%2e%2e/%2e%2e/secret.js", "assets", "none.js", "%00.js"):
        answer = client.get(httpx.URL(str(client.base_url), raw_path=(ROOT + name).encode()))

        assert (name, answer.status_code) == (name, 404)
        assert "not for you" not in answer.text


@pytest.mark.usefixtures("folder")
def test_files_of_another_version_are_gone(client: httpx.Client) -> None:
    """A page left open over an upgrade gets no start page for a script."""
    assert client.get("/viewer/files/3.0.0-1/a.0123456789abcdef.js").status_code == 404


@pytest.mark.usefixtures("folder")
def test_the_settings_name_our_own_dicomweb_and_no_other_host(client: httpx.Client) -> None:
    """The one data source is ours; no address of another server stands anywhere in the script."""
    script = client.get("/viewer/app-config.js").text
    settings = json.loads(re.search(r"^window\.config = (\{.*?^\});$", script, re.DOTALL | re.MULTILINE)[1])

    assert [each["configuration"]["wadoRoot"] for each in settings["dataSources"]] == ["/dicomweb"]
    assert settings["routerBasename"] == "/viewer"
    assert re.findall(r"https?://[^\s\"']+", script) == []


@pytest.mark.usefixtures("folder")
def test_only_the_viewer_may_evaluate_scripts(client: httpx.Client) -> None:
    """Its policy is looser for itself; that of every other page stays strict."""
    viewer, pages = (client.get(path).headers["content-security-policy"] for path in ("/viewer", "/worklist"))

    assert "'unsafe-eval'" in viewer
    assert "frame-ancestors 'none'" in viewer
    assert "unsafe" not in pages


def test_a_study_opens_with_its_segmentation(client: httpx.Client, sqlite_store: Store) -> None:
    """The link needs only the study; what came with it is laid over, and nothing where there is none."""
    with sqlite_store.write() as connection:
        for study in ("1.1", "1.2"):
            add_study(connection, study)
            add_series(connection, study, f"{study}.1")
            add_instance(connection, study, f"{study}.1", f"{study}.1.1")
        add_series(connection, "1.2", "1.2.2", modality="SEG")
        add_instance(connection, "1.2", "1.2.2", "1.2.2.1", sop_class_uid=SEGMENTATION)

    assert _target(client, "1.1") == "/viewer/viewer?StudyInstanceUIDs=1.1"
    assert _target(client, "1.2") == "/viewer/viewer?StudyInstanceUIDs=1.2&initialSeriesInstanceUID=1.2.2"
    assert client.get("/viewer/studies/%3Cscript%3E").status_code == 404


def _target(client: httpx.Client, study: str) -> str:
    return client.get(f"/viewer/studies/{study}").headers["location"]
