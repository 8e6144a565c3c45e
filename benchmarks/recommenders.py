"""Recommenders from outside and our own on one split, side by side: quality, seconds of CPU, peak
memory.

Every model runs in a process of its own, on one thread, on the same interactions and with the
protocol of nbs/05_evaluation: learn up to the last timestamp minus 30 x 24 hours, ten products per
customer, judged on what came after; a list that ends early is filled with what is popular.
Parameters of the models from outside are chosen from a small grid on the 30 days before the test
window, for each task apart; the time of this search is not counted. Needs a finished run (its
cleaned tables) and the package `implicit`.

    python benchmarks/recommenders.py [--run runs/completejourney/current]
        [--models bm25,tifu,...] [--out FILE.md]
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import pandas as pd
import scipy.sparse as sp

from retail_ci.core.config import load_config
from retail_ci.evaluate.offline import (
    TASKS,
    contestants,
    measure,
    normalise_log,
    products_before,
    relevant_products,
)
from retail_ci.recommend.base import Recommender, fill_up
from retail_ci.recommend.baselines import RandomRecommender, hold_back
from retail_ci.recommend.interactions import assemble, interactions, split_at, time_cut
from retail_ci.recommend.metrics import METRICS, intervals

K = 10


class Implicit(Recommender):
    """A model of the package `implicit`, on products with a minimum number of buyers."""

    def __init__(self, make, support: int = 1, **parameters):
        self.make = make
        self.support = support
        self.parameters = parameters

    def _learn(self, products):
        self.columns_ = np.flatnonzero(self.data_.buyers >= self.support)
        self.items_ = sp.csr_matrix(self.data_.counts[:, self.columns_], dtype=np.float64)
        self.model_ = self.make(**self.parameters)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # BM25 and TF-IDF convert a matrix of their own making, and warn about it
            self.model_.fit(
                self.items_.astype(np.float32) if hasattr(self.model_, "factors") else self.items_,
                show_progress=False,
            )

    def rank(self, rows, k=K, exclude_purchased=(False,), **options):
        out = []
        data = self.data_
        for exclude in exclude_purchased:
            found, scores = self.model_.recommend(
                rows, self.items_[rows], N=k, filter_already_liked_items=exclude
            )
            good = (found >= 0) & np.isfinite(scores) & (scores > 0)
            best = np.full((len(rows), k), -1, np.int32)
            values = np.zeros((len(rows), k), np.float32)
            order = np.argsort(~good, axis=1, kind="stable")  # what was found first, gaps last
            good, found, scores = (np.take_along_axis(x, order, 1) for x in (good, found, scores))
            best[good], values[good] = self.columns_[found[good]], scores[good]
            out.append(
                (
                    best,
                    values,
                    fill_up(
                        best,
                        values,
                        data.popular,
                        data.recent / max(data.recent.max(), 1),
                        data.counts[rows] if exclude else None,
                    ),
                )
            )
        return out


def nearest(kind: str, **fixed):
    """An item-item model of implicit."""

    def make(K=20, **more):
        from implicit import nearest_neighbours as n

        return getattr(n, kind)(K=K, num_threads=1, **more, **fixed)

    return make


def als(**parameters):
    from implicit.als import AlternatingLeastSquares

    return AlternatingLeastSquares(num_threads=1, random_state=42, **parameters)


class Tifu(Recommender):
    """TIFU-KNN (Hu, He, Gao, Zhang: Modeling personalized item frequency information for
    next-basket recommendation, SIGIR 2020).

    A basket is a 0/1 vector. Baskets stand in groups of `size`, counted from the last one. Within a
    group a basket that is j older counts `within` ** j, and a group that is i older counts
    `between` ** i; both levels are averaged. The answer is alpha x the customer's vector +
    (1 - alpha) x the mean of the nearest vectors (Euclidean).
    """

    def __init__(
        self,
        size: int = 7,
        within: float = 0.9,
        between: float = 0.7,
        neighbours: int = 300,
        alpha: float = 0.7,
    ):
        self.size = size
        self.within = within
        self.between = between
        self.neighbours = neighbours
        self.alpha = alpha

    def _learn(self, products):
        data = self.data_
        known = self.data_.rows >= 0
        rows = data.rows[known].astype(np.int64)
        columns = data.columns[known]
        age = data.age[known]
        order = np.lexsort((age, rows))  # each customer's baskets, the last first
        start = np.r_[True, (np.diff(rows[order]) != 0)]
        basket = (
            np.cumsum(np.r_[True, (np.diff(age[order]) != 0) | (np.diff(rows[order]) != 0)]) - 1
        )
        place = np.empty(len(rows), np.int64)
        place[order] = basket - np.maximum.accumulate(np.where(start, basket, 0))
        baskets = np.zeros(len(data.customer_ids), np.int64)
        np.maximum.at(baskets, rows, place + 1)
        groups = -(-baskets // self.size)
        group = place // self.size
        within = place % self.size
        members = np.minimum(
            self.size, baskets[rows] - group * self.size
        )  # the oldest group may be smaller
        weight = self.within**within * self.between**group / (members * np.maximum(groups[rows], 1))
        self.vectors_ = sp.csr_matrix((weight, (rows, columns)), shape=data.counts.shape).astype(
            np.float32
        )
        self.vectors_.sum_duplicates()

    def _scores(self, rows):
        lengths = np.asarray(self.vectors_.multiply(self.vectors_).sum(1)).ravel()
        distance = (
            lengths[rows][:, None]
            + lengths[None]
            - 2 * (self.vectors_[rows] @ self.vectors_.T).toarray()
        )
        distance[np.arange(len(rows)), rows] = np.inf
        n = min(self.neighbours, distance.shape[1] - 1)
        near = np.argpartition(distance, n - 1, axis=1)[:, :n]
        mean = sp.csr_matrix(
            (np.full(near.size, 1 / n, np.float32), near.ravel(), np.arange(0, near.size + 1, n)),
            shape=distance.shape,
        )
        return (
            self.alpha * self.vectors_[rows] + (1 - self.alpha) * (mean @ self.vectors_)
        ).tocsr()


def grid(**values):
    return [dict(zip(values, v)) for v in itertools.product(*values.values())]


OUTSIDE = {  # name: how to make it, and what is tried on the validation window
    "implicit BM25": (
        lambda **p: Implicit(nearest("BM25Recommender"), **p),
        grid(support=[10], K=[5, 10, 20, 100], K1=[0.5, 1.2], B=[0.75, 1.0]),
    ),
    "implicit TF-IDF": (
        lambda **p: Implicit(nearest("TFIDFRecommender"), **p),
        grid(support=[5, 20], K=[20, 100]),
    ),
    "implicit cosine": (
        lambda **p: Implicit(nearest("CosineRecommender"), **p),
        grid(support=[5, 20], K=[20, 100]),
    ),
    "implicit ALS": (
        lambda **p: Implicit(als, **p),
        grid(support=[10], factors=[64, 128], regularization=[0.1], alpha=[1, 10], iterations=[15]),
    ),
    "TIFU-KNN": (
        Tifu,
        grid(size=[7], within=[0.9], between=[0.7, 0.9], neighbours=[100, 300], alpha=[0.7, 0.9]),
    ),
    "random": (RandomRecommender, [{}]),
}


def prepare(run: Path, folder: Path) -> dict:
    """Write the past as plain arrays, and the truth of the test window."""
    transactions = normalise_log(pd.read_parquet(run / "data/transactions.parquet"))
    products = (
        pd.read_parquet(run / "data/products.parquet")
        if (run / "data/products.parquet").exists()
        else None
    )
    cut = time_cut(transactions)
    train, test = split_at(transactions, cut)
    products = products_before(products, train)
    data = interactions(train, products)
    truth = relevant_products(data, test)
    if products is not None:
        products.to_parquet(folder / "products.parquet")
    np.savez(
        folder / "past.npz",
        customers=data.customer_ids.to_numpy(str),
        products=data.product_ids.to_numpy(str),
        rows=data.rows,
        columns=data.columns,
        age=data.age,
        end=np.datetime64(data.end),
    )
    for task, matrix in truth.items():
        sp.save_npz(folder / f"{task}.npz", matrix)
    return {
        "run": str(run),
        "cut": str(cut),
        "lines": len(train),
        "customers": len(data.customer_ids),
        "products": int((data.buyers > 0).sum()),
        "tested": {task: int((np.diff(m.indptr) > 0).sum()) for task, m in truth.items()},
    }


def load(folder: Path):
    """The past and the truth."""
    with np.load(folder / "past.npz") as a:
        data = assemble(
            pd.Index(a["customers"], dtype="str"),
            pd.Index(a["products"], dtype="str"),
            a["rows"],
            a["columns"],
            a["age"],
            pd.Timestamp(a["end"].item()),
        )
    products = (
        pd.read_parquet(folder / "products.parquet")
        if (folder / "products.parquet").exists()
        else None
    )
    return data, products, {task: sp.load_npz(folder / f"{task}.npz") for task in TASKS}


def memory(reset: bool = False) -> float:
    """The highest resident memory of this process since the last reset, in MiB."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return (
        int(
            next(
                line
                for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmHWM")
            ).split()[1]
        )
        / 1024
    )


