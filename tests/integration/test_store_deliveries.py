"""Delivery rows on SQLite and PostgreSQL: claimed once, retried, given up, cancelled when replaced."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest

from gateway.errors import ConflictError, NotFoundError
from gateway.store import Store, deliveries, jobs
from gateway.store.deliveries import DeliveryClaim, DeliveryFilter, DeliveryRow
from gateway.store.results import commit_results
from tests.stores import NOON, add_study
from tests.working import add_job

MINUTE = timedelta(minutes=1)


def _done_job(store: Store, *destinations: str, at: datetime = NOON, study: str = "1.2.3") -> str:
    job_id = add_job(store, study, to=destinations)
    with store.write() as connection:
        claim = jobs.claim(connection, job_id, "w1", at + timedelta(days=3650), 60)
        assert claim is not None
        assert commit_results(
            connection,
            claim,
            at,
            algorithm={},
            summary={},
            reason=None,
            artefacts=[],
            resources=[],
            deliveries=destinations,
        )
    return job_id


def _claim(store: Store, destination: str = "PACS", at: datetime = NOON) -> DeliveryClaim | None:
    with store.write() as connection:
        return deliveries.claim(connection, destination, at, 60)


def _rows(store: Store, which: DeliveryFilter | None = None) -> list[DeliveryRow]:
    with store.read() as connection:
        return deliveries.list_deliveries(connection, which)


@pytest.fixture(autouse=True)
def _study(store: Store) -> None:
    with store.write() as connection:
        add_study(connection, "1.2.3")


def test_a_delivery_is_claimed_once_until_its_lease_runs_out(store: Store) -> None:
    """Of many who ask at once one gets it; after its lease another may."""
    _done_job(store, "PACS")
    claims: list[DeliveryClaim | None] = []
    threads = [threading.Thread(target=lambda: claims.append(_claim(store))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    later = _claim(store, at=NOON + 2 * MINUTE)

    winners = [claim for claim in claims if claim is not None]
    assert len(claims) == 6
    assert len(winners) == 1
    assert later is not None
    with store.write() as connection:
        assert not deliveries.finish(connection, winners[0], NOON)
        assert deliveries.finish(connection, later, NOON)


def test_a_later_word_waits_for_the_one_that_is_being_sent(store: Store) -> None:
    """Two processes send no two results of one study and bundle at once; those of others go on."""
    _done_job(store, "PACS")
    first = _claim(store)
    later = _done_job(store, "PACS")
    with store.write() as connection:
        add_study(connection, "1.2.4")
    other = _done_job(store, "PACS", study="1.2.4")
    meanwhile = [_claim(store), _claim(store)]
    with store.write() as connection:
        assert first is not None
        deliveries.finish(connection, first, NOON)
    after = _claim(store)

    assert [each and each.job_id for each in (*meanwhile, after)] == [other, None, later]


def test_a_renewed_lease_is_not_taken(store: Store) -> None:
    """A long transfer keeps its delivery."""
    _done_job(store, "PACS")
    claim = _claim(store)
    assert claim is not None
    with store.write() as connection:
        assert deliveries.renew(connection, claim, NOON + MINUTE, 60)

    assert _claim(store, at=NOON + MINUTE + timedelta(seconds=30)) is None


def test_one_that_makes_its_peer_abort_goes_behind_the_others(store: Store) -> None:
    """What comes after it is sent all the same, instead of waiting for it for ever."""
    with store.write() as connection:
        add_study(connection, "1.2.4")
    first = _done_job(store, "PACS")
    second = _done_job(store, "PACS", study="1.2.4", at=NOON + MINUTE)
    claim = _claim(store, at=NOON + 2 * MINUTE)
    assert claim is not None
    with store.write() as connection:
        deliveries.put_back(connection, claim, NOON + 2 * MINUTE, "the association was aborted")

    following = _claim(store, at=NOON + 3 * MINUTE)

    assert following is not None
    assert (claim.job_id, following.job_id) == (first, second)


def test_destinations_are_apart(store: Store) -> None:
    """What one destination's thread claims is never another's."""
    _done_job(store, "PACS", "WEB")

    first, second, none = _claim(store, "PACS"), _claim(store, "WEB"), _claim(store, "PACS")

    assert first is not None
    assert second is not None
    assert (first.destination, second.destination, none) == ("PACS", "WEB", None)


def test_a_refusal_counts_and_an_absence_does_not(store: Store) -> None:
    """A destination that is away for a week does not use up the tries."""
    _done_job(store, "PACS")
    for _ in range(3):
        claim = _claim(store)
        assert claim is not None
        with store.write() as connection:
            deliveries.put_back(connection, claim, NOON, "no connection")
    claim = _claim(store)
    assert claim is not None
    with store.write() as connection:
        deliveries.refuse(connection, claim, NOON, "refused seg", MINUTE)

    (row,) = _rows(store)
    assert (row.attempts, row.reason, row.available_at) == (1, "refused seg", NOON + MINUTE)
    assert _claim(store) is None


def test_failed_deliveries_are_listed_and_tried_again(store: Store) -> None:
    """Named ones or all; what is not failed, or does not exist, is refused with its error."""
    _done_job(store, "PACS", "WEB")
    claim = _claim(store)
    assert claim is not None
    with store.write() as connection:
        deliveries.fail(connection, claim, NOON, "refused seg")
    (failed,) = _rows(store, DeliveryFilter(states=("failed",)))
    (waiting,) = _rows(store, DeliveryFilter(destination="WEB"))

    with store.write() as connection:
        with pytest.raises(ConflictError):
            deliveries.retry_failed(connection, NOON, [waiting.id])
        with pytest.raises(NotFoundError):
            deliveries.retry_failed(connection, NOON, [4711])
        assert deliveries.retry_failed(connection, NOON, [failed.id]) == 1
        assert deliveries.retry_failed(connection, NOON) == 0

    again = _claim(store)
    assert again is not None
    assert (again.id, again.attempts) == (failed.id, 0)


def test_results_that_were_replaced_are_not_sent(store: Store) -> None:
    """The newer revision goes to the same destination; where it does not, the older one is still sent."""
    old = _done_job(store, "PACS", "ARCHIVE")
    new = _done_job(store, "PACS")

    to_pacs, to_archive = _claim(store, "PACS"), _claim(store, "ARCHIVE")

    assert to_pacs is not None
    assert to_archive is not None
    assert (to_pacs.job_id, to_archive.job_id) == (new, old)
    (cancelled,) = _rows(store, DeliveryFilter(states=("cancelled",)))
    assert (cancelled.job_id, cancelled.destination) == (old, "PACS")


def test_deliveries_to_unknown_destinations_fail(store: Store) -> None:
    """They stand on the failed list and do not wait for ever."""
    _done_job(store, "PACS", "GONE")

    with store.write() as connection:
        count = deliveries.fail_unknown(connection, ["PACS"], NOON)

    assert count == 1
    assert [row.destination for row in _rows(store, DeliveryFilter(states=("waiting",)))] == ["PACS"]
    assert _rows(store, DeliveryFilter(destination="GONE"))[0].reason == "no such destination is configured"
