"""Load a receiver and watch it: prints what was found as JSON; exit code 1 where something does not hold.

By hand, for ten minutes: `python -m tests.benchmarks.load --seconds 600 --plot build/load.svg`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gateway.store import open_store
from gateway.store.tables import instance
from tests.acceptance.gateway_process import GatewayProcess
from tests.benchmarks.load import senders
from tests.benchmarks.load.plot import svg
from tests.benchmarks.load.sampling import Sample, Sampler
from tests.benchmarks.load.senders import Message, Sender, Told
from tests.benchmarks.load.verdict import faults, growth
from tests.services.process import wait_until

_MORE_PLACES = 14
"""A sender that breaks off is back before the receiver has noticed: its place is not free at once."""
_ABOVE = 20
_INDEXED_S = 180
_REST_S = 5.0


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="over which the instances are spread")
    parser.add_argument("--associations", type=int, default=50, help="at once")
    parser.add_argument("--instances", type=int, default=20_000, help="of all associations together")
    parser.add_argument("--kib", type=int, default=64, help="size of an instance")
    parser.add_argument("--processes", type=int, default=1, help="receiving processes")
    parser.add_argument("--out", type=Path, default=Path("build/load.json"), help="the samples and the verdict")
    parser.add_argument("--plot", type=Path, default=Path("build/load.svg"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        said, samples = _measure(Path(folder), arguments)
    title = f"{arguments.associations} associations, {arguments.instances} instances of {arguments.kib} KiB"
    for file, text in (
        (arguments.out, json.dumps(said | {"samples": [asdict(sample) for sample in samples]}, indent=1) + "\n"),
        (arguments.plot, svg(samples, f"{title}, {arguments.processes} receiving process(es)")),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    print(json.dumps(said, indent=2))
    return 1 if said["faults"] else 0


def _measure(home: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Sample]]:
    limit = arguments.associations + _MORE_PLACES
    gateway = GatewayProcess(
        home,
        roles="receive,dispatch",
        toml='[[rules]]\nname = "keep, and run nothing"\nbundles = []\n',
        HYBRIDMED_RECEIVE_PROCESSES=str(arguments.processes),
        HYBRIDMED_MAX_ASSOCIATIONS=str(limit),
    )
    gateway.start()
    try:
        told = Told()
        sampler = Sampler(gateway.role_pids("receive", arguments.processes), lambda: told.counts["success"])
        port = gateway.dicom_port
        senders.release(senders.associate(port))
        before = sampler.take()
        sampler.samples.clear()
        took_s = _send_all(port, sampler, told, arguments)
        time.sleep(_REST_S)
        crowd = senders.crowd(port, limit, _ABOVE)
        wait_until(lambda: _missing(gateway, told) == 0, _INDEXED_S, "every instance in the index")
        time.sleep(_REST_S)
        after = Sampler([process.pid for process in sampler.processes], lambda: 0).take()
        missing = _missing(gateway, told)
    finally:
        gateway.stop()
    memory, threads = growth(sampler.samples)
    # Of memory and threads: before the load, the most under it, after it.
    said = {
        "took_s": round(took_s, 1),
        "counts": dict(sorted(told.counts.items())),
        "crowd": crowd,
        "limit": limit,
        "missing": missing,
        "rss_mib": [before.rss_mib, max(one.rss_mib for one in sampler.samples), after.rss_mib],
        "threads": [before.threads, max(one.threads for one in sampler.samples), after.threads],
        "grown": {"rss_mib": memory, "threads": threads},
        "faults": faults(told.counts, crowd, missing, sampler.samples, (before, after)),
    }
    return said, sampler.samples


def _send_all(port: int, sampler: Sampler, told: Told, arguments: argparse.Namespace) -> float:
    """Let all send while strangers knock and the sampler looks; return how long it took."""
    message, began = Message(arguments.kib), time.monotonic()
    share = arguments.instances // arguments.associations
    crew = [Sender(port, number, message, (share, arguments.seconds), told) for number in range(arguments.associations)]
    stranger = threading.Thread(target=senders.knock, args=(port, began + arguments.seconds, told), daemon=True)
    for thread in (sampler, stranger, *crew):
        thread.start()
    for thread in (*crew, stranger):
        thread.join()
    sampler.stop()
    for sender in crew:
        if sender.error is not None:
            raise sender.error
    return time.monotonic() - began


def _missing(gateway: GatewayProcess, told: Told) -> int:
    store = open_store(f"sqlite:///{gateway.data_dir / 'hybridmed.db'}", gateway.data_dir)
    try:
        with store.read() as connection:
            indexed = set(connection.scalars(sa.select(instance.c.sop_instance_uid)))
    finally:
        store.close()
    return len(told.stored - indexed)


if __name__ == "__main__":
    sys.exit(main())
