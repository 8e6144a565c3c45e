"""Killed at random moments: a run of the chain, a promotion, the service. Each time what was good
stays good, and the next one cleans up. CRASHES says how many kills each.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd
import pytest
from conftest import PATIENCE, Project, alive, leave_examples_out, wait_for
from small_service import free_port
from small_shop import champions, popular_list

from retail_ci.core.config import Config
from retail_ci.core.runs import Run, atomic_write, clear_staging, load, sha256
from retail_ci.pipeline.manifest import leftovers
from retail_ci.recommend.hybrid import WeightedHybrid
from retail_ci.report.site import workshop
from retail_ci.serve.bundle import (
    Bundle,
    activate,
    check_bundle,
    current_bundle,
    read_stack,
    self_test,
    write_bundle,
)

ROOT = Path(__file__).parents[1]
CRASHES = int(os.environ.get("CRASHES", "3"))
REAL = ["00c_runs", "00e_synthetic", "01_cleaning"]  # the beginning of the chain


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    new = [pid]
    while new:
        new = [p for p, parent in parents.items() if parent in new]
        found += new
    return found


def session_of(pid: int) -> set[int]:
    """The living processes of the session that a process began."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == pid and state != "Z":
                found.add(int(stat.parent.name))
    return found


def moments(rng: random.Random, seconds: float):
    """The moments at which something is killed, in seconds; they come sooner and sooner after the
    first few, so that in the end one hits, however long the work takes by then.
    """
    for turn in range(CRASHES + 30):
        yield rng.uniform(0, seconds) / 2 ** max(turn - CRASHES + 1, 0)


def kill(process: subprocess.Popen) -> None:
    """Kill a process alone, and wait until all that it had started is gone, too."""
    pids = family(process.pid)
    process.kill()
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
        pipe.close()
    wait_for(lambda: not any(alive(p) for p in pids) and not session_of(process.pid))


def whole(run: Path) -> bool:
    """Whether a run holds every file that its manifest names, with the bytes that it names."""
    return all(
        sha256(run / a["path"]) == a["sha256"] for a in load(run / "manifest.json")["artifacts"]
    )


def test_a_chain_killed_at_any_moment(tmp_path):
    """What the first notebooks do for a run, on the small config; each time with another seed, so
    that no two runs have the same bytes.
    """
    project = Project(tmp_path / "project")
    rng = random.Random(1)
    for folder in ("nbs", "configs"):
        (project.root / folder).mkdir(parents=True)
    for name in REAL:
        shutil.copy(ROOT / "nbs" / f"{name}.ipynb", project.root / "nbs")
        leave_examples_out(project.root / f"nbs/{name}.ipynb")
    shutil.copy(ROOT / "configs/small.yaml", project.root / "configs")
    words = (
        "run",
        "--config",
        "small",
        "--set",
        "synthetic.lines=800",
        "--set",
        "synthetic.customers=120",
        "--set",
        "mlflow.enabled=false",
        "--set",
    )
    before = set(Path("/tmp").glob("rci-*"))
    began = time.monotonic()
    first = project.call(*words, "seed=1000")
    assert first.returncode == 0, first.stderr
    seconds = time.monotonic() - began
    good = project.current("small")
    home = project.home("small")
    hit = 0
    for turn, moment in enumerate(moments(rng, 1.1 * seconds)):
        if turn >= CRASHES and hit:
            break
        process = project.start(*words, f"seed={turn}")
        if turn % 3 == 2:  # the moment in which a run becomes current is short, so it is aimed at
            with contextlib.suppress(AssertionError):
                wait_for(
                    lambda: (
                        process.poll() is not None or list(home.glob(".*.partial/manifest.json"))
                    ),
                    10 * seconds,
                )
            time.sleep(rng.uniform(0, 0.02))
        else:
            time.sleep(moment)
        hit += process.poll() is None
        kill(process)
        now = project.current("small")
        assert now == good or now > good, (
            "the current run is the last good one, or the one that had just finished"
        )
        assert whole(home / now) and len(list(home.glob(".*.partial"))) <= 1, (
            "of all that was killed, only the last has left anything"
        )
        good = now
    last = project.call(*words, "seed=2000")
    assert (
        last.returncode == 0 and project.current("small") > good and whole(home / "current") and hit
    )
    assert leftovers(home) == [] and project.leftovers("small") == []
    mine = [
        p
        for p in set(Path("/tmp").glob("rci-*")) - before
        if project.root.as_posix()
        in "".join(f.read_text(errors="ignore") for f in p.glob("*.json"))
    ]
    assert mine == [], "no sockets are left in the folder for temporary files"


