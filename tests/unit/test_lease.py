"""Work that hangs: told at half its limit, ended at the whole; until then its lease is renewed."""

import threading

from gateway.lease import LeaseKeeper, Watchdog

_LIMIT_S = 2.0


def test_work_that_hangs_is_told_of_before_it_is_ended() -> None:
    """The lease is renewed until its end."""
    heard: list[str] = []
    bitten = threading.Event()

    def renew(_claim: str) -> bool:
        heard.append("renewed")
        return True

    def bite(_claim: str) -> None:
        heard.append("bitten")
        bitten.set()

    watchdog = Watchdog(_LIMIT_S, bite, lambda _claim: heard.append("growled"))
    with LeaseKeeper(renew, 0.05, "leases", watchdog) as keeper:
        lease = keeper.hold("claim")
        assert bitten.wait(60)
        keeper.release(lease)

    assert heard[0] == "renewed"
    assert heard.index("growled") < heard.index("bitten")
    assert heard[heard.index("growled") + 1] == "renewed"
    assert not lease.is_lost
