"""Complete studies become jobs, messages reach the broker, and what dies half-way is put right; on both databases."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from pydicom.data import get_testdata_file

from gateway.broker import Broker, EmbeddedBroker
from gateway.config import Match, Rule
from gateway.dispatcher import Dispatcher, DispatchTimes, Router, read_tag
from gateway.errors import BrokerAwayError
from gateway.job import State
from gateway.rabbitmq import RabbitBroker, RabbitOptions, ReconnectPolicy
from gateway.relay import Relay
from gateway.services import GONE_S, Counters, Heartbeat
from gateway.store import Store, jobs, studies
from gateway.store.services import list_services
from gateway.store.tables import association, association_content, study
from gateway.sweeper import Sweeper
from gateway.testing import MemoryBroker
from tests.dispatching import CT, MR, UID, finish, list_jobs, receive
from tests.services import rabbitmq
from tests.services.process import HANGS_S
from tests.stores import NOON, add_association, add_instance, add_series, add_service

QUIET_S = 10.0
QUIET = timedelta(seconds=QUIET_S)
STALE = timedelta(minutes=10)


def make(
    store: Store, broker: Broker | None = None, rules: Sequence[Rule] = (), heartbeat: Heartbeat | None = None
) -> Dispatcher:
    """Make a dispatcher with two bundles and one destination."""
    heartbeat = heartbeat or Heartbeat(store, "dispatch", Counters())
    router = Router(store, rules, (CT, MR), ("PACS",))
    times = DispatchTimes(quiet_s=QUIET_S, poll_s=0.05)
    return Dispatcher(store, broker or MemoryBroker(), router, heartbeat, times=times)


def get_study(store: Store, uid: str = UID) -> studies.StudyRow:
    """Read a study."""
    with store.read() as connection:
        return studies.get_study(connection, uid)


def in_threads(*functions: object) -> None:
    """Run functions at the same moment and wait for them."""
    threads = [threading.Thread(target=function) for function in functions]  # type: ignore[arg-type] # callables
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_quiet_study_becomes_a_job_with_its_message(store: Store) -> None:
    """Not before it was quiet for long enough; study, job and message say the same."""
    receive(store)
    dispatcher = make(store)
    too_early = dispatcher.dispatch_complete(NOON + QUIET / 2)
    dispatched = dispatcher.dispatch_complete(NOON + QUIET)
    broker = MemoryBroker()
    published = Relay(store, broker, Counters()).publish_due(NOON + QUIET)
    received = broker.receive(0)
    (made,) = list_jobs(store)

    assert (too_early, dispatched, published) == (0, 1, 1)
    assert get_study(store).state == "routed"
    assert get_study(store).completed_at == NOON + QUIET
    assert (made.bundle, made.study_revision, made.destinations) == ("ct-lung", 1, ["PACS"])
    assert received is not None
    assert received.message.job_id == made.id
    assert dispatcher.dispatch_complete(NOON + 2 * QUIET) == 0


def test_an_open_association_holds_the_study_that_it_carries_and_no_other(store: Store) -> None:
    """Several studies in one association wait for it; a study of another one does not."""
    receive(store, "1.1")
    receive(store, "1.2")
    receive(store, "1.3")
    with store.write() as connection:
        add_association(connection, "a1")
        of_third = association_content.c.study_instance_uid == "1.3"
        connection.execute(sa.update(association_content).where(of_third).values(association_id="b"))
    dispatcher = make(store)
    while_open = dispatcher.dispatch_complete(NOON + 10 * QUIET)
    with store.write() as connection:
        connection.execute(sa.update(association).values(closed_at=NOON, outcome="released"))
    after = dispatcher.dispatch_complete(NOON + 10 * QUIET)

    assert (while_open, after) == (1, 2)


def test_the_announced_count_dispatches_at_once(store: Store) -> None:
    """With the association still open and no time gone by."""
    receive(store, announced_count=2)
    with store.write() as connection:
        add_association(connection, "a1")

    assert make(store).dispatch_complete(NOON) == 1


def test_more_than_were_announced_wait_for_silence(store: Store) -> None:
    """An instance that comes late is no revision of its own, and the next one none either."""
    receive(store, announced_count=1)
    dispatcher = make(store)

    assert (dispatcher.dispatch_complete(NOON), dispatcher.dispatch_complete(NOON + QUIET)) == (0, 1)


def test_the_next_look_is_when_a_study_has_been_quiet(store: Store) -> None:
    """Of several that wait it is the one that has been still for longest; one that is quiet already tells nothing."""
    receive(store, "1.1", last_received_at=NOON)
    receive(store, "1.2", last_received_at=NOON + timedelta(seconds=3))
    receive(store, "1.3", last_received_at=NOON + timedelta(seconds=2))
    receive(store, "1.4", last_received_at=NOON + timedelta(seconds=1), state="routed")

    with store.read() as connection:
        found = [studies.next_to_be_quiet(connection, NOON + timedelta(seconds=at)) for at in (0, 2, 3)]

    assert found == [NOON + timedelta(seconds=2), NOON + timedelta(seconds=3), None]


def test_a_study_nothing_wants_is_listed_with_the_reason(store: Store) -> None:
    """No job is made; the operator finds it among the unrouted."""
    receive(store, modality="US")
    make(store).dispatch_complete(NOON + QUIET)
    with store.read() as connection:
        listed = studies.list_studies(connection, studies.StudyFilter(state="unrouted"))

    assert list_jobs(store) == []
    assert [row.state_reason for row in listed] == [
        "no bundle takes modality US; installed: ct-lung, mr-hippocampus",
    ]


def test_a_rule_reads_tags_from_the_file(store: Store) -> None:
    """Priority and destinations of the rule reach the job."""
    receive(store)
    source = get_testdata_file("CT_small.dcm")
    assert isinstance(source, str)
    path = store.data_dir / "instances" / f"{UID}.1.0.dcm"
    path.parent.mkdir()
    path.write_bytes(Path(source).read_bytes())
    maker = str(pydicom.dcmread(source).Manufacturer)
    rule = Rule(name="x", match=Match(tags={"0008,0070": maker}), bundles=("mr-hippocampus",), priority="stat")
    make(store, rules=(rule,)).dispatch_complete(NOON + QUIET)
    (made,) = list_jobs(store)

    assert (made.bundle, made.priority, get_study(store).priority) == ("mr-hippocampus", "stat", "stat")
    assert read_tag(path, "ImageType") == "ORIGINAL\\PRIMARY\\AXIAL"
    assert read_tag(path, "PatientComments") == read_tag(path.with_name("gone.dcm"), "ImageType") == ""


def test_two_dispatchers_at_once_make_each_job_once(store: Store) -> None:
    """Eight studies, two dispatchers in step: eight jobs, eight messages."""
    for number in range(8):
        receive(store, f"1.{number}")
    broker = MemoryBroker()
    first, second = make(store), make(store)
    relays = [Relay(store, broker, Counters()) for _ in range(2)]
    now = NOON + QUIET
    in_threads(lambda: first.dispatch_complete(now), lambda: second.dispatch_complete(now))
    in_threads(*(lambda relay=relay: relay.publish_due(now) for relay in relays))
    made = list_jobs(store)

    assert len(made) == 8
    assert {row.study_instance_uid for row in made} == {f"1.{number}" for number in range(8)}
    assert broker.waiting() == 8


def test_an_instance_that_comes_while_we_decide_is_not_forgotten(store: Store) -> None:
    """The decision was made without it: the study stays 'receiving' and is looked at anew."""
    receive(store)
    dispatcher = make(store)
    with store.read() as connection:
        seen = studies.get_study(connection, UID)
    with store.write() as connection:
        add_series(connection, UID, f"{UID}.2", "MR")
        add_instance(connection, UID, f"{UID}.2", f"{UID}.2.1")
        later = {"last_received_at": NOON + timedelta(seconds=1)}
        connection.execute(sa.update(study).values(**later))
    with store.write() as connection:
        is_marked = studies.mark_dispatched(connection, seen, seen)
    dispatcher.dispatch_complete(NOON + 2 * QUIET)

    assert not is_marked
    assert {row.bundle for row in list_jobs(store)} == {"ct-lung", "mr-hippocampus"}


def test_late_instances_make_a_job_that_replaces(store: Store) -> None:
    """The second revision of the study gives the second revision of the result."""
    receive(store)
    dispatcher = make(store)
    dispatcher.dispatch_complete(NOON + QUIET)
    finish(store, list_jobs(store)[0].id, NOON + QUIET)
    with store.write() as connection:
        add_instance(connection, UID, f"{UID}.1", f"{UID}.1.9", study_revision=2)
        connection.execute(sa.update(study).values(state="receiving", revision=2))
    dispatcher.dispatch_complete(NOON + 3 * QUIET)
    newest, oldest = list_jobs(store)

    assert (newest.study_revision, newest.revision, newest.state) == (2, 2, State.QUEUED)
    assert (oldest.revision, oldest.state) == (1, State.DONE)


def test_while_the_broker_is_away_messages_wait_in_the_outbox(store: Store) -> None:
    """What was confirmed is not published twice, what was not is published later."""
    receive(store)
    make(store).dispatch_complete(NOON + QUIET)
    broker = MemoryBroker()
    relay = Relay(store, broker, Counters())
    broker.queues.stop()
    with pytest.raises(BrokerAwayError):
        relay.publish_due(NOON + QUIET)
    broker.queues.start()

    assert relay.publish_due(NOON + QUIET) == 1
    assert relay.publish_due(NOON + 10 * QUIET) == 0
    assert broker.waiting() == 1


def test_a_broker_that_lost_everything_gets_it_again_and_a_backlog_does_not(store: Store) -> None:
    """Old messages that still wait are no reason to double them."""
    receive(store)
    make(store).dispatch_complete(NOON + QUIET)
    broker = MemoryBroker()
    relay = Relay(store, broker, Counters())
    sweeper = Sweeper(store, broker, Counters(), 5, STALE)
    relay.publish_due(NOON + QUIET)
    later = NOON + QUIET + 2 * STALE
    sweeper.sweep(later)
    as_backlog = relay.publish_due(later)
    broker.queues.lose_all()
    sweeper.sweep(later)
    as_lost = relay.publish_due(later)

    assert (as_backlog, as_lost) == (0, 1)
    assert broker.waiting() == 1


def test_associations_of_a_dead_receiver_are_closed_and_of_a_living_one_are_not(store: Store) -> None:
    """Only after we ourselves have seen the database for long enough to believe the silence."""
    with store.write() as connection:
        add_service(connection, "dead", NOON)
        add_service(connection, "alive", NOON)
        add_association(connection, "lost", service_id="dead")
        add_association(connection, "held", service_id="alive")
    sweeper = Sweeper(store, MemoryBroker(), Counters(), 5, STALE)
    outcomes = []
    for seconds in range(100, 100 + int(GONE_S) + 10, 5):
        now = NOON + timedelta(seconds=seconds)
        with store.write() as connection:
            connection.execute(
                sa.text("UPDATE service SET seen_at = :now WHERE id = 'alive'").bindparams(
                    sa.bindparam("now", now, type_=association.c.opened_at.type)
                )
            )
        sweeper.sweep(now)
        with store.read() as connection:
            outcomes.append(dict(connection.execute(sa.select(association.c.id, association.c.outcome)).all()))

    assert outcomes[0] == {"lost": None, "held": None}
    assert outcomes[-1] == {"lost": "lost", "held": None}


def test_the_role_serves_until_told_to_stop(store: Store) -> None:
    """A study whose announced count is reached has its job within a second; the heartbeat is gone afterwards."""
    stop = threading.Event()
    dispatcher = make(store, EmbeddedBroker(store))
    role = threading.Thread(target=dispatcher.run, args=(stop,))
    role.start()
    receive(store, announced_count=2, last_received_at=datetime.now(UTC))
    begun = time.monotonic()
    while not list_jobs(store) and time.monotonic() - begun < HANGS_S:
        time.sleep(0.02)
    took_s = time.monotonic() - begun
    stop.set()
    role.join(HANGS_S)

    assert took_s < HANGS_S
    assert not role.is_alive()


def test_dispatching_goes_on_while_rabbitmq_is_away_and_all_arrives_afterwards(
    postgres_store: Store, private_rabbitmq: rabbitmq.PrivateRabbitMQ | rabbitmq.ContainerRabbitMQ
) -> None:
    """Two dispatchers on PostgreSQL; /readyz would say which part is degraded; each job is worked on once."""
    store = postgres_store
    stop = threading.Event()
    options = RabbitOptions(reconnect=ReconnectPolicy(first_s=0.1, limit_s=0.5))
    brokers = [RabbitBroker(private_rabbitmq.url, "t", options) for _ in range(3)]
    beats = [Heartbeat(store, "dispatch", Counters()) for _ in range(2)]
    dispatchers = [make(store, broker, heartbeat=beat) for broker, beat in zip(brokers[:2], beats, strict=True)]
    roles = [threading.Thread(target=dispatcher.run, args=(stop,)) for dispatcher in dispatchers]
    receive(store, "1.1", announced_count=2)
    for role in roles:
        role.start()
    first = brokers[2].receive(HANGS_S)
    private_rabbitmq.stop()
    receive(store, "1.2", announced_count=2)
    receive(store, "1.3", announced_count=2)
    deadline = time.monotonic() + HANGS_S
    reasons: set[str | None] = set()
    while time.monotonic() < deadline and (len(list_jobs(store)) < 3 or reasons in (set(), {None})):
        for beat in beats:
            beat.beat_now()
        with store.read() as connection:
            reasons = {beat.reason for beat in list_services(connection, NOON)}
        time.sleep(0.2)
    made_while_away = len(list_jobs(store))
    private_rabbitmq.start()
    worked_on = []
    deadline = time.monotonic() + HANGS_S
    while len(worked_on) < 3 and time.monotonic() < deadline:
        try:
            received = brokers[2].receive(1)
        except BrokerAwayError:
            continue
        if received is None:
            continue
        with store.write() as connection:
            claimed = jobs.claim(connection, received.message.job_id, "w", datetime.now(UTC), 600)
        worked_on += [received.message.job_id] if claimed is not None else []
        received.ack()
    stop.set()
    for role in roles:
        role.join(HANGS_S)
    for broker in brokers:
        broker.close()

    assert first is not None
    assert made_while_away == 3
    assert any(reason is not None and reason.startswith("broker: RabbitMQ at") for reason in reasons)
    assert sorted(worked_on) == sorted(row.id for row in list_jobs(store))
