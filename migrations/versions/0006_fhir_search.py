"""FHIR search at size: what it is found by.

Index rows of replaced versions go, since no search looks at them; quantities, displays and composites get columns;
the indexes hold rows in the order in which pages are given. A resource may be deleted, and exports have their table.
PostgreSQL is told which values go together: by single columns it would take a common status for a rare one, and go
through whole tables.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.engine import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CURRENT = sa.text("is_current"), sa.text("is_current = 1")
_STATISTICS = {"st_fhir_index_parameter": "type, parameter", "st_fhir_index_value": "type, parameter, value"}
_BYTEWISE_ID = sa.String(64, collation="C")
_BYTEWISE = sa.String(1024).with_variant(sa.String(1024, collation="C"), "postgresql")


def upgrade() -> None:
    """Apply."""
    op.execute("DELETE FROM fhir_index WHERE resource_pk IN (SELECT id FROM fhir_resource WHERE NOT is_current)")
    with op.batch_alter_table("fhir_resource", schema=None) as batch_op:
        batch_op.add_column(sa.Column("is_deleted", sa.Boolean(), server_default=sa.false(), nullable=False))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("fhir_resource", "resource_id", type_=_BYTEWISE_ID, existing_type=sa.String(64))
    _replace_resource_indexes()
    _replace_index_rows()
    if op.get_bind().dialect.name == "postgresql":
        for name, columns in _STATISTICS.items():
            op.execute(f"CREATE STATISTICS {name} (mcv) ON {columns} FROM fhir_index")
            op.execute(f"ALTER STATISTICS {name} SET STATISTICS 500")
        op.execute("ANALYZE fhir_index")
    op.create_table(
        "fhir_index_state",
        sa.Column("parameters", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("parameters", name=op.f("pk_fhir_index_state")),
    )
    op.create_table(
        "fhir_export",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("types", sa.JSON(), nullable=False),
        sa.Column("patients_only", sa.Boolean(), nullable=False),
        sa.Column("since", UtcDateTime()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fhir_export")),
    )
    op.create_index(op.f("ix_fhir_export_requested_at"), "fhir_export", ["requested_at"])


def _replace_resource_indexes() -> None:
    op.drop_index("ix_fhir_resource_type", "fhir_resource")
    op.create_index("ix_fhir_resource_type", "fhir_resource", ["type", "last_updated", "id"])
    op.create_index("ix_fhir_resource_last_updated", "fhir_resource", ["last_updated"])
    postgresql, sqlite = _CURRENT
    for name, columns, is_unique in (
        ("uq_fhir_resource_current", ["type", "resource_id"], True),
        ("ix_fhir_resource_order", ["type", "id"], False),
    ):
        op.create_index(
            name, "fhir_resource", columns, unique=is_unique, postgresql_where=postgresql, sqlite_where=sqlite
        )


def _replace_index_rows() -> None:
    for name in ("ix_fhir_index_date", "ix_fhir_index_value", "ix_fhir_index_resource_pk"):
        op.drop_index(name, "fhir_index")
    with op.batch_alter_table("fhir_index", schema=None) as batch_op:
        batch_op.alter_column("value", type_=_BYTEWISE, existing_type=sa.String(1024))
        batch_op.add_column(sa.Column("text", sa.String(1024)))
        batch_op.add_column(sa.Column("number", sa.Float()))
        batch_op.add_column(sa.Column("other_system", sa.String(255)))
        batch_op.add_column(sa.Column("other_value", sa.String(1024)))
    op.create_index("ix_fhir_index_value", "fhir_index", ["type", "parameter", "value", "resource_pk", "system"])
    op.create_index("ix_fhir_index_resource_pk", "fhir_index", ["resource_pk", "parameter", "value", "low"])
    for name, columns, needed in (
        ("ix_fhir_index_date", ["type", "parameter", "low", "resource_pk", "high"], "low"),
        ("ix_fhir_index_number", ["type", "parameter", "number", "resource_pk"], "number"),
    ):
        there = sa.text(f"{needed} IS NOT NULL")
        op.create_index(name, "fhir_index", columns, postgresql_where=there, sqlite_where=there)


def downgrade() -> None:
    """Undo; versions that say a resource was deleted go, for the program before them would show their empty body."""
    if op.get_bind().dialect.name == "postgresql":
        for name in _STATISTICS:
            op.execute(f"DROP STATISTICS {name}")
    op.drop_table("fhir_export")
    op.drop_table("fhir_index_state")
    for name in ("ix_fhir_index_number", "ix_fhir_index_date", "ix_fhir_index_value", "ix_fhir_index_resource_pk"):
        op.drop_index(name, "fhir_index")
    with op.batch_alter_table("fhir_index", schema=None) as batch_op:
        batch_op.alter_column("value", type_=sa.String(1024), existing_type=_BYTEWISE)
        for column in ("other_value", "other_system", "number", "text"):
            batch_op.drop_column(column)
    op.create_index("ix_fhir_index_date", "fhir_index", ["type", "parameter", "low"])
    op.create_index("ix_fhir_index_value", "fhir_index", ["type", "parameter", "value", "system"])
    op.create_index(op.f("ix_fhir_index_resource_pk"), "fhir_index", ["resource_pk"])
    for name in ("ix_fhir_resource_order", "uq_fhir_resource_current", "ix_fhir_resource_last_updated"):
        op.drop_index(name, "fhir_resource")
    op.drop_index("ix_fhir_resource_type", "fhir_resource")
    op.create_index("ix_fhir_resource_type", "fhir_resource", ["type", "is_current", "last_updated"])
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("fhir_resource", "resource_id", type_=sa.String(64), existing_type=_BYTEWISE_ID)
    op.execute("DELETE FROM fhir_resource WHERE is_deleted")
    with op.batch_alter_table("fhir_resource", schema=None) as batch_op:
        batch_op.drop_column("is_deleted")
