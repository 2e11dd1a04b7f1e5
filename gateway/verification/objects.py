"""The DICOM objects of a verification, made from those that stand, and written before any row names them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import structlog
from pydicom.dataset import Dataset

from gateway.errors import ConflictError, GatewayError
from gateway.report import outcome_role
from gateway.report.assignment import ObjectReference, derived_uid
from gateway.report.document import RenderDocuments, Told
from gateway.report.rejection_note import QUALITY, NoteIdentity, render_rejection_note
from gateway.report.verified import Replacement, encoded, verified_report
from gateway.report.verified_picture import redrawn_overlay
from gateway.report.verified_seg import without_segments
from gateway.store.results import DICOM, NewArtefact
from gateway.store.verifications import NOTE
from gateway.verification.corrections import Changes
from gateway.verification.verdict import Verification
from gateway.worker.files import FOLDER, WrittenFile, make_folder, write_result
from gateway.worker.publish import PNG, queried, write_documents
from inference.findings import Findings, Outcome

log = structlog.get_logger()

_REPORTS = "sr-"
_OF_SEGMENTS = ("seg", "sr-measurements")
_OVERLAY = "picture-overlay"
_UNDRAWABLE = (GatewayError, ValueError, RuntimeError, NotImplementedError, AttributeError, LookupError, OSError)
"""What decoders and broken images raise."""
_Made = tuple[ObjectReference, Dataset]
_View = Mapping[tuple[int, str], NewArtefact]
"""Ordinal and kind -> what one variant shows."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """What the objects are made from, and whose they will be."""

    data_dir: Path
    artefacts: Sequence[NewArtefact]
    """Of the result that stands."""
    revisions: Sequence[Sequence[NewArtefact]]
    """Of the algorithm's result and of what persons made of it, the oldest first."""
    origin_job_id: uuid.UUID
    origin_revision: int
    """Of the algorithm's result, which the tracking UIDs derive from."""
    job_id: uuid.UUID
    revision: int
    verification: Verification
    outcomes: Sequence[Outcome]
    """As the person left them."""
    sources: Sequence[Sequence[Path]]
    """Of each outcome the files of its series."""

    def reference(self, artefact: NewArtefact) -> ObjectReference:
        """Return the identity of the object that follows an artefact."""
        role = f"{{}}/{artefact.kind}"
        return ObjectReference(
            kind=artefact.kind,
            study_instance_uid=artefact.study_instance_uid,
            series_instance_uid=self.uid(outcome_role(role.format("series"), artefact.ordinal)),
            sop_class_uid=artefact.sop_class_uid or "",
            sop_instance_uid=self.uid(outcome_role(role.format("instance"), artefact.ordinal)),
        )

    def uid(self, role: str) -> str:
        """Return a UID of the new revision."""
        return derived_uid(self.job_id, self.revision, role)

    def tracking_uid(self, ordinal: int, tracking_id: str) -> str:
        """Return the UID that the algorithm's result has for a tracking identifier."""
        role = outcome_role(f"tracking/{tracking_id}", ordinal)
        return derived_uid(self.origin_job_id, self.origin_revision, role)

    def read(self, artefact: NewArtefact) -> Dataset:
        """Read a stored object; ConflictError where its file is gone."""
        try:
            return pydicom.dcmread(self.data_dir / artefact.path)
        except FileNotFoundError:
            raise ConflictError(f"the file of {artefact.kind} is gone: reprocess the study") from None


@dataclass(frozen=True, slots=True)
class Objects:
    """What was written, and what it withdraws."""

    artefacts: tuple[NewArtefact, ...]
    withdrawn: tuple[ObjectReference, ...]
    """Objects that a rejection note among the artefacts names, in their default variant."""


