"""`serve`, `send`, `reprocess`, `demo`, `db`, `doctor`."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.progress import track
from rich.text import Text

from gateway.audit import codes
from gateway.cli.audit import note_acts
from gateway.cli.output import err, out, print_error, print_json, print_rows, working
from gateway.config import DicomAddress, Settings, load_settings
from gateway.errors import ConfigurationError, DatabaseAwayError, NotFoundError
from gateway.log import configure_logging
from gateway.store import schema
from gateway.store.studies import StudyFilter
from gateway.supervisor import ROLES, Supervisor, is_supervised, role_command, run_role
from gateway.wiring import build_role, describe_bundles, open_settings_store, operator_store

if TYPE_CHECKING:
    from gateway.doctor import Check

log = structlog.get_logger()
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

db_app = typer.Typer(help="The database.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root command."""
    for command in (demo, serve, send, reprocess, doctor):
        app.command()(command)
    app.add_typer(db_app, name="db")


def serve(
    only: Annotated[str | None, typer.Option(help=f"Comma-separated roles of: {', '.join(ROLES)}.")] = None,
) -> None:
    """Run the gateway: all roles as processes, or the roles named; SIGTERM finishes what is in hand."""
    roles = _roles(only)
    settings = load_settings()
    role = roles[0] if len(roles) == 1 else "serve"
    configure_logging(settings.log_format, settings.log_level, role)
    counts = {"web": settings.web_process_count, "receive": settings.receive_processes}
    processes = [each for each in roles for _ in range(counts.get(each, 1))]
    if len(processes) == 1 or (len(roles) == 1 and is_supervised()):
        run_role(build_role(roles[0], settings))
        return
    _require_schema(settings)
    _require_free_ports(settings, roles)
    log.info("serve.start", roles=list(roles), dicom=f"{settings.ae_title}@{settings.bind}:{settings.dicom_port}")
    raise typer.Exit(Supervisor(processes, role_command(), settings.silence_limit_s).run())


def send(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Files and folders.")],
    to: Annotated[str | None, typer.Option(help="AET@host:port; this gateway without it.")] = None,
    calling_ae: Annotated[str, typer.Option("--from", help="Our AE title.")] = "HYBRIDMED",
    as_json: AsJson = False,
) -> None:
    """Send DICOM files by C-STORE; exit code 1 where one was refused."""
    from gateway.sending import dicom_files, send_files

    files = dicom_files(paths)
    if not files:
        raise NotFoundError("no DICOM file in what was named")
    address = _address(to)
    outcomes = [
        outcome for outcome in track(send_files(address, calling_ae, files), "sending", total=len(files), console=err)
    ]
    refused = [outcome for outcome in outcomes if not outcome.is_stored]
    if as_json:
        print_json({"sent": len(outcomes) - len(refused), "refused": refused})
    else:
        for outcome in refused:
            print_error("refused:", f"{outcome.path}: {outcome.reason}")
        out.print(f"{len(outcomes) - len(refused)} of {len(outcomes)} instances stored.")
    if refused:
        raise typer.Exit(1)


def reprocess(
    studies: Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Run this bundle; what the routing chooses without it.")] = None,
    modality: Annotated[str | None, typer.Option(help="All studies with a series of this modality.")] = None,
    since: Annotated[datetime | None, typer.Option(help="All studies received since.", formats=_TIMES)] = None,
    until: Annotated[datetime | None, typer.Option(help="Only studies received before.", formats=_TIMES)] = None,
    stat: Annotated[bool, typer.Option("--stat", help="Before routine work.")] = False,
    as_json: AsJson = False,
) -> None:
    """Process studies again, each result a new revision; exit code 1 where a study named got no job."""
    if not studies and modality is None and since is None:
        raise typer.BadParameter("name studies, --modality or --since")
    from gateway.reprocess import Request
    from gateway.reprocess import reprocess as reprocess_studies
    from gateway.wiring.dispatch import build_router

    settings = load_settings()
    request = Request(
        StudyFilter(
            uids=tuple(studies) if studies else None,
            modality=modality,
            received_since=since.astimezone(UTC) if since else None,
            received_before=until.astimezone(UTC) if until else None,
        ),
        bundle=bundle,
        priority="stat" if stat else "routine",
    )
    with operator_store() as store:
        total, made = reprocess_studies(store, build_router(settings, store), request, datetime.now(UTC))
        rows = list(track(made, "reprocessing", total=total, console=err, transient=True))
        note_acts(store, [row.study_instance_uid for row in rows if row.job_ids], codes.REPROCESSING)
    columns = [
        ("Study Instance UID", lambda row: row.study_instance_uid),
        ("Jobs", lambda row: row.job_ids),
        ("Why not", lambda row: row.reason),
    ]
    print_rows(rows, columns, as_json=as_json, empty="No study matches.")
    if not rows:
        raise typer.Exit(NotFoundError.exit_code)
    if studies and not all(row.job_ids for row in rows):
        raise typer.Exit(1)


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demonstration keeps its data.")] = Path("hybridmed-demo"),
    keep: Annotated[bool | None, typer.Option("--keep/--exit", help="Go on serving afterwards, until Ctrl-C.")] = None,
) -> None:
    """Send three sample chest X-rays through a gateway of its own, and show what it found."""
    from gateway import demo as demonstration

    demonstration.run(folder, keep=keep, out=out)


