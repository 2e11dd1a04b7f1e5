"""A smaller or faster bundle, kept only where it answers as well as the one it was made of.

student.py       a narrower network that learns from the original
pruning.py       fewer channels inside blocks, fine-tuned with the original as the teacher
quantisation.py  int8: computed in it, or merely stored
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from inference.bundle import BUNDLE_FILE, ENCODINGS, Bundle, load_bundle
from inference.errors import BundleError
from inference.foreign.spec import NOBODY, Allowance
from inference.training.card import begin_card, compression_page, write_section
from inference.training.figures import write_table
from inference.training.making import Method, Work, staging
from inference.training.progress import Progress
from inference.training.pruning import Pruning
from inference.training.quantisation import Int8, Int8Weights
from inference.training.run import Report, calibrate, evaluate_images
from inference.training.speed import measure_speed
from inference.training.student import Distilling, parameters
from inference.training.variants import Comparison, Figures, Variant, in_pairs

__all__ = ["Comparison", "Distilling", "Int8", "Int8Weights", "Pruning", "Variant", "compare", "compress"]

_ORIGINAL = "original"
_TABLE = "compression"


def compress(  # noqa: PLR0913 -- the options of `hybridmed compress`
    bundle_dir: Path,
    data_dir: Path,
    out_dir: Path,
    method: Method,
    *,
    device: str,
    report: Report,
    allowance: Allowance = NOBODY,
) -> Comparison:
    """Write a compressed bundle into the folder `<name>-<method's suffix>` of `out_dir`.

    It is calibrated on the calibration groups; both are evaluated on the validation groups and timed, and the figures
    stand in the new one's `[compression]` table and model card. Where it is refused nothing is left behind. Where the
    run is cut off, the same call goes on from its checkpoint, and learns nothing again.

    Raises
    ------
    BundleError
        The bundle is for volumes or in int8 already, the folder exists, the method does not suit, or a figure falls too
        far.
    """
    bundle = load_bundle(bundle_dir, allowance=allowance)
    if not bundle.levels:
        raise BundleError(f"{bundle.name}: only bundles that classify are compressed")
    if bundle.encoding != ENCODINGS[0]:
        raise BundleError(f"{bundle_dir / BUNDLE_FILE}: weights.encoding: is {bundle.encoding!r} already")
    folder = out_dir / f"{bundle.name}-{method.suffix}"
    if folder.exists():
        raise BundleError(f"{folder}: exists already")
    method.check(bundle)
    with staging(out_dir, folder.name) as made:
        work = Work(bundle, made, data_dir, device, report)
        method.write(work)
        own = work.allowance
        calibrate(made, data_dir, device=device, report=_during(method.suffix, report), allowance=own)
        before = _evaluated(bundle_dir, data_dir, device, _during("before", report))
        after = _evaluated(made, data_dir, device, _during("after", report), own, write=True)
        try:
            _refuse_falls(bundle, load_bundle(made, allowance=own), before, after)
        except BundleError:
            work.forget()
            raise
        original = _row(bundle, before, device)
        smaller = _row(load_bundle(made, allowance=own), after, device, method.title, original.weights_sha256)
        result = Comparison(original, replace(smaller, folder=folder))
        _write_figures(made, result, own)
        made.rename(folder)
        work.forget()
    return result


def compare(  # noqa: PLR0913 -- the options of `hybridmed compress --compare`
    bundle_dir: Path, data_dir: Path, out_dir: Path, *, device: str, report: Report, allowance: Allowance = NOBODY
) -> list[Variant]:
    """Measure a bundle and all bundles in `out_dir` that were made of it, or of one of these, on this machine.

    The figures are written into the `[compression]` tables and model cards of the compressed ones; what else stands in
    a card stays.

    Parameters
    ----------
    allowance
        Which of those whose weights are programs may run.

    Returns
    -------
    The original first.
    """
    bundle = load_bundle(bundle_dir)
    figures = _evaluated(bundle_dir, data_dir, device, _during(bundle.name, report))
    rows = [_row(bundle, figures, device)]
    for made, table in _made_of(bundle, out_dir, allowance):
        figures = _evaluated(made.path, data_dir, device, _during(made.name, report), allowance, write=True)
        rows.append(_row(made, figures, device, str(table["method"]), str(table["of_sha256"])))
    for pair in in_pairs(rows):
        _write_figures(pair.made.folder, pair, allowance)
    return rows


def _made_of(bundle: Bundle, out_dir: Path, allowance: Allowance) -> Iterator[tuple[Bundle, dict[str, object]]]:
    """Yield the bundles that descend from one, with their `[compression]` tables, parents first."""
    tables: list[tuple[Path, dict[str, object]]] = []
    for file in sorted(out_dir.glob(f"*/{BUNDLE_FILE}")):
        table = tomllib.loads(file.read_text(encoding="utf-8")).get(_TABLE)
        if isinstance(table, dict):
            tables.append((file.parent, table))
    parents = [bundle.algorithm.weights_digest]
    for parent in parents:  # grows
        for folder, table in tables:
            if table.get("of_sha256") == parent:
                made = load_bundle(folder, allowance=allowance)
                parents.append(made.algorithm.weights_digest)
                yield made, table


def _evaluated(  # noqa: PLR0913 -- as `evaluate_images`
    folder: Path, data_dir: Path, device: str, report: Report, allowance: Allowance = NOBODY, *, write: bool = False
) -> Figures:
    found = evaluate_images(folder, data_dir, device=device, report=report, write=write, allowance=allowance)
    return Figures.of(found)


def _refuse_falls(bundle: Bundle, made: Bundle, before: Figures, after: Figures) -> None:
    """Raise BundleError where a figure falls too far."""
    if falls := before.falls(after):
        left, whole = parameters(made), parameters(bundle)
        size = f"{left:,} parameters, {left / whole:.0%} of the original's"
        raise BundleError(f"{made.name} is not kept ({size}): {'; '.join(falls)}")


def _row(bundle: Bundle, figures: Figures, device: str, method: str = _ORIGINAL, of_sha256: str = "") -> Variant:
    """Time a bundle, and return its row of the table."""
    return Variant(
        folder=bundle.path,
        name=bundle.name,
        version=bundle.version,
        weights_sha256=bundle.algorithm.weights_digest,
        method=method,
        of_sha256=of_sha256,
        bytes=bundle.weights_path.stat().st_size,
        parameters=parameters(bundle),
        figures=figures,
        speed=measure_speed(bundle.path, device, _this(bundle)),
    )


def _this(bundle: Bundle) -> Allowance:
    """Allow a bundle that was let in before, with these very weights."""
    return Allowance((f"{bundle.name}={bundle.algorithm.weights_digest}",))


def _write_figures(folder: Path, comparison: Comparison, allowance: Allowance) -> None:
    write_table(folder / BUNDLE_FILE, _TABLE, comparison.to_table())
    begin_card(folder, load_bundle(folder, allowance=allowance), comparison)
    write_section(folder, _TABLE, compression_page(comparison))


def _during(when: str, report: Report) -> Report:
    """Return a callback that tells one evaluation from another."""

    def named(step: Progress) -> None:
        report(replace(step, stage=f"{step.stage} {when}"))

    return named
