"""`privacy who`: from a pseudonym back to the patient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.lists import AsJson
from gateway.cli.output import print_record, working
from gateway.config import load_settings
from gateway.errors import NotFoundError
from gateway.wiring import operator_store

app = typer.Typer(help="What left without the patient.", no_args_is_help=True)


def add_to(root: typer.Typer) -> None:
    """Add the group to the root command."""
    root.add_typer(app, name="privacy")


@app.callback()
def _group() -> None:
    """Keep `who` a command of its own beside those to come."""


@app.command("who")
def who(
    pseudonym: Annotated[str, typer.Argument(help="A pseudonymous patient id, UID or FHIR id.")],
    key: Annotated[
        Path | None, typer.Option(help="File with the pseudonyms' key; pseudonym-key in the data folder without it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whom a pseudonym stands for; who asked for which stands in the audit trail."""
    from gateway.audit.acts import operator, reidentified
    from gateway.exchange.deidentified import KEY_FILE, KeyedPseudonyms, read_key
    from gateway.privacy.reidentify import identify
    from gateway.wiring.audit import note

    settings = load_settings()
    pseudonyms = KeyedPseudonyms(read_key(key or settings.data_dir / KEY_FILE))
    with operator_store() as store:
        with working("looking through what is stored"), store.read() as connection:
            found = identify(connection, pseudonym, pseudonyms)
        patient_id, uids = (found.patient_id, found.study_instance_uids) if found else ("", ())
        note(store, reidentified(operator(), pseudonym, patient_id, uids))
    if found is None:
        raise NotFoundError("nothing that is stored has this pseudonym: it is gone, or the key is another")
    print_record(found, as_json=as_json)
