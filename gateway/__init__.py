"""HybridMed Gateway: DICOM in and out, studies, jobs, web, command line. No torch is imported here.

association.py      pynetdicom events in, DIMSE status out: the role that receives
storage_service.py  C-STORE fragments straight to disk; upper_layer.py  TCP and PDUs, bounded in time and size
header.py           the fields that are indexed; elements.py reads a data set within bounds, charset.py its text
person_name.py      names folded for matching
dimse_service.py    the seam for DIMSE services besides storage
query_retrieve/     C-FIND, C-MOVE, C-GET: identifiers, sub-operations from disk
commitment.py       storage commitment: what becomes of a transaction; commitment_service.py  its part in an association
query/              what can be asked: objects by UID, matching for QIDO-RS and C-FIND
workitem/           Unified Procedure Step: every job as a workitem, by DIMSE and UPS-RS; who is told of it
spool.py            one instance to disk: temporary file, fsync, rename; what a restart finds
indexer.py          stored instances -> rows, in batches; quarantine.py  what it put aside, back to it
study.py            when a study is complete (pure; the clock is passed in)
routing.py          which bundles a study wants (pure)
rejection.py        rejection notes that arrive (IOCM)
job.py              a job's states and allowed transitions (pure)
dispatcher.py       complete studies -> jobs; relay.py  outbox -> broker; sweeper.py  what others left behind
reprocess.py        studies processed anew on request
broker.py           Broker protocol; the embedded one; rabbitmq.py, rabbitmq_link.py  the one on pika
lease.py            leases in hand, renewed by a thread
worker/             claim, load, infer, render, commit, acknowledge last
report/             findings -> SR, SEG, heat map, pictures
variant.py          what a destination wants otherwise (pure)
delivery/           results to destinations by C-STORE or STOW-RS; sending.py  files to a Storage SCP
verification/       a person's word on a result: a new revision
store/              the database
web/                HTTP: FHIR mounted, DICOMweb, worklist and study pages, viewer, sign-in, health, metrics
services.py         roles, heartbeats, counters
supervisor.py       `serve`: roles as processes, restarted with back-off, drained on SIGTERM
viewer.py           OHIF: its package fetched, checked, unpacked
doctor.py           checks every part and says what to do
demo.py             sample studies in, results out
cli/                the command line
config.py errors.py log.py
decoding.py         compressed frames to pixels, in a process of their own
quiet.py            silence for libraries that warn with values
place.py            where an error arose, told without its message
wiring/             builds the real parts from the settings, a module for each role
testing.py          shipped fakes, which pass the contract tests of the real parts
samples/            three de-identified chest X-rays for `hybridmed demo`
"""

from importlib.metadata import version

__version__ = version("hybridmed-gateway")
