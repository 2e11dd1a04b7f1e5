"""Write the IHE integration statement from the program's own tables: `python -m deploy.check.ihe`.

Each transaction names what the program needs for it: a SOP class that the receiver negotiates, a resource of
DICOMweb, a setting, a kind of audit event. What is not there any more stops the page from being written, and so does
what the page says is missing and is there by now.

The profiles' own texts are not part of this repository. Names and numbers of transactions are those that public
sources agree upon; where these were silent, a number is left out.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import gateway
from deploy.check.facts import Facts, gather
from deploy.check.ihe_profiles import AIR, AIW, ATNA, PRIMITIVES, Profile, Transaction
from deploy.check.page import DEPLOY, page, table, write
from gateway.audit.dicom_xml import EVENT_IDS
from gateway.audit.event import Kind
from gateway.config import Destination, Settings
from gateway.config.destination import Kind as Way
from gateway.query.attributes import ATTRIBUTES
from gateway.store.workitem_query import MATCHING

PAGE = DEPLOY / "ihe.md"
ROOT = Path(gateway.__file__).parent
_SAYS = {True: "has no", False: "has by now"}


@dataclass(frozen=True, slots=True)
class Program:
    """What evidence is looked for in."""

    facts: Facts
    recorded: frozenset[Kind]

    def has(self, evidence: str) -> bool:
        """Say whether a piece of evidence is there, such as `scp 1.2.3` or `web POST /workitems`."""
        kind, _, value = evidence.partition(" ")
        looks: dict[str, Callable[[str], bool]] = {
            "scp": lambda uid: uid in self.facts.scp,
            "web": self._answers,
            "setting": _is_setting,
            "destination": lambda way: way in get_args(Way),
            "event": lambda name: Kind(name) in self.recorded,
            "key": lambda keyword: any(one.keyword == keyword and one.is_key for one in ATTRIBUTES),
            "module": lambda name: (ROOT / name).exists(),
            "name": lambda name: any(name in path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")),
        }
        return looks[kind](value)

    def _answers(self, resource: str) -> bool:
        method, _, path = resource.partition(" ")
        return method in self.facts.web.get(path, ())


def statement() -> str:
    """Return the page; LookupError where it would say what is not so."""
    program = Program(gather(), frozenset(recorded_kinds()))
    return page(_lines(program))


def recorded_kinds() -> Iterator[Kind]:
    """Yield the kinds of audit events that some part of the program records."""
    named = {
        node.attr
        for path in ROOT.rglob("*.py")
        if path.name not in {"event.py", "dicom_xml.py"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Kind"
    }
    return (kind for kind in Kind if kind.name in named)


def _lines(program: Program) -> Iterator[str]:
    yield "# IHE integration statement"
    yield ""
    yield "Made by `python -m deploy.check.ihe` from the program itself: edit that, not this page. It says what the"
    yield "program does, actor by actor, and where it falls short of a profile. No Connectathon has tested it. Names"
    yield "and numbers of transactions are those that public sources agree upon; the profiles' own texts decide."
    yield ""
    yield from table(("product", "version", "profiles, actors and options"), _overview())
    for profile in (AIR, AIW, ATNA):
        yield from _profile(program, profile)
        yield from _more(profile, program)


def _overview() -> Iterator[tuple[str, str, str]]:
    for profile in (AIR, AIW, ATNA):
        actors = "; ".join(f"{actor.name} ({actor.state})" for actor in profile.actors)
        yield "HybridMed Gateway", gateway.__version__, f"{profile.name}: {actors}. Options: {profile.options}"


def _profile(program: Program, profile: Profile) -> Iterator[str]:
    yield ""
    yield f"## {profile.name}"
    for actor in profile.actors:
        yield ""
        yield f"### Actor {actor.name}: {actor.state}"
        yield ""
        yield from table(
            ("transaction", "part", "done by", "where it falls short"),
            (row_of(program, each) for each in actor.transactions),
        )
    yield ""
    yield f"**Not claimed**: {profile.not_claimed}"


def row_of(program: Program, transaction: Transaction) -> tuple[str, str, str, str]:
    """Return a row of an actor's table; LookupError where it says what is not so."""
    for pieces, is_wanted in ((transaction.needs, True), (transaction.lacks, False)):
        for piece in pieces:
            if program.has(piece) is not is_wanted:
                raise LookupError(f"{transaction.name}: the program {_SAYS[is_wanted]} {piece}")
    return transaction.name, transaction.part, transaction.done_by, transaction.short or "none known"


def _more(profile: Profile, program: Program) -> Iterator[str]:
    """Yield what tables of the program say besides."""
    if profile is AIR:
        yield ""
        yield "### What results are made of"
        yield ""
        yield from table(("primitive of the profile", "written as", "limits"), PRIMITIVES)
    elif profile is AIW:
        yield ""
        yield f"Matching keys of workitems: {_listed(MATCHING)}."
    else:
        yield ""
        yield "### Audit messages"
        yield ""
        rows = (
            (f"{code.value}, DCM", code.meaning, _told(kind in program.recorded)) for kind, code in EVENT_IDS.items()
        )
        yield from table(("event id", "meaning", "recorded"), rows)


def _told(is_recorded: bool) -> str:
    return "yes" if is_recorded else "no: nothing here does it"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _is_setting(name: str) -> bool:
    """Say whether `section.field`, `field`, or `destinations.field` is a setting."""
    model: object = Settings
    section, _, field = name.rpartition(".")
    if section == "destinations":
        return field in Destination.model_fields
    if section:
        model = Settings.model_fields[section].annotation
    return field in model.model_fields  # type: ignore[attr-defined] # settings and their sections are models


def main() -> None:
    """Write the page."""
    write(PAGE, statement())


if __name__ == "__main__":
    main()
