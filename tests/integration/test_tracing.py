"""One trace from association to delivery, seen by a collector that speaks OTLP; nothing of a patient in it."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway import tracing
from gateway.config.tracing import Tracing


class Collector(HTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: dict[str, tuple[str, str, str]] = {}
        """Name -> trace, span and parent, in hexadecimal digits."""


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Take an export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    self.server.spans[span.name] = ids
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Give a started collector."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_processes_that_never_met_write_one_trace(collector: Collector) -> None:
    """Receiver, dispatcher and worker each export alone; ids fit each other through what travels with the job."""
    endpoint = Tracing(endpoint=f"http://127.0.0.1:{collector.server_port}/v1/traces")
    tracing.configure(endpoint, "receive")
    tracing.note_association("5c1c9c0e-0000-4000-8000-000000000001", 1.5, outcome="released", instances=3)
    tracing.close()
    tracing.configure(endpoint, "dispatch")
    with tracing.span("study.dispatch", tracing.root_context("5c1c9c0e-0000-4000-8000-000000000001")) as travels:
        pass
    tracing.close()
    tracing.configure(endpoint, "work")
    with tracing.span("job", travels, job_id="j", bundle="b"):
        pass
    tracing.close()

    first, second, third = (collector.spans[name] for name in ("association", "study.dispatch", "job"))
    assert first[2] == ""
    assert first[0] == second[0] == third[0] == tracing.trace_id(travels)
    assert (second[2], third[2]) == (first[1], second[1])


def test_without_an_endpoint_the_context_travels_all_the_same() -> None:
    """Nothing is exported, and a job still names its trace: a later worker may export."""
    carrier = tracing.root_context("an association")

    with tracing.span("study.dispatch", carrier) as travels:
        pass

    assert travels == carrier
    assert len(tracing.trace_id(carrier) or "") == 32
