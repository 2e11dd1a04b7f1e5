"""What a document tells of one result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from gateway.report.order import NO_ORDER, ImagingOrder
from gateway.report.wording import Key
from gateway.store.studies import StudyRow
from gateway.verification.verdict import Verification
from inference.findings import Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """All that a document tells of one result."""

    job_id: str
    revision: int
    study: StudyRow
    outcomes: Sequence[Outcome]
    pictures: Sequence[Mapping[str, bytes]]
    """For each outcome its PNG pictures by name; only 'overlay' is shown."""
    made_at: datetime
    order: ImagingOrder = NO_ORDER
    now: Verification | None = None
    """A person's word that made this revision."""
    earlier: Verification | None = None
    """The last word on an earlier revision."""
    corrected: Collection[Key] = ()
    """Answers that are a person's."""

    @property
    def is_withdrawn(self) -> bool:
        """Whether a person rejected it."""
        return self.now is not None and self.now.action == "reject"


Documents: TypeAlias = Mapping[str, tuple[str, bytes]]
"""Kind of the artefact -> media type and content."""
RenderDocuments: TypeAlias = Callable[[Told], Documents]
"""`gateway.report.document.render.render_documents`."""
