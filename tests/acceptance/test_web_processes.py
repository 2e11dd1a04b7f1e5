"""Several processes of the role web over one port: connections are dealt out, and all of them drain at the end."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pydicom
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.gateway_process import GatewayProcess
from tests.dicomweb import store_paths
from tests.services.process import HANGS_S, wait_until
from tests.studies import RealData, dicom_files

TRIES = 6


def test_processes_share_the_port_and_the_truth(tmp_path: Path, real_data: RealData) -> None:
    """Both answer, both are told of in the metrics, what one takes the other shows; SIGTERM ends both in good order."""
    sent = dicom_files(real_data.samples / "mr-hippocampus")[:3]
    gateway = GatewayProcess(tmp_path / "gateway", roles="web", HYBRIDMED_WEB_PROCESSES="2")
    try:
        gateway.program.start()
        gateway.program.wait_ready(lambda: _counts(gateway.url).keys() >= {"0", "1"}, HANGS_S)
        with httpx.Client(base_url=f"{gateway.url}/dicomweb/", timeout=60) as client:
            store_paths(client, sent)
        study = str(pydicom.dcmread(sent[0]).StudyInstanceUID)
        shown = [_instances(gateway.url, study) for _ in range(12)]
        wait_until(lambda: _all_answered(_counts(gateway.url)), HANGS_S, "answers of each process")
    finally:
        status = gateway.stop()

    assert shown == [len(sent)] * 12
    assert status == 0
    assert gateway.log_text().count('"event": "web.stopped"') == 2


def test_limits_hold_for_all_processes_together(tmp_path: Path) -> None:
    """Whoever guesses tokens has as many tries as with one process, however connections are dealt out."""
    limit = {"HYBRIDMED_AUTH": "token", "HYBRIDMED_ACCESS__FAILURES_PER_MINUTE": str(TRIES)}
    gateway = GatewayProcess(tmp_path / "gateway", roles="web", HYBRIDMED_WEB_PROCESSES="2", **limit)
    try:
        gateway.start()
        wait_until(lambda: gateway.running_count("web") == 2, HANGS_S, "two heartbeats")
        begun = time.monotonic()
        answers = [_guess(gateway.url) for _ in range(10 * TRIES)]
        took_s = time.monotonic() - begun
    finally:
        gateway.stop()

    assert set(answers) == {httpx.codes.UNAUTHORIZED, httpx.codes.TOO_MANY_REQUESTS}
    assert TRIES <= answers.count(httpx.codes.UNAUTHORIZED) <= TRIES * (1 + took_s / 60) + 1


def _all_answered(counts: dict[str, float]) -> bool:
    return len(counts) == 2 and all(counts.values())


def _guess(url: str) -> int:
    """Show a wrong token over a connection of its own."""
    return httpx.get(f"{url}/fhir/Patient", headers={"Authorization": "Bearer wrong"}, timeout=60).status_code


def _counts(url: str) -> dict[str, float]:
    """Return the answers of each running web process, numbered, by the metrics of whichever is asked."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=60).text
    except httpx.TransportError:
        return {}
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    services = sorted(
        each.labels["service"]
        for each in samples
        if each.name == "hybridmed_role_up" and each.labels["role"] == "web" and each.value
    )
    answered = {
        each.labels["service"]: each.value
        for each in samples
        if each.name == "hybridmed_http_responses_total" and each.labels["status"] == "200"
    }
    return {str(number): answered.get(service, 0.0) for number, service in enumerate(services)}


def _instances(url: str, study: str) -> int:
    """Count a study's instances over a connection of its own."""
    return len(httpx.get(f"{url}/dicomweb/studies/{study}/instances", timeout=60).json())
