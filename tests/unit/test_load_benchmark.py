"""The load benchmark tells what does not hold, and sends what it says."""

from collections import Counter

from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from tests.benchmarks.load.plot import svg
from tests.benchmarks.load.sampling import Sample
from tests.benchmarks.load.senders import Message
from tests.benchmarks.load.verdict import faults

_LAST_UID = 0x00200010
CROWD = {"within": 64, "refused below the limit": 0, "refused above": 20, "let in above": 0, "afterwards": 1}


def samples(per_s_mib: float = 0.0, per_s_threads: float = 0.0) -> list[Sample]:
    """Return ten minutes that begin with loading and then grow at a pace."""
    return [
        Sample(float(at), min(100.0, 2.0 * at) + per_s_mib * at, int(60 + per_s_threads * at), 90, 30 * at)
        for at in range(600)
    ]


def told(under_load: list[Sample], missing: int = 0, **counts: int) -> list[str]:
    """Judge a run."""
    rest = (under_load[0], under_load[0])
    return faults(Counter(success=20_000, **counts), CROWD, missing, under_load, rest)


def test_a_steady_run_holds() -> None:
    """What is loaded in the beginning is no growth."""
    assert told(samples()) == []


def test_growth_loss_and_refusal_are_told() -> None:
    """A leak of 0.2 MiB a second, a thread each half minute, a lost instance, a sender that was refused."""
    assert told(samples(per_s_mib=0.2)) == ["memory grew by 59.9 MiB under load"]
    assert told(samples(per_s_threads=1 / 30))[0].startswith("threads: 9.5 more")
    assert told(samples(), missing=1) == ["1 instances lost"]
    assert told(samples(), refused=2, failure=3) == ["2 refused below the limit", "3 instances refused"]


def test_instances_differ_in_their_uids_alone() -> None:
    """Of one study, then of the next; the data set is as large as was asked for."""
    message = Message(8)
    uids = [message.of(7, number)[0] for number in (0, 119, 120)]
    pdus = message.of(7, 120)[1]
    first = int.from_bytes(pdus[2:6], "big") + 6
    data_set = read_dataset(
        DicomBytesIO(pdus[first + 12 : first + 700]), False, True, stop_when=lambda tag, *_: tag > 0x00200010
    )

    assert uids == ["2.25.9000700000.1000000", "2.25.9000700000.1000119", "2.25.9000700001.1000120"]
    assert data_set.SOPInstanceUID == uids[2]
    assert data_set.StudyInstanceUID == "2.25.9000700001"
    assert 8 << 10 < len(pdus) < 10 << 10


def test_the_plot_holds_every_panel() -> None:
    """As a picture that any browser shows."""
    drawn = svg(samples(), "a < b")

    assert drawn.count("<polyline") == 3
    assert "a &lt; b" in drawn
