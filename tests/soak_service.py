"""Everything at once: a steady load on two workers while nobody reads the log, the disk fills up,
two bundles are promoted, a broken one is forced, keys change and a worker is killed.

Each answer is compared with what its bundle holds. No answer may be wrong, and none may be missing
but those of the killed worker's connections. `make soak` runs a minute of it:

    python tests/soak_service.py --seconds 60 --rate 500
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from small_service import free_port, open_paths, tables

from retail_ci.serve.bundle import Bundle, activate, point_at, recommend, write_bundle

KEYS = ("till", "old", "new")
LOOK = 2.0  # seconds in which a service must have seen a change of its keys


def expected_lists(serving: Path) -> dict[tuple[str, str], list[str]]:
    """What each whole bundle says of each customer."""
    made = {}
    for version in ("v1", "v2"):
        bundle = Bundle(serving / version)
        for i in range(1, 41):
            lines = recommend(bundle, f"C{i:05d}")["recommendations"]
            made[version, f"C{i:05d}"] = [line["product_id"] for line in lines]
    return made


def make_bundles(serving: Path) -> None:
    """Two whole bundles and a broken one; the first is current."""
    for mark in ("v1", "v2", "v3"):
        write_bundle(serving / mark, **tables(mark), version=mark, depth=20)
    os.truncate(serving / "v3" / "any_items.bin", 7)
    activate(serving, "v1")


def write_key(folder: Path, key: str) -> None:
    """Let a key in."""
    (folder / key).write_text(hashlib.sha256(key.encode()).hexdigest())


def message(customer: str, key: str) -> bytes:
    """A request for a list."""
    body = json.dumps({"customer_id": customer}).encode()
    return (
        f"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def answer_to(reader: asyncio.StreamReader) -> tuple[int, dict]:
    """Status and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


@dataclass
class Load:
    """What was asked, and what came of it."""

    port: int
    expected: dict
    due: asyncio.Queue = field(default_factory=asyncio.Queue)
    waits: list[float] = field(default_factory=list)
    versions: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)  # the local port of each request without answer
    killed: set[int] = field(default_factory=set)  # the ports of the killed worker's connections

    async def link(self) -> None:
        """Send requests over one connection, and over a new one when it is gone."""
        reader = writer = None
        while (item := await self.due.get()) is not None:
            moment, customer = item
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            port = writer.get_extra_info("sockname")[1]
            try:
                writer.write(message(customer, "till"))
                status, body = await answer_to(reader)
            except (OSError, EOFError):
                self.lost.append(port)
                writer.close()
                writer = None
                continue
            self.waits.append(time.perf_counter() - moment)
            self.judge(customer, status, body)
        if writer is not None:
            writer.close()

    def judge(self, customer: str, status: int, body: dict) -> None:
        """Compare an answer with the bundle that it names."""
        version = body.get("model_version", "")
        lines = body.get("recommendations", [])
        self.versions[version] += 1
        right = self.expected.get((version, customer))
        same = right == [line["product_id"] for line in lines]
        if status != 200 or not same or {line["reason"] for line in lines} != {version}:
            self.wrong.append(f"{status} {customer} {json.dumps(body)[:200]}")

    async def run(self, rate: int, seconds: float, links: int = 32) -> None:
        """Ask at a steady rate; a request is due at its moment, however late the others are."""
        tasks = [asyncio.create_task(self.link()) for _ in range(links)]
        began = time.perf_counter()
        for i in range(int(rate * seconds)):
            moment = began + i / rate
            await asyncio.sleep(max(0, moment - time.perf_counter()))
            self.due.put_nowait((moment, f"C{i % 40 + 1:05d}"))
        for _ in tasks:
            self.due.put_nowait(None)
        await asyncio.gather(*tasks)


