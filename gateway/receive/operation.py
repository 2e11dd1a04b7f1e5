"""A C-STORE operation from its request to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pynetdicom.dimse_primitives import C_STORE

from gateway.errors import CannotUnderstandError, RefusedError
from gateway.spool import Upload

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(slots=True)
class StoreOperation:
    """A C-STORE request whose data set is coming, or has come."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    upload: Upload | None = None
    refusal: RefusedError | None = None

    def write(self, context_id: int, pieces: Sequence[memoryview]) -> None:
        """Take pieces of the data set; what is refused is read to its end and thrown away, to be answered then."""
        if self.upload is None or self.refusal is not None:
            return
        try:
            if context_id != self.context_id:
                raise CannotUnderstandError("fragments of two presentation contexts in one message")
            self.upload.write(*pieces)
        except RefusedError as error:
            self.refusal = error
            self.upload.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        if self.upload is not None:
            self.upload.discard()


def without_data_set(context_id: int, message: C_STORE) -> StoreOperation:
    """Return the request of a C-STORE whose command says that no data set follows."""
    return StoreOperation(
        context_id,
        message.MessageID or 0,
        str(message.AffectedSOPClassUID or ""),
        str(message.AffectedSOPInstanceUID or ""),
    )


def encoded_uid(command: Dataset, tag: int) -> str:
    """Return a UID of the command as it was sent; pydicom would warn of a wrong one, with its value."""
    if tag not in command:
        return ""
    element = command.get_item(tag)
    value = element.value
    return value.rstrip(b" \0").decode("ascii", "replace") if isinstance(value, bytes) else str(value)
