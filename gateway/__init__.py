"""HybridMed Gateway: DICOM in and out, studies, jobs, web, command line. No torch is imported here.

association.py      pynetdicom events in, DIMSE status out: the role that receives
receive/            its fast path: P-DATA from the receive buffer to the file, nobody polls
storage_service.py  C-STORE fragments straight to disk; upper_layer.py  TCP and PDUs, bounded in time and size
header.py           the fields that are indexed; elements.py reads a data set within bounds, charset.py its text
person_name.py      names folded for matching
dimse_service.py    the seam for DIMSE services besides storage
query_retrieve/     C-FIND, C-MOVE, C-GET: identifiers, sub-operations from disk
commitment.py       storage commitment: what becomes of a transaction; commitment_service.py  its part in an association
query/              what can be asked: objects by UID, matching for QIDO-RS and C-FIND
workitem/           Unified Procedure Step: every job as a workitem, by DIMSE and UPS-RS; who is told of it
spool.py            one instance to disk: temporary file, rename, fsync; what a restart finds
indexer.py          stored instances -> rows, in batches; quarantine.py  what it put aside, back to it
calling.py          associations that we ask for, ended; once.py  secret files made at their first use
disk.py             whether the data folder has room, and may be written to
study.py            when a study is complete (pure; the clock is passed in)
routing.py          which bundles a study wants (pure)
rejection.py        rejection notes that arrive (IOCM)
job.py              a job's states and allowed transitions (pure)
dispatcher.py       complete studies -> jobs; relay.py  outbox -> broker; sweeper.py  what others left behind
reprocess.py        studies processed anew on request
broker.py           Broker protocol; the embedded one; rabbitmq.py, rabbitmq_link.py  the one on pika
lease.py            leases in hand, renewed by a thread
worker/             claim, load, infer, release the DICOM objects, commit the rest, acknowledge last
report/             findings -> SR, SEG, heat map, pictures
terms_zh.py         words of results in Chinese, for pages and reports
variant.py          what a destination wants otherwise (pure)
exchange/           FHIR and HL7 v2 with other systems: subscriptions' endpoints, reports out, updates in
delivery/           results to destinations by C-STORE, STOW-RS, FHIR or HL7 v2; sending.py  files to a Storage SCP
verification/       a person's word on a result: a new revision
store/              the database
web/                HTTP: FHIR mounted, DICOMweb, worklist and study pages, viewer, sign-in, health, metrics
services.py         roles, heartbeats, counters
supervisor.py       `serve`: roles as processes, restarted with back-off, drained on SIGTERM
pulse.py            a process's sign of life, to the supervisor or systemd
viewer.py           OHIF: its package fetched, checked, unpacked
doctor.py           checks every part and says what to do; access_state.py  what it says of access over HTTP
tls.py              TLS contexts for HTTP and DICOM, from files that may change
secure_channel.py   DICOM over TLS: handshakes of callers, contexts for those whom we call
admission.py        who may associate, from where, with which certificate, what for and how fast
audit/              who did what: journal, hash chain, audit messages of DICOM, syslog, what makes AuditEvents
retention/          studies that have had their time are removed
privacy/            objects without the patient, for research destinations; back from a pseudonym
scope.py            SMART scopes (pure)
health.py           whether the roles of this host live
care/               backup, restore, reindex, evidence of a study, support without patient data
tracing.py          one trace from association to delivery
demo.py             sample studies in, results out
cli/                the command line
config/ errors.py log.py
decoding.py         compressed frames to pixels, in a process of their own
quiet.py            silence for libraries that warn with values
place.py            where an error arose, told without its message
wiring/             builds the real parts from the settings, a module for each role
testing.py          shipped fakes, which pass the contract tests of the real parts
samples/            three de-identified chest X-rays for `hybridmed demo`
"""

from importlib.metadata import version

__version__ = version("hybridmed-gateway")
