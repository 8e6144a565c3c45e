"""What the network can do to the service: many sockets, slow callers, heads of a megabyte, and no
file descriptors left. Each gets a standard answer, nobody else notices, and all is as before.
"""

import contextlib
import json
import resource
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest
from conftest import wait_for
from fuzz_service import fuzz
from small_service import (
    PATIENCE,
    connections,
    get,
    open_paths,
    served,
    tables,
    whole_answer,
)

from retail_ci.serve.bundle import activate, rollback, write_bundle

HEAD = b"GET /v1/segments HTTP/1.1\r\nHost: localhost\r\n"
MEGABYTE = 1_000_000
KEPT = httpx2.Limits(keepalive_expiry=None)  # a connection is used again, however late


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A folder with two bundles, of which the first is current."""
    folder = tmp_path_factory.mktemp("serving")
    for mark in ("v1", "v2"):
        write_bundle(folder / mark, **tables(mark), version=mark, depth=20)
    activate(folder, "v1")
    return folder


@pytest.fixture(scope="module")
def patient(serving):
    """A service that waits as long as these tests do: its address and its process."""
    with served(serving, RETAIL_CI_TIMEOUT=str(PATIENCE)) as (base, process):
        yield base, process


@pytest.fixture(scope="module")
def hasty(serving):
    """A service that waits for a second only: its address and its process."""
    with served(serving, RETAIL_CI_TIMEOUT="1") as (base, process):
        yield base, process


def connect(base: str) -> socket.socket:
    """A connection to a service."""
    return socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), PATIENCE)


def answered(base: str, sent: bytes) -> tuple[socket.socket, bytes]:
    """A connection with the answer to what was sent. Where a busy machine takes longer to send it
    than a hasty service waits, it is sent again.
    """

    def attempt() -> tuple[socket.socket, bytes] | None:
        connection = connect(base)
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            if answer := whole_answer(connection):
                return connection, answer
        connection.close()
        return None

    return wait_for(attempt)


def goes_on(connection: socket.socket, piece: bytes) -> int:
    """Send the same again and again until the other side closes; how many bytes that were."""
    sent = 0
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < end:
            connection.sendall(piece)
            sent += len(piece)
            time.sleep(0.1 if len(piece) < 100 else 0)
        raise AssertionError("it can be sent to for ever")
    return sent


def to_its_end(connection: socket.socket) -> bytes:
    """All that still comes until the other side closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


