"""Alembic's environment: the engine comes from `gateway.store.schema`; there is no offline mode."""

from __future__ import annotations

from alembic import context

from gateway.store.engine import waiting_for_ever
from gateway.store.tables import metadata

engine = context.config.attributes["engine"]
with engine.connect().execution_options(hybridmed_write=True) as connection, waiting_for_ever(connection):
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Two hosts may upgrade at once: the second waits, then finds nothing to do.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4837201)")
        context.run_migrations()
    connection.commit()
