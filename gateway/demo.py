"""`hybridmed demo`: a gateway of its own on loopback, three sample chest X-rays in, findings and pictures out."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.config import DicomAddress
from gateway.errors import ServiceAwayError
from gateway.job import State
from gateway.sending import send_files
from gateway.store import Store, open_store
from gateway.store.jobs import JobFilter, JobRow, list_jobs
from gateway.store.results import NewArtefact, list_artefacts

SAMPLES = Path(__file__).parent / "samples"
_HOST = "127.0.0.1"
_AE_TITLE = "HYBRIDMED"
_START_S = 120
_RESULT_S = 600
_POLL_S = 0.5
_PORTS = (11112, 8080)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the demonstration's gateway lives."""

    folder: Path
    dicom_port: int
    http_port: int

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HYBRIDMED_")},
            "HYBRIDMED_CONFIG": os.devnull,
            "HYBRIDMED_DATA_DIR": str(self.folder),
            "HYBRIDMED_DICOM_PORT": str(self.dicom_port),
            "HYBRIDMED_HTTP_PORT": str(self.http_port),
            "HYBRIDMED_QUIET_S": "1",
            "HYBRIDMED_DEVICE": os.environ.get("HYBRIDMED_DEVICE", "auto"),
        }

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.http_port}"


def run(folder: Path, *, keep: bool | None, out: Console) -> None:
    """Show the main job on three sample studies.

    Parameters
    ----------
    folder
        Where data, results and pictures stay afterwards.
    keep
        Whether to go on serving until Ctrl-C; None: where a person sits at the terminal.
    """
    samples = sorted(SAMPLES.glob("*.dcm"))
    place = _Place(folder.resolve(), *(_free_port(port) for port in _PORTS))
    place.folder.mkdir(parents=True, exist_ok=True)
    with _gateway(place) as process:
        with _progress(out) as progress:
            _step(progress, "starting the gateway", lambda: _wait_until_up(place, process))
            _step(progress, f"sending {len(samples)} chest X-rays by C-STORE", lambda: _send(place, samples))
            jobs = _step(progress, "waiting for results", lambda: _wait_for_results(place, samples, process))
        _show(place, samples, jobs, out)
        if keep or (keep is None and sys.stdin.isatty() and sys.stdout.isatty()):
            out.print("\nThe gateway goes on serving until Ctrl-C.")
            _wait_for_end(process)
        else:
            out.print(f"\nThe gateway has ended. To look again: hybridmed demo --keep --folder {folder}")


def _step(progress: Progress, title: str, work: Any) -> Any:
    task = progress.add_task(title, total=1)
    result = work()
    progress.update(task, completed=1)
    return result


@contextmanager
def _gateway(place: _Place) -> Iterator[subprocess.Popen[bytes]]:
    """Run `serve` as a process; its log goes to a file in the folder."""
    with (place.folder / "demo.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve"],
            env=place.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def _wait_until_up(place: _Place, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while not _is_up(place):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceAwayError(f"the gateway did not start: see {place.folder / 'demo.log'}")
        time.sleep(_POLL_S)


def _is_up(place: _Place) -> bool:
    try:
        httpx.get(f"{place.url}/healthz", timeout=2, trust_env=False).raise_for_status()
        socket.create_connection((_HOST, place.dicom_port), timeout=2).close()
    except (httpx.HTTPError, OSError):
        return False
    return True


def _send(place: _Place, samples: Sequence[Path]) -> None:
    address = DicomAddress(_AE_TITLE, _HOST, place.dicom_port)
    for outcome in send_files(address, "DEMO", samples):
        if not outcome.is_stored:
            raise ServiceAwayError(f"{outcome.path.name} was refused: {outcome.reason}")


def _wait_for_results(place: _Place, samples: Sequence[Path], process: subprocess.Popen[bytes]) -> list[JobRow]:
    wanted = {_study_of(sample) for sample in samples}
    store = open_store(f"sqlite:///{place.folder / 'hybridmed.db'}", place.folder)
    deadline = time.monotonic() + _RESULT_S
    try:
        while True:
            done = [job for job in _ended(store) if job.study_instance_uid in wanted]
            if {job.study_instance_uid for job in done} == wanted:
                return done
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServiceAwayError(f"no result in {_RESULT_S} s: see {place.folder / 'demo.log'}")
            time.sleep(_POLL_S)
    finally:
        store.close()


def _ended(store: Store) -> list[JobRow]:
    with store.read() as connection:
        return list_jobs(connection, JobFilter(states=(State.DONE, State.DEAD)), limit=1000)


def _show(place: _Place, samples: Sequence[Path], jobs: Sequence[JobRow], out: Console) -> None:
    newest = {job.study_instance_uid: job for job in reversed(jobs)}
    table = Table(title="Findings (preliminary; reference model, not a medical device)", title_justify="left")
    for heading in ("Sample", "Finding", "Probability", "Segments"):
        table.add_column(heading)
    for sample in samples:
        for row in _rows(sample.stem, newest[_study_of(sample)]):
            table.add_row(*row)
    out.print(table)
    pictures = _copy_pictures(place, samples, newest)
    out.print("Pictures of overlay and heat map:")
    for picture in pictures:
        out.print(f"  {picture}", soft_wrap=True)
    study = _study_of(samples[0])
    out.print(f"\nStudies   {place.url}/worklist\nFHIR      {place.url}/fhir/DiagnosticReport?_sort=-date")
    out.print(f"One study {place.url}/studies/{study}", soft_wrap=True)


def _rows(sample: str, job: JobRow) -> Iterator[tuple[str, str, str, str]]:
    outcomes = (job.summary or {}).get("outcomes", [])
    if job.state is not State.DONE or not outcomes:
        yield sample, f"{job.state}: {job.reason}", "", ""
    for outcome in outcomes:
        if not outcome["evaluable"]:
            yield sample, f"not evaluable: {outcome['reason']}", "", ""
            continue
        segments = ", ".join(segment["label"] for segment in outcome["segments"])
        for finding in outcome["findings"]:
            yield sample, f"{finding['level']}: {finding['answer']}", f"{finding['probability']:.1%}", segments
            sample = segments = ""


def _copy_pictures(place: _Place, samples: Sequence[Path], newest: Mapping[str, JobRow]) -> list[Path]:
    folder = place.folder / "pictures"
    folder.mkdir(exist_ok=True)
    store = open_store(f"sqlite:///{place.folder / 'hybridmed.db'}", place.folder)
    copied = []
    try:
        with store.read() as connection:
            for sample in samples:
                for artefact in list_artefacts(connection, newest[_study_of(sample)].id):
                    if artefact.media_type == "image/png":
                        copied.append(_copy_picture(place, sample, artefact, folder))
    finally:
        store.close()
    return copied


def _copy_picture(place: _Place, sample: Path, artefact: NewArtefact, folder: Path) -> Path:
    target = folder / f"{sample.stem}-{artefact.kind.removeprefix('picture-')}.png"
    shutil.copyfile(place.folder / artefact.path, target)
    return target


def _wait_for_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        return


def _study_of(sample: Path) -> str:
    return str(dcmread(sample, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def _free_port(preferred: int) -> int:
    """Return a port that can be listened on: the usual one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceAwayError("no free port on loopback")


@contextmanager
def _progress(out: Console) -> Iterator[Progress]:
    with Progress(
        SpinnerColumn(finished_text="[green]✓[/green]"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=out,
    ) as progress:
        yield progress
