"""Complete studies become jobs; the outbox is relayed; what others left behind is swept. Any number may run at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import structlog
from pydicom.multival import MultiValue
from sqlalchemy.engine import Connection

from gateway import tracing
from gateway.broker import Broker
from gateway.config import Rule
from gateway.decoding import MALFORMED
from gateway.errors import ConfigurationError, DatabaseAwayError, FilesAwayError, GatewayError, ServiceAwayError
from gateway.job import retry_delay
from gateway.relay import Relay
from gateway.routing import BundleOffer, Decision, ReadTag, check_rules, decide, parse_tag
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.store.commits import Commits
from gateway.store.jobs import create_job
from gateway.store.studies import (
    SeriesRow,
    StudyRow,
    latest_association,
    list_arriving,
    list_instances,
    list_series,
    lock_study,
    mark_dispatched,
    next_to_be_quiet,
)
from gateway.study import Complete, completeness
from gateway.sweeper import Sweeper

log = structlog.get_logger()

_SWEEP_S = 5.0
_FIRST_PAUSE = timedelta(seconds=0.5)
_LONGEST_PAUSE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class DispatchTimes:
    """When things are done."""

    quiet_s: float = 10.0
    """Without a new instance, before a study is complete."""
    poll_s: float = 0.1
    """Between looks at a database that does not tell of commits: how late the end of the quiet time may be seen."""
    stale_s: float = 600.0
    """Age of a published message whose job still waits, after which it may be lost."""


class Router:
    """Routing rules over stored studies.

    Parameters
    ----------
    store
        The database, and the files whose tags rules ask for.
    rules
        In order; the first that matches decides.
    offers
        The bundles installed.
    destinations
        Names of all destinations.
    """

    def __init__(
        self, store: Store, rules: Sequence[Rule], offers: Sequence[BundleOffer], destinations: Sequence[str]
    ) -> None:
        check_rules(rules)
        self.offers = tuple(offers)
        self._store = store
        self._rules = tuple(rules)
        self._destinations = tuple(destinations)

    def route(self, study: StudyRow, series: Sequence[SeriesRow]) -> Decision:
        """Decide about a study."""
        return decide(study, series, self._rules, self.offers, self._tag_reader(study.study_instance_uid))

    def destinations(self, decision: Decision) -> tuple[str, ...]:
        """Return the names of the destinations of a decision."""
        return self._destinations if decision.destinations is None else decision.destinations

    def _tag_reader(self, study_instance_uid: str) -> ReadTag:
        def read(series_instance_uid: str, tag: str) -> str:
            with self._store.read() as connection:
                instances = list_instances(connection, study_instance_uid, series_instance_uid, limit=1)
            return read_tag(self._store.files.local(instances[0].path), tag) if instances else ""

        return read


class Dispatcher:
    """The role 'dispatch'.

    Parameters
    ----------
    store
        The database.
    broker
        Where messages about jobs go.
    router
        Decides what a complete study becomes.
    heartbeat
        Begun and ended by the caller; who hears how it goes.
    max_attempts
        Tries of a job.
    times
        When things are done.
    """

    name = "dispatch"

    def __init__(  # noqa: PLR0913, PLR0917 # its parts
        self,
        store: Store,
        broker: Broker,
        router: Router,
        heartbeat: Heartbeat,
        max_attempts: int = 5,
        times: DispatchTimes | None = None,
    ) -> None:
        self._store = store
        self._router = router
        self._heartbeat = heartbeat
        self._times = times or DispatchTimes()
        self._next_last: datetime | None = None
        """When the study that is quiet next received its last instance."""
        self._relay = Relay(store, broker, heartbeat.counters)
        stale_after = timedelta(seconds=self._times.stale_s)
        self._sweeper = Sweeper(store, broker, heartbeat.counters, max_attempts, stale_after)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set; the database or the broker being away is waited out, each by itself."""
        ending = threading.Event()
        loops: tuple[tuple[Callable[[datetime], object], Callable[[Commits], float]], ...] = (
            (self.dispatch_complete, self._until_quiet_s),
            (self._relay.publish_due, lambda commits: commits.idle_s(self._times.poll_s)),
            (self._sweeper.sweep, lambda _: _SWEEP_S),
        )
        with ThreadPoolExecutor(len(loops)) as pool:
            running = [
                pool.submit(_repeat, step, pause, Commits(self._store), self._heartbeat, ending)
                for step, pause in loops
            ]
            try:
                # A loop that ends by itself met an error that nobody foresaw: we end too, and are started anew.
                while not stop.is_set() and not wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                    continue
            finally:
                ending.set()
        for loop in running:
            loop.result()

    def dispatch_complete(self, now: datetime) -> int:
        """Make the jobs of all studies that are complete; return how many studies were dispatched."""
        quiet = timedelta(seconds=self._times.quiet_s)
        with self._store.read() as connection:
            arriving = list_arriving(connection, now - quiet)
            self._next_last = next_to_be_quiet(connection, now - quiet)
        dispatched = 0
        for one in arriving:
            answer = completeness(
                one.study.state,
                one.open_associations,
                one.study.last_received_at,
                one.study.announced_count,
                one.instance_count,
                now,
                self._times.quiet_s,
            )
            if isinstance(answer, Complete):
                dispatched += self._dispatch(one.study, now)
        return dispatched

    def _until_quiet_s(self, commits: Commits) -> float:
        """Return how long nothing can become due but by a commit, within the pause between looks."""
        if self._next_last is None:
            return commits.idle_s(self._times.poll_s)
        quiet_at = self._next_last + timedelta(seconds=self._times.quiet_s)
        return min(self._times.poll_s, max(0.0, (quiet_at - datetime.now(UTC)).total_seconds()))

    def _dispatch(self, study: StudyRow, now: datetime) -> bool:
        with self._store.read() as connection:
            series = list_series(connection, study.study_instance_uid)
        decision = self._router.route(study, series)
        dispatched = replace(
            study,
            state="routed" if decision.is_routed else "unrouted",
            state_reason=decision.reason,
            priority=decision.priority,
            completed_at=now,
        )
        with self._store.write() as connection, _span(connection, study.study_instance_uid) as trace_context:
            lock_study(connection, study.study_instance_uid)
            # The decision holds for what we looked at: something indexed meanwhile starts the look anew.
            if list_series(connection, study.study_instance_uid) != series:
                return False
            if not mark_dispatched(connection, study, dispatched):
                return False
            for bundle in decision.bundles:
                create_job(
                    connection,
                    study_instance_uid=study.study_instance_uid,
                    study_revision=study.revision,
                    bundle=bundle,
                    priority=decision.priority,
                    destinations=self._router.destinations(decision),
                    requested_by="dispatch",
                    now=now,
                    trace_context=trace_context,
                )
        self._tell(dispatched, decision)
        return True

    def _tell(self, study: StudyRow, decision: Decision) -> None:
        log.info(
            f"study.{study.state}",
            study_instance_uid=study.study_instance_uid,
            revision=study.revision,
            bundles=decision.bundles,
            rule=decision.rule,
            reason=decision.reason,
        )
        self._heartbeat.counters.add(f'hybridmed_studies_dispatched_total{{state="{study.state}"}}')
        for bundle in decision.bundles:
            self._heartbeat.counters.add(f'hybridmed_jobs_created_total{{bundle="{bundle}"}}')


