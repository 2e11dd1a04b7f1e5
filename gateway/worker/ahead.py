"""Studies that are still arriving are read, and those that lie still are evaluated, before anyone made a job of them.

An idle worker looks at the latest studies in state 'receiving' and asks the routing what would become of each. It
decodes instances as they come; once a study has been still for a moment it prepares the whole of it for the bundles
that are to be run, and where no other study is arriving, it lets the model evaluate it, too: the quiet period is time
enough. When the job comes, what was prepared is taken where the job's files are these very files, by name (which holds
the digest) and by identity; otherwise it is dropped, and the job is prepared as ever. A result is thus the same with
and without this, bit for bit. What goes wrong ahead is for the job to meet and to tell.

What is held is bounded in bytes, and let go of a while after its study was last seen arriving.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeAlias

import structlog
from pydicom.dataset import Dataset

from gateway.errors import ServiceAwayError
from gateway.place import place
from gateway.pulse import ended_when_hung
from gateway.store import Store
from gateway.store.commits import Commits
from gateway.store.studies import (
    InstanceRow,
    SeriesRow,
    StudyFilter,
    StudyRow,
    list_instances,
    list_series,
    list_studies,
)
from gateway.worker.load import LoadedStudy
from gateway.worker.model import FindModel, Inference, Model
from inference.errors import InferenceError
from inference.findings import Outcome
from inference.preread import Identity, identify

log = structlog.get_logger()

_STUDIES = 4
"""Most studies looked at in one pass, those that received something latest."""
_PASS_S = 0.2
"""Least time from one pass to the next."""
_STILL_S = 0.5
"""How long nothing must have come before a study is prepared as a whole; twice as long each time it was in vain."""
_MOST_DOUBLINGS = 6
_KEPT_S = 60.0
"""How long anything is held after its study was last seen arriving: its job is claimed by then, here or elsewhere."""
_VOXEL_BYTES = 4

Route: TypeAlias = Callable[[StudyRow, Sequence[SeriesRow]], Sequence[str]]
"""Study and series as they stand -> names of the bundles that would be run."""
Key: TypeAlias = tuple[tuple[tuple[str, Identity], ...], ...]
"""The files of each series."""


class Preread(Protocol):
    """`inference.preread.Preread`."""

    def read(self, path: Path, /) -> bool:
        """Read and keep a file."""

    def header(self, path: Path, limit_bytes: int, /) -> Dataset | None:
        """Return the header of a file that is kept."""

    def forget(self, paths: Sequence[Path], /) -> None:
        """Let go of files."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A study prepared for one bundle."""

    key: Key
    inference: Inference
    """What evaluates it, or says at once what it was told."""
    size_bytes: int


@dataclass(slots=True, eq=False)
class _Study:
    """What is held of one study."""

    seen_at: float
    """Monotonic, when it was last seen arriving."""
    read: dict[Path, None] = field(default_factory=dict)
    """Files that were read, or cannot be read ahead."""
    bundles: set[str] = field(default_factory=set)
    """Those that are to be run and have not taken it yet."""
    ready: dict[str, _Ready] = field(default_factory=dict)
    """By bundle."""
    tried: dict[str, Key] = field(default_factory=dict)
    """What was prepared, or could not be, by bundle: once is enough."""
    tries: int = 0
    """How often what was prepared was not all."""


