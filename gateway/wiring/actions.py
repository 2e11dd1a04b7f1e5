"""What a person does to a study from its page."""

from __future__ import annotations

import functools
import importlib
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.config import Settings
from gateway.job import Priority
from gateway.reprocess import Reprocessed, Request, reprocess
from gateway.store import Store
from gateway.store.studies import StudyFilter
from gateway.verification.verdict import Verdict
from gateway.web.actions import Doing
from gateway.wiring.dispatch import build_router

if TYPE_CHECKING:
    from gateway.verification.verify import Verified, Verifier


def build_doing(settings: Settings, store: Store) -> Doing:
    """Return what the actions call.

    highdicom and its kin take a second to load: that is done in the background, so that neither the start nor the
    first verification waits for it.
    """

    @functools.cache
    def verifier() -> Verifier:
        made: Verifier = importlib.import_module("gateway.wiring.verification").build_verifier(store, settings)
        return made

    def verify(verdict: Verdict) -> Verified:
        return verifier().verify(verdict)

    def reprocess_one(uid: str, bundle: str | None, priority: Priority) -> Reprocessed:
        request = Request(StudyFilter(uids=(uid,)), bundle, priority)
        (made,) = reprocess(store, build_router(settings, store), request, datetime.now(UTC))[1]
        return made

    threading.Thread(target=verifier, name="warm-verification", daemon=True).start()
    return Doing(verify, reprocess_one)
