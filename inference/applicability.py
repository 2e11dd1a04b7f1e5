"""Which series a model is meant for, by what their headers say (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_AGE = re.compile(r"(\d{3})([DWMY])")
_PER_YEAR = {"D": 365, "W": 52, "M": 12, "Y": 1}
_LATERAL_WORDS = {"LAT", "LATERAL", "LATERALE", "SEITLICH"}


@dataclass(frozen=True, slots=True)
class Applicability:
    """Which series the model is meant for."""

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    accepts_blank_body_part: bool
    excluded_words: tuple[str, ...]
    excluded_views: tuple[str, ...]
    ages_years: tuple[int, int] | None

    def wants(self, modality: str, body_part: str, description: str) -> bool:
        """Say whether such a series should be given to the model.

        Parameters
        ----------
        modality, body_part, description
            Modality, Body Part Examined and Series Description; blank where not known.
        """
        return modality.strip().upper() in self.modalities and self.covers(body_part, description)

    def covers(self, body_part: str, description: str) -> bool:
        """Say whether the body part is one of the model's."""
        if body_part.strip():
            return any(part in body_part.upper() for part in self.body_parts)
        return self.accepts_blank_body_part and not _words(description) & set(self.excluded_words)

    def reads_view(self, view_position: str, description: str) -> bool:
        """Say whether the projection is one the model reads; where View Position is blank the description decides."""
        if view_position.strip():
            return view_position.strip().upper() not in self.excluded_views
        return not (self.excluded_views and _words(description) & _LATERAL_WORDS)

    def covers_age(self, patient_age: str) -> bool:
        """Say whether Patient Age (PS3.5 VR AS, for example '018M') is within the declared ages, or not known."""
        match = _AGE.fullmatch(patient_age.strip())
        if self.ages_years is None or match is None:
            return True
        years = int(match[1]) // _PER_YEAR[match[2]]
        return self.ages_years[0] <= years <= self.ages_years[1]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Z]+", text.upper()))
