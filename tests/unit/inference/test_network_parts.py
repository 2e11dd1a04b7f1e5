"""The mathematics of the parts that `[network]` chooses among."""

import pytest
import torch
from torch import Tensor, nn

from inference.networks.alignment import Alignment, moved, with_spread_of
from inference.networks.attention import SqueezeExcitation
from inference.networks.backbone import build_backbone
from inference.networks.cross_scale_attention import CrossScaleAttention
from inference.networks.decoder import SegmentationDecoder
from inference.networks.dynamic_convolution import DynamicConvolution
from inference.networks.experts import ExpertHead, unevenness
from inference.networks.fusion import FUSIONS, HybridFusion
from inference.networks.heads import FreeHeads, HierarchicalHeads, hierarchical_log_probabilities
from inference.networks.hrnet import FuseLayer
from inference.networks.hybrid_convolution import CONVOLUTIONS
from inference.networks.local_global import LocalGlobalFusion
from inference.networks.parts import ATTENTION_NAMES, BACKBONES, CONVOLUTION_NAMES, FUSION_NAMES
from inference.networks.scale_attention import ATTENTIONS, JointAttention, MixedAttention, SummedAttention


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_names_that_are_checked_without_torch_are_those_of_the_parts() -> None:
    """What the `[network]` table may name is what can be built."""
    assert (tuple(ATTENTIONS), tuple(FUSIONS), tuple(CONVOLUTIONS)) == (
        ATTENTION_NAMES,
        FUSION_NAMES,
        CONVOLUTION_NAMES,
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_every_trunk_gives_four_strides_and_says_their_widths(name: str) -> None:
    """Maps lie on quarter, eighth, sixteenth and thirty-second of the grid, with the widths that the trunk tells."""
    width = 32 if name.startswith("swin") else 16
    trunk = build_backbone(name, width).eval()

    stages = trunk(_random(1, 1, 64, 96))

    assert [tuple(stage.shape) for stage in stages] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(trunk.channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "width", "published", "left_out"),
    [
        # Swin-T: two input channels of 4 x 4 patches, the classifier, and our norms of three stages more than its one.
        ("swin_t", 96, 28_288_354, 2 * 96 * 16 + (768 * 1000 + 1000) - 2 * (96 + 192 + 384)),
        # EfficientNet-B0: two input channels, the last 1 x 1 convolution with its norm, the classifier.
        ("efficientnet_b0", 64, 5_288_548, 2 * 32 * 9 + (320 * 1280 + 2 * 1280) + (1280 * 1000 + 1000)),
    ],
)
def test_at_the_published_width_a_trunk_is_the_published_one(
    name: str, width: int, published: int, left_out: int
) -> None:
    """The number of parameters is that of the papers' networks, less what a trunk has no use for."""
    ours = sum(parameter.numel() for parameter in build_backbone(name, width).parameters())

    assert ours == published - left_out


def test_high_resolution_branches_tell_each_other() -> None:
    """A change in the coarsest branch changes the finest after one fuse layer, and the other way round."""
    fuse = FuseLayer((8, 16, 32)).eval()
    branches = [_random(1, 8, 16, 16), _random(1, 16, 8, 8), _random(1, 32, 4, 4)]
    plain = fuse(branches)

    from_coarse = fuse([*branches[:2], branches[2] + 1])
    from_fine = fuse([branches[0] + 1, *branches[1:]])

    assert (from_coarse[0] - plain[0]).abs().max() > 1e-4
    assert (from_fine[2] - plain[2]).abs().max() > 1e-4


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
def test_attention_adds_between_nothing_and_twice_the_level(name: str) -> None:
    """Each kind keeps shapes and signs; only 'none' leaves everything as it is."""
    levels = [_random(2, 8, 6, 6), _random(2, 8, 3, 3, seed=1)]

    attended = ATTENTIONS[name](8)(levels)

    for level, result in zip(levels, attended, strict=True):
        ratio = result / level
        assert ratio.min() >= 1
        assert ratio.max() <= 3
        assert torch.equal(result, level) == (name == "none")


