"""`bundles`, `train`, `evaluate`, `calibrate`, `compress`: models, how they are made and measured."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from gateway.cli.output import err, out, print_error, print_json, print_record, print_rows, working
from gateway.config import Settings, load_settings
from gateway.errors import ConfigurationError, GatewayError, NotFoundError
from gateway.wiring import allowance, bundle_dirs, find_bundles
from inference.bundle import Bundle, load_bundle
from inference.errors import InferenceError

if TYPE_CHECKING:
    from types import ModuleType

    from inference.training.progress import Progress as TrainingProgress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[Path, typer.Option("--data", exists=True, file_okay=False, help="Folder of the data set.")]
_OPTIONS: dict[str, dict[str, str]] = {
    "int8": {},
    "int8-weights": {},
    "pruned": {"share": "ratio", "epochs": "epochs"},
    "distilled": {"share": "share", "epochs": "epochs", "network": "network"},
}
"""Options of `compress` that each method takes, and what it calls them."""
_VARIANT_FIGURES = (
    ("Bytes", "bytes"),
    ("Parameters", "parameters"),
    ("One image, p50 ms", "p50_ms"),
    ("One image, p95 ms", "p95_ms"),
    ("Batches, images/s", "images_per_s"),
    ("Peak memory, MiB", "peak_mib"),
    ("Accuracy, coarse", "coarse_accuracy"),
    ("Accuracy, fine", "fine_accuracy"),
    ("Let through", "answered"),
)
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
    """Check schema and digests of bundles, open them as a worker does; exit code 1 where one is refused."""
    settings = load_settings()
    bundles, refused = find_bundles(settings)
    found = [bundle for bundle in bundles if not names or bundle.name in names]
    with working("verifying bundles"):
        trial = _trial(settings) if found else None
        outcomes = [(bundle, trial(bundle) if trial else None) for bundle in found]
    for bundle, reason in outcomes:
        if reason is None:
            facts = f" {bundle.name} {bundle.version} {bundle.algorithm.weights_digest[:12]}"
            out.print(Text.assemble(("good", "green"), facts, "" if bundle.self_test else " (has no self-test)"))
    missing = sorted(set(names or ()) - {bundle.name for bundle in found})
    problems = [*refused, *(reason for _, reason in outcomes if reason is not None)]
    for problem in problems:
        print_error("refused:", problem)
    if missing and not problems:
        raise NotFoundError(f"no bundle {', '.join(missing)}")
    if problems:
        raise typer.Exit(1)


def _trial(settings: Settings) -> Callable[[Bundle], str | None] | None:
    """Return what opens a bundle and says why it does not; None, having said so, where torch is not installed."""
    try:
        models = import_module("gateway.wiring.models")
    except ModuleNotFoundError as missing:
        err.print(f"{missing.name} is not installed: schema and digests are checked, no network is run")
        return None
    device = models.settings_device(settings)

    def why_not(bundle: Bundle) -> str | None:
        try:
            models.open_bundle(settings, bundle, device)
        except InferenceError as error:
            return str(error)
        return None

    return why_not


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
        _print_allowance(entry)


def _print_allowance(entry: str) -> None:
    out.print(f'Allow it: foreign_bundles = ["{entry}"]', markup=False, soft_wrap=True)


def train(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or its folder.")],
    data: Data,
    output: Annotated[Path | None, typer.Option("--out", help="Checkpoints and logs; resumed if there.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; the bundle's own number without it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 1,
    folds: Annotated[bool, typer.Option("--folds", help="The networks of the cross-validation instead.")] = False,
    device: Device = None,
) -> None:
    """Train a bundle; a run that was cut off goes on where it stood."""
    folder = _folder(bundle)
    train_it = _training("folds").train_folds if folds else _training().train
    with _progress() as report, _refusals():
        made = train_it(
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
    plots: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for pictures of the figures.")] = None,
    folds: Annotated[bool, typer.Option("--folds", help="The networks of the cross-validation instead.")] = False,
    ablation: Annotated[bool, typer.Option("--ablation", help="What each part is worth: trains each; slow.")] = False,
    output: Annotated[Path | None, typer.Option("--out", help="Variants of the ablation; resumed.")] = None,
    ablation_folds: Annotated[int, typer.Option(min=1, help="Folds of it.")] = 3,
    ablation_epochs: Annotated[int, typer.Option(min=1, help="Epochs of it.")] = 6,
    ablation_size: Annotated[int, typer.Option(min=32, help="Side of its images.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle on the validation groups, beside the aspect-only baseline.

    With --folds and --ablation the figures are written into the bundle's own description and model card, too.
    """
    if (folds or ablation) and (explain or plots or (folds and ablation)):
        raise typer.BadParameter("--folds and --ablation go alone, without --explain and --plots")
    run, folder = _training(), _folder(bundle)
    explanations = _training("explanations") if explain else None
    with _progress() as report, _refusals():
        if ablation:
            parts = _training("ablation")
            extent = parts.Extent(ablation_folds, ablation_epochs, ablation_size)
            place = output or Path("runs") / "ablation" / folder.name
            found = parts.ablate(folder, data, place, extent=extent, device=_device(device), report=report)
            print_record(found, as_json=as_json)
            return
        if folds:
            rounds = _training("folds")
            print_record(rounds.evaluate_folds(folder, data, device=_device(device), report=report), as_json=as_json)
            return
        allowed = allowance(load_settings())
        if explanations is not None:
            explanations.check_explained(load_bundle(folder, allowance=allowed))  # before the long part
        judged = run.evaluate(folder, data, device=_device(device), report=report, plots=plots, allowance=allowed)
        figures = judged.to_dict()
        if explanations is not None:
            figures["explanations"] = explanations.explain(folder, data, explain, device=_device(device), report=report)
    print_record(figures, as_json=as_json)


