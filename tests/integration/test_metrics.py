"""What Prometheus reads: histograms with exemplars, ages, drift; told by roles and by the database."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from gateway.job import Claim
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.tables import study
from gateway.tracing import root_context
from gateway.web.metrics import render_metrics
from gateway.worker.measures import Measures
from inference.findings import Algorithm, ClassProbability, Code, Finding, Findings, NotEvaluable
from tests.stores import add_study

CODE = Code("1", "99TEST", "one")
ALGORITHM = Algorithm("b", "1", "made", CODE, "0" * 64)


def test_histograms_come_with_the_trace_of_a_value(store: Store) -> None:
    """Buckets add up, are in order, and one names the trace; the plain text says the same without."""
    counters = Counters()
    claim = _claim()
    carrier = root_context("an association")
    measures = Measures(counters)
    with measures.stage("infer", claim, carrier):
        pass
    measures.job_done(claim, [_findings(0.93), NotEvaluable(ALGORITHM, "projection", "lateral")], 3.0, carrier)
    Heartbeat(store, "work", counters).beat_now()

    content, media_type = render_metrics(store, "application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics(content.decode())}
    text, _ = render_metrics(store)
    stages = {one.labels["stage"]: one for one in families["hybridmed_job_stage_seconds"].samples if one.exemplar}

    assert media_type.startswith("application/openmetrics-text")
    assert stages["total"].labels["le"] == "5.0"
    assert stages["total"].exemplar.labels == {"trace_id": carrier["traceparent"].split("-")[1]}
    assert _value(families["hybridmed_score"].samples, "_bucket", name="bad", le="0.9") == 0
    assert _value(families["hybridmed_score"].samples, "_bucket", name="bad", le="1.0") == 1
    assert _value(families["hybridmed_outcomes"].samples, "_total", outcome="not_evaluable", code="projection") == 1
    assert {family.name for family in plain(text.decode())} >= {"hybridmed_job_stage_seconds", "hybridmed_score"}


def test_ages_tell_what_hangs(store: Store) -> None:
    """The oldest study that still arrives is as old as its last instance."""
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with store.write() as connection:
        add_study(connection, "1.2")
        connection.execute(sa.update(study).values(state="receiving", last_received_at=an_hour_ago))

    families = {family.name: family for family in plain(render_metrics(store)[0].decode())}
    age = _value(families["hybridmed_study_oldest_age_seconds"].samples, "", state="receiving")

    assert 3600 <= age < 3700


def _value(samples: list, suffix: str, **labels: str) -> float:  # type: ignore[type-arg]
    return next(one.value for one in samples if one.name.endswith(suffix) and labels.items() <= one.labels.items())


def _findings(probability: float) -> Findings:
    bad, good = ClassProbability("bad", CODE, probability), ClassProbability("good", CODE, 1 - probability)
    return Findings(ALGORITHM, "1.2.3", (), findings=(Finding("coarse", "coarse", CODE, bad, (bad, good)),))


def _claim() -> Claim:
    return Claim("j", "1.2", 1, "b", 1, "routine", (), 1, "w", datetime.now(UTC))
