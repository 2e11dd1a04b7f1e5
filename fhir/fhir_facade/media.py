"""The pictures of a result -> Media: the overlay is the key image, heat maps follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_facade.about import About
from fhir_facade.attachment import ReadFile, attachment
from fhir_facade.codes import AI_ASSERTED, DCM, LOCAL_SYSTEM
from fhir_facade.imaging_study import modalities
from fhir_facade.resource import Json, clean, present, reference
from gateway.report.fhir_input import FhirInput
from gateway.store.results import NewArtefact

_PICTURE = "picture-"
_OVERLAY = "picture-overlay"
_TYPE = {"system": "http://terminology.hl7.org/CodeSystem/media-type", "code": "image", "display": "Image"}


@dataclass(frozen=True, slots=True)
class Pictured:
    """What all pictures of one job share."""

    finished: FhirInput
    about: About
    devices: Sequence[Json]
    """Of each outcome a reference to its algorithm."""
    read: ReadFile


def pictures_of(finished: FhirInput) -> list[NewArtefact]:
    """Return the pictures, the overlays before the heat maps."""
    found = [each for each in finished.artefacts if each.kind.startswith(_PICTURE) and not each.variant]
    return sorted(found, key=lambda each: (each.ordinal, each.kind != _OVERLAY, each.kind))


def media_resource(media_id: str, picture: NewArtefact, shared: Pictured) -> Json:
    """Return the Media of one picture."""
    about, finished = shared.about, shared.finished
    title = title_of(picture)
    series = finished.outcomes[picture.ordinal].series_instance_uid
    evaluated = modalities([each for each in finished.series if each.series_instance_uid == series])
    name = picture.kind.removeprefix(_PICTURE)
    return present(
        {
            "resourceType": "Media",
            "id": media_id,
            "meta": {"security": [AI_ASSERTED]},
            "basedOn": [about.order] if about.order else None,
            "status": "completed",
            "type": {"coding": [_TYPE]},
            "modality": {"coding": [{"system": DCM, "code": evaluated[0]}]} if evaluated else None,
            "view": {"coding": [{"system": LOCAL_SYSTEM, "code": name, "display": title}], "text": title},
            "subject": about.subject,
            "createdDateTime": about.issued,
            "device": shared.devices[picture.ordinal],
            "content": attachment(finished.job.job_id, picture, shared.read, title=title, created=about.issued),
            "note": [{"text": "Picture made by an algorithm, not for diagnosis."}],
        }
    )


def media_link(media_id: str, picture: NewArtefact) -> Json:
    """Return what a report says of a picture."""
    return {"comment": title_of(picture), "link": reference("Media", media_id)}


def title_of(picture: NewArtefact) -> str:
    """Return what a picture shows."""
    if picture.kind == _OVERLAY:
        return "Overlay of segments on the source image"
    return clean(f"Heat map (Grad-CAM): {picture.kind.removeprefix('picture-heatmap-')}")


def withdrawn_media(content: Json) -> Json:
    """Return a Media that the newest revision no longer has."""
    return content | {"status": "entered-in-error"}
