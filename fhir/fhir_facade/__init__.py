"""Findings and studies -> FHIR R4 (4.0.1), stored once and served as they lie.

codes.py              coding schemes of DICOM -> code systems of FHIR
timing.py             DICOM dates and times -> FHIR; the period that a value means
identity.py           resource ids, stable over revisions and not guessable from patient data
resource.py           content -> bytes, checked by the models of fhir.resources
about.py              what all resources of one job share
patient.py device.py imaging_study.py observation.py diagnostic_report.py provenance.py
                      pure mappings, one resource type each
standing.py           what persons said of a result -> status, and the words that go with it
render.py             all of the above for one finished job
parameters.py         the search parameters of each type
index.py              content -> values of its search parameters
criteria.py           one search parameter with its value -> SQL condition
search.py             a query string -> a page of resources
paging.py             opaque tokens for the next page
searchset.py          a page -> Bundle, joined from the stored bytes
outcome.py            error -> OperationOutcome and status
capability.py         CapabilityStatement, made from parameters.py
app.py                create_app(store); routes only

The package does not import highdicom or pydicom where it only serves: `render` is for the worker.
"""
