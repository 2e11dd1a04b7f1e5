"""What a bundle's training table switches on: the mathematics of each part, and a run with all of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses.focal_loss import FocalLoss
from numpy.typing import NDArray

from inference.errors import BundleError
from inference.networks.config import HybridMedNetConfig
from inference.networks.experts import unevenness
from inference.networks.hybridmednet import HybridMedNet
from inference.training.augmentation import AugmentationConfig, RandomViews
from inference.training.clahe import equalised
from inference.training.contrastive import contrastive_loss
from inference.training.data import Images
from inference.training.distillation import softened_divergence
from inference.training.elastic import bend, displacement
from inference.training.loop import LoopConfig, Task, fit
from inference.training.losses import PARTS, LossConfig, consistency_loss, hybrid_loss, smoothed_nll
from inference.training.precision import Precision
from inference.training.progress import Progress
from inference.training.run_log import RUN_FILE, RunLog
from inference.training.sampling import epoch_order, shares
from inference.training.task_weights import BOUND, TaskWeights

_CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: on a busy machine two wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_balance_goes_from_images_to_classes() -> None:
    """Without it every image is shown once; with 1 each class has the same share, with 0.5 the root of its count."""
    classes = np.array([0] * 90 + [1] * 10)

    assert sorted(epoch_order(classes, 0.0, np.random.default_rng(0)).tolist()) == list(range(100))
    assert shares(classes, 1.0)[classes == 1].sum() == pytest.approx(0.5)
    root = shares(classes, 0.5)[classes == 1].sum()
    assert root == pytest.approx(math.sqrt(10) / (math.sqrt(10) + math.sqrt(90)))
    drawn = classes[np.concatenate([epoch_order(classes, 1.0, np.random.default_rng(each)) for each in range(40)])]
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)


def test_the_focal_loss_is_that_of_monai() -> None:
    """On a hierarchy's probabilities, which sum to 1, it equals MONAI's softmax focal loss."""
    log_probabilities = torch.log_softmax(torch.tensor([[1.0, 2.0, 0.5], [0.1, -1.0, 3.0]]), dim=1)
    target = torch.tensor([1, 0])

    ours = smoothed_nll(log_probabilities, target, 0.0, focal=2.0)

    theirs = FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True, reduction="sum")(
        log_probabilities[..., None], target[:, None, None]
    )
    assert float(ours) == pytest.approx(float(theirs) / 2, rel=1e-4)
    assert float(smoothed_nll(log_probabilities, target, 0.0, focal=0.0)) > float(ours)


def test_a_certain_answer_gives_the_focal_loss_no_infinite_gradient() -> None:
    """The power's derivative stays finite where the probability is 1."""
    scores = torch.tensor([[60.0, -60.0]], requires_grad=True)

    smoothed_nll(torch.log_softmax(scores, dim=1), torch.tensor([0]), 0.0, focal=0.5).backward()

    assert scores.grad is not None and bool(torch.isfinite(scores.grad).all())


def test_the_contrastive_loss_is_its_formula() -> None:
    """Two pairs of classes on a circle: the value by hand, after Khosla et al., equation 2."""
    angles = torch.tensor([0.0, 0.4, 2.0, 2.9])
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    classes = torch.tensor([0, 0, 1, 1])

    loss = contrastive_loss(features, classes, temperature=0.5, hardness=0.0)

    def of(anchor: int, positive: int) -> float:
        scores = {other: math.cos(float(angles[anchor] - angles[other])) / 0.5 for other in range(4) if other != anchor}
        return math.log(sum(map(math.exp, scores.values()))) - scores[positive]

    expected = (of(0, 1) + of(1, 0) + of(2, 3) + of(3, 2)) / 4
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_hard_examples_pull_more() -> None:
    """With hardness, the image of another class that looks alike is pushed more, beside one that does not."""

    def push(hardness: float) -> float:
        angles = torch.tensor([0.0, 0.3, 0.6, 3.0], requires_grad=True)
        features = torch.stack([angles.cos(), angles.sin()], dim=1)
        contrastive_loss(features, torch.tensor([0, 0, 1, 2]), temperature=0.5, hardness=hardness).backward()
        assert angles.grad is not None
        return float(-angles.grad[2])

    assert push(2.0) > push(0.0) > 0


