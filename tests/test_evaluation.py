"""The measurement against a second one written from the protocol's text; back-test, tuning and the
cases where there is little to measure.
"""

import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import typer.testing
from small_shop import drawn_lines, shelf_of

from retail_ci.cli import app
from retail_ci.core.config import MODELS, Config, RecommenderConfig
from retail_ci.core.runs import Run
from retail_ci.evaluate.backtest import backtest, cut_dates
from retail_ci.evaluate.offline import (
    BASELINES,
    by_group,
    contestants,
    evaluate,
    failings,
    lead_by_group,
    money_words,
    plot_metrics,
    ranking_facts,
    segment_table,
    summary,
    value_of_hits,
    verdict,
)
from retail_ci.evaluate.tuning import as_yaml, candidates, chosen_settings, tunable, tune
from retail_ci.recommend.base import Recommender
from retail_ci.recommend.baselines import (
    BestWindowRecommender,
    PersonalRecommender,
    PopularityRecommender,
)
from retail_ci.recommend.hybrid import make_model
from retail_ci.recommend.metrics import METRICS, SHOWN


def make_log(seed=0, customers=80, products=50, lines=3000, days=150):
    rng = np.random.default_rng(seed)
    who = rng.integers(0, customers, lines)
    what = np.where(
        rng.random(lines) < 0.6,
        who % 5 * 10 + rng.integers(0, 10, lines),
        (rng.pareto(1.2, lines) * 3).astype(int) % products,
    )
    log = drawn_lines(rng, who, what, days)
    log["revenue"] = log["price"] * log["quantity"]
    return log, shelf_of(products).assign(price=1.0)


# The protocol, a second time: long tables, dictionaries and loops, written from the design's words.
# It shares no code with the package.


def second_protocol(log, table, k=10, days=30):
    """task: model: metric: customer: value, for popularity and personal frequency; and the
    popularity rank.
    """
    cut = log["date"].max() - pd.Timedelta(hours=24 * days)
    sales = log[log["quantity"] > 0].drop_duplicates(
        ["transaction_id", "customer_id", "product_id"]
    )
    train = sales[sales["date"] <= cut]
    test = sales[sales["date"] > cut]
    anonymous = train[train["customer_id"].isna()]["product_id"].value_counts()
    buyers = (
        train.dropna(subset="customer_id")
        .groupby("product_id")["customer_id"]
        .nunique()
        .add(anonymous, fill_value=0)
        .reindex(table["product_id"], fill_value=0)
    )
    popular = sorted(buyers.index, key=lambda p: (-buyers[p], p))
    recent = train[train["date"] > log[log["date"] <= cut]["date"].max() - pd.Timedelta(days=56)]
    recent = (
        recent.dropna(subset="customer_id")
        .groupby("product_id")["customer_id"]
        .nunique()
        .add(recent[recent["customer_id"].isna()]["product_id"].value_counts(), fill_value=0)
    )
    filler = sorted(buyers.index, key=lambda p: (-recent.get(p, 0), popular.index(p)))
    bought = train.dropna(subset="customer_id").groupby("customer_id")["product_id"].agg(Counter)
    future = test.dropna(subset="customer_id").groupby("customer_id")["product_id"].agg(set)
    category = table.set_index("product_id")["category"]
    customers = len(bought)
    ranks = buyers.rank(method="average").sub(1).div(len(buyers) - 1)
    out = {}
    for task in ("any", "discovery"):
        for model in ("popularity", "personal"):
            for customer, relevant in future.items():
                if customer not in bought:
                    continue
                past = bought[customer]
                if task == "discovery":
                    relevant = relevant - set(past)
                if not relevant:
                    continue
                own = (
                    [p for p in popular if buyers[p] > 0]
                    if model == "popularity"
                    else sorted(past, key=lambda p: (-past[p], popular.index(p)))
                )
                own = [p for p in own if task == "any" or p not in past]
                shown = (
                    own + [p for p in filler if p not in own and (task == "any" or p not in past)]
                )[:k]
                for metric, value in measured(
                    shown, relevant, k, buyers, customers, ranks, category
                ).items():
                    out.setdefault((task, model, metric), {})[customer] = value
    return out


