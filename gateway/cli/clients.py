"""`clients register|list|revoke`: programs that prove themselves by their key (SMART Backend Services)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from gateway.cli.audit import note_change
from gateway.cli.lists import AsJson
from gateway.cli.output import out, print_rows
from gateway.cli.tokens import checked_scopes, token_name
from gateway.errors import ConfigurationError
from gateway.wiring import operator_store

app = typer.Typer(help="Registered clients of SMART Backend Services.", no_args_is_help=True)

_LARGEST_FILE = 1 << 18


def add_to(root: typer.Typer) -> None:
    """Add the group to the root command."""
    root.add_typer(app, name="clients")


@app.command("register")
def register(
    client_id: Annotated[str, typer.Argument(help="What the client calls itself (client_id).")],
    scopes: Annotated[list[str], typer.Option("--scope", help="The most that it gets; may stand more than once.")],
    jwks: Annotated[Path | None, typer.Option(help="File with its public keys, a JSON Web Key Set.")] = None,
    jwks_url: Annotated[str | None, typer.Option(help="Address of its key set, which it may renew there.")] = None,
    name: Annotated[str | None, typer.Option(help="For people; the id by default.")] = None,
    patient: Annotated[str | None, typer.Option(help="FHIR id of the one patient that it sees.")] = None,
) -> None:
    """Register a client; it gets its access tokens at /oauth/token."""
    from gateway.store.access_clients import SmartClient, add_client
    from gateway.web.access.keys import require_safe

    if (jwks is None) == (jwks_url is None):
        raise typer.BadParameter("give --jwks or --jwks-url, not both")
    if jwks_url is not None:
        require_safe(jwks_url)
    found = checked_scopes(scopes)
    if patient is None and any(each.startswith("patient/") for each in found):
        raise typer.BadParameter("a scope patient/… needs --patient: whose resources")
    client = SmartClient(
        id=token_name(client_id),
        name=token_name(name or client_id),
        scopes=found,
        patient=patient,
        jwks=None if jwks is None else _read_keys(jwks),
        jwks_url=jwks_url,
        created_at=datetime.now(UTC),
    )
    with operator_store() as store, store.write() as connection:
        add_client(connection, client)
        note_change(connection, f"client {client.id}: registered")
    out.print(f"The client {client.id} is registered.")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the clients."""
    from gateway.store.access_clients import list_clients

    with operator_store() as store, store.read() as connection:
        rows = list_clients(connection)
    columns = (
        ("id", lambda row: row.id),
        ("name", lambda row: row.name),
        ("scopes", lambda row: row.scopes),
        ("patient", lambda row: row.patient),
        ("keys", lambda row: row.jwks_url or "registered"),
        ("since", lambda row: row.created_at),
        ("state", lambda row: "revoked" if row.revoked_at else "registered"),
    )
    print_rows(rows, columns, as_json=as_json, empty="No clients: hybridmed clients register.")


@app.command("revoke")
def revoke(client_id: Annotated[str, typer.Argument(help="As in the list.")]) -> None:
    """End a client and the tokens that it has, within a few seconds; its id is not given again."""
    from gateway.store.access_clients import revoke_client

    with operator_store() as store, store.write() as connection:
        revoke_client(connection, client_id, datetime.now(UTC))
        note_change(connection, f"client {client_id}: revoked")
    out.print(f"The client {client_id} is revoked.")


def _read_keys(file: Path) -> dict[str, Any]:
    from gateway.web.access.keys import public_keys

    try:
        content = orjson.loads(file.read_bytes()[:_LARGEST_FILE])
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigurationError(f"{file} holds no JSON that could be read: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} holds no JSON object")
    public_keys(content)
    return content
