"""A receiver with every DIMSE service, as a process: `python -m tests.fuzz.receiver DATA_DIR PORT PATH`."""

import signal
import sys
import threading
from pathlib import Path

from gateway.config import Settings
from gateway.log import configure_logging
from gateway.services import Counters, Heartbeat
from gateway.store import open_store
from gateway.wiring import receive
from tests.services.process import LOOPBACK


def main() -> None:
    """Serve until SIGTERM."""
    data_dir, port = Path(sys.argv[1]), int(sys.argv[2])
    configure_logging("json", role="receive")
    named = {"data_dir": data_dir, "dicom_port": port, "receive_path": sys.argv[3], "reserve_mib": 0}
    settings = Settings.model_validate({**named, "destinations": f"FUZZ=FUZZ@{LOOPBACK}:9"})
    store = open_store(settings.sqlalchemy_url, data_dir)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Heartbeat(store, "receive", Counters()) as heartbeat:
        receive.build(settings, store, heartbeat).run(stop)


if __name__ == "__main__":
    main()
