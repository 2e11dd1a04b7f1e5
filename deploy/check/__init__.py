"""Checks of what stands in `deploy/`, for machines without a container engine or a cluster.

image.py          the Containerfile's own steps, run in a fresh root
containerfile.py  its instructions, read
conformance.py    writes the DICOM conformance statement from the program's own tables
ihe.py            writes the IHE integration statement; ihe_profiles.py  what it says of each profile
fhir_capability.py  writes the page of the FHIR server from its CapabilityStatement
facts.py          what receiver, DICOMweb and FHIR answer when asked; page.py  tables of Markdown
capacity.py       from studies per day to cores, GPUs, disk and network, the arithmetic shown
"""
