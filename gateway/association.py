"""pynetdicom events in, DIMSE status out: the role that receives."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import structlog
from pynetdicom import ALL_TRANSFER_SYNTAXES, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from gateway.admission import TOO_MANY, TOO_MANY_OF_TITLE, Admission, Refusal, certificate_names, unknown_title
from gateway.audit.acts import refused_node
from gateway.audit.trail import record
from gateway.dimse_service import DimseService, DirectService, dispatchers
from gateway.errors import ConfigurationError
from gateway.indexer import Indexer
from gateway.receive.contexts import storage_classes, supported_contexts
from gateway.receive.handler import PromptHandler
from gateway.receive.lobby import Lobby
from gateway.receive.slots import Slots
from gateway.secure_channel import SecureChannel
from gateway.services import Heartbeat
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, DiskLimits, Spool, orphans
from gateway.storage_service import Intake, StorageService
from gateway.store import Store
from gateway.upper_layer import PeerHandler, StorageServer

log = structlog.get_logger()

VERIFICATION = "1.2.840.10008.1.1"
_ADOPT_EVERY_S = 60.0
_LOOK_EVERY_S = 0.5
_TRANSFER_SYNTAXES = (
    *ALL_TRANSFER_SYNTAXES,
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    *(f"1.2.840.10008.1.2.4.{process}" for process in (52, 53, 54, 55, 56, *range(58, 67))),  # retired JPEG processes
)


@dataclass(frozen=True, slots=True)
class Listening:
    """Who we are and whom we take."""

    ae_title: str
    bind: str
    port: int
    """0: any free one."""
    allowed_aes: tuple[str, ...] = ()
    """Calling AE titles; empty: all."""
    private_storage_classes: tuple[str, ...] = ()
    """UIDs of private Storage SOP classes."""
    path: Literal["fast", "stock"] = "fast"
    """How P-DATA is received: as it lies in the buffer, or by pynetdicom alone."""
    processes: int = 1
    """How many processes listen on the same port and share the limit of associations."""
    secure_port: int | None = None
    """Of TLS; 0: any free one; None: none."""
    is_plain: bool = True
    """Whether `port` is opened; without it there is TLS alone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may cost us."""

    max_associations: int = 64
    max_pdu_bytes: int = 131072
    association_timeout_s: float = 30.0
    """Of negotiation, and of each PDU once begun."""
    idle_timeout_s: float = 60.0
    """After which a silent association is aborted."""
    reserve_bytes: int = 1 << 30
    """Free disk space under which no instance is taken."""
    max_instance_bytes: int = 1 << 33
    drain_s: float = 10.0
    """How long associations may go on once we are to stop."""


class Receiver:
    """The Storage SCP (PS3.4 annex B), with Verification and whatever other services it is given.

    Parameters
    ----------
    store
        Database and data folder; the folder must be writable, the database may be away.
    listening
        Address, AE titles and SOP classes.
    limits
        Sizes, counts and times.
    heartbeat
        Begun and ended by the caller; its service id names our associations.
    services
        Served over the same port; no two of them have a SOP class in common.
    admission
        Who may associate, and what for; None: whom `listening` lets in.
    channel
        Speaks TLS on the secure port.
    """

    name = "receive"

    def __init__(  # noqa: PLR0913, PLR0917 # its parts
        self,
        store: Store,
        listening: Listening,
        limits: Limits,
        heartbeat: Heartbeat,
        services: Sequence[DimseService | DirectService] = (),
        admission: Admission | None = None,
        channel: SecureChannel | None = None,
    ) -> None:
        self._admission = admission or Admission()
        self._channel = channel
        self._store = store
        self._listening = listening
        self._limits = limits
        self._heartbeat = heartbeat
        self._storage_classes = storage_classes() | set(listening.private_storage_classes)
        self._supported: dict[str, Collection[str]] = {
            **dict.fromkeys(self._storage_classes | {VERIFICATION}, _TRANSFER_SYNTAXES),
            **{uid: syntaxes for service in services for uid, syntaxes in service.contexts.items()},
        }
        self._direct = [service for service in services if isinstance(service, DirectService)]
        self._handlers = dispatchers([service for service in services if not isinstance(service, DirectService)])
        self._services: dict[Association, StorageService] = {}
        self._lobby = Lobby(limits.max_associations, self._admission.may_come, heartbeat.counters)
        self._slots: dict[str | None, Slots] = {}
        """AE title -> its places for associations; None: everybody's."""
        self._is_listening = threading.Event()
        self._port = listening.port
        self.secure_port: int | None = None
        """Of TLS, once it is open."""

    def wait_until_listening(self, timeout_s: float) -> int:
        """Return the port once it is open; TimeoutError if that takes too long."""
        if not self._is_listening.wait(timeout_s):
            raise TimeoutError("the receiver does not listen")
        return self._port

    def run(self, stop: threading.Event) -> None:
        """Index what an earlier process left, then receive until `stop`; let associations end, index what they brought.

        Raises
        ------
        ConfigurationError
            The port cannot be opened.
        RuntimeError
            The indexer ended; what it left is found by the next start.
        """
        disk_limits = DiskLimits(self._limits.reserve_bytes, self._limits.max_instance_bytes)
        with Spool(self._store.data_dir, self._heartbeat.service_id, disk_limits) as spool, self._shared_slots():
            indexer = Indexer(self._store, self._heartbeat)
            try:
                with indexer:
                    self._adopt(indexer)
                    beat = self._heartbeat
                    self._serve(stop, Intake(spool, indexer, beat.counters, beat.service_id, self._admission.wait))
            finally:
                if not indexer.is_drained:
                    spool.leave_for_others()

    @contextmanager
    def _shared_slots(self) -> Iterator[None]:
        """Share the limits of associations with the other processes on our port."""
        data_dir, port = self._store.data_dir, self._listening.port
        self._slots[None] = Slots(data_dir, port, self._limits.max_associations)
        for title, count in self._admission.max_associations.items():
            self._slots[title] = Slots(data_dir, port, count, title)
        try:
            yield
        finally:
            for slots in self._slots.values():
                slots.close()

    def _serve(self, stop: threading.Event, intake: Intake) -> None:
        servers = self._open_all(intake)
        threads = [threading.Thread(target=one.serve_forever, name="storage-server", daemon=True) for one in servers]
        for thread in threads:
            thread.start()
        log.info("receive.listening", ae_title=self._listening.ae_title, port=self._port, secure_port=self.secure_port)
        self._is_listening.set()
        try:
            self._watch(stop, intake.indexer)
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.stop()
                thread.join()
            self._drain()

    def _open_all(self, intake: Intake) -> list[StorageServer]:
        """Open the plain port, the secure port or both; they share the associations' limit."""
        listening = self._listening
        ae, servers = self._entity(), []
        if listening.is_plain or listening.secure_port is None:
            servers.append(self._open(intake, ae, listening.port, None))
            self._port = servers[0].server_address[1]
        if listening.secure_port is not None:
            if self._channel is None:
                raise ConfigurationError("a secure port needs a certificate: set HYBRIDMED_TLS__CERTIFICATE")
            try:
                servers.append(self._open(intake, ae, listening.secure_port, self._channel))
            except ConfigurationError:
                for server in servers:
                    server.server_close()
                raise
            self.secure_port = servers[-1].server_address[1]
        return servers

    def _entity(self) -> ApplicationEntity:
        # Its handlers would format every PDU, and every query's keys and answers, for a log that nobody reads.
        pynetdicom_config.LOG_HANDLER_LEVEL = "none"
        pynetdicom_config.LOG_REQUEST_IDENTIFIERS = pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
        ae, limits = ApplicationEntity(self._listening.ae_title), self._limits
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION
        ae.maximum_associations = sys.maxsize  # it would count connections that have not negotiated
        ae.maximum_pdu_size = limits.max_pdu_bytes
        ae.acse_timeout = limits.association_timeout_s
        ae.dimse_timeout = limits.association_timeout_s
        ae.network_timeout = limits.idle_timeout_s
        ae.add_supported_context(VERIFICATION)
        return ae

    def _open(self, intake: Intake, ae: ApplicationEntity, port: int, channel: SecureChannel | None) -> StorageServer:
        listening, limits = self._listening, self._limits

        def new_service(association: Association) -> StorageService:
            service = StorageService(association, intake, self._direct)
            self._services[association] = service
            return service

        try:
            return StorageServer(
                ae,
                (listening.bind, port),
                listening.ae_title,
                ae.supported_contexts,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_ACCEPTED, self._on_accepted),
                    (evt.EVT_RELEASED, self._on_released),
                    (evt.EVT_ABORTED, self._on_aborted),
                    (evt.EVT_CONN_CLOSE, _on_closed),
                    *self._handlers,
                ],
                request_handler=PromptHandler if listening.path == "fast" else PeerHandler,
                new_service=new_service,
                pdu_timeout_s=limits.association_timeout_s,
                lobby=self._lobby,
                channel=channel,
                is_shared=listening.processes > 1,
            )
        except OSError as error:
            name = "HYBRIDMED_DICOM_PORT" if channel is None else "HYBRIDMED_DICOM_TLS__PORT"
            raise ConfigurationError(
                f"port {port} on {listening.bind} cannot be opened (errno {error.errno}): set {name} or HYBRIDMED_BIND"
            ) from error

    def _watch(self, stop: threading.Event, indexer: Indexer) -> None:
        adopt_at = time.monotonic() + _ADOPT_EVERY_S
        while not stop.wait(_LOOK_EVERY_S):
            self._reap()
            if not indexer.is_alive:
                raise RuntimeError("the indexer ended")
            if time.monotonic() >= adopt_at:
                self._adopt(indexer)
                adopt_at = time.monotonic() + _ADOPT_EVERY_S

    def _adopt(self, indexer: Indexer) -> None:
        """Hand what dead receivers left to the indexer, before anything that comes later."""
        for orphan in orphans(self._store.data_dir):
            indexer.submit(orphan)

    def _reap(self) -> None:
        """Close the books on associations whose thread has ended, however it ended."""
        for association, service in list(self._services.items()):
            if association.ident is not None and not association.is_alive():
                service.end("aborted")
                self._forget(association)
        is_open = [association.is_established for association in list(self._services)]
        self._heartbeat.counters.set("hybridmed_associations_open", sum(is_open))

    def _drain(self) -> None:
        deadline = time.monotonic() + self._limits.drain_s
        while self._services and time.monotonic() < deadline:
            time.sleep(0.05)
            self._reap()
        for association in list(self._services):
            association.abort()
            association.join(self._limits.association_timeout_s)
        self._reap()

    def _on_requested(self, event: evt.Event) -> None:
        """Support what is proposed in the order in which it is proposed, so that nothing is transcoded for our sake."""
        acceptor, requestor = event.assoc.acceptor, event.assoc.requestor
        if self._is_rejected(event.assoc):
            return
        calling_ae = _calling_ae(event.assoc)
        supported = {
            uid: self._supported[uid] for uid in self._supported.keys() - self._admission.forbidden(calling_ae)
        }
        proposed = requestor.primitive.presentation_context_definition_list if requestor.primitive is not None else []
        refused = self._admission.refused_rights(calling_ae, {str(each.abstract_syntax) for each in proposed})
        if refused:
            reason = self._admission.advice(calling_ae)
            log.warning("association.not_allowed", calling_ae=calling_ae, rights=refused, reason=reason)
        acceptor.supported_contexts = supported_contexts(
            proposed, supported, requestor.role_selection, self._storage_classes
        )

    def _is_rejected(self, association: Association) -> bool:
        """Reject an association that the rules do not let in, and say whether it was."""
        requestor = association.requestor
        if requestor.primitive is None:
            return False
        requestor.ae_title = requestor.primitive.calling_ae_title
        refusal = self._refusal(association, requestor.primitive) or self._no_place(association)
        if refusal is not None:
            self._reject(association, refusal)
        return refusal is not None

    def _refusal(self, association: Association, request: A_ASSOCIATE) -> Refusal | None:
        """Return what stands against an association: AE titles, certificate or address."""
        calling_ae, who = _calling_ae(association), self._listening
        unknown = unknown_title(calling_ae, who.allowed_aes, (request.called_ae_title or "").strip(), who.ae_title)
        names, address = certificate_names(_channel(association)), association.requestor.address or ""
        return unknown or self._admission.refusal(calling_ae, address, names)

    def _no_place(self, association: Association) -> Refusal | None:
        """Take the places that an association needs; say what stands against it where there is none."""
        of_title = self._slots.get(_calling_ae(association))
        if of_title is not None and not of_title.take(association, association.requestor.address or ""):
            return TOO_MANY_OF_TITLE
        return None if self._slots[None].take(association) else TOO_MANY

    def _reject(self, association: Association, refusal: Refusal) -> None:
        """Answer with result, source and diagnostic (PS3.8 table 9-21)."""
        self._give_slot_back(association)
        self._note_rejection(association, refusal.reason)
        association.acse.send_reject(refusal.result, refusal.source, refusal.diagnostic)
        association.kill()
        self._forget(association)

    def _note_rejection(self, association: Association, reason: str) -> None:
        calling_ae = _calling_ae(association)
        self._heartbeat.counters.add(f'hybridmed_associations_rejected_total{{reason="{reason}"}}')
        log.warning("association.rejected", calling_ae=calling_ae, reason=reason)
        record(refused_node(calling_ae, association.requestor.address or "", reason))

    def _on_accepted(self, event: evt.Event) -> None:
        self._lobby.leave(_channel(event.assoc))

    def _on_released(self, event: evt.Event) -> None:
        service = self._services.get(event.assoc)
        if service is not None:
            service.end("released")
        self._give_slot_back(event.assoc)

    def _on_aborted(self, event: evt.Event) -> None:
        service = self._services.get(event.assoc)
        if service is not None:
            service.end("aborted")
        self._give_slot_back(event.assoc)

    def _forget(self, association: Association) -> None:
        self._services.pop(association, None)
        self._give_slot_back(association)

    def _give_slot_back(self, association: Association) -> None:
        for slots in self._slots.values():
            slots.give_back(association)


def _calling_ae(association: Association) -> str:
    return (association.requestor.ae_title or "").strip()


def _channel(association: Association) -> socket.socket | None:
    return getattr(association.dul.socket, "socket", None)


def _on_closed(event: evt.Event) -> None:
    """Tell the association's thread at once where it still waits for a request, which it would do for half a minute."""
    event.assoc.dul.to_user_queue.put(None)  # what `receive_pdu` returns when nothing came
