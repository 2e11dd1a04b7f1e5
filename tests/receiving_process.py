"""A receiver as a process of its own, to be killed: `python -m tests.receiving_process DATA_DIR PORT [PATH]`."""

import signal
import sys
import threading
from pathlib import Path

from gateway.association import Limits, Listening, Receiver
from gateway.services import Counters, Heartbeat
from gateway.store import open_store


def main() -> None:
    """Serve until SIGTERM."""
    data_dir, port = Path(sys.argv[1]), int(sys.argv[2])
    store = open_store(f"sqlite:///{data_dir / 'hybridmed.db'}", data_dir)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    listening = Listening("HYBRIDMED", "127.0.0.1", port, path="stock" if sys.argv[3:] == ["stock"] else "fast")
    with Heartbeat(store, "receive", Counters()) as heartbeat:
        Receiver(store, listening, Limits(reserve_bytes=0), heartbeat).run(stop)


if __name__ == "__main__":
    main()
