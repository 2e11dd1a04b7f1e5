"""`bundles`, `train`, `evaluate`, `calibrate`, `compress`: models, how they are made and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from gateway.cli.output import err, out, print_error, print_record, print_rows, working
from gateway.config import load_settings
from gateway.errors import ConfigurationError, GatewayError, NotFoundError
from gateway.wiring import allowance, bundle_dirs, find_bundles
from inference.bundle import Bundle, load_bundle
from inference.errors import InferenceError

if TYPE_CHECKING:
    from types import ModuleType

    from inference.training.progress import Progress as TrainingProgress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[Path, typer.Option("--data", exists=True, file_okay=False, help="Folder of the data set.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda; the settings' device without it.")]

bundles_app = typer.Typer(help="Models installed.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the group and the commands to the root command."""
    app.add_typer(bundles_app, name="bundles")
    app.command()(train)
    app.command()(evaluate)
    app.command()(calibrate)
    app.command()(compress)


@bundles_app.command("list")
def list_bundles(as_json: AsJson = False) -> None:
    """List bundles, and name those that do not load."""
    bundles, problems = find_bundles(load_settings())
    rows = [_outline(bundle) for bundle in bundles]
    columns = [(name.capitalize(), _field(name)) for name in ("name", "version", "modalities", "classes", "segments")]
    print_rows(rows, columns, as_json=as_json, empty="No bundle.")
    for problem in problems:
        print_error("refused:", problem)
    if problems:
        raise typer.Exit(1)


@bundles_app.command("show")
def show_bundle(name: str, as_json: AsJson = False) -> None:
    """Show a bundle: input, classes, segments, figures, intended use."""
    bundle = _named(name)
    record = {
        **_outline(bundle),
        "network": bundle.network["kind"],
        "weights_digest": bundle.algorithm.weights_digest,
        "intended_use": bundle.intended_use,
        "evaluation": bundle.evaluation,
        "folder": str(bundle.path),
    }
    print_record(record, as_json=as_json)


@bundles_app.command("verify")
def verify_bundles(
    names: Annotated[list[str] | None, typer.Argument(help="Bundles; all without any.")] = None,
) -> None:
    """Check schema and digest of bundles; exit code 1 where one is refused."""
    with working("verifying bundles"):
        bundles, problems = find_bundles(load_settings())
    found = [bundle for bundle in bundles if not names or bundle.name in names]
    for bundle in found:
        facts = f" {bundle.name} {bundle.version} {bundle.algorithm.weights_digest[:12]}"
        out.print(Text.assemble(("good", "green"), facts))
    missing = sorted(set(names or ()) - {bundle.name for bundle in found})
    for problem in problems:
        print_error("refused:", problem)
    if missing and not problems:
        raise NotFoundError(f"no bundle {', '.join(missing)}")
    if problems:
        raise typer.Exit(1)


@bundles_app.command("pin")
def pin_bundle(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with bundle.toml.")],
) -> None:
    """Write the digests of a bundle's files and its self-test into its bundle.toml; this runs its network."""
    pin = _training("pin", package="inference.foreign")
    with working("running the network"), _refusals():
        pinned = pin.pin(folder)
    out.print(f"Pinned {pinned.name} {pinned.version}.")
    if pinned.foreign is not None:
        entry = f"{pinned.name}={pinned.algorithm.weights_digest}"
        out.print(f'Allow it: foreign_bundles = ["{entry}"]', markup=False, soft_wrap=True)


def train(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or its folder.")],
    data: Data,
    output: Annotated[Path | None, typer.Option("--out", help="Checkpoints and logs; resumed if there.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; the bundle's own number without it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 1,
    device: Device = None,
) -> None:
    """Train a bundle; a run that was cut off goes on where it stood."""
    folder = _folder(bundle)
    run = _training()
    with _progress() as report, _refusals():
        made = run.train(
            folder,
            data,
            output or Path("runs") / folder.name,
            device=_device(device),
            epochs=epochs,
            seed=seed,
            report=report,
        )
    out.print(f"Trained {folder.name}: {made}")


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or its folder.")],
    data: Data,
    device: Device = None,
    explain: Annotated[int, typer.Option(min=0, help="Images whose explanations are judged, too.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle on the validation groups, beside the aspect-only baseline."""
    run, folder = _training(), _folder(bundle)
    explanations = _training("explanations") if explain else None
    with _progress() as report, _refusals():
        figures = run.evaluate(folder, data, device=_device(device), report=report).to_dict()
        if explanations is not None:
            figures["explanations"] = explanations.explain(folder, data, explain, device=_device(device), report=report)
    print_record(figures, as_json=as_json)


def calibrate(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or its folder.")],
    data: Data,
    device: Device = None,
) -> None:
    """Fit the temperature of each level and write it into the bundle."""
    run = _training()
    with _progress() as report, _refusals():
        run.calibrate(_folder(bundle), data, device=_device(device), report=report)
    out.print(f"Calibrated {bundle}.")


def compress(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or its folder.")],
    data: Data,
    output: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder that gets the new bundle's folder.")],
    method: Annotated[Literal["int8", "pruned"], typer.Option(help="Smaller numbers, or fewer channels.")] = "int8",
    share: Annotated[float, typer.Option(help="Of the channels inside blocks, for pruned.")] = 0.3,
    epochs: Annotated[int, typer.Option(min=1, help="Of learning from the original, for pruned.")] = 3,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a bundle that is smaller; refused where it answers worse on the validation groups."""
    compression = _training("compression")
    pruning = compression.Pruning(share, epochs) if method == "pruned" else None
    with _progress() as report, _refusals():
        made = compression.compress(
            _folder(bundle), data, output, device=_device(device), report=report, pruning=pruning
        )
    print_record(made.to_dict(), as_json=as_json)


def _training(module: str = "run", package: str = "inference.training") -> ModuleType:
    try:
        return import_module(f"{package}.{module}")
    except ModuleNotFoundError as error:
        advice = "pip install -c constraints.txt 'hybridmed-gateway[inference,training]'"
        raise ConfigurationError(f"{error.name} is not installed: {advice}") from error


def _folder(bundle: str) -> Path:
    path = Path(bundle)
    if (path / "bundle.toml").is_file():
        return path
    for folder in bundle_dirs(load_settings()):
        if (folder / bundle / "bundle.toml").is_file():
            return folder / bundle
    raise NotFoundError(f"no bundle {bundle}: `hybridmed bundles list` shows what there is")


def _named(name: str) -> Bundle:
    with _refusals():
        return load_bundle(_folder(name), allowance=allowance(load_settings()))


def _device(device: str | None) -> str:
    return device or load_settings().device


def _outline(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "version": bundle.version,
        "modalities": sorted(bundle.applicability.modalities),
        "classes": {level.name: [each.name for each in level.classes] for level in bundle.levels},
        "segments": [segment.label for segment in bundle.segments],
    }


def _field(name: str) -> Callable[[Any], object]:
    return lambda row: row[name]


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn an error of `inference` into a sentence and exit code 1."""
    try:
        yield
    except InferenceError as error:
        raise GatewayError(str(error)) from error


@contextmanager
def _progress() -> Iterator[Callable[[TrainingProgress], None]]:
    """Give a callback that draws a bar with the figures that matter."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, Any] = {}

        def report(step: TrainingProgress) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bars.add_task(step.stage, total=step.total, figures="")
            figures = " ".join(f"{name} {value:.4f}" for name, value in step.figures.items())
            bars.update(tasks[step.stage], completed=step.done, total=step.total, figures=figures)

        yield report
