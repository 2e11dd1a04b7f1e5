"""Values that no client should send."""

from __future__ import annotations

ODD = (
    *("", " ", "-1", "0", "1e999", "NaN", "9" * 400, "2" * 65, "1.2..3", "1.2.0003", "0x10", "true", "null", "[]"),
    *("..", "../../etc/passwd", "%2e%2e%2f", "%00", "%", "%zz", "%ff%fe", "%ed%a0%80", "%F0%9F%92%A9", "\\", "*", "?"),
    *("a,b" * 300, "a|b|c$d", "a\\b", ";", "&", "=", "<script>", "' OR 1=1 --", "{{7*7}}", "${x}", "A" * 20_000),
    *(
        "99999999-00000000",
        "20240230",
        "0000-00",
        "9999-12-31T23:59:60+99:00",
        "$everything",
        "_history",
        "\u0130\u0131",
    ),
)
HEADERS: dict[str, tuple[str, ...]] = {
    "Accept": (
        *("", "x", "*/*;q=2", "application/dicom+json;q=nan", 'multipart/related; type="', "a/b," * 3000),
        *(
            'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.3',
            "image/jpeg;;;",
            "text/html;q=-1",
        ),
    ),
    "Accept-Language": ("", "zh;q=x", "-," * 2000, "*", "\u00fc"),
    "Accept-Encoding": ("gzip", "br;q=1.0, *;q=0", "x" * 5000),
    "Authorization": ("", "Bearer", "Bearer " + "x" * 9000, "Basic OnVu", "Bearer \u00e9\u00e8"),
    "Content-Encoding": ("gzip", "deflate", "x"),
    "Content-Type": (
        *("", "x", "application/json", "application/xml", "text/plain; charset=utf-7", "multipart/related"),
        *('multipart/related; type="application/dicom"; boundary=', "multipart/related; boundary=" + "b" * 300),
        *(
            "application/fhir+json; fhirVersion=9",
            "application/fhir+xml",
            "application/x-www-form-urlencoded; charset=x",
        ),
    ),
    "Cookie": ("hybridmed_session=" + "x" * 5000, "hybridmed_session", ";=;=;", "a=\u00ff"),
    "Expect": ("100-continue", "x"),
    "Host": ("", "evil.example", "[::1", "a b", "x" * 3000, "127.0.0.1:99999999"),
    "If-Match": ("*", 'W/"', 'W/"99999999999999999999"', "x"),
    "If-Modified-Since": ("x", "Mon, 99 Foo 2024 99:99:99 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"),
    "If-None-Exist": ("", "identifier=", "?%zz", "_has:x:y:z=1", "identifier=a" * 500),
    "If-None-Match": ("*", '"', 'W/"1", "x' * 500),
    "If-Range": ("x", '"y"'),
    "Origin": ("null", "http://evil.example", "x"),
    "Prefer": ("return=minimal", "handling=strict", "respond-async", "return=x;;;"),
    "Range": ("bytes=", "bytes=5-1", "bytes=-0", "bytes=99999999999999999999-", "bytes=0-0," * 900, "items=0-1"),
    "Sec-Fetch-Site": ("cross-site", "x"),
    "Transfer-Encoding": ("x", "gzip, chunked"),
    "Upgrade": ("websocket", "h2c", "x"),
    "X-Forwarded-For": ("::1, 1.2.3.4, x", "9" * 4000),
    "X-Forwarded-Proto": ("javascript", "https, http"),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")
NAMES = (
    *("limit", "offset", "includefield", "fuzzymatching", "PatientName", "00100010", "0010", "StudyDate", "Modality"),
    *(
        "_count",
        "_sort",
        "_include",
        "_has:Patient:x",
        "_filter",
        "_page",
        "_since",
        "_format",
        "_summary",
        "_elements",
    ),
    *("subject.name:exact", "value-quantity", "code:in", "accept", "viewport", "window", "quality", "annotation"),
    *(
        "page",
        "q",
        "state",
        "from",
        "lang",
        "workitem",
        "transaction",
        "deletionlock",
        "requester",
        "\u00fc",
        "a[]",
        "",
    ),
)
JSON_TOKENS = (
    *(b"null", b"[]", b"{}", b"-0", b"1e400", b"9" * 5000, b'""', b'"\\u0000"', b'"\\ud800"', b"true", b"NaN"),
    *(
        b"[" * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'"' + b"x" * 100_000 + b'"',
    ),
)
XML_PIECES = (
    *(b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'>", b"<a>" * 10_000, b"&undefined;", b"&#0;", b"]]>", b"<?x?>"),
    *(b"\xff\xfe", b'<?xml version="1.0" encoding="utf-7"?>', b'<x xmlns:a="b" a:c="d" a:c="e"/>'),
)
