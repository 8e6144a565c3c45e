"""A small bundle and a real server on loopback, for the tests of the service."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd

LONG = "x" * 128


def tables(mark: str) -> dict:
    """A small bundle: every reason names the bundle, so that a mixed answer would show."""
    ids = [f"C{i:05d}" for i in range(1, 41)] + ["Zoë ☀", "a/b", LONG]
    shelf = [f"P{i:04d}" for i in range(1, 61)]
    lists = {
        name: pd.concat(
            [
                pd.DataFrame(
                    {
                        "customer_id": c,
                        "product_id": np.roll(shelf, -n - shift)[:20],
                        "score": np.linspace(0.9, 0.1, 20),
                        "rank": range(1, 21),
                        "method": "hybrid",
                        "reason": mark,
                    }
                )
                for n, c in enumerate(ids)
            ]
        )
        for name, shift in (("any", 0), ("discovery", 3))
    }
    return dict(
        lists={k: [v] for k, v in lists.items()},
        popular=pd.DataFrame(
            {
                "product_id": shelf,
                "score": np.linspace(1, 0.1, 60),
                "method": "popular",
                "reason": mark,
            }
        ),
        bought=pd.DataFrame({"customer_id": ids, "product_id": "P0060"}),
        segments=pd.DataFrame(
            {
                "customer_id": ids,
                "segment": "Champions",
                "r_score": 5,
                "f_score": 4,
                "m_score": 3,
                "rfm_score": "543",
                "action": "say thank you",
                "value": 10.0,
            }
        ),
        products=pd.DataFrame({"product_id": shelf, "category": ["care", "food"] * 30}),
        similar=pd.DataFrame(
            {
                "product_id": "P0012",
                "similar_id": shelf[:10],
                "score": np.linspace(0.9, 0.5, 10),
                "rank": range(1, 11),
            }
        ),
        profiles=[{"segment": "Champions", "customers": len(ids)}],
        card={"last_date": "2025-12-31"},
    )


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def served(serving: Path, *options: str, log: Path | None = None, **environment: str):
    """`retail-ci serve` on a free port: its base address and its process; `log`: its output."""
    port = free_port()
    tool = str(Path(sys.executable).with_name("retail-ci"))
    process = subprocess.Popen(
        [tool, "serve", "--bundle", str(serving), "--port", str(port), *options],
        env=os.environ | {"RETAIL_CI_LOG": "off"} | environment,
        stdout=log.open("wb") if log else subprocess.DEVNULL,
    )
    try:
        for _ in range(1200):
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                    break
            assert process.poll() is None, "the service ended before it answered"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        assert process.wait(120) is not None


def request_in_two(base: str, body: bytes) -> tuple[socket.socket, bytes]:
    """Send a request's head and half of its body; the connection, and the rest."""
    connection = socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), 60)
    head = (
        "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body[:10])
    return connection, body[10:]


def whole_answer(connection: socket.socket) -> bytes:
    """Read an answer to its end."""
    data = b""
    while part := connection.recv(65536):
        data += part
        length = re.search(rb"content-length: (\d+)\r\n", data)
        if length and len(data.partition(b"\r\n\r\n")[2]) >= int(length[1]):
            break
    return data


def open_files(pid: int) -> int:
    """How many file descriptors a process has in use."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def open_paths(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(os.readlink(link))
    return found
