"""Care over years: retention, places of files; what all hosts share; exemplars; what associations carried.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


# Who keeps a study, whatever the rules of retention say.
_HOLD = (
    lambda: sa.Column("held_by", sa.String(length=255)),
    lambda: sa.Column("hold_reason", sa.Text()),
    lambda: sa.Column("held_at", sa.DateTime(timezone=True)),
)


_CARRIED_BEFORE = """
    INSERT INTO association_content (association_id, study_instance_uid, sop_class_uid, instances)
    SELECT association_id, study_instance_uid, sop_class_uid, count(*) FROM instance
    GROUP BY association_id, study_instance_uid, sop_class_uid
"""


def upgrade() -> None:
    """Apply."""
    op.add_column("service", sa.Column("exemplars", sa.JSON(none_as_null=True)))
    op.create_table(
        "installation",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("installation_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_installation")),
    )
    floor = op.create_table(
        "schema_floor",
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_floor")),
    )
    op.execute(floor.insert().values(revision=revision))

    for column in _HOLD:
        op.add_column("study", column())
    op.create_table(
        "removal",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removal")),
        sa.UniqueConstraint("path", name=op.f("uq_removal_path")),
    )
    op.create_table(
        "association_content",
        sa.Column("association_id", sa.String(length=36), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"],
            ["study.study_instance_uid"],
            name=op.f("fk_association_content_study_instance_uid_study"),
        ),
        sa.PrimaryKeyConstraint(
            "association_id", "study_instance_uid", "sop_class_uid", name=op.f("pk_association_content")
        ),
    )
    with op.batch_alter_table("association_content") as batch_op:
        batch_op.create_index(op.f("ix_association_content_study_instance_uid"), ["study_instance_uid"])
    op.execute(_CARRIED_BEFORE)


def downgrade() -> None:
    """Undo."""
    op.drop_table("association_content")
    op.drop_table("removal")
    for column in _HOLD:
        op.drop_column("study", column().name)
    op.drop_table("schema_floor")
    op.drop_table("installation")
    op.drop_column("service", "exemplars")