def test_nothing_alike_in_the_batch_costs_nothing() -> None:
    """Each class once: the loss is 0 and can be followed back."""
    features = torch.randn(3, 4, requires_grad=True)

    loss = contrastive_loss(features, torch.tensor([0, 1, 2]), 0.1, 1.0)
    loss.backward()

    assert float(loss.detach()) == 0
    assert features.grad is not None and not features.grad.any()


def test_learnt_weights_find_the_uncertainty_and_stay_bounded() -> None:
    """At the optimum exp(s) is the part's loss; a part that is 0 cannot drive its weight beyond the bound."""
    weights = TaskWeights(["coarse", "segmentation", "none"])
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.2)
    for _ in range(400):
        optimizer.zero_grad()
        weights({"coarse": torch.tensor(0.5), "segmentation": torch.tensor(2.0), "none": torch.tensor(0.0)}).backward()
        optimizer.step()

    found = weights.weights()
    assert found["coarse"] == pytest.approx(2.0, rel=0.05)
    assert found["segmentation"] == pytest.approx(0.5, rel=0.05)
    assert found["coarse"] < found["none"] <= math.exp(BOUND)


def test_a_student_that_says_the_same_has_nothing_to_learn() -> None:
    """The divergence is 0 for equal scores; its gradient is that of equation 2 of Hinton et al."""
    teacher, student = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[2.0, 0.0, 1.0]], requires_grad=True)

    loss = softened_divergence(student, teacher, temperature=3.0)
    loss.backward()

    gap = torch.softmax(student.detach() / 3, dim=1) - torch.softmax(teacher / 3, dim=1)
    assert float(softened_divergence(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)
    assert student.grad is not None and torch.allclose(student.grad, 3.0 * gap, atol=1e-5)


def _levels(coarse: list[float], fine: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([coarse], dtype=torch.float64).log(), torch.tensor([fine], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("coarse", "fine", "expected"),
    [
        ([0.3, 0.7], [0.3, 0.6, 0.1], 0.0),
        ([0.5, 0.5], [0.2, 0.3, 0.5], 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)),
        ([0.9, 0.1], [0.6, 0.4, 0.0], 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)),
    ],
)
def test_consistency_is_the_divergence_of_coarse_from_summed_fine(
    coarse: list[float], fine: list[float], expected: float
) -> None:
    """KL(coarse || fine summed over the children), by hand: 0 where they agree, also where a fine probability is 0."""
    assert float(consistency_loss(*_levels(coarse, fine), (0, 1, 1))) == pytest.approx(expected, abs=1e-12)


def test_consistency_stays_finite_where_the_levels_are_certain_of_the_opposite() -> None:
    """With scores of 200 the loss is their distance, and its gradient a number."""
    coarse = torch.tensor([[200.0, 0.0]], requires_grad=True)
    fine = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)

    loss = consistency_loss(torch.log_softmax(coarse, dim=1), torch.log_softmax(fine, dim=1), (0, 1, 1))
    loss.backward()

    assert float(loss.detach()) == pytest.approx(200, rel=1e-5)
    for scores in (coarse, fine):
        assert scores.grad is not None and bool(torch.isfinite(scores.grad).all())


def test_consistency_moves_both_levels_towards_each_other() -> None:
    """Down its gradient the coarse probability falls, the summed fine one rises, until they meet in between."""
    coarse = torch.tensor([[2.0, 0.0]], requires_grad=True)
    fine = torch.tensor([[-1.0, 0.5, 0.0]], requires_grad=True)
    optimizer = torch.optim.SGD([coarse, fine], lr=0.5)

    said = []
    for _ in range(200):
        levels = torch.log_softmax(coarse, dim=1), torch.log_softmax(fine, dim=1)
        said.append((float(levels[0].detach().exp()[0, 0]), float(levels[1].detach().exp()[0, 0])))
        optimizer.zero_grad()
        consistency_loss(*levels, (0, 1, 1)).backward()
        optimizer.step()

    assert said[0][1] < said[1][1] < said[1][0] < said[0][0]
    assert said[-1][0] == pytest.approx(said[-1][1], abs=1e-3)
    assert said[0][1] < said[-1][0] < said[0][0]


