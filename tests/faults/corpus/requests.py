"""HTTP requests that lie or break off, as bytes. Each ends, so that the server can answer."""

from collections.abc import Iterator

BOUNDARY = b"b0undary"


def request(
    body: bytes = b"",
    *headers: bytes,
    target: bytes = b"/predict",
    method: bytes = b"POST",
    kind: bytes = b"image/png",
) -> bytes:
    lines = [
        method + b" " + target + b" HTTP/1.1",
        b"Host: localhost",
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def part(name: bytes, content: bytes, filename: bytes = b"a.png", more: bytes = b"") -> bytes:
    disposition = b'Content-Disposition: form-data; name="' + name + b'"; filename="' + filename + b'"\r\n'
    return b"--" + BOUNDARY + b"\r\n" + disposition + more + b"\r\n" + content + b"\r\n"


def form(
    *parts: bytes, end: bytes = b"--" + BOUNDARY + b"--\r\n", kind: bytes = b"boundary=" + BOUNDARY
) -> bytes:
    return request(b"".join(parts) + end, kind=b"multipart/form-data; " + kind)


def requests(picture: bytes) -> Iterator[tuple[str, bytes]]:
    """picture is a good one."""
    yield from _forms(picture)
    yield from _headers(picture)
    yield from _targets(picture)
    yield from _chunks(picture)


def _forms(picture: bytes) -> Iterator[tuple[str, bytes]]:
    good = part(b"file", picture)
    yield "form without boundary", form(good, kind=b"")
    yield "form with another boundary", form(good, kind=b"boundary=other")
    yield "form with an empty boundary", form(good, kind=b"boundary=")
    yield "form with a boundary of 10,000", form(good, kind=b"boundary=" + b"b" * 10_000)
    yield "form without end", form(good, end=b"")
    yield "form of nothing", form()
    yield "form without the field", form(part(b"other", picture))
    yield (
        "form with text for a file",
        form(b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n'),
    )
    yield "form of two files", form(good, good)
    yield "form of 2,000 files", form(*[part(b"file", b"x")] * 2_000)
    yield "form of 20,000 fields", form(*[part(b"x", b"")] * 20_000)
    yield "form part without headers", form(b"--" + BOUNDARY + b"\r\n\r\n" + picture + b"\r\n")
    yield (
        "form part with 1 MB of headers",
        form(part(b"file", picture, more=b"X-A: " + b"a" * 2**20 + b"\r\n")),
    )
    yield "form part with 10,000 headers", form(part(b"file", picture, more=b"X-A: a\r\n" * 10_000))
    yield "form name of 1 MB", form(part(b"f" * 2**20, picture))
    yield "form file name with a path", form(part(b"file", picture, b"../../etc/passwd"))
    yield "form file name with NUL", form(part(b"file", picture, b"a\0b"))
    yield "form file name of bytes", form(part(b"file", picture, b"\xff\xfe\xfd"))
    yield "form in a form", form(part(b"file", form(good), more=b"Content-Type: multipart/mixed\r\n"))
    yield "form of garbage", form(b"\0\xff" * 5_000)
    yield "urlencoded", request(b"file=" + b"a" * 1_000, kind=b"application/x-www-form-urlencoded")
    yield "batch without form", request(picture, target=b"/predict/batch")
    yield "batch of 300", form(*[good] * 300).replace(b"/predict", b"/predict/batch", 1)


def _headers(picture: bytes) -> Iterator[tuple[str, bytes]]:
    for kind in (b"", b"text/html", b"image/svg+xml", b"\xff\xff", b"a" * 5_000, b'image/png; a="', b"*/*"):
        yield f"media type {kind[:20]!r}", request(picture, kind=kind)
    for name in (
        b"X-Request-ID",
        b"X-Request-Timeout-Ms",
        b"Idempotency-Key",
        b"traceparent",
        b"Accept",
        b"Expect",
    ):
        for value in (b"", b"0", b"-1", b"1e99", b"a" * 2_000, b"\xff\xfe", b"<script>", b"%00", b"9" * 400):
            yield f"{name.decode()}: {value[:12]!r}", request(picture, name + b": " + value)
    yield "gzip", request(picture, b"Content-Encoding: gzip")
    yield "500 headers", request(picture, *[b"X-%d: a" % number for number in range(500)])
    yield "a header of 100 kB", request(picture, b"X-Long: " + b"a" * 100_000)
    yield "two lengths", request(picture, b"Content-Length: 3")
    yield "length and chunks", request(picture, b"Transfer-Encoding: chunked")
    yield "negative length", request(picture).replace(b"Content-Length: ", b"Content-Length: -", 1)
    yield "length in words", request(picture).replace(b"Content-Length: ", b"Content-Length: x", 1)
    yield "no host", request(picture).replace(b"Host: localhost\r\n", b"", 1)
    yield "header without colon", request(picture, b"nonsense")
    yield "space before colon", request(picture, b"X-A : b")
    yield "folded header", request(picture, b"X-A: b\r\n c")
    yield "NUL in a header", request(picture, b"X-A: \0")


def _targets(picture: bytes) -> Iterator[tuple[str, bytes]]:
    queries = (
        *(b"model=" + name for name in (b"../../etc/passwd", b"m" * 3_000, b"%00", b"a&model=b", b"")),
        *(b"top_k=" + number for number in (b"-1", b"0", b"9" * 20, b"1.5", b"x")),
        *(b"mode=x", b"mode=", b"explain=x", b"unknown=1", b"=&=&=", b"%ff%fe"),
    )
    for query in queries:
        yield f"?{query[:30].decode()}", request(picture, target=b"/predict?" + query)
    for target in (
        b"/predict/",
        b"//predict",
        b"/PREDICT",
        b"/../predict",
        b"/%00",
        b"/" + b"a" * 20_000,
        b"*",
        b"x",
    ):
        yield f"target {target[:20]!r}", request(picture, target=target)
    for method in (b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"BREW", b"\xff"):
        yield f"method {method!r}", request(picture, method=method)


def _chunks(picture: bytes) -> Iterator[tuple[str, bytes]]:
    head = request().replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    yield "chunked", head + b"%x\r\n" % len(picture) + picture + b"\r\n0\r\n\r\n"
    yield "chunk of no number", head + b"zz\r\n" + picture + b"\r\n0\r\n\r\n"
    yield "chunk of a negative number", head + b"-1\r\n" + picture + b"\r\n0\r\n\r\n"
    yield "chunk of 2^64", head + b"ffffffffffffffff1\r\n" + picture + b"\r\n0\r\n\r\n"
    yield "10,000 chunks of a byte", head + b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n"
    yield "11 MiB in chunks", head + (b"100000\r\n" + bytes(2**20) + b"\r\n") * 11 + b"0\r\n\r\n"
    yield "garbage", b"\0\1\2\3" * 200 + b"\r\n\r\n"
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300)
    yield "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20)
    yield "HTTP/9.9", request(picture).replace(b"HTTP/1.1", b"HTTP/9.9", 1)
    yield (
        "two requests at once",
        request(picture).replace(b"Connection: close\r\n", b"", 1) + request(picture),
    )
