"""CPU per request of the API on one uvicorn worker, against no-op endpoints.

Three endpoints are asked in turn, in one run, over one kept-alive connection each; the processor time is the server's own (user and system):

- bare: FastAPI alone, one POST route that validates the same request and answers `{}`;
- no-op: the same route inside the service, behind its door (id, key check, body limit, counts, log);
- /recommend: 10 items with reasons, from a bundle of invented lists; and /segments/{id}.

Run it with `make bench`, or `python benchmarks/api.py --customers 1000000` for a large bundle. Latencies under load (p50, p99) stand beside the ratios.
"""
import argparse, json, os, shutil, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np
import pandas as pd
from retail_ci.bundle import activate, write_bundle

SERVER = """
import sys, uvicorn
from pathlib import Path
from fastapi import Request
from retail_ci.api import RecommendRequest, Settings, make_app
kind, port, serving = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
if kind == "bare":
    from fastapi import FastAPI
    app = FastAPI()
else: app = make_app(Settings(serving))
@app.post("/noop")
async def noop(body: RecommendRequest, request: Request) -> dict: return {}
uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, loop="uvloop", http="httptools")
"""

def invented(customers: int, products: int, depth: int, block: int = 10_000):
    "Long tables of random lists, a block of customers at a time."
    rng = np.random.default_rng(0)
    reasons = np.array([f"bought {n} times, usually every {d} days, last {d + 3} days ago" for n in range(2, 12) for d in range(5, 65)], dtype=object)
    for start in range(0, customers, block):
        ids = np.arange(start, min(start + block, customers))
        first = rng.integers(0, products - depth, len(ids))
        yield pd.DataFrame({"customer_id": np.char.add("C", ids.astype(str)).repeat(depth), "product_id": np.char.add("P", (first[:, None] + np.arange(depth)).ravel().astype(str)),
                            "score": np.tile(np.linspace(.9, .1, depth), len(ids)), "rank": np.tile(np.arange(1, depth + 1), len(ids)), "method": "hybrid",
                            "reason": reasons[rng.integers(0, len(reasons), len(ids) * depth)]})

def make_bundle(serving: Path, customers: int, products: int, depth: int = 50) -> None:
    "An invented bundle of the given size."
    ids, shelf = [f"C{i}" for i in range(customers)], [f"P{i}" for i in range(products)]
    score = np.arange(customers) % 5 + 1
    similar = pd.DataFrame({"product_id": np.repeat(shelf, 10), "similar_id": np.roll(np.repeat(shelf, 10), 10), "score": np.tile(np.linspace(.9, .5, 10), products), "rank": np.tile(np.arange(1, 11), products)})
    write_bundle(serving / "v1", {name: invented(customers, products, depth) for name in ("any", "discovery")},
                 pd.DataFrame({"product_id": shelf[:200], "score": np.linspace(1, .1, 200), "method": "popular", "reason": "popular now"}),
                 pd.DataFrame({"customer_id": np.repeat(ids, 5), "product_id": np.tile(shelf[:5], customers)}),
                 pd.DataFrame({"customer_id": ids, "segment": "Champions", "r_score": score, "f_score": score, "m_score": score, "rfm_score": "555", "action": "say thank you", "value": 10.0}),
                 pd.DataFrame({"product_id": shelf, "category": [f"category {i % 40}" for i in range(products)]}), similar, [{"segment": "Champions"}], {"last_date": "2025-12-31"}, "v1", depth)
    activate(serving, "v1")

