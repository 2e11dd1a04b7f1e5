"""How often a caller and an address may ask."""

from __future__ import annotations

from starlette.requests import Request

from gateway.web.access.limits import Buckets, Limits, Rates, address_of


def request_from(host: str) -> Request:
    """Return a request from an address."""
    return Request({"type": "http", "headers": [], "client": (host, 1)})


def test_a_bucket_empties_and_refills() -> None:
    """So many at once, then so many a second; one's own use is no other's."""
    now = [0.0]
    buckets = Buckets(2.0, 3.0, lambda: now[0])

    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a") == 0.5
    assert buckets.take("b") == 0.0
    now[0] = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0.0, 0.5]
    now[0] = 100.0
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_the_table_is_bounded() -> None:
    """A flood of addresses leaves a bounded number of buckets, and the busiest keeps its own."""
    buckets = Buckets(0.001, 2.0, lambda: 0.0)

    for index in range(50_000):
        buckets.take(f"address-{index}")
        if index % 1000 == 0:
            buckets.take("busy")

    assert len(buckets._levels) == 20_000
    assert buckets.take("busy") > 0


def test_failures_count_against_their_address_alone() -> None:
    """After so many in a minute an address waits, and another does not."""
    now = [0.0]
    limits = Limits(Rates(failures_per_minute=3), lambda: now[0])

    for _ in range(3):
        assert limits.failure_wait_s("10.0.0.1") == 0
        limits.note_failure("10.0.0.1")

    assert limits.failure_wait_s("10.0.0.1") == 20.0
    assert limits.failure_wait_s("10.0.0.2") == 0
    now[0] = 20.0
    assert limits.failure_wait_s("10.0.0.1") == 0


def test_one_subscriber_is_one_address() -> None:
    """All addresses of an IPv6 network of one subscriber count together; a mapped IPv4 address is that address."""
    assert address_of(request_from("2001:db8:1:2::1")) == address_of(request_from("2001:db8:1:2:ffff::9"))
    assert address_of(request_from("2001:db8:1:3::1")) != address_of(request_from("2001:db8:1:2::1"))
    assert address_of(request_from("::ffff:10.0.0.1")) == address_of(request_from("10.0.0.1")) == "10.0.0.1"