def measured(shown, relevant, k, buyers, customers, ranks, category):
    hits = [p in relevant for p in shown]
    gain = sum(1 / math.log2(r + 2) for r, hit in enumerate(hits) if hit)
    best = sum(1 / math.log2(r + 2) for r in range(min(k, len(relevant))))
    share = [min(max(buyers[p], 1), customers) / customers for p in shown]
    pairs = [(a, b) for i, a in enumerate(shown) for b in shown[:i]]
    return {
        "precision": sum(hits) / k,
        "recall": sum(hits) / len(relevant),
        "ndcg": gain / best,
        "hit_rate": float(any(hits)),
        "map": sum(sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit)
        / min(k, len(relevant)),
        "arp": np.mean(share),
        "novelty": np.mean([-math.log2(s) for s in share]),
        "popularity_bias": np.mean([ranks[p] for p in shown])
        - np.mean([ranks.get(p, 0) for p in relevant]),
        "diversity": np.mean([category[a] != category[b] for a, b in pairs]),
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_number_agrees_with_a_second_protocol(seed):
    log, table = make_log(seed)
    ours = evaluate(
        {"popularity": PopularityRecommender(), "personal": PersonalRecommender()}, log, table
    )
    second = second_protocol(log, table)
    facts = ranking_facts(ours)
    for (task, model, metric), values in second.items():
        assert len(values) == ours.protocol["customers"][task] > 30
        found = dict(zip(ours.customers[task], ours.scores[task][model][metric]))
        assert found == pytest.approx(values, abs=1e-9), (task, model, metric)
        assert facts[task][model][metric]["value"] == pytest.approx(
            np.mean(list(values.values())), abs=1e-9
        )
    difference = np.mean(list(second["any", "personal", "ndcg"].values())) - np.mean(
        list(second["any", "popularity", "ndcg"].values())
    )
    assert facts["paired"]["any"]["personal"]["popularity"]["ndcg"]["value"] == pytest.approx(
        difference, abs=1e-9
    )


def test_intervals_agree_with_a_second_bootstrap():
    log, table = make_log(4)
    ours = evaluate(["personal", "popularity"], log, table, resamples=4000)
    a, b = (ours.scores["any"][m]["ndcg"] for m in ("personal", "popularity"))
    rng = np.random.default_rng(9)
    draws = np.array([(a - b)[rng.integers(0, len(a), len(a))].mean() for _ in range(4000)])
    row = ours.paired.query(
        "task == 'any' and model == 'personal' and baseline == 'popularity' and metric == 'ndcg'"
    ).iloc[0]
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.004)


def test_all_models_have_all_metrics_and_pairs_with_each_baseline():
    log, table = make_log(5)
    facts = ranking_facts(evaluate(contestants(RecommenderConfig()), log, table, resamples=30))
    for task in ("any", "discovery"):
        assert set(facts[task]) == set(MODELS)
        for model, found in facts[task].items():
            assert set(found) >= {*METRICS, *SHOWN, "coverage"} and all(
                set(v) == {"value", "low", "high"} for v in found.values()
            )
            assert set(facts["paired"][task][model]) == {*BASELINES, "random"} - {model}
    assert all(
        found["ndcg"]["low"] <= found["ndcg"]["value"] <= found["ndcg"]["high"]
        for found in facts["any"].values()
    )


def test_groups_are_those_of_before_the_cut_and_add_up():
    log, table = make_log(6)
    ours = evaluate(["personal", "popularity"], log, table, resamples=50)
    later = log["date"] > ours.protocol["cut"]
    poisoned = evaluate(
        ["personal", "popularity"],
        log.assign(
            revenue=log["revenue"].where(~later, 1e6), price=log["price"].where(~later, 1e6)
        ),
        table,
        resamples=50,
    )
    for kind in ("segment", "history"):
        for task in ("any", "discovery"):
            assert ours.groups[kind][task].tolist() == poisoned.groups[kind][task].tolist()
            part = by_group(ours, task, kind, resamples=20).query(
                "model == 'personal' and metric == 'ndcg'"
            )
            assert part["customers"].sum() == ours.protocol["customers"][task]
            assert np.average(part["value"], weights=part["customers"]) == pytest.approx(
                ours.metric(task).set_index("model")["value"]["personal"], abs=1e-9
            )
    leads = lead_by_group(ours, "any", "personal", "popularity")
    assert np.allclose(leads["model"] - leads["rival"], leads["value"]) and len(leads) > 3
    assert set(segment_table(ours)["kind"]) == {
        "segment",
        "history",
    } and "lowest among" in failings(leads, "personal", "popularity", least=1)
    np.testing.assert_array_equal(ours.prices, poisoned.prices)


