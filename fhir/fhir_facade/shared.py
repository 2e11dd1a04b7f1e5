"""What jobs share: patient, study, order, institution, addresses, devices; written where they changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

import gateway
from fhir_facade.about import About
from fhir_facade.endpoint import endpoint_references, endpoint_resources
from fhir_facade.gateway_device import gateway_resource
from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import Surroundings, imaging_study_reference, imaging_study_resource, started
from fhir_facade.organization import organization_reference, organization_resource
from fhir_facade.patient import patient_reference, patient_resource
from fhir_facade.resource import Json
from fhir_facade.service_request import procedure_concept, service_request_reference, service_request_resource
from fhir_facade.site import UNKNOWN_SITE, Site
from fhir_facade.timing import instant
from gateway.report.order import NO_ORDER, ImagingOrder
from gateway.store.studies import SeriesRow, StudyRow


@dataclass(frozen=True, slots=True)
class Premises:
    """What all resources of this installation are made with."""

    ids: ResourceIds
    zone: tzinfo | None = None
    """The site's zone, for studies without an offset; None: that of this machine."""
    site: Site = UNKNOWN_SITE

    def about(self, study: StudyRow, order: ImagingOrder, now: datetime) -> About:
        """Return what all resources of one job refer to."""
        return About(
            subject=patient_reference(study, self.ids),
            imaging_study=imaging_study_reference(study, self.ids),
            effective=started(study, self.zone),
            issued=instant(now),
            order=service_request_reference(study, self.ids),
            institution=organization_reference(self.site, order, self.ids),
        )

    def resources(self, study: StudyRow, series: Sequence[SeriesRow], order: ImagingOrder = NO_ORDER) -> Iterator[Json]:
        """Yield what is told of a study whatever is found in it."""
        institution = organization_reference(self.site, order, self.ids)
        yield patient_resource(study, self.ids)
        is_coded = order.procedure or order.procedure_code
        around = Surroundings(
            order=service_request_reference(study, self.ids),
            endpoints=endpoint_references(self.site, self.ids),
            procedure=procedure_concept(study, order) if is_coded else None,
        )
        yield imaging_study_resource(study, series, self.ids, self.zone, around)
        for each in (
            organization_resource(self.site, order, self.ids),
            service_request_resource(study, order, self.ids),
        ):
            if each is not None:
                yield each
        yield from endpoint_resources(self.site, institution, self.ids)
        yield gateway_resource(gateway.__version__, self.ids)