def problem(answer: bytes) -> dict:
    """The body of an error in its standard form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), answer[:300]
    told = json.loads(body)
    assert int(head.split()[1]) == told["status"] and told["detail"].endswith(".")
    return told


TOO_MUCH = {  # what is sent: the status of the answer
    "a header": (HEAD + b"X: " + b"x" * MEGABYTE + b"\r\n\r\n", 431),
    "headers": (HEAD + b"X: y\r\n" * (MEGABYTE // 6) + b"\r\n", 431),
    "a header without an end": (HEAD + b"X: " + b"x" * MEGABYTE, 431),
    "an id": (HEAD.replace(b"segments", b"segments/" + b"x" * MEGABYTE) + b"\r\n", 414),
    "an id in a body": (
        b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 999999\r\n\r\n" + b'{"customer_id": "%s"}' % (b"x" * 999_980),
        422,
    ),
    "a body": (
        b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n\r\n",
        413,
    ),
    "no HTTP": (b"\x16\x03\x01\x02\x00" + b"x" * MEGABYTE, 400),
    "two hosts": (HEAD + b"Host: elsewhere.example\r\n\r\n", 400),
    "no host": (b"GET /v1/segments HTTP/1.1\r\n\r\n", 400),
}


@pytest.mark.parametrize("sent,status", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_is_too_much_is_refused_in_the_standard_form(patient, sent, status):
    base, process = patient
    with connect(base) as connection:
        with contextlib.suppress(ConnectionError):  # it may be closed before all is sent
            connection.sendall(sent)
        answer = whole_answer(connection)
    assert problem(answer)["status"] == status
    assert b"xxxx" not in answer, "what was sent is not repeated"
    assert get(f"{base}/v1/segments").status_code == 200 and process.poll() is None


def test_bytes_that_are_almost_http_are_answered_in_order(hasty):
    """Two hundred calls; `make soak` goes on for ten minutes."""
    assert fuzz(*hasty, seconds=0, start=1) >= 200


def test_slow_senders_are_parted_from(hasty):
    base, _ = hasty
    with connect(base) as silent:
        assert to_its_end(silent) == b""
    late, told = answered(base, HEAD)
    assert problem(told)["status"] == 408 and to_its_end(late) == b""
    tail, told = answered(base, HEAD + b"\r\n")
    assert told.startswith(b"HTTP/1.1 200")
    with contextlib.suppress(ConnectionError):  # parted from already, on a busy machine
        tail.sendall(b"\r\n")  # of a further request nothing but an empty line
    assert to_its_end(tail) == b""
    endless = wait_for(lambda: endless_body(base))
    goes_on(endless, b"1\r\nx\r\n")
    assert problem(to_its_end(endless))["status"] == 408
    for connection in (late, tail, endless):
        connection.close()
    wait_for(lambda: connections(base) == 0)
    metrics = get(f"{base}/metrics").text
    assert 'retail_ci_connections_refused_total{status="408"}' in metrics


def endless_body(base: str) -> socket.socket | None:
    """A connection on which a body has begun; none where a busy machine was too slow for it."""
    connection = connect(base)
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    with contextlib.suppress(ConnectionError):
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        if connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n":
            return connection
    connection.close()
    return None


def test_a_body_that_goes_on_after_its_answer_ends(serving, tmp_path):
    """Whoever is refused for want of a key cannot go on sending for ever."""
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\n"
    chunks = head + b"Transfer-Encoding: chunked\r\n\r\n"
    with served(serving, RETAIL_CI_TIMEOUT="1", RETAIL_CI_API_KEYS="0" * 64) as (base, process):
        connection, told = answered(base, chunks)
        with connection:
            assert problem(told)["status"] == 401
            goes_on(connection, b"1\r\nx\r\n")
        with connect(base) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(chunks)
            assert goes_on(connection, b"1\r\nx\r\n" * 50_000) < 50 * MEGABYTE
        connection, told = answered(base, head + b"Content-Length: 5\r\n\r\n")
        with connection:
            assert problem(told)["status"] == 401
            assert to_its_end(connection) == b"", "five bytes that never come keep no socket"
        assert get(f"{base}/health/live").status_code == 200 and process.poll() is None


def test_an_answer_that_nobody_reads_keeps_no_socket(hasty):
    base, _ = hasty
    ids = [f"C{i % 40 + 1:05d}" for i in range(1000)]
    body = json.dumps({"customer_ids": ids, "n_recommendations": 60}).encode()
    head = b"POST /v1/recommend/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
    readers = [connect(base) for _ in range(3)]
    for reader in readers:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(ConnectionError):
            reader.sendall(head % len(body) + b"Content-Type: application/json\r\n\r\n" + body)
    # others ask for small things, without reading them either
    pipelined = connect(base)
    pipelined.setblocking(False)
    with contextlib.suppress(OSError):
        for _ in range(20_000):
            pipelined.send((HEAD + b"\r\n") * 20)
    for _ in range(20):  # a busy machine may need more than the second that this service waits
        wait_for(lambda: status_of(base) == 200)
    wait_for(lambda: connections(base) == 0)
    for reader in (*readers, pipelined):
        reader.close()
    wait_for(lambda: status_of(base) == 200)


def status_of(base: str) -> int:
    """The status of a small question; 0 if the connection was closed before the answer."""
    with contextlib.suppress(httpx2.TransportError):
        return get(f"{base}/v1/segments").status_code
    return 0


def test_ten_thousand_sockets_leave_the_service_answering(serving):
    """Ten thousand, or as many as this machine's limit of file descriptors allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 10_000 if hard == resource.RLIM_INFINITY else max(min(10_000, hard - 500), 20)
    # no more at a time than the system lets wait
    waiting = int(Path("/proc/sys/net/core/somaxconn").read_text())
    step = min(500, max(waiting // 2, 1))
    wait = {"RETAIL_CI_TIMEOUT": str(PATIENCE), "RETAIL_CI_CONNECTIONS": str(most)}
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        base, _ = stack.enter_context(served(serving, **wait))
        wait_for(lambda: connections(base) == 0)
        crowd = []
        while len(crowd) < most:
            some = min(step, most - len(crowd))
            crowd += [stack.enter_context(connect(base)) for _ in range(some)]
            wait_for(lambda: connections(base) == len(crowd))
        for _ in range(20):
            assert problem(to_its_end(stack.enter_context(connect(base))))["status"] == 503
        for connection in crowd[:: most // 20]:
            connection.sendall(HEAD + b"\r\n")
            assert whole_answer(connection).startswith(b"HTTP/1.1 200")
        for connection in crowd:
            connection.close()
        wait_for(lambda: connections(base) == 0)
        told = get(f"{base}/metrics").text
        assert 'retail_ci_connections_refused_total{status="503"} 20.0' in told


def test_no_file_descriptors_left(serving):
    """Who is connected is answered, a promotion waits, and all goes on when there are some."""
    with (
        served(serving) as (base, process),
        httpx2.Client(base_url=base, timeout=PATIENCE, limits=KEPT) as client,
    ):
        assert client.get("/health").json()["model_version"] == "v1"
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        others = []
        try:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, hard))
            # beside the questions, whose connection is closed if it is not used for long
            promotion = threading.Thread(target=activate, args=(serving, "v2"))
            promotion.start()
            others += [connect(base) for _ in range(5)]
            health = wait_for(lambda: (h := client.get("/health").json())["refused_bundle"] and h)
            assert (health["status"], health["model_version"]) == ("ok", "v1")
            assert "Too many open files" in health["refused_bundle"]
            for _ in range(50):
                assert client.get("/v1/segments/C00001").json()["model_version"] == "v1"
            promotion.join()
        finally:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
            for other in others:
                other.close()
        wait_for(lambda: client.get("/health").json()["model_version"] == "v2")
        assert client.get("/health").json()["refused_bundle"] is None
        assert get(f"{base}/v1/segments").json()["model_version"] == "v2"
    activate(serving, "v1")


def test_a_large_bundle_cut_off_under_a_running_service_is_refused_and_not_fatal(tmp_path):
    """What is still whole is answered, what is missing is a 503, and a rollback mends it."""
    starts = "from retail_ci.serve import bundle; bundle._LARGE = bundle._SMALL = 0"
    (tmp_path / "sitecustomize.py").write_text(starts)  # a small bundle is treated as a large one
    serving = tmp_path / "serving"
    for mark in ("v1", "v2"):
        write_bundle(serving / mark, **tables(mark), version=mark, depth=20)
        activate(serving, mark)
    ask = {"json": {"customer_id": "C00001"}}
    with (
        served(serving, PYTHONPATH=str(tmp_path)) as (base, process),
        httpx2.Client(base_url=base, timeout=PATIENCE) as client,
    ):
        assert client.post("/v1/recommend", **ask).json()["model_version"] == "v2"
        assert any("any_items.bin" in path for path in open_paths(process.pid))
        for file in sorted((serving / "v2").glob("any_*.bin")):
            file.write_bytes(b"x")
        for path in ("recommend", "recommend/batch"):
            body = {"customer_ids": ["C00001"]} if "batch" in path else ask["json"]
            answer = client.post(f"/v1/{path}", json=body)
            assert answer.status_code == 503 and answer.json()["detail"].startswith("The files of")
        assert client.get("/v1/segments/C00001").json()["rfm_score"] == "543"
        wait_for(lambda: client.get("/health").json()["status"] == "damaged")
        assert rollback(serving) == "v1"
        wait_for(lambda: client.post("/v1/recommend", **ask).status_code == 200)
        assert client.post("/v1/recommend", **ask).json()["model_version"] == "v1"
        assert client.get("/health").json()["status"] == "ok" and process.poll() is None
        wait_for(lambda: not any("v2" in path for path in open_paths(process.pid)))
