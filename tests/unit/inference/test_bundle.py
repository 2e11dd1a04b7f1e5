"""Reading bundle.toml: the shipped bundle is right, and what is wrong is named."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inference.applicability import Applicability
from inference.bundle import BUNDLE_FILE, default_bundle_dir, find_bundles, load_bundle
from inference.errors import BundleError
from inference.table import is_snomed_id
from inference.training.figures import drop_table, write_table

_SHIPPED = default_bundle_dir() / "cxr-pneumonia"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Give a bundle folder that may be spoilt."""
    return Path(shutil.copytree(_SHIPPED, tmp_path / "cxr-pneumonia"))


def _replace(folder: Path, old: str, new: str) -> None:
    file = folder / "bundle.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_shipped_bundle_loads() -> None:
    """Name, hierarchy, segments and the digest of the weights are there."""
    bundle = load_bundle(_SHIPPED)

    assert bundle.name == "cxr-pneumonia"
    assert [level.class_names for level in bundle.levels] == [
        ("normal", "pneumonia"),
        ("normal", "bacterial", "viral"),
    ]
    assert bundle.parents == (0, 1, 1)
    assert [segment.type.meaning for segment in bundle.segments] == ["Right lung", "Left lung"]
    assert bundle.algorithm.weights_digest == hashlib.sha256(bundle.weights_path.read_bytes()).hexdigest()
    assert "not a medical device" in bundle.intended_use


def test_the_shipped_weights_are_small_enough_and_were_evaluated() -> None:
    """At most 25 MB, and the figures in bundle.toml are those of these weights."""
    bundle = load_bundle(_SHIPPED)

    assert bundle.weights_path.stat().st_size <= 25_000_000
    assert bundle.evaluation["weights_sha256"] == bundle.algorithm.weights_digest


def test_reading_a_bundle_needs_no_torch() -> None:
    """A host that only receives has no torch: importing and loading does not touch it."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from inference.bundle import default_bundle_dir, find_bundles\n"
        "print(len(find_bundles([default_bundle_dir()])[0]))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert int(done.stdout) >= 1


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("format = 1", "format = 2", "format"),
        ('name = "cxr-pneumonia"\n', "", "name: is missing"),
        ("size = 144", 'size = "big"', "input.size: must be a whole number"),
        ("detail = 224", "detail = 0", "input.detail"),
        ("percentiles = [0.5, 99.5]", "percentiles = [99.5, 0.5]", "input.percentiles"),
        ('value = "233604007"', 'value = "233604008"', r"levels\[0\]\.classes\[1\]\.code\.value"),
        ('scheme = "RADLEX"', 'scheme = "RADLEKS"', r"levels\[0\]\.question\.scheme"),
        ('parent = "pneumonia"', 'parent = "flu"', r"levels\[1\]\.classes"),
        ('positive = "pneumonia"', 'positive = "flu"', r"levels\[0\]\.positive"),
        ("threshold = 0.5", "threshold = 1.5", r"levels\[0\]\.threshold"),
        ("color_lab = [", "color_lab = [200.0, ", r"segments\[0\]\.color_lab"),
        ('modalities = ["CR", "DX"]', 'modalities = ["CR", 7]', r"applicability\.modalities\[1\]"),
        ("ages_years = [1, 5]", "ages_years = [5, 1]", r"applicability\.ages_years"),
        ('file = "weights.safetensors"', 'file = "../weights.safetensors"', r"weights\.file: must lie in"),
        ('file = "weights.safetensors"', 'file = "other.safetensors"', r"weights\.file: cannot be read"),
        ("format = 1", "format = ", "cannot be read"),
        (
            'backbone = "resnet18"',
            'backbone = "resnet19"',
            "network.backbone: 'resnet19' is none of resnet10",
        ),
        ('kind = "hybridmednet"', 'kind = "unet"', "network.kind: 'unet' is none of hybridmednet, torchscript"),
        ('kind = "hybridmednet"', 'kind = "hybridmednet3d"', "network.kind: 'hybridmednet3d' is none of .* the images"),
        ("[network]", "[network]\ninputs = 2", r"network\.inputs: must be 1, is 2: \[input\] gives one image"),
        ("[network]", "[network]\ndepth = 3", r"network\.depth: unknown field; there are backbone"),
        ("width = 24", 'width = "24"', "network.width: must be a whole number, is '24'"),
        ("width = 24", "width = 20", "network.width: must be a multiple of 8, is 20"),
        ("scales = [1.0", 'scales = ["1.0"', "network.scales: must be an array, each a number"),
        ("scales = [1.0", "scales = [0.9", "network.scales: the first must be 1"),
        ("[network]", "[network]\nalignment = 1", "network.alignment: must be true or false, is 1"),
        ("dropout = 0.2", "dropout = 1.0", "network.dropout: must lie within 0 and 1, is 1.0"),
    ],
)
def test_a_wrong_field_is_named(copied: Path, old: str, new: str, named: str) -> None:
    """The error names the file and the field."""
    _replace(copied, old, new)

    with pytest.raises(BundleError, match=rf"bundle\.toml: ?{named}"):
        load_bundle(copied)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('convolution = "hybrid"', 'convolution = "dense"', "network.convolution: 'dense' is none of hybrid, full"),
        ("stem = [1, 2, 2]", "stem = [1, 2]", r"network\.stem: must be an array of 3, is \[1, 2\]"),
        ("widths = [24, 48, 64, 96]", "widths = [24, 48, 64]", "network.strides: must be 2 for these widths"),
        ("patch = [16, 80, 80]", "patch = [16, 80, 81]", r"input\.patch: must be multiples of \[8, 16, 16\]"),
    ],
)
def test_a_wrong_network_for_volumes_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    """As that for images, when the bundle is loaded."""
    copied = Path(shutil.copytree(default_bundle_dir() / "ct-lung", tmp_path / "ct-lung"))
    _replace(copied, old, new)

    with pytest.raises(BundleError, match=rf"bundle\.toml: {named}"):
        load_bundle(copied)


def test_changed_weights_are_refused(copied: Path) -> None:
    """One changed byte of the weights is found by the digest."""
    weights = copied / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(BundleError, match=r"weights\.sha256"):
        load_bundle(copied)


def test_a_bad_bundle_does_not_hide_the_good_ones(copied: Path) -> None:
    """The good bundles are found, and each bad one yields its error."""
    shutil.copytree(copied, copied.parent / "spoilt")
    _replace(copied.parent / "spoilt", "format = 1", "format = 9")

    bundles, errors = find_bundles([copied.parent])

    assert [bundle.name for bundle in bundles] == ["cxr-pneumonia"]
    assert len(errors) == 1
    assert "spoilt" in str(errors[0])


def test_the_earlier_folder_wins(copied: Path) -> None:
    """A site's own bundle replaces the shipped one of the same name."""
    _replace(copied, 'version = "', 'version = "site-')

    bundles, _ = find_bundles([copied.parent, default_bundle_dir()])

    assert [bundle.path for bundle in bundles if bundle.name == "cxr-pneumonia"] == [copied]


