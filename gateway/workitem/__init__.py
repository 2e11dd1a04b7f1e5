"""Unified Procedure Step (PS3.4 annex CC): every job is a workitem, told and asked for by DIMSE and UPS-RS alike.

state.py        a job's state as a procedure step state; what the events say (pure)
refusal.py      why a request is refused, as DIMSE status and as HTTP status
times.py        DT values (PS3.5 6.2) to and from datetimes
mapping.py      a workitem's row -> its DICOM attributes
performed.py    progress and performed procedure: of our workers, and as an external performer writes them
keys.py         a C-FIND identifier or query parameters -> matching keys
request.py      what a client writes: a new workitem, an update
service.py      create, retrieve, search, update, claim, complete, cancel
subscribing.py  who is told of what
dimse.py        the SOP classes Push, Pull, Watch and Query
teller.py       events to subscribers by N-EVENT-REPORT
"""