def test_a_segment_in_the_evaluation_is_the_one_of_the_segmentation_page():
    ibis = pytest.importorskip("ibis")
    from retail_ci.customers.features import add_scores, learn_cuts, rfm_features
    from retail_ci.evaluate.offline import segments_before

    log, _ = make_log(7)
    train = log.assign(
        day=log["date"].dt.normalize(), is_return=log["quantity"] < 0, is_weekend=False
    )
    theirs = rfm_features(ibis.memtable(train), train["day"].max() + pd.Timedelta(days=1)).execute()
    theirs = add_scores(theirs, learn_cuts(theirs)).set_index("customer_id")["rfm_segment"]
    assert segments_before(log, pd.Index(theirs.index)).tolist() == theirs.tolist()


# ---- the rival that chooses its window, and tuning ----


def test_the_window_is_chosen_on_the_past_alone_and_by_its_value_there():
    log, _ = make_log(8)
    cut = log["date"].max() - pd.Timedelta(days=30)
    train = log[log["date"] <= cut]
    best = BestWindowRecommender().fit(train).best_
    tried = {
        w: evaluate({"w": PopularityRecommender(w)}, train, resamples=5) for w in (7, 14, 28, 56)
    }
    for task in ("any", "discovery"):
        values = {w: e.scores[task]["w"]["ndcg"].mean() for w, e in tried.items()}
        assert values[best[task]] >= max(values.values()) - 0.01, (task, best, values)


def poison(log, cut):
    """The same log with everything after the cut replaced, except the dates."""
    later = log["date"] > cut
    rng = np.random.default_rng(1)
    out = log.copy()
    for column in ("customer_id", "product_id"):
        out.loc[later, column] = rng.permutation(out.loc[later, column].to_numpy(dtype=object))
    return out.assign(
        quantity=out["quantity"].where(~later, 50.0),
        price=out["price"].where(~later, 999.0),
        revenue=out["revenue"].where(~later, -1.0),
        transaction_id=out["transaction_id"].where(~later, "X"),
    )


def test_tuning_never_sees_the_test_window():
    log, table = make_log(9)
    cut = log["date"].max() - pd.Timedelta(days=30)
    names = ["personal_decayed", "recent_popularity", "content"]
    ours = tune(names, log, table)
    pd.testing.assert_frame_equal(ours, tune(names, poison(log, cut), table), check_exact=True)
    pd.testing.assert_frame_equal(
        ours, tune(names, log[log["date"] <= cut], table, cut=cut), check_exact=True
    )
    assert not evaluate(["personal"], log, table, resamples=5).table.equals(
        evaluate(["personal"], poison(log, cut), table, resamples=5).table
    ), "the poison works"


def test_the_tuning_table_says_what_was_tried_and_why_one_was_chosen():
    log, table = make_log(10)
    tried = tune(["personal_decayed", "recent_popularity"], log, table)
    assert len(tried) == sum(len(candidates(m)) for m in ("personal_decayed", "recent_popularity"))
    for name, part in tried.groupby("model"):
        assert (
            part["chosen"].sum() == 1
            and part["default"].sum() == 1
            and part.query("default")["gain"].item() == 0
        )
        task = MODELS[name].decides
        assert part.query("chosen")[task].item() == pytest.approx(part[task].max(), abs=1e-12)
        assert np.allclose(part["gain"], part[task] - part.query("default")[task].item())
    settings = RecommenderConfig(parameters=chosen_settings(tried))
    for name, values in settings.parameters.items():
        assert vars(contestants(settings)[name]).items() >= values.items()
    assert "recommender:" in as_yaml(tried) or not settings.parameters


