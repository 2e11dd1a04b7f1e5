"""Counters and histograms of all roles and gauges of the database, as Prometheus reads them.

Who asks for OpenMetrics gets that, with exemplars: for a bucket of a histogram the trace of a value in it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from sqlalchemy.engine import Connection

from gateway.disk import read_only_folders
from gateway.errors import GatewayError
from gateway.job import State
from gateway.services import SHOWN, gone_before, silent
from gateway.store import Store
from gateway.store.services import ServiceBeat, list_services
from gateway.store.tables import delivery, job, outbox, quarantine, study

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "hybridmed_"
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_BOUND = re.compile(r',?\ble="([^"]*)"')
_TOTAL = "_total"
_HISTOGRAM = ("_bucket", "_count", "_sum")


def render_metrics(store: Store, accept: str = "") -> tuple[bytes, str]:
    """Return all metrics and their media type; where the database is away, those that do without it.

    Parameters
    ----------
    accept
        The request's `Accept`.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(store))
    if "application/openmetrics-text" in accept:
        return generate_openmetrics(registry), OPENMETRICS  # type: ignore[no-untyped-call] # ships none for this one
    return generate_latest(registry), CONTENT_TYPE


class _Collector(Collector):
    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        now = datetime.now(UTC)
        yield _gauge("disk_free_bytes", "Free space of the data folder", shutil.disk_usage(self._store.data_dir).free)
        yield _gauge(
            "disk_writable", "Whether the data folder takes writes", not read_only_folders(self._store.data_dir)
        )
        try:
            with self._store.read() as connection:
                services = list_services(connection, now - SHOWN)
                gauges = list(_database_gauges(connection, now))
        except GatewayError:
            yield _gauge("database_up", "Whether the database answers", 0)
            return
        yield _gauge("database_up", "Whether the database answers", 1)
        yield from gauges
        yield from _service_metrics(services, now)


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, help_text, value=value)


def _database_gauges(connection: Connection, now: datetime) -> Iterator[Metric]:
    yield _counted(connection, "studies", "Studies by state", study.c.state)
    yield _counted(connection, "jobs", "Jobs by state", job.c.state)
    yield _counted(
        connection, "deliveries", "Deliveries by state and destination", delivery.c.state, delivery.c.destination
    )
    yield _counted(connection, "jobs_queued", "Queued jobs by priority", job.c.priority, where=job.c.state == "queued")
    oldest = connection.scalar(sa.select(sa.func.min(job.c.available_at)).where(job.c.state == State.QUEUED))
    yield _gauge("jobs_oldest_queued_age_seconds", "How long the oldest queued job has been due", _age_s(now, oldest))
    running = connection.scalar(sa.select(sa.func.min(job.c.started_at)).where(job.c.state == State.RUNNING))
    yield _gauge("jobs_oldest_running_age_seconds", "How long the oldest running job has run", _age_s(now, running))
    ages = GaugeMetricFamily(f"{_PREFIX}study_oldest_age_seconds", "Age of the oldest study by state", labels=["state"])
    for state in ("receiving", "unrouted"):
        since = connection.scalar(sa.select(sa.func.min(study.c.last_received_at)).where(study.c.state == state))
        ages.add_metric([state], _age_s(now, since))
    yield ages
    waits = delivery.c.state == "waiting"
    due = sa.select(delivery.c.destination, sa.func.min(delivery.c.created_at)).where(waits)
    held = GaugeMetricFamily(
        f"{_PREFIX}delivery_oldest_age_seconds", "Age of the oldest delivery that waits", labels=["destination"]
    )
    for destination, since in connection.execute(due.group_by(delivery.c.destination)):
        held.add_metric([destination], _age_s(now, since))
    yield held
    unpublished = connection.scalar(sa.select(sa.func.count()).where(outbox.c.published_at.is_(None)))
    yield _gauge("outbox_unpublished", "Queue messages that the broker has not confirmed", unpublished or 0)
    kept = connection.scalar(sa.select(sa.func.count()).select_from(quarantine))
    yield _gauge("quarantined_files", "Files that could not be indexed", kept or 0)


def _age_s(now: datetime, since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _counted(
    connection: Connection,
    name: str,
    help_text: str,
    *columns: sa.Column[str],
    where: sa.ColumnElement[bool] | None = None,
) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, help_text, labels=[column.name for column in columns])
    query = sa.select(*columns, sa.func.count()).group_by(*columns).order_by(*columns)
    if where is not None:
        query = query.where(where)
    for *labels, how_many in connection.execute(query):
        family.add_metric(labels, how_many)
    return family


def _service_metrics(beats: Sequence[ServiceBeat], now: datetime) -> Iterator[Metric]:
    """Yield what the roles count themselves, and which of them live: 0 for one that is silent beside others."""
    services = [beat for beat in beats if beat.seen_at >= gone_before(now)]
    running = GaugeMetricFamily(f"{_PREFIX}role_up", "Running roles, 1 where ready", labels=["role", "service"])
    families: dict[str, Metric] = {}
    for service in services:
        running.add_metric([service.role, service.id], 1 if service.state == "ready" else 0)
        exemplars = service.exemplars or {}
        for key in sorted(service.counters, key=_as_read):
            labels = {"role": service.role, "service": service.id}
            _add(families, key, service.counters[key], labels, exemplars.get(key))
    living = {service.role for service in services}
    for service in silent(beats, now):
        if service.role in living:
            running.add_metric([service.role, service.id], 0)
    yield running
    yield from (families[name] for name in sorted(families))


def _as_read(key: str) -> tuple[str, str, str, float]:
    """Sort a histogram's samples as OpenMetrics wants them: by labels, the buckets by bound, then count, then sum."""
    name, _, rest = key.partition("{")
    base, suffix = _histogram_of(name)
    bound = _BOUND.search(rest)
    return base, _BOUND.sub("", rest), suffix, float(bound[1]) if bound else 0.0


def _histogram_of(name: str) -> tuple[str, str]:
    suffix = next((suffix for suffix in _HISTOGRAM if name.endswith(suffix)), "")
    return name.removesuffix(suffix), suffix


def _add(
    families: dict[str, Metric],
    key: str,
    value: float,
    labels: Mapping[str, str],
    exemplar: Sequence[float | str] | None = None,
) -> None:
    """Add one sample, named as `name` or `name{label="value"}`; what has no such name is left out."""
    match = _SAMPLE.fullmatch(key)
    if match is None:
        return
    name = match[1] if match[1].startswith(_PREFIX) else _PREFIX + match[1]
    own = {found[1]: found[2] for found in _LABEL.finditer(match[2] or "")}
    base, suffix = _histogram_of(name)
    base = base.removesuffix(_TOTAL)
    if base not in families:
        kind = "counter" if name.endswith(_TOTAL) else "histogram" if suffix else "gauge"
        families[base] = Metric(base, base.removeprefix(_PREFIX).replace("_", " ").capitalize(), kind)
    shown = None
    if exemplar is not None:
        trace_id, seen, at = exemplar
        shown = Exemplar({"trace_id": str(trace_id)}, float(seen), float(at))
    families[base].add_sample(name, {**own, **labels}, value, exemplar=shown)
