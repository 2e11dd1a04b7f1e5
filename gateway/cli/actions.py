"""`verify`, `studies stat`, `deliveries resend`: what a person may do to results, from the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.audit import codes
from gateway.cli import lists
from gateway.cli.audit import note_acts
from gateway.cli.output import out, print_json, working
from gateway.errors import ConflictError
from gateway.store.deliveries import resend
from gateway.store.urgency import raise_to_stat
from gateway.store.verifications import standing_jobs
from gateway.verification.verdict import Action, read_verdict
from gateway.wiring import operator_store


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root command and to the groups of the lists."""
    app.command("verify")(verify)
    lists.studies_app.command("stat")(stat)
    lists.deliveries_app.command("resend")(resend_studies)


def verify(
    action: Annotated[Action, typer.Argument(help="What is said of the results.")],
    job_id: Annotated[str, typer.Argument(help="The newest job of its study and bundle: `studies show`.")],
    observer: Annotated[str, typer.Option(help="Who says it, as 'Family Given' or 'Family^Given'.")],
    organisation: Annotated[str, typer.Option(help="Where the person works.")] = "",
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    answers: Annotated[
        list[str] | None, typer.Option("--class", metavar="FINDING=CLASS", help="Another answer, as fine=viral.")
    ] = None,
    removed: Annotated[list[int] | None, typer.Option("--remove", help="Number of a segment that is wrong.")] = None,
    outcome: Annotated[int, typer.Option(min=0, help="Which outcome of the job the corrections are about.")] = 0,
    as_json: lists.AsJson = False,
) -> None:
    """Accept, correct or reject results: the report becomes final, amended or entered-in-error."""
    fields = {"job_id": job_id, "action": action, "observer": observer, "organisation": organisation}
    fields["comment"] = comment
    for each in answers or ():
        finding, is_pair, name = each.partition("=")
        if not is_pair:
            raise typer.BadParameter(f"{each}: expected FINDING=CLASS", param_hint="--class")
        fields[f"class:{outcome}:{finding}"] = name
    fields |= {f"remove:{outcome}:{number}": "1" for number in removed or ()}
    verdict = read_verdict(fields)
    with working("verifying"), operator_store() as store:
        from gateway.config import load_settings
        from gateway.wiring.verification import build_verifier

        made = build_verifier(store, load_settings()).verify(verdict)
        note_acts(store, [made.study_instance_uid], codes.VERIFICATION)
    if as_json:
        print_json({"job_id": made.job_id, "study_instance_uid": made.study_instance_uid, "is_new": made.is_new})
    else:
        out.print(f"Job {made.job_id} holds the verified results." if made.is_new else "The same was said before.")


def stat(study_instance_uids: Annotated[list[str], typer.Argument(help="Studies.")]) -> None:
    """Raise studies to STAT, with their jobs that wait."""
    now = datetime.now(UTC)
    with operator_store() as store, store.write() as connection:
        count = sum(raise_to_stat(connection, uid, now) for uid in sorted(study_instance_uids))
    out.print(f"STAT: {len(study_instance_uids)} studies, {count} jobs that wait.")


def resend_studies(
    study_instance_uids: Annotated[list[str], typer.Argument(help="Studies.")],
    to: Annotated[str | None, typer.Option(help="Only to this destination.")] = None,
) -> None:
    """Send the results of studies again, also where they were delivered."""
    with operator_store() as store, store.write() as connection:
        ids = [job_id for uid in study_instance_uids for job_id in standing_jobs(connection, uid)]
        count = resend(connection, ids, datetime.now(UTC), to)
    if count == 0:
        raise ConflictError("nothing was sent yet: what waits is sent by itself")
    out.print(f"{count} deliveries will be made again.")
