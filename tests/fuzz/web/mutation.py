"""Requests broken with a seed: the same seed breaks them in the same way."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote

from tests.fuzz.changes import changed, cut, flip, length, repeat, shuffle
from tests.fuzz.mutation import DATA_SET_CHANGES
from tests.fuzz.web.requests import Request, store_request, stored_file
from tests.fuzz.web.values import HEADERS, JSON_TOKENS, METHODS, NAMES, ODD, XML_PIECES

Kind = Literal["query", "path", "header", "body", "stored file", "stream"]
KINDS: tuple[Kind, ...] = ("query", "path", "header", "body", "stored file", "stream")
_META_END = 400
_JSON_VALUE = re.compile(rb'(?<=[:\[,])\s*("[^"]*"|-?\d[\d.eE+-]*|\{|\[|null|true|false)')
_MOST_QUERY = 30_000
_CHUNK = 1000


@dataclass(frozen=True)
class Attempt:
    """What is written to the server."""

    kind: Kind
    method: str
    data: bytes
    is_sound: bool
    """Whether it is one HTTP request, whole and framed as it should be: then an answer is owed."""
    follows: tuple[str, ...] = ()
    """Paths that are read afterwards, if this was answered with success."""
    name: str = ""
    """Method and path that it began as."""


def attempt(number: int, run_seed: int, seeds: Sequence[Request]) -> Attempt:
    """Return the input with a number."""
    chance = random.Random(run_seed * 1_000_003 + number)  # repeatable, no secret
    kind = KINDS[number % len(KINDS)]
    if kind == "stored file":
        return _stored_file(number, chance)
    with_body = [seed for seed in seeds if seed.body]
    seed = chance.choice(with_body if kind == "body" else seeds)
    request = _CHANGES[kind](seed, chance) if kind in _CHANGES else seed
    data = encoded(request, chance)
    if kind == "stream":
        data = changed(data, chance, (flip, flip, cut, repeat, length, shuffle, _framing))
    is_sound = kind != "stream" and not _breaks_framing(request)
    return Attempt(kind, request.method, data, is_sound, (), f"{seed.method} {seed.path}")


def encoded(request: Request, chance: random.Random) -> bytes:
    """Return a request as bytes, its body now and then in chunks."""
    given = {name.lower() for name, _ in request.headers}
    target = request.path + (f"?{request.query}" if request.query else "")
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [] if "host" in given else ["Host: 127.0.0.1"]
    lines += ["Connection: close", *(f"{name}: {value}" for name, value in request.headers)]
    has_body = request.body or request.method in {"POST", "PUT"}
    is_chunked = request.body and chance.random() < 1 / 8 and "transfer-encoding" not in given
    if is_chunked:
        lines.append("Transfer-Encoding: chunked")
    elif has_body:
        lines.append(f"Content-Length: {len(request.body)}")
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass")
    return head + (_chunked(request.body) if is_chunked else request.body)


def _chunked(body: bytes) -> bytes:
    pieces = [body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _breaks_framing(request: Request) -> bool:
    return any(name in {"Transfer-Encoding", "Upgrade", "Expect"} for name, _ in request.headers)


def _odd(chance: random.Random) -> str:
    value = chance.choice(ODD)
    return value if chance.random() < 1 / 4 and value.isascii() and " " not in value else quote(value, safe="")


def _query(request: Request, chance: random.Random) -> Request:
    pairs = request.query.split("&") if request.query else []
    for _ in range(chance.randint(1, 3)):
        act = chance.randrange(5)
        if act == 0 or not pairs:
            pairs.append(f"{quote(chance.choice(NAMES), safe='.:')}={_odd(chance)}")
            continue
        at = chance.randrange(len(pairs))
        name, _, value = pairs[at].partition("=")
        if act == 1:
            pairs[at] = f"{name}={_odd(chance)}"
        elif act == 2:
            pairs[at : at + 1] = [pairs[at]] * chance.choice((2, 50, 1500))
        elif act == 3:
            pairs[at] = chance.choice((name, f"={value}", f"{name}:{_odd(chance)}={value}", f"{name}.{name}={value}"))
        else:
            noise = changed(pairs[at].encode(), chance, (flip, cut, repeat))
            pairs[at] = quote(noise, safe="=:.*,$|")
    return replace(request, query="&".join(pairs)[:_MOST_QUERY])


def _path(request: Request, chance: random.Random) -> Request:
    segments = request.path.split("/")[1:]
    at = chance.randrange(len(segments))
    act = chance.randrange(4)
    if act == 0:
        segments[at] = _odd(chance)
    elif act == 1:
        segments.insert(at, _odd(chance))
    elif act == 2:
        segments[at : at + 1] = [segments[at]] * chance.choice((0, 2, 200))
    else:
        segments[at] = quote(changed(segments[at].encode(), chance, (flip, cut, repeat)), safe="$.")
    return replace(request, path="/" + "/".join(segments)[:_MOST_QUERY])


def _header(request: Request, chance: random.Random) -> Request:
    headers = list(request.headers)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(sorted(HEADERS))
        if chance.random() < 1 / 2:
            headers = [each for each in headers if each[0] != name]
        headers.append((name, chance.choice(HEADERS[name])))
    method = chance.choice(METHODS) if chance.random() < 1 / 4 else request.method
    return replace(request, headers=tuple(headers), method=method)


def _body(request: Request, chance: random.Random) -> Request:
    acts: list[Callable[[bytes, random.Random], bytes]] = [_noise]
    if request.body[:1] in b"[{":
        acts += [_json_value] * 3
    elif request.body[:1] == b"<":
        acts += [_xml_piece] * 3
    return replace(request, body=chance.choice(acts)(request.body, chance))


def _noise(body: bytes, chance: random.Random) -> bytes:
    return changed(body, chance, (flip, cut, repeat, length, shuffle))


def _json_value(body: bytes, chance: random.Random) -> bytes:
    found = list(_JSON_VALUE.finditer(body))
    if not found:
        return _noise(body, chance)
    start, end = chance.choice(found).span(1)
    return body[:start] + chance.choice(JSON_TOKENS) + body[end:]


def _xml_piece(body: bytes, chance: random.Random) -> bytes:
    at = chance.choice([match.end() for match in re.finditer(rb">", body)])
    return body[:at] + chance.choice(XML_PIECES) + body[at:]


def _framing(data: bytearray, chance: random.Random) -> None:
    """Say other lengths than the body has, or two of them."""
    line = chance.choice(
        (b"Content-Length: 99999999999", b"Content-Length: -1", b"Content-Length: 0x5", b"A", b"\0: x")
    )
    line = chance.choice((line, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"))
    at = data.find(b"\r\n")
    data[at:at] = b"\r\n" + line


def _stored_file(number: int, chance: random.Random) -> Attempt:
    """Break a file that is stored: its file meta information, or its data set."""
    path, whole = stored_file(number)
    if chance.random() < 1 / 3:
        file = changed(whole[:_META_END], chance, (flip, cut, repeat, length)) + whole[_META_END:]
    else:
        file = whole[:_META_END] + changed(whole[_META_END:], chance, DATA_SET_CHANGES)
    root = f"/dicomweb/{path}"
    follows = tuple(root + rest for rest in ("", "/metadata", "/frames/1", "/rendered", "/bulkdata/7FE00010"))
    return Attempt("stored file", "POST", encoded(store_request(file), chance), True, follows, "a stored file")


_CHANGES: dict[Kind, Callable[[Request, random.Random], Request]] = {
    "query": _query,
    "path": _path,
    "header": _header,
    "body": _body,
}
