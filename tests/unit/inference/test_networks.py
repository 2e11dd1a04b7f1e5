"""The mathematics of each part of HybridMedNet."""

import pytest
import torch
from torch import Tensor

from inference.networks.attention import ChannelAttention, SpatialAttention
from inference.networks.backbone import build_backbone
from inference.networks.config import HybridMedNetConfig
from inference.networks.decoder import SegmentationDecoder
from inference.networks.fusion import AdaptiveFusion
from inference.networks.heads import ClassLogits, HierarchicalHeads, hierarchical_log_probabilities
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.pyramid import FeaturePyramid, at_scale
from inference.networks.scale_attention import ScaleAttention

_PARENTS = (0, 1, 1)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_trunk_halves_the_grid_from_stage_to_stage() -> None:
    """Strides are 4, 8, 16 and 32, and the width doubles."""
    stages = build_backbone("resnet10", width=8)(_random(2, 1, 64, 96))

    assert [tuple(stage.shape) for stage in stages] == [
        (2, 8, 16, 24),
        (2, 16, 8, 12),
        (2, 32, 4, 6),
        (2, 64, 2, 3),
    ]


def test_width_64_is_the_published_resnet18() -> None:
    """The trunk has the parameters of torchvision's ResNet-18, less two input channels and the classifier."""
    ours = sum(parameter.numel() for parameter in build_backbone("resnet18", width=64).parameters())

    assert ours == 11_689_512 - 2 * 64 * 49 - (512 * 1000 + 1000)


def test_scaling_keeps_the_mean_and_removes_fine_texture() -> None:
    """A one-pixel checkerboard becomes flat at half scale instead of aliasing into a coarse pattern."""
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    checkers = ((rows + columns) % 2).float()[None, None]

    half = at_scale(checkers, 0.5)

    assert half.shape == (1, 1, 16, 16)
    assert torch.allclose(half[..., 2:-2, 2:-2], torch.tensor(0.5), atol=0.02)


def test_scale_one_is_the_image_itself() -> None:
    """Nothing is resampled at scale 1."""
    image = _random(1, 1, 9, 7)

    assert at_scale(image, 1.0) is image


def test_pyramid_levels_have_one_width_and_their_stages_grids() -> None:
    """Each level keeps the grid of its stage."""
    levels = FeaturePyramid((8, 16), 24)([_random(1, 8, 12, 10), _random(1, 16, 6, 5)])

    assert [tuple(level.shape) for level in levels] == [(1, 24, 12, 10), (1, 24, 6, 5)]


def test_coarse_meaning_reaches_the_finest_level() -> None:
    """A change of the coarsest stage changes the finest level (the top-down way)."""
    pyramid = FeaturePyramid((8, 16), 24).eval()
    fine, coarse = _random(1, 8, 12, 10), _random(1, 16, 6, 5)

    changed = pyramid([fine, coarse + 1])[0] - pyramid([fine, coarse])[0]

    assert changed.abs().max() > 1e-3


def test_channel_attention_follows_its_equation() -> None:
    """The weight is sigmoid(MLP(mean) + MLP(max)), the same at every place."""
    attention, features = ChannelAttention(8), _random(2, 8, 5, 4)

    expected = torch.sigmoid(
        attention.excite(features.mean(dim=(2, 3))) + attention.excite(features.flatten(2).max(dim=2).values)
    )

    assert torch.allclose(attention(features), features * expected[:, :, None, None])


def test_spatial_attention_is_one_weight_per_place() -> None:
    """All channels of a place are weighed alike, between 0 and 1."""
    attention, features = SpatialAttention(), _random(2, 8, 9, 9)

    ratio = attention(features) / features

    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3)
    assert ratio.min() > 0
    assert ratio.max() < 1


def test_scale_attention_adds_to_every_level() -> None:
    """The attended part is added: what is unimportant stays as it was, nothing is lost."""
    attention = ScaleAttention(8)
    level = _random(1, 8, 6, 6)

    (attended,) = attention([level])

    assert torch.allclose(attended, level + attention.spatial(attention.channel(level)))


def test_fusion_weights_are_a_convex_combination() -> None:
    """Weights over the scales are positive and sum to 1; equal maps fuse to themselves."""
    fusion, level = AdaptiveFusion(8, 3), _random(2, 8, 6, 6)

    weights = fusion.weights([level, level * 2, -level])[..., 0, 0, 0]

    assert torch.allclose(weights.sum(dim=1), torch.ones(2))
    assert weights.min() > 0
    assert torch.allclose(fusion([level, level, level]), level, atol=1e-6)


def test_fusion_trusts_the_scales_that_agree() -> None:
    """With nothing learnt but the similarity, a scale that contradicts the others weighs least."""
    fusion, level = AdaptiveFusion(8, 3), _random(1, 8, 6, 6).abs()
    torch.nn.init.zeros_(fusion.score.weight)

    weights = fusion.weights([level, level, -level])[0, :, 0, 0, 0]

    assert weights[2] < weights[0]
    assert torch.isclose(weights[0], weights[1])