def start(kind: str, serving: Path) -> tuple[subprocess.Popen, int]:
    "A server process and its port, ready to answer."
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVER, kind, str(port), str(serving)], stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s: s.sendall(b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n"); s.recv(100)
            return process, port
        except OSError: time.sleep(.1)
    raise SystemExit("The server did not start.")

def message(path: str, body: dict | None) -> bytes:
    "A request as bytes."
    data = json.dumps(body).encode() if body else b""
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\n" + (f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if body else "")
    return head.encode() + b"\r\n" + data

def one(connection: socket.socket, request: bytes) -> bytes:
    "Send a request and read the whole answer."
    connection.sendall(request)
    data = connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")))
    while len(body) < length: body += connection.recv(65536)
    if not head.startswith(b"HTTP/1.1 200"): raise SystemExit(f"Unexpected answer: {data[:300]!r}")
    return body

def cpu(pid: int) -> float:
    "Processor seconds of a process so far."
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

def measure(customers: int, products: int, rounds: int, requests: int) -> dict[str, tuple[float, float, float]]:
    "Microseconds of CPU per request (median of rounds), p50 and p99 in milliseconds, per endpoint."
    serving = Path(tempfile.mkdtemp())
    began = time.perf_counter()
    make_bundle(serving, customers, products)
    print(f"bundle: {customers:,} customers x {products:,} products, {sum(f.stat().st_size for f in (serving / 'v1').iterdir()) / 2**20:,.0f} MiB, written in {time.perf_counter() - began:.0f} s", flush=True)
    (bare, bare_port), (service, port) = start("bare", serving), start("service", serving)
    ask = [{"customer_id": f"C{i * 7919 % customers}", "last_purchased_product": f"P{i % products}", "n_recommendations": 10} for i in range(200)]
    plain = [{"customer_id": a["customer_id"], "n_recommendations": 10} for a in ask]
    cases = {"bare no-op": (bare, bare_port, [message("/noop", a) for a in ask]), "no-op": (service, port, [message("/noop", a) for a in ask]),
             "/recommend": (service, port, [message("/recommend", a) for a in plain]), "/recommend, last purchase": (service, port, [message("/recommend", a) for a in ask]),
             "GET no-op": (service, port, [message("/health/live", None)]), "/segments": (service, port, [message(f"/segments/{a['customer_id']}", None) for a in ask])}
    used, waits = {name: [] for name in cases}, {name: [] for name in cases}
    try:
        links = {name: socket.create_connection(("127.0.0.1", p)) for name, (_, p, _) in cases.items()}
        for link in links.values(): link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for turn in range(rounds + 1):
            for name, (process, _, messages) in cases.items():
                before = cpu(process.pid)
                for i in range(requests):
                    began = time.perf_counter()
                    one(links[name], messages[i % len(messages)])
                    if turn: waits[name].append(time.perf_counter() - began)
                if turn: used[name].append((cpu(process.pid) - before) / requests)
        memory = int(next(line.split()[1] for line in Path(f"/proc/{service.pid}/status").read_text().splitlines() if line.startswith("VmRSS")))
        print(f"memory of the worker after the run: {memory / 1024:.0f} MiB resident")
    finally:
        for process in (bare, service): process.terminate(); process.wait()
        shutil.rmtree(serving)
    return {name: (1e6 * statistics.median(used[name]), 1e3 * float(np.quantile(waits[name], .5)), 1e3 * float(np.quantile(waits[name], .99))) for name in cases}

def main() -> None:
    "Measure, and print the ratios."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=2467)
    parser.add_argument("--products", type=int, default=67_801)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=1000, help="per endpoint and round")
    options = parser.parse_args()
    result = measure(options.customers, options.products, options.rounds, options.requests)
    print(f"{'endpoint':<28}{'CPU, µs':>10}{'to no-op':>10}{'to bare':>10}{'p50, ms':>10}{'p99, ms':>10}")
    for name, (used, p50, p99) in result.items():
        rival = result["GET no-op" if name in ("/segments", "GET no-op") else "no-op"][0]
        print(f"{name:<28}{used:>10.0f}{used / rival:>10.2f}{used / result['bare no-op'][0]:>10.2f}{p50:>10.2f}{p99:>10.2f}")

if __name__ == "__main__": main()