PROMOTE = """
import sys
from pathlib import Path
from retail_ci.core.config import Config; from retail_ci.core.runs import Run
from retail_ci.serve.promotion import promote
print("ready", flush=True)
sys.stdin.readline()
run = Run(Config(name="shop"), Path(sys.argv[1]))
yes, version, checks = promote(run, Path(sys.argv[2]), force="a trial")
print(version, flush=True)
"""


def small_run(folder: Path, seed: int) -> Run:
    """What a promotion reads of a run."""
    rng = np.random.default_rng(seed)
    run = Run(Config(name="shop"), folder)
    log = pd.DataFrame(
        {
            "customer_id": [f"C{i:03d}" for i in rng.integers(0, 250, 2500)],
            "product_id": [f"P{i:02d}" for i in rng.integers(0, 40, 2500)],
            "quantity": 1.0,
            "date": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 200, 2500), "D"),
        }
    )
    shelf = pd.DataFrame(
        {
            "product_id": [f"P{i:02d}" for i in range(40)],
            "category": ["care", "food"] * 20,
            "price": np.linspace(1, 40, 40),
        }
    )
    who = sorted(log.customer_id.unique())
    run.write("recommender", WeightedHybrid().fit(log, shelf).to_arrays())
    run.write("products", shelf)
    run.write(
        "segments",
        champions(who),
    )
    run.write(
        "data_metrics",
        {
            "rows_in": 2500,
            "kept": 2500,
            "rejected": 0,
            "collapsed": 0,
            "first_date": "2025-01-01",
            "last_date": "2025-07-19",
            "customers": len(who),
            "products": 40,
            "baskets": 2500,
            "by_reason": {},
        },
    )
    run.write("segment_metrics", {"profiles": [], "stability": {"value": 0.9}})
    run.write("ranking_metrics", {"production": "weighted"})
    return run


