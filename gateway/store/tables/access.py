"""Who may ask over HTTP: tokens, registered clients, assertions seen."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import BIG, metadata

access_token = sa.Table(
    "access_token",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),  # SHA-256 of the token, which is not kept
    sa.Column("kind", sa.String(8), nullable=False),  # token: made by command | smart: given to a registered client
    sa.Column("name", sa.String(64), nullable=False),  # for the audit trail; of a client, its id
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("scopes", sa.JSON(none_as_null=True)),  # SMART scopes; null: the roles alone decide
    sa.Column("patient", sa.String(64)),  # FHIR id of the Patient whose compartment binds the token
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
    sa.Column("last_used_at", UtcDateTime),  # to the minute or so
    sa.Column("revoked_at", UtcDateTime),
    sa.Index("ix_access_token_name", "name", "kind"),
)

smart_client = sa.Table(
    "smart_client",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # client_id
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),  # the most that it is given
    sa.Column("patient", sa.String(64)),
    sa.Column("jwks", sa.JSON(none_as_null=True)),  # its public keys, or
    sa.Column("jwks_url", sa.String(1024)),  # where they are
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("revoked_at", UtcDateTime),
)

used_assertion = sa.Table(
    "used_assertion",
    metadata,
    sa.Column("client_id", sa.String(64), primary_key=True),
    sa.Column("jti_digest", sa.String(64), primary_key=True),  # SHA-256: the client chooses its length
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
)
