"""Pages for operators and buyers say what the program does, and the commands in them are commands."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydicom.uid import UID

from deploy.check import conformance, fhir_capability, ihe
from deploy.check.capacity import Load, arithmetic
from deploy.check.facts import gather
from deploy.check.ihe_profiles import AIR, Transaction
from gateway.cli.app import app
from gateway.config import Settings, load_settings
from gateway.web.texts_en import TEXTS as ENGLISH
from gateway.web.texts_zh import TEXTS as CHINESE
from inference.bundle import load_bundle
from tests.deployment import DEPLOY, REPOSITORY
from tests.papers import Block, blocks, pages, translated

PAGES = pages()
MADE = [conformance, ihe, fhir_capability]
TOML = [each for page in PAGES for each in blocks(page) if each.tag == "toml"]
BUNDLES = REPOSITORY / "inference" / "bundles"
NO_SETTINGS = {"CONFIG", "SECRETS_DIR"}
"""Read before the settings are: where these are."""


@pytest.mark.parametrize("module", MADE, ids=lambda module: module.PAGE.name)
def test_a_page_that_is_made_is_what_the_program_says(module: object) -> None:
    """Each is the generator's, word for word; the command that renews it stands in it."""
    path: Path = module.PAGE  # type: ignore[attr-defined] # each of these modules has these two
    statement: Callable[[], str] = module.statement  # type: ignore[attr-defined]
    renew = f"python -m {module.__name__}"  # type: ignore[attr-defined]

    assert path.read_text(encoding="utf-8") == statement(), renew
    assert renew in path.read_text(encoding="utf-8")


def test_the_conformance_statement_names_what_every_pacs_asks_for_first() -> None:
    """Verification, CT, queries and the status of a full disk; every UID is one."""
    page = conformance.PAGE.read_text(encoding="utf-8")

    for needed in ("1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.2.2.1", "A700"):
        assert needed in page
    assert [uid for uid in re.findall(r"`([\d.]+)`", page) if not UID(uid).is_valid] == []