@pytest.mark.parametrize("name", tunable())
def test_every_grid_fits_its_model(name):
    log, table = make_log(11, lines=600)
    assert all(set(c) <= set(make_model(name).get_params()) for c in candidates(name))
    if name in ("collaborative", "ease"):
        return
    assert tune([name], log, table)["chosen"].sum() == 1


# ---- several cuts ----


def test_a_back_test_is_the_evaluation_at_each_cut():
    log, table = make_log(12, days=200)
    result = backtest(["personal", "popularity"], log, table, cuts=3, resamples=100)
    assert result.cuts == cut_dates(log, 3) and len(result.cuts) == 3
    for cut, found in zip(result.cuts, result.evaluations):
        alone = evaluate(
            ["personal", "popularity"],
            log[log["date"] <= cut + pd.Timedelta(days=30)],
            table,
            cut,
            resamples=100,
        )
        pd.testing.assert_frame_equal(found.table, alone.table)
    gaps = [
        e.scores["any"]["personal"]["ndcg"] - e.scores["any"]["popularity"]["ndcg"]
        for e in result.evaluations
    ]
    row = result.paired.query(
        "task == 'any' and model == 'personal' and baseline == 'popularity' and metric == 'ndcg'"
    ).iloc[0]
    assert (
        row["value"] == pytest.approx(np.round(np.concatenate(gaps).mean(), 9), abs=1e-12)
        and row["low"] <= row["value"] <= row["high"]
    )


def test_a_cut_that_was_measured_before_is_not_measured_again(monkeypatch, tmp_path):
    from retail_ci.core.runs import load, save
    from retail_ci.evaluate import backtest as room
    from retail_ci.evaluate.offline import customer_scores, measured_before, ranking_facts

    log, table = make_log(12, days=200)
    first = evaluate(["personal", "popularity", "random"], log, table, resamples=100)
    save(customer_scores(first, ["personal", "popularity"]), tmp_path / "scores.parquet")
    save(ranking_facts(first), tmp_path / "ranking.json")
    plain = backtest(["personal", "popularity"], log, table, cuts=3, resamples=100)
    asked = []
    monkeypatch.setattr(room, "evaluate", lambda *a, **b: asked.append(a[3]) or evaluate(*a, **b))
    last = measured_before(load(tmp_path / "scores.parquet"), load(tmp_path / "ranking.json"))
    quick = backtest(["personal", "popularity"], log, table, cuts=3, resamples=100, last=last)
    assert asked == cut_dates(log, 3)[1:] and quick.cuts == plain.cuts
    for task in ("any", "discovery"):
        pd.testing.assert_frame_equal(quick.table(task), plain.table(task), rtol=1e-12)
    pd.testing.assert_frame_equal(quick.pooled, plain.pooled, rtol=1e-12)
    pd.testing.assert_frame_equal(quick.paired, plain.paired, rtol=1e-12)


def test_pooling_the_same_month_three_times_gives_no_more_certainty():
    log, table = make_log(13)
    one = evaluate(["personal", "popularity"], log, table, resamples=1000)
    from retail_ci.evaluate.backtest import pool

    once, thrice = (
        pool([one] * n, 42, 1000)[1]
        .query("task == 'any' and model == 'personal' and metric == 'ndcg'")
        .iloc[0]
        for n in (1, 3)
    )
    assert (once["low"], once["high"]) == pytest.approx((thrice["low"], thrice["high"]), abs=1e-9)
    paired = one.paired.query("task == 'any' and model == 'personal' and metric == 'ndcg'").iloc[0]
    assert (once["low"], once["high"]) == pytest.approx((paired["low"], paired["high"]), abs=0.004)


# ---- little to measure ----


def plain_log(rows):
    log = pd.DataFrame(rows, columns=["customer_id", "product_id", "day"])
    return log.assign(date=pd.Timestamp("2025-01-01") + pd.to_timedelta(log["day"], unit="D")).drop(
        columns="day"
    )


