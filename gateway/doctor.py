"""`hybridmed doctor`: checks every part and says what to do. Nothing is changed."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import by pynetdicom

from gateway.access_state import look_at_access
from gateway.calling import PromptEntity
from gateway.config import Destination, DicomAddress, Settings
from gateway.config.dicom_tls import DicomTls
from gateway.disk import free_mib, read_only_folders
from gateway.errors import GatewayError, SchemaError
from gateway.secure_channel import ClientChannel, tls_args
from gateway.services import gone_before
from gateway.store import Store, schema
from gateway.store.fhir_subscriptions import count_subscriptions
from gateway.store.quarantine import count_quarantined
from gateway.store.services import list_services
from gateway.store.tables import delivery, demographic_issue, fhir_poll, job
from gateway.supervisor import ROLES

Verdict = Literal["ok", "warning", "failed"]
_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Check:
    """What one look at one part found."""

    part: str
    verdict: Verdict
    found: str
    advice: str = ""
    """What to do; empty where nothing is to be done."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor needs to look at the parts."""

    settings: Settings
    store: Store
    broker_check: Callable[[], str]
    """Connects to the broker and returns what it found; GatewayError where it is away."""
    bundles: Callable[[], tuple[Sequence[str], Sequence[str]]]
    """Names with versions of the bundles that load, and a sentence for each that does not."""


def examine(examination: Examination) -> Iterable[Check]:
    """Yield a check for each part, the ones that others stand on first."""
    settings, store = examination.settings, examination.store
    yield _check_folder(settings.data_dir, settings.reserve_mib)
    database = _check_database(store)
    yield database
    yield _check_broker(settings.broker_url is not None, examination.broker_check)
    yield from _check_bundles(examination.bundles)
    yield _check_torch()
    yield from _check_certificates(settings.dicom_tls)
    for destination in settings.destinations:
        yield _check_destination(destination, settings.ae_title, ClientChannel(settings.tls, settings.dicom_tls))
    if database.verdict == "ok":
        yield from _check_roles(store, DicomAddress(settings.ae_title, settings.bind, settings.dicom_port))
        yield from _check_lists(store)
        yield from _check_exchange(store)
        yield from (Check(*found) for found in look_at_access(settings, store))


def _check_folder(data_dir: Path, reserve_mib: int) -> Check:
    part = "data folder"
    free, closed = free_mib(data_dir), read_only_folders(data_dir)
    probe = data_dir / ".doctor"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Check(part, "failed", f"{data_dir}: {error.strerror}", "make the folder writable for this user")
    if closed:
        advice = "see the kernel's log for an error of the disk, then mount it for writing again"
        return Check(part, "failed", f"{data_dir}: read-only: {', '.join(closed)}", advice)
    if free < reserve_mib:
        advice = "free space, or lower HYBRIDMED_RESERVE_MIB: instances are refused (A700) until then"
        return Check(part, "failed", f"{data_dir}: {free} MiB free, under the reserve of {reserve_mib} MiB", advice)
    return Check(part, "ok", f"{data_dir}: writable, {free} MiB free")


def _check_database(store: Store) -> Check:
    part = f"database ({store.engine.dialect.name})"
    try:
        revision = schema.current_revision(store)
        schema.refuse_newer(store)
    except SchemaError as error:
        return Check(part, "failed", str(error), "install the newer program")
    except GatewayError as error:
        return Check(part, "failed", str(error), "start the database, or correct HYBRIDMED_DATABASE_URL")
    if revision is None and store.engine.dialect.name == "sqlite":
        return Check(part, "warning", "schema none", "made at the first start, or now by `hybridmed db upgrade`")
    if revision != schema.head_revision():
        found = f"schema {revision or 'none'}, this program needs {schema.head_revision()}"
        return Check(part, "failed", found, "run `hybridmed db upgrade`")
    return Check(part, "ok", f"schema {revision}")


def _check_broker(is_configured: bool, broker_check: Callable[[], str]) -> Check:
    if not is_configured:
        return Check("broker", "ok", "embedded: the jobs table is the queue")
    try:
        return Check("broker", "ok", broker_check())
    except GatewayError as error:
        return Check("broker", "failed", str(error), "start RabbitMQ, or correct HYBRIDMED_BROKER_URL")


def _check_bundles(bundles: Callable[[], tuple[Sequence[str], Sequence[str]]]) -> Iterable[Check]:
    good, bad = bundles()
    for sentence in bad:
        yield Check("bundle", "failed", sentence, "correct or remove the bundle; the others go on working")
    for name in good:
        yield Check("bundle", "ok", name)
    if not good:
        yield Check("bundle", "failed", "no bundle loads", "install one under HYBRIDMED_BUNDLE_DIR")


