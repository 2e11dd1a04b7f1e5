"""A model as a folder: `bundle.toml` and the weights it names. Reading one needs no torch.

Schema of `bundle.toml`, format 1 (a code is `{ value, scheme, meaning }`; fields with `?` may be left out)::

    format = 1
    name, version, title, manufacturer = "..."
    intended_use = "..."                  # shown wherever the model is described
    [weights]
    file = "weights.safetensors"          # beside bundle.toml
    sha256 = "..."                        # 64 hexadecimal digits, checked whenever the bundle is loaded
    encoding = "float"                    # ? or "int8": matrices as int8, `<name>.scale` holding a scale per output;
                                          # "int8-onnx": heads and int8 graphs (`inference.networks.graph_network`),
                                          # where allowed by name
    [applicability]
    modalities = ["DX", "CR"]
    body_parts = ["CHEST", ...]           # a Body Part Examined with one of these words is meant
    accepts_blank_body_part = true        # then no word of `excluded_words` may stand in the description
    excluded_words = [...]                # ?
    excluded_views = ["LL", ...]          # ? View Position values that the model does not read
    ages_years = [1, 5]                   # ? completed years of age; a study that does not tell the age is let through
    [input]
    kind = "projection"                   # or "volume": its fields stand in `inference.input_spec`
    size = 112                            # side of the network's input, pixels
    detail = 224                          # side of the square grid that every image is first brought to
    margin = 1.1                          # side of the cut around the lungs over their bounding box
    percentiles = [0.5, 99.5]             # grey values that become 0 and 1
    least_side_px = 64                    # smaller images are not evaluable
    [network]
    kind = "hybridmednet"                 # the other fields are the network's own; "hybridmednet3d" for volumes;
                                          # "torchscript", "onnx", "monai": `inference.foreign`, where allowed by name
    [[levels]]                            # the label hierarchy, outermost first; none for a pure segmenter
    name = "coarse"
    question = code
    site = code                           # ?
    positive = "pneumonia"                # ? the class that is answered from `threshold` up; else the most probable
    threshold = 0.5                       # ?
    heat_map = true                       # ? whether the answer gets one
    [[levels.classes]]
    name = "normal"
    code = code
    parent = "..."                        # class one level up; needed below the first level
    [[segments]]                          # in the order of the network's channels after the background
    name, label = "..."
    category, type = code
    laterality = code                     # ?
    color_lab = [L, a, b]                 # 0..100, -128..127, -128..127
    [[measurements]]                      # ? of every segment of a volume: `inference.measurement`
    [thresholds]                          # guards, by name; a bundle's kind says which it needs
    [calibration]                         # ? written by `hybridmed calibrate`: temperature (and what it would be
                                          # without [laplace]) and, for label sets of a stated coverage, the least
                                          # probability of each class, by level name
    [novelty]                             # ? written by `calibrate`: an image further than `limit` from all that was
    file, sha256, limit                   # learnt from, or upside down, is not evaluable (`inference.novelty`)
    [laplace]                             # ? written by `calibrate`: what is known of the last layer's weights
    file, sha256                          # (`inference.laplace`)
    [training]                            # ? what `hybridmed train` needs
    [data]
    sources, licence, population = "..."
    [evaluation]                          # ? written by `hybridmed train`, `calibrate` and `compress`
    [self_test]                           # ? written by `train`, `compress`: what it says of a made-up input
    expected = [0.1, ...]
    tolerance = 0.01
    [compression]                         # ? written by `hybridmed compress`: of which weights, before and after
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.applicability import Applicability
from inference.errors import BundleError
from inference.findings import Algorithm, Code
from inference.foreign.spec import NOBODY, Allowance, ForeignSpec, Meant, read_foreign
from inference.input_spec import ProjectionInput, VolumeInput, read_input
from inference.level import Level, read_levels
from inference.measurement import MeasurementSpec, read_measurement
from inference.network_table import check_network_table
from inference.pinned import Pinned, pinned_file
from inference.table import Table

BUNDLE_FILE = "bundle.toml"
ENCODINGS = ("float", "int8", "int8-onnx")
_PROGRAM = "int8-onnx"
"""The encoding that holds graphs, which ONNX Runtime runs: code, as a foreign network is."""
_FORMAT = 1
_FAMILY = Code("123109", "DCM", "Artificial Intelligence")
_CIELAB = ((0, 100), (-128, 127), (-128, 127))


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """One structure that is segmented."""

    name: str
    label: str
    category: Code
    type: Code
    laterality: Code | None
    color_lab: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What the network must say of a made-up input (`inference.self_test`)."""

    expected: tuple[float, ...]
    tolerance: float
    """Largest difference."""


@dataclass(frozen=True, slots=True)
class NoveltySpec:
    """What tells whether an image is like those that were learnt from (`inference.novelty`)."""

    file: Pinned
    limit: float