def everything(log, **options):
    """The evaluation and all that is made from it."""
    result = evaluate(
        ["personal_decayed", "recent_popularity", "popularity", "collaborative"],
        log,
        resamples=50,
        **options,
    )
    json.dumps(ranking_facts(result), default=str)
    words = summary(result, "collaborative")
    plot_metrics(result, accent="collaborative")
    return result, words, segment_table(result)


def test_nobody_buys_anything_twice():
    log = plain_log(
        [(f"c{c}", f"p{(c * 3 + d) % 40}", 3 * d) for c in range(12) for d in range(25)]
    )
    assert not log.duplicated(["customer_id", "product_id"]).any()
    result, words, _ = everything(log)
    assert result.protocol["repeat_share"] == 0
    np.testing.assert_array_equal(*(np.sort(result.customers[t]) for t in ("any", "discovery")))
    assert (
        result.scores["discovery"]["collaborative"]["ndcg"].sum()
        >= result.scores["any"]["collaborative"]["ndcg"].sum()
    )
    assert set(words) == {"any", "discovery"}


def test_nobody_buys_anything_new():
    log = plain_log([(f"c{c}", f"p{(c + d) % 3}", 4 * d) for c in range(12) for d in range(25)])
    result, words, table = everything(log)
    assert (
        result.protocol["customers"]["discovery"] == 0
        and set(words) == {"any"}
        and set(table["task"]) == {"any"}
    )
    assert (
        result.metric("discovery").empty
        and "cannot be measured" in verdict(result, "discovery")
        and ranking_facts(result)["discovery"] == {}
    )
    assert backtest(["popularity"], log, cuts=2, resamples=20).pooled["task"].unique().tolist() == [
        "any"
    ]


def test_one_customer_in_the_test():
    log = plain_log(
        [
            ("ann", "tea", 1),
            ("bob", "oil", 2),
            ("bob", "tea", 3),
            ("ann", "tea", 70),
            ("ann", "oil", 71),
        ]
    )
    result, words, _ = everything(log)
    found = ranking_facts(result)["any"]["popularity"]["ndcg"]
    assert (
        result.protocol["customers"]["any"] == 1 and found["low"] == found["value"] == found["high"]
    )
    assert "With 1 customer in the test" in words["any"]["verdict"]


def test_a_list_longer_than_the_catalogue():
    log = plain_log(
        [
            (c, p, d)
            for c in ("ann", "bob")
            for d, p in ((1, "tea"), (2, "oil"), (60, "tea"), (61, "gel"))
        ]
    )
    result, _, _ = everything(log, k=50)
    row = ranking_facts(result)["any"]["popularity"]
    assert (
        row["precision"]["value"] == 1 / 50
        and row["recall"]["value"] == 0.5
        and row["coverage"]["value"] == 1
    )
    assert result.scores["any"]["popularity"]["ndcg"].tolist() == pytest.approx(
        [(1 / math.log2(3)) / (1 + 1 / math.log2(3))] * 2
    )


class Constant(Recommender):
    def _scores(self, rows):
        return np.ones((len(rows), len(self.data_.product_ids)), np.float32)


def test_equal_scores_are_ranked_by_popularity():
    log, _ = make_log(14)
    result = evaluate(
        {"constant": Constant(), "popularity": PopularityRecommender()}, log, resamples=10
    )
    for task in ("any", "discovery"):
        for metric in METRICS:
            np.testing.assert_array_equal(
                result.scores[task]["constant"][metric], result.scores[task]["popularity"][metric]
            )


def test_a_bare_log_with_numbers_as_ids_is_measured():
    log, _ = make_log(15)
    full = evaluate(["popularity"], log[log["quantity"] > 0], resamples=10)
    bare = log[log["quantity"] > 0].dropna(subset="customer_id")
    bare = pd.DataFrame(
        {
            "customer_id": bare["customer_id"].str[1:].astype(int),
            "product_id": bare["product_id"].str[1:].astype(int),
            "date": bare["date"].astype("str"),
        }
    )
    result = evaluate(["popularity", "personal"], bare, resamples=10)
    assert (
        result.protocol["customers"] == full.protocol["customers"]
        and len(result.groups["segment"]["any"]) == full.protocol["customers"]["any"]
    )
    assert (
        np.isnan(result.prices).all()
        and "no price" in money_words(result, "any", "personal")
        and value_of_hits(result, "any", "personal")["value"] == 0
    )