def test_an_even_histogram_is_left_as_it_is() -> None:
    """A ramp of all grey values in every tile: equalisation changes nothing, whatever the limit."""
    tile = torch.linspace(0, 1 - 1 / 256, 256).view(16, 16)
    image = tile.repeat(4, 4)[None, None]

    for limit in (1.0, 4.0):
        assert (equalised(image, 4, limit) - image).abs().max() < 1 / 128


def test_low_contrast_is_spread_up_to_the_limit() -> None:
    """A narrow ramp gains contrast with the limit; with the limit 1 it hardly changes."""
    image = 0.4 + 0.1 * torch.rand(2, 1, 60, 50, generator=torch.Generator().manual_seed(0))

    spreads = [float(equalised(image, 4, limit).std() / image.std()) for limit in (1.0, 2.0, 8.0)]

    assert spreads[0] == pytest.approx(1.0, abs=0.1)
    assert spreads[0] < spreads[1] < spreads[2]
    assert equalised(image, 4, 8.0).shape == image.shape


def test_the_field_bends_no_further_than_asked() -> None:
    """Its largest shift is the strength, neighbours move alike, and the generator alone decides."""
    field = displacement(64, 0.1, np.random.default_rng(1))

    assert field.shape == (1, 64, 64, 2)
    assert float(field.norm(dim=3).max()) == pytest.approx(0.1, rel=1e-4)
    assert float(field.diff(dim=1).norm(dim=3).max()) < 0.02
    assert torch.equal(field, displacement(64, 0.1, np.random.default_rng(1)))


def test_outlines_are_bent_with_their_image() -> None:
    """Where the bent image is bright is where the bent outline lies; classes are not mixed."""
    classes = torch.zeros(1, 64, 64, dtype=torch.int64)
    classes[0, 16:48, 16:48] = 2
    image = (classes > 0).float()[:, None]

    bent, outlines = bend(image, classes, share=1.0, strength=0.2, generator=np.random.default_rng(0))

    assert not torch.equal(outlines, classes)
    assert set(outlines.unique().tolist()) == {0, 2}
    assert ((bent[:, 0] > 0.5) == (outlines == 2)).float().mean() > 0.98


@pytest.mark.parametrize(
    ("name", "side", "reason"),
    [
        ("float16", 512, "is for GPUs"),
        ("int3", 512, "is none of"),
        ("bfloat16", 42, "needs images of 64 pixels a side at the smallest scale, these have 42"),
    ],
)
def test_half_precision_says_where_it_runs(name: str, side: int, reason: str) -> None:
    """What the CPU cannot do, and what does not exist, is refused by name."""
    with pytest.raises(BundleError, match=reason):
        Precision(name, _CPU, side)


def test_a_step_is_clipped() -> None:
    """However steep the loss, one step of plain descent goes no further than the norm allows."""
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)

    Precision("float32", _CPU, 32).step((1000 * weight).sum(), optimizer, [weight], 2.0)

    assert float(weight.detach().norm()) == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("wrong", [{"segmentation_loss": "hinge"}, {"contrastive_temperature": 0.0}, {"focal": -1.0}])