@dataclass(frozen=True, slots=True)
class Data:
    """What the model was trained on."""

    sources: str
    licence: str
    population: str


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model that can be run."""

    path: Path
    """The folder."""
    name: str
    version: str
    title: str
    intended_use: str
    algorithm: Algorithm
    weights_path: Path
    encoding: str
    """How the weights are stored, one of `ENCODINGS`."""
    applicability: Applicability
    input: ProjectionInput | VolumeInput
    levels: tuple[Level, ...]
    segments: tuple[SegmentSpec, ...]
    measurements: tuple[MeasurementSpec, ...]
    network: Mapping[str, object]
    foreign: ForeignSpec | None
    """How a network is run that is not this project's; None where it is."""
    thresholds: Mapping[str, float]
    calibration: Mapping[str, object]
    training: Mapping[str, object]
    evaluation: Mapping[str, object]
    novelty: NoveltySpec | None
    laplace: Pinned | None
    """What is known of the last layer's weights (`inference.laplace`); None where nothing is."""
    self_test: SelfTest | None
    data: Data

    @property
    def projection(self) -> ProjectionInput:
        """The input of a bundle for projection images; raises BundleError where it is for volumes."""
        if not isinstance(self.input, ProjectionInput):
            raise BundleError(f"{self.path / BUNDLE_FILE}: input.kind: must be {ProjectionInput.kind!r}")
        return self.input

    @property
    def volume(self) -> VolumeInput:
        """The input of a bundle for volumes; raises BundleError where it is for projection images."""
        if not isinstance(self.input, VolumeInput):
            raise BundleError(f"{self.path / BUNDLE_FILE}: input.kind: must be {VolumeInput.kind!r}")
        return self.input

    @property
    def network_table(self) -> Table:
        """The `[network]` table with its place in the file."""
        return Table(self.network, self.path / BUNDLE_FILE, "network.")

    @property
    def is_program(self) -> bool:
        """Whether it brings code from elsewhere."""
        return self.foreign is not None or self.encoding == _PROGRAM

    @property
    def parents(self) -> tuple[int, ...]:
        """Index of the coarse class of each fine class, for a hierarchy of two levels."""
        names = self.levels[0].class_names
        return tuple(names.index(str(label.parent)) for label in self.levels[1].classes)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Calibration temperature of each level; 1 where none was found."""
        return self._temperatures("temperature")

    @property
    def temperatures_alone(self) -> tuple[float, ...]:
        """Those that would do without a posterior of the last layer, to compare with."""
        return self._temperatures("temperature_alone" if "temperature_alone" in self.calibration else "temperature")

    def _temperatures(self, name: str) -> tuple[float, ...]:
        found = self.calibration.get(name, {})
        by_level = found if isinstance(found, Mapping) else {}
        return tuple(float(by_level.get(level.name, 1.0)) for level in self.levels)

    @property
    def coverage(self) -> float | None:
        """The stated coverage of the label sets; None where none was fitted."""
        return _number(self.calibration.get("coverage"))

    def bounds(self, level: Level) -> Mapping[str, float]:
        """Return the least probability with which each class of a level is in the label set, by name."""
        found = self.calibration.get("bounds", {})
        of_level = found.get(level.name, {}) if isinstance(found, Mapping) else {}
        return {str(name): float(bound) for name, bound in of_level.items()}


def default_bundle_dir() -> Path:
    """Return the folder of the bundles that are shipped."""
    return Path(__file__).parent / "bundles"


def find_bundles(dirs: Sequence[Path], allowance: Allowance = NOBODY) -> tuple[tuple[Bundle, ...], list[BundleError]]:
    """Load every bundle in the folders `dirs`, by name; of two with one name the earlier folder's counts.

    Parameters
    ----------
    allowance
        Which foreign ones may run.

    Returns
    -------
    The bundles that load, and the errors of those that do not.
    """
    bundles: dict[str, Bundle] = {}
    errors: list[BundleError] = []
    for folder in dirs:
        for file in sorted(folder.glob(f"*/{BUNDLE_FILE}")):
            try:
                bundle = load_bundle(file.parent, allowance=allowance)
            except BundleError as error:
                errors.append(error)
            else:
                bundles.setdefault(bundle.name, bundle)
    return tuple(bundles[name] for name in sorted(bundles)), errors


def load_bundle(path: Path, *, verify_weights: bool = True, allowance: Allowance = NOBODY) -> Bundle:
    """Load the bundle in the folder `path`.

    Parameters
    ----------
    verify_weights
        False before the first training, when there are neither weights nor known features yet.
    allowance
        Which foreign bundles may run.

    Raises
    ------
    BundleError
        Something is missing or wrong, or the network is foreign, or its encoding a program, and not allowed; names
        file and field.
    """
    top = _read(path / BUNDLE_FILE)
    if top.get("format", int) != _FORMAT:
        raise top.wrong("format", f"must be {_FORMAT}")
    name, version = top.get("name", str), top.get("version", str)
    weights = top.table("weights")
    digest = pinned_file(weights, path)[1] if verify_weights else weights.get("sha256", str)
    data = top.table("data")
    levels, spec = read_levels(top), read_input(top.table("input"))
    foreign = _foreign(top, path, levels, is_volume=isinstance(spec, VolumeInput))
    encoding = _encoding(weights)
    if foreign is None:
        check_network_table(top.table("network"), spec, len(levels))
    if not allowance.covers(name, digest):
        reason = "brings code from elsewhere: it serves only where the operator allows it, by"
        entry = f'{reason} foreign_bundles = ["{name}={digest}"]'
        if foreign is not None:
            raise top.wrong("network.kind", f"{foreign.kind!r} {entry}; it is neither trained nor evaluated here")
        if encoding == _PROGRAM:
            raise weights.wrong("encoding", f"{encoding!r} {entry}")
    return Bundle(
        path=path,
        name=name,
        version=version,
        title=top.get("title", str),
        intended_use=top.get("intended_use", str),
        algorithm=Algorithm(name, version, top.get("manufacturer", str), _FAMILY, digest),
        weights_path=path / weights.get("file", str),
        encoding=encoding,
        applicability=_applicability(top.table("applicability")),
        input=spec,
        levels=levels,
        segments=tuple(_segment(entry) for entry in top.tables("segments")),
        measurements=tuple(read_measurement(entry) for entry in top.tables("measurements")),
        network=top.table("network").values,
        foreign=foreign,
        thresholds=top.table("thresholds").floats(),
        calibration=_calibration(top.table("calibration", is_optional=True)),
        training=top.table("training", is_optional=True).values,
        evaluation=top.table("evaluation", is_optional=True).values,
        novelty=_novelty(top, path) if verify_weights else None,
        laplace=_laplace(top, path) if verify_weights else None,
        self_test=_self_test(top),
        data=Data(data.get("sources", str), data.get("licence", str), data.get("population", str)),
    )


def _read(file: Path) -> Table:
    try:
        return Table(tomllib.loads(file.read_text(encoding="utf-8")), file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BundleError(f"{file}: cannot be read: {error}") from error


def _encoding(weights: Table) -> str:
    encoding = weights.get("encoding", str, ENCODINGS[0])
    if encoding not in ENCODINGS:
        raise weights.wrong("encoding", f"{encoding!r} is none of {', '.join(ENCODINGS)}")
    return encoding


def _applicability(entry: Table) -> Applicability:
    ages = entry.items("ages_years", int, ())
    if len(ages) not in (0, 2) or sorted(ages) != list(ages):
        raise entry.wrong("ages_years", "must be the first and the last year of age")
    return Applicability(
        modalities=entry.items("modalities", str),
        body_parts=entry.items("body_parts", str),
        accepts_blank_body_part=entry.get("accepts_blank_body_part", bool, False),
        excluded_words=entry.items("excluded_words", str, ()),
        excluded_views=entry.items("excluded_views", str, ()),
        ages_years=(ages[0], ages[1]) if ages else None,
    )


def _segment(entry: Table) -> SegmentSpec:
    lightness, a, b = entry.numbers("color_lab", 3)
    if not all(low <= value <= high for value, (low, high) in zip((lightness, a, b), _CIELAB, strict=True)):
        raise entry.wrong("color_lab", "must lie within 0..100, -128..127, -128..127")
    return SegmentSpec(
        name=entry.get("name", str),
        label=entry.get("label", str),
        category=entry.needed_code("category"),
        type=entry.needed_code("type"),
        laterality=entry.code("laterality", is_optional=True),
        color_lab=(lightness, a, b),
    )


def _foreign(top: Table, folder: Path, levels: tuple[Level, ...], *, is_volume: bool) -> ForeignSpec | None:
    """Return what tells how a foreign network runs; it has neither features nor gradients to be looked at."""
    has_segments = bool(top.tables("segments"))
    meant = Meant(tuple(level.name for level in levels), has_segments, is_volume)
    spec = read_foreign(top.table("network"), folder, meant)
    if spec is not None and any(level.has_heat_map for level in levels):
        raise top.wrong("levels.heat_map", "a foreign network gives no heat map")
    for name in ("novelty", "laplace"):
        if spec is not None and name in top.values:
            raise top.wrong(name, "a foreign network gives no features to compare")
    return spec


def _calibration(entry: Table) -> Mapping[str, object]:
    for name, temperature in entry.table("temperature", is_optional=True).floats().items():
        if temperature <= 0:
            raise entry.wrong(f"temperature.{name}", "must be positive")
    return entry.values


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _novelty(top: Table, folder: Path) -> NoveltySpec | None:
    if "novelty" not in top.values:
        return None
    entry = top.table("novelty")
    limit = entry.get("limit", float)
    if limit <= 0:
        raise entry.wrong("limit", "must be positive")
    return NoveltySpec(pinned_file(entry, folder), limit)


def _laplace(top: Table, folder: Path) -> Pinned | None:
    return pinned_file(top.table("laplace"), folder) if "laplace" in top.values else None


def _self_test(top: Table) -> SelfTest | None:
    if "self_test" not in top.values:
        return None
    entry = top.table("self_test")
    expected, tolerance = entry.items("expected", float), entry.get("tolerance", float)
    if not expected or tolerance <= 0:
        raise entry.wrong("expected", "must hold numbers, and the tolerance be positive")
    return SelfTest(expected, tolerance)
