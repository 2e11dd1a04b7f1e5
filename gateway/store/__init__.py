"""The database: the truth about studies, jobs, results and deliveries.

engine.py      engines for SQLite (WAL) and PostgreSQL; `Store` with its read and write transactions
tables.py      all tables
schema.py      Alembic: version check, upgrade
instances.py   associations, instances, series, studies as they arrive
quarantine.py  files that cannot be indexed
studies.py     studies as the dispatcher and the operator see them
jobs.py        jobs and their leases
outbox.py      messages due to the broker
results.py     artefacts and FHIR resources of a finished job, committed in one transaction
workitems.py   jobs as Unified Procedure Steps; workitem_query.py  found by matching keys
workitem_events.py  what subscribers are told, written where jobs change; subscriptions.py  who they are
deliveries.py  a row for each job and destination
commitments.py a row for each storage commitment transaction
services.py    heartbeats of running roles, with their counters

Functions take a `Connection` first and hold no state; a transaction is the caller's.
"""

from gateway.store.engine import Store, open_store

__all__ = ["Store", "open_store"]
