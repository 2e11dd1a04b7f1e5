"""How often a caller and an address may ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from gateway.web.access.limits import Buckets, Limits, Rates, address_of
from gateway.web.access.shared import MEMORY_BYTES, SharedBuckets

TAKEN_BY_A_PROCESS = """
import sys
from gateway.web.access.shared import SharedBuckets

buckets = SharedBuckets(int(sys.argv[1]), "caller", 0.001, 100.0)
print(sum(buckets.take("somebody") == 0.0 for _ in range(90)))
"""


@pytest.fixture
def memory() -> Iterator[int]:
    """Give memory as a supervisor makes it."""
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, MEMORY_BYTES)
    os.pwrite(descriptor, os.urandom(16), 0)
    yield descriptor
    os.close(descriptor)


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
    limits = Limits(Rates(failures_per_minute=3), clock=lambda: now[0])

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


def test_all_processes_of_a_host_count_together(memory: int) -> None:
    """Two at the same time take what one may take, and none is lost between them."""
    command = [sys.executable, "-c", TAKEN_BY_A_PROCESS, str(memory)]
    running = [subprocess.Popen(command, pass_fds=(memory,), stdout=subprocess.PIPE) for _ in range(2)]

    taken = [int(process.communicate(timeout=240)[0]) for process in running]

    assert sum(taken) == 100


def test_a_shared_bucket_empties_and_refills_for_all(memory: int) -> None:
    """What one took the other lacks; tables are apart; a time before the last one gives nothing."""
    now = [50.0]
    one, other = (SharedBuckets(memory, "caller", 2.0, 3.0, lambda: now[0]) for _ in range(2))

    assert [one.take("a"), other.take("a"), one.take("a")] == [0.0, 0.0, 0.0]
    assert (other.take("a"), other.wait_s("a"), other.take("b")) == (0.5, 0.5, 0.0)
    assert SharedBuckets(memory, "failure", 2.0, 3.0, lambda: now[0]).wait_s("a") == 0.0
    now[0] = 50.5
    assert [one.take("a"), other.take("a")] == [0.0, 0.5]


def test_a_flood_of_addresses_does_not_empty_the_shared_table_of_the_busy(memory: int) -> None:
    """The table is as large as ever, and who asked last keeps his bucket."""
    now = [0.0]
    buckets = SharedBuckets(memory, "address", 0.001, 2.0, lambda: now[0])

    for index in range(20_000):
        now[0] += 0.001
        buckets.take(f"address-{index}")
        if index % 1000 == 0:
            buckets.take("busy")

    assert os.fstat(memory).st_size == MEMORY_BYTES
    assert buckets.take("busy") > 0
