"""Every combination of parts that the `[network]` table of a bundle for projection images allows, built and taught.

`make test` takes a few in which each pair of choices stands together. All of them take an hour or two:

    python -m tests.network_tables --out FILE [--backbone NAME …] [--part 1/4]

What is done stands in FILE, so that a run that was ended goes on; the exit status is 1 where a combination fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import torch

from inference.networks.config import HybridMedNetConfig
from inference.networks.fusion import FUSIONS
from inference.networks.hybridmednet import HybridMedNet
from inference.networks.parts import BACKBONES
from inference.networks.scale_attention import ATTENTIONS

Table = dict[str, object]

CHOICES: dict[str, tuple[object, ...]] = {
    "backbone": BACKBONES,
    "scales": ((1.0,), (1.0, 0.5)),
    "attention": tuple(ATTENTIONS),
    "alignment": (False, True),
    "fusion": tuple(FUSIONS),
    "local_global": (False, True),
    "dynamic_kernels": (0, 2),
    "experts": (0, 3),
    "hierarchy": (True, False, "free"),
    "inputs": (1, 2),
    "checkpointing": (False, True),
}
SIZES = {"width", "inner", "channels", "decoder_width", "dropout"}
_SIDE = 64
_TOLD_EVERY = 100


@dataclass(frozen=True, slots=True)
class Learnt:
    """What came of one step."""

    unreached: list[str]
    """Parameters without a gradient."""
    is_finite: bool
    has_changed: bool
    """Whether the network says something else after the step."""
    shape: tuple[int, ...]
    """Of the segmentation."""

    @property
    def is_right(self) -> bool:
        """Whether all of it is as it should be."""
        return not self.unreached and self.is_finite and self.has_changed and self.shape == (2, 3, _SIDE, _SIDE)


def learn(table: Mapping[str, object]) -> Learnt:
    """Build the network of a table and take one step of gradient descent."""
    torch.manual_seed(0)
    width = 32 if str(table["backbone"]).startswith("swin") else 8
    config = HybridMedNetConfig.from_table({**table, "width": width, "channels": 8, "decoder_width": 8, "dropout": 0.0})
    network = HybridMedNet(config, 2, 3, 3, parents=(0, 1, 1)).train()
    images = torch.randn(2, config.inputs, _SIDE, _SIDE)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    before = network(images)
    loss = before.segmentation.square().mean() + before.classes.coarse.square().sum() + before.classes.fine.sum()
    if before.coarse_alone is not None:
        loss = loss + before.coarse_alone.square().sum()
    (loss + sum(scale.fine.square().sum() for scale in before.per_scale)).backward()
    unreached = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    optimizer.step()
    after = network(images)

    return Learnt(
        unreached,
        all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()),
        not torch.allclose(after.segmentation, before.segmentation),
        tuple(after.segmentation.shape),
    )


def pairs_of_choices() -> list[Table]:
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


def _pairs(table: Table) -> Iterator[tuple[tuple[str, object], tuple[str, object]]]:
    ordered = [(field, table[field]) for field in CHOICES if field in table]
    yield from combinations(ordered, 2)


def all_tables(backbones: tuple[object, ...]) -> list[Table]:
    """Return every combination with one of these backbones."""
    choices = {**CHOICES, "backbone": backbones}
    return [dict(zip(choices, chosen, strict=True)) for chosen in product(*choices.values())]


def main() -> int:
    """Go through the combinations that are not done yet."""
    parser = argparse.ArgumentParser(prog="python -m tests.network_tables", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="one line of JSON for each combination that is done")
    parser.add_argument("--backbone", nargs="+", choices=BACKBONES, default=BACKBONES, metavar="NAME")
    parser.add_argument("--part", default="1/1", help="for several processes: which of how many parts (%(default)s)")
    arguments = parser.parse_args()
    part, parts = (int(each) for each in arguments.part.split("/"))
    torch.set_num_threads(1)
    done = _done(arguments.out)
    tables = all_tables(tuple(arguments.backbone))[part - 1 :: parts]
    with arguments.out.open("a", encoding="utf-8") as out:
        for number, table in enumerate(tables, start=1):
            key = json.dumps(table)
            if key not in done:
                done[key] = _is_right(table)
                out.write(json.dumps({"table": table, "is_right": done[key]}) + "\n")
                out.flush()
            if number % _TOLD_EVERY == 0 or number == len(tables):
                print(f"{number} of {len(tables)} combinations", flush=True)
    wrong = [table for table in tables if not done[json.dumps(table)]]
    for table in wrong:
        print(f"wrong: {json.dumps(table)}")
    print(f"{len(tables) - len(wrong)} of {len(tables)} combinations learn in one step")
    return int(bool(wrong))


def _is_right(table: Table) -> bool:
    try:
        return learn(table).is_right
    except (RuntimeError, ValueError, TypeError) as error:
        print(f"{json.dumps(table)}: {error}", flush=True)
        return False


def _done(file: Path) -> dict[str, bool]:
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {json.dumps(each["table"]): bool(each["is_right"]) for each in lines}


if __name__ == "__main__":
    sys.exit(main())
