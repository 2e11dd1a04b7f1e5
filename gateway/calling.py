"""Associations that we ask for, ended as PS3.8 wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom.association import Association


@contextmanager
def ended(association: Association) -> Iterator[Association]:
    """Release an established association at the end of the block; abort it where the block fails."""
    try:
        yield association
    except BaseException:  # whatever ends the block, a generator that is closed too: the peer must not wait for us
        association.abort()
        raise
    association.release()
