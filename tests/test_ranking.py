"""The ranking rooms against plain recomputation: metrics by loops, neighbours by dense numpy, and
the same answer for shuffled rows.
"""

import builtins
import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from small_shop import drawn_lines, shelf_of

from retail_ci.core.config import MODELS
from retail_ci.core.errors import ConfigError, DataError
from retail_ci.evaluate.offline import evaluate, ranking_facts
from retail_ci.recommend.baselines import (
    RandomRecommender,
)
from retail_ci.recommend.candidates import (
    CandidateModels,
    buyers_lately,
    discontinued,
    first_buyers_lately,
)
from retail_ci.recommend.collaborative import CollaborativeRecommender, neighbours, product_cells
from retail_ci.recommend.content import ContentRecommender
from retail_ci.recommend.hybrid import HybridRecommender, make_model
from retail_ci.recommend.interactions import blocks, interactions, time_cut, top_k
from retail_ci.recommend.metrics import (
    bootstrap_interval,
    find_hits,
    intervals,
    paired_difference,
    per_customer,
)
from retail_ci.recommend.ranker import Scorer, popular_buyers
from retail_ci.serve.promotion import gate

COLUMNS = ["customer_id", "product_id", "score", "rank", "method", "reason"]


def make_log(seed=0, customers=60, products=40, lines=1500, days=120):
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, 4, customers)
    who = rng.integers(0, customers, lines)
    what = np.where(
        rng.random(lines) < 0.7,
        taste[who] * 10 + rng.integers(0, 10, lines),
        rng.integers(0, products, lines),
    )
    log = drawn_lines(rng, who, what, days)
    return log, shelf_of(products)


def plain_metrics(recommended, relevant, k):
    """One customer, by the definitions, with loops."""
    hits = [p in relevant for p in recommended[:k]]
    gain = sum(1 / math.log2(r + 2) for r, hit in enumerate(hits) if hit)
    best = sum(1 / math.log2(r + 2) for r in range(min(k, len(relevant))))
    precisions = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
    return {
        "precision": sum(hits) / k,
        "recall": sum(hits) / len(relevant),
        "ndcg": gain / best,
        "hit_rate": float(any(hits)),
        "map": sum(precisions) / min(k, len(relevant)),
    }


@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_plain_loops(seed):
    rng = np.random.default_rng(seed)
    n = 30
    products = int(rng.integers(5, 60))
    k = int(rng.integers(1, 15))
    lists = np.full((n, k), -1)
    for i in range(n):
        found = rng.permutation(products)[: min(k, int(rng.integers(0, k + 1)))]
        lists[i, : len(found)] = found
    bought = rng.random((n, products)) < 0.2
    bought[np.arange(n), rng.integers(0, products, n)] = True
    truth = sp.csr_matrix(bought.astype(float))
    ours = per_customer(find_hits(lists, truth), np.diff(truth.indptr))
    for i in range(n):
        relevant = set(truth[i].indices.tolist())
        for name, value in plain_metrics(
            [p for p in lists[i].tolist() if p >= 0], relevant, k
        ).items():
            assert ours[name][i] == pytest.approx(value, abs=1e-12), (name, i)


def plain_backtest(model, log, table, k=10, days=30):
    """The whole protocol again, from long tables and python sets."""
    cut = log["date"].max() - pd.Timedelta(hours=24 * days)
    bought = log[(log["quantity"] > 0) & log["customer_id"].notna()]
    before = bought[bought["date"] <= cut]
    after = bought[bought["date"] > cut]
    past = before.groupby("customer_id")["product_id"].agg(set)
    future = after.groupby("customer_id")["product_id"].agg(set)
    known = log[log["date"] <= cut]
    paid = known[known["quantity"] > 0].groupby("product_id")["price"].median()
    model.fit(known, table.assign(price=table["product_id"].map(paid)))
    out = {}
    for task in ("any", "discovery"):
        relevant = {
            c: (f - past[c] if task == "discovery" else f)
            for c, f in future.items()
            if c in past.index
        }
        relevant = {c: f for c, f in relevant.items() if f}
        answer = model.recommend(list(relevant), k, exclude_purchased=task == "discovery")
        lists = answer.sort_values("rank").groupby("customer_id")["product_id"].agg(list)
        rows = pd.DataFrame([plain_metrics(lists.get(c, []), f, k) for c, f in relevant.items()])
        out[task] = rows.mean().to_dict() | {"customers": len(rows)}
    return out