def test_fusion_lays_small_scales_on_the_first_grid() -> None:
    """Constant maps of other sizes fuse without a border."""
    fusion = AdaptiveFusion(4, 2)

    fused = fusion([torch.full((1, 4, 8, 8), 3.0), torch.full((1, 4, 3, 3), 3.0)])

    assert torch.allclose(fused, torch.full((1, 4, 8, 8), 3.0), atol=1e-6)


def test_children_sum_to_their_parent() -> None:
    """P(fine) sums to P(coarse) under each parent, whatever the scores and temperatures."""
    logits = ClassLogits(_random(5, 2) * 4, _random(5, 3, seed=1) * 4)

    levels = hierarchical_log_probabilities(logits, _PARENTS, (1.7, 0.4))

    coarse, fine = levels.coarse.exp(), levels.fine.exp()
    assert torch.allclose(fine[:, 0], coarse[:, 0], atol=1e-6)
    assert torch.allclose(fine[:, 1] + fine[:, 2], coarse[:, 1], atol=1e-6)
    assert torch.allclose(fine.sum(dim=1), torch.ones(5), atol=1e-6)


def test_a_higher_temperature_softens_and_keeps_the_order() -> None:
    """Temperature 3 pulls the top probability down and leaves the answer alone."""
    logits = ClassLogits(torch.tensor([[0.0, 3.0]]), torch.tensor([[9.0, 1.0, 2.0]]))

    sharp = hierarchical_log_probabilities(logits, _PARENTS)
    soft = hierarchical_log_probabilities(logits, _PARENTS, (3.0, 3.0))

    assert soft.coarse.exp().max() < sharp.coarse.exp().max()
    assert soft.coarse.argmax() == sharp.coarse.argmax()


def test_the_score_of_an_only_child_does_not_matter() -> None:
    """P(normal | normal) is 1: the fine score of a class without siblings changes nothing."""
    coarse = torch.tensor([[1.0, 0.0]])
    low = hierarchical_log_probabilities(ClassLogits(coarse, torch.tensor([[-9.0, 1.0, 2.0]])), _PARENTS)
    high = hierarchical_log_probabilities(ClassLogits(coarse, torch.tensor([[9.0, 1.0, 2.0]])), _PARENTS)

    assert torch.allclose(low.fine, high.fine)


def test_heads_pool_means_and_maxima_of_all_levels() -> None:
    """Each level of each width counts once by its mean and once by its maximum."""
    heads = HierarchicalHeads(features=2 * 2 * 4, coarse=2, fine=3).eval()
    levels = [_random(1, 4, 8, 8), _random(1, 4, 4, 4, seed=1)]
    flat = [level.flatten(2) for level in levels]

    pooled = torch.cat([part.mean(dim=2) for part in flat] + [part.max(dim=2).values for part in flat], dim=1)

    assert torch.allclose(heads(levels).classes.coarse, heads.coarse(pooled), atol=1e-6)


def test_the_decoder_scores_every_pixel() -> None:
    """Scores lie on the asked grid, whatever the levels' sizes."""
    decoder = SegmentationDecoder(channels=8, levels=2, classes=3, width=8).eval()

    scores = decoder([_random(1, 8, 12, 10), _random(1, 8, 6, 5)], (48, 40))

    assert scores.shape == (1, 3, 48, 40)


def _network() -> HybridMedNet:
    torch.manual_seed(0)
    return HybridMedNet(HybridMedNetConfig(backbone="resnet10", width=8, channels=8, decoder_width=8), 2, 3, 3)


def test_the_whole_network_answers_every_image_alone() -> None:
    """In evaluation an image's scores do not depend on its batch, and the scales alone are not scored."""
    network, images = _network().eval(), _random(3, 1, 64, 64)

    together, alone = network(images), network(images[1:2])

    assert torch.allclose(together.classes.coarse[1:2], alone.classes.coarse, atol=1e-5)
    assert together.segmentation.shape == (3, 3, 64, 64)
    assert together.per_scale == ()


def test_training_reaches_every_parameter() -> None:
    """Every parameter gets a gradient from the two outputs and the scales."""
    network = _network().train()

    output = network(_random(2, 1, 64, 64))
    loss = output.segmentation.square().mean() + output.classes.coarse.square().sum() + output.classes.fine.sum()
    (loss + sum(scale.fine.square().sum() for scale in output.per_scale)).backward()

    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"backbone": "resnet9"}, "network.backbone"),
        ({"scales": [0.5, 1.0]}, "network.scales"),
        ({"depth": 3}, "network.depth"),
        ({"width": 4}, "network.width"),
        ({"hierarchy": "loose"}, "network.hierarchy"),
    ],
)
def test_a_wrong_network_table_is_named(table: dict[str, object], field: str) -> None:
    """The error says which field does not fit."""
    with pytest.raises(ValueError, match=field):
        HybridMedNetConfig.from_table({"kind": "hybridmednet", **table})
