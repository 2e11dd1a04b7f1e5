"""What all roles share: a name, counters, a heartbeat."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

import sqlalchemy as sa
import structlog

from gateway.errors import ServiceAwayError
from gateway.store import Store
from gateway.store.services import ServiceBeat, beat, forget, forget_process

log = structlog.get_logger()

Exemplar: TypeAlias = tuple[str, float, float]
"""Trace id, value, and when, in seconds since 1970."""
BEAT_S = 5.0
"""Seconds between heartbeats."""
GONE_S = 30.0
"""Seconds after the last heartbeat when a role counts as gone."""


HUNG = 70
"""Exit code of a role whose work hangs (EX_SOFTWARE)."""
DEVICE_LOST = 75
"""Exit code of a worker whose device is lost to its process (EX_TEMPFAIL): the next process may use it."""
SHOWN = timedelta(minutes=15)
"""How long a process is shown that gives no sign of life and in whose place no other began."""


def gone_before(now: datetime) -> datetime:
    """Return the time such that a role last seen before it counts as gone."""
    return now - timedelta(seconds=GONE_S)


def silent(beats: Sequence[ServiceBeat], now: datetime) -> list[ServiceBeat]:
    """Return the processes that ended in no good order, or hang, and in whose place no other has begun since.

    Parameters
    ----------
    beats
        All of the last `SHOWN`.
    """
    missing: list[ServiceBeat] = []
    for each in sorted(beats, key=lambda one: one.started_at):
        before = [one for one in missing if one.role == each.role and one.seen_at <= each.started_at]
        if before:
            missing.remove(min(before, key=lambda one: one.seen_at))
        if each.seen_at < gone_before(now):
            missing.append(each)
    return missing


class Role(Protocol):
    """One of receive, dispatch, work, deliver, web."""

    name: str

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then finish what is in hand and return."""


class Counters:
    """Counters and gauges of one process, safe to use from any thread."""

    def __init__(self) -> None:
        self._values: Counter[str] = Counter()
        self._exemplars: dict[str, Exemplar] = {}
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1) -> None:
        """Add to a counter; `name` may carry labels: `instances_refused_total{status="A700"}`."""
        with self._lock:
            self._values[name] += amount  # type: ignore[assignment] # Counter is typed for int, works for float

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[name] = value  # type: ignore[assignment] # as above

    def observe(
        self, name: str, value: float, bounds: Sequence[float], /, *, trace_id: str | None = None, **labels: str
    ) -> None:
        """Count a value in a histogram: cumulative buckets up to each bound, sum and count.

        Parameters
        ----------
        name
            With its unit: `job_stage_seconds`.
        bounds
            Upper bounds, ascending; always the same for one name.
        trace_id
            The trace that the value belongs to, kept as the bucket's exemplar.
        """
        common = "".join(f'{label}="{text}",' for label, text in sorted(labels.items()))
        with self._lock:
            for bound in (*bounds, math.inf):
                key = f'{name}_bucket{{{common}le="{_as_text(bound)}"}}'
                self._values[key] += int(value <= bound)
            is_within = next(bound for bound in (*bounds, math.inf) if value <= bound)
            self._values[f"{name}_sum{{{common.rstrip(',')}}}"] += value  # type: ignore[assignment] # as above
            self._values[f"{name}_count{{{common.rstrip(',')}}}"] += 1
            if trace_id is not None:
                key = f'{name}_bucket{{{common}le="{_as_text(is_within)}"}}'
                self._exemplars[key] = (trace_id, value, time.time())

    def snapshot(self) -> Mapping[str, float]:
        """Return a copy."""
        with self._lock:
            return dict(self._values)

    def exemplars(self) -> Mapping[str, Exemplar]:
        """Return for each bucket that has one its latest exemplar."""
        with self._lock:
            return dict(self._exemplars)


def _as_text(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else str(float(bound))


class Heartbeat:
    """Tells the database every `BEAT_S` that a role lives; a context manager around its run.

    Parameters
    ----------
    store
        Where the heartbeat goes.
    role
        Name of the role.
    counters
        Sent along.
    after_pid
        Of the process of this host that it takes the place of, whose heartbeat goes; None: of none.
    """

    def __init__(self, store: Store, role: str, counters: Counters, after_pid: int | None = None) -> None:
        self.service_id = str(uuid.uuid4())
        self.counters = counters
        self._store = store
        self._role = role
        self._started_at = datetime.now(UTC)
        self._degraded: dict[str, str] = {}
        self._after_pid = after_pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_done, name=f"heartbeat-{role}", daemon=True)

    def degraded(self, part: str, reason: str) -> None:
        """Say that a part is away or slow; shown by /readyz and doctor until `recovered`."""
        self._degraded[part] = reason

    def recovered(self, part: str) -> None:
        """Say that a part is back."""
        self._degraded.pop(part, None)

    def beat_now(self) -> None:
        """Write one heartbeat."""
        reasons = dict(self._degraded)
        now = datetime.now(UTC)
        with self._store.write() as connection:
            if self._after_pid is not None:
                forget_process(connection, self._role, socket.gethostname(), self._after_pid)
            beat(
                connection,
                ServiceBeat(
                    id=self.service_id,
                    role=self._role,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    started_at=self._started_at,
                    seen_at=now,
                    state="degraded" if reasons else "ready",
                    reason="; ".join(f"{part}: {why}" for part, why in sorted(reasons.items())) or None,
                    counters=self.counters.snapshot(),
                    exemplars=self.counters.exemplars(),
                ),
            )
        self._after_pid = None

    def __enter__(self) -> Heartbeat:
        self._try_beat()
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        self._thread.join()
        try:
            with self._store.write() as connection:
                forget(connection, self.service_id)
        except (ServiceAwayError, sa.exc.SQLAlchemyError) as error:
            log.warning("heartbeat.away", error=type(error).__name__)

    def _beat_until_done(self) -> None:
        while not self._done.wait(BEAT_S):
            self._try_beat()

    def _try_beat(self) -> None:
        try:
            self.beat_now()
        except ServiceAwayError as error:
            log.warning("heartbeat.away", reason=str(error))
        except sa.exc.SQLAlchemyError as error:
            log.warning("heartbeat.away", error=type(error).__name__)
