"""Where stored files lie on more than one machine: the table `[s3]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class S3(BaseModel):
    """A bucket for instances and results; without one, files stay in the data folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    bucket: str | None = None
    """Name of the bucket; unset: files stay in the data folder alone. Needs the extra `grown`."""
    prefix: str = "hybridmed"
    """First part of every key."""
    endpoint: str | None = None
    """`https://…` of a server that is not Amazon's; plain http is taken too, for networks of our own."""
    region: str = "us-east-1"
    """Region."""
    access_key_id: str | None = None
    """Unset: the machine's own identity, as the environment and the cloud give it."""
    secret_access_key: SecretStr | None = None
    """Belongs to `access_key_id`."""
    secret_access_key_file: Path | None = None
    """A file that holds it, instead."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Time limit of one request."""
    cache_gib: Annotated[float, Field(ge=0)] = 20.0
    """Local copies kept for the next reader, in GiB; the least recently used go first. What is not indexed yet is never
    among them."""
