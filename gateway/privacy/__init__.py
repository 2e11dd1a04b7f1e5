"""What leaves to research destinations, without the patient (PS3.15 annex E).

profile.py       what becomes of each attribute: the Basic Profile's table, and the options that we take
deidentify.py    a data set without the patient
sender.py        a way of sending objects, with that before it
reidentify.py    back from a pseudonym to the patient, for whoever has the key

The pseudonyms are those of `gateway.exchange.deidentified`: what goes by DICOM and by FHIR meets itself.
"""
