"""How long the chain takes: seconds, processor seconds and peak memory per notebook, on the configs
that are named, with the site.

A second on one machine is not a second on another, so each total also stands as a multiple of a
baseline that is measured in the same run: a new Python that imports pandas. Where other programs
run, processor seconds say more; the load of the machine before each run is kept with them.

    python benchmarks/chain.py [CONFIG ...]     # default and completejourney if none is named
    python benchmarks/chain.py benchmarks/million.yaml

The totals and the costliest notebooks go to benchmarks/results/chain.json, a row for each config.
"""

import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/chain.json"
COSTLIEST = 5  # notebooks of a run that are kept


def seconds(*command: str) -> float:
    """Wall time of a command that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(config: str) -> dict:
    """One config: a run from nothing that is kept, and the site of it; what is kept of both."""
    tool = str(Path(sys.executable).with_name("retail-ci"))
    load = os.getloadavg()[0]
    run = seconds(tool, "run", "--config", config)
    site = seconds(tool, "site", "--config", config)
    name = Path(config).stem
    papers = json.loads((ROOT / "runs" / name / "current" / "manifest.json").read_text())
    return facts(papers, run, site, load)


def facts(papers: dict, run: float, site: float | None, load: float) -> dict:
    """What is kept of a run, from its manifest and the seconds of the two commands."""
    books = papers["notebooks"]
    dear = sorted(books, key=lambda book: -book["cpu_seconds"])[:COSTLIEST]
    return {
        "config": papers["config"]["name"],
        "lines": papers["counts"]["rows_in"],
        "customers": papers["counts"]["customers"],
        "products": papers["counts"]["products"],
        "date": date.fromisoformat(papers["started"][:10]).isoformat(),
        "load_before": round(load, 1),
        "seconds": round(run, 1),
        "site_seconds": None if site is None else round(site, 1),
        "cpu": round(sum(book["cpu_seconds"] for book in books), 1),
        "gib": round(max(book["peak_mib"] for book in books) / 1024, 2),
        "costliest": [{k: book[k] for k in ("name", "cpu_seconds", "peak_mib")} for book in dear],
        "notebooks": books,
    }


def table(row: dict, baseline: float) -> list[str]:
    """A config's rows as text."""
    rows = [
        f"| {n['name']} | {n['seconds']:.1f} | {n['cpu_seconds']:.1f} | | {n['peak_mib']:.0f} |"
        for n in row["notebooks"]
    ]
    run, site = row["seconds"], row["site_seconds"]
    return [
        f"\n{row['config']}: {row['lines']:,} lines, {row['customers']:,} customers\n",
        "| part | seconds | of CPU | × baseline | peak MiB |",
        "|---|---:|---:|---:|---:|",
        *rows,
        f"| **the chain** | {run:.1f} | {row['cpu']:.1f} | {run / baseline:.1f} "
        f"| {row['gib'] * 1024:.0f} |",
        f"| the site | {site:.1f} | | {site / baseline:.1f} | |",
        f"| **both** | {run + site:.1f} | | {(run + site) / baseline:.1f} | |",
    ]


def keep(row: dict) -> None:
    """Write a config's row to the results, in the place of an earlier one."""
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [r for r in known if r["config"] != row["config"]]
    rows.append({key: value for key, value in row.items() if key != "notebooks"})
    rows.sort(key=lambda r: (r["lines"], r["config"]))
    RESULTS.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    baseline = min(seconds(sys.executable, "-c", "import pandas") for _ in range(3))
    print(f"Baseline, a new Python that imports pandas: {baseline:.2f} s")
    for config in sys.argv[1:] or ["default", "completejourney"]:
        measured = measure(config)
        keep(measured)
        print("\n".join(table(measured, baseline)), flush=True)
