"""A person's word on a result: accepted, corrected or rejected.

verdict.py      what a person says, and how it is kept (pure)
corrections.py  corrected answers and removed segments, worked into the outcomes (pure)
objects.py      the verified DICOM objects, made from those of the revision before
verify.py       all of it in one transaction: a new revision of the results

A verification is a revision like any other: a job row that is done from the start, with its own artefacts, FHIR
versions and deliveries. Nothing of the revision before is changed. It is made from the stored objects, not from the
images: what a person accepted is what the person saw.
"""