def one(name: str, folder: Path) -> None:
    """Fit, rank and measure one model; the facts go to a file."""
    data, products, truth = load(folder)
    chosen = {task: {} for task in TASKS}
    if name in OUTSIDE:
        make, tries = OUTSIDE[name]
        past, held = hold_back(data)
        if len(tries) > 1:
            found = {task: {} for task in TASKS}
            for i, parameters in enumerate(tries):
                measure(
                    i,
                    make(**parameters).fit(past, products),
                    held,
                    K,
                    found,
                    {task: {} for task in TASKS},
                )
            chosen = {
                task: tries[max(found[task], key=lambda i: found[task][i]["ndcg"].mean())]
                for task in TASKS
            }
        del past, held
    rows = np.flatnonzero(np.diff(truth["any"].indptr))
    scores = {task: {} for task in TASKS}
    facts = {"fit": 0.0, "rank": 0.0, "memory": 0.0, "chosen": chosen}
    for tasks in [TASKS] if chosen["any"] == chosen["discovery"] else [("any",), ("discovery",)]:
        model = (
            OUTSIDE[name][0](**chosen[tasks[0]])
            if name in OUTSIDE
            else contestants(load_config(os.environ["BENCH_CONFIG"]).recommender)[name]
        )
        base = memory(reset=True)
        began = time.process_time()
        model.fit(data, products)
        fitted = time.process_time()
        model.rank(rows, K, tuple(t == "discovery" for t in tasks))
        facts["fit"] = max(facts["fit"], fitted - began)
        facts["rank"] += (time.process_time() - fitted) / len(rows) / len(TASKS) * 1000
        facts["memory"] = max(facts["memory"], memory() - base)
        found = {task: {} for task in TASKS}
        measure(name, model, truth, K, found, {task: {} for task in TASKS})
        for task in tasks:
            scores[task] = found[task][name]
    facts["notes"] = list(getattr(model, "notes_", []))
    np.savez(
        folder / f"scores {name}.npz",
        facts=json.dumps(facts),
        **{f"{task} {m}": scores[task][m] for task in TASKS for m in METRICS if scores[task]},
    )


