"""`viewer`: bring OHIF, the viewer that the gateway serves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.output import out, print_record, working
from gateway.config import load_settings
from gateway.viewer import PACKAGE, VERSION, Installed, fetch_package, install, installed_folder, viewer_installed

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_MIB = 1 << 20

viewer_app = typer.Typer(help="The viewer (OHIF) under /viewer.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the group to the root command."""
    app.add_typer(viewer_app, name="viewer")


@viewer_app.command("install")
def install_viewer(
    package: Annotated[
        Path | None, typer.Option("--from", dir_okay=False, help="The package file; fetched with npm without it.")
    ] = None,
) -> None:
    """Fetch OHIF from the npm registry, check its digest and unpack it; does nothing where it is there."""
    viewer_dir = load_settings().viewer_folder
    if package is None and viewer_installed(viewer_dir):
        out.print(f"OHIF {VERSION} is there already: {installed_folder(viewer_dir)}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        if package is None:
            with working(f"fetching {PACKAGE} {VERSION}"):
                package = fetch_package(Path(scratch))
        with working(f"unpacking {package.name}"):
            _say(install(package, viewer_dir))


@viewer_app.command("show")
def show_viewer(as_json: AsJson = False) -> None:
    """Show which viewer belongs to this version, where it lies and whether it is there."""
    viewer_dir = load_settings().viewer_folder
    record = {
        "package": PACKAGE,
        "version": VERSION,
        "folder": str(installed_folder(viewer_dir)),
        "installed": viewer_installed(viewer_dir),
    }
    print_record(record, as_json=as_json)


def _say(installed: Installed) -> None:
    did = "Installed" if installed.is_new else "There already:"
    out.print(
        f"{did} OHIF {VERSION}: {installed.files} files, {installed.size_bytes / _MIB:.0f} MiB in {installed.folder}\n"
        "The gateway serves it under /viewer; a running one needs no restart."
    )
