"""Who may associate: AE titles, addresses, certificates, limits, rights and pace."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.admission import TOO_MANY, TOO_MANY_OF_TITLE, Admission, OwnTurns, Pace, Refusal, next_turn
from gateway.config.dicom_tls import DicomTls
from gateway.config.peers import Peer, Right

NET = ("10.1.0.0/16", "192.0.2.7", "2001:db8::/32")


def reason(refusal: Refusal | None) -> str | None:
    """Return why; None where nothing stands against it."""
    return None if refusal is None else refusal.reason


@pytest.mark.parametrize(
    ("calling_ae", "address", "expected"),
    [
        ("CT1", "10.1.2.3", None),
        ("CT1", "::ffff:10.1.2.3", None),
        ("CT1", "192.0.2.7", None),
        ("CT1", "2001:db8::9", None),
        ("CT1", "10.2.0.1", "address is not one of this AE title"),
        ("CT1", "", "address is not one of this AE title"),
        ("ANY", "203.0.113.9", None),
        ("CT2", "10.1.2.3", "calling AE"),
    ],
)
def test_peers_come_from_where_they_are(calling_ae: str, address: str, expected: str | None) -> None:
    """An AE title that nobody named is unknown; one without addresses comes from anywhere."""
    admission = Admission([Peer(ae_title="CT1", addresses=NET), Peer(ae_title="ANY")])

    assert reason(admission.refusal(calling_ae, address, None)) == expected


def test_the_addresses_of_peers_are_known_before_they_speak() -> None:
    """Where each peer has its own; one that comes from anywhere, or no peer at all, opens them all."""
    near, far = Peer(ae_title="CT1", addresses=NET), Peer(ae_title="CT2", addresses=("198.51.100.1",))

    assert [Admission([near, far]).may_come(one) for one in ("10.1.0.1", "198.51.100.1", "203.0.113.9", "")] == [
        True,
        True,
        False,
        False,
    ]
    assert Admission([near, Peer(ae_title="ANY")]).may_come("203.0.113.9")
    assert Admission().may_come("203.0.113.9")


def test_a_certificate_is_for_its_titles() -> None:
    """By any of its names; a title in the table needs its own, on a port without TLS, too; others need none."""
    table = {"cn:ct1": ("CT1",), "sha256:" + "0" * 64: ("CT2",)}
    admission = Admission((), table)

    assert admission.refusal("CT1", "", {"cn:ct1", "dns:x"}) is None
    assert admission.refusal("CT2", "", {"sha256:" + "0" * 64}) is None
    assert reason(admission.refusal("CT2", "", {"cn:ct1"})) == "certificate is not for this AE title"
    assert reason(admission.refusal("CT2", "", None)) == "AE title comes without its certificate"
    assert admission.refusal("CT3", "", None) is None
    assert Admission().refusal("CT2", "", {"cn:x"}) is None


def test_a_limit_of_associations_is_told_as_for_now() -> None:
    """The sender may come again (PS3.8 table 9-21: transient, local limit exceeded); who has none is not asked."""
    admission = Admission([Peer(ae_title="CT1", max_associations=2), Peer(ae_title="CT2")])

    assert admission.max_associations == {"CT1": 2}
    for refusal in (TOO_MANY, TOO_MANY_OF_TITLE):
        assert (refusal.result, refusal.source, refusal.diagnostic) == (2, 3, 2)


def test_rights_close_sop_classes() -> None:
    """What a peer may not do is not offered to it; who is not named may do everything that is open."""
    admission = Admission(
        [Peer(ae_title="CT1", may=("store",))], None, {"store": {"1"}, "query": {"2"}, "commit": {"3"}}
    )

    assert admission.forbidden("CT1") == {"2", "3"}
    assert admission.forbidden("OTHER") == frozenset()
    assert admission.refused_rights("CT1", {"1", "2"}) == ["query"]
    assert admission.refused_rights("CT1", {"1"}) == []


def test_a_title_that_gets_no_patient_stores_at_most() -> None:
    """Whatever its table says, and without one: what is answered to queries and retrievals names patients."""
    classes: dict[Right, set[str]] = {"store": {"1"}, "query": {"2"}, "retrieve": {"3"}, "workitem": {"4"}}
    named = Admission([Peer(ae_title="RESEARCH")], None, classes, without_patient={"RESEARCH"})
    unnamed = Admission((), None, classes, without_patient={"RESEARCH"})

    assert named.forbidden("RESEARCH") == unnamed.forbidden("RESEARCH") == {"2", "3", "4"}
    assert unnamed.forbidden("OTHER") == frozenset()
    assert "deidentify" in unnamed.advice("RESEARCH")
    assert "[[peers]]" in unnamed.advice("OTHER")


def test_a_pace_delays_and_loses_nothing() -> None:
    """Ten a second: a burst of a second's worth at once, then evenly; a clock of the test's own."""
    now, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    pace = Pace(10, OwnTurns(), lambda: now[0], sleep)
    now[0] += 60
    for _ in range(14):
        pace.wait()

    assert slept == [0.1, 0.1, 0.1]


def test_a_turn_kept_by_another_start_of_the_machine_holds_up_nobody() -> None:
    """Its monotonic clock was hours ahead of ours; nor does what is no time."""
    assert next_turn(50_000.0, 100.0, 0.1) == 100.0
    assert next_turn(float("nan"), 100.0, 0.1) == 100.0
    assert next_turn(100.3, 100.0, 0.1) == 100.3
    assert next_turn(20.0, 100.0, 0.1) == 99.0


@pytest.mark.parametrize("name", ["ct1", "sha256:12", "subject:x", "dns:"])
def test_names_of_certificates_are_checked(name: str) -> None:
    """A name of another form is told at the start, not found out when nobody can associate."""
    with pytest.raises(ValidationError):
        DicomTls(certificates={name: ("CT1",)})
    with pytest.raises(ValidationError):
        Peer(ae_title="CT1", addresses=("10.0.0.0/33",))
