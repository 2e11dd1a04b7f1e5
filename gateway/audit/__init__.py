"""Who did what: the audit trail (PS3.15 A.5). It names patients by their ids, as the standard wants; logs name none.

event.py      what happened, who took part, what it was about (pure; knows neither DICOM XML nor FHIR)
acts.py       the events that this gateway knows (pure)
codes.py      codes of PS3.16 CID 400 to 403 and of RFC 3881
chain.py      the hash chain (pure)
dicom_xml.py  an event as an audit message of DICOM
lines.py      the chain in the database: append, list, verify
journal.py    events on their way to the database, in a file that outlives a kill
trail.py      the trail of one process: `record` returns at once
syslog.py     RFC 5424 over TLS, TCP or UDP
keeper.py     what follows from the lines: FHIR resources, syslog; and what associations brought

```
record -> journal (a write, no wait) -> database (chained, in batches) -> syslog repository, FHIR AuditEvent
```

What a process has recorded outlives its kill: the journal is written before `record` returns, and another process
takes it over. A power cut may cost what the journal held in the half second before it was synced; what commands and
the purge record is in the database with what they did, in one transaction.
"""

from gateway.audit.trail import record

__all__ = ["record"]