async def ask_once(port: int, key: str) -> int:
    """The status for one key."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(message("C00001", key))
    status, _ = await answer_to(reader)
    writer.close()
    return status


def children(pid: int) -> list[int]:
    """The workers of a service."""
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [c for c in found if b"tracker" not in Path(f"/proc/{c}/cmdline").read_bytes()]


def peers(pid: int, port: int) -> set[int]:
    """The ports of those who are connected to one worker."""
    inodes = set(re.findall(r"socket:\[(\d+)\]", "\n".join(open_paths(pid))))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [row for row in rows if row[9] in inodes and int(row[1][-4:], 16) == port]
    return {int(row[2][-4:], 16) for row in mine}


def fill_disk(pid: int, full: bool) -> None:
    """Let no file of the service grow any more, or again: what a full disk does to it."""
    most = 0 if full else resource.RLIM_INFINITY
    for process in (pid, *children(pid)):
        resource.prlimit(process, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


async def disturb(load: Load, pid: int, serving: Path, keys: Path, seconds: float) -> None:
    """All that happens meanwhile, a step at a time."""
    step = seconds / 12
    await asyncio.sleep(step)
    fill_disk(pid, full=True)
    await asyncio.sleep(step)
    await asyncio.to_thread(activate, serving, "v2")
    await asyncio.sleep(2 * step)
    point_at(serving, "v3")  # as if somebody had forced it
    await asyncio.sleep(2 * step)
    await asyncio.to_thread(activate, serving, "v1")
    await asyncio.sleep(step)
    fill_disk(pid, full=False)
    before = [await ask_once(load.port, key) for key in KEYS]
    write_key(keys, "new")
    (keys / "old").unlink()
    await asyncio.sleep(max(LOOK, step))
    after = [await ask_once(load.port, key) for key in KEYS]
    if (before, after) != ([200, 200, 401], [200, 401, 200]):
        load.wrong.append(f"keys {KEYS}: {before}, then {after}")
    worker = children(pid)[0]
    load.killed = peers(worker, load.port)
    os.kill(worker, signal.SIGKILL)


def start(serving: Path, keys: Path, port: int) -> tuple[subprocess.Popen, int]:
    """A service of two workers whose log goes into a pipe that nobody reads; the pipe's end."""
    reader, writer = os.pipe()
    tool = str(Path(sys.executable).with_name("retail-ci"))
    words = ["serve", "--bundle", str(serving), "--port", str(port), "--workers", "2"]
    settings = {"RETAIL_CI_LOG": "json", "RETAIL_CI_API_KEYS": f"@{keys}"}
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            [tool, *words], env=os.environ | settings, stdout=writer, stderr=full
        )
    os.close(writer)
    return process, reader


async def wait_until_ready(port: int) -> None:
    """Wait for the first answer, a minute at most."""
    for _ in range(600):
        with contextlib.suppress(OSError, EOFError):
            if await ask_once(port, "till") == 200:
                return
        await asyncio.sleep(0.1)
    raise SystemExit("The service did not start.")


async def soak(folder: Path, seconds: float, rate: int) -> Load:
    """Start a service, ask, disturb, and look whether it ends in good order."""
    serving, keys, port = folder / "serving", folder / "keys", free_port()
    keys.mkdir()
    make_bundles(serving)
    write_key(keys, "till")
    write_key(keys, "old")
    process, reader = start(serving, keys, port)
    try:
        await wait_until_ready(port)
        load = Load(port, expected_lists(serving))
        others = asyncio.create_task(disturb(load, process.pid, serving, keys, seconds))
        await load.run(rate, seconds)
        await others
        await wait_until_ready(port)
        process.terminate()
        ended = await asyncio.to_thread(process.wait, 30)
        if ended not in (0, -signal.SIGTERM):
            load.wrong.append(f"the service ended with {ended}")
    finally:
        process.kill()
        os.close(reader)
    return load


def report(load: Load, seconds: float, rate: int) -> list[str]:
    """What is wrong; what was measured goes to the terminal."""
    answered = len(load.waits)
    p50, p99, longest = (1000 * np.quantile(load.waits, q) for q in (0.5, 0.99, 1))
    elsewhere = [port for port in load.lost if port not in load.killed]
    print(
        f"{rate} requests a second for {seconds:g} s: {answered:,} answers "
        f"({dict(load.versions)}), {len(load.lost)} lost with the {len(load.killed)} connections "
        f"of the killed worker; p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.0f} ms from "
        "the moment at which each was due"
    )
    found = load.wrong + [f"lost on a connection of another worker: {port}" for port in elsewhere]
    if answered + len(load.lost) != int(rate * seconds):
        found.append(f"{answered} answers and {len(load.lost)} lost of {int(rate * seconds)}")
    if set(load.versions) != {"v1", "v2"}:
        found.append(f"answers of {sorted(load.versions)}, not of v1 and v2")
    if len(load.lost) > len(load.killed):
        found.append("more requests were lost than the killed worker had connections")
    return found


def main() -> None:
    """Soak, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = asyncio.run(soak(Path(folder), options.seconds, options.rate))
    if found := report(load, options.seconds, options.rate):
        sys.exit("\n".join(found[:10]))


if __name__ == "__main__":
    main()