def report(names: list[str], folder: Path, about: dict) -> str:
    """The table, with paired differences."""
    scores = {}
    facts = {}
    for name in names:
        with np.load(folder / f"scores {name}.npz") as a:
            facts[name] = json.loads(str(a["facts"]))
            scores |= {(name, *key.split()): a[key] for key in a.files if key != "facts"}
    lines = [
        f"{about['lines']:,} lines, {about['customers']:,} customers and {about['products']:,} "
        f"products sold before {about['cut'][:16]}; {about['tested']['any']:,} customers tested "
        f"(any), {about['tested']['discovery']:,} (discovery). "
        f"NDCG and recall at {K} with 95% intervals of NDCG over customers; CPU on one thread; "
        "memory above the loaded interactions.",
        "",
        "| model | any NDCG | any recall | discovery NDCG | discovery recall | fit, s CPU | rank, "
        "ms CPU per list | peak MiB |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    found = {
        task: intervals({key: v for key, v in scores.items() if key[1] == task}) for task in TASKS
    }
    for name in sorted(names, key=lambda n: -found["any"][n, "any", "ndcg"]["value"]):
        cell = [
            f"{v['value']:.3f} ({v['low']:.3f} to {v['high']:.3f}) | "
            f"{found[task][name, task, 'recall']['value']:.3f}"
            for task in TASKS
            if (v := found[task][name, task, "ndcg"])
        ]
        lines.append(
            f"| {name} | {' | '.join(cell)} | {facts[name]['fit']:.1f} | "
            f"{facts[name]['rank']:.2f} | {facts[name]['memory']:.0f} |"
        )
    lines += ["", *differences(names, scores)]
    lines += [
        "",
        "Chosen on the validation window:",
        "",
        *(
            f"- {name}: any {f['chosen']['any']}; discovery {f['chosen']['discovery']}"
            for name, f in facts.items()
            if f["chosen"]["any"]
        ),
    ]
    return "\n".join(lines)


def differences(names: list[str], scores: dict) -> list[str]:
    """The published model minus each other one, customer by customer."""
    ours = load_config(os.environ["BENCH_CONFIG"]).recommender.production
    if ours not in names:
        return []
    lines = [
        f"NDCG of {ours} minus that of each other model, customer by customer:",
        "",
        "| model | any | discovery |",
        "|---|---|---|",
    ]
    for name in (n for n in names if n != ours):
        gaps = [
            intervals({"d": scores[ours, t, "ndcg"] - scores[name, t, "ndcg"]})["d"] for t in TASKS
        ]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{g['value']:+.3f} ({g['low']:+.3f} to {g['high']:+.3f})" for g in gaps)
            + " |"
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="runs/completejourney/current")
    parser.add_argument("--config", default="completejourney")
    parser.add_argument("--models", default="")
    parser.add_argument("--out", default="")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.setdefault("BENCH_CONFIG", asked.config)
    if asked.one:
        one(asked.one[0], Path(asked.one[1]))
        raise SystemExit
    every = [
        *OUTSIDE,
        *(m for m in contestants(load_config(asked.config).recommender) if m not in OUTSIDE),
    ]
    names = [m.strip() for m in asked.models.split(",") if m.strip()] or every
    for name in names:
        if name not in every:
            parser.error(f"unknown model {name!r}; known: {', '.join(every)}")
    with tempfile.TemporaryDirectory() as place:
        about = prepare(Path(asked.run), Path(place))
        for i, name in enumerate(names):
            print(f"[{i + 1}/{len(names)}] {name}", file=sys.stderr, flush=True)
            subprocess.run(
                [sys.executable, __file__, "--config", asked.config, "--one", name, place],
                check=True,
            )
        text = report(names, Path(place), about)
    print(text)
    if asked.out:
        Path(asked.out).write_text(
            "# Recommenders side by side\n\nMade by `python benchmarks/recommenders.py`.\n\n"
            + text
            + "\n",
            encoding="utf-8",
        )