def test_squeeze_and_excitation_follows_its_equation() -> None:
    """Each channel is multiplied by its weight, sigmoid(W2 relu(W1 z)) of the means z over the places."""
    attention, features = SqueezeExcitation(2), torch.empty(1, 2, 2, 2)
    features[0, 0], features[0, 1] = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([[-4.0, 2.0], [-1.0, -1.0]])
    first, second = attention.excite[0], attention.excite[2]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 1.0], [0.0, -1.0]]))
        first.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.0]))
        second.weight.copy_(torch.tensor([[1.0, 5.0, 0.0, -1.0], [0.0, 5.0, 2.0, 0.5]]))
        second.bias.copy_(torch.tensor([0.0, -1.0]))

    weights = attention.weights(features)

    # z = (2, -1); relu(W1 z + b1) = (2, 0, 0.5, 1); W2 (2, 0, 0.5, 1) + b2 = (2 - 1, 1 + 0.5 - 1) = (1, 0.5).
    expected = torch.sigmoid(torch.tensor([1.0, 0.5]))[None, :, None, None]
    assert torch.allclose(weights, expected, atol=1e-6)
    assert torch.allclose(attention(features), features * expected, atol=1e-6)


def test_joint_attention_is_the_sigmoid_of_summed_scores() -> None:
    """One weight per channel and place: sigmoid(channel score + place score)."""
    joint, features = JointAttention(8), _random(2, 8, 5, 4)
    channel = joint.channel.excite(features.mean(dim=(2, 3))) + joint.channel.excite(features.amax(dim=(2, 3)))
    maps = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)

    expected = torch.sigmoid(channel[:, :, None, None] + joint.spatial.locate(maps))

    assert torch.allclose(joint.weights(features), expected, atol=1e-5)


def test_summed_attention_adds_both_weights() -> None:
    """X * (se + cbam): the weights of one, plus the product of the weights of the other."""
    summed, features = SummedAttention(8), _random(2, 8, 5, 4)
    cbam = summed.spatial(summed.channel(features)) / features

    assert torch.allclose(summed.weights(features), summed.squeeze.weights(features) + cbam, rtol=1e-3, atol=1e-5)


def test_mixed_attention_weighs_places_of_fine_levels_and_channels_of_coarse_ones() -> None:
    """The finer level's weights are one for all channels, the coarser's one for all places."""
    fine, coarse = _random(1, 8, 6, 6), _random(1, 8, 3, 3)

    by_place, by_channel = (
        result / level for result, level in zip(MixedAttention(8)([fine, coarse]), (fine, coarse), strict=True)
    )

    assert torch.allclose(by_place, by_place[:, :1].expand_as(by_place), atol=1e-4)
    assert torch.allclose(by_channel, by_channel[:, :, :1, :1].expand_as(by_channel), atol=1e-4)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_every_fusion_is_a_mean_of_the_scales(name: str) -> None:
    """Weights sum to 1 over the scales, whatever they look at; so equal maps fuse to themselves."""
    fusion, level = FUSIONS[name](8, 3), _random(2, 8, 6, 6)

    weights = fusion.weights([level, 2 * level, -level])

    assert torch.allclose(weights.sum(dim=1), torch.ones(()), atol=1e-6)
    assert torch.allclose(fusion([level, level, level]), level, atol=1e-6)


def test_hybrid_fusion_differs_by_channel_and_place() -> None:
    """Its weights have a value of their own for every scale, channel and place."""
    weights = HybridFusion(8, 2).weights([_random(1, 8, 4, 5), _random(1, 8, 2, 2, seed=1)])

    assert weights.shape == (1, 2, 8, 4, 5)
    assert weights.std(dim=(3, 4)).min() > 0
    assert weights.std(dim=2).min() > 0


def test_alignment_starts_as_interpolation_with_the_reference_s_spread() -> None:
    """Nothing learnt: places and meaning stay, mean and spread are the reference's."""
    small, reference = _random(1, 8, 4, 4), 3 * _random(1, 8, 8, 8, seed=1) + 2

    aligned = Alignment(8)(small, reference)

    enlarged = nn.functional.interpolate(small, size=(8, 8), mode="bilinear")
    assert torch.allclose(aligned, with_spread_of(enlarged, reference), atol=1e-4)
    assert torch.allclose(aligned.mean(dim=(2, 3)), reference.mean(dim=(2, 3)), atol=1e-4)
    assert torch.allclose(aligned.std(dim=(2, 3)), reference.std(dim=(2, 3)), atol=1e-2)