@pytest.mark.parametrize("name", list(MODELS))
def test_evaluation_equals_a_plain_backtest(name, monkeypatch):
    monkeypatch.setattr("retail_ci.recommend.interactions.SMALL", 0)
    log, table = make_log()
    ours = evaluate([name], log, table, resamples=20)
    plain = plain_backtest(make_model(name), log, table)
    for task in ("any", "discovery"):
        found = ours.table[ours.table["task"] == task].set_index("metric")["value"]
        assert ours.protocol["customers"][task] == plain[task]["customers"] > 10
        for metric in ("precision", "recall", "ndcg", "hit_rate", "map"):
            assert found[metric] == pytest.approx(plain[task][metric], abs=1e-9), (task, metric)


@pytest.mark.parametrize("name", list(MODELS))
def test_shuffled_rows_change_nothing(name):
    log, table = make_log(3)
    mixed = log.sample(frac=1, random_state=5), table.sample(frac=1, random_state=6)
    a = make_model(name).fit(log, table)
    b = make_model(name).fit(*mixed)
    for exclude in (False, True):
        pd.testing.assert_frame_equal(
            a.recommend(k=12, exclude_purchased=exclude),
            b.recommend(k=12, exclude_purchased=exclude),
            check_exact=True,
        )


def test_neighbours_and_scores_equal_dense_numpy(monkeypatch):
    log, _ = make_log(7)
    data = interactions(log)
    n = 5
    counts = data.counts.toarray().astype(float)
    units = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    cosine = units @ units.T
    np.fill_diagonal(cosine, 0)
    nearest = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        best = sorted(range(len(row)), key=lambda j: (-np.float32(row[j]), j))[:n]
        nearest[i, best] = row[best]
    monkeypatch.setattr(
        "retail_ci.recommend.interactions.blocks",
        lambda rows, width, *_: blocks(rows, width, height=7),
    )
    assert np.allclose(neighbours(data.counts, n).toarray(), nearest, atol=1e-6)
    model = CollaborativeRecommender(n).fit(log)
    assert np.allclose(model._scores(np.arange(len(counts))).toarray(), nearest @ counts, atol=1e-4)


def test_blocks_do_not_change_the_answer(monkeypatch):
    log, table = make_log(8)
    makes = (HybridRecommender, HybridRecommender.weighted)
    whole = [make().fit(log, table).recommend() for make in makes]
    for module in ("base", "collaborative", "hybrid", "candidates", "ranker"):
        monkeypatch.setattr(
            f"retail_ci.recommend.{module}.blocks",
            lambda rows, width, *_, **__: blocks(rows, width, height=7),
        )
    for make, before in zip(makes, whole):
        pd.testing.assert_frame_equal(before, make().fit(log, table).recommend())


def test_the_ranker_needs_transactions_alone_and_no_order_of_lines():
    log, _ = make_log(11, lines=4000)
    bare = log[["customer_id", "product_id", "date", "quantity"]]
    model = HybridRecommender().fit(bare)
    assert len(model.notes_) == 2 and model.checks_["any"]["customers"] >= 40
    pd.testing.assert_frame_equal(
        model.recommend(), HybridRecommender().fit(bare.sample(frac=1, random_state=3)).recommend()
    )
    for exclude in (False, True):
        everyone = model.recommend(exclude_purchased=exclude)
        alone = pd.concat(
            [model.recommend([c], exclude_purchased=exclude) for c in ("C003", "C031")],
            ignore_index=True,
        )
        pd.testing.assert_frame_equal(
            alone, everyone[everyone["customer_id"].isin(["C003", "C031"])].reset_index(drop=True)
        )


def test_what_left_the_shelf_is_not_recommended():
    log, _ = make_log(12, lines=6000)
    log["product_id"] = log["product_id"].where(
        log["date"] < log["date"].max() - pd.Timedelta(days=20), "new " + log["product_id"]
    )
    lists = HybridRecommender().fit(log).evidence_
    assert lists.gone_.sum() >= 20 and not any(
        name.startswith("new") for name in lists.data_.product_ids[lists.gone_]
    )
    assert (lists.lately_[lists.gone_] == 0).all() and lists.lately_[~lists.gone_].min() > 0


