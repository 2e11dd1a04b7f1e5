"""Who did what: the audit trail.

Associations that ended before are not told of afterwards: nobody audited then.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.engine import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit_event",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("patient_id", sa.String(255)),
        sa.Column("study_instance_uid", sa.String(64)),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_audit_event"),
        sa.UniqueConstraint("event_id", name="uq_audit_event_event_id"),
    )
    for column in ("recorded_at", "patient_id", "study_instance_uid", "hash"):
        op.create_index(f"ix_audit_event_{column}", "audit_event", [column])
    op.create_table(
        "audit_cursor",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("held_until", UtcDateTime),
        sa.PrimaryKeyConstraint("name", name="pk_audit_cursor"),
    )
    op.add_column("association", sa.Column("is_audited", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("ix_association_is_audited_closed_at", "association", ["is_audited", "closed_at"])
    op.execute("UPDATE association SET is_audited = true WHERE closed_at IS NOT NULL")


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_association_is_audited_closed_at", "association")
    op.drop_column("association", "is_audited")
    op.drop_table("audit_cursor")
    op.drop_table("audit_event")
