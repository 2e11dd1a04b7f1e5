"""The parts of training, each by its own mathematics."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special

from inference.networks.heads import ClassLogits, LogProbabilities, hierarchical_log_probabilities
from inference.networks.hybridmednet import NetworkOutput
from inference.training.augmentation import AugmentationConfig, Batch, RandomViews, lung_regions
from inference.training.calibration import fit_temperature
from inference.training.data import Images, LabelledImage, Part, batches, mean_aspect, part_of, read_labels
from inference.training.figures import write_digest, write_table, write_tables
from inference.training.loop import LoopConfig, schedule
from inference.training.losses import LossConfig, agreement_loss, hybrid_loss, smoothed_nll
from inference.training.targets import LEFT_LUNG, RIGHT_LUNG, sided

_HEADER = "image,group,coarse,fine,orig_width,orig_height,mask,mask_confidence\n"
_GROUPS = [f"child{number}" for number in range(2000)]


def test_the_patients_right_lung_is_on_the_left_of_the_image() -> None:
    """Two separate lungs are named by side; a crumb goes to the nearer one."""
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[5:35, 5:25] = mask[5:35, 35:55] = True
    mask[37:39, 50:52] = True

    classes = sided(mask)

    assert (classes[5:35, 5:25] == RIGHT_LUNG).all()
    assert (classes[5:35, 35:55] == LEFT_LUNG).all()
    assert classes[38, 51] == LEFT_LUNG
    assert ((classes > 0) == mask).all()


def test_lungs_that_touch_are_parted_where_they_are_thinnest() -> None:
    """A bridge between the lungs is where they are cut, even when it is not in the middle."""
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[5:35, 5:33] = mask[5:35, 36:55] = True
    mask[20:22, 33:36] = True

    classes = sided(mask)

    assert (classes[5:35, 5:33] == RIGHT_LUNG).all()
    assert (classes[5:35, 36:55] == LEFT_LUNG).all()


def test_no_lungs_is_all_background() -> None:
    """An empty mask stays empty."""
    assert not sided(np.zeros((8, 8), dtype=np.bool_)).any()


def test_blank_sides_and_doubtful_masks_are_left_out(tmp_path: Path) -> None:
    """A blank width gives no aspect, a confidence under the limit no mask; both images stay."""
    (tmp_path / "labels.csv").write_text(
        _HEADER
        + "a.jpeg,g1,normal,normal,1500,1000,a.png,0.95\n"
        + "b.jpeg,g2,pneumonia,viral,,,b.png,0.85\n"
        + "c.jpeg,g3,pneumonia,bacterial,1000,1000,,\n"
    )

    first, second, third = read_labels(tmp_path, 0.9)

    assert first == LabelledImage("a.jpeg", "g1", "normal", "normal", 1.5, "a.png")
    assert (second.aspect, second.mask) == (None, None)
    assert third.mask is None
    assert mean_aspect([first, second, third]) == 1.25


def test_the_split_is_by_group_and_near_its_shares() -> None:
    """A group's part depends on nothing but its name, and the shares come out about right."""
    parts = [part_of(group, 1, (0.15, 0.08)) for group in _GROUPS]

    assert parts == [part_of(group, 1, (0.15, 0.08)) for group in _GROUPS]
    assert 0.12 < parts.count(Part.VALIDATION) / len(parts) < 0.18
    assert 0.06 < parts.count(Part.CALIBRATION) / len(parts) < 0.10
    assert parts != [part_of(group, 2, (0.15, 0.08)) for group in _GROUPS]


def test_held_out_groups_are_never_trained_on() -> None:
    """A held-out group is for validation whatever its hash says, and moves no other group."""
    trained = [group for group in _GROUPS if part_of(group, 1, (0.15, 0.08)) is Part.TRAINING]

    held = trained[:5]
    parts = {group: part_of(group, 1, (0.15, 0.08), held) for group in trained}

    assert {parts[group] for group in held} == {Part.VALIDATION}
    assert {parts[group] for group in trained[5:]} == {Part.TRAINING}


def test_an_epoch_shows_each_image_once() -> None:
    """Batches are whole, disjoint and in an order that the generator decides."""
    shown = [index for batch in batches(np.random.default_rng(0).permutation(20), 6) for index in batch]

    assert len(shown) == len(set(shown)) == 18
    assert len(list(batches(np.arange(3), 6))) == 1


def _images(count: int = 4, side: int = 48) -> Images:
    lungs = np.zeros((count, side, side), dtype=np.uint8)
    lungs[:, 10:40, 6:20], lungs[:, 10:40, 28:42] = RIGHT_LUNG, LEFT_LUNG
    has_mask = np.array([True] * (count - 1) + [False])
    lungs[~has_mask] = 0
    return Images(
        names=tuple(map(str, range(count))),
        groups=tuple(map(str, range(count))),
        grey=np.where(lungs > 0, 60, 180).astype(np.uint8),
        lungs=lungs,
        has_mask=has_mask,
        aspects=np.full(count, 1.25),
        has_aspect=np.ones(count, dtype=np.bool_),
        coarse=np.zeros(count, dtype=np.int64),
        fine=np.zeros(count, dtype=np.int64),
    )