def test_fading_buyers_equal_a_plain_sum():
    log, _ = make_log(14)
    data = interactions(log)
    plain = np.zeros(len(data.product_ids))
    for column in range(len(plain)):
        mine = data.columns == column
        known = (
            pd.Series(data.age[mine & (data.rows >= 0)])
            .groupby(data.rows[mine & (data.rows >= 0)])
            .min()
        )
        plain[column] = sum(
            1 / (1 + age / 14) for age in [*known, *data.age[mine & (data.rows < 0)]]
        )
    left = ~discontinued(data)
    assert left.any() and np.allclose(buyers_lately(data)[left], plain[left])
    assert (
        popular_buyers(CandidateModels().fit(log), "popular lately").tolist()
        == buyers_lately(data).tolist()
    )


def test_fading_first_time_buyers_equal_a_plain_sum():
    log, _ = make_log(14)
    data = interactions(log)
    known = data.rows >= 0
    pairs = pd.DataFrame(
        {"row": data.rows[known], "column": data.columns[known], "age": data.age[known]}
    )
    oldest = pairs.groupby(["row", "column"])["age"].max().reset_index()
    plain = (1 / (1 + oldest["age"] / 14)).groupby(oldest["column"]).sum()
    plain = plain.reindex(range(len(data.product_ids)), fill_value=0).to_numpy()
    left = ~discontinued(data)
    assert left.any() and np.allclose(first_buyers_lately(data)[left], plain[left], atol=1e-6)
    assert (first_buyers_lately(data)[~left] == 0).all()
    order = np.argsort(-first_buyers_lately(data), kind="stable")[:5]
    lists = make_model("first_buyers").fit(log).recommend(k=5)
    assert set(lists.groupby("customer_id")["product_id"].agg(tuple)) == {
        tuple(data.product_ids[order])
    }


def test_where_nothing_can_be_learned_nothing_is_published_as_the_ranker():
    """Sales by chance alone: the ranker steps aside, and the gate says why."""
    rng = np.random.default_rng(4)
    lines = 6000
    log = pd.DataFrame(
        {
            "customer_id": [f"C{i:03d}" for i in rng.integers(0, 150, lines)],
            "product_id": [f"P{i:03d}" for i in rng.integers(0, 90, lines)],
            "date": pd.Timestamp("2025-01-01")
            + pd.to_timedelta(rng.integers(0, 180 * 86400, lines), unit="s"),
        }
    )
    model = HybridRecommender().fit(log)
    assert model.checks_["discovery"]["customers"] > 100
    for task, new_only in (("any", False), ("discovery", True)):
        assert model.choice_[task] != "ranker"
        assert "ranker" not in set(model.recommend(exclude_purchased=new_only)["method"])
    facts = ranking_facts(evaluate(["ranker", "first_buyers", "random"], log, resamples=200))
    books = {"rows_in": 1, "kept": 1, "rejected": 0, "collapsed": 0}
    checks = {c.name: c for c in gate(books, facts | {"production": "ranker"}, {})}
    for task in ("any", "discovery"):
        asked = checks[f"{task}: better than chance"]
        assert not asked.passed and "set recommender.production to a plain list" in asked.found
    plain = gate(books, facts | {"production": "first_buyers"}, {})
    assert all(c.passed for c in plain if "better than chance" in c.name)


def test_without_its_system_library_the_ranker_says_what_to_install(monkeypatch):
    found = builtins.__import__

    def without(name, *args, **options):
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file")
        return found(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="apt-get install libgomp1"):
        Scorer.learn(np.zeros((3, 1)), np.array([True, False, True]), smooth=False)


def test_reasons_do_not_depend_on_what_was_ranked_before():
    log, table = make_log(15, lines=4000)
    model = HybridRecommender().fit(log, table)
    rows = np.arange(20)
    columns = np.tile(np.arange(10), (20, 1))
    before = model._reasons(rows, columns, columns)
    model.rank(np.arange(40), exclude_purchased=(False, True))
    assert before.tolist() == model._reasons(rows, columns, columns).tolist()
    near = model.evidence_.near_._scores(rows).toarray()
    assert np.allclose(
        product_cells(
            model.evidence_.near_.neighbours_[rows], model.evidence_.near_.bought_, columns
        ),
        near[:, :10],
        rtol=1e-6,
    )
    assert np.array_equal(model.evidence_.near_top_[rows], near.max(axis=1))