def write_objects(basis: Basis, changes: Sequence[Changes]) -> Objects:
    """Render and write everything; the files lie synced on disk when this returns.

    Parameters
    ----------
    changes
        Of each outcome.
    """
    folder = make_folder(basis.data_dir, str(basis.job_id))
    dicom = [each for each in basis.artefacts if each.media_type == DICOM]
    artefacts: list[NewArtefact] = []
    withdrawn: tuple[ObjectReference, ...] = ()
    standard: set[str] = set()
    segmentations: dict[int, Dataset] = {}
    for variant in sorted({"", *(each.variant for revision in basis.revisions for each in revision)}):
        view = _view(dicom, variant)
        gone = _rejected(basis, variant) if basis.verification.action == "reject" else _withdrawn(view, changes)
        if variant == "":
            withdrawn = tuple(gone)
        for ordinal, (reference, dataset) in [*_objects(basis, view, changes), *_note(basis, gone)]:
            written = write_result(folder, reference.kind, ordinal, DICOM, encoded(dataset))
            if variant == "":
                standard.add(written.digest)
                if reference.kind == "seg":
                    segmentations[ordinal] = dataset
            elif written.digest in standard:
                continue
            artefacts.append(_row(reference, ordinal, variant, written, dataset))
    return Objects((*artefacts, *_pictures(basis, changes, segmentations)), withdrawn)


def with_documents(basis: Basis, objects: Objects, told: Told, render: RenderDocuments) -> Objects:
    """Return the objects with the documents of the revision, which are written."""
    folder = make_folder(basis.data_dir, str(basis.job_id))
    return replace(objects, artefacts=(*objects.artefacts, *write_documents(folder, told, render)))


def shown_pictures(basis: Basis, objects: Objects, changes: Sequence[Changes]) -> list[Mapping[str, bytes]]:
    """Return for each outcome the overlay that holds now; a file that is gone is left out."""
    shown: list[dict[str, bytes]] = [{} for _ in basis.outcomes]
    earlier = [each for each in basis.artefacts if not changes[each.ordinal].removed]
    for each in [*earlier, *objects.artefacts]:
        path = basis.data_dir / each.path
        if each.kind == _OVERLAY and path.is_file():
            shown[each.ordinal] = {_OVERLAY.removeprefix("picture-"): path.read_bytes()}
    return list(shown)


def _row(reference: ObjectReference, ordinal: int, variant: str, written: WrittenFile, dataset: Dataset) -> NewArtefact:
    return NewArtefact(
        kind=reference.kind,
        ordinal=ordinal,
        variant=variant,
        media_type=DICOM,
        study_instance_uid=reference.study_instance_uid,
        series_instance_uid=reference.series_instance_uid,
        sop_class_uid=reference.sop_class_uid,
        sop_instance_uid=reference.sop_instance_uid,
        path=written.path,
        digest=written.digest,
        size_bytes=written.size_bytes,
        **queried(dataset),
    )


def _pictures(basis: Basis, changes: Sequence[Changes], segmentations: Mapping[int, Dataset]) -> Iterator[NewArtefact]:
    """Yield the pictures, where a segment was removed: the overlays drawn anew, the others as they were.

    Where nothing was removed there are none: those of the revision before are true.
    """
    if not any(each.removed for each in changes):
        return
    view = _view([each for each in basis.artefacts if each.media_type == DICOM], "")
    for artefact in basis.artefacts:
        if artefact.media_type != PNG:
            continue
        ordinal = artefact.ordinal
        outcome = basis.outcomes[ordinal]
        if artefact.kind != _OVERLAY or not changes[ordinal].removed or not isinstance(outcome, Findings):
            yield artefact
            continue
        segmentation = segmentations.get(ordinal) or basis.read(view[ordinal, "seg"])
        try:
            content = redrawn_overlay(outcome, segmentation, basis.sources[ordinal])
        except _UNDRAWABLE as error:  # a picture is no ground to refuse a person's word
            log.warning("verification.no_picture", job_id=str(basis.job_id), error=type(error).__name__)
            continue
        written = write_result(basis.data_dir / FOLDER / str(basis.job_id), _OVERLAY, ordinal, PNG, content)
        yield replace(artefact, path=written.path, digest=written.digest, size_bytes=written.size_bytes)


def _view(artefacts: Sequence[NewArtefact], variant: str) -> _View:
    """Return what a destination with this variant has: its own renderings, and the default ones of the others."""
    chosen = [each for each in artefacts if each.variant == ""] + [
        each for each in artefacts if each.variant == variant
    ]
    return {(each.ordinal, each.kind): each for each in chosen}


