"""Routing rules: which studies get which bundles."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Match(BaseModel):
    """What a rule asks of a study; every condition given must hold, in one series at least."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calling_ae: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    description: str | None = None
    """Regular expression, searched without regard to case in study and series description."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Keyword or 'gggg,eeee' -> regular expression, searched in the first instance of the series."""

    @field_validator("calling_ae", "modality", "body_part", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("description")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            _require_expression(value)
        return value

    @field_validator("tags")
    @classmethod
    def _all_compile(cls, value: dict[str, str]) -> dict[str, str]:
        for expression in value.values():
            _require_expression(expression)
        return value


def _require_expression(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error


class Rule(BaseModel):
    """A routing rule; the first rule that matches decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    match: Match = Match()
    bundles: tuple[str, ...] = ()
    """Bundles to run; empty: keep the study and run nothing."""
    priority: Literal["stat", "routine"] = "routine"
    destinations: tuple[str, ...] | None = None
    """Names of destinations; None: all."""
