"""Asks a hospital's FHIR server what changed, every few minutes; in the role `deliver`, which knows who is away.

A round asks for what was updated since the last one began, by the server's clock and with an overlap, and follows the
`next` links. Where it stands is written after each page: a restart goes on there. What comes twice changes nothing. A
round that finds nothing leaves the mark where it is, so that the next asks the same and the server may say 304.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias
from urllib.parse import urlencode, urljoin, urlsplit

import orjson
import structlog
from sqlalchemy.engine import Connection

from gateway.errors import DatabaseAwayError, DeliveryError, DestinationAwayError, LeaseLostError
from gateway.exchange.client import Answer, HttpClient
from gateway.job import retry_delay
from gateway.services import Heartbeat
from gateway.store import Store
from gateway.store.polls import Mark, hold_mark, release_mark, update_mark

log = structlog.get_logger()

Json: TypeAlias = dict[str, Any]
Take: TypeAlias = Callable[[Connection, Json, datetime], str]
"""Takes one resource; returns what became of it: 'taken', 'unknown' (no images of it here) or 'refused'."""
_LOOK_S = 1.0
_AWAY_S = 2.0
_MARGIN_S = 60.0
_LONGEST_LINK = 8192
_LONGEST_WAIT_S = 3600
_UNCHANGED = 304
_GONE = frozenset({400, 404, 410})
"""Answers to a `next` link that the server no longer knows: the round begins anew."""


@dataclass(frozen=True, slots=True)
class PollLimits:
    """How often and how much is asked."""

    every: timedelta
    overlap: timedelta
    first: timedelta
    """How far before the first round updates are taken."""
    page: int
    pages: int
    """Most pages of a round; what is left comes after the others."""
    retry_first: timedelta
    retry_limit: timedelta


class Poller:
    """Asks one server.

    Parameters
    ----------
    store, heartbeat
        Where marks stand; who hears how it goes.
    server
        Its base address.
    client, headers
        What asks, and says who we are.
    types
        That are asked for.
    take
        Takes a resource.
    limits
        Times and sizes.
    now
        The clock.
    """

    name = "deliver"

    def __init__(  # noqa: PLR0913 # the parts of the loop, all by name
        self,
        *,
        store: Store,
        heartbeat: Heartbeat,
        server: str,
        client: HttpClient,
        headers: Mapping[str, str],
        types: Sequence[str],
        take: Take,
        limits: PollLimits,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._heartbeat = heartbeat
        self._server = server.rstrip("/")
        self._client = client
        self._headers = {"Accept": "application/fhir+json", **headers}
        self._types = tuple(types)
        self._take = take
        self._limits = limits
        self._now = now
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Ask when it is time, until `stop` is set; the page in hand is finished."""
        self._stop = stop
        while not stop.is_set():
            for resource_type in self._types:
                try:
                    self.ask(resource_type)
                except DatabaseAwayError as error:
                    log.warning("poll.away", part="database", reason=str(error))
                    stop.wait(_AWAY_S)
            stop.wait(_LOOK_S)

    def ask(self, resource_type: str) -> None:
        """Ask for one type, where it is due and no other process does."""
        with self._store.write() as connection:
            lease_s = self._client.timeout_s + _MARGIN_S
            mark = hold_mark(connection, self._server, resource_type, self._now(), lease_s)
        if mark is None:
            return
        try:
            self._round(mark)
            self._heartbeat.recovered(f"FHIR server, {resource_type}")
        except (DestinationAwayError, DeliveryError) as error:
            self._failed(mark, error)
        except LeaseLostError:
            log.info("poll.lost", type=resource_type)  # another process took over

    def _round(self, mark: Mark) -> None:
        """Go through the pages, from where the last try stopped; the mark is written after each."""
        is_first, url = mark.next_link is None, mark.next_link or self._first_url(mark)
        for _ in range(self._limits.pages):
            answer = self._page(url, mark.etag if is_first else None)
            if answer.status in _GONE and not is_first:
                mark, is_first = self._advance(mark, next_link=None, began_at=None, etag=None), True
                url = self._first_url(mark)
                continue
            if answer.status == _UNCHANGED:
                self._finish(mark, found=False)
                return
            bundle = _bundle(answer)
            if is_first:
                mark = self._advance(mark, began_at=_date(answer) or self._now(), etag=answer.headers.get("etag"))
            count, following = self._take_page(mark, bundle), self._following(url, bundle)
            if following is None:
                self._finish(mark, found=bool(count) or not is_first)
                return
            mark, url, is_first = self._advance(mark, next_link=following), following, False
            if self._stop.is_set():
                break
        self._rest(mark)

    def _first_url(self, mark: Mark) -> str:
        since = (mark.since or self._now() - self._limits.first) - self._limits.overlap
        text = since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        query = {"_lastUpdated": f"gt{text}", "_sort": "_lastUpdated", "_count": str(self._limits.page)}
        return f"{self._server}/{mark.type}?{urlencode(query)}"

    def _page(self, url: str, etag: str | None) -> Answer:
        """Return a page, or that it is unchanged or gone."""
        headers = dict(self._headers) | ({"If-None-Match": etag} if etag else {})
        answer = self._client.ask("GET", url, headers=headers)
        if answer.status not in _GONE | {200, _UNCHANGED}:
            raise _WaitingError(f"HTTP {answer.status}", _wait(answer))
        return answer

    def _take_page(self, mark: Mark, bundle: Json) -> int:
        """Take the resources of a page, each in a transaction of its own: one that is refused holds up no other."""
        count = 0
        for entry in bundle.get("entry") or ():
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict) or resource.get("resourceType") != mark.type:
                continue
            with self._store.write() as connection:
                outcome = self._take(connection, resource, self._now())
            count += 1
            self._heartbeat.counters.add(f'hybridmed_fhir_polled_total{{type="{mark.type}",outcome="{outcome}"}}')
        return count

    def _following(self, url: str, bundle: Json) -> str | None:
        """Return the next page's address, which has to be the same server's: our secrets go there."""
        links = bundle.get("link")
        for link in links if isinstance(links, list) else ():
            if isinstance(link, dict) and link.get("relation") == "next":
                following = urljoin(url, str(link.get("url", "")))
                if _origin(following) != _origin(self._server) or len(following) > _LONGEST_LINK:
                    raise DeliveryError("the next page would be another server's")
                return following
        return None

    def _advance(self, mark: Mark, **values: Any) -> Mark:
        lease = {"lease_expires_at": self._now() + timedelta(seconds=self._client.timeout_s + _MARGIN_S)}
        with self._store.write() as connection:
            if not update_mark(connection, mark, **values, **lease):
                raise LeaseLostError("another asks by now")
        return replace(mark, **values)

    def _finish(self, mark: Mark, *, found: bool) -> None:
        """Note that all was taken up to when the round began; where nothing was found, the same is asked again."""
        now = self._now()
        since = mark.began_at if found or mark.since is None else mark.since
        etag = mark.etag if since == mark.since else None  # of the same question alone
        ended = {"since": since, "etag": etag, "next_link": None, "began_at": None, "failures": 0, "reason": None}
        with self._store.write() as connection:
            release_mark(connection, mark, now + self._limits.every, polled_at=now, **ended)

    def _rest(self, mark: Mark) -> None:
        """Leave a round for now: others may ask meanwhile, and what is left is asked for next."""
        now = self._now()
        with self._store.write() as connection:
            release_mark(connection, mark, now, polled_at=now, failures=0, reason=None)

    def _failed(self, mark: Mark, error: DestinationAwayError | DeliveryError) -> None:
        failures, reason = mark.failures + 1, str(error)
        delay = retry_delay(failures, self._limits.retry_first, self._limits.retry_limit)
        if isinstance(error, _WaitingError):
            delay = max(delay, error.wait)
        log.warning("poll.failed", type=mark.type, reason=reason, attempt=failures, retry_s=delay.total_seconds())
        self._heartbeat.degraded(f"FHIR server, {mark.type}", reason)
        with self._store.write() as connection:
            release_mark(connection, mark, self._now() + delay, failures=failures, reason=reason)


class _WaitingError(DestinationAwayError):
    """The server asks to wait."""

    def __init__(self, text: str, wait: timedelta) -> None:
        super().__init__(text)
        self.wait = wait


def _bundle(answer: Answer) -> Json:
    if answer.status in _GONE:
        raise DeliveryError(f"HTTP {answer.status}")
    try:
        content = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or content.get("resourceType") != "Bundle":
        raise DeliveryError("the answer is no Bundle")
    return content


def _date(answer: Answer) -> datetime | None:
    """Return the server's clock."""
    try:
        moment = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _wait(answer: Answer) -> timedelta:
    text = answer.headers.get("retry-after", "")
    return timedelta(seconds=min(int(text), _LONGEST_WAIT_S)) if text.isdecimal() and text.isascii() else timedelta()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
