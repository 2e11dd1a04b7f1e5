"""The seam for DIMSE services besides storage: what each supports, and who answers which request.

A `DimseService` answers by handlers of pynetdicom's events, one request after the other. A `DirectService` talks on the
association itself, in its thread, for what pynetdicom's service classes do not offer: sub-operations that stream from
disk, and notifications long after the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import structlog
from pynetdicom import evt

from gateway.place import place

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import DimseServiceType

log = structlog.get_logger()

Handler = Callable[[evt.Event], Any]
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Explicit and Implicit VR Little Endian: what services without pixel data speak."""


class DimseService(Protocol):
    """A service whose requests pynetdicom's service classes carry."""

    @property
    def contexts(self) -> Mapping[str, Sequence[str]]:
        """SOP Class UID -> transfer syntaxes; the proposal's order decides which one is taken."""

    def handlers(self) -> Sequence[tuple[evt.InterventionEvent, Handler]]:
        """Return the handler of each event; it is called for requests in this service's presentation contexts only."""


@runtime_checkable
class DirectService(Protocol):
    """A service that talks on the association itself."""

    @property
    def contexts(self) -> Mapping[str, Sequence[str]]:
        """As of `DimseService`."""

    def attend(self, association: Association) -> Attendant:
        """Begin with an association that accepted one of `contexts`; called in its thread."""


class Attendant(Protocol):
    """A direct service's part in one association; all calls but `end` come from the association's thread."""

    def serve(self, context_id: int, message: DimseServiceType) -> bool:
        """Answer a message; False where it is not for this service."""

    def idle(self) -> None:
        """Do what is due while the peer says nothing; called about every millisecond, so look before you leap."""

    def end(self) -> None:
        """Take note that the association has ended; from any thread, once."""


def dispatchers(services: Sequence[DimseService]) -> list[tuple[evt.InterventionEvent, Handler]]:
    """Return one handler for each event, which asks the service that owns the request's presentation context."""
    owners: dict[evt.InterventionEvent, dict[str, Handler]] = {}
    for service in services:
        for event, handler in service.handlers():
            owners.setdefault(event, {}).update(dict.fromkeys(service.contexts, handler))
    return [
        (event, _merger(by_class) if event == evt.EVT_SOP_EXTENDED else _dispatcher(by_class))
        for event, by_class in owners.items()
    ]


def _merger(by_class: Mapping[str, Handler]) -> Handler:
    """Return a handler of the extended negotiation, which is about no single presentation context."""

    def merge(event: evt.Event) -> dict[str, bytes]:
        return {uid: item for handler in dict.fromkeys(by_class.values()) for uid, item in handler(event).items()}

    return merge


def _dispatcher(by_class: Mapping[str, Handler]) -> Handler:
    def dispatch(event: evt.Event) -> Any:
        handler = by_class.get(str(event.context.abstract_syntax))
        if handler is None:
            raise NotImplementedError("no service answers this request in its presentation context")
        try:
            return handler(event)
        except Exception as error:  # pynetdicom answers 0110 and the like, and its own log is not shown
            log.error("request.failed", event_name=event.event.name, error=type(error).__name__, place=place(error))
            raise

    return dispatch