def test_an_image_without_a_mask_is_cut_like_the_others() -> None:
    """Its region is the mean of the known ones."""
    *known, unknown = lung_regions(_images(), 1.1)

    assert unknown.half_height == pytest.approx(known[0].half_height)
    assert unknown.center_x == pytest.approx(known[0].center_x)


def test_views_vary_and_keep_image_and_mask_together() -> None:
    """Two draws differ; the dark lungs and their mask lie at the same places in each; the same seed repeats."""
    quiet = AugmentationConfig(contrast=0.0, noise=0.0, blur_share=0.0, erase_share=0.0)
    views, indices = RandomViews(_images(), 1.1, quiet), np.arange(3)

    first = views.batch(indices, 64, np.random.default_rng(0))
    second = views.batch(indices, 64, np.random.default_rng(1))

    assert not torch.equal(first.image, second.image)
    assert torch.equal(first.image, views.batch(indices, 64, np.random.default_rng(0)).image)
    dark = first.image[:, 0] < 120 / 255
    assert float((dark == (first.lungs > 0)).float().mean()) > 0.97


def test_whole_views_do_not_teach_the_classifier() -> None:
    """With a share of 1 every view is the whole plane and none is classified."""
    views = RandomViews(_images(), 1.1, AugmentationConfig(whole_share=1.0))

    assert not views.batch(np.arange(4), 32, np.random.default_rng(0)).is_classified.any()


def test_square_views_show_the_lungs_from_edge_to_edge() -> None:
    """Lungs of 36 x 30 pixels fill a square view both ways, and teach the classifier; otherwise their sides differ."""
    still = {"scale": 0.0, "stretch": 0.0, "shift": 0.0, "turn_degrees": 0.0, "whole_share": 0.0}
    indices = np.arange(4)

    square, others = (
        RandomViews(_images(), 1.0, AugmentationConfig(square_share=share, **still)).batch(
            indices, 64, np.random.default_rng(0)
        )
        for share in (1.0, 0.0)
    )

    assert square.is_classified.all()
    lungs = square.lungs[0] > 0
    assert all(bool(edge.any()) for edge in (lungs[0], lungs[-1], lungs[:, 0], lungs[:, -1]))
    assert not bool((others.lungs[0, [0, -1]] > 0).any())
    dark = square.image[:3, 0] < 0.5
    assert float((dark == (square.lungs[:3] > 0)).float().mean()) > 0.9


def _batch(is_classified: list[bool], has_mask: list[bool]) -> Batch:
    return Batch(
        image=torch.zeros(2, 1, 8, 8),
        lungs=torch.zeros(2, 8, 8, dtype=torch.int64),
        has_mask=torch.tensor(has_mask),
        is_classified=torch.tensor(is_classified),
        coarse=torch.tensor([0, 1]),
        fine=torch.tensor([0, 2]),
    )


def _output() -> NetworkOutput:
    logits = ClassLogits(
        torch.tensor([[2.0, 0.0], [0.0, 2.0]], requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    )
    return NetworkOutput(logits, (logits, logits), torch.zeros(2, 3, 8, 8, requires_grad=True))


def test_the_hierarchical_loss_is_the_sum_of_its_levels() -> None:
    """Coarse and fine cross-entropy add up by the chain rule; scales that say the same cost nothing."""
    losses = hybrid_loss(_output(), _batch([True, True], [True, True]), (0, 1, 1), LossConfig(smoothing=0.0))

    coarse = float(np.log1p(np.exp(-2.0)))
    assert losses.coarse.item() == pytest.approx(coarse, abs=1e-5)
    assert losses.fine.item() == pytest.approx(coarse + np.log(2) / 2, abs=1e-5)
    assert losses.agreement.item() == pytest.approx(0, abs=1e-6)


def test_what_may_not_teach_has_no_part_in_the_loss() -> None:
    """Without classified views and masks the loss is 0 and still has a gradient to follow."""
    losses = hybrid_loss(_output(), _batch([False, False], [False, False]), (0, 1, 1), LossConfig())

    assert losses.total.item() == 0
    assert losses.total.requires_grad


def test_agreement_grows_with_the_gap_and_pulls_the_scale_alone() -> None:
    """The divergence is positive for other answers, and the fused answer gets no gradient from it."""
    fused = torch.tensor([[0.0, 3.0]], requires_grad=True)
    alone = torch.tensor([[2.0, 0.0]], requires_grad=True)
    fine = torch.zeros(1, 3)

    def levels(coarse: torch.Tensor) -> LogProbabilities:
        return hierarchical_log_probabilities(ClassLogits(coarse, fine), (0, 1, 1))

    loss = agreement_loss(levels(fused), [levels(alone)])
    loss.backward()

    assert loss.item() > 0.5
    assert fused.grad is None
    assert alone.grad is not None and float(alone.grad.abs().sum()) > 0


def test_smoothing_spreads_the_target() -> None:
    """The smoothed loss is the cross-entropy with (1 - e) on the class and e spread evenly over all."""
    log_probabilities = torch.log_softmax(torch.tensor([[1.0, 2.0, 0.5]]), dim=1)

    loss = smoothed_nll(log_probabilities, torch.tensor([1]), 0.3)

    target = torch.tensor([0.1, 0.8, 0.1])
    assert float(loss) == pytest.approx(float(-(target * log_probabilities).sum()), abs=1e-6)


def test_the_temperature_of_overconfident_scores_is_found() -> None:
    """Scores that are three times too large get a temperature of about three."""
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 1.5, (4000, 3))
    truth = np.array([generator.choice(3, p=row) for row in special.softmax(honest, axis=1)])

    assert fit_temperature([honest[None] * 3], [truth]) == pytest.approx(3.0, rel=0.1)
    assert fit_temperature([], []) == 1.0