def test_too_little_history_is_said():
    log, _ = make_log(13, days=40)
    model = HybridRecommender().fit(log)
    assert model.choice_ == {"any": "blend", "discovery": "blend"} and all(
        "too little history" in note for note in model.notes_
    )
    assert set(model.recommend()["method"]) == {"blend"}


@pytest.mark.parametrize("small", [0, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_top_k_equals_a_sort(seed, small, monkeypatch):
    monkeypatch.setattr("retail_ci.recommend.interactions.SMALL", small)
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 4, (25, 30)).astype(float)
    banned = sp.csr_matrix(rng.random((25, 30)) < 0.3, dtype=float)
    for scores in (dense, sp.csr_matrix(dense)):
        columns, values = top_k(scores, 8, banned)
        for i in range(25):
            left = [j for j in range(30) if dense[i, j] > 0 and not banned[i, j]]
            expected = sorted(left, key=lambda j: (-dense[i, j], j))[:8]
            assert columns[i].tolist() == expected + [-1] * (8 - len(expected))
            assert values[i, : len(expected)].tolist() == dense[i, expected].tolist()


def test_odd_questions_to_the_ranker():
    """What test_recommend.py does not ask of a model of each kind."""
    log, table = make_log(2)
    model = HybridRecommender().fit(log, table)
    short = model.recommend(["C001"], k=42, exclude_purchased=True)
    assert len(short) < 42 and "shorter than 42" in short.attrs["notes"][0]
    for k in (-1, 1.5, True):
        with pytest.raises(DataError, match="k must be a whole number of at least 1"):
            model.recommend(["C001"], k=k)
    with pytest.raises(ConfigError, match="Unknown model 'hybird'"):
        make_model("hybird")
    bare = HybridRecommender().fit(log, table[["product_id"]])
    assert bare.notes_ and len(bare.recommend(["C001"])) == 10
    with pytest.raises(DataError, match="describes nothing"):
        ContentRecommender().fit(log, table[["product_id"]])


def test_nothing_after_the_cut_is_used():
    log, table = make_log(6)
    cut = time_cut(log)
    later = log["date"] > cut
    lying = log.assign(price=log["price"].where(~later, 1000.0))
    names = ["ranker", "weighted", "content", "popularity"]
    pd.testing.assert_frame_equal(
        evaluate(names, log, table, resamples=10).table,
        evaluate(names, lying, table.assign(price=5.0), resamples=10).table,
    )


def test_intervals_are_seeded_shared_and_cover():
    rng = np.random.default_rng(0)
    a = rng.random(300)
    b = rng.random(300)
    both = intervals({"a": a, "b": b, "d": a - b})
    assert both["a"] == pytest.approx(bootstrap_interval(a)) and both["d"] == pytest.approx(
        paired_difference(a, b)
    )
    inside = sum(
        i["low"] <= 0.5 <= i["high"]
        for i in (bootstrap_interval(rng.random(80), resamples=300) for _ in range(100))
    )
    assert 88 <= inside <= 100


def test_tastes_in_the_data_beat_best_sellers():
    log, table = make_log(9)
    found = evaluate(["collaborative", "popularity"], log, table, resamples=50)
    better = ranking_facts(found)["paired"]["any"]["collaborative"]["popularity"]["ndcg"]
    assert better["low"] > 0


def test_chance_depends_on_the_customer_alone():
    log, _ = make_log(10)
    model = RandomRecommender(random_state=1).fit(log)
    everyone = model.recommend()
    for customer in ("C003", "C050"):
        pd.testing.assert_frame_equal(
            model.recommend([customer]),
            everyone[everyone["customer_id"] == customer].reset_index(drop=True),
        )
    assert (
        not RandomRecommender(random_state=2)
        .fit(log)
        .recommend(["C003"])["product_id"]
        .equals(model.recommend(["C003"])["product_id"])
    )
