"""Every fault of the harness is tied to what shows it, or says why nothing does; a normal load shows none of them."""

import pytest

from tests.acceptance.faults.catalogue import ALL
from tests.acceptance.faults.fault import POWER, Fault
from tests.acceptance.faults.sign import BROKER_AWAY, DATABASE_AWAY, Sample, Sign, grows, is_at, matches

NORMAL: list[Sample] = [
    ("hybridmed_database_up", {}, 1.0),
    ("hybridmed_role_up", {"role": "dispatch", "service": "a"}, 1.0),
    ("hybridmed_role_up", {"role": "deliver", "service": "b"}, 1.0),
    ("hybridmed_outbox_unpublished", {}, 1.0),
    ("hybridmed_deliveries", {"state": "waiting", "destination": "PACS"}, 1.0),
]


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_each_fault_has_a_sign_or_a_reason(fault: Fault) -> None:
    """A sign names at least one place; a reason is a sentence."""
    if isinstance(fault.sign, Sign):
        assert fault.sign.ready or fault.sign.metric
    else:
        assert fault.sign


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_a_normal_load_shows_no_fault(fault: Fault) -> None:
    """One delivery that waits and one message not yet published are no sign of anything."""
    if isinstance(fault.sign, Sign) and fault.sign.metric is not None:
        assert not fault.sign.metric(NORMAL, NORMAL)


def test_a_role_that_is_not_ready_is_no_sign_of_another_part() -> None:
    """The database's sign is its own gauge; the broker's needs the role that publishes, and messages that wait."""
    deliver_down = [(n, labels, 0.0 if labels.get("role") == "deliver" else v) for n, labels, v in NORMAL]
    dispatch_down = [(n, labels, 0.0 if labels.get("role") == "dispatch" else v) for n, labels, v in NORMAL]

    assert BROKER_AWAY.metric is not None and DATABASE_AWAY.metric is not None
    assert not BROKER_AWAY.metric(NORMAL, deliver_down)
    assert BROKER_AWAY.metric(NORMAL, dispatch_down)
    assert not DATABASE_AWAY.metric(NORMAL, dispatch_down)


def test_a_counter_is_a_sign_by_its_growth_and_a_gauge_by_its_change() -> None:
    """What stood there before the fault says nothing."""
    counted: list[Sample] = [("total", {"outcome": "away"}, 3.0)]

    assert not grows("total", outcome="away")(counted, counted)
    assert grows("total", outcome="away")(counted, [("total", {"outcome": "away"}, 4.0)])
    assert not is_at(3.0, "total")(counted, counted)
    assert is_at(3.0, "total")([], counted)


def test_a_reason_is_matched_with_its_part() -> None:
    """The text of one part is no sign of another."""
    assert matches("^disk: .*read-only.*: incoming", ["disk: read-only in the data folder: incoming"])
    assert not matches("^disk: .*read-only.*: incoming", ["disk: read-only in the data folder: results"])


def test_the_power_may_go_during_another_fault_but_not_beside_one_that_ends_all() -> None:
    """It makes pairs with what goes on without the gateway."""
    power = next(fault for fault in ALL if fault.subject == POWER)
    partners = {fault.subject for fault in ALL if fault.goes_with(power)}

    assert {"pacs", "disk", "clock", "broker", "retention"} <= partners
    assert not partners & {POWER, "all"}