def calibrate(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or its folder.")],
    data: Data,
    device: Device = None,
) -> None:
    """Fit what makes a bundle's probabilities and refusals trustworthy; write it and its new evaluation into it."""
    run, folder, allowed = _training(), _folder(bundle), allowance(load_settings())
    with _progress() as report, _refusals():
        run.calibrate(folder, data, device=_device(device), report=report, allowance=allowed)
        run.evaluate(folder, data, device=_device(device), report=report, write=True, allowance=allowed)
    out.print(f"Calibrated and evaluated {bundle}.")


def compress(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or its folder.")],
    data: Data,
    output: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder that gets the new bundle's folder.")],
    method: Annotated[
        Literal["int8", "int8-weights", "pruned", "distilled"],
        typer.Option(help="Compute in int8, store int8 weights, take channels out, or train a narrower network."),
    ] = "int8",
    share: Annotated[
        float | None, typer.Option(help="pruned: of the channels taken out (0.3); distilled: of parameters left (0.4).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="pruned: 3 without it; distilled: the bundle's own cycles.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="distilled: FIELD=VALUE of the student's [network] table; repeatable.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Make none; measure the bundle beside those in --out made of it.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a bundle that is smaller or faster; refused where it answers worse on the validation groups."""
    if compare and (share is not None or epochs is not None or network):
        raise typer.BadParameter("--compare makes no bundle: it goes without --share, --epochs and --network")
    compression = _training("compression")
    with _progress() as report, _refusals():
        known = {"device": _device(device), "report": report, "allowance": allowance(load_settings())}
        if compare:
            rows = compression.compare(_folder(bundle), data, output, **known)
        else:
            chosen = _method(compression, method, {"share": share, "epochs": epochs, "network": network or None})
            made = compression.compress(_folder(bundle), data, output, chosen, **known)
            rows = [made.original, made.made]
    _print_variants([row.to_dict() for row in rows], as_json=as_json)
    if method == "int8" and not compare and not as_json:
        _print_allowance(f"{rows[-1].name}={rows[-1].weights_sha256}")


def _method(compression: ModuleType, name: str, options: dict[str, Any]) -> object:
    """Return the method of compression with the options that are given; of the others its own values hold."""
    given = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - _OPTIONS[name].keys()):
        raise typer.BadParameter(f"--{unknown[0]} is not for --method {name}")
    if "network" in given:
        given["network"] = dict(_network_field(field) for field in given["network"])
    make = {
        "int8": compression.Int8,
        "int8-weights": compression.Int8Weights,
        "pruned": compression.Pruning,
        "distilled": compression.Distilling,
    }[name]
    return make(**{_OPTIONS[name][key]: value for key, value in given.items()})


def _network_field(text: str) -> tuple[str, object]:
    """Read FIELD=VALUE: numbers and lists as TOML has them, all else is a word."""
    name, is_given, value = text.partition("=")
    if not is_given:
        raise typer.BadParameter(f"--network takes FIELD=VALUE, not {text!r}")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _print_variants(bundles: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print bundles side by side, a line a figure; as JSON a list of them."""
    if as_json:
        print_json(bundles)
        return
    rows = [(heading, *(one[name] for one in bundles)) for heading, name in _VARIANT_FIGURES]
    rows += [(f"Dice {segment}", *(one["dice"][segment] for one in bundles)) for segment in bundles[0]["dice"]]
    names = ("", *(one["name"] for one in bundles))
    print_rows(rows, [(name, itemgetter(place)) for place, name in enumerate(names)], as_json=False, empty="No bundle.")
    out.print(f"Times on {bundles[0]['device']}, threads: {bundles[0]['threads']}")


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
