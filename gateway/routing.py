"""Which bundles a study wants, with what priority, and where its results go (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag, Tag

from gateway.config import Match, Rule
from gateway.errors import ConfigurationError
from gateway.job import Priority
from gateway.store.studies import SeriesRow, StudyRow

_NUMERIC_TAG = re.compile(r"^\(?([0-9a-fA-F]{4}),\s*([0-9a-fA-F]{4})\)?$")

ReadTag = Callable[[str, str], str]
"""(Series Instance UID, keyword or 'gggg,eeee') -> value in the series' first instance, '' where it is absent."""


@dataclass(frozen=True, slots=True)
class BundleOffer:
    """A bundle that is installed."""

    name: str
    wants: Callable[[str, str, str], bool]
    """(modality, body part, series description) -> whether the bundle is meant for such a series."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a study."""

    bundles: tuple[str, ...]
    """To run now."""
    is_routed: bool
    """Whether it got what it should; if not, an operator sees it on the list of unrouted studies."""
    reason: str | None
    priority: Priority = "routine"
    destinations: tuple[str, ...] | None = None
    """Names; None: all."""
    rule: str | None = None
    """Name of the rule that decided."""


def decide(
    study: StudyRow, series: Sequence[SeriesRow], rules: Sequence[Rule], offers: Sequence[BundleOffer], tags: ReadTag
) -> Decision:
    """Decide by the first rule that matches or, where there are no rules, by what the bundles are meant for.

    Our own results that came back count for nothing. After its first revision, a study is processed anew only where
    what came is of a series that matches: a report that joins the study changes nothing for the images.
    """
    foreign = [one for one in series if not one.is_own]
    if not foreign:
        return Decision((), is_routed=False, reason="no series besides our own results")
    return _by_rules(study, foreign, rules, offers, tags) if rules else _by_applicability(study, foreign, offers)


def check_rules(rules: Sequence[Rule]) -> None:
    """Raise ConfigurationError where a rule asks for a tag that does not exist; patterns are checked as it is read."""
    for rule in rules:
        for name in rule.match.tags:
            try:
                parse_tag(name)
            except ValueError as error:
                raise ConfigurationError(f"rule {rule.name!r}: tag {name!r}: {error}") from error


def parse_tag(name: str) -> BaseTag:
    """Return the tag of a keyword or of 'gggg,eeee'; ValueError where it is neither."""
    match = _NUMERIC_TAG.match(name)
    if match is not None:
        return Tag(int(match[1], 16), int(match[2], 16))
    tag = tag_for_keyword(name)
    if tag is None:
        raise ValueError("neither a DICOM keyword nor 'gggg,eeee'")
    return Tag(tag)


def _by_applicability(study: StudyRow, series: Sequence[SeriesRow], offers: Sequence[BundleOffer]) -> Decision:
    wanted = {
        offer.name: [one for one in series if offer.wants(one.modality, one.body_part, one.series_description)]
        for offer in offers
    }
    takers = tuple(name for name, matching in wanted.items() if matching)
    if not takers:
        installed = ", ".join(offer.name for offer in offers) or "none"
        return Decision((), is_routed=False, reason=f"no bundle takes {_describe(series)}; installed: {installed}")
    touched = tuple(name for name in takers if _has_new(study, wanted[name]))
    return Decision(touched, is_routed=True, reason=None if touched else _nothing_new(takers))


def _by_rules(
    study: StudyRow, series: Sequence[SeriesRow], rules: Sequence[Rule], offers: Sequence[BundleOffer], tags: ReadTag
) -> Decision:
    for rule in rules:
        matching = [one for one in series if _matches(study, one, rule.match, tags)]
        if matching:
            return _apply(study, rule, matching, offers)
    return Decision((), is_routed=False, reason=f"no rule matches {_describe(series)}")


def _apply(study: StudyRow, rule: Rule, matching: Sequence[SeriesRow], offers: Sequence[BundleOffer]) -> Decision:
    installed = {offer.name for offer in offers}
    missing = [name for name in rule.bundles if name not in installed]
    bundles = tuple(dict.fromkeys(name for name in rule.bundles if name in installed))
    reason = None
    if not rule.bundles:
        reason = f"rule {rule.name!r} keeps the study and runs nothing"
    elif missing:
        reason = f"rule {rule.name!r} names a bundle that is not installed: {', '.join(missing)}"
    elif not _has_new(study, matching):
        reason = _nothing_new(bundles)
    return Decision(
        bundles if _has_new(study, matching) else (),
        is_routed=bool(rule.bundles) and not missing,
        reason=reason,
        priority=rule.priority,
        destinations=rule.destinations,
        rule=rule.name,
    )


def _matches(study: StudyRow, series: SeriesRow, match: Match, tags: ReadTag) -> bool:
    if match.calling_ae and study.calling_ae.strip() not in match.calling_ae:
        return False
    if match.modality and series.modality.upper() not in {modality.upper() for modality in match.modality}:
        return False
    if match.body_part and series.body_part.upper() not in {part.upper() for part in match.body_part}:
        return False
    if match.description is not None:
        texts = (study.study_description, series.series_description)
        if not any(re.search(match.description, text, re.IGNORECASE) for text in texts):
            return False
    return all(re.search(pattern, tags(series.series_instance_uid, tag)) for tag, pattern in match.tags.items())


def _has_new(study: StudyRow, series: Sequence[SeriesRow]) -> bool:
    return study.revision == 1 or any(one.newest_revision >= study.revision for one in series)


def _nothing_new(bundles: Sequence[str]) -> str:
    return f"nothing new for {', '.join(bundles)}: the results of the revision before stand"


def _describe(series: Sequence[SeriesRow]) -> str:
    """Name modalities and body parts; descriptions are free text, which may hold a patient's name."""
    kinds = {
        f"modality {one.modality or '(empty)'}" + (f", body part {one.body_part}" if one.body_part else "")
        for one in series
    }
    return " or ".join(sorted(kinds))
