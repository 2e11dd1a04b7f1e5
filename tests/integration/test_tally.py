"""How much is kept is told without adding up all of it: whatever comes, is counted and goes, and all at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import sqlalchemy as sa

from gateway.config.retention import Retention
from gateway.retention.purge import Purge
from gateway.store import Store, tally
from gateway.store.retention import remove_rows
from gateway.store.tables import artefact, instance
from gateway.store.tables import tally as tally_table
from tests.retaining import KEY, fill
from tests.stores import NOON


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few rows be many."""
    monkeypatch.setattr(tally, "_STEP", 3)
    monkeypatch.setattr(tally, "_MARGIN", 2)


def _arrive(store: Store, uid: str, size_bytes: int) -> None:
    with store.write() as connection:
        fill(connection, store.data_dir, uid)
        for table in (instance, artefact):
            of_study = sa.update(table).where(table.c.study_instance_uid == uid)
            connection.execute(of_study.values(size_bytes=size_bytes))


def _remove(store: Store, uid: str) -> None:
    with store.write() as connection:
        remove_rows(connection, uid, NOON, keep_reports=False)


def _count(store: Store) -> None:
    with store.write() as connection:
        tally.count_on(connection)


def _sums(store: Store) -> tuple[int, int]:
    """Return what is told, and what is there."""
    with store.read() as connection:
        there = [connection.scalar(sa.select(sa.func.sum(table.c.size_bytes))) or 0 for table in (instance, artefact)]
        return tally.kept_bytes(connection), int(sum(there))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_told_is_what_is_there(store: Store, seed: int) -> None:
    """After each step; on SQLite the newest study may go, whose numbers others get."""
    chance, uids, numbers = random.Random(seed), list[str](), count()

    def arrive() -> None:
        uids.append(f"1.2.{next(numbers)}")
        _arrive(store, uids[-1], chance.randrange(1, 1000))

    def remove() -> None:
        if uids:
            _remove(store, uids.pop(chance.choice((0, -1))))

    steps: list[Callable[[], None]] = [arrive, arrive, remove, lambda: _count(store), lambda: _count(store)]
    for _ in range(60):
        chance.choice(steps)()
        told, there = _sums(store)
        assert told == there


def test_several_count_while_studies_come_and_go(postgres_store: Store) -> None:
    """None of them waits for another for ever, and nothing is counted twice or forgotten."""
    store = postgres_store
    for number in range(6):
        _arrive(store, f"1.2.{number}", 100 + number)

    def come_and_go(first: int) -> None:
        for number in range(first, first + 8):
            _arrive(store, f"1.2.{number}", number)
            _remove(store, f"1.2.{number}" if number % 2 else f"1.2.{number - first}")

    def keep_counting(rounds: int) -> None:
        for _ in range(rounds):
            _count(store)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(come_and_go, 100), pool.submit(keep_counting, 30), pool.submit(keep_counting, 30)]:
            done.result()

    told, there = _sums(store)
    assert told == there


def test_counting_is_begun_anew_where_an_earlier_program_removed(store: Store) -> None:
    """Retention counts to the end at its start, and only where a rule asks for it."""
    for number in range(4):
        _arrive(store, f"1.2.{number}", 10)
    Purge(store, Retention(max_age_days=1), KEY).count(threading.Event(), anew=True)
    with store.read() as connection:
        assert connection.execute(sa.select(tally_table)).all() == []

    by_size = Purge(store, Retention(max_gib=1), KEY)
    by_size.count(threading.Event())
    with store.write() as connection:
        connection.execute(sa.update(tally_table).values(size_bytes=tally_table.c.size_bytes + 7))
    told, there = _sums(store)
    assert told == there + 14
    by_size.count(threading.Event(), anew=True)

    told, there = _sums(store)
    assert told == there
    with store.read() as connection:
        assert connection.execute(sa.select(tally_table.c.up_to)).scalars().all() != [0, 0]
