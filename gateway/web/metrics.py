"""Counters of all roles and gauges of the database, in the text format of Prometheus."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.engine import Connection

from gateway.errors import GatewayError
from gateway.job import State
from gateway.services import GONE_S
from gateway.store import Store
from gateway.store.services import ServiceBeat, list_services
from gateway.store.tables import delivery, job, outbox, quarantine, study

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "hybridmed_"
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_TOTAL = "_total"


def render_metrics(store: Store) -> bytes:
    """Return all metrics; where the database is away, those that do without it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(store))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        now = datetime.now(UTC)
        yield _gauge("disk_free_bytes", "Free space of the data folder", shutil.disk_usage(self._store.data_dir).free)
        try:
            with self._store.read() as connection:
                services = list_services(connection, now - timedelta(seconds=GONE_S))
                gauges = list(_database_gauges(connection, now))
        except GatewayError:
            yield _gauge("database_up", "Whether the database answers", 0)
            return
        yield _gauge("database_up", "Whether the database answers", 1)
        yield from gauges
        yield from _service_metrics(services)


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, help_text, value=value)


def _database_gauges(connection: Connection, now: datetime) -> Iterator[Metric]:
    yield _counted(connection, "studies", "Studies by state", study.c.state)
    yield _counted(connection, "jobs", "Jobs by state", job.c.state)
    yield _counted(
        connection, "deliveries", "Deliveries by state and destination", delivery.c.state, delivery.c.destination
    )
    oldest = connection.scalar(sa.select(sa.func.min(job.c.available_at)).where(job.c.state == State.QUEUED))
    age = max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0.0
    yield _gauge("jobs_oldest_queued_age_seconds", "How long the oldest queued job has been due", age)
    unpublished = connection.scalar(sa.select(sa.func.count()).where(outbox.c.published_at.is_(None)))
    yield _gauge("outbox_unpublished", "Queue messages that the broker has not confirmed", unpublished or 0)
    kept = connection.scalar(sa.select(sa.func.count()).select_from(quarantine))
    yield _gauge("quarantined_files", "Files that could not be indexed", kept or 0)


def _counted(connection: Connection, name: str, help_text: str, *columns: sa.Column[str]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, help_text, labels=[column.name for column in columns])
    query = sa.select(*columns, sa.func.count()).group_by(*columns).order_by(*columns)
    for *labels, how_many in connection.execute(query):
        family.add_metric(labels, how_many)
    return family


def _service_metrics(services: list[ServiceBeat]) -> Iterator[Metric]:
    """Yield what the roles count themselves, and which of them live."""
    running = GaugeMetricFamily(f"{_PREFIX}role_up", "Running roles, 1 where ready", labels=["role", "service"])
    families: dict[str, Metric] = {}
    for service in services:
        running.add_metric([service.role, service.id], 1 if service.state == "ready" else 0)
        for key, value in service.counters.items():
            _add(families, key, value, {"role": service.role, "service": service.id})
    yield running
    yield from (families[name] for name in sorted(families))


def _add(families: dict[str, Metric], key: str, value: float, labels: Mapping[str, str]) -> None:
    """Add one sample, named as `name` or `name{label="value"}`; what has no such name is left out."""
    match = _SAMPLE.fullmatch(key)
    if match is None:
        return
    name = match[1] if match[1].startswith(_PREFIX) else _PREFIX + match[1]
    own = {found[1]: found[2] for found in _LABEL.finditer(match[2] or "")}
    base = name.removesuffix(_TOTAL)
    if base not in families:
        kind = CounterMetricFamily if name.endswith(_TOTAL) else GaugeMetricFamily
        families[base] = kind(base, base.removeprefix(_PREFIX).replace("_", " ").capitalize())
    families[base].add_sample(name, {**own, **labels}, value)
