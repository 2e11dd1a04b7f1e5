"""`purge`, `studies hold`, `studies release`: what is removed, and what is kept whatever the rules say."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.audit import codes
from gateway.audit.acts import operator
from gateway.cli import lists
from gateway.cli.audit import note_acts
from gateway.cli.output import out, print_rows, working
from gateway.config import load_settings
from gateway.wiring import operator_store

_MIB = 1 << 20


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root command and to the group `studies`."""
    app.command("purge")(purge)
    lists.studies_app.command("hold")(hold_studies)
    lists.studies_app.command("release")(release_studies)


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: lists.AsJson = False,
) -> None:
    """Remove the studies that the rules under [retention] want removed; say which, why, and which stay all the same."""
    from gateway.retention.purge import Purge
    from gateway.wiring.audit import chain_key

    settings = load_settings()
    now = datetime.now(UTC)
    with operator_store() as store, working("looking"):
        work = Purge(store, settings.retention, chain_key(settings))
        work.count(threading.Event(), anew=True)  # in a dry run, too: a tally that is stale would plan otherwise
        decisions = work.plan(now)
        gone = set()
        if not dry_run:
            gone = {one.study_instance_uid for one in work.run(decisions, operator(), now)}
            work.remove_files(now)

    def became(uid: str, *, goes: bool) -> str:
        if not goes:
            return "stays"
        return "would go" if dry_run else "removed" if uid in gone else "has work again"

    rows = [
        {
            "study_instance_uid": one.study_instance_uid,
            "last_received_at": one.last_received_at,
            "size_bytes": one.size_bytes,
            "reason": one.reason,
            "outcome": became(one.study_instance_uid, goes=one.goes),
            "kept_by": one.blockers,
        }
        for one in decisions
    ]
    columns = [
        ("Study Instance UID", lambda row: row["study_instance_uid"]),
        ("Last instance", lambda row: row["last_received_at"]),
        ("MiB", lambda row: f"{row['size_bytes'] / _MIB:.1f}"),
        ("Rule", lambda row: row["reason"]),
        ("Outcome", lambda row: row["outcome"]),
        ("Kept by", lambda row: row["kept_by"]),
    ]
    print_rows(rows, columns, as_json=as_json, empty="Nothing has had its time.")


def hold_studies(
    study_instance_uids: Annotated[list[str], typer.Argument(help="Studies.")],
    reason: Annotated[str, typer.Option(help="Why, for those who find it held.")] = "",
) -> None:
    """Keep studies whatever the rules of retention say."""
    from gateway.store.retention import hold

    who, now = operator(), datetime.now(UTC)
    with operator_store() as store:
        with store.write() as connection:
            for uid in sorted(study_instance_uids):
                hold(connection, uid, who.user_id, reason, now)
        note_acts(store, study_instance_uids, codes.HOLD)
    out.print(f"Held: {len(study_instance_uids)} studies.")


def release_studies(study_instance_uids: Annotated[list[str], typer.Argument(help="Studies.")]) -> None:
    """Let the rules of retention decide about studies again."""
    from gateway.store.retention import release

    with operator_store() as store:
        with store.write() as connection:
            for uid in sorted(study_instance_uids):
                release(connection, uid)
        note_acts(store, study_instance_uids, codes.RELEASE)
    out.print(f"Released: {len(study_instance_uids)} studies.")
