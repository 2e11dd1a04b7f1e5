"""Real parts to exchange with: a FHIR server of other people, an MLLP listener of another package."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hl7
import httpx
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

from tests.services.process import HANGS_S
from tests.unit.fhir import node


@contextmanager
def fhir_server() -> Iterator[httpx.Client]:
    """Run Medplum's FHIR router over its repository in memory; give a client of it."""
    node.install()
    command = ["node", "fhir_server.mjs"]
    with subprocess.Popen(command, cwd=node.FOLDER, stdout=subprocess.PIPE, text=True) as process:
        stuck = threading.Timer(HANGS_S, process.kill)
        stuck.start()
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            stuck.cancel()
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANGS_S) as client:
                yield client
        finally:
            stuck.cancel()
            process.kill()


@dataclass
class Listener:
    """What an HL7 v2 receiver got, and how it answers."""

    port: int = 0
    received: list[hl7.Message] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Acknowledgement codes of the next messages, '' for silence; then AA."""


@contextmanager
def mllp_listener(tls: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """Run python-hl7's MLLP server on a free port of the loopback, over TLS where a context is given."""
    listener = Listener()
    started, ended = threading.Event(), threading.Event()

    async def take(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        while not writer.is_closing():
            try:
                message = await reader.readmessage()
            except asyncio.IncompleteReadError:
                break
            listener.received.append(message)
            code = listener.answers.pop(0) if listener.answers else "AA"
            if code:
                writer.writemessage(message.create_ack(ack_code=code))
                await writer.drain()
        writer.close()

    async def serve() -> None:
        async with await start_hl7_server(take, port=0, host="127.0.0.1", encoding="utf-8", ssl=tls) as server:
            listener.port = server.sockets[0].getsockname()[1]
            started.set()
            while not ended.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert started.wait(HANGS_S)
        yield listener
    finally:
        ended.set()
        thread.join(HANGS_S)


def search(server: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Return the resources that a FHIR server finds."""
    answer = server.get(f"/{query}")
    assert answer.status_code == 200, answer.text
    return [entry["resource"] for entry in answer.json().get("entry", [])]
