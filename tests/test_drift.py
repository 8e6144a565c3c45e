"""Drift and predictions from the outside: the command line, a finished run, a promoted model, and
new months of every kind.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
from conftest import Project
from small_shop import champions, popular_list

from retail_ci.core.config import Config
from retail_ci.core.runs import Run, save, sha256
from retail_ci.customers.features import rfm_features
from retail_ci.customers.segmentation import CustomerSegmentation, save_model
from retail_ci.serve.bundle import Bundle, activate, recommend, segment_of, write_bundle
from retail_ci.serve.drift import champion_run

START = pd.Timestamp("2025-01-06")


def sales(days: int = 224, seed: int = 0) -> pd.DataFrame:
    """Lines of a shop in which nothing changes: 24 products, and customers of very different
    habits.
    """
    rng = np.random.default_rng(seed)
    weights = np.geomspace(1, 30, 90)
    n = days * 14
    day = START + pd.to_timedelta(np.sort(rng.integers(0, days, n)), "D")
    who = rng.choice(90, n, p=weights / weights.sum())
    log = pd.DataFrame(
        {
            "customer_id": [f"C{i:02d}" for i in who],
            "date": day,
            "product_id": [f"P{i:02d}" for i in rng.integers(0, 24, n)],
            "quantity": 1,
            "price": (20 * rng.uniform(0.5, 1.5, n)).round(2),
        }
    )
    log.insert(0, "transaction_id", "B" + log.customer_id + log.date.dt.strftime("%y%j"))
    return log


def kept(log: pd.DataFrame) -> pd.DataFrame:
    """As notebook 01 writes lines."""
    day = log.date
    return log.assign(
        quantity=log.quantity.astype(float),
        revenue=log.price * log.quantity,
        is_return=False,
        day=day,
        month=day.dt.to_period("M").dt.to_timestamp(),
        weekday=day.dt.day_of_week + 1,
        hour=0,
        is_weekend=day.dt.day_of_week > 4,
    )


def finished(home: Path, name: str, log: pd.DataFrame, mark: str) -> Run:
    """A finished run: what drift and predict read of it."""
    run = Run(Config(name="shop"), home / name)
    lines = kept(log)
    features = rfm_features(
        ibis.memtable(lines), log.date.max() + pd.Timedelta(days=1), 365
    ).execute()
    run.write("transactions", lines)
    run.write("features", features)
    run.write(
        "data_metrics", {"rows_in": len(log), "rejected": 0, "last_date": str(log.date.max())}
    )
    save_model(CustomerSegmentation().fit(features), run.target("segmentation"))
    run.target("recommender").write_text(mark)
    save(
        {
            "artifacts": [
                {"path": "models/recommender.npz", "sha256": sha256(run.file("recommender"))}
            ]
        },
        run.path / "manifest.json",
    )
    if (home / "current").is_symlink():
        (home / "current").unlink()
    os.symlink(name, home / "current")
    return run


def promoted(run: Run, version: str) -> Bundle:
    """A bundle of a run, with lists of three, two and one products."""
    features = run.read("features")
    serving = run.path.parent / "serving"
    ids = features.customer_id.tolist()
    shelf = [f"P{i:02d}" for i in range(24)]
    lists = pd.DataFrame(
        [
            (who, shelf[(n + r) % 24], 0.9 - 0.2 * r, r + 1, "hybrid", f"bought {n} times")
            for n, who in enumerate(ids)
            for r in range(1 + n % 3)
        ],
        columns=["customer_id", "product_id", "score", "rank", "method", "reason"],
    )
    people = champions(ids)
    write_bundle(
        serving / version,
        {"any": [lists], "discovery": [lists]},
        popular_list(shelf, "popular now", best=0.8),
        pd.DataFrame({"customer_id": ids[:1], "product_id": shelf[:1]}),
        people,
        pd.DataFrame({"product_id": shelf}),
        None,
        [],
        {"name": "shop", "recommender_sha256": sha256(run.file("recommender"))},
        version,
        depth=3,
    )
    return activate(serving, version)


@dataclass
class Shop:
    """A project with a finished run of the first 196 days, and the 28 days after it."""

    project: Project
    run: Run
    month: pd.DataFrame

    def csv(self, table: pd.DataFrame) -> str:
        path = self.project.root / "month.csv"
        table.to_csv(path, index=False)
        return str(path)

    def drift(self, table: pd.DataFrame, *words: str):
        done = self.project.here("drift", self.csv(table), "--config", "shop", *words)
        file = self.project.root / "runs/shop/drift/drift.json"
        return done, json.loads(file.read_text()) if file.exists() else None


BORDER = START + pd.Timedelta(days=196)
FIRST_RUN = "20250722T000000Z-aaaa"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The shop's project, from which each test has a copy of its own."""
    root = tmp_path_factory.mktemp("made")
    log = sales()
    for folder in ("nbs", "configs", "runs/shop"):
        (root / folder).mkdir(parents=True)
    Project(root).config("data: {transactions: sales.csv}\n", "shop")
    log[log.date < BORDER].to_csv(root / "sales.csv", index=False)
    run = finished(root / "runs/shop", FIRST_RUN, log[log.date < BORDER], "first")
    promoted(run, "v1")
    return root


