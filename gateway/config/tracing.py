"""Traces: the table `[tracing]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Tracing(BaseModel):
    """Where spans go; without an endpoint none are made."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    endpoint: str | None = None
    """OTLP over HTTP, for example `http://collector:4318/v1/traces`; needs the extra `grown`."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Time limit of one export; spans that find no collector are dropped, the work goes on."""
