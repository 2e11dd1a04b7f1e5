"""The database: the truth about studies, jobs, results and deliveries.

engine.py      engines for SQLite (WAL) and PostgreSQL; `Store` with its read and write transactions
answering.py   a connection to PostgreSQL that does not wait for ever
commits.py     waiting for somebody's commit between two looks
tables/        all tables
schema.py      Alembic: version check, upgrade
files.py       stored files: the data folder, or a bucket behind it; bucket.py  S3
installation.py  one id for all hosts
instances.py   associations, instances, series, studies as they arrive
quarantine.py  files that cannot be indexed
studies.py     studies as the dispatcher and the operator see them
jobs.py        jobs and their leases
transitions.py who else writes when a job changes
outbox.py      messages due to the broker
results.py     artefacts and FHIR resources of a job; released.py  its objects, which are out before it is done
workitems.py   jobs as Unified Procedure Steps; workitem_query.py  found by matching keys
workitem_events.py  what subscribers are told, written where jobs change; subscriptions.py  who they are
deliveries.py  a row for each job and destination
fhir_subscriptions.py  what changed, who has an event of it; demographics.py  what others wrote; polls.py  how far asked
commitments.py a row for each storage commitment transaction
access.py      access tokens, by their digests; access_clients.py  registered clients, assertions seen
sessions.py    signed-in browsers
clock_steps.py what waits for a moment, after the clock was set back
services.py    heartbeats of running roles, with their counters
retention.py   studies as retention sees them, what keeps them, their rows removed
tally.py       how many bytes are kept

Functions take a `Connection` first and hold no state; a transaction is the caller's.
"""

from gateway.store.engine import Store, open_store

__all__ = ["Store", "open_store"]