def doctor(as_json: AsJson = False) -> None:
    """Check every part and say what to do; exit code 1 where a part has failed."""
    with working("checking every part"):
        checks = _examine(load_settings())
    colour = {"ok": "green", "warning": "yellow", "failed": "red"}
    columns = [
        ("Part", lambda check: check.part),
        ("", lambda check: Text(check.verdict, style=colour[check.verdict])),
        ("Found", lambda check: check.found),
        ("Do", lambda check: check.advice),
    ]
    print_rows(checks, columns, as_json=as_json, empty="-")
    if any(check.verdict == "failed" for check in checks):
        raise typer.Exit(1)


@db_app.command("upgrade")
def upgrade_database() -> None:
    """Bring the database's schema up to this program."""
    store = open_settings_store(load_settings())
    try:
        before = schema.current_revision(store)
        with working("upgrading the database"):
            schema.upgrade(store)
        out.print(f"Schema {before or 'none'} -> {schema.current_revision(store)}.")
    finally:
        store.close()


def _examine(settings: Settings) -> list[Check]:
    from gateway.doctor import Check, Examination, examine
    from gateway.wiring.queue import check_broker

    try:
        store = open_settings_store(settings)
    except ConfigurationError as error:
        return [Check("data folder and database", "failed", str(error), "correct that: the other checks stand on it")]
    try:
        return list(
            examine(Examination(settings, store, lambda: check_broker(settings), lambda: describe_bundles(settings)))
        )
    finally:
        store.close()


def _roles(only: str | None) -> tuple[str, ...]:
    if only is None:
        return ROLES
    wanted = {role.strip() for role in only.split(",") if role.strip()}
    unknown = wanted - set(ROLES)
    if unknown or not wanted:
        raise typer.BadParameter(f"{', '.join(sorted(unknown)) or only!r}: roles are {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in wanted)


def _address(to: str | None) -> DicomAddress:
    settings = load_settings()
    if to is None:
        return DicomAddress(settings.ae_title, settings.bind, settings.dicom_port)
    try:
        address = DicomAddress.parse(to)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--to") from error
    if address.ae_title in settings.research_aes:
        raise ConfigurationError(f"{address.ae_title} takes objects without the patient; files would go as they are")
    return address


def _require_schema(settings: Settings) -> None:
    """Apply or ask for migrations before any role starts; a database that is away is the roles' own business."""
    store = open_settings_store(settings)
    try:
        schema.require_current(store)
    except DatabaseAwayError as error:
        log.warning("serve.database_away", reason=str(error))
    finally:
        store.close()


def _require_free_ports(settings: Settings, roles: tuple[str, ...]) -> None:
    wanted = (
        ("receive", settings.dicom_port, "HYBRIDMED_DICOM_PORT"),
        ("web", settings.http_port, "HYBRIDMED_HTTP_PORT"),
    )
    for role, port, name in wanted:
        if role in roles and not is_free(settings.bind, port):
            raise ConfigurationError(f"port {port} of {settings.bind} is taken by another program: set {name}")


def is_free(host: str, port: int) -> bool:
    """Say whether a TCP port can be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
