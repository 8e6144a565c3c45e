"""CPU per request of the API on one uvicorn worker, against no-op endpoints.

Three endpoints are asked in turn, in one run, over one kept-alive connection each; the processor
time is the server's own (user and system). They take turns of a hundred requests, and a ratio is
the median over all turns of what one took beside the other in the same turn: what else the machine
does falls on both.

- bare: FastAPI alone, one POST route that validates the same request and answers `{}`;
- no-op: the same route inside the service, behind its door (id, key check, body limit, counts,
  log);
- /recommend: 10 items with reasons, from a bundle of invented lists with a mask; and
  /segments/{id}, with an ETag.

Beside the ratios stand latencies: p50 and p99 of one request after the other, and under a steady
load, counted from the moment at which a request was due. Then `retail-ci serve --workers 2` is
started on the same bundle: how long until it is ready, and what each worker holds in memory
(resident; its proportional share of what is shared; its own alone).

The result goes to benchmarks/results/api.json. Run it with `make bench`, or for a large bundle with
`python benchmarks/api.py --customers 1000000 --products 20000 --out large.json`.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from retail_ci.serve.bundle import Bundle, activate, write_bundle

SERVER = """
import sys, uvicorn
from pathlib import Path
from fastapi import Request
from retail_ci.serve.api import RecommendRequest, Settings, _make_app
kind, port, serving = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
if kind == "bare":
    from fastapi import FastAPI
    app = FastAPI()
else: app = _make_app(Settings(serving))
@app.post("/noop")
async def noop(body: RecommendRequest, request: Request) -> dict: return {}
uvicorn.run(
    app,
    host="127.0.0.1",
    port=port,
    log_level="warning",
    access_log=False,
    loop="uvloop",
    http="httptools" if kind == "bare" else "retail_ci.serve.connections:Connection",
    timeout_keep_alive=600,
)
"""


def invented(customers: int, products: int, depth: int, block: int = 10_000):
    """Long tables of random lists, a block of customers at a time."""
    rng = np.random.default_rng(0)
    reasons = np.array(
        [
            f"bought {n} times, usually every {d} days, last {d + 3} days ago"
            for n in range(2, 12)
            for d in range(5, 65)
        ],
        dtype=object,
    )
    shelf = np.array([f"P{i}" for i in range(products)], dtype=object)
    for start in range(0, customers, block):
        ids = np.array([f"C{i}" for i in range(start, min(start + block, customers))], dtype=object)
        first = rng.integers(0, products - depth, len(ids))
        yield pd.DataFrame(
            {
                "customer_id": ids.repeat(depth),
                "product_id": shelf[(first[:, None] + np.arange(depth)).ravel()],
                "score": np.tile(np.linspace(0.9, 0.1, depth), len(ids)),
                "rank": np.tile(np.arange(1, depth + 1), len(ids)),
                "method": "hybrid",
                "reason": reasons[rng.integers(0, len(reasons), len(ids) * depth)],
            }
        )


def make_bundle(serving: Path, customers: int, products: int, depth: int = 50) -> None:
    """An invented bundle of the given size."""
    ids = [f"C{i}" for i in range(customers)]
    shelf = [f"P{i}" for i in range(products)]
    masked = [f"M{i}" for i in range(products // 100)]  # sensitive: in the mask, and in no list
    score = np.arange(customers) % 5 + 1
    similar = pd.DataFrame(
        {
            "product_id": np.repeat(shelf, 10),
            "similar_id": np.roll(np.repeat(shelf, 10), 10),
            "score": np.tile(np.linspace(0.9, 0.5, 10), products),
            "rank": np.tile(np.arange(1, 11), products),
        }
    )
    write_bundle(
        serving / "v1",
        {name: invented(customers, products, depth) for name in ("any", "discovery")},
        pd.DataFrame(
            {
                "product_id": shelf[:200],
                "score": np.linspace(1, 0.1, 200),
                "method": "popular",
                "reason": "popular now",
            }
        ),
        pd.DataFrame(
            {"customer_id": np.repeat(ids, 5), "product_id": np.tile(shelf[:5], customers)}
        ),
        pd.DataFrame(
            {
                "customer_id": ids,
                "segment": "Champions",
                "r_score": score,
                "f_score": score,
                "m_score": score,
                "rfm_score": "555",
                "action": "say thank you",
                "value": 10.0,
            }
        ),
        pd.DataFrame(
            {
                "product_id": shelf + masked,
                "category": [f"category {i % 40}" for i in range(products + len(masked))],
            }
        ),
        similar,
        [{"segment": "Champions"}],
        {"last_date": "2025-12-31"},
        "v1",
        depth,
        masked,
    )
    activate(serving, "v1")


def start(kind: str, serving: Path) -> tuple[subprocess.Popen, int]:
    """A server process and its port, ready to answer."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, kind, str(port), str(serving)], stdout=subprocess.DEVNULL
    )
    for _ in range(600):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.sendall(b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n")
                s.recv(100)
            return process, port
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The server did not start.")


def message(path: str, body: dict | None) -> bytes:
    """A request as bytes."""
    data = json.dumps(body).encode() if body else b""
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\n" + (
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if body else ""
    )
    return head.encode() + b"\r\n" + data