@pytest.fixture
def shop(made, tmp_path) -> Shop:
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    run = Run(Config(name="shop"), tmp_path / "runs/shop" / FIRST_RUN)
    log = sales()
    return Shop(Project(tmp_path), run, log[log.date >= BORDER])


def changed(facts: dict) -> set[str]:
    return {m["name"] for m in facts["measures"] if m["state"] == "drift"}


def test_a_month_like_the_others_is_calm(shop):
    done, facts = shop.drift(shop.month)
    assert done.returncode == 0 and ("No drift" in done.stdout or "Some change" in done.stdout), (
        done.stdout
    )
    assert (
        not changed(facts)
        and facts["verdict"] != "drift"
        and facts["days"] == 28
        and facts["earlier"] == 6
        and facts["notes"] == []
    )
    assert (
        sum(s["before"] for s in facts["segments"])
        == pytest.approx(1)
        == sum(s["after"] for s in facts["segments"])
    )
    page = (shop.project.root / "runs/shop/drift/drift.html").read_text()
    assert "<h1>Drift of shop, 2025-07-21 to 2025-08-17" in page and "http" not in page.replace(
        "http-equiv", ""
    )


@pytest.mark.parametrize(
    "what,change,raised",
    [
        (
            "a till that books in cents",
            lambda t: t.assign(price=t.price * 100),
            {"monetary", "basket value", "price"},
        ),
        (
            "ten thousand strangers",
            lambda t: t.assign(customer_id="N" + t.customer_id),
            {"share of new customers"},
        ),
        (
            "another catalogue",
            lambda t: t.assign(product_id="N" + t.product_id),
            {"share of new products", "catalogue turnover"},
        ),
        ("a feed of which two thirds are missing", lambda t: t.iloc[::3], {"revenue a day"}),
        (
            "a wave of returns",
            lambda t: t.assign(quantity=np.where(np.arange(len(t)) % 4, 1, -1)),
            {"share of returns"},
        ),
        (
            "cards that were not read",
            lambda t: t.assign(customer_id=t.customer_id.where(np.arange(len(t)) % 2 == 0)),
            {"share of anonymous lines"},
        ),
        (
            "lines that no rule accepts",
            lambda t: t.assign(price=t.price.where(np.arange(len(t)) % 3 > 0)),
            {"share of rejected lines"},
        ),
        (
            "open on Sundays only",
            lambda t: t.assign(
                date=t.date - pd.to_timedelta(t.date.dt.day_of_week, "D") + pd.Timedelta(days=6)
            ),
            {"weekday"},
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_shifted_month_raises_its_alarm(shop, what, change, raised):
    done, facts = shop.drift(change(shop.month))
    assert done.returncode == 5 and raised <= changed(facts), (changed(facts), done.stderr)
    assert (
        all(name in done.stderr for name in raised)
        and done.stderr.count("retail-ci:") == 1
        and facts["verdict"] == "drift"
    )


def test_segments_that_empty_are_seen(shop):
    every = pd.concat(
        [shop.month]
        + [
            shop.month.assign(
                customer_id=f"C{i:02d}", transaction_id=f"X{i}" + shop.month.transaction_id
            )
            for i in range(90)
        ]
    )
    done, facts = shop.drift(every)
    assert done.returncode == 5 and "shares of segments" in changed(facts)


@pytest.mark.parametrize(
    "what,words",
    [
        (
            "the training data again",
            "There is nothing new: .* end on 2025-07-20, and the training data on 2025-07-20",
        ),
        ("a header alone", "holds no lines|no rows|empty"),
        ("unknown columns", "column"),
        ("dates that are none", "No line of .* can be used"),
        ("no file", "does not exist"),
    ],
)
def test_a_month_that_is_none_is_one_sentence(shop, what, words):
    import re

    month = {
        "the training data again": lambda: pd.read_csv(shop.project.root / "sales.csv"),
        "a header alone": lambda: shop.month.iloc[:0],
        "unknown columns": lambda: shop.month.rename(columns=lambda c: f"x_{c}"),
        "dates that are none": lambda: shop.month.assign(date="soon"),
        "no file": lambda: None,
    }[what]()
    done = (
        shop.project.here("drift", "nothing.csv", "--config", "shop")
        if month is None
        else shop.drift(month)[0]
    )
    assert done.returncode == 3 and re.search(words, done.stderr), done.stderr
    assert (
        len([line for line in done.stderr.splitlines() if line.startswith("retail-ci:")]) == 1
        and not (shop.project.root / "runs/shop/drift").exists()
    )


def test_looking_back_needs_no_new_month(shop):
    done = shop.project.here(
        "drift", "--config", "shop", "--since", "2025-06-23", "--out", str(shop.project.root / "d")
    )
    assert (
        done.returncode == 0
        and json.loads((shop.project.root / "d/drift.json").read_text())["days"] == 28
    )
    assert shop.project.here("drift", "--config", "shop", "--since", "yesterday").returncode == 3


def test_the_month_is_held_against_the_run_of_the_model_that_answers(shop):
    home = shop.project.root / "runs/shop"
    later = finished(
        home,
        "20250819T000000Z-bbbb",
        pd.concat([pd.read_csv(shop.project.root / "sales.csv", parse_dates=["date"]), shop.month]),
        "second",
    )
    run, version, note = champion_run(Config(name="shop"), shop.project.root)
    assert (run.path, version, note) == (shop.run.path, "v1", "") and shop.drift(shop.month)[1][
        "start"
    ] == "2025-07-21"
    promoted(later, "v2")
    assert champion_run(Config(name="shop"), shop.project.root)[0].path == later.path
    (home / f"{FIRST_RUN}/manifest.json").unlink()
    activate(home / "serving", "v1")
    run, version, note = champion_run(Config(name="shop"), shop.project.root)
    assert run.path == later.path and version == "v1" and "is no longer there" in note


def test_predictions_are_what_the_service_answers(shop):
    done = shop.project.here("predict", "--config", "shop", "-k", "5")
    assert done.returncode == 0 and "90 customers, 0 of them new" in done.stdout
    folder = shop.project.root / "runs/shop/predictions"
    bundle = Bundle(shop.project.root / "runs/shop/serving/v1")
    table = pd.read_parquet(folder / "recommendations.parquet")
    for who, lines in table.groupby("customer_id"):
        answer = recommend(bundle, who, 5)["recommendations"]
        assert lines[["product_id", "score", "method", "reason"]].to_dict(
            "records"
        ) == answer and lines["rank"].tolist() == [1, 2, 3, 4, 5]
    assert (
        set(table.model_version) == {"v1"}
        and table.customer_id.nunique() == 90
        and table.known_customer.all()
    )
    segments = pd.read_parquet(folder / "segments.parquet").set_index("customer_id")
    assert all(
        segments.loc[who, "segment"] == segment_of(bundle, who)["segment"] for who in segments.index
    ) and set(segments.model_version) == {"v1"}


def test_newcomers_get_a_list_and_a_segment_of_the_same_model(shop):
    month = pd.concat(
        [
            shop.month,
            shop.month.head(50).assign(
                customer_id="new", transaction_id=[f"N{i}" for i in range(50)]
            ),
        ]
    )
    finished(
        shop.project.root / "runs/shop",
        "20250819T000000Z-bbbb",
        pd.concat([pd.read_csv(shop.project.root / "sales.csv", parse_dates=["date"]), month]),
        "second",
    )
    done = shop.project.here(
        "predict", "--config", "shop", "-k", "2", "--out", str(shop.project.root / "night")
    )
    assert done.returncode == 0 and "91 customers, 1 of them new" in done.stdout
    table, segments = (
        pd.read_parquet(shop.project.root / "night" / f"{name}.parquet")
        for name in ("recommendations", "segments")
    )
    assert table[~table.known_customer].product_id.tolist() == ["P00", "P01"] and set(
        table[~table.known_customer].customer_id
    ) == {"new"}
    one = segments[~segments.known_customer].iloc[0]
    assert (
        one.customer_id == "new"
        and one.segment in CustomerSegmentation.load(shop.run.file("segmentation")).names_
        and set(segments.model_version) == set(table.model_version) == {"v1"}
    )


def test_predictions_that_fail_leave_the_last_ones(shop, monkeypatch):
    assert shop.project.here("predict", "--config", "shop").returncode == 0
    folder = shop.project.root / "runs/shop/predictions"
    before = {p.name: sha256(p) for p in folder.iterdir()}
    import retail_ci.serve.batch_lists as lists

    def torn(*_, **__):
        yield 1, lists.one_by_one(Bundle(shop.project.root / "runs/shop/serving/v1"), ["C01"], 3)
        raise OSError(28, "No space left on device", "predictions")

    monkeypatch.setattr(lists, "served_lists", torn)
    done = shop.project.here("predict", "--config", "shop")
    assert done.returncode == 4 and "No space left on device" in done.stderr
    assert {p.name: sha256(p) for p in folder.iterdir()} == before, (
        "nothing half there, nothing left over"
    )


def test_without_a_run_or_a_model_there_is_one_sentence(shop):
    (shop.project.root / "runs/shop/serving/current").unlink()
    done = shop.project.here("predict", "--config", "shop")
    assert (
        done.returncode == 4
        and (
            "No model of 'shop' has been promoted yet; run `retail-ci models promote --config "
            "shop` first."
        )
        in done.stderr
    )
    assert (
        "No model has been promoted yet, so the last good run" in shop.drift(shop.month)[0].stdout
    )
    shop.project.config("data: {transactions: sales.csv}\n", "other")
    done = shop.project.here("drift", shop.csv(shop.month), "--config", "other")
    assert done.returncode == 4 and "There is no finished run of 'other' yet" in done.stderr
