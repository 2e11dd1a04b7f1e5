"""`audit`: the audit trail, listed, verified, exported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from sqlalchemy.engine import Connection

from gateway.audit.acts import log_used, on_studies, operator, security_changed
from gateway.audit.codes import Code
from gateway.audit.dicom_xml import audit_message
from gateway.audit.event import Kind, decode
from gateway.audit.lines import LineFilter, all_lines, append, list_lines, verify
from gateway.cli.lists import AsJson, Limit
from gateway.cli.output import out, print_json, print_rows, working
from gateway.config import load_settings
from gateway.store import Store
from gateway.wiring import operator_store

audit_app = typer.Typer(help="Who did what: the audit trail.", no_args_is_help=True)
_URI = "hybridmed audit"

Since = Annotated[datetime | None, typer.Option(help="Only from this time on (UTC).")]
KindName = Annotated[str | None, typer.Option(help="Only this kind, such as instances-transferred or query.")]
Actor = Annotated[str | None, typer.Option(help="Only what this user or AE title asked for.")]
Study = Annotated[str | None, typer.Option(help="Only about this study.")]
Patient = Annotated[str | None, typer.Option(help="Only about this patient id.")]


def add_to(app: typer.Typer) -> None:
    """Add the group to the root command."""
    app.add_typer(audit_app, name="audit")


@audit_app.command("list")
def list_events(
    kind: KindName = None,
    actor: Actor = None,
    study: Study = None,
    patient: Patient = None,
    since: Since = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List events, the newest first. Patients' ids are shown: that the trail was read stands in it too."""
    with operator_store() as store:
        _tell_used(store)
        with store.read() as connection:
            lines = list_lines(connection, _filter(kind, actor, study, patient, since), limit=limit, newest_first=True)
    columns = [
        ("Line", lambda row: row.position),
        ("When", lambda row: row.recorded_at),
        ("What", lambda row: row.kind),
        ("Who", lambda row: row.actor),
        ("Patient id", lambda row: row.patient_id),
        ("Study Instance UID", lambda row: row.study_instance_uid),
    ]
    print_rows(lines, columns, as_json=as_json, empty="No event.")


@audit_app.command("verify")
def verify_chain(
    expect: Annotated[
        str | None, typer.Option(metavar="LINE:HASH", help="A line and its hash, as a verify of earlier printed them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Walk the hash chain; exit code 1 where a line was removed, altered, moved or added by hand."""
    from gateway.wiring.audit import chain_key

    with working("walking the chain"), operator_store() as store:
        with store.read() as connection:
            verdict = verify(connection, chain_key(load_settings()))
            position, _, wanted = (expect or "").partition(":")
            if expect and not (position.isdigit() and wanted):
                raise typer.BadParameter("expected LINE:HASH", param_hint="--expect")
            held = list_lines(connection, LineFilter(after=int(position) - 1), limit=1) if expect else []
        is_expected = not expect or (bool(held) and held[0].position == int(position) and held[0].hash == wanted)
        _tell_used(store)
    texts = [fault.text for fault in verdict.faults]
    if not is_expected:
        texts.append(f"line {position} is not the one that was expected: the chain was cut or made anew")
    if as_json:
        print_json({"lines": verdict.lines, "head": verdict.head, "faults": verdict.faults, "is_expected": is_expected})
    else:
        out.print("\n".join(texts) or f"{verdict.lines} lines, all in order; the last: {verdict.lines}:{verdict.head}")
    raise typer.Exit(1 if texts else 0)


@audit_app.command("export")
def export_events(
    to: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    xml: Annotated[bool, typer.Option("--xml", help="DICOM audit messages, one a line, instead of JSON.")] = False,
    kind: KindName = None,
    actor: Actor = None,
    study: Study = None,
    patient: Patient = None,
    since: Since = None,
) -> None:
    """Write events in the order of the chain, one a line, with their hashes."""
    from gateway.wiring.audit import audit_source

    source = audit_source(load_settings())
    target = sys.stdout.buffer if to is None else to.open("wb")
    try:
        with operator_store() as store:
            _tell_used(store)
            with store.read() as connection:
                for line in all_lines(connection, _filter(kind, actor, study, patient, since)):
                    row = audit_message(decode(line.body), source) if xml else orjson.dumps(line)
                    target.write(row + b"\n")
        target.flush()
    finally:
        if to is not None:
            target.close()


def note_acts(store: Store, study_instance_uids: Sequence[str], what: Code) -> None:
    """Record what the person at the command line did to studies."""
    from gateway.wiring.audit import note

    note(store, *on_studies(operator(), study_instance_uids, what, Kind.PROCEDURE_RECORD, "U"))


def note_change(connection: Connection, what: str) -> None:
    """Record, with the change and in its transaction, that somebody changed who may do what."""
    from gateway.wiring.audit import chain_key

    append(connection, [security_changed(operator(), what)], chain_key(load_settings()))


def _filter(
    kind: str | None, actor: str | None, study: str | None, patient: str | None, since: datetime | None
) -> LineFilter:
    aware = None if since is None else since.replace(tzinfo=since.tzinfo or UTC)
    return LineFilter(kind=kind, actor=actor, study_instance_uid=study, patient_id=patient, since=aware)


def _tell_used(store: Store) -> None:
    """Record that the trail is read (PS3.15 A.5.3.2), before it is."""
    from gateway.wiring.audit import note

    note(store, log_used(operator(), _URI))
