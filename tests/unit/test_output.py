"""What senders and errors say is printed as they said it."""

import re
from pathlib import Path

import pytest
from rich.text import Text

from gateway.cli import app as command_line
from gateway.cli.output import print_error, print_record, print_rows, working
from gateway.errors import ConfigurationError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("said", ["CT [/chest]", "[sag] T2", "[red]x[/red]", ":warning: \\[a]"])
def test_brackets_of_a_sender_are_text(capsys: pytest.CaptureFixture[str], said: str) -> None:
    """A description that looks like markup stands in the table, in the record and in the error as it is."""
    print_rows([said], [("Description", lambda row: row)], as_json=False, empty="-")
    print_record({"description": said}, as_json=False)
    print_error("refused:", said)
    printed = capsys.readouterr()

    assert printed.out.count(said) == 2
    assert f"refused: {said}" in printed.err


def test_a_sender_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """An escape sequence in a description arrives as a visible mark."""
    print_rows(["\x1b[2Jgone"], [("Description", lambda row: row)], as_json=False, empty="-")

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\N{REPLACEMENT CHARACTER}[2Jgone" in printed


def test_a_styled_text_is_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """A verdict with a colour is printed as its word."""
    print_rows(["ok"], [("", lambda row: Text(row, style="green"))], as_json=False, empty="-")

    assert capsys.readouterr().out.split() == ["ok"]


def test_the_extra_in_an_advice_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence of an error keeps what stands in brackets."""

    def refuse() -> None:
        raise ConfigurationError("pip install 'hybridmed-gateway[inference]'")

    monkeypatch.setattr("typer.main.get_command", lambda _: refuse)
    monkeypatch.setattr(command_line, "configure_logging", lambda **_: None)

    with pytest.raises(SystemExit) as ended:
        command_line.main()

    assert ended.value.code == 2
    assert capsys.readouterr().err == "hybridmed: pip install 'hybridmed-gateway[inference]'\n"


def test_progress_is_not_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A log or a pipe gets no spinner, and standard output nothing at all."""
    with working("looking [at] it"):
        pass

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "looking" not in printed.err


def test_cleaning_leaves_the_data_of_a_gateway_alone() -> None:
    """`make clean` removes the demonstration's folder and never the default data folder."""
    recipe = re.search(r"^clean:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert recipe is not None
    assert "hybridmed-demo" in recipe[1]
    assert "hybridmed-data" not in recipe[1]