def one(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and read the whole answer."""
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += (part := connection.recv(65536))
        if not part:
            raise SystemExit("The server closed the connection.")
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(
        next(
            line.split(b":")[1]
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
    )
    while len(body) < length:
        body += connection.recv(65536)
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"Unexpected answer: {data[:300]!r}")
    return body


def cpu(pid: int) -> float:
    """Processor seconds of all threads of a process so far; by the nanosecond, where the clock's
    ticks of 10 ms would be a twentieth of a round.
    """
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e9


async def steady(
    port: int, messages: list[bytes], rate: int, seconds: float, links: int = 16
) -> tuple[float, float, float, int]:
    """A steady load over a few connections: p50, p99 and the longest in milliseconds, from the
    moment a request was due, and how many.
    """
    due = asyncio.Queue()
    waits = []

    async def link() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (item := await due.get()) is not None:
            moment, message = item
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"Unexpected answer: {head[:300]!r}")
            await reader.readexactly(
                int(
                    next(
                        line.split(b":")[1]
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    )
                )
            )
            waits.append(time.perf_counter() - moment)
        writer.close()

    tasks = [asyncio.create_task(link()) for _ in range(links)]
    began = time.perf_counter()
    for i in range(int(rate * seconds)):
        moment = began + i / rate
        await asyncio.sleep(max(0, moment - time.perf_counter()))
        due.put_nowait((moment, messages[i % len(messages)]))
    for _ in tasks:
        due.put_nowait(None)
    await asyncio.gather(*tasks)
    return (
        1e3 * float(np.quantile(waits, 0.5)),
        1e3 * float(np.quantile(waits, 0.99)),
        1e3 * max(waits),
        len(waits),
    )


def memory(pid: int) -> str:
    """What a process holds: resident, its share, its own."""
    lines = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )

    def kib(name):
        return int(lines[name].split()[0])

    return (
        f"{kib('Rss') / 1024:.0f} MiB resident, {kib('Pss') / 1024:.0f} MiB share, "
        f"{(kib('Private_Clean') + kib('Private_Dirty')) / 1024:.0f} MiB its own"
    )


def start_up(serving: Path, messages: list[bytes], workers: int) -> None:
    """Start the command as a user does; say how long until it is ready, and what its workers hold
    after some requests.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("retail-ci")),
            "serve",
            "--bundle",
            str(serving),
            "--port",
            str(port),
            "--workers",
            str(workers),
        ],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"RETAIL_CI_LOG": "off"},
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready").read()
                break
            except OSError:
                time.sleep(0.01)
            if process.poll() is not None:
                raise SystemExit("The service ended before it answered.")
        print(
            f"`retail-ci serve --workers {workers}` ready after {time.perf_counter() - began:.2f} "
            "s",
            flush=True,
        )
        asyncio.run(steady(port, messages, 200, 5))
        children = (
            Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if workers > 1
            else [str(process.pid)]
        )
        for child in children:
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                print(f"  a worker: {memory(int(child))}")
    finally:
        process.terminate()
        process.wait()