class Ahead:
    """Works ahead in a thread of its own, while it may.

    Parameters
    ----------
    store
        Database and files.
    route
        What would become of a study.
    find_model
        Gives the model of a bundle; called from several threads.
    preread
        Keeps instances for the models.
    limit_bytes
        Of the voxels that are prepared; the instances that `preread` keeps have a limit of their own.
    now
        The clock.
    hung_s
        After which an evaluation counts as hanging: the worker's process ends, as it does where a job hangs.
    """

    def __init__(  # noqa: PLR0913, PLR0917 # its parts
        self,
        store: Store,
        route: Route,
        find_model: FindModel,
        preread: Preread,
        limit_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        hung_s: float = 3600.0,
    ) -> None:
        self._store = store
        self._route = route
        self._find_model = find_model
        self._preread = preread
        self._limit_bytes = limit_bytes
        self._now = now
        self._hung_s = hung_s
        self._studies: dict[str, _Study] = {}
        self._under_way: tuple[str, str] | None = None
        self.device = threading.Lock()
        """Held by whoever lets a model evaluate: two at once may be more than the device holds."""
        self._changed = threading.Condition()
        self._may_go = threading.Event()
        self._ending = threading.Event()
        self._rests = 0
        self._rests_of_pass = 0

    def go(self) -> None:
        """Let it work: the worker has nothing else to do."""
        self._may_go.set()

    def rest(self) -> None:
        """Let it stop after the file that it reads now; what the pass under way found to do may be a job by then."""
        self._may_go.clear()
        self._rests += 1

    def end(self) -> None:
        """End the loop."""
        self._ending.set()
        self._may_go.set()

    def run(self) -> None:
        """Work until the end; whatever goes wrong here is for the job itself to meet and to tell."""
        commits = Commits(self._store)
        while not self._ending.is_set():
            self._may_go.wait()
            try:
                self.work()
            except ServiceAwayError:
                self._ending.wait(1.0)  # the worker's own loop says so
            except Exception as error:  # a study that no library can read must not end the worker
                log.debug("work.not_ahead", reason=type(error).__name__, place=place(error))
            self._ending.wait(_PASS_S)
            commits.wait(self._ending, _STILL_S)

    def work(self) -> None:
        """Make one pass over the studies that are arriving."""
        self._rests_of_pass = self._rests
        with self._store.read() as connection:
            arriving = list_studies(connection, StudyFilter(state="receiving"), limit=_STUDIES)
            found = [
                LoadedStudy(
                    study=study,
                    series=list_series(connection, study.study_instance_uid),
                    instances=list_instances(connection, study.study_instance_uid),
                    is_replacement=False,
                    replaces=(),
                )
                for study in arriving
            ]
        self._let_go([study.study_instance_uid for study in arriving])
        for loaded in found:
            for bundle in self._route(loaded.study, loaded.series):
                model = None if self._is_interrupted() else self._model(bundle)
                if model is not None:
                    self._read(loaded, bundle, model)
                    self._prepare(loaded, bundle, model, is_alone=len(found) == 1)
            self._spare(loaded.study.study_instance_uid)

    def _model(self, bundle: str) -> Model | None:
        """Return the model of a bundle; None where it does not open, which is for its job to tell."""
        try:
            return self._find_model(bundle)
        except InferenceError:
            return None

    def take(self, study_instance_uid: str, bundle: str, series: Sequence[Sequence[Path]]) -> Inference | None:
        """Return what was prepared of these very files, once; None where nothing was. Waits for what is under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way != (study_instance_uid, bundle))
            held = self._studies.get(study_instance_uid)
            ready = None if held is None else held.ready.pop(bundle, None)
        return ready.inference if ready is not None and ready.key == _key(series) else None

    def header(self, path: Path) -> Dataset | None:
        """Return the header of a file that was read ahead."""
        return self._preread.header(path, sys.maxsize)

    def done(self, study_instance_uid: str, bundle: str) -> None:
        """Hear that a job is prepared: what is held of its study goes with the last of its bundles."""
        with self._changed:
            held = self._studies.get(study_instance_uid)
            if held is None:
                return
            held.bundles.discard(bundle)
            if held.bundles:
                return
            del self._studies[study_instance_uid]
            read = list(held.read)
        self._preread.forget(read)

    def _read(self, loaded: LoadedStudy, bundle: str, model: Model) -> None:
        held = self._hold(loaded)
        held.bundles.add(bundle)
        for one in _wanted(loaded, model):
            path = self._store.data_dir / one.path
            if path in held.read:
                continue
            if self._is_interrupted():
                return
            self._store.files.bring([one.path])
            self._preread.read(path)
            with self._changed:
                held.read[path] = None
                is_held = self._studies.get(loaded.study.study_instance_uid) is held
            if not is_held:  # its job came meanwhile, and what was held has gone
                self._preread.forget([path])

    def _prepare(self, loaded: LoadedStudy, bundle: str, model: Model, *, is_alone: bool) -> None:
        """Prepare a study that has been still for a while, and evaluate it where no other would wait for that."""
        held = self._hold(loaded)
        uid = loaded.study.study_instance_uid
        still_for = self._now() - loaded.study.last_received_at
        if self._is_interrupted() or still_for < timedelta(seconds=_STILL_S * 2 ** min(held.tries, _MOST_DOUBLINGS)):
            return
        series = [loaded.files(self._store.data_dir, each) for each in loaded.wanted_series(model)]
        key, size_bytes = _key(series), _size_bytes(_wanted(loaded, model))
        if held.tried.get(bundle) == key:
            return
        with self._changed:
            held.ready.pop(bundle, None)
            if not series or size_bytes > self._free_bytes():
                return
            held.tries += bundle in held.tried
            held.tried[bundle] = key
            self._under_way = (uid, bundle)
        try:
            inference = model.prepare(series)
            with self._changed:
                held.ready[bundle] = _Ready(key, inference, size_bytes)
            if is_alone and (outcomes := self._evaluated(inference)) is not None:
                with self._changed:
                    held.ready[bundle] = _Ready(key, _told(outcomes), size_bytes)
        finally:
            with self._changed:
                self._under_way = None
                self._changed.notify_all()

    def _evaluated(self, inference: Inference) -> Sequence[Outcome] | None:
        """Return what the model says; None where the device is wanted otherwise, or where it says nothing."""
        if self._is_interrupted() or not self.device.acquire(blocking=False):
            return None
        try:
            with ended_when_hung(self._hung_s, "an evaluation ahead of its job"):
                return tuple(inference())
        except Exception as error:  # the job will meet it
            log.debug("work.not_ahead", reason=type(error).__name__, place=place(error))
            return None
        finally:
            self.device.release()

    def _spare(self, study_instance_uid: str) -> None:
        """Let go of instances that every bundle has in its own form by now."""
        with self._changed:
            held = self._studies.get(study_instance_uid)
            is_whole = held is not None and held.bundles == held.ready.keys()
        if held is not None and is_whole:
            self._preread.forget(list(held.read))

    def _hold(self, loaded: LoadedStudy) -> _Study:
        with self._changed:
            return self._studies.setdefault(loaded.study.study_instance_uid, _Study(time.monotonic()))

    def _let_go(self, arriving: Sequence[str]) -> None:
        now = time.monotonic()
        with self._changed:
            for uid in arriving:
                if uid in self._studies:
                    self._studies[uid].seen_at = now
            gone = [uid for uid, held in self._studies.items() if now - held.seen_at > _KEPT_S]
            dropped = [self._studies.pop(uid) for uid in gone]
        for held in dropped:
            self._preread.forget(list(held.read))

    def _free_bytes(self) -> int:
        held = (ready.size_bytes for study in self._studies.values() for ready in study.ready.values())
        return self._limit_bytes - sum(held)

    def _is_interrupted(self) -> bool:
        return self._ending.is_set() or not self._may_go.is_set() or self._rests != self._rests_of_pass


@contextmanager
def working_ahead(ahead: Ahead | None) -> Iterator[None]:
    """Run it in a thread of its own; nothing where there is none."""
    if ahead is None:
        yield
        return
    thread = threading.Thread(target=ahead.run, name="work-ahead", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ahead.end()
        thread.join()


def _told(outcomes: Sequence[Outcome]) -> Inference:
    return lambda: outcomes


def _wanted(loaded: LoadedStudy, model: Model) -> Sequence[InstanceRow]:
    series = set(loaded.wanted_series(model))
    return [one for one in loaded.instances if one.series_instance_uid in series]


def _size_bytes(instances: Sequence[InstanceRow]) -> int:
    """Return the size of the voxels as single precision."""
    return sum((one.rows or 0) * (one.columns or 0) * (one.number_of_frames or 1) for one in instances) * _VOXEL_BYTES


def _key(series: Sequence[Sequence[Path]]) -> Key:
    return tuple(tuple((str(path), identify(path)) for path in files) for files in series)
