"""FHIR with others: what changed, who is told, what they wrote, how far they were asked."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import BIG, UID, metadata

fhir_change = sa.Table(
    "fhir_change",
    metadata,
    # A row for each version, written with it; the matcher deletes it once subscribers have their event.
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("resource_pk", BIG, nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
)

fhir_subscription = sa.Table(
    "fhir_subscription",
    metadata,
    sa.Column("resource_id", sa.String(64), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),  # requested | active | error | off
    sa.Column("resource_type", sa.String(32), nullable=False),  # of what is told
    sa.Column("criteria", sa.Text, nullable=False),  # query string; '' takes all of the type
    sa.Column("topic", sa.String(255)),  # canonical, of the backport; null: R4's own kind
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("headers", sa.JSON, nullable=False),  # [name, value]; values are secrets and not in the resource
    sa.Column("content", sa.String(16), nullable=False),  # empty | id-only | full-resource
    sa.Column("heartbeat_s", sa.Integer),
    sa.Column("timeout_s", sa.Integer),
    sa.Column("max_count", sa.Integer, nullable=False),  # events in one notification
    sa.Column("ends_at", UtcDateTime),
    sa.Column("base", sa.Text, nullable=False),  # address under which the client reached us
    sa.Column("owner", sa.JSON(none_as_null=True)),  # name, scopes and patient of who subscribed
    sa.Column("event_count", sa.BigInteger, nullable=False),  # numbers given, from 1 and without gaps
    sa.Column("told", sa.BigInteger, nullable=False),  # the last number that the endpoint took
    sa.Column("failures", sa.Integer, nullable=False),  # since something was taken
    sa.Column("available_at", UtcDateTime, nullable=False),  # nothing is sent before
    sa.Column("heartbeat_at", UtcDateTime),  # when a silence ends
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_expires_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index("ix_fhir_subscription_due", "status", "available_at"),
)

fhir_subscription_event = sa.Table(
    "fhir_subscription_event",
    metadata,
    sa.Column("subscription_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("resource_type", sa.String(32), nullable=False),
    sa.Column("resource_id", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("happened_at", UtcDateTime, nullable=False, index=True),
)

fhir_written = sa.Table(
    "fhir_written",
    metadata,
    sa.Column("type", sa.String(32), primary_key=True),
    sa.Column("resource_id", sa.String(64), primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),  # as it was written, JSON in UTF-8
    sa.Column("source", sa.String(128), nullable=False),  # who wrote it: a caller's name, or the server polled
    sa.Column("written_at", UtcDateTime, nullable=False),
)

demographic_issue = sa.Table(
    "demographic_issue",
    metadata,
    sa.Column("study_instance_uid", UID, primary_key=True),
    sa.Column("patient", sa.String(64), nullable=False, index=True),  # id of the FHIR Patient
    sa.Column("elements", sa.JSON, nullable=False),  # names of the elements that differ, never their values
    sa.Column("source", sa.String(128), nullable=False),  # who says otherwise than the images
    sa.Column("noted_at", UtcDateTime, nullable=False),
)

fhir_poll = sa.Table(
    "fhir_poll",
    metadata,
    sa.Column("server", sa.String(255), primary_key=True),
    sa.Column("type", sa.String(32), primary_key=True),
    sa.Column("since", UtcDateTime),  # all that was updated up to here has been taken
    sa.Column("next_link", sa.Text),  # where a round that was interrupted goes on
    sa.Column("began_at", UtcDateTime),  # that round
    sa.Column("etag", sa.Text),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("available_at", UtcDateTime, nullable=False),
    sa.Column("polled_at", UtcDateTime),
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_expires_at", UtcDateTime),
)
