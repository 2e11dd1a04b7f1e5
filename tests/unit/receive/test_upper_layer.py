"""The state machine, where an answer meets the end of its association."""

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE

import gateway.upper_layer  # noqa: F401 # it adds to the library's table


@pytest.mark.parametrize("state", ["Sta1", "Sta13"])
@pytest.mark.parametrize("event", ["Evt7", "Evt8", "Evt9"])
def test_an_answer_to_a_peer_that_has_gone_is_left_unsent(event: str, state: str) -> None:
    """Accept, reject or data: dropped, and the state stays; twice announced is no fault."""
    dul = DULServiceProvider(Association(AE(), "acceptor"))
    dul.to_provider_queue.put(A_ASSOCIATE())
    dul.state_machine.current_state = state

    for _ in range(2):
        dul.state_machine.do_action(event)

    assert dul.state_machine.current_state == state
    assert dul.to_provider_queue.empty()
