"""`health`, `backup`, `restore`, `reindex`, `evidence`, `support`: what those who run it ask and do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.output import out, print_error, print_json, working
from gateway.config import load_settings
from gateway.errors import ConflictError
from gateway.wiring import describe_bundles, open_settings_store, operator_store

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root command."""
    for command in (health, backup, restore, reindex, evidence, support):
        app.command()(command)


def health(
    roles: Annotated[list[str] | None, typer.Argument(help="Roles that should run on this host.")] = None,
) -> None:
    """Say whether the roles of this host live, for a container's health check; exit code 1 where one does not."""
    from gateway.health import unwell

    settings = load_settings()
    store = open_settings_store(settings)
    try:
        problems = unwell(settings, store, roles or ())
    finally:
        store.close()
    for problem in problems:
        print_error("unwell:", problem)
    if problems:
        raise typer.Exit(1)
    out.print("well")


def backup(
    folder: Annotated[Path, typer.Argument(help="Where it goes; a folder of an earlier backup is brought up to date.")],
) -> None:
    """Write database and files into a folder, while the gateway runs."""
    from gateway.care.backup import back_up

    with operator_store() as store, working("backing up"):
        manifest = back_up(store, folder)
    rows = sum(count for count, _ in manifest.tables.values())
    out.print(f"{rows} rows of {len(manifest.tables)} tables and {len(manifest.files)} files in {folder}.")


def restore(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A backup.")],
    verify: Annotated[bool, typer.Option("--verify", help="Prove that it could be restored; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a backup into an empty database and data folder; exit code 1 where it has faults."""
    from gateway.care import backup as care

    if verify:
        with working("restoring into a database that is thrown away"):
            checked = care.verify(folder)
    else:
        store = open_settings_store(load_settings())
        try:
            with working("restoring"):
                checked = care.restore(store, folder)
        finally:
            store.close()
    if as_json:
        print_json(checked)
    else:
        for problem in checked.problems:
            print_error("fault:", problem)
        done = "can be restored" if verify else "restored"
        verdict = "has faults" if checked.problems else done
        out.print(f"{checked.rows} rows of {checked.tables} tables, {checked.files} files: {verdict}.")
    if checked.problems:
        raise typer.Exit(1)


def reindex(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be indexed, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Index instances on disk that no row names, as after a database was set back; their studies are evaluated."""
    from gateway.care import reindex as care

    with operator_store() as store, working("comparing files and rows"):
        files = list(care.unindexed(store))
        if not dry_run:
            care.put_back(store, files)
        names = [str(file.relative_to(store.data_dir)) for file in files]
    if as_json:
        print_json({"files": names, "handed_over": not dry_run})
        return
    for name in names if dry_run else ():
        out.print(name)
    became = "would be handed" if dry_run else "handed"
    found = f"{len(names)} instances that no row names, {became} to the receiver."
    out.print(found if names else "Every file has its row.")


def evidence(
    study_instance_uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    file: Annotated[Path, typer.Argument(help="Archive to write; it holds patient data.")],
) -> None:
    """Export everything about a study: rows, images, results, who did what, and digests of it all."""
    from gateway.care.evidence import export_evidence

    _require_new(file)
    with operator_store() as store, working("exporting"):
        count = export_evidence(store, study_instance_uid, file)
    out.print(f"{count} parts in {file}. It holds patient data.")


def support(
    file: Annotated[Path, typer.Argument(help="Archive to write; it holds no patient data.")],
    hours: Annotated[float, typer.Option(min=0.1, max=24 * 31, help="How far back.")] = 24,
) -> None:
    """Gather what those who help need to know: settings without secrets, states, times and versions."""
    from gateway.care.support import write_support
    from gateway.doctor import Examination, examine
    from gateway.web.metrics import render_metrics
    from gateway.wiring.queue import check_broker

    _require_new(file)
    settings = load_settings()
    with operator_store() as store, working("gathering"):
        looks = Examination(settings, store, lambda: check_broker(settings), lambda: describe_bundles(settings))
        more = {"doctor.json": lambda: list(examine(looks)), "metrics.txt": lambda: render_metrics(store)[0]}
        names = write_support(store, settings, datetime.now(UTC), hours, file, more)
    out.print(f"{', '.join(names)} in {file}.")


def _require_new(file: Path) -> None:
    if file.exists():
        raise ConflictError(f"{file} is there already")
