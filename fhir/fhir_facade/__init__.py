"""Findings and studies -> FHIR R4 (4.0.1), stored once and served as they lie.

codes.py              coding schemes of DICOM -> code systems of FHIR
timing.py             DICOM dates and times -> FHIR; the period that a value means
identity.py           resource ids, stable over revisions and not guessable from patient data
resource.py           content -> bytes, checked by the models of fhir.resources
about.py              what all resources of one job share
audit_event.py        an event of the audit trail -> AuditEvent
patient.py device.py gateway_device.py imaging_study.py observation.py diagnostic_report.py media.py provenance.py
service_request.py organization.py endpoint.py task.py
                      pure mappings, one resource type each
site.py               addresses and institution; attachment.py  result files as attachments and Binary ids
shared.py             what all jobs of a study share: patient, images, order, institution, addresses
standing.py           what persons said of a result -> status, and the words that go with it
render.py             all of the above for one finished job; current.py  what stands before it
version.py            content -> a version as the store takes it
task_writer.py        the Task of each job, written with its row
parameters/           the search parameters of each type
index.py              content -> values of its search parameters; reindex.py  the same for what is stored already
query.py asking.py    a query string -> a search with its criteria
asked.py              parameters, chains and `_has` as they were asked; criteria.py (criterion.py)  -> conditions
matching.py           one value -> condition on an index row; held.py  values apart, so that statements are kept
rows.py               resources and their index under names of their own
operation.py          criteria of operations; compartment.py  what belongs to a patient or a device
plan.py sorting.py    a search -> statements that stay fast at any size
search.py             a search -> a page; include.py  what goes along; paging.py  tokens for the next page
summary.py            `_summary` and `_elements`
searchset.py          a page -> Bundle, joined from the stored bytes (stored.py)
export.py             bulk export to files
subscriptions/        who is told of what changed, by rest-hook
writer.py             what clients write, alone or several together
written.py            what clients write, checked; demographics.py  patients beside their images; polled.py  asked for
refusal.py            errors of requests that write
permit.py             what a caller's scopes and patient let it see; scope_guard.py  which routes scopes open
security.py           how callers are known, for the CapabilityStatement
negotiation.py        Accept and _format -> format and release; representation.py  stored bytes -> those
elements.py           order and kinds of elements, read off the definitions; xml_writer.py, xml_reader.py
r5.py                 R4 -> R5, JSON to JSON; r5_exchange.py  what R5 made anew
outcome.py            error -> OperationOutcome and status
capability.py         CapabilityStatement, made from the routes and parameters; definitions.py  what is ours alone
request.py answer.py  what a request says; what goes out; failures.py  errors -> responses
routes/               the routes, a module for each subject; server.py  what they are given
app.py                create_app(store)

The package does not import highdicom or pydicom where it only serves: `render` is for the worker.
"""