def test_an_offset_of_one_pixel_moves_by_one_pixel() -> None:
    """Offsets are along x and y, in pixels of the grid."""
    features, offsets = _random(1, 3, 6, 7), torch.zeros(1, 2, 6, 7)
    offsets[:, 0] = 1

    assert torch.allclose(moved(features, offsets)[..., :-1], features[..., 1:], atol=1e-5)


def test_a_place_like_the_rest_takes_more_of_the_whole() -> None:
    """The weight of the context grows with the similarity of place and mean."""
    fusion, features = LocalGlobalFusion(8), torch.ones(1, 8, 4, 4)
    features[..., 0, 0] = -1

    weights = fusion.weights(features)

    assert weights[0, 0, 0, 0] < weights[0, 0, 2, 2]


def test_a_dynamic_convolution_is_the_convolution_with_the_mixed_kernel() -> None:
    """Each sample is convolved with its own mixture of kernels and biases."""
    dynamic, features = DynamicConvolution(8, experts=3), _random(2, 8, 5, 6)
    nn.init.normal_(dynamic.biases, generator=torch.Generator().manual_seed(1))
    mixture = dynamic.mixture(features)

    expected = [
        nn.functional.conv2d(
            features[index : index + 1],
            torch.tensordot(mixture[index], dynamic.kernels, dims=1),
            mixture[index] @ dynamic.biases,
            padding=1,
        )
        for index in range(2)
    ]

    assert torch.allclose(dynamic(features), torch.cat(expected), atol=1e-4)


def test_experts_are_weighed_by_the_sample() -> None:
    """The scores are the mean of the experts', with weights that sum to 1; all alike is even."""
    head, features = ExpertHead(6, 3, experts=4), _random(5, 6)

    mixture = head.mixture(features)
    expected = sum(mixture[:, index : index + 1] * expert(features) for index, expert in enumerate(head.experts))

    assert torch.allclose(head(features), torch.as_tensor(expected), atol=1e-6)
    assert torch.allclose(mixture.sum(dim=1), torch.ones(5))
    assert unevenness(torch.full((5, 4), 0.25)) == 0
    assert torch.isclose(unevenness(torch.eye(4)[:1]), torch.tensor(3.0))


def test_free_heads_answer_the_fine_softmax_and_its_sums() -> None:
    """What they answer is one softmax and its sums over children; the coarse softmax stands beside it."""
    torch.manual_seed(0)
    heads = FreeHeads(6, (0, 1, 1)).eval()

    said = heads([_random(4, 1, 3, 3, seed=seed) for seed in range(3)])

    answer = hierarchical_log_probabilities(said.classes, (0, 1, 1))
    expected = torch.softmax(said.classes.fine, dim=1)
    assert torch.allclose(answer.fine.exp(), expected, atol=1e-6)
    assert torch.allclose(answer.coarse.exp()[:, 1], expected[:, 1:].sum(dim=1), atol=1e-6)
    assert said.coarse_alone is not None
    assert (torch.softmax(said.coarse_alone, dim=1) - answer.coarse.exp()).abs().max() > 1e-2


def test_heads_tell_the_mixtures_that_they_scored_by() -> None:
    """One of each head of several experts, those of this very pass: what is dropped is dropped from both."""
    torch.manual_seed(0)
    heads, levels = (
        HierarchicalHeads(6, 2, 3, dropout=0.5, experts=4),
        [_random(5, 1, 3, 3, seed=each) for each in range(3)],
    )
    seen: list[Tensor] = []
    heads.drop.register_forward_hook(lambda *passed: seen.append(passed[2]))

    said = heads(levels)

    assert torch.equal(said.mixtures[0], heads.coarse.mixture(seen[0]))
    assert torch.equal(said.mixtures[1], heads.fine.mixture(seen[0]))
    assert HierarchicalHeads(6, 2, 3)(levels).mixtures == ()