def test_missing_folders_hold_no_bundles(tmp_path: Path) -> None:
    """A folder that is not there is no error."""
    assert find_bundles([tmp_path / "nowhere"]) == ((), [])


@pytest.mark.parametrize(
    ("modality", "body_part", "description", "is_wanted"),
    [
        ("DX", "CHEST", "", True),
        ("CR", "", "", True),
        ("CR", "", "Thorax pa", True),
        ("DX", "THORAX", "", True),
        ("DX", "Chest PA", "", True),
        ("CR", "", "left knee", False),
        ("DX", "HAND", "", False),
        ("CT", "CHEST", "", False),
        ("MG", "", "", False),
    ],
)
def test_which_series_are_wanted(modality: str, body_part: str, description: str, is_wanted: bool) -> None:
    """Chest X-rays are; where the body part is blank, a description that names another part counts."""
    assert load_bundle(_SHIPPED).applicability.wants(modality, body_part, description) is is_wanted


@pytest.mark.parametrize(
    ("view", "description", "is_read"),
    [
        ("PA", "", True),
        ("AP", "", True),
        ("", "", True),
        ("LL", "", False),
        ("RL", "", False),
        ("LATERAL", "", False),
        ("", "Chest lateral", False),
        ("", "Collateral check", True),
    ],
)
def test_which_views_are_read(view: str, description: str, is_read: bool) -> None:
    """Frontal views are; where View Position is blank, the description's own words decide."""
    assert load_bundle(_SHIPPED).applicability.reads_view(view, description) is is_read


@pytest.mark.parametrize(
    ("age", "is_covered"),
    [("003Y", True), ("012M", True), ("011M", False), ("005Y", True), ("006Y", False), ("090D", False), ("", True)],
)
def test_which_ages_are_covered(age: str, is_covered: bool) -> None:
    """Completed years from 1 to 5; an age that is not told is let through."""
    assert load_bundle(_SHIPPED).applicability.covers_age(age) is is_covered


def test_an_unlimited_model_reads_every_age_and_view() -> None:
    """Without declared ages and excluded views nothing is turned away."""
    anything = Applicability(("CT",), ("CHEST",), False, (), (), None)

    assert anything.covers_age("090Y")
    assert anything.reads_view("LL", "lateral")
    assert not anything.wants("CT", "", "")


def test_snomed_check_digits() -> None:
    """A real identifier passes, a digit changed or two exchanged does not (Verhoeff finds both)."""
    assert is_snomed_id("233604007")
    assert not is_snomed_id("233604008")
    assert not is_snomed_id("236304007")
    assert not is_snomed_id("12")


def test_before_the_first_training_there_are_neither_weights_nor_known_features(copied: Path) -> None:
    """A description alone loads where weights are not asked for; with them asked for, the missing file is named."""
    for file in copied.glob("*.safetensors"):
        file.unlink()

    assert load_bundle(copied, verify_weights=False).novelty is None
    with pytest.raises(BundleError, match=r"weights\.file: cannot be read"):
        load_bundle(copied)


def test_the_last_layers_posterior_is_pinned(copied: Path) -> None:
    """Its file is read where the description names it with its digest; one that was changed is refused by name."""
    file = copied / "laplace.safetensors"
    file.write_bytes(b"posterior")
    drop_table(copied / BUNDLE_FILE, "laplace")
    assert load_bundle(copied).laplace is None

    digest = hashlib.sha256(b"posterior").hexdigest()
    write_table(copied / BUNDLE_FILE, "laplace", {"file": file.name, "sha256": digest})

    assert load_bundle(copied).laplace == (file, digest)
    file.write_bytes(b"another")
    with pytest.raises(BundleError, match=r"laplace\.sha256: laplace\.safetensors has the digest"):
        load_bundle(copied)
