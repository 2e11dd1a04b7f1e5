"""What verifies; loads the libraries that write DICOM and FHIR, which serving pages alone does not need."""

from __future__ import annotations

from fhir_facade.identity import installation_ids
from fhir_facade.render import FhirRenderer

from gateway.store import Store
from gateway.verification.verify import Verifier


def build_verifier(store: Store) -> Verifier:
    """Return what writes down a person's word."""
    return Verifier(store, FhirRenderer(installation_ids(store.data_dir)))