def test_the_decoder_classifies_the_sum_of_the_lifted_levels() -> None:
    """Each level is convolved, cut at zero and enlarged to the finest grid; all count alike."""
    decoder = SegmentationDecoder(channels=8, levels=3, classes=8, width=8).eval()
    for lift in decoder.lift:
        nn.init.dirac_(lift[0].weight)
    nn.init.dirac_(decoder.classify.weight)
    nn.init.zeros_(decoder.classify.bias)
    levels = [_random(2, 8, 8, 12), _random(2, 8, 4, 6, seed=1), _random(2, 8, 2, 3, seed=2)]

    scores = decoder(levels, (8, 12))

    enlarged = [nn.functional.interpolate(level.relu(), size=(8, 12), mode="bilinear") for level in levels]
    assert torch.allclose(scores, enlarged[0] + enlarged[1] + enlarged[2], atol=1e-4)
    flat = decoder(
        [torch.full_like(level, value) for level, value in zip(levels, (1.0, 2.5, -4.0), strict=True)], (16, 24)
    )
    assert torch.allclose(flat, torch.tensor(3.5), atol=1e-4)


def test_the_second_input_is_asked_by_scaled_dot_products() -> None:
    """softmax(Q K^T / sqrt(d)) V for each head, of tokens with their position; then the heads are mixed."""
    torch.manual_seed(0)
    attention = CrossScaleAttention(8, heads=2, grid=(3, 4)).eval()
    nn.init.normal_(attention.position)
    nn.init.normal_(attention.attend.in_proj_bias)
    first, second = _random(2, 8, 3, 4), _random(2, 8, 3, 4, seed=1)

    heard = attention.answers(first, second)

    asked, told = ((each + attention.position).flatten(2).transpose(1, 2) for each in (first, second))  # (B, 12, 8)
    asked, told = attention.ask_norm(asked), attention.answer_norm(told)
    weights, biases = attention.attend.in_proj_weight.chunk(3), attention.attend.in_proj_bias.chunk(3)
    query, key, value = (
        (tokens @ weight.T + bias).unflatten(2, (2, 4)).transpose(1, 2)  # (B, heads, 12, 4)
        for tokens, weight, bias in zip((asked, told, told), weights, biases, strict=True)
    )
    mixed = torch.softmax(query @ key.transpose(2, 3) / 4**0.5, dim=3) @ value  # (B, heads, 12, 4)
    expected = attention.attend.out_proj(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(first.shape)
    assert torch.allclose(heard, expected, atol=1e-5)


def test_each_group_of_the_fusing_convolution_sees_both_inputs() -> None:
    """A group's channels are convolved from its share of the first input and its share of the answers."""
    torch.manual_seed(0)
    attention = CrossScaleAttention(8, groups=4).eval()
    first, second = _random(1, 8, 5, 5), _random(1, 8, 5, 5, seed=1)
    heard = attention.answers(first, second)

    fused = attention(first, second)

    weight, bias = attention.fuse.weight, attention.fuse.bias
    assert bias is not None and weight.shape == (8, 4, 3, 3)
    for own in (slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)):
        both = torch.cat([first[:, own], heard[:, own]], dim=1)
        added = nn.functional.conv2d(both, weight[own], bias[own], padding=1)
        assert torch.allclose(fused[:, own], first[:, own] + added, atol=1e-5)


def test_masked_places_of_the_second_input_say_nothing() -> None:
    """What lies outside the second input's cover changes nothing; an image without any cover hears zeros."""
    torch.manual_seed(0)
    attention = CrossScaleAttention(8).eval()
    first, second = _random(2, 8, 4, 4), _random(2, 8, 4, 4, seed=1)
    covered = torch.ones(2, 4, 4, dtype=torch.bool)
    covered[0, :, 2:] = False
    covered[1] = False
    other = second.clone()
    other[0, :, :, 2:] += 5

    heard = attention.answers(first, second, covered)

    assert torch.allclose(heard, attention.answers(first, other, covered), atol=1e-6)
    assert torch.count_nonzero(heard[1]) == 0
    assert torch.isfinite(attention(first, second, covered)).all()


def test_the_position_tells_equal_places_apart() -> None:
    """With the same content everywhere, what is heard differs by place once positions are learnt."""
    torch.manual_seed(0)
    attention = CrossScaleAttention(8).eval()
    nn.init.normal_(attention.position, std=2.0)
    flat = torch.ones(1, 8, 5, 5)

    heard = attention.answers(flat, _random(1, 8, 5, 5))

    assert heard.std(dim=(2, 3)).max() > 1e-3
