"""A process that hangs beside others of its role: seen in /readyz, in the metrics and by the health check."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gateway.config import Settings
from gateway.health import unwell
from gateway.services import GONE_S, SHOWN, Counters, Heartbeat, silent
from gateway.store import Store
from gateway.store.services import ServiceBeat, beat, list_services
from gateway.web.metrics import render_metrics
from gateway.web.readiness import ReadinessCheck

_ROLES = ("receive", "dispatch", "work", "deliver")


def _beat(service_id: str, role: str, *, began_s: float, seen_s: float) -> ServiceBeat:
    """Return a heartbeat of this host, its times as seconds ago."""
    now = datetime.now(UTC)
    began, seen = (now - timedelta(seconds=ago) for ago in (began_s, seen_s))
    return ServiceBeat(service_id, role, socket.gethostname(), 41, began, seen, "ready", None, {})


def _write(store: Store, *beats: ServiceBeat) -> None:
    with store.write() as connection:
        for each in (*(_beat(f"{role}-1", role, began_s=600, seen_s=1) for role in _ROLES), *beats):
            beat(connection, each)


def _work_part(store: Store) -> tuple[str, str | None]:
    parts = {part.name: part for part in ReadinessCheck(store, 0, None).look().parts}
    return parts["role work"].state, parts["role work"].reason


def test_one_of_two_workers_that_hangs_is_shown(local_store: Store) -> None:
    """The other goes on: degraded, with the process; 0 in the metrics; and its host is unwell."""
    _write(local_store, _beat("work-2", "work", began_s=600, seen_s=GONE_S + 10))

    metrics = render_metrics(local_store)[0].decode()

    reason = f"no sign of life of process 41 on {socket.gethostname()}"
    assert _work_part(local_store) == ("degraded", reason)
    assert 'hybridmed_role_up{role="work",service="work-2"} 0.0' in metrics
    assert unwell(Settings(), local_store, ["work", "dispatch"]) == ["work: no sign of life of process 41"]


def test_one_that_was_replaced_is_not_shown(local_store: Store) -> None:
    """Another began after its last heartbeat."""
    _write(
        local_store,
        _beat("work-2", "work", began_s=600, seen_s=GONE_S + 10),
        _beat("work-3", "work", began_s=GONE_S, seen_s=1),
    )

    assert _work_part(local_store) == ("ready", "2 running")
    assert unwell(Settings(), local_store, ["work"]) == []


def test_a_process_takes_the_place_of_the_one_that_its_supervisor_names(local_store: Store) -> None:
    """The heartbeat of that one goes with the first of its own; it does not come back when this one ends."""
    _write(local_store, _beat("work-2", "work", began_s=600, seen_s=GONE_S + 10))
    before = _work_part(local_store)[0]

    with Heartbeat(local_store, "work", Counters(), after_pid=42):
        other = _work_part(local_store)[0]
    with Heartbeat(local_store, "work", Counters(), after_pid=41):
        pass

    assert (before, other) == ("degraded", "ready")
    with local_store.read() as connection:
        rows = list_services(connection, datetime.now(UTC) - SHOWN)
    assert "work-2" not in {row.id for row in rows}


def test_a_successor_takes_one_place() -> None:
    """Of three that hang, the one that was silent first counts as replaced; those of other roles are no successors."""
    now = datetime.now(UTC)
    hung = [_beat(f"{number}", "work", began_s=900, seen_s=100 + number) for number in range(3)]
    new = _beat("new", "work", began_s=50, seen_s=1)

    assert [one.id for one in silent([*hung, new], now)] == ["0", "1"]
    assert len(silent([*hung, replace(new, role="web")], now)) == 3


def test_a_last_worker_that_hangs_is_down(local_store: Store) -> None:
    """An alert asks whether there is any in the metrics."""
    with local_store.write() as connection:
        beat(connection, _beat("work-1", "work", began_s=600, seen_s=GONE_S + 10))

    assert _work_part(local_store) == ("down", "not running")
    assert 'role="work"' not in render_metrics(local_store)[0].decode()
    assert unwell(Settings(), local_store, ["work"]) == ["work: no heartbeat"]


def test_a_port_answers_though_its_process_is_stopped(local_store: Store) -> None:
    """The kernel takes the connection; the heartbeat that stopped tells."""
    program = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); "
    program += "print(s.getsockname()[1], flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        port = int((process.stdout or sys.stdin).readline())
        os.kill(process.pid, signal.SIGSTOP)
        with local_store.write() as connection:
            beat(connection, _beat("receive-1", "receive", began_s=600, seen_s=GONE_S + 10))

        problems = unwell(Settings(dicom_port=port), local_store, ["receive"])
    finally:
        process.kill()
        process.communicate()
    assert problems == ["receive: no sign of life of process 41"]
