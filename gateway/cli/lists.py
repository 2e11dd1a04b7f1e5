"""`studies`, `jobs`, `dead`, `deliveries`, `services`: what there is, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gateway.cli.output import out, print_heading, print_json, print_record, print_rows, working
from gateway.errors import GatewayError, NotFoundError
from gateway.job import State
from gateway.services import gone_before
from gateway.store import Store, deliveries, demographics, jobs, quarantine, results, services, studies
from gateway.wiring import operator_store

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many rows, the newest first.")]

studies_app = typer.Typer(help="Studies received, and what became of them.", no_args_is_help=True)
jobs_app = typer.Typer(help="Jobs: one bundle over one study.", no_args_is_help=True)
dead_app = typer.Typer(help="What could not be processed, with the reason.", no_args_is_help=True)
deliveries_app = typer.Typer(help="Results on their way to destinations.", no_args_is_help=True)
services_app = typer.Typer(help="Roles that run, on all hosts.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the groups to the root command."""
    app.add_typer(studies_app, name="studies")
    app.add_typer(jobs_app, name="jobs")
    app.add_typer(dead_app, name="dead")
    app.add_typer(deliveries_app, name="deliveries")
    app.add_typer(services_app, name="services")


@studies_app.command("list")
def list_studies(
    state: Annotated[studies.StudyState | None, typer.Option(help="Only this state.")] = None,
    modality: Annotated[str | None, typer.Option(help="With a series of this modality.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List studies, the last received first."""
    which = studies.StudyFilter(state=state, modality=modality)
    with operator_store() as store, store.read() as connection:
        rows = studies.list_studies(connection, which, limit=limit)
    columns = [
        ("Study Instance UID", lambda row: row.study_instance_uid),
        ("State", lambda row: row.state),
        ("Rev.", lambda row: row.revision),
        ("From", lambda row: row.calling_ae),
        ("Last instance", lambda row: row.last_received_at),
        ("Description", lambda row: row.study_description),
        ("Why", lambda row: row.state_reason),
    ]
    print_rows(rows, columns, as_json=as_json, empty="No study. Point a C-STORE at us, or run `hybridmed demo`.")


@studies_app.command("show")
def show_study(study_instance_uid: str, as_json: AsJson = False) -> None:
    """Show a study with its series, jobs and results."""
    with operator_store() as store, store.read() as connection:
        found = studies.get_study(connection, study_instance_uid)
        series = studies.list_series(connection, study_instance_uid)
        its_jobs = jobs.list_jobs(connection, jobs.JobFilter(study_instance_uid=study_instance_uid), limit=1000)
        artefacts = {row.id: results.list_artefacts(connection, row.id) for row in its_jobs}
        issue = demographics.issue_of_study(connection, study_instance_uid)
    record = {**asdict(found), "series": series, "jobs": its_jobs, "artefacts": artefacts, "demographics": issue}
    if as_json:
        print_json(record)
        return
    print_record(found, as_json=False)
    if issue is not None:
        print_heading("Demographics")
        out.print(f"{issue.source} says otherwise than the images: {', '.join(issue.elements)}")
    print_heading("Series")
    print_rows(series, _SERIES_COLUMNS, as_json=False, empty="-")
    print_heading("Jobs")
    print_rows(its_jobs, _JOB_COLUMNS, as_json=False, empty="None.")
    for job_id, of_job in artefacts.items():
        if of_job:
            print_heading(f"Results of {job_id}")
            print_rows(of_job, _ARTEFACT_COLUMNS, as_json=False, empty="-")


@jobs_app.command("list")
def list_jobs(
    state: Annotated[list[State] | None, typer.Option(help="Only these states.")] = None,
    study: Annotated[str | None, typer.Option(help="Only of this study.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Only of this bundle.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    which = jobs.JobFilter(states=tuple(state or ()), study_instance_uid=study, bundle=bundle)
    with operator_store() as store, store.read() as connection:
        rows = jobs.list_jobs(connection, which, limit=limit)
    print_rows(rows, _JOB_COLUMNS, as_json=as_json, empty="No job.")


@jobs_app.command("show")
def show_job(job_id: str, as_json: AsJson = False) -> None:
    """Show a job, with its findings and artefacts."""
    with operator_store() as store, store.read() as connection:
        row = jobs.get_job(connection, job_id)
        artefacts = results.list_artefacts(connection, job_id)
    print_record({**asdict(row), "artefacts": [asdict(each) for each in artefacts]}, as_json=as_json)


@jobs_app.command("cancel")
def cancel_job(job_id: str) -> None:
    """Cancel a job that has not ended; what it made is dropped."""
    with operator_store() as store, store.write() as connection:
        jobs.cancel(connection, job_id, datetime.now(UTC))
    out.print(f"Cancelled {job_id}.")


@dead_app.command("list")
def list_dead(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List jobs given up and files that could not be indexed."""
    with operator_store() as store, store.read() as connection:
        dead = jobs.list_dead(connection, limit=limit)
        quarantined = quarantine.list_quarantined(connection, limit=limit)
    rows: Sequence[Mapping[str, Any]] = [
        *({"kind": "job", "id": row.id, "at": row.finished_at, "of": row.bundle, "reason": row.reason} for row in dead),
        *(
            {"kind": "file", "id": row.path, "at": row.quarantined_at, "of": row.calling_ae, "reason": row.reason}
            for row in quarantined
        ),
    ]
    columns = [(name.capitalize(), _field(name)) for name in ("kind", "id", "at", "of", "reason")]
    print_rows(rows, columns, as_json=as_json, empty="Nothing is dead.")


@dead_app.command("retry")
def retry_dead(
    names: Annotated[list[str] | None, typer.Argument(help="Jobs and files, as `dead list` names them.")] = None,
    retry_all: Annotated[bool, typer.Option("--all", help="All dead jobs.")] = False,
) -> None:
    """Queue dead jobs again, with all their tries; hand quarantined files to the receiver again."""
    if bool(names) == retry_all:
        raise typer.BadParameter("name jobs and files, or say --all")
    now = datetime.now(UTC)
    refused = 0
    with operator_store() as store:
        with store.read() as connection:
            wanted = names or [row.id for row in jobs.list_dead(connection, limit=100_000)]
        for name in wanted:
            try:
                with working(f"trying {name}"):
                    said = _retry_one(store, name, now)
            except NotFoundError:
                raise
            except GatewayError as error:
                refused += 1
                said = f"Left {name}: {error}"
            out.print(said, highlight=False)
    if refused:
        raise typer.Exit(1)


def _retry_one(store: Store, name: str, now: datetime) -> str:
    if not name.startswith(quarantine.FOLDER):
        with store.write() as connection:
            jobs.retry_dead(connection, name, now)
        return f"Queued {name}."
    from gateway.quarantine import put_back

    put_back(store, name)
    return f"Put {name} back: a receiver indexes it within a minute, or at its next start."


@dead_app.command("discard")
def discard_dead(
    names: Annotated[list[str], typer.Argument(help="Files, as `dead list` names them.")],
) -> None:
    """Remove quarantined files for good, such as what a power cut left of instances never answered with success."""
    from gateway.quarantine import discard

    with operator_store() as store:
        for name in names:
            discard(store, name)
            out.print(f"Removed {name}.", highlight=False)


@deliveries_app.command("list")
def list_deliveries(
    state: Annotated[deliveries.DeliveryState | None, typer.Option(help="Only this state.")] = None,
    destination: Annotated[str | None, typer.Option(help="Only to this destination.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List deliveries, the newest first."""
    which = deliveries.DeliveryFilter(states=(state,) if state else (), destination=destination)
    with operator_store() as store, store.read() as connection:
        rows = deliveries.list_deliveries(connection, which, limit=limit)
    columns = [
        ("Id", _attribute("id")),
        ("Destination", _attribute("destination")),
        ("State", _attribute("state")),
        ("Tries", _attribute("attempts")),
        ("Job", _attribute("job_id")),
        ("Next try", lambda row: row.available_at if row.state == "waiting" else None),
        ("Why", _attribute("reason")),
    ]
    print_rows(rows, columns, as_json=as_json, empty="No delivery: no result yet, or no HYBRIDMED_DESTINATIONS.")


@deliveries_app.command("retry")
def retry_deliveries(
    ids: Annotated[list[int] | None, typer.Argument(help="Deliveries to try again.")] = None,
    retry_all: Annotated[bool, typer.Option("--all", help="All failed deliveries.")] = False,
) -> None:
    """Try failed deliveries again."""
    if bool(ids) == retry_all:
        raise typer.BadParameter("name deliveries, or say --all")
    with operator_store() as store, store.write() as connection:
        count = deliveries.retry_failed(connection, datetime.now(UTC), ids=ids or None)
    out.print(f"{count} deliveries wait again.")


@services_app.command("list")
def list_services(as_json: AsJson = False) -> None:
    """List the roles that beat."""
    with operator_store() as store, store.read() as connection:
        rows = services.list_services(connection, gone_before(datetime.now(UTC)))
    columns = [(name.capitalize(), _attribute(name)) for name in ("role", "host", "pid", "state", "reason", "seen_at")]
    print_rows(rows, columns, as_json=as_json, empty="No role runs: hybridmed serve")


def _attribute(name: str) -> Any:
    return lambda row: getattr(row, name)


def _field(name: str) -> Any:
    return lambda row: row[name]


_SERIES_COLUMNS = [
    ("Series Instance UID", _attribute("series_instance_uid")),
    ("Modality", _attribute("modality")),
    ("Instances", _attribute("instance_count")),
    ("Body part", _attribute("body_part")),
    ("Description", _attribute("series_description")),
]
_JOB_COLUMNS = [
    ("Job", _attribute("id")),
    ("State", _attribute("state")),
    ("Bundle", _attribute("bundle")),
    ("Rev.", _attribute("revision")),
    ("Priority", _attribute("priority")),
    ("Tries", _attribute("attempts")),
    ("Made", _attribute("created_at")),
    ("Why", _attribute("reason")),
]
_ARTEFACT_COLUMNS = [
    ("Kind", _attribute("kind")),
    ("SOP Instance UID", _attribute("sop_instance_uid")),
    ("Bytes", _attribute("size_bytes")),
    ("File", _attribute("path")),
]