def test_cases_that_are_all_right_do_not_make_certain() -> None:
    """Thirty right answers at 0.9 are no reason to claim 0.999."""
    scores = np.tile([np.log(9), 0.0], (30, 1))

    temperature = fit_temperature([scores[None]], [np.zeros(30, dtype=np.int64)])

    assert 0.4 < temperature < 1
    assert special.expit(np.log(9) / temperature) < 0.99


def test_the_temperature_is_fitted_to_the_mean_over_the_posterior() -> None:
    """Scores that vary are blunter in the mean; the temperature that makes them honest again is smaller."""
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 1.5, (4000, 2))
    truth = np.array([generator.choice(2, p=row) for row in special.softmax(honest, axis=1)])
    varied = honest + generator.normal(0, 2, (64, 1, 1)) * np.array([1, -1])

    alone, together = fit_temperature([honest[None]], [truth]), fit_temperature([varied], [truth])

    assert alone == pytest.approx(1.0, rel=0.1)
    assert together < 0.8 * alone


def test_the_learning_rate_climbs_falls_and_starts_again() -> None:
    """Each cycle ends at nothing; the second peaks at its own height."""
    loop = LoopConfig(cycles=(8, 4), warm_up_share=0.1, later_rate=0.5)
    rates = np.array([schedule(step / 100, loop) for step in range(1200)])

    assert rates[:800].max() == pytest.approx(1.0, abs=0.01)
    assert rates[80:799].tolist() == sorted(rates[80:799], reverse=True)
    assert rates[799] < 0.001
    assert rates[800:].max() == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 0.001


def test_figures_replace_their_table_and_nothing_else(tmp_path: Path) -> None:
    """Comments and other tables stay; the old table goes with its sub-tables; writing twice is writing once."""
    file = tmp_path / "bundle.toml"
    file.write_text(
        "# a comment\nname = 'x'\n\n[evaluation]\nold = 1\n\n[evaluation.more]\nold = 2\n\n[data]\nkept = 3\n"
    )

    for _ in range(2):
        write_table(file, "evaluation", {"images": 5, "coarse": {"auc": 0.5}})

    text = file.read_text()
    assert text.startswith("# a comment\n")
    assert tomllib.loads(text) == {
        "name": "x",
        "data": {"kept": 3},
        "evaluation": {"images": 5, "coarse": {"auc": 0.5}},
    }


def test_several_tables_are_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One goes, one comes, one changes, and the file is replaced a single time."""
    file = tmp_path / "bundle.toml"
    file.write_text("name = 'x'\n\n[gone]\nold = 1\n\n[changed]\nold = 2\n\n[data]\nkept = 3\n")
    seen, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: seen.append(target) or replace(path, target))

    write_tables(file, {"gone": None, "changed": {"new": 1}, "come": {"new": 2}})

    assert tomllib.loads(file.read_text()) == {
        "name": "x",
        "data": {"kept": 3},
        "changed": {"new": 1},
        "come": {"new": 2},
    }
    assert seen == [file]


def test_a_digest_is_written_in_its_place(tmp_path: Path) -> None:
    """The declared digest changes; a file without one is refused."""
    file = tmp_path / "bundle.toml"
    file.write_text(f'[weights]\nsha256 = "{"0" * 64}"\n')

    write_digest(file, "ab" * 32)

    assert tomllib.loads(file.read_text()) == {"weights": {"sha256": "ab" * 32}}
    file.write_text("[weights]\n")
    with pytest.raises(ValueError, match="sha256"):
        write_digest(file, "ab" * 32)
