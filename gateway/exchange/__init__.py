"""FHIR and HL7 with other systems: what goes out to them, and what is asked of them.

client.py     one HTTP exchange, bounded in time and size
endpoint.py   which addresses may be told
report.py     a finished job as the FHIR resources that tell it
transaction.py  those -> a transaction Bundle for another server; deidentified.py  without the patient
oru.py        those -> HL7 v2.5.1 ORU^R01; er7.py  its encoding; mllp.py  a message over MLLP, and its acknowledgement
poller.py     asks a hospital's FHIR server what changed
"""
