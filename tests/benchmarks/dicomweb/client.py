"""The client, a process of its own: `python -m tests.benchmarks.dicomweb.client PORT SECONDS CLIENTS PATH [ACCEPT]`.

Each of its threads sends one request after the other over a blocking socket and reads the answer into one buffer: per
request it makes a handful of system calls and parses nothing but the head. It prints what it measured as JSON, with the
share of one core that it took itself: where that is near 1, the client and not the server was measured.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

_BUFFER = 1 << 20
_HEAD_END = b"\r\n\r\n"
_TIMEOUT_S = 120
_LINE_END = "\r\n"
_PLACE = "{n}"
"""In a path: replaced by 0, 1, 2 and so on, so that an answer that the server keeps helps only in later rounds."""
_NUMBERS = 400


@dataclass
class Lane:
    """What one client did."""

    latencies_s: list[float] = field(default_factory=list)
    bytes_read: int = 0
    failure: str = ""


class Connection:
    """One keep-alive connection.

    Parameters
    ----------
    port
        Of the loopback.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = bytearray(_BUFFER)
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> int:
        """Send a request, read the whole answer, and return the length of its body.

        Raises
        ------
        RuntimeError
            The status is not 200, or the answer ends early.
        """
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        view = memoryview(self._buffer)
        have = 0
        while (end := self._buffer.find(_HEAD_END, 0, have)) < 0:
            have += self._receive(view[have:])
        head = bytes(view[:end]).lower()
        if b" 204 " in head.partition(b"\r\n")[0] + b" ":
            return 0
        if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
            raise RuntimeError(head.partition(b"\r\n")[0].decode("latin-1"))
        begun = have - end - len(_HEAD_END)
        length = _content_length(head)
        if length is not None:
            body = self._fixed(view, begun, length)
        elif b"\r\ntransfer-encoding: chunked" in head:
            body = self._chunked(view, end + len(_HEAD_END), have)
        else:
            body = self._to_the_end(view, begun)
        if b"connection: close" in head:
            self.close()
        return body

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _fixed(self, view: memoryview, begun: int, length: int) -> int:
        remaining = length - begun
        while remaining > 0:
            remaining -= self._receive(view[: min(remaining, _BUFFER)])
        return length

    def _to_the_end(self, view: memoryview, begun: int) -> int:
        """Read until the server closes the connection, which is how Orthanc ends a multipart answer."""
        total = begun
        while self._socket is not None:
            count = self._socket.recv_into(view)
            total += count
            if count == 0:
                self.close()
        return total

    def _chunked(self, view: memoryview, start: int, have: int) -> int:
        """Read chunks; what is in the buffer from `start` to `have` comes first."""
        total = 0
        while True:
            while (line_end := self._buffer.find(b"\r\n", start, have)) < 0:
                view[: have - start] = bytes(view[start:have])
                start, have = 0, have - start
                have += self._receive(view[have:])
            size = int(bytes(view[start:line_end]).partition(b";")[0], 16)
            total += size
            start = line_end + 2
            missing = size + 2 - (have - start)
            if missing < 0:
                start += size + 2
            else:
                while missing > 0:
                    missing -= self._receive(view[: min(missing, _BUFFER)])
                start = have = 0
            if size == 0:
                return total

    def _receive(self, into: memoryview) -> int:
        if self._socket is None:
            raise RuntimeError("not connected")
        count = self._socket.recv_into(into)
        if count == 0:
            raise RuntimeError("the server closed the connection within an answer")
        return count


def _content_length(head: bytes) -> int | None:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else None


def run(port: int, seconds: float, clients: int, *requests: bytes) -> dict[str, object]:
    """Ask with so many clients at once for so long, request by request; each finishes what it has begun."""
    lanes = [Lane() for _ in range(clients)]
    go = threading.Barrier(clients + 1)

    def work(lane: Lane) -> None:
        connection = Connection(port)
        try:
            connection.ask(requests[0])  # opens the connection, and warms up
            go.wait()
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end or not lane.latencies_s:
                lane.bytes_read += connection.ask(requests[len(lane.latencies_s) % len(requests)])
                lane.latencies_s.append(time.perf_counter() - began)
        except (OSError, RuntimeError, ValueError) as error:  # a broken barrier too: another lane has failed
            lane.failure = f"{type(error).__name__}: {error}"
            go.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        go.wait()
    began, began_cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {
        "latencies_s": sorted(each for lane in lanes for each in lane.latencies_s),
        "bytes": sum(lane.bytes_read for lane in lanes),
        "took_s": took,
        "client_cpu": cpu / took,
        "failures": [lane.failure for lane in lanes if lane.failure],
    }


def main() -> None:
    """Do what the command line says."""
    port, seconds, clients, path, *accept = sys.argv[1:]
    paths = [path.replace(_PLACE, str(number)) for number in range(_NUMBERS)] if _PLACE in path else [path]
    head = ["HTTP/1.1", "Host: 127.0.0.1", *(f"Accept: {each}" for each in accept), "", ""]
    requests = [f"GET {each} {_LINE_END.join(head)}".encode() for each in paths]
    sys.stdout.write(json.dumps(run(int(port), float(seconds), int(clients), *requests)))


if __name__ == "__main__":
    main()