def test_a_wrong_loss_table_is_named(wrong: dict[str, object]) -> None:
    """The field stands in the error."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(LossConfig(), **wrong).check()  # type: ignore[arg-type]


def _images(count: int = 12) -> Images:
    generator = np.random.default_rng(0)
    fine: NDArray[np.int64] = np.arange(count) % 3
    grey = generator.integers(0, 255, (count, 48, 48)).astype(np.uint8)
    lungs = np.zeros((count, 48, 48), np.uint8)
    lungs[:, 10:40, 6:20], lungs[:, 10:40, 28:42] = 1, 2
    return Images(
        names=tuple(map(str, range(count))),
        groups=tuple(map(str, range(count))),
        grey=grey,
        lungs=lungs,
        has_mask=np.ones(count, dtype=np.bool_),
        aspects=np.ones(count),
        has_aspect=np.ones(count, dtype=np.bool_),
        coarse=(fine > 0).astype(np.int64),
        fine=fine,
    )


def _network(seed: int) -> HybridMedNet:
    torch.manual_seed(seed)
    config = HybridMedNetConfig(
        backbone="resnet10",
        width=8,
        channels=8,
        decoder_width=8,
        scales=(1.0, 0.5),
        experts=3,
        hierarchy="free",
        checkpointing=True,
    )
    return HybridMedNet(config, 2, 3, 3, (0, 1, 1))


def _task(precision: str) -> Task:
    return Task(
        images=_images(),
        parents=(0, 1, 1),
        size=32 if precision == "float32" else 128,
        margin=1.1,
        loop=LoopConfig(cycles=(2,), batch_size=6, small_epochs=1, small_scale=1.0, precision=precision, balance=1.0),
        augmentation=AugmentationConfig(elastic_share=0.5, clahe_share=0.5, whole_share=0.1),
        loss=LossConfig(
            focal=2.0,
            segmentation_loss="dice-focal",
            contrastive=0.2,
            contrastive_hardness=1.0,
            distillation=0.5,
            consistency=0.3,
            evenness=0.1,
            learned_weights=True,
        ),
        seed=5,
        teacher=_network(7),
    )


class _Killed(Exception):
    pass


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_run_with_every_option_ends_with_the_same_weights(tmp_path: Path, precision: str) -> None:
    """Mixed precision, balance, all losses, learnt weights, a teacher, and one of two is watched: no bit differs."""
    seen: list[Progress] = []
    watched = replace(_task(precision), watch=lambda _: {"coarse_auc": 0.5})
    whole = fit(_network(1), watched, tmp_path / "whole.pt", device=_CPU, report=seen.append)

    def kill(step: Progress) -> None:
        if step.epoch == 2:
            raise _Killed

    with pytest.raises(_Killed):
        fit(_network(1), _task(precision), tmp_path / "cut.pt", device=_CPU, report=kill)
    resumed = fit(_network(2), _task(precision), tmp_path / "cut.pt", device=_CPU, report=lambda _: None)

    assert seen[-1].figures.keys() == {"total", "coarse_auc", *PARTS}
    assert seen[-1].logged.keys() == {"learning_rate", "gradient_norm", *(f"weight_{name}" for name in PARTS)}
    assert all(math.isfinite(value) for value in seen[-1].figures.values())
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), resumed.parameters(), strict=True))
    states = [torch.load(tmp_path / name, weights_only=True)["task_weights"]["raw"] for name in ("whole.pt", "cut.pt")]
    assert torch.equal(*states) and bool((states[0] != 0).all())


def test_evenness_counts_the_views_that_teach() -> None:
    """It is the mean over the heads of the unevenness of those views' mixtures; of one linear layer there is none."""
    task, config = _task("float32"), LossConfig(evenness=1.0)
    batch = RandomViews(task.images, 1.1, AugmentationConfig(whole_share=0.5)).batch(
        np.arange(6), 32, np.random.default_rng(1)
    )
    output = _network(1).train()(batch.image)
    assert 0 < int(batch.is_classified.sum()) < 6

    found = hybrid_loss(output, batch, task.parents, config).evenness
    none = hybrid_loss(output._replace(mixtures=()), batch, task.parents, config).evenness

    expected = sum(unevenness(mixture[batch.is_classified]) for mixture in output.mixtures) / 2
    assert float(found.detach()) == pytest.approx(float(torch.as_tensor(expected).detach()))
    assert float(found.detach()) > 0 == float(none.detach())


def test_with_the_weight_experts_are_used_more_evenly(tmp_path: Path) -> None:
    """Heads that begin with a favourite: after the same steps it is the favourite less where evenness weighs."""
    images = torch.from_numpy(_images().grey)[:, None, :32, :32].float() / 255

    def learnt(evenness: float) -> float:
        network = _network(1)
        for head in (network.heads.coarse, network.heads.fine):
            torch.nn.init.constant_(head.gate.bias[:1], 2.0)
        loop = LoopConfig(cycles=(8,), batch_size=6, small_epochs=0, learning_rate=0.02, average_decay=0.5)
        still = AugmentationConfig(whole_share=0.0)
        task = replace(
            _task("float32"), loop=loop, augmentation=still, loss=LossConfig(evenness=evenness), teacher=None
        )
        trained = fit(network, task, tmp_path / f"{evenness}.pt", device=_CPU, report=lambda _: None)
        with torch.no_grad():
            mixtures = trained.train()(images).mixtures
        return float(sum(unevenness(mixture) for mixture in mixtures))

    assert learnt(1.0) < 0.5 * learnt(0.0)


