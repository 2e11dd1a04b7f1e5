"""pynetdicom events in, DIMSE status out: the role that receives."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from gateway.dimse_service import DimseService, DirectService, dispatchers
from gateway.errors import ConfigurationError
from gateway.indexer import Indexer
from gateway.services import Heartbeat
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, DiskLimits, Spool, orphans
from gateway.storage_service import Intake, StorageService
from gateway.store import Store
from gateway.upper_layer import PeerHandler, StorageServer

log = structlog.get_logger()

VERIFICATION = "1.2.840.10008.1.1"
_ADOPT_EVERY_S = 60.0
_LOOK_EVERY_S = 0.5
_RETIRED_IMAGES = ("1.2.840.10008.5.1.4.1.1.", "1.2.840.10008.5.1.4.34.1")
_TRANSFER_SYNTAXES = (
    *ALL_TRANSFER_SYNTAXES,
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    *(f"1.2.840.10008.1.2.4.{process}" for process in (52, 53, 54, 55, 56, *range(58, 67))),  # retired JPEG processes
)
_REJECTIONS: dict[tuple[int | None, int | None], str] = {
    (1, 3): "calling AE",
    (1, 7): "called AE",
    (3, 2): "too many associations",
}
"""Source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 table 9-21) -> why."""


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
    """

    name = "receive"

    def __init__(
        self,
        store: Store,
        listening: Listening,
        limits: Limits,
        heartbeat: Heartbeat,
        services: Sequence[DimseService | DirectService] = (),
    ) -> None:
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
        self._is_listening = threading.Event()
        self._port = listening.port

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
        with Spool(self._store.data_dir, self._heartbeat.service_id, disk_limits) as spool:
            indexer = Indexer(self._store, self._heartbeat)
            try:
                with indexer:
                    self._adopt(indexer)
                    self._serve(stop, Intake(spool, indexer, self._heartbeat.counters, self._heartbeat.service_id))
            finally:
                if not indexer.is_drained:
                    spool.leave_for_others()

    def _serve(self, stop: threading.Event, intake: Intake) -> None:
        server = self._open(intake)
        thread = threading.Thread(target=server.serve_forever, name="storage-server", daemon=True)
        thread.start()
        log.info("receive.listening", ae_title=self._listening.ae_title, port=self._port)
        self._is_listening.set()
        try:
            self._watch(stop, intake.indexer)
        finally:
            server.stop()
            thread.join()
            self._drain()

    def _open(self, intake: Intake) -> StorageServer:
        # Its handlers would format every PDU, and every query's keys and answers, for a log that nobody reads.
        pynetdicom_config.LOG_HANDLER_LEVEL = "none"
        pynetdicom_config.LOG_REQUEST_IDENTIFIERS = pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
        listening, limits = self._listening, self._limits
        ae = ApplicationEntity(listening.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION
        ae.require_called_aet = True
        ae.require_calling_aet = list(listening.allowed_aes)
        ae.maximum_associations = limits.max_associations
        ae.maximum_pdu_size = limits.max_pdu_bytes
        ae.acse_timeout = limits.association_timeout_s
        ae.dimse_timeout = limits.association_timeout_s
        ae.network_timeout = limits.idle_timeout_s
        ae.add_supported_context(VERIFICATION)

        def new_service(association: Association) -> StorageService:
            service = StorageService(association, intake, self._direct)
            self._services[association] = service
            return service

        try:
            server = StorageServer(
                ae,
                (listening.bind, listening.port),
                listening.ae_title,
                ae.supported_contexts,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_REJECTED, self._on_rejected),
                    (evt.EVT_RELEASED, self._on_released),
                    (evt.EVT_ABORTED, self._on_aborted),
                    *self._handlers,
                ],
                request_handler=PeerHandler,
                new_service=new_service,
                pdu_timeout_s=limits.association_timeout_s,
                counters=intake.counters,
            )
        except OSError as error:
            raise ConfigurationError(
                f"port {listening.port} on {listening.bind} cannot be opened (errno {error.errno}): "
                "set HYBRIDMED_DICOM_PORT or HYBRIDMED_BIND"
            ) from error
        self._port = server.server_address[1]
        return server

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
                self._services.pop(association, None)
        self._heartbeat.counters.set("hybridmed_associations_open", len(self._services))

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
        proposed = requestor.primitive.presentation_context_definition_list if requestor.primitive is not None else []
        acceptor.supported_contexts = supported_contexts(
            proposed, self._supported, requestor.role_selection, self._storage_classes
        )

    def _on_rejected(self, event: evt.Event) -> None:
        answer = event.assoc.acceptor.primitive
        key = (answer.result_source, answer.diagnostic) if answer is not None else (None, None)
        reason = _REJECTIONS.get(key, "other")
        self._heartbeat.counters.add(f'hybridmed_associations_rejected_total{{reason="{reason}"}}')
        log.warning("association.rejected", calling_ae=event.assoc.requestor.ae_title.strip(), reason=reason)
        self._forget(event.assoc)

    def _on_released(self, event: evt.Event) -> None:
        service = self._services.get(event.assoc)
        if service is not None:
            service.end("released")

    def _on_aborted(self, event: evt.Event) -> None:
        service = self._services.get(event.assoc)
        if service is not None:
            service.end("aborted")

    def _forget(self, association: Association) -> None:
        self._services.pop(association, None)


def storage_classes() -> frozenset[str]:
    """Return every Storage SOP class that pynetdicom knows, and the retired ones for what stands in archives."""
    retired = {
        uid
        for uid, (name, kind, _info, status, _keyword) in UID_dictionary.items()
        if kind == "SOP Class" and status and "Storage" in name and uid.startswith(_RETIRED_IMAGES)
    }
    return frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts) | retired


def supported_contexts(
    proposed: Sequence[PresentationContext],
    supported: Mapping[str, Collection[str]],
    roles: Mapping[UID, SCP_SCU_RoleSelectionNegotiation],
    storage_classes: Collection[str],
) -> list[PresentationContext]:
    """Return what we support of what is proposed, transfer syntaxes in the order of the proposal.

    pynetdicom takes the first of the acceptor's transfer syntaxes that was proposed, so the order decides. An abstract
    syntax that stands in several proposals gets their transfer syntaxes one after the other. Where the peer is to be
    the SCP of a storage class only, for the sub-operations of its C-GET, what it takes uncompressed comes first: any
    object can be sent so, and a compressed syntax fits only the objects that are stored in it.
    """
    orders: dict[str, dict[str, None]] = {}
    for context in proposed:
        uid = str(context.abstract_syntax)
        order = dict.fromkeys(str(one) for one in context.transfer_syntax if one in supported.get(uid, ()))
        if order:
            orders.setdefault(uid, {}).update(order)
    contexts = []
    for uid, order in orders.items():
        role = roles.get(UID(uid))
        is_to_receive = role is not None and bool(role.scp_role) and not role.scu_role
        context = build_context(uid, sorted(order, key=lambda one: is_to_receive and UID(one).is_compressed))
        if role is not None:  # SCP/SCU role selection, PS3.7 D.3.3.4: what we grant if it is asked for
            context.scu_role, context.scp_role = True, uid in storage_classes
        contexts.append(context)
    return contexts
