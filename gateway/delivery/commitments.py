"""Results of storage commitment over new associations, in the role `deliver` (PS3.4 J.3.3).

The role that delivers does it because it is the one that opens associations to peers and comes back to those that are
away; a receiver that is stopped or killed leaves its rows to it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import structlog
from pynetdicom import build_context, build_role
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT

from gateway.calling import ended, held_still
from gateway.commitment import PUSH_MODEL, CommitmentResult, event_report, look_up
from gateway.commitment_service import note_told
from gateway.config import DicomAddress
from gateway.dimse_service import UNCOMPRESSED
from gateway.errors import DatabaseAwayError, DestinationAwayError
from gateway.job import retry_delay
from gateway.query_retrieve.destination import connect
from gateway.secure_channel import ClientChannel
from gateway.services import Heartbeat
from gateway.store import Store, commitments
from gateway.store.commitments import Commitment

log = structlog.get_logger()

_POLL_S = 1.0
_AWAY_S = 1.0
_AT_ONCE = 100
_PEERS_AT_ONCE = 4
_BEHIND = timedelta(seconds=2)
"""Wait for the index."""
_KEPT = timedelta(days=7)
"""After which a peer that never could be told is given up."""
_REMEMBERED = timedelta(days=30)
"""How long a Transaction UID stays known after its result was told."""
_SWEEP_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class TellingLimits:
    """How long a peer may take, and how often it is tried."""

    timeout_s: float
    """Of each step with a peer."""
    max_attempts: int
    """Answers that refuse, before it is given up."""
    retry_first: timedelta
    retry_limit: timedelta


class CommitmentTeller:
    """Tells results that could not be told over the association that asked.

    Parameters
    ----------
    store, heartbeat
        Where transactions stand; who counts.
    ae_title
        Ours.
    peers
        AE title -> address.
    limits
        Times and tries.
    security
        For peers that are called by TLS.
    now
        The clock.
    """

    name = "commitments"

    def __init__(  # noqa: PLR0913 # the parts of the loop, all by name
        self,
        *,
        store: Store,
        heartbeat: Heartbeat,
        ae_title: str,
        peers: Mapping[str, DicomAddress],
        limits: TellingLimits,
        security: ClientChannel | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._ae_title = ae_title
        self._peers = dict(peers)
        self._limits = limits
        self._security = security
        self._now = now
        self._away: Counter[str] = Counter()
        self._without_address: set[str] = set()
        self._sweep_at = now()

    def run(self, stop: threading.Event) -> None:
        """Tell what is due until `stop` is set; what is being told is finished, within its time limits."""
        with ThreadPoolExecutor(max_workers=_PEERS_AT_ONCE, thread_name_prefix="commitments") as pool:
            while not stop.is_set():
                try:
                    self._turn(pool)
                except DatabaseAwayError as error:
                    log.warning("commitment.away", part="database", reason=str(error))
                    stop.wait(_AWAY_S)
                stop.wait(_POLL_S)

    def _turn(self, pool: ThreadPoolExecutor) -> None:
        with self._store.read() as connection:
            due = commitments.list_due(connection, self._now(), _AT_ONCE)
        by_peer = groupby(sorted(due, key=lambda one: one.calling_ae), key=lambda one: one.calling_ae)
        work = [(peer_ae, list(group)) for peer_ae, group in by_peer]
        for done in [pool.submit(self._serve_peer, peer_ae, group) for peer_ae, group in work]:
            done.result()
        if self._now() >= self._sweep_at:
            self._sweep_at = self._now() + _SWEEP_EVERY
            with self._store.write() as connection:
                commitments.forget_told(connection, self._now() - _REMEMBERED)

    def _serve_peer(self, peer_ae: str, due: Sequence[Commitment]) -> None:
        """Tell a peer what is due, all over one association."""
        taken = self._take(due)
        if not taken:
            return
        address = self._peers.get(peer_ae)
        if address is None:
            self._keep_for(peer_ae, taken)
            return
        ready: list[tuple[Commitment, CommitmentResult]] = []
        for one in taken:
            result = look_up(self._store, one, self._now())
            if result is None:
                self._put_back(one, self._now() + _BEHIND, None)
            else:
                ready.append((one, result))
        told = 0
        try:
            if ready:
                with self._associated(address) as association:
                    for one, result in ready:
                        self._tell(association, one, result)
                        told += 1
                self._away.pop(peer_ae, None)
        except DestinationAwayError as error:
            self._put_off(peer_ae, [one for one, _ in ready[told:]], str(error))

    def _take(self, due: Sequence[Commitment]) -> list[Commitment]:
        """Hold what is due for as long as telling it may take; leave out what another process holds."""
        until = self._now() + timedelta(seconds=self._limits.timeout_s * (len(due) + 4))
        with self._store.write() as connection:
            taken = [commitments.hold(connection, one, until) for one in due]
        return [one for one in taken if one is not None]

    def _keep_for(self, peer_ae: str, those: Sequence[Commitment]) -> None:
        """Let a peer wait whose address is not configured, and say so once."""
        advice = f"{peer_ae} is not in move_destinations or destinations: told when it associates again"
        if peer_ae not in self._without_address:
            self._without_address.add(peer_ae)
            log.warning("commitment.no_address", peer_ae=peer_ae, reason=advice)
        for one in those:
            self._rest(one, self._limits.retry_limit, advice)

    def _put_off(self, peer_ae: str, those: Sequence[Commitment], reason: str) -> None:
        """Let a peer that is away rest; what has waited too long is given up."""
        self._away[peer_ae] += 1
        delay = retry_delay(self._away[peer_ae], self._limits.retry_first, self._limits.retry_limit)
        log.warning(
            "commitment.untold", peer_ae=peer_ae, count=len(those), reason=reason, retry_s=delay.total_seconds()
        )
        for one in those:
            self._rest(one, delay, reason)

    def _rest(self, one: Commitment, delay: timedelta, reason: str) -> None:
        if self._now() > one.created_at + _KEPT:
            with self._store.write() as connection:
                commitments.fail(connection, one, self._now(), reason)
        else:
            self._put_back(one, self._now() + delay, reason)

    def _put_back(self, one: Commitment, available_at: datetime, reason: str | None, *, counts: bool = False) -> None:
        with self._store.write() as connection:
            commitments.put_back(connection, one, available_at, reason, counts=counts)

    @contextmanager
    def _associated(self, address: DicomAddress) -> Iterator[Association]:
        """Give an association in which we are the SCP (PS3.7 D.3.3.4); DestinationAwayError where there is none."""
        contexts = [build_context(PUSH_MODEL, list(UNCOMPRESSED))]
        role = build_role(PUSH_MODEL, scp_role=True)
        association = connect(address, self._ae_title, contexts, self._limits.timeout_s, role, security=self._security)
        with ended(association), held_still(association):
            yield association

    def _tell(self, association: Association, one: Commitment, result: CommitmentResult) -> None:
        status = self._ask(association, result)
        if status == 0:
            with self._store.write() as connection:
                commitments.finish(connection, one, self._now(), result.note)
            note_told(self._heartbeat.counters, one.calling_ae, result, "new association")
            return
        reason, tries = f"the peer answered 0x{status:04X}", one.attempts + 1
        log.warning("commitment.refused", peer_ae=one.calling_ae, reason=reason, attempt=tries)
        if tries >= self._limits.max_attempts:
            with self._store.write() as connection:
                commitments.fail(connection, one, self._now(), reason)
        else:
            delay = retry_delay(tries, self._limits.retry_first, self._limits.retry_limit)
            self._put_back(one, self._now() + delay, reason, counts=True)

    def _ask(self, association: Association, result: CommitmentResult) -> int:
        """Tell a result and return the peer's status.

        A peer that accepts the context and says nothing of the roles is told all the same: many leave it out.
        """
        context = next(iter(association.accepted_contexts), None)
        if context is None:
            raise DestinationAwayError("the peer accepts no storage commitment result")
        request = event_report(result, self._ae_title, 1, context.transfer_syntax[0])
        association.dimse.send_msg(request, context.context_id or 0)
        _, answer = association.dimse.get_msg(block=True)
        if not isinstance(answer, N_EVENT_REPORT) or answer.Status is None:
            raise DestinationAwayError("no answer to N-EVENT-REPORT")
        return int(answer.Status)
