"""The audit trail in the database: chained, verified, taken over from killed processes; on SQLite and PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from gateway.audit import acts, record
from gateway.audit.chain import ChainKey
from gateway.audit.event import AuditEvent
from gateway.audit.journal import FOLDER
from gateway.audit.keeper import AuditKeeper
from gateway.audit.lines import LineFilter, append, list_lines, verify
from gateway.audit.trail import Trail
from gateway.services import Counters
from gateway.store import Store
from gateway.store.tables import audit_cursor, audit_event
from tests.auditing import every_act
from tests.receiving import until
from tests.services.process import HANGS_S
from tests.stores import NOON, add_association, add_instance, add_series, add_study

KEY = ChainKey(b"k" * 32)


def filled(store: Store, key: ChainKey = KEY) -> list[AuditEvent]:
    """Append one event of each act and return them."""
    events = every_act()
    with store.write() as connection:
        append(connection, events, key)
    return events


def faults(store: Store, key: ChainKey = KEY) -> list[tuple[int, str]]:
    """Return what `verify` names."""
    with store.read() as connection:
        return [(fault.position, fault.kind) for fault in verify(connection, key).faults]


def change(store: Store, statement: sa.Executable) -> None:
    """Do what somebody with the database's password could."""
    with store.write() as connection:
        connection.execute(statement)


def test_a_whole_chain_verifies_and_an_event_stands_in_it_once(store: Store) -> None:
    """Sent twice, as after a kill between commit and note, it is chained once; another key does not verify."""
    events = filled(store)
    with store.write() as connection:
        assert append(connection, [events[0], events[3]], KEY) == 0

    with store.read() as connection:
        verdict = verify(connection, KEY)
        lines = list_lines(connection, LineFilter(patient_id="P1"), limit=10)
    assert (verdict.lines, verdict.faults) == (len(events), ())
    assert [line.kind for line in lines][:2] == ["begin-transferring", "instances-transferred"]
    assert (1, "altered") in faults(store, ChainKey(b"x" * 32))


@pytest.mark.parametrize("key", [KEY, ChainKey()], ids=["secret", "plain"])
def test_every_tampering_is_found_and_named(store: Store, key: ChainKey) -> None:
    """Removed within and at the end, altered in body and beside it, moved, added by hand: each with its line."""
    position, body = audit_event.c.position, audit_event.c.body
    last = len(filled(store, key))
    assert faults(store, key) == []

    change(store, sa.update(audit_event).where(position == 4).values(actor="nobody"))
    assert faults(store, key) == [(4, "altered")]
    change(store, sa.update(audit_event).where(position == 4).values(actor="CT1"))
    change(store, sa.update(audit_event).where(position == 5).values(body=sa.func.replace(body, "PACS", "PACX")))
    assert faults(store, key) == [(5, "altered")]
    change(store, sa.update(audit_event).where(position == 5).values(body=sa.func.replace(body, "PACX", "PACS")))
    assert faults(store, key) == []

    for old, new in ((6, 99), (7, 6), (99, 7)):
        change(store, sa.update(audit_event).where(position == old).values(position=new))
    assert faults(store, key) == [(6, "reordered"), (7, "reordered"), (8, "reordered")]
    for old, new in ((6, 99), (7, 6), (99, 7)):
        change(store, sa.update(audit_event).where(position == old).values(position=new))

    by_hand = sa.select(sa.literal(last + 1), sa.literal("x"), *list(audit_event.c)[2:]).where(position == 2)
    change(store, sa.insert(audit_event).from_select(list(audit_event.c), by_hand))
    assert faults(store, key) == [(last + 1, "appended"), (last + 1, "altered"), (last + 1, "reordered")]
    change(store, sa.delete(audit_event).where(position == last + 1))

    change(store, sa.delete(audit_event).where(position == last))
    assert faults(store, key) == [(last, "removed")]
    change(store, sa.delete(audit_event).where(position.in_([2, 3])))
    assert faults(store, key) == [(2, "removed"), (last, "removed")]
    change(store, sa.delete(audit_cursor))
    assert (0, "removed") in faults(store, key)