@pytest.mark.parametrize(
    ("transaction", "said"),
    [
        (Transaction("X", "responder", "", needs=("scp 1.2.3",)), "has no scp 1.2.3"),
        (Transaction("X", "responder", "", needs=("web POST /nothing",)), "has no web POST /nothing"),
        (Transaction("X", "responder", "", needs=("setting audit.nothing",)), "has no setting audit.nothing"),
        (Transaction("X", "responder", "", needs=("event import",)), "has no event import"),
        (Transaction("X", "responder", "", lacks=("key StudyInstanceUID",)), "has by now key StudyInstanceUID"),
    ],
)
def test_the_ihe_statement_is_not_written_where_it_is_not_so(transaction: Transaction, said: str) -> None:
    """What the program lacks cannot be claimed, and what it has cannot be said to be missing."""
    program = ihe.Program(gather(), frozenset(ihe.recorded_kinds()))

    assert all(ihe.row_of(program, each) for actor in AIR.actors for each in actor.transactions)
    with pytest.raises(LookupError, match=re.escape(said)):
        ihe.row_of(program, transaction)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_exist(page: Path) -> None:
    """Every `hybridmed …` names a command and its options, and every path of the repository is there."""
    text = page.read_text(encoding="utf-8")
    inline = [each.split() for each in re.findall(r"`hybridmed ([^`\n]+)`", text)]
    paths = {path.rstrip(".,;:") for path in re.findall(r"(?:deploy|tests|gateway|inference)/[\w./-]+", text)}

    assert [words for words in inline if not _is_command(words)] == []
    assert [path for path in paths if not (REPOSITORY / path.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_pages_exist(page: Path) -> None:
    """`section.field`, `[section]` and HYBRIDMED_… name settings; what a section has is asked of its model."""
    text = page.read_text(encoding="utf-8")
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    dotted = [pair for pair in re.findall(r"`([a-z_]\w*)\.([a-z_]\w*)`", text) if pair[0] in sections]
    tables = re.findall(r"`\[{1,2}([a-z_0-9]+)\]{1,2}(?: [a-z_]+)?`", text)
    variables = {name.partition("__")[0] for name in re.findall(r"HYBRIDMED_([A-Z_0-9]+\w)", text)}

    assert [pair for pair in dotted if pair[1] not in getattr(sections[pair[0]], "model_fields", {})] == []
    assert [name for name in tables if name not in sections] == []
    assert {name.lower() for name in variables - NO_SETTINGS} - set(sections) == set()


@pytest.mark.parametrize("block", TOML, ids=str)
def test_settings_shown_are_taken(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of a settings file is read by the program, and none of it is the default already."""
    file = tmp_path / "hybridmed.toml"
    file.write_text(block.text, encoding="utf-8")
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(file))

    settings = load_settings()

    named = tomllib.loads(block.text)
    assert named
    assert [name for name in named if getattr(settings, name) == Settings.model_fields[name].default] == []


@pytest.mark.parametrize("pair", list(translated()), ids=lambda pair: pair[0].name)
def test_both_languages_hold_the_same(pair: tuple[Path, Path]) -> None:
    """The same blocks to the letter, as many headings and rows of tables; the Chinese page is in Chinese."""
    english, chinese = ([(each.tag, each.text) for each in blocks(page)] for page in pair)
    shapes = [list(filter(None, map(_shape, page.read_text(encoding="utf-8").splitlines()))) for page in pair]

    assert english == chinese
    assert shapes[0] == shapes[1]
    assert len(re.findall(r"[\u4e00-\u9fff]", pair[1].read_text(encoding="utf-8"))) > 500


def test_manual_runbooks_and_the_page_for_radiologists_are_there_in_chinese() -> None:
    """Those that are read at night, and by those who read images, and what buyers ask first."""
    expected = ("operations", "radiologists", "runbooks", "security", "threat-model")
    assert {page.stem for page, _ in translated()} == set(expected)


@pytest.mark.parametrize(("name", "texts"), [("radiologists.md", ENGLISH), ("radiologists.zh.md", CHINESE)])
def test_the_page_for_radiologists_uses_the_words_of_the_screen(name: str, texts: dict[str, str]) -> None:
    """Buttons, states and the models that ship are called as they are there; stated coverage is the bundle's."""
    page = (DEPLOY / name).read_text(encoding="utf-8").lower()
    words = [texts[f"verify.{each}"] for each in ("accept", "correct", "reject")]
    words += [texts[f"state.{each}"] for each in ("not-evaluable", "preliminary")]
    words += [texts[f"study.{each}"] for each in ("probability", "uncertainty")]
    coverage = load_bundle(BUNDLES / "cxr-pneumonia").coverage or 0.0

    assert [word for word in words if word.lower() not in page] == []
    assert {path.name for path in BUNDLES.iterdir() if path.is_dir()} == set(re.findall(r"`([a-z]+-[a-z]+)`", page))
    assert f"{100 * coverage:g} %" in page


def test_capacity_shows_its_arithmetic() -> None:
    """Numbers follow from the inputs: 100 jobs of 36 s in the busiest hour keep one worker busy, and need two."""
    load = Load(studies_per_day=1000, instances_per_study=10, instance_kib=1024, job_s=36, busiest_hour_share=0.1)
    numbers = {need: number for need, _, number in arithmetic(load)}
    command = [sys.executable, "-m", "deploy.check.capacity", "--studies-per-day", "1", "--instances-per-study", "1"]
    ended = subprocess.run(
        [*command, "--instance-kib", "1", "--job-s", "1"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert numbers["busy workers"] == "1.00"
    assert numbers["workers (GPUs)"] == "2"
    assert numbers["files"] == "3704 GiB"
    assert ended.returncode == 0, ended.stderr


def _is_command(words: list[str]) -> bool:
    """Say whether words are a command of the command line, with options that it has."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    is_group = hasattr(command, "commands")
    return not is_group and {word for word in words if word.startswith("--")} <= options


def _shape(line: str) -> str:
    """Return what a line is, whatever it says: a heading of a level, a row of a table with so many cells."""
    if line.startswith("#"):
        return line.partition(" ")[0]
    return f"row {line.count('|')}" if line.startswith("|") else ""