def test_options_that_are_off_leave_the_views_as_they_were() -> None:
    """The shares of 0 draw no random number: a bundle that does not name them trains as before."""
    plain = AugmentationConfig()
    indices = np.arange(4)

    views = [
        RandomViews(_images(), 1.1, config).batch(indices, 32, np.random.default_rng(3)).image
        for config in (plain, replace(plain, elastic=0.5, clahe_tiles=2))
    ]

    assert torch.equal(*views)


def _log(folder: Path, hour: int, **changes: object) -> RunLog:
    facts = {"settings": {"loop": {"cycles": (2,)}}, "seed": 3, **changes}
    return RunLog(
        folder,
        bundle="tiny",
        device="cpu",
        report=lambda _: None,
        now=lambda: datetime(2026, 1, 1, hour, tzinfo=UTC),
        **facts,  # type: ignore[arg-type]
    )


def _told(folder: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((folder / RUN_FILE).read_text())
    return told


def test_a_run_writes_its_epochs_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    """The last step of each epoch stands in run.json; a resumed run goes on in it, and another one begins anew."""
    with pytest.raises(_Killed), _log(tmp_path, 1) as log:
        log(Progress("images", 1, 1))
        log(Progress("train", 1, 2, 1, 2, {"total": 9.0}))
        log(Progress("train", 2, 2, 1, 2, {"total": 1.0}))
        raise _Killed
    assert _told(tmp_path)["ended_at"] is None
    with _log(tmp_path, 2) as log:
        log(Progress("train", 2, 2, 1, 2, {"total": 1.5}))
        log(Progress("train", 2, 2, 2, 2, {"total": 0.5}))

    told = _told(tmp_path)

    assert [(one["stage"], one["epoch"], one["total"]) for one in told["epochs"]] == [  # type: ignore[attr-defined]
        ("train", 1, 1.5),
        ("train", 2, 0.5),
    ]
    assert told["begun_at"] == ["2026-01-01T01:00:00+00:00", "2026-01-01T02:00:00+00:00"]
    assert told["ended_at"] == "2026-01-01T02:00:00+00:00"
    with _log(tmp_path, 3, seed=4):
        pass
    assert _told(tmp_path)["epochs"] == []


def test_a_run_tells_which_weights_it_wrote(tmp_path: Path) -> None:
    """Their digest and the figures of the stage's last epoch; what is no number is null, as JSON has it."""
    (tmp_path / "weights.safetensors").write_bytes(b"learnt")
    with _log(tmp_path, 1) as log:
        log(Progress("train", 1, 1, 1, 2, {"coarse_auc": 0.5}))
        log(Progress("train", 1, 1, 2, 2, {"coarse_auc": 0.75}, {"learning_rate": 1.25e-7, "gradient_norm": math.inf}))
        log.wrote("train", tmp_path / "weights.safetensors")

    assert _told(tmp_path)["weights"] == [
        {
            "stage": "train",
            "file": "weights.safetensors",
            "sha256": hashlib.sha256(b"learnt").hexdigest(),
            "figures": {"coarse_auc": 0.75, "learning_rate": 1.25e-7, "gradient_norm": None},
        }
    ]


def test_tensorboard_reads_the_same_figures(tmp_path: Path) -> None:
    """TensorBoard's own reader finds each epoch's loss, and what the log alone is told."""
    with _log(tmp_path, 1) as log:
        for epoch, total in ((1, 2.0), (2, 0.5)):
            log(Progress("train", 1, 1, epoch, 2, {"total": total}, {"learning_rate": total / 4}))

    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415 # slow to import
        EventAccumulator,
    )

    read = EventAccumulator(str(tmp_path / "logs"))
    read.Reload()
    assert [(one.step, one.value) for one in read.Scalars("train/total")] == [(1, 2.0), (2, 0.5)]
    assert [one.value for one in read.Scalars("train/learning_rate")] == [0.5, 0.125]
