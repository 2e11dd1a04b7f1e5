"""The section `[retention]`: what is removed, and when."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Retention(BaseModel):
    """Rules by age and by size. Nothing unfinished and nothing held is ever removed, whatever they say."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = False
    """Whether the role dispatch removes by itself; `hybridmed purge` always may."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """Days after its last instance came, after which a study goes; unset: never by age."""
    max_age_unrouted_days: Annotated[float, Field(gt=0)] | None = None
    """The same of studies that no rule and no bundle wanted; unset: as all others."""
    max_gib: Annotated[float, Field(gt=0)] | None = None
    """Size of all instances and results in GiB, above which the oldest studies go; unset: never by size."""
    min_free_gib: Annotated[float, Field(gt=0)] | None = None
    """Free disk in GiB, under which the oldest studies go; above `reserve_mib`, where receiving stops."""
    min_age_hours: Annotated[float, Field(ge=0)] = 24.0
    """Hours after its last instance, before which no study goes, not even for its size."""
    keep_unverified: bool = True
    """Whether results that no person has verified keep their study."""
    keep_reports: bool = True
    """Whether FHIR resources stay when their study goes; false: they answer 410, and their history goes too."""
    every_s: Annotated[float, Field(ge=1)] = 600.0
    """Seconds between looks of the role dispatch."""
