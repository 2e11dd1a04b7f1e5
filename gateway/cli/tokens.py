"""`tokens create|list|revoke`: bearer tokens of persons and programs for HTTP."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli.audit import note_change
from gateway.cli.lists import AsJson
from gateway.cli.output import err, out, print_json, print_rows
from gateway.wiring import operator_store

app = typer.Typer(help="Tokens by which persons and programs are known over HTTP.", no_args_is_help=True)


class _Role(StrEnum):
    """`gateway.config.access.RoleName`: lists of literals are beyond typer."""

    VIEWER = "viewer"
    VERIFIER = "verifier"
    OPERATOR = "operator"
    INTEGRATOR = "integrator"


_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_PERIOD = re.compile(r"(\d{1,5})([dhm])")
_LONGEST = timedelta(days=3660)
_NAME = re.compile(r"[^\W_][\w .,'^@+-]{0,63}")


def add_to(root: typer.Typer) -> None:
    """Add the group to the root command."""
    root.add_typer(app, name="tokens")


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="Whose: it stands in the audit trail and, of a verifier, in reports.")],
    roles: Annotated[
        list[_Role] | None, typer.Option("--role", help="What it may do; may stand more than once.")
    ] = None,
    expires: Annotated[str, typer.Option(help="How long it holds: 90d, 12h, 30m.")] = "90d",
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="A SMART scope, as system/DiagnosticReport.rs: /fhir alone.")
    ] = None,
    patient: Annotated[str | None, typer.Option(help="FHIR id of the one patient that it sees.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once: only its digest is kept."""
    from gateway.store.access import Grant, add_token, new_token

    now = datetime.now(UTC)
    token = new_token("token")
    grant = Grant(
        kind="token",
        name=token_name(name),
        roles=sorted({role.value for role in roles or ()}),
        scopes=_scopes(scopes or (), roles or (), patient),
        patient=patient,
        expires_at=now + period(expires),
    )
    with operator_store() as store, store.write() as connection:
        add_token(connection, token, grant, now)
        note_change(connection, f"token {grant.name}: {' '.join((*grant.roles, *(grant.scopes or ())))}")
    if as_json:
        print_json({"name": grant.name, "token": token, "expires_at": grant.expires_at})
        return
    out.print(token)
    err.print(f"Keep it now: it is shown this once. It holds until {grant.expires_at.astimezone():%Y-%m-%d %H:%M}.")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the tokens, the newest first; the tokens themselves are not kept."""
    from gateway.store.access import list_tokens

    now = datetime.now(UTC)
    with operator_store() as store, store.read() as connection:
        rows = list_tokens(connection)
    columns = (
        ("name", lambda row: row.name),
        ("roles", lambda row: row.roles),
        ("scopes", lambda row: row.scopes),
        ("patient", lambda row: row.patient),
        ("expires", lambda row: row.expires_at),
        ("last used", lambda row: row.last_used_at),
        ("state", lambda row: "revoked" if row.revoked_at else "over" if row.expires_at <= now else "in use"),
    )
    print_rows(rows, columns, as_json=as_json, empty="No tokens: hybridmed tokens create.")


@app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="As in the list.")]) -> None:
    """End a token, and the sessions that it opened, within a few seconds."""
    from gateway.store.access import revoke_token

    with operator_store() as store, store.write() as connection:
        revoke_token(connection, name, datetime.now(UTC))
        note_change(connection, f"token {name}: revoked")
    out.print(f"The token {name} is revoked.")


def period(text: str) -> timedelta:
    """Return how long `90d`, `12h` or `30m` is."""
    found = _PERIOD.fullmatch(text.strip())
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < length <= _LONGEST:
        raise typer.BadParameter(f"{text}: expected a time such as 90d, 12h or 30m, ten years at most")
    return length


def token_name(text: str) -> str:
    """Return a name as it is kept; it stands in tables, logs and DICOM objects."""
    if _NAME.fullmatch(text.strip()) is None:
        raise typer.BadParameter(f"{text!r}: a name has up to 64 letters, digits and . , ' ^ @ + - and blanks")
    return text.strip()


def checked_scopes(scopes: list[str] | tuple[str, ...]) -> list[str]:
    """Return scopes; a word that is none is named."""
    from gateway.scope import parse_scope

    for each in scopes:
        if parse_scope(each) is None:
            raise typer.BadParameter(
                f"{each}: expected a SMART scope such as system/DiagnosticReport.rs or patient/*.read"
            )
    return sorted(set(scopes))


def _scopes(
    scopes: list[str] | tuple[str, ...], roles: list[_Role] | tuple[str, ...], patient: str | None
) -> list[str] | None:
    if not roles and not scopes:
        raise typer.BadParameter("give --role, --scope or both")
    found = checked_scopes(scopes)
    if patient is None and any(each.startswith("patient/") for each in found):
        raise typer.BadParameter("a scope patient/… needs --patient: whose resources")
    if patient is not None and not found:
        raise typer.BadParameter("--patient needs --scope patient/…: a role alone sees all patients")
    return found or None