def _check_torch() -> Check:
    part = "torch"
    try:
        torch, torchvision = version("torch"), version("torchvision")
    except PackageNotFoundError:
        advice = "needed by `work` and `train` alone: pip install 'hybridmed-gateway[inference]'"
        return Check(part, "warning", "torch or torchvision is not installed", advice)
    found = f"torch {torch}, torchvision {torchvision}"
    # In a process of its own: a mismatched pair may end the interpreter, and this package imports no torch.
    trial = subprocess.run([sys.executable, "-c", "import torchvision.ops"], capture_output=True, check=False)
    if trial.returncode != 0:
        last_line = (trial.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        advice = (
            "a CPU-only torch does not load the package index's torchvision: install the matching pair, "
            "pip install --force-reinstall -c constraints.txt torch torchvision"
        )
        return Check(part, "failed", f"{found} do not load together: {last_line[:120]}", advice)
    return Check(part, "ok", found)


def _check_certificates(section: DicomTls) -> Iterable[Check]:
    """Say where an AE title proves less than the settings look like."""
    part = "certificates"
    if section.certificates and (section.plain or not section.enabled):
        found = "a port without TLS is open: titles with a certificate are refused there, all others are but names"
        yield Check(part, "warning", found, "set dicom_tls.plain = false once every peer speaks TLS")
    if section.certificates and section.client_certificate == "none":
        found = "none is asked for: every title in dicom_tls.certificates is refused"
        yield Check(part, "failed", found, 'set dicom_tls.client_certificate = "required"')
    if section.enabled and section.client_certificate == "required" and not section.certificates:
        found = "required, and none is mapped: whoever has one of tls.peer_ca may use any AE title"
        yield Check(part, "warning", found, "name the AE titles of each in dicom_tls.certificates")


def _check_destination(destination: Destination, calling_ae: str, security: ClientChannel) -> Check:
    part = f"destination {destination.name}"
    if destination.takes_reports:
        return _check_report_destination(part, destination)
    if destination.dicom is None:
        return _check_dicomweb(part, destination.address)
    if echo(destination.dicom, calling_ae, security):
        return Check(part, "ok", f"{destination.address} answers C-ECHO")
    advice = f"start it, open the way to it, and let it know the AE title {calling_ae}; results wait meanwhile"
    return Check(part, "failed", f"{destination.address} does not answer C-ECHO", advice)


def _check_dicomweb(part: str, address: str) -> Check:
    try:
        status = httpx.get(f"{address}/studies", params={"limit": "1"}, timeout=_TIMEOUT_S, trust_env=False).status_code
    except httpx.HTTPError as error:
        return Check(part, "failed", f"{address}: {type(error).__name__}", "start it, or correct the address")
    if status >= httpx.codes.BAD_REQUEST:
        return Check(part, "failed", f"{address} answers {status}", "correct the address or its access rights")
    return Check(part, "ok", f"{address} answers")


def _check_report_destination(part: str, destination: Destination) -> Check:
    address = destination.url
    try:
        if destination.way == "hl7":
            parts = urlsplit(address)
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_TIMEOUT_S).close()
            return Check(part, "ok", f"{address} takes connections")
        status = httpx.get(f"{address}/metadata", timeout=_TIMEOUT_S, trust_env=False).status_code
    except (httpx.HTTPError, OSError) as error:
        return Check(part, "failed", f"{address}: {type(error).__name__}", "start it, or correct the address")
    if status >= httpx.codes.BAD_REQUEST:
        return Check(part, "failed", f"{address}/metadata answers {status}", "correct the address or its access rights")
    return Check(part, "ok", f"{address} answers")


def _check_exchange(store: Store) -> Iterable[Check]:
    """Look at subscriptions that were switched off, servers that are not reached, and patients that differ."""
    with store.read() as connection:
        off = count_subscriptions(connection).get("off", 0)
        differing = connection.scalar(sa.select(sa.func.count()).select_from(demographic_issue))
        polls = connection.execute(sa.select(fhir_poll).where(fhir_poll.c.failures > 0)).all()
    if off:
        yield Check("subscriptions", "warning", f"{off} are off", "GET /fhir/Subscription?status=off says why")
    if differing:
        found = f"studies whose patient others describe otherwise: {differing}"
        yield Check("demographics", "warning", found, "GET /fhir/Flag; hybridmed studies show UID")
    for poll in polls:
        yield Check(f"poll of {poll.type}", "warning", f"{poll.failures} failures: {poll.reason}", "see [exchange]")


def _check_roles(store: Store, own: DicomAddress) -> Iterable[Check]:
    with store.read() as connection:
        services = list_services(connection, gone_before(datetime.now(UTC)))
    for role in ROLES:
        beating = [service for service in services if service.role == role]
        if not beating:
            yield Check(f"role {role}", "warning", "not running", f"hybridmed serve --only {role}")
        for service in beating:
            verdict: Verdict = "ok" if service.state == "ready" else "warning"
            yield Check(f"role {role}", verdict, f"{service.host} pid {service.pid}: {service.reason or service.state}")
    here = socket.gethostname()
    if any(service.role == "receive" and service.host == here for service in services):
        heard = echo(own, "DOCTOR")
        yield (
            Check("receiver", "ok", f"{own} answers C-ECHO")
            if heard
            else Check("receiver", "warning", f"{own} does not answer C-ECHO of AE DOCTOR", "see HYBRIDMED_ALLOWED_AES")
        )


def _check_lists(store: Store) -> Iterable[Check]:
    with store.read() as connection:
        dead = connection.scalar(sa.select(sa.func.count()).where(job.c.state == "dead"))
        failed = connection.scalar(sa.select(sa.func.count()).where(delivery.c.state == "failed"))
        quarantined = count_quarantined(connection)
    if dead:
        yield Check("dead list", "warning", f"{dead} jobs", "hybridmed dead list; hybridmed dead retry")
    if quarantined:
        found = f"{quarantined} files answered with success and not indexed"
        yield Check(
            "quarantine", "warning", found, "hybridmed dead list; hybridmed dead retry FILE, or dead discard FILE"
        )
    if failed:
        yield Check("deliveries", "warning", f"{failed} failed", "hybridmed deliveries list --state failed")


def echo(address: DicomAddress, calling_ae: str, security: ClientChannel | None = None) -> bool:
    """Say whether a DICOM peer answers C-ECHO (PS3.4 A) within a few seconds."""
    entity = PromptEntity(calling_ae)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _TIMEOUT_S
    entity.add_requested_context(Verification)
    association = entity.associate(
        address.host, address.port, ae_title=address.ae_title, tls_args=tls_args(address, security)
    )
    if not association.is_established:
        return False
    try:
        status = association.send_c_echo()
        return bool(status) and status.Status == 0
    finally:
        association.release()