@contextmanager
def _span(connection: Connection, study_instance_uid: str) -> Iterator[tracing.Carrier]:
    """Continue the trace of the association that brought the study's latest instance."""
    association_id = latest_association(connection, study_instance_uid)
    with tracing.span("study.dispatch", tracing.root_context(association_id) if association_id else {}) as carrier:
        yield carrier


def read_tag(path: Path, tag: str) -> str:
    """Return the value of a tag in a file's header, values separated by backslashes; '' where it cannot be read."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[parse_tag(tag)])
        value = dataset[parse_tag(tag)].value
    except KeyError:
        return ""
    except (OSError, *MALFORMED) as error:
        log.warning("dispatch.tag_unreadable", tag=tag, reason=type(error).__name__)
        return ""
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def _repeat(
    step: Callable[[datetime], object],
    pause: Callable[[Commits], float],
    commits: Commits,
    heartbeat: Heartbeat,
    ending: threading.Event,
) -> None:
    """Do something again and again, at once after a commit; while a part is away, say so and wait longer each time."""
    failures: list[str] = []
    while not ending.is_set():
        try:
            step(datetime.now(UTC))
        except (ServiceAwayError, ConfigurationError) as error:
            failures.append(_part(error))
            heartbeat.degraded(failures[-1], str(error))
            log.warning("dispatch.away", part=failures[-1], reason=str(error))
            ending.wait(retry_delay(len(failures), _FIRST_PAUSE, _LONGEST_PAUSE).total_seconds())
            continue
        for part in set(failures):
            heartbeat.recovered(part)
        failures.clear()
        pause_s = pause(commits)
        if pause_s < _SWEEP_S:
            commits.wait(ending, pause_s)
        else:
            ending.wait(pause_s)


def _part(error: GatewayError) -> str:
    if isinstance(error, FilesAwayError):
        return "files"
    return "database" if isinstance(error, DatabaseAwayError) else "broker"
