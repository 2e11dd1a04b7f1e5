"""The PACS: a Storage SCP that takes results and writes them down, or refuses, hangs and dawdles."""

from __future__ import annotations

import hashlib
import io
import threading
from typing import Literal

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at import by pynetdicom

from tests.acceptance.faults.ledger import Arrival, Ledger
from tests.services.process import LOOPBACK, free_port

AE_TITLE = "FAULTPACS"
Mood = Literal["well", "rejecting", "full", "failing", "silent", "slow"]
_OUT_OF_RESOURCES, _PROCESSING_FAILURE = 0xA700, 0x0110
_TRANSIENT, _BY_PROVIDER, _CONGESTED = 2, 3, 1  # PS3.8 table 9-21: temporary congestion
_SLOW_S = 1.2
_SILENT_LIMIT_S = 60.0


class Pacs:
    """A Storage SCP in this process; a context manager around its server.

    Parameters
    ----------
    ledger
        Where it writes what it keeps.
    address
        Where it listens.
    """

    def __init__(self, ledger: Ledger, address: str = LOOPBACK) -> None:
        self.port = free_port()
        self._address = address
        self._ledger = ledger
        self._mood: Mood = "well"
        self.refused = 0
        """Objects, with a failure of its own."""
        self._changed = threading.Condition()
        self._entity = ApplicationEntity(AE_TITLE)
        self._entity.supported_contexts = list(AllStoragePresentationContexts)
        self._entity.add_supported_context(Verification)
        self._entity.maximum_associations = 50

    @property
    def mood(self) -> Mood:
        """How it answers: `silent` keeps an object and says nothing until it is in another mood."""
        return self._mood

    @mood.setter
    def mood(self, mood: Mood) -> None:
        with self._changed:
            self._mood = mood
            self._changed.notify_all()

    def __enter__(self) -> Pacs:
        self._server = self._entity.start_server(
            (self._address, self.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_REQUESTED, self._requested)],
        )
        return self

    def __exit__(self, *_exception: object) -> None:
        self.mood = "well"
        if self._server is not None:
            self._server.shutdown()

    def _requested(self, event: evt.Event) -> None:
        if self._mood == "rejecting":
            event.assoc.acse.send_reject(_TRANSIENT, _BY_PROVIDER, _CONGESTED)

    def _store(self, event: evt.Event) -> int:
        mood = self._mood
        if mood == "full":
            return _OUT_OF_RESOURCES
        if mood == "failing":
            self.refused += 1
            return _PROCESSING_FAILURE
        request, dataset = event.request, event.dataset
        if not isinstance(request, C_STORE) or not isinstance(request.DataSet, io.BytesIO):
            return _PROCESSING_FAILURE
        self._ledger.arrive(
            Arrival(
                study_uid=str(dataset.StudyInstanceUID),
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                digest=hashlib.sha256(request.DataSet.getvalue()).hexdigest(),
            )
        )
        if mood in {"slow", "silent"}:
            with self._changed:
                self._changed.wait_for(lambda: self._mood != mood, _SLOW_S if mood == "slow" else _SILENT_LIMIT_S)
        return 0
