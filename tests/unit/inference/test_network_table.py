"""Every combination of parts that the `[network]` table allows is built, and learns in one step."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import combinations, product

import pytest
import torch

from inference.networks.backbone import BACKBONES
from inference.networks.config import HybridMedNetConfig
from inference.networks.fusion import FUSIONS
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.scale_attention import ATTENTIONS

CHOICES: dict[str, tuple[object, ...]] = {
    "backbone": BACKBONES,
    "scales": ((1.0,), (1.0, 0.5)),
    "attention": tuple(ATTENTIONS),
    "alignment": (False, True),
    "fusion": tuple(FUSIONS),
    "local_global": (False, True),
    "dynamic_kernels": (0, 2),
    "experts": (0, 3),
    "hierarchy": (True, False),
    "inputs": (1, 2),
    "checkpointing": (False, True),
}
SIZES = {"width", "inner", "channels", "decoder_width", "dropout"}


def pairs_of_choices() -> list[dict[str, object]]:
    """Return tables in which each pair of choices of two fields stands together at least once, few as they are."""
    open_pairs = {
        ((one, x), (other, y))
        for one, other in combinations(CHOICES, 2)
        for x, y in product(CHOICES[one], CHOICES[other])
    }
    tables = []
    while open_pairs:
        (one, x), (other, y) = min(open_pairs, key=repr)
        table = {one: x, other: y}
        for field in [field for field in CHOICES if field not in table]:
            table[field] = max(
                CHOICES[field],
                key=lambda choice: (len(open_pairs & set(_pairs({**table, field: choice}))), repr(choice)),
            )
        open_pairs -= set(_pairs(table))
        tables.append(table)
    return tables


def _pairs(table: dict[str, object]) -> Iterator[tuple[tuple[str, object], tuple[str, object]]]:
    ordered = [(field, table[field]) for field in CHOICES if field in table]
    yield from combinations(ordered, 2)


TABLES = pairs_of_choices()


def test_no_field_of_the_table_is_forgotten() -> None:
    """Each field of the table is a choice here or a size."""
    assert {field.name for field in fields(HybridMedNetConfig)} == CHOICES.keys() | SIZES


@pytest.mark.parametrize(
    "table", TABLES, ids=[f"{number:02d}-{table['backbone']}" for number, table in enumerate(TABLES)]
)
def test_each_pair_of_parts_learns_in_one_step(table: dict[str, object]) -> None:
    """Every parameter has a finite gradient, and a step along it changes what the network says."""
    torch.manual_seed(0)
    width = 32 if str(table["backbone"]).startswith("swin") else 8
    config = HybridMedNetConfig.from_table({**table, "width": width, "channels": 8, "decoder_width": 8, "dropout": 0.0})
    network = HybridMedNet(config, 2, 3, 3, parents=(0, 1, 1)).train()
    images = torch.randn(2, config.inputs, 64, 64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    before = network(images)
    loss = before.segmentation.square().mean() + before.classes.coarse.square().sum() + before.classes.fine.sum()
    (loss + sum(scale.fine.square().sum() for scale in before.per_scale)).backward()
    unreached = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    optimizer.step()
    after = network(images)

    assert unreached == []
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    assert not torch.allclose(after.segmentation, before.segmentation)
    assert after.segmentation.shape == (2, 3, 64, 64)
