"""Which presentation contexts are supported, in which roles, and which service answers a request."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from pydicom.uid import UID
from pynetdicom import build_context, build_role, evt

from gateway.config import Settings
from gateway.dimse_service import dispatchers
from gateway.receive.contexts import supported_contexts
from gateway.services import Counters, Heartbeat
from gateway.store import open_store
from gateway.wiring.receive import services

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
JPEG, EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SUPPORTED = {CT: (JPEG, EXPLICIT, IMPLICIT), FIND: (EXPLICIT, IMPLICIT)}


class _Service:
    """A service that answers N-ACTION with its name."""

    def __init__(self, name: str, uid: str) -> None:
        self._name = name
        self.contexts = {uid: (IMPLICIT,)}

    def handlers(self) -> list[tuple[evt.InterventionEvent, Any]]:
        """Answer with the name, and grant what the name says."""
        return [
            (evt.EVT_N_ACTION, lambda _event: self._name),
            (evt.EVT_SOP_EXTENDED, lambda _event: {self._name: b"\1"}),
        ]


def test_a_request_goes_to_the_service_that_owns_its_context() -> None:
    """Two services take N-ACTION; the abstract syntax of the presentation context decides; nobody's is an error."""
    bound = dict(dispatchers([_Service("a", "1.2.1"), _Service("b", "1.2.2")]))

    def ask(uid: str) -> object:
        event = SimpleNamespace(context=SimpleNamespace(abstract_syntax=UID(uid)))
        return bound[evt.EVT_N_ACTION](cast(evt.Event, event))

    assert [ask("1.2.1"), ask("1.2.2")] == ["a", "b"]
    with pytest.raises(NotImplementedError):
        ask("1.2.3")


def test_extended_negotiation_asks_every_service() -> None:
    """What the services grant is put together."""
    bound = dict(dispatchers([_Service("1.2.1", "1.2.1"), _Service("1.2.2", "1.2.2")]))

    granted = bound[evt.EVT_SOP_EXTENDED](cast(evt.Event, SimpleNamespace()))

    assert granted == {"1.2.1": b"\1", "1.2.2": b"\1"}


@pytest.mark.parametrize(
    ("uid", "roles", "granted", "first"),
    [
        (CT, None, (None, None), JPEG),
        (CT, {"scp_role": True}, (True, True), EXPLICIT),
        (CT, {"scu_role": True, "scp_role": True}, (True, True), JPEG),
        (FIND, {"scp_role": True}, (True, False), EXPLICIT),
    ],
)
def test_roles_are_granted_for_storage_alone(
    uid: str, roles: dict[str, bool] | None, granted: tuple[bool | None, bool | None], first: str
) -> None:
    """A peer may be the SCP of storage classes, and then what it takes uncompressed comes first."""
    proposed = [build_context(uid, [JPEG, EXPLICIT, IMPLICIT])]
    asked = {UID(uid): build_role(uid, **roles)} if roles else {}

    (context,) = supported_contexts(proposed, SUPPORTED, asked, {CT})

    assert (context.scu_role, context.scp_role) == granted
    assert context.transfer_syntax[0] == first


def test_no_two_services_of_the_receiver_have_a_class_in_common(tmp_path: Path) -> None:
    """Each SOP class of the services that `hybridmed serve` builds belongs to one of them."""
    store = open_store(f"sqlite:///{tmp_path / 'x.db'}", tmp_path)
    settings = Settings(data_dir=tmp_path, delivery_timeout_s=timedelta(seconds=1).total_seconds())

    built = services(settings, store, Heartbeat(store, "receive", Counters()))
    classes = [uid for service in built for uid in service.contexts]
    store.close()

    assert len(classes) == len(set(classes)) > 6


def test_a_handler_that_fails_is_in_the_log() -> None:
    """Where a handler raises, the log names event, error and place, and no message; pynetdicom hears the error."""

    class Failing(_Service):
        def handlers(self) -> list[tuple[evt.InterventionEvent, Any]]:
            return [(evt.EVT_N_GET, lambda _event: {}["Doe^Jane"])]

    bound = dict(dispatchers([Failing("a", "1.2.1")]))
    event = SimpleNamespace(context=SimpleNamespace(abstract_syntax=UID("1.2.1")), event=evt.EVT_N_GET)

    with structlog.testing.capture_logs() as lines, pytest.raises(KeyError):
        bound[evt.EVT_N_GET](cast(evt.Event, event))

    (line,) = lines
    assert (line["event"], line["event_name"], line["error"]) == ("request.failed", "EVT_N_GET", "KeyError")
    assert "Doe" not in str(line)
