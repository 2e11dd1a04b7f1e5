"""Every combination of parts that the `[network]` table allows is built, and learns in one step.

Here each pair of choices; all combinations by `python -m tests.network_tables`.
"""

from dataclasses import fields

import pytest

from inference.networks.config import HybridMedNetConfig
from tests.network_tables import CHOICES, SIZES, all_tables, learn, pairs_of_choices

TABLES = pairs_of_choices()


def test_no_field_of_the_table_is_forgotten() -> None:
    """Each field of the table is a choice here or a size."""
    assert {field.name for field in fields(HybridMedNetConfig)} == CHOICES.keys() | SIZES


@pytest.mark.parametrize(
    "table", TABLES, ids=[f"{number:02d}-{table['backbone']}" for number, table in enumerate(TABLES)]
)
def test_each_pair_of_parts_learns_in_one_step(table: dict[str, object]) -> None:
    """Every parameter has a finite gradient, and a step along it changes what the network says."""
    learnt = learn(table)

    assert learnt.unreached == []
    assert learnt.is_right


def test_all_combinations_are_all_choices_with_each_other() -> None:
    """As many as the product of the choices, each once."""
    tables = all_tables(CHOICES["backbone"])

    count = 1
    for choices in CHOICES.values():
        count *= len(choices)
    assert len({repr(table) for table in tables}) == len(tables) == count
