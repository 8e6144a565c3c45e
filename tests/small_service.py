"""A small bundle and a real server on loopback, for the tests of the service."""

import contextlib
import fcntl
import functools
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd
from small_shop import champions, popular_list

LONG = "x" * 128
PATIENCE = 1200  # seconds; as in conftest.py, which only pytest loads
get = functools.partial(httpx2.get, timeout=PATIENCE)
post = functools.partial(httpx2.post, timeout=PATIENCE)
_RESERVED: list[int] = []  # locks on ports, held until this process ends


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
        popular=popular_list(shelf, mark),
        bought=pd.DataFrame({"customer_id": ids, "product_id": "P0060"}),
        segments=champions(ids).assign(value=10.0),
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
    """A port that nobody uses, and that stays free: it is not one of those that the system gives
    to callers, and no other process of the tests gets it until this one has ended.
    """
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(max(least - 10_000, 1025), max(least, 11_025))
    folder = Path(tempfile.gettempdir(), f"retail_ci_ports_{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(ports, len(ports)):
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError), socket.socket() as s:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            s.bind(("127.0.0.1", port))
            _RESERVED.append(lock)
            return port
        os.close(lock)
    raise AssertionError("no port is free")


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
        await_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        assert process.wait(PATIENCE) is not None


def await_ready(base: str, process: subprocess.Popen) -> None:
    """Wait until a service has a model."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(httpx2.TransportError):
            if get(f"{base}/health/ready").status_code == 200:
                return
        assert process.poll() is None, "the service ended before it answered"
        time.sleep(0.1)
    raise AssertionError("the service was not ready in time")


def request_in_two(base: str, body: bytes) -> tuple[socket.socket, bytes]:
    """Send a request's head and half of its body, and wait until the service says that it reads
    it; the connection, and the rest.
    """
    address = ("127.0.0.1", int(base.rpartition(":")[2]))
    connection = socket.create_connection(address, PATIENCE)
    head = (
        "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    connection.sendall(head.encode() + body[:10])
    told = b""
    while not told.endswith(b"\r\n\r\n") and (part := connection.recv(1)):
        told += part
    assert told.startswith(b"HTTP/1.1 100 ") or not told, told
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


def connections(base: str) -> int:
    """How many connections a service holds: those that it has taken and not closed."""
    return list(_sockets(base).values()).count(False)


def listens(pid: int, base: str) -> bool:
    """Whether a process takes connections for a service."""
    waiting = {f"socket:[{inode}]" for inode, listening in _sockets(base).items() if listening}
    with contextlib.suppress(FileNotFoundError):
        return not waiting.isdisjoint(open_paths(pid))
    return False


def _sockets(base: str) -> dict[int, bool]:
    """The sockets on a service's port that belong to a process, and whether each listens."""
    port = f"{int(base.rpartition(':')[2]):04X}"
    told = Path("/proc/net/tcp").read_text()  # with ten thousand sockets a megabyte
    lines = re.findall(rf": [0-9A-F]{{8}}:{port} \S+ (\S\S)(?: +\S+){{5}} +(\d+)", told)
    # nobody has taken 0 yet, or it is closed
    return {int(inode): state == "0A" for state, inode in lines if inode != "0"}
