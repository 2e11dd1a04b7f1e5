"""Which objects are shown: received ones and our own results, without the rejected, each SOP Instance UID once.

A result of ours that a PACS sent back is a received instance too: it is shown as the result that it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from gateway.store.results import DICOM
from gateway.store.tables import artefact, instance, rejection, series

RESULT_TRANSFER_SYNTAX = "1.2.840.10008.1.2.1"
"""Explicit VR Little Endian: the transfer syntax of every result in its standard rendering."""
_MODALITY_OF: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.7": "OT",
}
"""Of the SOP classes of results whose rows of earlier versions do not name it."""

result_modality: sa.ColumnElement[str] = sa.func.coalesce(
    artefact.c.modality, sa.case(_MODALITY_OF, value=artefact.c.sop_class_uid, else_="OT")
)
is_result: sa.ColumnElement[bool] = sa.and_(
    artefact.c.media_type == DICOM, artefact.c.variant == "", artefact.c.sop_instance_uid.is_not(None)
)
"""Of an artefact: it is an object in its standard rendering."""

_refused = sa.exists().where(rejection.c.sop_instance_uid == artefact.c.sop_instance_uid).correlate(artefact)
_put_away = sa.exists().where(rejection.c.sop_instance_uid == instance.c.sop_instance_uid).correlate(instance)
_is_ours = sa.exists().where(artefact.c.sop_instance_uid == instance.c.sop_instance_uid, is_result).correlate(instance)

result_is_shown: sa.ColumnElement[bool] = sa.and_(is_result, ~_refused)
instance_is_shown: sa.ColumnElement[bool] = sa.and_(instance.c.is_current, ~_put_away, ~_is_ours)
"""Of a received instance: it is the current one of its UID, not rejected, and not a result of ours come back."""

_SAME = ("study_instance_uid", "series_instance_uid", "sop_class_uid", "sop_instance_uid", "path", "size_bytes")
_COUNTED = ("instance_number", "number_of_frames", "rows", "columns")


def received() -> sa.Select[Any]:
    """Select the received instances that are shown, with modality and number of their series."""
    of_series = sa.and_(
        series.c.study_instance_uid == instance.c.study_instance_uid,
        series.c.series_instance_uid == instance.c.series_instance_uid,
    )
    return (
        sa.select(
            *(instance.c[name] for name in (*_SAME, *_COUNTED)),
            instance.c.transfer_syntax_uid,
            series.c.modality,
            series.c.series_number,
            sa.literal(False, sa.Boolean()).label("is_result"),
        )
        .join_from(instance, series, of_series)
        .where(instance_is_shown)
    )


def results() -> sa.Select[Any]:
    """Select the results that are shown, with the same columns as `received`."""
    return sa.select(
        *(artefact.c[name] for name in (*_SAME, *_COUNTED)),
        sa.literal(RESULT_TRANSFER_SYNTAX, sa.String()).label("transfer_syntax_uid"),
        result_modality.label("modality"),
        artefact.c.series_number,
        sa.literal(True, sa.Boolean()).label("is_result"),
    ).where(result_is_shown)
