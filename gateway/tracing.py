"""One trace from association to delivery, over processes and RabbitMQ (OpenTelemetry, W3C Trace Context).

The trace's id is derived from the association's: whoever knows the association knows the trace, without asking. What
travels with a job is `{"traceparent": …}`. Spans name jobs, bundles and destinations and count objects;
nothing in them tells of a patient.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from gateway.config.tracing import Tracing
from gateway.errors import ConfigurationError

Carrier: TypeAlias = Mapping[str, str]
_HEADER = "traceparent"
_NANOSECONDS = 1_000_000_000
_forced = threading.local()
_provider: Any = None  # of opentelemetry-sdk, which only those who trace have installed


def root_context(identifier: str) -> dict[str, str]:
    """Return the context of the first span of an association, or of a job that no association led to."""
    trace, first = _root(identifier)
    return {_HEADER: f"00-{trace}-{first}-01"}


def trace_id(carrier: Carrier) -> str | None:
    """Return the trace that a context belongs to, 32 hexadecimal digits."""
    parts = str(carrier.get(_HEADER, "")).split("-")  # a message may hold anything
    return parts[1] if len(parts) == 4 else None  # noqa: PLR2004 # version, trace, span, flags


def configure(section: Tracing, role: str) -> None:
    """Begin to export spans where the settings name an endpoint; ConfigurationError where the libraries are missing."""
    global _provider  # noqa: PLW0603 # as OpenTelemetry's own: one process, one exporter
    if section.endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 # an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"{missing.name} is not installed, which [tracing] needs: pip install 'hybridmed-gateway[grown]'"
        ) from missing
    resource = Resource.create({"service.name": "hybridmed", "service.namespace": role})
    _provider = TracerProvider(resource=resource, id_generator=_identifiers())
    exporter = OTLPSpanExporter(endpoint=section.endpoint, timeout=section.timeout_s)
    _provider.add_span_processor(BatchSpanProcessor(exporter))


def close() -> None:
    """Send what was not sent yet."""
    global _provider  # noqa: PLW0603 # as above
    if _provider is not None:
        _provider.shutdown()
        _provider = None


@contextmanager
def span(name: str, carrier: Carrier, **attributes: str | int) -> Iterator[Carrier]:
    """Make a span under the one that `carrier` names, and give the context of what happens in it.

    Where nothing is exported this gives `carrier` itself.
    """
    if _provider is None:
        yield carrier
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    propagator = TraceContextTextMapPropagator()
    tracer = _provider.get_tracer("hybridmed")
    parent = propagator.extract(dict(carrier))
    with tracer.start_as_current_span(name, context=parent, attributes=attributes, record_exception=False):
        inner: dict[str, str] = {}
        propagator.inject(inner)
        yield inner


def note_association(association_id: str, lasted_s: float, **attributes: str | int) -> None:
    """Make the first span of a trace, of an association that has just ended."""
    if _provider is None:
        return
    from opentelemetry.context import Context  # noqa: PLC0415

    end = time.time_ns()
    _forced.trace, _forced.span = (int(digits, 16) for digits in _root(association_id))
    try:
        tracer = _provider.get_tracer("hybridmed")
        began = end - int(lasted_s * _NANOSECONDS)
        tracer.start_span("association", context=Context(), start_time=began, attributes=attributes).end(end)
    finally:
        del _forced.trace, _forced.span


def _root(identifier: str) -> tuple[str, str]:
    """Return the ids of the trace and its first span, 16 and 8 bytes in hexadecimal digits."""
    digest = hashlib.sha256(identifier.encode()).hexdigest()
    return digest[:32], digest[32:48]


def _identifiers() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

    class Identifiers(RandomIdGenerator):
        """Random, unless `note_association` says which."""

        def generate_span_id(self) -> int:
            return getattr(_forced, "span", None) or super().generate_span_id()

        def generate_trace_id(self) -> int:
            return getattr(_forced, "trace", None) or super().generate_trace_id()

    return Identifiers()
