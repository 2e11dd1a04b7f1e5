"""What is done to a host, and what must go on meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.benchmarks.hosts.site import Site
from tests.services.network import Host

How = Literal["killed", "cut off", "without power"]
"""Killed: its processes end and its kernel tells the peers. Cut off: they live on, alone. Without power: they end and
nobody is told."""
Rest = Literal["all goes on", "new work goes on", "nothing goes on"]
"""While the host is away. New work: what lies on the disk of a receiver waits for it."""
Do = Callable[[], object]
_QUEUE = "hybridmed.jobs.routine"
_EVERY: Sequence[How] = ("killed", "cut off", "without power")
_WAYS: dict[str, Sequence[How]] = {
    "receive1": ("killed", "cut off"),
    "receive2": ("without power",),
    "dispatch1": ("killed",),
    "dispatch2": ("cut off", "without power"),
    "work1": ("killed",),
    "work2": ("cut off",),
    "work3": ("without power",),
}
"""Hosts that do the same share the ways."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done to one host."""

    host: str
    how: How
    rest: Rest
    strike: Do
    mend: Do

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.host} {self.how}"


def all_faults(site: Site) -> list[Fault]:
    """Return every fault, each once."""
    found: list[Fault] = []
    for name, ways in _WAYS.items():
        machine = site.machines[name]
        rest: Rest = "new work goes on" if name.startswith("receive") else "all goes on"
        found += (_fault(machine.host, how, rest, machine.kill, machine.start) for how in ways)
    for how in _EVERY:
        found.append(_fault(site.database_host, how, "nothing goes on", site.database.kill, site.database.start))
    # The server of the bucket keeps its objects in memory: it may be away, and must not end.
    found.append(Fault("bucket", "cut off", "nothing goes on", site.bucket_host.cut_off, site.bucket_host.plug_in))
    return [*found, *_of_broker(site)]


def _of_broker(site: Site) -> Iterator[Fault]:
    """Yield what is done to the node that leads the queue of jobs when it is struck."""
    is_cluster = len(site.cluster.nodes) > 1
    struck: list[Fault] = []

    def strike(how: How) -> None:
        node = site.cluster.leader_of(_QUEUE)
        struck.append(_fault(node.on, how, "all goes on", node.kill, node.start))
        struck[-1].strike()

    def mend() -> None:
        struck.pop().mend()
        site.cluster.wait_whole()

    for how in _EVERY:
        name = "leader of the queue" if is_cluster else "RabbitMQ"
        rest: Rest = "all goes on" if is_cluster else "nothing goes on"
        yield Fault(name, how, rest, lambda how=how: strike(how), mend)


def _fault(host: Host, how: How, rest: Rest, kill: Do, start: Do) -> Fault:
    def lose_power() -> None:
        host.cut_off()
        kill()

    def regain_power() -> None:
        host.plug_in()
        start()

    strike, mend = {
        "killed": (kill, start),
        "cut off": (host.cut_off, host.plug_in),
        "without power": (lose_power, regain_power),
    }[how]
    return Fault(host.name, how, rest, strike, mend)
