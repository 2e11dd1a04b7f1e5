"""The schema's version: checked at every start, upgraded by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from gateway.errors import SchemaError
from gateway.store.engine import Store

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
    """Bring the database to a revision; SchemaError where it is newer than this program."""
    refuse_newer(store)
    command.upgrade(alembic_config(store), revision)


def downgrade(store: Store, revision: str) -> None:
    """Take the database back to a revision ('base': empty)."""
    command.downgrade(alembic_config(store), revision)


def refuse_newer(store: Store) -> None:
    """Raise SchemaError where the database's schema is not one this program knows."""
    revision = current_revision(store)
    if revision is None:
        return
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if revision not in known:
        raise SchemaError(
            f"the database has schema {revision}, this program knows up to {head_revision()}: "
            "install the newer program, or restore the backup made before its upgrade"
        )


def require_current(store: Store) -> None:
    """Apply migrations on SQLite; elsewhere raise SchemaError that names the command."""
    refuse_newer(store)
    revision = current_revision(store)
    if revision == head_revision():
        return
    if store.engine.dialect.name == "sqlite":
        upgrade(store)
        return
    raise SchemaError(
        f"the database has schema {revision or 'none'}, this program needs {head_revision()}: "
        "run `hybridmed db upgrade`"
    )
