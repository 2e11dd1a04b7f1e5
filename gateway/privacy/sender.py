"""A way of sending objects that takes the patient out of them before."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import structlog

from gateway.decoding import MALFORMED
from gateway.delivery.sender import Outgoing, Sender
from gateway.errors import DeliveryError
from gateway.privacy.deidentify import BurnedInError, Deidentifier

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DeidentifyingSender:
    """See `gateway.delivery.sender.Sender`.

    Parameters
    ----------
    inner
        Sends what is left.
    deidentifier
        Takes the patient out.
    """

    inner: Sender
    deidentifier: Deidentifier

    def send(self, objects: Sequence[Outgoing], /) -> None:
        """Send copies without the patient, gone again afterwards; pictures with text in them stay here.

        Raises
        ------
        DestinationAwayError, DeliveryError
            As the inner one; also where a file cannot be read or nothing is left to send.
        """
        with tempfile.TemporaryDirectory(prefix="hybridmed-") as folder:
            copies = [
                copy
                for number, each in enumerate(objects)
                if (copy := self._copy(each, Path(folder), number)) is not None
            ]
            if not copies:
                raise DeliveryError("nothing is left to send: text may be burned into every picture")
            self.inner.send(copies)

    def _copy(self, each: Outgoing, folder: Path, number: int) -> Outgoing | None:
        try:
            data_set = pydicom.dcmread(each.path)
            self.deidentifier.apply(data_set, is_own=True)
        except BurnedInError:
            log.info("delivery.withheld", kind=each.kind, reason="text may be burned into the picture")
            return None
        except (OSError, *MALFORMED) as error:
            raise DeliveryError(f"{each.kind} cannot be de-identified: {type(error).__name__}") from error
        path = folder / f"{number}.dcm"
        data_set.save_as(path, enforce_file_format=True)
        return replace(each, path=path, sop_instance_uid=str(data_set.SOPInstanceUID))
