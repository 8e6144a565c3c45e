"""Bytes that are almost HTTP, made by Hypothesis and sent to a real service on loopback: heads and
bodies of odd parts, cut anywhere, several in a row.

Whatever is sent, each answer is whole HTTP with a status that the service documents, an error has
the standard form, and afterwards the service answers as before. `make soak` runs ten minutes of it:

    python tests/fuzz_service.py --seconds 600 --seed 1
"""

import argparse
import contextlib
import json
import re
import socket
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from small_service import PATIENCE, connections, get, open_files, served, tables

from retail_ci.serve.bundle import activate, write_bundle

STATUSES = {200, 304, 400, 403, 404, 405, 408, 413, 414, 421, 422, 431}
PATHS = [
    *("/v1/recommend", "/recommend", "/v1/recommend/batch", "/v1/segments", "/v1/segments/C00001"),
    *("/v1/segments/%00", "/v1/segments/%ff", "/v1/segments/a%2Fb", "/v1/products/P0012/similar"),
    *("/v1/products/P0012/similar?n=0", "/v1/model", "/health", "/health/live", "/metrics", "/"),
    *("*", "//", "http://localhost/v1/model", "/v1/../v1/model", "/docs", "/openapi.json", "?"),
]
BODIES = [
    *(b"", b"{}", b"[]", b"null", b"{", b'{"customer_id": "C00001"}', b"\xff\xfe", b"[" * 3000),
    b'{"customer_ids": ["C00001", "nobody"], "n_recommendations": 100}',
    b'{"customer_id": "C00001", "n_recommendations": 1e400, "exclude": [""]}',
    b'{"customer_id": "\\ud800", "last_purchased_product": "\\u0000"}',
]
METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "CONNECT", "get", ""])
NAMES = st.sampled_from(
    [
        *("Content-Type", "Accept", "If-None-Match", "X-Request-ID", "traceparent", "Upgrade"),
        *("Connection", "Expect", "Range", "Cookie", "X-API-Key", "Authorization", "Te", "X"),
        *("Transfer-Encoding", "Content-Length", "Host", "X-Forwarded-For", "Content Length"),
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            *("application/json", "text/plain", "chunked", "gzip, chunked", "close", "keep-alive"),
            *("websocket", "h2c", "100-continue", "*", "0", "-1", "5", "1e3", "99999999999999"),
            *("localhost", "elsewhere.example", "Bearer x", "bytes=0-", "0x10", " ", ""),
        ]
    ),
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=40),
    st.integers(1, 70_000).map(lambda n: "x" * n),
)
TARGETS = st.one_of(
    st.sampled_from(PATHS),
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=40).map("/v1/".__add__),
)


@st.composite
def requests(draw) -> bytes:
    """One request, in order or not quite."""
    version = draw(st.sampled_from([*["HTTP/1.1"] * 6, "HTTP/1.0", "HTTP/2.0", "HTTP/9", ""]))
    body = draw(st.one_of(st.sampled_from(BODIES), st.binary(max_size=200)))
    lines = [f"{draw(METHODS)} {draw(TARGETS)} {version}"]
    lines += ["Host: localhost"] * draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
    lines += [f"{draw(NAMES)}: {draw(VALUES)}" for _ in range(draw(st.integers(0, 3)))]
    framing = draw(st.sampled_from(["length", "length", "chunks", "none", "short", "long"]))
    if framing == "chunks":
        lines.append("Transfer-Encoding: chunked")
        ends = draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n", b"-1\r\n"]))
        body = b"%x;e=1\r\n%s\r\n" % (len(body), body) * bool(body) + ends
    elif framing != "none":
        size = len(body) + {"length": 0, "short": -1, "long": 7}[framing]
        lines.append(f"Content-Length: {size}")
    ending = draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"]))
    return (ending.join(lines) + 2 * ending).encode("latin-1", "replace") + body


@st.composite
def calls(draw) -> list[bytes]:
    """What one caller sends: a few requests, cut into pieces, perhaps with a byte changed."""
    data = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    cut = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [bytes(data[a:b]) for a, b in zip([0, *cut], [*cut, len(data)])]


def send(port: int, pieces: list[bytes]) -> bytes:
    """Send pieces, say that this was all, and read to the end."""
    data = b""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.001)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                data += part
    return data


def answers_in(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Status, head and body of each answer; an answer to HEAD has none."""
    found = []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        assert mark and re.match(rb"HTTP/1\.1 \d{3} [ -~]*(\r\n|$)", head), head[:200]
        status = int(head.split()[1])
        if status == 100:
            continue
        length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        size = int(length[1]) if length and not data.startswith(b"HTTP/1.1 ") else 0
        body, data = data[:size], data[size:]
        assert len(body) in (0, size), "an answer that was cut off"
        found.append((status, head.lower(), body))
    return found


def check(data: bytes) -> None:
    """Whether what came back is what the service says that it sends."""
    for status, head, body in answers_in(data):
        assert status in STATUSES, (status, body[:200])
        if status >= 400 and body:
            assert b"content-type: application/problem+json" in head, head
            assert json.loads(body)["status"] == status


def fuzz(base: str, process, seconds: float, start: int) -> int:
    """Send what Hypothesis makes for so long; how many calls that were."""
    port = int(base.rpartition(":")[2])
    right = right_answer(base)
    files = settled_files(base, process.pid, 1_000_000)
    end = time.monotonic() + seconds
    sent = 0

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(calls())
    def one(pieces: list[bytes]) -> None:
        nonlocal sent
        sent += 1
        check(send(port, pieces))
        assert process.poll() is None, "the service has ended"

    while True:
        seed(start)(one)()
        start += 1000
        assert right_answer(base) == right
        if time.monotonic() >= end:
            break
    settled_files(base, process.pid, files + 1)
    return sent


def right_answer(base: str) -> dict:
    """What the service says of a customer. On a busy machine a hasty service may have no time for
    it, and is asked again.
    """
    for _ in range(PATIENCE):
        with contextlib.suppress(httpx2.TransportError):
            answer = get(f"{base}/v1/segments/C00001")
            if answer.status_code != 408:
                return answer.json()
    raise AssertionError("the service has no time")


def settled_files(base: str, pid: int, most: int) -> int:
    """How many files a service has open once nobody is connected; `most` are allowed."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if connections(base) == 0 and (left := open_files(pid)) <= most:
            return left
        time.sleep(0.1)
    raise AssertionError(f"{open_files(pid)} files are open, {most} were expected at most")


def main() -> None:
    """Fuzz, and show the smallest call that finds a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder, "v1"), **tables("v1"), version="v1", depth=20)
        activate(Path(folder), "v1")
        with served(Path(folder), RETAIL_CI_TIMEOUT="1") as (base, process):
            sent = fuzz(base, process, options.seconds, options.seed)
    print(f"{sent:,} calls in {options.seconds:g} s; each answer was in order")


if __name__ == "__main__":
    sys.exit(main())