def test_a_hole_that_was_renumbered_over_is_found(store: Store) -> None:
    """A line goes, and those behind it move up: the link to the missing one tells."""
    last = len(filled(store))
    change(store, sa.delete(audit_event).where(audit_event.c.position == 3))
    for position in range(4, last + 1):
        change(store, sa.update(audit_event).where(audit_event.c.position == position).values(position=position - 1))

    assert (3, "removed") in faults(store)


def test_writers_of_many_processes_make_one_chain(store: Store) -> None:
    """Eight trails at once, each with a journal of its own: every event once, one chain, journals gone."""

    def write(number: int) -> None:
        trail = Trail(store, KEY, Counters())
        with trail:
            for each in range(10):
                trail.record(acts.refused_node(f"AE{number}", "192.0.2.1", str(each)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with store.read() as connection:
        verdict = verify(connection, KEY)
    assert (verdict.lines, verdict.faults) == (80, ())
    assert list((store.data_dir / FOLDER).iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.audit import acts, record
from gateway.audit.chain import ChainKey
from gateway.audit.trail import Trail
from gateway.services import Counters
from gateway.store import open_store

away = open_store("sqlite:////nowhere/x.db", Path(sys.argv[1]))
Trail(away, ChainKey(), Counters()).__enter__()
for number in range(50):
    record(acts.refused_node(f"AE{number}", "192.0.2.1", "calling AE"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_recorded_is_lost_by_a_kill(sqlite_store: Store) -> None:
    """A process records while its database is away and is killed -9; the next one brings all of it, in order."""
    folder = sqlite_store.data_dir
    command = [sys.executable, "-c", KILLED, str(folder)]
    ended = subprocess.run(command, timeout=HANGS_S, capture_output=True, check=False)
    assert ended.returncode == -9
    journal = next((folder / FOLDER).glob("*.journal"))
    with journal.open("ab") as file:
        file.write(b'{"kind": "half a li')  # as a power cut leaves it

    with Trail(sqlite_store, KEY, Counters()):
        until(lambda: not journal.exists(), "the journal is taken over")

    with sqlite_store.read() as connection:
        actors = [line.actor for line in list_lines(connection, LineFilter(), limit=100)]
        assert verify(connection, KEY).faults == ()
    assert actors == [f"AE{number}" for number in range(50)]


def test_record_without_a_trail_goes_nowhere() -> None:
    """A part tested alone records into nothing."""
    record(acts.refused_node("EVIL", "192.0.2.1", "calling AE"))


def test_what_an_association_brought_is_told_once_it_ended(store: Store) -> None:
    """An event for each study, with counts and the patient; none while it is open, none twice."""
    with store.write() as connection:
        for number in (1, 2):
            add_study(connection, f"1.{number}", patient_id=f"P{number}", accession_number="A7")
            add_series(connection, f"1.{number}", f"1.{number}.1")
            add_instance(connection, f"1.{number}", f"1.{number}.1", f"1.{number}.1.1", association_id="a1")
        add_instance(connection, "1.1", "1.1.1", "1.1.1.2", association_id="a1")
        add_association(connection, "a1", closed_at=NOON + timedelta(minutes=1), outcome="released")
        add_association(connection, "open")
    keeper = AuditKeeper(store, KEY, None)

    keeper.turn()
    keeper.turn()

    with store.read() as connection:
        lines = list_lines(connection, LineFilter(), limit=10)
    assert [(line.kind, line.actor, line.study_instance_uid, line.patient_id) for line in lines] == [
        ("instances-transferred", "CT1", "1.1", "P1"),
        ("instances-transferred", "CT1", "1.2", "P2"),
    ]
    assert '["1.2.840.10008.5.1.4.1.1.2",2]' in lines[0].body


def test_lines_that_come_while_the_chain_is_walked_are_no_fault(store: Store) -> None:
    """PostgreSQL shows them to a walk that began before: they are the gateway's own, and not added by hand."""
    filled(store)
    late = every_act()

    def write(*_ignored: object) -> None:
        if late:
            event = late.pop()
            with store.write() as connection:
                append(connection, [event], KEY)

    with store.read() as connection:
        sa.event.listen(connection, "after_cursor_execute", write)
        verdict = verify(connection, KEY)

    assert verdict.faults == ()
