"""The root command; errors become one sentence and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import gateway
from gateway.cli import actions, audit, bundles, clients, lists, operate, privacy, purge, running, tokens, viewer
from gateway.cli.output import out, print_error
from gateway.errors import GatewayError
from gateway.log import configure_logging

app = typer.Typer(
    help="HybridMed Gateway: studies in by C-STORE, AI results out as DICOM SR, SEG and FHIR.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
running.add_to(app)
lists.add_to(app)
bundles.add_to(app)
viewer.add_to(app)
actions.add_to(app)
operate.add_to(app)
audit.add_to(app)
purge.add_to(app)
privacy.add_to(app)
tokens.add_to(app)
clients.add_to(app)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        out.print(gateway.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of the root command; the version's callback has answered by now."""


def main() -> None:
    """Run the command line; the exit code tells what kind of failure it was."""
    configure_logging(level="WARNING")  # to standard error, so that standard output is the answer alone
    try:
        typer.main.get_command(app)()  # not app(): that would put a traceback with messages back in place
    except GatewayError as error:
        print_error("hybridmed:", error)
        sys.exit(error.exit_code)
