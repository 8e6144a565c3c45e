"""Fit and top-10 for everybody at the size of a real retailer: seconds, CPU seconds and peak
memory, each model in its own process.

The log is generated: every customer has four of 200 tastes, buys seven times in ten within them,
and now and then a best seller.

    python benchmarks/recommend_scale.py
    python benchmarks/recommend_scale.py --customers 10000 --models neighbours,ease

The first has 100,000 customers × 20,000 products × 3.4 million purchases.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd


def make_log(
    customers: int, products: int, lines: int, seed: int = 1, groups: int = 200, days: int = 365
) -> pd.DataFrame:
    """Purchases with tastes: customer_id, product_id, date, quantity."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(0, 0.8, customers)
    who = np.concatenate(
        [np.arange(customers), rng.choice(customers, lines - customers, p=size / size.sum())]
    )
    tastes = rng.integers(0, groups, (customers, 4))
    per = max(products // groups, 1)

    def zipf(n):
        return np.minimum(np.floor(n ** rng.random(lines)).astype(int) - 1, n - 1)

    own = tastes[who, rng.integers(0, 4, lines)] * per + zipf(per)
    best = rng.permutation(products)[zipf(products)]
    what = np.where(rng.random(lines) < 0.7, np.minimum(own, products - 1), best)
    day = np.sort(rng.integers(0, days, lines))

    def name(letter, count):
        return np.array([f"{letter}{i:06d}" for i in range(count)])

    return pd.DataFrame(
        {
            "customer_id": name("C", customers)[who],
            "product_id": name("P", products)[what],
            "date": pd.Timestamp("2025-01-01") + pd.to_timedelta(day, unit="D"),
            "quantity": 1.0,
        }
    )


def peak() -> float:
    """Peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(path: str, model: str) -> str:
    """One row of the table, measured in this process."""
    from retail_ci.recommend.collaborative import neighbours
    from retail_ci.recommend.hybrid import make_model
    from retail_ci.recommend.interactions import interactions

    log = pd.read_parquet(path)

    def clock():
        return (time.perf_counter(), time.process_time())

    start = clock()
    before = peak()
    if model.startswith("neighbours"):
        counts = interactions(log).counts
        del log
        start = clock()
        before = peak()
        found = neighbours(counts, 50, fast=model == "neighbours", progress=say)
        fit = clock()
        after = peak()
        lines = found.nnz
        reason = ""
        answered = fit
    else:
        fitted = make_model(model).fit(log)
        fit = clock()
        fit_peak = peak()
        lists = fitted.recommend(k=10, progress=say)
        answered = clock()
        after = peak()
        lines = len(lists)
        reason = " ".join(fitted.notes_)
    return (
        f"| {model} | {fit[0] - start[0]:.0f} | {fit[1] - start[1]:.0f} | "
        f"{answered[0] - fit[0]:.0f} | {answered[1] - fit[1]:.0f} | {answered[0] - start[0]:.0f} "
        f"| {before:.0f} | {after:.0f} | {lines:,} | {reason} |"
    )


def say(done: int, total: int) -> None:
    """Progress, where somebody watches."""
    if sys.stderr.isatty():
        print(
            f"\r\x1b[2K{done:,} of {total:,} customers",
            end="" if done < total else "\n",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--customers", type=int, default=100_000)
    options.add_argument("--products", type=int, default=20_000)
    options.add_argument("--lines", type=int, help="purchases; 34 per customer if left out")
    options.add_argument(
        "--models",
        default="neighbours,ranker,weighted",
        help=(
            "with commas between; `neighbours` is the exact user-kNN alone, `neighbours_plain` "
            "the same without sparse_dot_topn"
        ),
    )
    options.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.one:
        print(one(*asked.one))
        raise SystemExit
    lines = asked.lines or 34 * asked.customers
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        make_log(asked.customers, asked.products, lines).to_parquet(path)
        print(
            f"{asked.customers:,} customers × {asked.products:,} products × {lines:,} purchases, "
            f"{os.cpu_count()} cores\n"
        )
        print(
            "| model | fit s | fit CPU s | top-10 s | top-10 CPU s | both s | MiB before | MiB "
            "peak | lines | notes |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
            flush=True,
        )
        for model in asked.models.split(","):
            print(
                subprocess.run(
                    [sys.executable, __file__, "--one", str(path), model],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                ).stdout,
                end="",
                flush=True,
            )
