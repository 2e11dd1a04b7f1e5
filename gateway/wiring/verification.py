"""What verifies; loads the libraries that write DICOM and FHIR, which serving pages alone does not need."""

from __future__ import annotations

from fhir_facade.identity import installation_ids
from fhir_facade.render import FhirRenderer
from fhir_facade.site import Site

from gateway.config import Settings
from gateway.report.document.render import render_documents
from gateway.store import Store
from gateway.verification.verify import Verifier


def build_verifier(store: Store, settings: Settings) -> Verifier:
    """Return what writes down a person's word."""
    return Verifier(store, build_fhir_renderer(store, settings), render_documents=render_documents)


def build_fhir_renderer(store: Store, settings: Settings) -> FhirRenderer:
    """Return what renders FHIR resources of finished jobs."""
    site = Site(public_url=settings.site.public_url, institution=settings.site.institution)
    return FhirRenderer(installation_ids(store.data_dir), site=site, data_dir=store.data_dir)