def _objects(basis: Basis, view: _View, changes: Sequence[Changes]) -> Iterator[tuple[int, _Made]]:
    """Yield the verified reports, and before them the segmentations that they refer to anew."""
    if basis.verification.action == "reject":
        return
    replacements: dict[int, Replacement] = {}
    for (ordinal, kind), artefact in view.items():
        if kind == "seg" and changes[ordinal].removed:
            made, replacement = _segmentation(basis, artefact, changes[ordinal])
            if made is not None and replacement is not None:
                replacements[ordinal] = replacement
                yield ordinal, (basis.reference(artefact), made)
    for (ordinal, kind), artefact in view.items():
        if not kind.startswith(_REPORTS):
            continue
        if kind == "sr-measurements" and changes[ordinal].removed and ordinal not in replacements:
            continue
        reference = basis.reference(artefact)
        report = verified_report(
            basis.read(artefact),
            reference=reference,
            verification=basis.verification,
            changes=changes[ordinal],
            tracking_uid=lambda name, ordinal=ordinal: basis.tracking_uid(ordinal, name),  # type: ignore[misc] # bound
            replacement=replacements.get(ordinal) if kind == "sr-measurements" else None,
        )
        yield ordinal, (reference, report)


def _segmentation(basis: Basis, artefact: NewArtefact, change: Changes) -> tuple[Dataset | None, Replacement | None]:
    """Return the segmentation without what was removed; None where nothing is left of it."""
    dataset = basis.read(artefact)
    removed = {each.number for each in change.removed}
    if all(int(each.SegmentNumber) in removed | {0} for each in dataset.SegmentSequence):
        return None, None
    reference = basis.reference(artefact)
    return without_segments(dataset, removed, reference=reference, verification=basis.verification)


def _rejected(basis: Basis, variant: str) -> list[ObjectReference]:
    """Return all objects of a rejected result, of every revision of it: whoever got one has to learn of it."""
    gone: dict[str | None, ObjectReference] = {}
    for revision in basis.revisions:
        dicom = [each for each in revision if each.media_type == DICOM and each.kind != NOTE]
        gone |= {each.sop_instance_uid: _stored(each) for each in _view(dicom, variant).values()}
    return list(gone.values())


def _withdrawn(view: _View, changes: Sequence[Changes]) -> list[ObjectReference]:
    """Return what no longer counts after a correction: the segmentation that held what was removed.

    Where no segment is left, the report of their measurements goes too; where some are, a verified one follows it.
    """
    gone = []
    for (ordinal, kind), artefact in view.items():
        is_empty = len(changes[ordinal].removed) == len(changes[ordinal].removed_from)
        if changes[ordinal].removed and (kind == "seg" or (kind in _OF_SEGMENTS and is_empty)):
            gone.append(_stored(artefact))
    return gone


def _note(basis: Basis, gone: Sequence[ObjectReference]) -> Iterator[tuple[int, _Made]]:
    """Yield the rejection note, where there is something to withdraw."""
    if not gone:
        return
    written = [each for revision in basis.revisions for each in revision]
    source = next(each for each in reversed(written) if each.kind.startswith(_REPORTS))
    reference = ObjectReference(
        kind=NOTE,
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=basis.uid(f"series/{NOTE}"),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59",
        sop_instance_uid=basis.uid(f"instance/{NOTE}"),
    )
    word = basis.verification
    said = f"{'Rejected' if word.action == 'reject' else 'Corrected'} by {word.who.display}, {word.organisation}"
    identity = NoteIdentity(reference.series_instance_uid, reference.sop_instance_uid, word.verified_at)
    description = f"{said}: {word.comment}" if word.comment else said
    note = render_rejection_note(gone, QUALITY, source=basis.read(source), identity=identity, description=description)
    yield 0, (reference, note)


def _stored(artefact: NewArtefact) -> ObjectReference:
    return ObjectReference(
        kind=artefact.kind,
        study_instance_uid=artefact.study_instance_uid,
        series_instance_uid=artefact.series_instance_uid or "",
        sop_class_uid=artefact.sop_class_uid or "",
        sop_instance_uid=artefact.sop_instance_uid or "",
    )
