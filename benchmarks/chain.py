"""How long the chain takes: seconds and peak memory per notebook, on the configs that are named,
with the site.

A second on one machine is not a second on another, so each total also stands as a multiple of a
baseline that is measured in the same run: a new Python that imports pandas.

    python benchmarks/chain.py [CONFIG ...]     # default and completejourney if none is named
"""

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def seconds(*command: str) -> float:
    """Wall time of a command that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(config: str, baseline: float) -> list[str]:
    """The rows of one config: a run from nothing that is kept, and the site of it."""
    tool = str(Path(sys.executable).with_name("retail-ci"))
    run = seconds(tool, "run", "--config", config)
    site = seconds(tool, "site", "--config", config)
    papers = json.loads((ROOT / "runs" / config / "current" / "manifest.json").read_text())
    rows = [
        f"| {n['name']} | {n['seconds']:.1f} | | {n['peak_mib']:.0f} |" for n in papers["notebooks"]
    ]
    peak = max(n["peak_mib"] for n in papers["notebooks"])
    return [
        f"\n{config}: {papers['counts']['rows_in']:,} lines\n",
        "| part | seconds | × baseline | peak MiB |",
        "|---|---:|---:|---:|",
        *rows,
        f"| **the chain** | {run:.1f} | {run / baseline:.1f} | {peak:.0f} |",
        f"| the site | {site:.1f} | {site / baseline:.1f} | |",
        f"| **both** | {run + site:.1f} | {(run + site) / baseline:.1f} | |",
    ]


if __name__ == "__main__":
    baseline = min(seconds(sys.executable, "-c", "import pandas") for _ in range(3))
    print(f"Baseline, a new Python that imports pandas: {baseline:.2f} s")
    for config in sys.argv[1:] or ["default", "completejourney"]:
        print("\n".join(measure(config, baseline)), flush=True)
