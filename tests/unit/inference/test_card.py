"""What commands write into model cards, around which people's words stay."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from inference.bundle import default_bundle_dir
from inference.training.card import CARD, drop_sections, write_section

_CHINESE = "README.zh.md"
_BUNDLES = sorted(path for path in default_bundle_dir().iterdir() if path.is_dir())


def test_a_section_is_written_anew_in_its_place(tmp_path: Path) -> None:
    """What stands before and after it is not touched."""
    (tmp_path / CARD).write_text("# Card\n\nWhat it is for.\n", encoding="utf-8")

    write_section(tmp_path, "folds", "## Folds\nfirst")
    _append(tmp_path, "\nWords of a person.\n")
    write_section(tmp_path, "folds", "## Folds\nsecond")

    card = (tmp_path / CARD).read_text(encoding="utf-8")
    assert "first" not in card
    assert card.startswith("# Card\n\nWhat it is for.\n\n<!-- folds: ")
    assert card.index("second") < card.index("Words of a person.")


def test_all_sections_go_and_words_stay(tmp_path: Path) -> None:
    """As where new weights take the place of those that the sections are about."""
    (tmp_path / CARD).write_text("# Card\n\nBefore.\n", encoding="utf-8")
    write_section(tmp_path, "folds", "## Folds")
    _append(tmp_path, "\nBetween.\n")
    write_section(tmp_path, "ablation", "## Parts")

    drop_sections(tmp_path)

    assert (tmp_path / CARD).read_text(encoding="utf-8") == "# Card\n\nBefore.\n\nBetween.\n"


def test_a_bundle_without_card_gets_none(tmp_path: Path) -> None:
    """There is nothing to take out."""
    drop_sections(tmp_path)
    assert not (tmp_path / CARD).exists()


@pytest.mark.parametrize("folder", _BUNDLES, ids=lambda folder: folder.name)
def test_the_chinese_card_tells_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    """All figures that people wrote, as often, in as many rows; the sections of commands stand in the English one."""
    shutil.copyfile(folder / CARD, tmp_path / CARD)
    drop_sections(tmp_path)
    english, chinese = ((path.read_text(encoding="utf-8")) for path in (tmp_path / CARD, folder / _CHINESE))

    assert _numbers(chinese) == _numbers(english)
    assert chinese.count("\n|") == english.count("\n|")
    assert chinese.count("\n## ") == english.count("\n## ")


def _numbers(card: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", card))


def _append(folder: Path, text: str) -> None:
    with (folder / CARD).open("a", encoding="utf-8") as card:
        card.write(text)
