"""C-FIND SCP (PS3.4 C.4.1): queries of `gateway.query`, answered page by page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt

from gateway.audit.acts import peer, queried
from gateway.audit.event import AuditEvent
from gateway.audit.trail import record
from gateway.dimse_service import UNCOMPRESSED, Handler
from gateway.errors import CannotUnderstandError, DatabaseAwayError, InvalidQueryError, RefusedError
from gateway.place import place
from gateway.query import Match, Query, find
from gateway.query_retrieve.answer import Asked
from gateway.query_retrieve.model import MODELS, model_of, read_identifier
from gateway.query_retrieve.negotiation import is_combined, is_fuzzy, is_relational, negotiate
from gateway.services import Counters
from gateway.store import Store

log = structlog.get_logger()

_CANCELLED, _OUT_OF_RESOURCES, _PROCESSING_FAILURE = 0xFE00, 0xA700, 0xC001
_PAGE = 500
_COMMENT_LENGTH = 64


class FindService:
    """The service; see `gateway.dimse_service.DimseService`.

    Parameters
    ----------
    store
        What is queried.
    ae_title
        Ours: Retrieve AE Title of every answer.
    counters
        Count queries and answers.
    limit
        Most answers to one query.
    page
        Matches read at once; between two pages no transaction is open, however slowly the peer reads.
    """

    contexts: Mapping[str, Sequence[str]] = {model.find: UNCOMPRESSED for model in MODELS}

    def __init__(self, store: Store, ae_title: str, counters: Counters, limit: int, page: int = _PAGE) -> None:
        self._page = page
        self._store = store
        self._ae_title = ae_title
        self._counters = counters
        self._limit = limit

    def handlers(self) -> Sequence[tuple[evt.InterventionEvent, Handler]]:
        """Return the handler of C-FIND, and that of the extended negotiation of all Query/Retrieve services."""
        return [(evt.EVT_C_FIND, self.answer), (evt.EVT_SOP_EXTENDED, negotiate)]

    def answer(self, event: evt.Event) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        """Yield the answers: FF00 or FF01, at the end FE00, A700, A900 or C000, or nothing where all went well (0000).

        FF01 says that a key was asked for that is not kept here. Where there are more matches than the limit, the
        limit's number of answers is followed by A700.
        """
        began, answers, status = time.monotonic(), 0, "gone"
        try:
            for pending, identifier in self._answers(event):
                if event.is_cancelled:
                    status = f"{_CANCELLED:04X}"
                    yield _CANCELLED, None
                    return
                answers += 1
                yield pending, identifier
            status = "0000"
        except (RefusedError, InvalidQueryError, DatabaseAwayError) as error:
            code, comment = _refusal(error)
            status = f"{code:04X}"
            yield _status(code, comment), None
        except Exception as error:  # a fault of ours must be in our log: pynetdicom would answer and say nothing
            status = f"{_PROCESSING_FAILURE:04X}"
            log.error("find.failed", error=type(error).__name__, place=place(error))
            yield _status(_PROCESSING_FAILURE, "processing failure"), None
        finally:
            self._counters.add(f'hybridmed_finds_total{{status="{status}"}}')
            self._counters.add("hybridmed_find_answers_total", answers)
            record(self._asked(event))
            log.info(
                "find.done",
                calling_ae=(event.assoc.requestor.ae_title or "").strip(),
                status=status,
                answers=answers,
                took_s=round(time.monotonic() - began, 3),
            )

    def _asked(self, event: evt.Event) -> AuditEvent:
        """Return the query for the audit trail."""
        stream, requestor = getattr(event.request, "Identifier", None), event.assoc.requestor
        return queried(
            self._ae_title,
            peer((requestor.ae_title or "").strip(), requestor.address or ""),
            str(event.context.abstract_syntax),
            b"" if stream is None else stream.getvalue(),
            str(event.context.transfer_syntax),
        )

    def _answers(self, event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        syntax, sop_class = event.context.transfer_syntax, str(event.context.abstract_syntax)
        asked = Asked(
            read_identifier(getattr(event.request, "Identifier", None), syntax),
            model_of(sop_class),
            is_relational=is_relational(event.assoc, sop_class),
        )
        query = asked.query(is_fuzzy=is_fuzzy(event.assoc, sop_class), is_combined=is_combined(event.assoc, sop_class))
        for count, match in enumerate(self._matches(query, asked)):
            if count == self._limit:
                raise TooManyMatchesError(f"more than {self._limit} matches: ask more precisely")
            yield asked.pending_status, asked.answer(match, self._ae_title)

    def _matches(self, query: Query, asked: Asked) -> Iterator[Match]:
        """Yield all matches; what came in between two pages must not bring an answer twice."""
        seen: set[tuple[object, ...]] = set()
        offset = 0
        while True:
            with self._store.read() as connection:
                page = find(connection, replace(query, limit=self._page, offset=offset))
            for match in page:
                if (key := asked.unique_key(match)) not in seen:
                    seen.add(key)
                    yield match
            offset += len(page)
            if len(page) < self._page:
                return


class TooManyMatchesError(RefusedError):
    """More matches than are answered (PS3.4 table C.4-1: out of resources)."""

    status = _OUT_OF_RESOURCES


def _refusal(error: RefusedError | InvalidQueryError | DatabaseAwayError) -> tuple[int, str]:
    if isinstance(error, RefusedError):
        return error.status, error.comment
    if isinstance(error, InvalidQueryError):
        return CannotUnderstandError.status, str(error)
    return _OUT_OF_RESOURCES, "the database does not answer"


def _status(code: int, comment: str) -> Dataset:
    status = Dataset()
    status.Status = code
    status.ErrorComment = comment[:_COMMENT_LENGTH]
    return status
