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
deliveries.py  a row for each job and destination
services.py    heartbeats of running roles, with their counters

Functions take a `Connection` first and hold no state; a transaction is the caller's.
"""

from gateway.store.engine import Store, open_store

__all__ = ["Store", "open_store"]
