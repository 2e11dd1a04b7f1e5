"""The schema's version: checked at every start, upgraded by Alembic."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from gateway.errors import SchemaError
from gateway.store.engine import Store
from gateway.store.tables import schema_floor

_PACKAGE = Path(__file__).parents[1]


def migrations_dir() -> Path:
    """Return the folder of migrations: beside the package in a checkout, inside it in a wheel."""
    installed = _PACKAGE / "_migrations"
    return installed if installed.is_dir() else _PACKAGE.parent / "migrations"


def alembic_config(store: Store | None = None) -> Config:
    """Return Alembic's configuration, with the open engine for `env.py`."""
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()))
    config.attributes["engine"] = store.engine if store is not None else None
    return config


def head_revision() -> str:
    """Return the newest revision that this program knows."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise SchemaError(f"no migration in {migrations_dir().name}: the installation is incomplete, install it again")
    return head


def current_revision(store: Store) -> str | None:
    """Return the revision of the database, None for an empty one."""
    with store.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(store: Store, revision: str = "head") -> None:
    """Bring the database to a revision; SchemaError where it is newer than this program can use."""
    refuse_newer(store)
    if is_ahead(store):
        return
    command.upgrade(alembic_config(store), revision)


def downgrade(store: Store, revision: str) -> None:
    """Take the database back to a revision ('base': empty)."""
    command.downgrade(alembic_config(store), revision)


def refuse_newer(store: Store) -> None:
    """Raise SchemaError where the database's schema is newer than this program, and more than additions.

    During a rolling upgrade old programs run beside new ones: migrations only add, and `schema_floor` names the oldest
    program that may go on (deploy/operations.md).
    """
    if is_ahead(store) and _floor(store) not in _known():
        raise SchemaError(
            f"the database has schema {current_revision(store)}, this program knows up to {head_revision()}: "
            "install the newer program, or restore the backup made before its upgrade"
        )


def is_ahead(store: Store) -> bool:
    """Say whether the database's schema is one that only a newer program knows."""
    revision = current_revision(store)
    return revision is not None and revision not in _known()


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}


def _floor(store: Store) -> str | None:
    with store.read() as connection:
        if not sa.inspect(connection).has_table(schema_floor.name):
            return None
        return connection.scalar(sa.select(schema_floor.c.revision))


def require_current(store: Store) -> None:
    """Apply migrations on SQLite; elsewhere raise SchemaError that names the command."""
    refuse_newer(store)
    revision = current_revision(store)
    if revision == head_revision() or is_ahead(store):
        return
    if store.engine.dialect.name == "sqlite":
        upgrade(store)
        return
    raise SchemaError(
        f"the database has schema {revision or 'none'}, this program needs {head_revision()}: "
        "run `hybridmed db upgrade`"
    )