# ---- the command line ----


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A project with a finished run."""
    for folder in ("configs", "nbs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs" / "shop.yaml").write_text("recommender: {k: 5}\n")
    monkeypatch.chdir(tmp_path)
    log, table = make_log(16, lines=1500, days=130)
    run = Run(Config(name="shop"), tmp_path / "runs" / "shop" / "current")
    run.write("transactions", log)
    run.write("products", table)
    return tmp_path


def ask(*words):
    return typer.testing.CliRunner().invoke(app(), list(words))


def test_evaluate_writes_beside_the_run_and_prints_the_verdict(shop):
    before = sorted(p.name for p in (shop / "runs/shop/current").rglob("*"))
    answer = ask("evaluate", "--config", "shop", "--models", "collaborative", "--cuts", "2")
    assert answer.exit_code == 0, answer.output
    folder = shop / "runs/shop/evaluation"
    facts = json.loads((folder / "ranking.json").read_text())
    assert (
        set(facts["any"]) == {"collaborative", *BASELINES}
        and facts["protocol"]["k"] == 5
        and set(facts["any"]["personal"]["ndcg"]) == {"value", "low", "high"}
    )
    assert (
        len(json.loads((folder / "backtest.json").read_text())["cuts"]) == 2
        and (folder / "05_backtest.png").stat().st_size > 10_000
    )
    steps = 2 * len({"collaborative", *BASELINES})  # two cuts
    assert "Any." in answer.output and "All cuts:" in answer.output
    assert f"[ 1/{steps}]" in answer.output
    assert sorted(p.name for p in (shop / "runs/shop/current").rglob("*")) == before
    again = ask(
        "evaluate",
        "--config",
        "shop",
        "--models",
        "collaborative",
        "--k",
        "3",
        "--out",
        str(shop / "mine"),
    )
    assert (
        again.exit_code == 0
        and json.loads((shop / "mine/ranking.json").read_text())["protocol"]["k"] == 3
    )


def test_tune_keeps_its_table_and_prints_yaml(shop):
    answer = ask("tune", "--config", "shop", "--models", "personal_decayed, recent_popularity")
    assert answer.exit_code == 0, answer.output
    table = pd.read_csv(shop / "runs/shop/tuning/tuning.csv")
    assert (
        set(table["model"]) == {"personal_decayed", "recent_popularity"}
        and table["chosen"].sum() == 2
    )
    assert "recommender:" in answer.output or "the config can stay" in answer.output


@pytest.mark.parametrize(
    "words, code, said",
    [
        (
            ["evaluate", "--config", "shop", "--models", "colaborative"],
            2,
            "did you mean 'collaborative'",
        ),
        (
            ["evaluate", "--config", "shop", "--cuts", "0"],
            2,
            "--cuts must be between 1 and 60, found 0",
        ),
        (
            ["evaluate", "--config", "shop", "--k", "-1"],
            2,
            "-k must be between 1 and 1000, found -1",
        ),
        (["evaluate", "--config", "shop", "--set", "name=other"], 4, "no finished run"),
        (
            [
                "evaluate",
                "--config",
                "shop",
                "--set",
                "recommender.parameters={content: {half_live: 3}}",
            ],
            2,
            "did you mean 'half_life'",
        ),
        (["tune", "--config", "shop", "--models", "random"], 2, "has nothing to tune"),
        (["tune", "--config", "shop", "--models", "contant"], 2, "did you mean 'content'"),
        (
            ["evaluate", "--config", "shop", "--set", "recommender.test_days=300"],
            3,
            "No cut of the back-test could be measured",
        ),
    ],
)
def test_nonsense_gets_one_sentence(shop, words, code, said):
    answer = ask(*words)
    assert (answer.exit_code, said in answer.output, "Traceback" in answer.output) == (
        code,
        True,
        False,
    ), answer.output