def measure(
    customers: int, products: int, depth: int, rounds: int, requests: int, rate: int
) -> dict[str, dict[str, float]]:
    """What `summary` says of each endpoint."""
    serving = Path(tempfile.mkdtemp())
    began = time.perf_counter()
    make_bundle(serving, customers, products, depth)
    size = sum(f.stat().st_size for f in (serving / "v1").iterdir())
    print(
        f"bundle: {customers:,} customers x {products:,} products, lists of {depth}, "
        f"{size / 2**20:,.0f} MiB, written and promoted in {time.perf_counter() - began:.0f} s",
        flush=True,
    )
    for name, quick in (("every byte", False), ("as noted at the promotion", True)):
        began = time.perf_counter()
        Bundle(serving / "v1", quick)
        print(f"  opened, {name}: {time.perf_counter() - began:.2f} s", flush=True)
    (bare, bare_port), (service, port) = start("bare", serving), start("service", serving)
    ask = [
        {
            "customer_id": f"C{i * 7919 % customers}",
            "last_purchased_product": f"P{i % products}",
            "n_recommendations": 10,
        }
        for i in range(200)
    ]
    plain = [{"customer_id": a["customer_id"], "n_recommendations": 10} for a in ask]
    cases = {
        "bare no-op": (bare, bare_port, [message("/noop", a) for a in ask]),
        "no-op": (service, port, [message("/noop", a) for a in ask]),
        "/recommend": (service, port, [message("/recommend", a) for a in plain]),
        "/recommend, last purchase": (service, port, [message("/recommend", a) for a in ask]),
        "GET no-op": (service, port, [message("/health/live", None)]),
        "/segments": (service, port, [message(f"/segments/{a['customer_id']}", None) for a in ask]),
    }
    used = {name: [] for name in cases}
    waits = {name: [] for name in cases}
    try:
        links = {
            name: socket.create_connection(("127.0.0.1", p)) for name, (_, p, _) in cases.items()
        }
        for link in links.values():
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        turns = requests // TURN
        for turn in range((rounds + 1) * turns):
            for name, (process, _, messages) in cases.items():
                before = cpu(process.pid)
                for i in range(TURN):
                    began = time.perf_counter()
                    one(links[name], messages[(turn * TURN + i) % len(messages)])
                    if turn >= turns:
                        waits[name].append(time.perf_counter() - began)
                if turn >= turns:
                    used[name].append((cpu(process.pid) - before) / TURN)
        print(f"a worker after the run: {memory(service.pid)}")
        for name in ("no-op", "/recommend", "/recommend, last purchase"):
            p50, p99, longest, count = asyncio.run(steady(port, cases[name][2], rate, 10))
            print(
                f"{name:<28}{rate} requests a second: p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest "
                f"{longest:.1f} ms, of {count:,}",
                flush=True,
            )
        for process in (bare, service):
            process.terminate()
            process.wait()
        for workers in (1, 2):
            start_up(serving, cases["/recommend"][2], workers)
    finally:
        for process in (bare, service):
            process.terminate()
            process.wait()
        shutil.rmtree(serving)
    return summary(used, waits)


TURN = 100  # requests of an endpoint before the next has its turn


def summary(used: dict[str, list[float]], waits: dict[str, list[float]]) -> dict:
    """Of each endpoint: microseconds of CPU per request (median of turns), the median ratio to the
    service's no-op and to the bare one in the same turn, p50 and p99 in milliseconds.
    """
    found = {}
    for name, mine in used.items():
        rival = "GET no-op" if name in ("/segments", "GET no-op") else "no-op"
        ratios = [[a / b for a, b in zip(mine, used[other])] for other in (rival, "bare no-op")]
        found[name] = {
            "cpu_us": round(1e6 * statistics.median(mine), 1),
            "to_noop": round(statistics.median(ratios[0]), 3),
            "to_bare": round(statistics.median(ratios[1]), 3),
            "p50_ms": round(1e3 * float(np.quantile(waits[name], 0.5)), 3),
            "p99_ms": round(1e3 * float(np.quantile(waits[name], 0.99)), 3),
        }
    return found


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, default=2467)
    parser.add_argument("--products", type=int, default=67_801)
    parser.add_argument("--depth", type=int, default=50, help="length of the stored lists")
    parser.add_argument(
        "--rate", type=int, default=500, help="requests a second of the steady load"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=1000, help="per endpoint and round")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results/api.json"))
    options = parser.parse_args()
    asked = {k: v for k, v in vars(options).items() if k != "out"}
    load = os.getloadavg()[0]
    result = measure(**asked)
    print(
        f"{'endpoint':<28}{'CPU, µs':>10}{'to no-op':>10}{'to bare':>10}"
        f"{'p50, ms':>10}{'p99, ms':>10}"
    )
    for name, found in result.items():
        print(
            f"{name:<28}{found['cpu_us']:>10.0f}{found['to_noop']:>10.2f}"
            f"{found['to_bare']:>10.2f}{found['p50_ms']:>10.2f}{found['p99_ms']:>10.2f}"
        )
    machine = {"cores": os.cpu_count(), "cpu": processor(), "load_before": round(load, 2)}
    versions = {name: metadata.version(name) for name in ("fastapi", "uvicorn", "pydantic")}
    versions["python"] = platform.python_version()
    text = {**asked, "machine": machine, "versions": versions, "endpoints": result}
    Path(options.out).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """What the processor is called."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


if __name__ == "__main__":
    main()
