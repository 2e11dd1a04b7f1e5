"""The SOP classes UPS Push, Pull, Watch and Query (PS3.4 annex CC.3) as an SCP.

Events leave on associations of our own (see `teller.py`), as the SCP of UPS Event. All requests name the SOP class UPS
Push, whatever presentation context carries them (CC.3.1), so a handler asks the context what the peer may do there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt

from gateway.dimse_service import UNCOMPRESSED, Handler
from gateway.errors import GatewayError
from gateway.place import place
from gateway.workitem.keys import MOST, USUAL, Search, search_of_identifier
from gateway.workitem.mapping import UPS_PUSH, Origin
from gateway.workitem.model import content_of, dataset_of, tag_of, text_of
from gateway.workitem.refusal import WorkitemError
from gateway.workitem.service import Workitems
from gateway.workitem.state import Content, StepState
from gateway.workitem.subscribing import Subscribing

log = structlog.get_logger()

PULL = "1.2.840.10008.5.1.4.34.6.3"
WATCH = "1.2.840.10008.5.1.4.34.6.2"
QUERY = "1.2.840.10008.5.1.4.34.6.5"
_STATE, _CANCEL, _SUBSCRIBE, _UNSUBSCRIBE, _SUSPEND = range(1, 6)
"""Action Type IDs (PS3.4 CC.2)."""
_ACTIONS: Mapping[str, frozenset[int]] = {
    UPS_PUSH: frozenset({_CANCEL}),
    PULL: frozenset({_STATE}),
    WATCH: frozenset({_CANCEL, _SUBSCRIBE, _UNSUBSCRIBE, _SUSPEND}),
}
"""SOP class of the presentation context -> what may be asked there (PS3.4 tables CC.2-1 to CC.2-3)."""
_SUCCESS, _PENDING, _PENDING_WARNING = 0x0000, 0xFF00, 0xFF01
_CREATED_MODIFIED, _OPTIONAL_UNSUPPORTED = 0xB300, 0x0001
_ALREADY: Mapping[StepState, int] = {StepState.CANCELED: 0xB304, StepState.COMPLETED: 0xB306}
_PROCESSING_FAILURE, _NO_SUCH_ACTION, _NOT_AUTHORISED, _UNRECOGNISED = 0x0110, 0x0123, 0x0124, 0x0211
_FIND_FAILED, _OUT_OF_RESOURCES = 0xC000, 0xA700
_CANCELLED_BY_PEER = 0xFE00
_COMMENT_LENGTH = 64


class UnifiedProcedureSteps:
    """A `DimseService` over the worklist.

    Parameters
    ----------
    workitems, subscribing
        What answers.
    origin
        Where what a workitem names can be retrieved.
    """

    def __init__(self, workitems: Workitems, subscribing: Subscribing, origin: Origin) -> None:
        self._workitems = workitems
        self._subscribing = subscribing
        self._origin = origin

    @property
    def contexts(self) -> Mapping[str, Sequence[str]]:
        """As of `DimseService`."""
        return dict.fromkeys((UPS_PUSH, PULL, WATCH, QUERY), UNCOMPRESSED)

    def handlers(self) -> Sequence[tuple[evt.InterventionEvent, Handler]]:
        """As of `DimseService`."""
        return (
            (evt.EVT_N_CREATE, self.on_create),
            (evt.EVT_N_SET, self.on_set),
            (evt.EVT_N_GET, self.on_get),
            (evt.EVT_N_ACTION, self.on_action),
            (evt.EVT_C_FIND, self.on_find),
        )

    def on_create(self, event: evt.Event) -> tuple[Dataset, Dataset | None]:
        """Answer N-CREATE: 0000, B300 with modifications, 0106, 0111, 0120, C309; 0124 outside of UPS Push."""
        if _context(event) != UPS_PUSH:
            return _status(_NOT_AUTHORISED, "workitems are created in a context of UPS Push"), None

        def create() -> tuple[Dataset, Dataset | None]:
            uid = getattr(event.request, "AffectedSOPInstanceUID", None)
            created = self._workitems.create(content_of(event.attribute_list), str(uid) if uid else None)
            status = _status(_CREATED_MODIFIED if created.is_modified else _SUCCESS)
            status.AffectedSOPInstanceUID = created.uid
            if uid or created.is_modified:
                return status, None
            # pynetdicom takes the UID of a success from here.
            answer = Dataset()
            answer.AffectedSOPInstanceUID = created.uid
            return status, answer

        return _answered(create)

    def on_set(self, event: evt.Event) -> tuple[Dataset, Dataset | None]:
        """Answer N-SET: 0000, 0106, C300, C301, C307, C310; 0124 outside of UPS Pull."""
        if _context(event) != PULL:
            return _status(_NOT_AUTHORISED, "workitems are changed in a context of UPS Pull"), None

        def change() -> tuple[Dataset, Dataset | None]:
            content = content_of(event.modification_list)
            self._workitems.update(_requested(event), content, text_of(content, "TransactionUID") or None)
            return _status(_SUCCESS), None

        return _answered(change)

    def on_get(self, event: evt.Event) -> tuple[Dataset, Dataset | None]:
        """Answer N-GET: 0000, 0001 where an attribute asked for is not there, C307; 0124 outside of Pull and Watch."""
        if _context(event) not in {PULL, WATCH, UPS_PUSH}:
            return _status(_NOT_AUTHORISED, "workitems are read in a context of UPS Pull or Watch"), None

        def get() -> tuple[Dataset, Dataset | None]:
            content = self._workitems.retrieve(_requested(event), self._origin)
            wanted = {f"{int(tag):08X}" for tag in event.attribute_identifiers}
            found = {tag: entry for tag, entry in content.items() if not wanted or tag in wanted}
            lacking = wanted - set(found) - {tag_of("TransactionUID")}
            return _status(_OPTIONAL_UNSUPPORTED if lacking else _SUCCESS), dataset_of(found)

        return _answered(get)

    def on_action(self, event: evt.Event) -> tuple[Dataset, Dataset | None]:
        """Answer N-ACTION: 0000, B304, B306, 0123, and the refusals of PS3.4 CC.2.1.4, CC.2.2.4 and CC.2.3.4."""
        action = event.action_type
        if action is None or action not in _ACTIONS.get(_context(event), frozenset()):
            return _status(_NO_SUCH_ACTION, "no such action in this presentation context"), None

        def act() -> tuple[Dataset, Dataset | None]:
            content = content_of(event.action_information) if _has_information(event) else {}
            already = self._act(action, _requested(event), content, event.assoc.requestor.ae_title.strip())
            return _status(_SUCCESS if already is None else _ALREADY[already]), None

        return _answered(act)

    def on_find(self, event: evt.Event) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        """Answer C-FIND: FF00, FF01 where a key was not matched, FE00 cancelled, A700 too many, C000."""
        if _context(event) not in {PULL, WATCH, QUERY}:
            yield _status(_FIND_FAILED, "workitems are searched in a context of UPS Pull, Watch or Query"), None
            return
        try:
            identifier = content_of(event.identifier)
            search = search_of_identifier(identifier)
            pending = _PENDING_WARNING if search.ignored else _PENDING
            empty = {tag: {"vr": entry["vr"]} for tag, entry in identifier.items()}
            for content in self._pages(search):
                if event.is_cancelled:
                    yield _CANCELLED_BY_PEER, None
                    return
                if content is None:
                    yield _status(_OUT_OF_RESOURCES, f"more than {MOST} workitems match: ask for fewer"), None
                    return
                yield pending, dataset_of({**empty, **content})
        except GatewayError as error:
            log.info("workitem.refused", reason=str(error))
            yield _status(_FIND_FAILED, str(error)), None

    def _pages(self, search: Search) -> Iterator[Content | None]:
        """Yield the workitems found, read page by page; None at the end where there are more than are given."""
        for offset in range(0, MOST, USUAL):
            found = self._workitems.search(replace(search, limit=USUAL, offset=offset), self._origin)
            yield from found.workitems
            if not found.has_more:
                return
        yield None

    def _act(self, action: int, uid: str, content: Content, peer: str) -> StepState | None:
        if action == _STATE:
            state = text_of(content, "ProcedureStepState")
            return self._workitems.change_state(uid, state, text_of(content, "TransactionUID"))
        if action == _CANCEL:
            return self._workitems.request_cancel(uid, content, peer)
        receiver = text_of(content, "ReceivingAE") or peer
        if action == _SUBSCRIBE:
            lock = text_of(content, "DeletionLock") == "TRUE"
            own = {tag_of(name) for name in ("ReceivingAE", "DeletionLock", "SpecificCharacterSet")}
            keys = search_of_identifier({tag: entry for tag, entry in content.items() if tag not in own}).keys
            self._subscribing.subscribe(uid, receiver, lock=lock, keys=keys, by_websocket=False)
        elif action == _UNSUBSCRIBE:
            self._subscribing.unsubscribe(uid, receiver)
        else:
            self._subscribing.suspend(uid, receiver)
        return None


def _answered(step: Callable[[], tuple[Dataset, Dataset | None]]) -> tuple[Dataset, Dataset | None]:
    """Run a step; what it refuses becomes a status, and the peer is never left without an answer."""
    try:
        return step()
    except WorkitemError as error:
        log.info("workitem.refused", reason=str(error))
        return _status(error.refusal.status, str(error)), None
    except GatewayError as error:
        log.warning("workitem.failed", reason=str(error))
        return _status(_PROCESSING_FAILURE, str(error)), None
    except Exception as error:  # a data set that pydicom cannot read raises anything; the peer gets a status
        log.error("workitem.failed", error=type(error).__name__, place=place(error))
        return _status(_PROCESSING_FAILURE, "the gateway failed; its log says more"), None


def _status(code: int, comment: str = "") -> Dataset:
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = comment[:_COMMENT_LENGTH]
    return status


def _context(event: evt.Event) -> str:
    return str(event.context.abstract_syntax)


def _requested(event: evt.Event) -> str:
    return str(getattr(event.request, "RequestedSOPInstanceUID", ""))


def _has_information(event: evt.Event) -> bool:
    return getattr(event.request, "ActionInformation", None) is not None