def test_a_promotion_killed_at_any_moment(tmp_path):
    serving = tmp_path / "serving"
    rng = random.Random(2)

    def start(seed: int) -> subprocess.Popen:
        run = small_run(tmp_path / f"run{seed}", seed)
        process = subprocess.Popen(
            [sys.executable, "-c", PROMOTE, str(run.path), str(serving)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        return process

    began = time.monotonic()
    process = start(1000)
    began = time.monotonic()
    good = process.communicate()[0].strip()
    seconds = time.monotonic() - began
    assert current_bundle(serving).name == good and process.returncode == 0
    hit = 0
    changed = 0
    for turn, moment in enumerate(moments(rng, seconds)):
        if turn >= CRASHES and hit:
            break
        process = start(turn)
        time.sleep(moment)
        hit += process.poll() is None
        kill(process)
        now = current_bundle(serving).name
        changed = changed + (now != good)
        good = now
        self_test(Bundle(serving / now))
        for bundle in serving.iterdir():
            if bundle.is_dir() and not bundle.is_symlink() and not bundle.name.startswith("."):
                check_bundle(bundle)
        assert read_stack(serving)[-1] == now and len(list(serving.glob(".m*.part"))) <= 1
        assert all(json.loads(line) for line in (serving / "log.jsonl").read_text().splitlines())
    process = start(2000)
    version = process.communicate()[0].strip()
    assert process.returncode == 0 and current_bundle(serving).name == version and hit
    assert not list(serving.glob(".*.part")) and not (serving / "pending.json").exists()
    assert (
        len([p for p in serving.iterdir() if (p / "manifest.json").exists() and not p.is_symlink()])
        <= 6
    ), "old bundles do not pile up"


def lists(mark: str) -> dict:
    """A bundle in which every reason names the bundle."""
    ids = [f"C{i:03d}" for i in range(500)]
    shelf = [f"P{i:02d}" for i in range(40)]
    table = pd.DataFrame(
        {
            "customer_id": np.repeat(ids, 10),
            "product_id": shelf[:10] * 500,
            "score": np.tile(np.linspace(0.9, 0.1, 10), 500),
            "rank": np.tile(range(1, 11), 500),
            "method": "hybrid",
            "reason": mark,
        }
    )
    return dict(
        lists={"any": [table], "discovery": [table]},
        popular=popular_list(shelf, mark),
        bought=pd.DataFrame({"customer_id": ids, "product_id": "P39"}),
        segments=champions(ids),
        products=pd.DataFrame({"product_id": shelf}),
        similar=None,
        profiles=[],
        card={"last_date": "2025-12-31"},
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_killed_at_any_moment(tmp_path, workers):
    """While requests come in and bundles change; the killed service leaves no process behind, and
    the next one answers from a whole bundle.
    """
    serving = tmp_path / "serving"
    rng = random.Random(3 + workers)
    for mark in ("v1", "v2"):
        write_bundle(serving / mark, **lists(mark), version=mark, depth=10)
    activate(serving, "v1")
    port = free_port()

    def start() -> subprocess.Popen:
        return subprocess.Popen(
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
            start_new_session=True,
            env=os.environ | {"RETAIL_CI_LOG": "off", "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def answer() -> dict | None:
        with contextlib.suppress(httpx2.TransportError):
            got = httpx2.post(
                f"http://127.0.0.1:{port}/recommend", json={"customer_id": "C007"}, timeout=PATIENCE
            )
            return got.json() if got.status_code == 200 else None

    def check(got: dict) -> None:
        assert {line["reason"] for line in got["recommendations"]} == {got["model_version"]}

    began = time.monotonic()
    process = start()
    check(wait_for(answer))
    seconds = time.monotonic() - began
    kill(process)
    stop = threading.Event()

    def change() -> None:
        while not stop.wait(0.3):
            activate(serving, random.choice(["v1", "v2"]))

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(CRASHES if workers == 1 else max(CRASHES // 4, 1)):
            process = start()
            until = time.monotonic() + rng.uniform(0, 1.5 * seconds)
            while time.monotonic() < until:
                if got := answer():
                    check(got)
                else:
                    time.sleep(0.05)
            kill(process)
            check_bundle(current_bundle(serving))
    finally:
        stop.set()
        changing.join()
    process = start()
    check(wait_for(answer))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    activate(serving, "v1")  # who writes next clears what a worker left that was still starting
    assert read_stack(serving)[-1] == current_bundle(serving).name and not list(
        serving.glob(".*.part")
    )
    assert not list(tmp_path.glob("retail-ci-serve-*")), (
        "the folders in which killed services had counted"
    )


MAKING = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from retail_ci.core.runs import atomic_write, process_folder, staging
from retail_ci.export.star_schema import replacing_folder
from retail_ci.report.site import workshop
home = Path(sys.argv[1])
stack = ExitStack()
stack.enter_context(staging("rci", home))
stack.enter_context(atomic_write(home / "table.parquet"))
stack.enter_context(workshop(home / "_site"))
stack.enter_context(replacing_folder(home / "powerbi", "dictionary.json"))
process_folder("rci-duckdb", home)
print("ready", flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_was_making_is_cleared_and_what_a_living_one_makes_is_not(tmp_path):
    """For each way in which the project makes something beside its place."""

    def made():
        return sorted(p.name for p in tmp_path.iterdir())

    maker = subprocess.Popen(
        [sys.executable, "-c", MAKING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout.readline() == "ready\n"
    try:
        before = made()
        assert len(before) == 5 and clear_staging(tmp_path) == [] and made() == before
    finally:
        kill(maker)
    assert made() == before, "a killed process cannot clean up"
    with atomic_write(tmp_path / "next.json") as part:
        part.write_text("{}")
        assert [p.name for p in tmp_path.iterdir()] == [part.parent.name]
    assert made() == ["next.json"]


def test_the_unfinished_sites_that_version_0_1_left_are_cleared(tmp_path):
    """It held no locks; what was touched within a day, or holds something else, stays."""

    def left(name: str, *files: str, days: float = 2) -> Path:
        folder = tmp_path / name
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("x")
        os.utime(folder, (time.time() - 86_400 * days,) * 2)
        return folder

    staged = ("_quarto.yml", "assets/house.css", "index.ipynb")
    gone = [left("_site.k3x9_a2b", *staged), left("_site.00000000", *staged)]
    stays = [
        left("_site.k3x9_a2c", *staged, days=0.5),
        left("_site.k3x9_a2d", "notes.txt"),
        left("_site.backup-1", *staged),
        left("_site.Old12345", *staged),
        left("other.k3x9_a2b", *staged),
    ]
    link = tmp_path / "_site.linked00"
    link.symlink_to(stays[-1])
    with workshop(tmp_path / "_site"):
        assert not any(p.exists() for p in gone)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in [*stays, link])


def test_a_removal_killed_in_the_middle_leaves_no_half_under_the_name(tmp_path):
    bundle = tmp_path / "m1"
    bundle.mkdir()
    (bundle / "lists.bin").touch()
    program = (
        "import os, pathlib, shutil, sys\n"
        "from retail_ci.core.runs import remove_whole\n"
        "shutil.rmtree = lambda *a, **k: os._exit(9)\n"
        "remove_whole(pathlib.Path(sys.argv[1]))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(bundle)])
    assert killed.returncode == 9 and not bundle.exists()
    assert len(clear_staging(tmp_path)) == 1 and not list(tmp_path.iterdir())
