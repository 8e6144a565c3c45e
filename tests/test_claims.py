"""What the report may say: a shop where every claim is false gets none of them, and a page that
contradicts another is not built.
"""

import html
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest

from retail_ci.core.config import GoalsConfig
from retail_ci.core.errors import RunError
from retail_ci.core.show import pyplot, use_style
from retail_ci.report import offer_pages
from retail_ci.report.customer_pages import _bought_before_then
from retail_ci.report.dashboard import _plot_dashboard, _scatter_panel
from retail_ci.report.definitions import DEFINITIONS
from retail_ci.report.first_screen import (
    days_looked_at,
    figure_cards,
    goal_lines,
    monday_cards,
    offers_line,
    slipping_line,
    source_line,
    what_to_do,
)
from retail_ci.report.offer_pages import _effect, _hit_sentence
from retail_ci.report.page_parts import Facts, facts_of
from retail_ci.report.pages import PAGES, _story, _worth_line, segment_pages, write_pages
from retail_ci.report.sales_pages import _trend
from retail_ci.report.segment_facts import bought_before_month_end, segment_facts
from retail_ci.report.shop_facts import goal_facts, list_files, offer_facts, product_facts

LIST = {
    "published_label": "Ranker",
    "best_label": "Best sellers, lately",
    "published_leads": False,
    "beyond_chance": True,
}
FALSE_SHOP = {
    "movement": {
        "fitted": True,
        "month_end": "2025-12-31",
        "alerts": {
            "customers": 475,
            "value": 93_525.0,
            "value_90": 36_147.0,
            "unlikely_by_chance": 0,
            "by_chance": 473.0,
            "chance_spread": 14.0,
        },
    },
    "recommendations": {
        "customers": 900,
        "lines": 9000,
        "products": 12,
        "personal_share": 0.04,
        "best_sellers": 10,
        "any": LIST,
        "discovery": LIST | {"published_leads": True, "beyond_chance": False},
    },
    "figures": [
        {
            "name": "revenue",
            "value": 948_601.83,
            "month": "2025-12-01",
            "against": "2025-11-01",
            "change": 0.631,
        }
    ],
}


def test_a_shop_where_every_claim_is_false_reads_none_of_them():
    slips = slipping_line(FALSE_SHOP["movement"], "€")
    assert (
        "475 good customers slipped in the month to 31 Dec 2025; chance alone makes 445 to 501 "
        "slip: a normal month." in slips
    )
    assert "Call first" not in slips and 'class="first"' not in slips and "€" not in slips
    offers = offers_line(FALSE_SHOP["recommendations"])
    assert "personal" not in offers and "is the best" not in offers
    assert (
        "96% of the lines are products that are among the 10 best sellers of the last weeks."
        in offers
    )
    assert "did better" not in offers and "ahead" not in offers
    assert "Best sellers, lately came first in the held-out month, within chance" in offers
    assert "it came first in the held-out month, and its lead may be chance" in offers
    cards = figure_cards(FALSE_SHOP["figures"], "€", "1 January to 31 December 2025")
    assert "+63.1% in December against November, season included" in cards


def test_the_same_sentences_where_they_are_true():
    movement = FALSE_SHOP["movement"]
    louder = movement | {"alerts": movement["alerts"] | {"by_chance": 300.0}}
    assert "<b>475 good customers slipped" in slipping_line(louder, "€")
    won = LIST | {"best_label": "Ranker", "published_leads": True}
    offers = offers_line({"customers": 9, "personal_share": 0.9, "best_sellers": 10, "any": won})
    assert "Ranker is the best" in offers
    assert (
        "90% of the lines are products that are not among the 10 best sellers of the last weeks"
        in offers
    )
    last_year = FALSE_SHOP["figures"][0] | {"against": "2024-12-01"}
    assert "in December against December 2024" in figure_cards([last_year])


def test_under_each_key_figure_stand_period_population_and_uncertainty():
    card = figure_cards([{"name": "baskets", "value": 36_968}], "€", "1 January to 31 May 2025")
    assert (
        "1 January to 31 May 2025; all sales, with and without a customer; counted, not estimated"
        in card
    )


def test_a_card_counts_who_may_be_written_to_and_says_what_is_unproven():
    profile = {"segment": "At Risk", "customers": 711, "revenue": 50_809.8, "action": "Write."}
    found = {
        "segment": "At Risk",
        "customers": 711,
        "suppressed": 3,
        "no_consent": 212,
        "control": 50,
        "send": 446,
        "buys_anyway": 0.414,
        "smallest_lift": None,
    }
    card = monday_cards([profile], {"days": 30, "segments": [found]}, "€")
    assert "446</data> of 711 customers can be written to" in card
    assert "212 have not agreed, 3 are suppressed, 50 are held back to compare" in card
    assert (
        "41% of those who had this name at earlier month ends bought within 30 days anyway, and "
        "the group held back is too small" in card
    )
    assert card.count("<h3>") == 1 and "To the list" in card


def test_a_card_says_nothing_that_a_small_shop_does_not_bear():
    """One customer is no group, 100% cannot rise, and two days are not a year."""
    one = {"segment": "New Customers", "customers": 1, "revenue": 50.9}
    many = {"segment": "Steady Customers", "customers": 300, "revenue": 9.0}
    found = {"segment": "Steady Customers", "customers": 300, "no_consent": 1, "control": 1}
    found |= {"send": 298, "buys_anyway": 0.5, "smallest_lift": None}
    told = {"days": 30, "segments": [found]}
    days = days_looked_at({"first_date": "2025-04-03T08:00:00", "last_date": "2025-04-04"}, 365)
    card = str(monday_cards([one, many], told, "€", days))
    assert "New Customers" not in card and "Steady Customers" in card
    assert "(1 has not agreed, 1 is held back to compare)" in card
    assert "in the last 2 days of the log" in card
    assert days_looked_at({"first_date": "2023-01-01", "last_date": "2025-04-04"}, 365) == 365
    assert days_looked_at({"first_date": None, "last_date": None}, 365) == 365


def test_a_change_to_or_from_returns_is_no_per_cent():
    low = {"name": "revenue", "value": 9.0, "month": "2025-02-01", "against": "2025-01-01"}
    card = figure_cards([low | {"last_month": 3.0, "month_before": -5.0, "change": None}])
    assert "not compared: February or January has no sales, or more returns" in card


def test_products_new_to_customers_are_told_of_those_who_bought_some(tmp_path):
    """91% of those who bought something new are not 91% of all who came back."""
    task = {"ranker": {"hit_rate": {"value": 0.91}}, "popularity": {"hit_rate": {"value": 0.5}}}
    ranking = {"production": "ranker", "any": task, "discovery": task}
    facts = Facts(tmp_path, ranking=ranking)
    assert "91% of the customers who bought something new to them" in _hit_sentence(
        facts, "discovery"
    )
    assert "91% of the customers who came back bought" in _hit_sentence(facts, "any")


@pytest.mark.parametrize("low, apart", [(0.2, False), (0.35, True)])
def test_more_buyers_are_a_finding_only_beyond_chance(tmp_path, low, apart):
    ours = {"hit_rate": {"value": 0.4, "low": low, "high": 0.6}}
    plain = {"hit_rate": {"value": 0.25, "low": 0.2, "high": 0.3}}
    ranking = {"production": "ranker", "any": {"ranker": ours, "popularity": plain}}
    told = _hit_sentence(Facts(tmp_path, ranking=ranking), "any")
    assert "with the same best sellers for everybody it would have been 25%" in told
    assert ("; a difference between these two shares may be chance" in told) == (not apart)


@pytest.mark.parametrize("high, worse", [(0.55, False), (0.45, True)])
def test_a_group_gets_worse_lists_only_beyond_chance(tmp_path, high, worse):
    write_metrics(tmp_path, ranking={"production": "ranker"})
    heads = ["task", "kind", "metric", "model", "group", "customers", "value", "low", "high"]
    rows = [["any", "segment", "ndcg", "ranker", "New", 2, 0.3, 0.0, high]]
    rows.append(["any", "segment", "ndcg", "ranker", "Loyal", 90, 0.6, 0.5, 0.7])
    table = pd.DataFrame(rows, columns=heads)
    table.to_csv(tmp_path / "metrics/ranking_segments.csv", index=False)
    card = page_of("model-card", tmp_path)
    assert ("For whom the lists are worse" in card) == worse
    assert ("no group is shown to get worse lists" in card) == (not worse)
    assert "weakest" not in card


def test_what_is_checked_is_told_as_it_came_out(tmp_path):
    stable = {"value": 0.886, "low": 0.588, "high": 0.952, "draws": 20}
    moved = {"fitted": True, "changed": 0.43, "changed_by_chance": 0.4}
    moved["counts"] = {"stayed": 360, "rose": 110, "fell": 150, "gone": 10}
    write_metrics(tmp_path, segments={"stability": stable}, movement=moved)
    page = page_of("sure", tmp_path)
    assert "the same groups are not always found: agreement 0.886" in page
    assert "40% would have by chance: a new name alone is no news" in page
    write_metrics(
        tmp_path,
        segments={"stability": stable | {"low": 0.85}},
        movement=moved | {"changed": 0.5},
    )
    page = page_of("sure", tmp_path)
    assert "samples of the customers, the same groups are found" in page
    assert "50% changed their segment in a month, more than the 40% that chance moves." in page


@pytest.mark.parametrize("value, said", [(52_341.0, True), (5_000.0, False)])
def test_a_name_that_the_forecast_does_not_bear_is_told(tmp_path, value, said):
    """Who comes twice a year is not lost after half a year."""
    rows = [{"segment": "Lost", "customers": 218, "value_90": value}]
    rows.append({"segment": "Champions", "customers": 79, "value_90": 16_214.0})
    profiles = [{"segment": r["segment"], "customers": r["customers"]} for r in rows]
    home = str(what_to_do(profiles, "€", {"segments": rows}))
    assert ("The forecast does not give up Lost: it expects €240 of each" in home) == said
    profiles = [p | {"share": 0.5, "revenue": 9.0, "revenue_share": 0.5} for p in profiles]
    profiles = [p | {"recency": 9, "frequency": 1, "basket_value": 1.0} for p in profiles]
    ends = {"value_90_low": 1.0, "value_90_high": 9e4}
    worth = {"fitted": True, "segments": [r | ends for r in rows]}
    shop = write_metrics(tmp_path, segments={"profiles": profiles}, worth=worth)
    assert ("does not give up Lost" in page_of("customers", shop)) == said
    pages = segment_pages(facts_of(shop))
    told = {name: page.text(facts_of(shop)) for name, page in pages.items()}
    assert ("does not give up Lost" in told["segment-lost"]) == said
    assert "does not give up" not in told["segment-champions"]


def test_one_of_a_kind_is_told_in_the_singular(tmp_path):
    books = {"rows_in": 9, "collapsed": 1, "set_aside": 1, "anonymous": 1}
    books |= {"first_date": "2025-01-01", "last_date": "2025-02-01"}
    line = str(source_line(books))
    assert "1 no sale by its status, 1 copy of another, 1 kept without a customer" in line
    shop = write_metrics(tmp_path, data=books | {"kept": 8, "customers": 2, "baskets": 3})
    write_metrics(shop, data=json.loads((shop / "metrics/data.json").read_text()) | {"revenue": 9})
    page = page_of("quality", shop)
    assert "1 line is an anonymous sale." in page
    found = {"send": 9, "buys_anyway": 0.5, "smallest_lift": 0.01, "segment": "At Risk"}
    assert "an effect of 1 point is missed" in monday_cards(
        [{"segment": "At Risk", "customers": 9, "revenue": 1.0}], {"segments": [found], "days": 30}
    )


@pytest.mark.parametrize("rate, everybody", [(0.99, False), (1.0, True)])
def test_where_everybody_comes_no_group_is_to_be_won(tmp_path, rate, everybody):
    """The group that comes anyway gets no card, and where all do there is none."""
    told = campaign()
    told["segments"][0] |= {"buys_anyway": 1.0}
    told["segments"].insert(1, told["segments"][0] | {"segment": "Lost", "buys_anyway": 0.5})
    told["segments"][-1] |= {"buys_anyway": rate}
    rows = [{"segment": name, "customers": 100, "revenue": 9.0} for name in ("At Risk", "Lost")]
    cards = str(monday_cards(rows, told))
    assert "At Risk" not in cards and ("Begin with Lost" in cards) == (not everybody)
    assert ("nobody is about to be lost" in cards) == everybody
    assert cards.count("<h3>") == (0 if everybody else 1)
    rows = [r | {"share": 0.5, "revenue_share": 0.5, "recency": 4} for r in rows]
    rows = [r | {"frequency": 160, "basket_value": 1.0} for r in rows]
    shop = write_metrics(tmp_path, segments={"profiles": rows}, campaigns=told)
    assert ("nobody is about to be lost" in page_of("customers", shop)) == everybody
    page = segment_pages(facts_of(shop))["segment-at-risk"].text(facts_of(shop))
    assert "All who had this name at earlier month ends bought within 30 days anyway" in page


def test_home_says_how_many_letters_and_where_to_begin():
    profile = {"segment": "At Risk", "customers": 100, "revenue": 9.0}
    told = str(monday_cards([profile], campaign()))
    begin = "<b>90 of 100 customers can be written to now. Begin with At Risk: 90 letters.</b>"
    assert begin in told and told.index(begin) < told.index("<h3>")
    assert "Nobody knows yet whether a letter brings anybody: compare" in told
    nobody = campaign()
    nobody["segments"][-1] |= {"control": 0}
    assert "Nobody is held back, so nobody will know" in monday_cards([profile], nobody)
    nobody["segments"][-1] |= {"send": 0}
    assert "can be written to now" not in monday_cards([profile], nobody)


def test_a_segment_that_bought_nothing_is_told_so(tmp_path):
    profile = {"segment": "Lost", "customers": 12, "share": 0.1, "revenue": 0.0, "recency": 458}
    profile |= {"revenue_share": 0.0, "frequency": 0, "basket_value": None}
    facts = facts_of(write_metrics(tmp_path, segments={"profiles": [profile]}))
    page = segment_pages(facts)["segment-lost"].text(facts)
    assert "bought nothing in the look-back; the last time was 458 days before" in page
    assert "0 times" not in page


@pytest.mark.parametrize("name, numbers", [("P1", 0), ("Soap", 1)])
def test_products_without_names_are_not_written_twice(tmp_path, name, numbers):
    top = [{"product_id": "P1", "product_name": name, "lists": 3}]
    said = {"customers": 9, "lines": 90, "products": 1, "top_products": top}
    page = "".join(
        PAGES["recommendations"].builder(
            facts_of(write_metrics(tmp_path, insights={"recommendations": said}))
        )
    )
    assert page.count(">Number<") == numbers and page.count(">P1<") == 1


@pytest.mark.parametrize("returns", [0, 3])
def test_a_source_without_returns_has_no_column_of_them(tmp_path, returns):
    shop = baskets_of(np.eye(5, 2, dtype=bool) | True, tmp_path)
    page = page_of("products", write_metrics(shop, data={"returns": returns}))
    assert ("This source holds no returns." in page) == (not returns)
    assert page.count("Returned") == (3 if returns else 0)  # a sentence and two tables


@pytest.mark.parametrize("returned", [0, 507])
def test_returns_that_a_status_names_are_returns_of_the_source(tmp_path, returned):
    """A shop of which a quarter came back holds returns, though no kept line is one."""
    books = {"rows_in": 2000, "kept": 1493, "rejected": 0, "collapsed": 0, "anonymous": 0}
    books |= {"returns": 0, "set_aside": returned, "by_reason": {"returned": returned}}
    books |= {"customers": 9, "baskets": 9, "revenue": 9.0, "revenue_by_fate": {}}
    shop = baskets_of(np.eye(5, 2, dtype=bool) | True, tmp_path)
    write_metrics(shop, data=books)
    said = "507 lines are left out as returned by status; no other line is a return."
    for name in ("products", "quality"):
        page = page_of(name, shop)
        assert (said in page) == bool(returned), name
        assert ("This source holds no returns." in page) == (not returned), name
    assert ("There are no returns" in page_of("data-sheet", shop)) == (not returned)
    quality = page_of("quality", shop)
    assert ("Lines that are rejected, or no sales by their status" in quality) == bool(returned)


@pytest.mark.parametrize(
    "change, told",
    [
        (None, "–"),
        (0.004, "0%"),
        (-0.004, "0%"),
        (-0.3, "−30%"),
        (9.5, "+950%"),
        (31.69, "over +999%"),
    ],
)
def test_a_trend_from_next_to_nothing_has_no_figure(change, told):
    assert _trend(change) == told


def test_what_a_letter_brings_is_never_rounded_to_nothing(tmp_path, monkeypatch):
    """In a shop that sells for cents a letter brings parts of one, and a wave a loss of 30."""
    wave = {"name": "may", "so_far": False, "treated": 90, "control": 10, "effect": 0.0034}
    wave |= {"low": -0.0011, "high": 0.0079, "profit": -0.3, "profit_low": -0.7, "profit_high": 0.1}
    history = {"measured": [wave], "targets": None, "refused": None}
    monkeypatch.setattr(offer_pages, "campaign_history", lambda run_dir: history)
    facts = Facts(tmp_path, insights={"currency": "€"})
    made = "".join(offer_pages._measured_waves(facts))
    assert "€0.0034 <small>(−€0.0011 to €0.01)" in made
    assert "−€0.30 <small>(−€0.70 to €0.10)" in made


def test_products_of_one_name_are_told_apart_by_their_numbers(tmp_path):
    rng = np.random.default_rng(7)
    bought = rng.random((3000, 40)) < rng.uniform(0.08, 0.14, 40)
    bought[:, 1] = bought[:, 0] & (rng.random(3000) < 0.8)
    shop = baskets_of(bought, tmp_path)
    shelf = pd.read_parquet(shop / "data/products.parquet")
    shelf["product_name"] = ["Milk", "Milk", *shelf["product_name"][2:]]
    shelf.to_parquet(shop / "data/products.parquet")
    customers = [str(n) for n in range(6)]
    lists = pd.DataFrame({"customer_id": customers * 2, "product_id": ["P00"] * 6 + ["P01"] * 6})
    lists.assign(rank=1, reason="popular").to_parquet(shop / "data/recommendations.parquet")
    groups = pd.DataFrame({"customer_id": customers, "segment": "Lost"})
    groups.to_parquet(shop / "data/segments.parquet")
    found = product_facts(shop)
    assert (found["pairs"][0]["one"], found["pairs"][0]["other"]) == ("Milk (P00)", "Milk (P01)")
    names = [row["name"] for row in found["top"]]
    assert len(names) == len(set(names)) and "Milk" not in names and "P02" in names
    assert [o["name"] for o in offer_facts(shop)["Lost"]] == ["Milk (P00)", "Milk (P01)"]


def test_a_share_that_no_past_month_shows_is_unknown():
    assert _effect(None, None) == "unknown: no past share"
    assert _effect(0.5, None) == "none: too few customers"


@pytest.mark.parametrize("names", [True, False])
def test_examples_of_flags_name_a_customer_only_where_a_run_may(tmp_path, names):
    flag = {"what": "Most", "lines": 9, "revenue": 9.0, "change": "Few.", "advice": "Ask."}
    raised = [
        flag | {"flag": "customers_not_met", "examples": ["K0042 in the log"]},
        flag | {"flag": "lookalike_id", "examples": ["customer_id k77", "product_id p1"]},
    ]
    books = {"rows_in": 9, "kept": 9, "customers": 2, "baskets": 3, "revenue": 9}
    write_metrics(tmp_path, plausibility={"raised": raised, "meeting": {}}, data=books)
    (tmp_path / "config.yaml").write_text(f"report: {{customers: {str(names).lower()}}}")
    page = page_of("quality", tmp_path)
    assert ("K0042" in page) == ("customer_id k77" in page) == names
    assert "product_id p1" in page


def test_a_part_of_a_month_is_marked_in_the_months_of_a_segment(tmp_path):
    months = [{"month": f"2025-{n:02}-01", "revenue": 9.0} for n in (11, 12)]
    told = [m | {"whole": n == 0, "basket_value": 1.0} for n, m in enumerate(months)]
    profile = {"segment": "Lost", "customers": 9, "share": 1.0, "revenue": 9.0}
    profile |= {"revenue_share": 1.0, "frequency": 1, "recency": 9, "basket_value": 1.0}
    write_metrics(tmp_path, segments={"profiles": [profile]}, insights={"months": told})
    facts = facts_of(tmp_path)
    rows = [m | {"baskets": 5, "customers": 5} for m in months]
    facts.by_segment = {"Lost": {"slipped": 0, "months": rows, "stories": []}}
    page = segment_pages(facts)["segment-lost"].text(facts)
    assert re.findall('datetime="([-0-9]+)">[^<]+</time>( .in part.)?', page) == [
        ("2025-11", ""),
        ("2025-12", " (in part)"),
    ]


def test_a_shop_that_sells_for_cents_reads_its_amounts(tmp_path):
    shop = baskets_of(np.eye(5, 2, dtype=bool) | True, tmp_path)
    log = pd.read_parquet(shop / "data/transactions.parquet").assign(revenue=0.01)
    log.to_parquet(shop / "data/transactions.parquet")
    assert "0.05" in page_of("products", shop), "five baskets of a cent"
    months = [{"month": "2025-03-01", "revenue": 0.1, "baskets": 5, "customers": 5}]
    months[0] |= {"basket_value": 0.02, "whole": True}
    write_metrics(shop, insights={"months": months, "currency": "€"})
    assert "€0.10" in page_of("sales", shop) and "€0.02" in page_of("sales", shop)
    dear = [months[0] | {"revenue": 64_186.4}]
    write_metrics(shop, insights={"months": dear, "currency": "€"})
    assert "€64,186€" not in page_of("sales", shop) and "€64,186" in page_of("sales", shop)


@pytest.mark.parametrize("window, before", [(365, 0), (100, 2)])
def test_who_bought_before_the_look_back_did_not_buy_once(tmp_path, window, before):
    shop = baskets_of(np.eye(5, 2, dtype=bool) | True, tmp_path)
    customers = [str(n) for n in range(5)]
    pd.DataFrame({"customer_id": customers, "segment": "One-time Buyers"}).to_parquet(
        shop / "data/segments.parquet"
    )
    features = pd.DataFrame({"customer_id": customers, "tenure": [10, 99, 100, 101, 300]})
    features.assign(monetary=1.0).to_parquet(shop / "data/features.parquet")
    (shop / "config.yaml").write_text(f"rfm: {{window_days: {window}}}")
    manifest = {"config": {"rfm": {"window_days": window}}}
    (shop / "manifest.json").write_text(json.dumps(manifest))
    profile = {"segment": "One-time Buyers", "customers": 5, "share": 1.0, "revenue": 9.0}
    profile |= {"revenue_share": 1.0, "frequency": 1, "recency": 9, "basket_value": 1.0}
    facts = facts_of(write_metrics(shop, segments={"profiles": [profile]}))
    words = f"last {window} days only: {before} of these 5 have bought before them."
    page = segment_pages(facts)["segment-one-time-buyers"].text(facts)
    assert (words in page) == bool(before) and (words in page_of("customers", shop)) == bool(before)


def test_the_page_of_movement_says_who_had_bought_before(tmp_path):
    """Counted by hand: at the end of June, 90 days look back to 2 April."""
    days = {"new": ["2025-06-01"], "edge": ["2025-04-02"], "eve": ["2025-04-01", "2025-06-02"]}
    days |= {"old": ["2024-12-01", "2025-05-01"], "loyal": ["2024-12-01", "2025-06-02"]}
    log = pd.DataFrame([(who, day) for who, all_ in days.items() for day in all_])
    log = log.set_axis(["customer_id", "day"], axis=1).assign(is_return=False, revenue=1.0)
    (tmp_path / "data").mkdir()
    log.assign(day=pd.to_datetime(log["day"])).to_parquet(tmp_path / "data/transactions.parquet")
    named = pd.DataFrame({"customer_id": list(days), "segment": "One-time Buyers"})
    named.loc[named["customer_id"] == "loyal", "segment"] = "Champions"
    ends = [named.assign(month_end=pd.Timestamp(end)) for end in ("2025-05-31", "2025-06-30")]
    pd.concat(ends).to_parquet(tmp_path / "data/snapshots.parquet")
    assert bought_before_month_end(tmp_path, 90) == {"One-time Buyers": 2, "Champions": 1}
    moved = {"fitted": True, "window_days": 90, "segments": []}
    moved["segments"] = [
        {"segment": s, "after": n} for s, n in (("One-time Buyers", 4), ("Lost", 1))
    ]
    told = _bought_before_then(Facts(tmp_path, movement=moved))
    assert "The name counts the last 90 days only: 2 of these 4 have bought before them." in told
    assert told.count("<p>") == 1
    assert _bought_before_then(Facts(tmp_path / "none", movement=moved)) == ""


def test_a_card_of_models_that_were_not_measured_has_no_limits_of_measuring(tmp_path):
    assert "after the cut" not in page_of("model-card", write_metrics(tmp_path, ranking={}))
    ranking = {"production": "ranker", "summary": {"any": {"leaders": []}}}
    assert "after the cut" in page_of("model-card", write_metrics(tmp_path, ranking=ranking))


def test_a_customer_of_one_month_is_not_seen_first_and_last_in_it():
    told = {"third": 1, "visits": 1, "spent": 7.0, "category": None, "n": 5}
    assert ", Beef above all" in _story(
        told | {"category": "Beef", "first": None, "last": None}, ""
    )
    once = _story(told | {"first": "2025-01-01", "last": "2025-01-01"}, "€")
    assert "seen in January 2025 alone" in once and "first in" not in once
    assert "about €7 in all" in once, "a rounded amount has no cents"
    assert "first in January 2025 and last in March 2025" in _story(
        told | {"first": "2025-01-01", "last": "2025-03-01"}, "€"
    )


@pytest.mark.parametrize("came", [0, 5])
def test_a_segment_in_which_nobody_came_has_no_best_month_and_no_story(tmp_path, came):
    """Few who are alike are another reason than nobody who came."""
    profile = {"segment": "Lost", "customers": 12_088, "share": 1.0, "revenue": 9.0}
    profile |= {"revenue_share": 1.0, "frequency": 1, "recency": 503, "basket_value": 1.0}
    months = [{"month": f"2025-{n:02}-01", "revenue": float(came * n)} for n in range(1, 13)]
    months = [m | {"baskets": came, "customers": came} for m in months]
    insights = {"months": [m | {"whole": True, "basket_value": 1.0} for m in months]}
    facts = facts_of(write_metrics(tmp_path, segments={"profiles": [profile]}, insights=insights))
    facts.by_segment = {"Lost": {"slipped": 0, "months": months, "stories": []}}
    page = segment_pages(facts)["segment-lost"].text(facts)
    assert ("Hardly anybody of the segment came in twelve months" in page) == (not came)
    assert ("too few customers who are alike" in page) == bool(came)
    assert ("December 2025 brought the most revenue" in page) == bool(came)


@pytest.mark.parametrize("covered", [2, 12])
def test_a_segment_has_no_months_before_the_log(tmp_path, covered):
    """A year before its first day is no year without sales."""
    profile = {"segment": "Champions", "customers": 90, "share": 1.0, "revenue": 9.0}
    profile |= {"revenue_share": 1.0, "frequency": 2, "recency": 5, "basket_value": 1.0}
    months = [
        {"month": f"2025-{n:02}-01", "revenue": 10.0 * (n > 12 - covered)} for n in range(1, 13)
    ]
    months = [m | {"baskets": 9, "customers": 9} for m in months]
    known = [m | {"whole": True, "basket_value": 1.0} for m in months[-covered:]]
    insights = {"months": known}
    facts = facts_of(write_metrics(tmp_path, segments={"profiles": [profile]}, insights=insights))
    story = {"third": 1, "visits": 2, "spent": None, "category": None, "n": 5}
    story |= {"first": None, "last": None}
    facts.by_segment = {"Champions": {"slipped": 0, "months": months, "stories": [story]}}
    page = segment_pages(facts)["segment-champions"].text(facts)
    assert page.count("<time ") == covered
    assert ("## Twelve months" in page and "In twelve months two" in page) == (covered == 12)
    assert ("Since November 2025 two visits" in page) == (covered == 2)


@pytest.mark.parametrize("days, shorter", [(365, False), (180, True)])
def test_a_look_back_is_called_shorter_where_it_is(tmp_path, days, shorter):
    (tmp_path / "data").mkdir()
    profile = {"segment": "At Risk", "customers": 2, "share": 1.0, "revenue": 9.0}
    profile |= {"revenue_share": 1.0, "frequency": 1, "recency": 9, "basket_value": 1.0}
    alerts = {"customers": 1, "value": 9.0, "unlikely_by_chance": 0}
    moved = {"fitted": True, "month_end": "2025-12-31", "window_days": days, "alerts": alerts}
    shop = write_metrics(tmp_path, segments={"profiles": [profile]}, movement=moved)
    facts = facts_of(shop)
    facts.by_segment = {"At Risk": {"slipped": 1, "months": [], "stories": []}}
    page = segment_pages(facts)["segment-at-risk"].text(facts)
    assert ("by the shorter look-back" in page) == shorter
    assert ("by the look-back" in page) == (not shorter)


@pytest.mark.parametrize("most, said", [(110.0, True), (10.0, False), (-5.0, False)])
def test_one_customer_who_brings_much_is_told(tmp_path, most, said):
    (tmp_path / "data").mkdir()
    features = pd.DataFrame({"monetary": [most] + [10.0] * 89})
    features.to_parquet(tmp_path / "data/features.parquet")
    profile = {"segment": "Lost", "customers": 90, "share": 1.0, "revenue": 9.0, "recency": 9}
    profile |= {"revenue_share": 1.0, "frequency": 1, "basket_value": 1.0}
    page = page_of("customers", write_metrics(tmp_path, segments={"profiles": [profile]}))
    assert ("One customer alone brings 11%." in page) == said  # 110 of 1,000


def test_a_list_that_finds_nothing_is_not_called_better():
    nothing = LIST | {"ndcg": {"a": 0.0, "b": 0.0004}}
    told = str(offers_line({"customers": 9, "any": nothing}))
    assert "no list that was tried found what customers bought" in told and "better" not in told
    some = LIST | {"ndcg": {"a": 0.02, "b": 0.0}}
    assert "came first in the held-out month" in offers_line({"customers": 9, "any": some})
    drawn = offers_line({"customers": 9, "any": some | {"like_random": True}})
    assert "not shown to be better than a list drawn at random" in drawn
    assert "came first" not in drawn
    some |= {"published_trails": True}
    assert "did better in the held-out month, beyond chance" in offers_line(
        {"customers": 9, "any": some}
    )


def test_nobody_slips_where_there_was_no_champion():
    lost = [{"segment": "One-time Buyers", "before": 9, "after": 9, "came": 0, "left": 0}]
    movement = {"fitted": True, "segments": lost, "alerts": {"customers": 0}}
    assert "no customer was a Champion or a Loyal Customer" in slipping_line(movement)
    one = FALSE_SHOP["movement"]
    alerts = one["alerts"] | {"customers": 1, "unlikely_by_chance": 1}
    normal = str(slipping_line(one | {"alerts": alerts}, "€"))
    assert "1 good customer slipped" in normal and "Begin with" not in normal
    alerts |= {"by_chance": 0.0, "chance_spread": 0.0}
    assert "write first to the one whose slip" in slipping_line(one | {"alerts": alerts}, "€")


@pytest.fixture
def finished(tmp_path):
    """A run whose home page and data page agree on the receipts and differ on the revenue."""
    data = {
        "rows_in": 10,
        "kept": 9,
        "customers": 3,
        "baskets": 4,
        "revenue": 100.0,
        "by_reason": {},
        "by_flag": {},
    }
    (tmp_path / "run/metrics").mkdir(parents=True)
    (tmp_path / "run/executed").mkdir()
    (tmp_path / "run/metrics/data.json").write_text(json.dumps(data))
    (tmp_path / "stage").mkdir()

    def with_home(revenue):
        card = str(figure_cards([{"name": "revenue", "value": revenue}], "€"))
        cell = {"cell_type": "code", "source": "", "outputs": [{"data": {"text/html": card}}]}
        book = {"cells": [cell | {"metadata": {}}], "metadata": {}}
        (tmp_path / "run/executed/index.ipynb").write_text(json.dumps(book))
        return write_pages(facts_of(tmp_path / "run"), tmp_path / "stage")

    return with_home


def test_a_report_that_contradicts_itself_is_not_built(finished):
    assert "quality" in finished(100.0)
    with pytest.raises(RunError, match="net_revenue is printed with different values: 90 on index"):
        finished(90.0)


@pytest.mark.parametrize("source, said", [("synthetic", True), ("shop.csv", False)])
def test_generated_data_is_called_so_on_every_page(finished, tmp_path, source, said):
    manifest = {"config": {"data": {"transactions": source}}}
    (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
    for name in finished(100.0):
        page = (tmp_path / "stage" / f"{name}.qmd").read_text()
        assert ("Demonstration data." in page) == said, name


def page_of(name, folder):
    """A page of a run as a reader sees it, without marks."""
    parts = PAGES[name].builder(facts_of(folder))
    return html.unescape(re.sub(r"<[^>]+>", "", "\n".join(parts)))


def write_metrics(folder, **metrics):
    """A run that has left these metrics."""
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    for name, content in metrics.items():
        (folder / f"metrics/{name}.json").write_text(json.dumps(content))
    return folder


def campaign(customers=100, segment="At Risk", notes=()):
    """What a campaign reaches in a shop of one segment, of which a tenth is held back."""
    row = {"customers": customers, "suppressed": 0, "no_consent": 0, "control": customers // 10}
    row |= {"send": customers - customers // 10, "buys_anyway": 0.5, "smallest_lift": 0.25}
    segments = [{"segment": name, **row} for name in (segment, "All")]
    return {"days": 30, "control": 0.1, "notes": list(notes), "segments": segments}


def test_who_agreed_to_be_contacted_is_told_wherever_somebody_can_be_written_to(tmp_path):
    unknown = "No column of the customers table says who agreed to be contacted: <ask>."
    profile = {"segment": "At Risk", "customers": 100, "revenue": 9.0, "revenue_share": 1.0}
    cards = str(monday_cards([profile], campaign(notes=[unknown])))
    assert "90</data> of 100 customers can be written to" in cards
    assert html.escape(unknown) in cards[cards.index("To the list") :], "below the cards"
    figures = [{"name": "revenue", "value": 9.0}]
    write_metrics(
        tmp_path,
        campaigns=campaign(notes=[unknown]),
        segments={"profiles": [profile]},
        insights={"figures": figures},
    )
    brief = page_of("brief", tmp_path)
    assert unknown in brief and brief.index(unknown) < brief.index("Can be written to")
    assert unknown in page_of("campaigns", tmp_path)


def test_who_is_left_out_is_told_in_one_sentence(tmp_path):
    told = campaign()
    told["segments"][-1] |= {"no_consent": 1282, "control": 303, "send": 4315, "customers": 5900}
    words = "303 are held back so that the effect can be measured."
    write_metrics(tmp_path, campaigns=told)
    assert f"Of the others, 1,282 have not agreed to be contacted and {words}" in page_of(
        "campaigns", tmp_path
    )
    told["segments"][-1] |= {"no_consent": 0}
    write_metrics(tmp_path, campaigns=told)
    assert f"Of the others, {words}" in page_of("campaigns", tmp_path)
    told["segments"][-1] |= {"control": 0}
    write_metrics(tmp_path, campaigns=told)
    assert "Of the others" not in page_of("campaigns", tmp_path), "everybody is written to"


@pytest.mark.parametrize(
    "forecast, words",
    [
        ({"used": "model", "season": 1.0}, "gamma-gamma for spend."),
        ({"used": "model and boosting", "season": 1.0}, "averaged with gradient boosting."),
        ({"used": "model", "season": 1.31}, "gamma-gamma for spend, a season of 1.31 times."),
    ],
)
def test_the_model_card_names_what_expects_the_value(tmp_path, forecast, words):
    write_metrics(tmp_path, worth={"fitted": True, "model": "mbg", "forecast": forecast})
    assert _worth_line(facts_of(tmp_path)).endswith(words)


def may_name(folder, told=True):
    """The run's config says whether pages may name customers."""
    (folder / "config.yaml").write_text(f"report: {{customers: {str(told).lower()}}}")


@pytest.mark.parametrize(
    "customers, named, buttons", [(20_000, True, 1), (20_001, True, 0), (100, False, 0)]
)
def test_a_list_has_a_button_where_the_site_has_the_list(tmp_path, customers, named, buttons):
    write_metrics(tmp_path, campaigns=campaign(customers))
    may_name(tmp_path, named)
    page = "\n".join(PAGES["campaigns"].builder(facts_of(tmp_path)))
    assert page.count('data-list="at_risk"') == page.count(">List<") == buttons


def test_a_button_saves_the_file_that_the_lists_hold(tmp_path, monkeypatch):
    def write(run, folder):
        folder.mkdir()
        for name in ("control.csv", "segment_control.csv", "summary.csv"):
            (folder / name).write_text(name)

    monkeypatch.setattr("retail_ci.report.shop_facts.write_campaigns", write)
    monkeypatch.setattr("retail_ci.report.shop_facts.open_run", lambda **kwargs: None)
    write_metrics(tmp_path, campaigns=campaign(segment="Control"))
    may_name(tmp_path)
    page = "\n".join(PAGES["campaigns"].builder(facts_of(tmp_path)))
    saved = re.findall('data-list="([^"]+)"', page)
    assert saved == ["segment_control"] and set(saved) <= set(list_files(tmp_path))


def baskets_of(bought, folder):
    """A run whose baskets are the rows of a matrix of yes and no, products in columns."""
    basket, product = np.nonzero(bought)
    log = pd.DataFrame({"transaction_id": basket.astype(str), "customer_id": basket.astype(str)})
    log["product_id"] = [f"P{n:02}" for n in product]
    log = log.assign(revenue=1.0, is_return=False, day=pd.Timestamp("2025-03-01"))
    shelf = pd.DataFrame({"product_id": [f"P{n:02}" for n in range(bought.shape[1])]})
    shelf = shelf.assign(product_name=shelf["product_id"], category="all")
    (folder / "data").mkdir()
    log.to_parquet(folder / "data/transactions.parquet")
    shelf.to_parquet(folder / "data/products.parquet")
    return folder


def test_products_that_are_bought_independently_are_no_pair(tmp_path):
    rng = np.random.default_rng(7)
    bought = rng.random((3000, 40)) < rng.uniform(0.08, 0.14, 40)
    assert (bought.T.astype(int) @ bought)[np.triu_indices(40, 1)].max() >= 40, "enough baskets"
    page = page_of("products", baskets_of(bought, tmp_path))
    assert "No two best sellers stand in one basket more often than by chance." in page
    assert "This run has no lists of recommendations." in page
    assert "Every product that sold lately is on some list" not in page
    none = pd.DataFrame({"customer_id": [], "product_id": [], "rank": [], "reason": []})
    none.to_parquet(tmp_path / "data/recommendations.parquet")
    assert "This run has no lists of recommendations." in page_of("products", tmp_path)


def test_a_shop_without_categories_is_told_so(tmp_path):
    shop = baskets_of(np.eye(5, 2, dtype=bool) | True, tmp_path)
    shelf = pd.read_parquet(shop / "data/products.parquet").assign(category="Uncategorised")
    shelf.to_parquet(shop / "data/products.parquet")
    page = page_of("products", shop)
    assert "This source names no categories." in page and "Best buyers" not in page
    assert "Uncategorised" not in page and "Category" not in page


def test_products_that_go_together_are_a_pair(tmp_path):
    rng = np.random.default_rng(7)
    bought = rng.random((3000, 40)) < rng.uniform(0.08, 0.14, 40)
    bought[:, 1] = bought[:, 0] & (rng.random(3000) < 0.8)
    (pair,) = product_facts(baskets_of(bought, tmp_path))["pairs"]
    both = int(bought[:, 1].sum())
    assert (pair["one"], pair["other"], pair["baskets"]) == ("P00", "P01", both)
    assert set(pair) == {"one", "other", "baskets", "lift"}
    baskets = int(bought.any(axis=1).sum())
    assert pair["lift"] == pytest.approx(both * baskets / (int(bought[:, 0].sum()) * both))


def test_a_reason_is_told_of_the_lists_that_have_it(tmp_path):
    baskets_of(np.eye(5, 2, dtype=bool) | True, tmp_path)
    customers = [str(n) for n in range(5)]
    reasons = ["new, like P01, which you bought"] * 3 + ["popular now"] * 2
    lists = pd.DataFrame({"customer_id": customers, "product_id": "P00", "rank": 1})
    lists.assign(reason=reasons).to_parquet(tmp_path / "data/recommendations.parquet")
    pd.DataFrame({"customer_id": customers, "segment": "At Risk"}).to_parquet(
        tmp_path / "data/segments.parquet"
    )
    page = page_of("campaigns", write_metrics(tmp_path, campaigns=campaign()))
    assert "It is similar to something that you bought. (3 of 5)" in page
    assert "Most frequent reason, and on how many lists" in page


@pytest.mark.parametrize("value", [5.0, 0.0])
def test_a_shop_with_one_receipt_has_its_pages(tmp_path, value):
    names = ("revenue", "customers", "baskets", "basket_value")
    figures = [{"name": n, "value": value if n in names[::3] else 1} for n in names]
    data = {"rows_in": 1, "kept": 1, "customers": 1, "baskets": 1, "revenue": value}
    write_metrics(tmp_path, insights={"figures": figures}, data=data)
    (tmp_path / "stage").mkdir()
    assert set(write_pages(facts_of(tmp_path), tmp_path / "stage")) == set(PAGES)


@pytest.mark.parametrize("name", ["quality", "data-sheet", "model-card"])
def test_customers_with_returns_alone_have_a_name_of_their_own(tmp_path, name):
    data = {"rows_in": 9, "kept": 8, "customers": 1005, "baskets": 7, "revenue": 8.0}
    page = "\n".join(PAGES[name].builder(facts_of(write_metrics(tmp_path, data=data))))
    assert '<data class="figure-of" data-name="customers_seen" value="1005">1,005</data>' in page
    assert "those with returns alone" in page
    assert "those with returns alone included" in DEFINITIONS["customers_seen"].formula


def test_a_page_reads_the_tables_of_a_run_once(tmp_path, monkeypatch):
    read = []
    for name in ("product_facts", "offer_facts", "campaign_metrics"):
        monkeypatch.setattr(
            f"retail_ci.report.page_parts.{name}", lambda run, name=name: read.append(name) or {}
        )
    (tmp_path / "stage").mkdir()
    write_pages(
        Facts(tmp_path, insights={"figures": [{"name": "revenue", "value": 1.0}]}),
        tmp_path / "stage",
    )
    assert sorted(read) == ["campaign_metrics", "offer_facts", "product_facts"]


def test_every_goal_of_the_config_is_a_defined_figure_and_gets_one_line(tmp_path):
    goals = dict.fromkeys(vars(GoalsConfig()), 0.5)
    assert goals.keys() <= DEFINITIONS.keys()
    lines = pd.DataFrame({"customer_id": ["a", "a", "b"], "is_return": False})
    lines["day"] = pd.to_datetime(["2025-01-03", "2025-02-03", "2025-02-04"])
    lines.to_parquet(tmp_path / "log.parquet")
    february = {"month": "2025-02-01T00:00:00", "revenue": 9.0, "customers": 2, "baskets": 2}
    february |= {"basket_value": 4.5, "whole": True}
    found = goal_facts(goals, [february], tmp_path / "log.parquet")
    assert [told["name"] for told in found] == list(goals)
    shown = str(goal_lines(found, "€"))
    assert shown.count("<li>Goal reached") == len(goals) == shown.count("February 2025")
    assert str(goal_lines(goal_facts(vars(GoalsConfig()), [february], tmp_path), "€")) == ""


def test_a_shop_with_a_category_per_product_gets_a_table_that_can_be_read(tmp_path):
    row = {"products": 1, "change": None, "returned": 0.0, "customers": 1}
    rows = [row | {"category": f"C{n}", "name": f"P{n}", "revenue": 1000.0 - n} for n in range(700)]
    found = {"products": 700, "half": 300, "days": None, "categories": rows, "top": rows[:25]}
    facts = Facts(tmp_path)
    facts.__dict__["products"] = found | {"pairs": [], "never": None, "never_count": 0}
    table = PAGES["products"].text(facts).partition("## Products")[0]
    assert table.count("<tr>") == 51 and ">C49<" in table and ">C50<" not in table
    assert ">0.22%<" in table and ">0%<" not in table  # 1,000 of 455,350
    left = sum(row["revenue"] for row in rows[50:])
    assert f"Not in the table: 650 with less revenue, {left:,.0f} together." in table


def panel_titles(rows, movement=None, worth=None, ranking=None, months=2):
    """The titles of the dashboard's panels, the rows of the segments given."""
    profiles = pd.DataFrame(rows, columns=["segment", "customers", "revenue", "recency"])
    profiles["frequency"] = 9 - profiles["recency"] // 30
    profiles["share"] = profiles["customers"] / profiles["customers"].sum()
    profiles["revenue_share"] = profiles["revenue"] / profiles["revenue"].sum()
    days = pd.date_range("2025-01-01", periods=months, freq="MS")
    year = pd.DataFrame({"month": days, "revenue": np.arange(months) * 10.0 + 90.0})
    year = year.assign(baskets=3, customers=2, basket_value=30.0, whole=True)
    figure = _plot_dashboard(profiles, year, ranking or {}, movement or {}, worth or {})
    titles = [" ".join(axes.get_title(loc="left").split()) for axes in figure.axes]
    pyplot().close(figure)
    return titles


def test_names_on_the_map_of_recency_and_frequency_do_not_cover_each_other():
    rows = [  # as in a shop of records: segment, customers, recency, frequency
        *[("Champions", 2169, 52, 8), ("Loyal Customers", 3458, 234, 2)],
        *[("Steady Customers", 1769, 31, 3), ("New Customers", 3, 89, 1)],
        *[("At Risk", 4083, 417, 3), ("Lost", 12_088, 503, 1)],
    ]
    profiles = pd.DataFrame(rows, columns=["segment", "customers", "recency", "frequency"])
    profiles["share"] = profiles["customers"] / profiles["customers"].sum()
    use_style()
    figure, axis = pyplot().subplots(figsize=(4.0, 3.2))
    try:
        _scatter_panel(axis, profiles)
        figure.canvas.draw()
        boxes = {text.get_text(): text.get_window_extent() for text in axis.texts}
    finally:
        pyplot().close(figure)
    pairs = itertools.combinations(profiles["segment"], 2)
    assert [(a, b) for a, b in pairs if boxes[a].overlaps(boxes[b])] == []


def test_a_picture_of_a_shop_without_findings_has_its_measures_as_titles():
    moved = {"fitted": True, "month_end": "2025-12-31", "counts": {"rose": 55, "fell": 45}}
    moved["segments"] = [{"segment": "Lost", "came": 3, "left": 3}]
    even = {"value_90": 10.0, "value_90_low": 5.0, "value_90_high": 15.0}
    worth = {"fitted": True, "segments": [{"segment": s, **even} for s in ("Champions", "Lost")]}
    alike = [("Champions", 50, 500.0, 30), ("Lost", 50, 500.0, 30)]
    assert panel_titles(alike, moved, worth) == [
        "Customers",
        "Share of known revenue",
        "Revenue per customer",
        "Recency and frequency",
        "Customers who came and who left",
        "Expected in 90 days, 95% interval",
        "Net revenue per month",
        "Customers who bought from their list",
    ]


def test_the_titles_of_a_shop_with_findings_state_them():
    moved = {"fitted": True, "month_end": "2025-12-31", "counts": {"rose": 60, "fell": 30}}
    moved["segments"] = [{"segment": "Lost", "came": 3, "left": 3}]
    apart = {"Champions": (100.0, 80.0, 120.0), "Lost": (10.0, 5.0, 15.0)}
    names = ("value_90", "value_90_low", "value_90_high")
    segments = [{"segment": s, **dict(zip(names, v))} for s, v in apart.items()]
    rates = {"a": 0.9, "personal_decayed": 0.8, "recent_popularity": 0.5}
    hits = {
        m: {"hit_rate": {"value": r, "low": r - 0.02, "high": r + 0.02}} for m, r in rates.items()
    }
    ranking = {"production": "a", "any": hits, "summary": {"any": {"leaders": list(rates)}}}
    rows = [("Champions", 20, 800.0, 5), ("Lost", 80, 200.0, 200)]
    worth = {"fitted": True, "segments": segments}
    assert panel_titles(rows, moved, worth, ranking, months=3) == [
        "Lost are the largest group",
        "Champions bring the most revenue",
        "Champions spend far more than the average customer",
        "Champions come most often, Lost stay away longest",
        "More customers rose than fell",
        "Champions are expected to bring the most",
        "March 2025 brought the most revenue",
        "More bought from our lists than from best sellers",
    ]


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """A shop of two segments over 18 months, whose medicines are sensitive."""
    rng = np.random.default_rng(11)
    folder = tmp_path_factory.mktemp("segmented")
    (folder / "data").mkdir()
    lines = pd.DataFrame({"customer_id": [f"ID{c:05}" for c in rng.integers(0, 400, 6000)]})
    lines["transaction_id"] = [f"B{n}" for n in range(len(lines))]
    lines["product_id"] = rng.choice(["soap", "cream", "pill"], len(lines), p=[0.3, 0.2, 0.5])
    lines["revenue"] = rng.choice([9.0, 20.0, 70.0], len(lines))
    lines["is_return"] = False
    lines["day"] = pd.Timestamp("2024-07-01") + pd.to_timedelta(rng.integers(0, 540, 6000), "D")
    lines.to_parquet(folder / "data/transactions.parquet")
    shelf = pd.DataFrame({"product_id": ["soap", "cream", "pill"]})
    shelf["category"] = ["washing", "skin", "medicine"]
    shelf.to_parquet(folder / "data/products.parquet")
    people = pd.DataFrame({"customer_id": sorted(set(lines["customer_id"]))})
    people["segment"] = np.where(people.index % 3, "Champions", "At Risk")
    people.to_parquet(folder / "data/segments.parquet")
    people[["customer_id"]].iloc[::9].to_parquet(folder / "data/alerts.parquet")
    (folder / "config.yaml").write_text("data: {sensitive: {category: [medicine]}}")
    return folder, lines, people


def test_at_least_five_customers_fit_a_story_and_no_sensitive_category_is_told(segmented):
    folder, lines, people = segmented
    log = lines.merge(people, on="customer_id")
    log["month"] = log["day"].dt.strftime("%Y-%m-01")
    year = log[log["month"] >= "2025-01-01"]
    told = segment_facts(folder)
    assert sorted(told) == ["At Risk", "Champions"]
    for name, found in told.items():
        assert len(found["stories"]) == 3 and [s["third"] for s in found["stories"]] == [1, 2, 3]
        assert {s["category"] for s in found["stories"]} <= {None, "washing", "skin"}
        months = [row["month"] for row in found["months"]]
        assert (months[0], months[-1], len(months)) == ("2025-01-01", "2025-12-01", 12)
        mine = year[year["segment"] == name]
        by_month = mine.groupby("month")["revenue"].sum()
        assert [row["revenue"] for row in found["months"]] == pytest.approx(by_month.tolist())
        sums = mine.groupby("customer_id")["revenue"].sum()
        one_digit = sums.map(lambda spent: float(f"{spent:.0e}"))
        visits = mine.groupby("customer_id")["transaction_id"].nunique()
        for story in found["stories"]:
            below = {6: 3, 10: 6, 20: 10, 50: 20}.get(story["visits"], story["visits"] - 1)
            fits = (one_digit == story["spent"]) & visits.between(below + 1, story["visits"])
            assert fits.sum() >= story["n"] >= 5


def test_a_page_of_a_segment_says_what_it_is_and_names_nobody(segmented, tmp_path):
    folder, _, people = segmented
    sizes = people["segment"].value_counts()
    profiles = [
        {"segment": s, "customers": int(n), "share": n / len(people), "revenue": 900.0}
        | {"revenue_share": 0.5, "recency": 9, "frequency": 1, "action": f"Write to {s}."}
        for s, n in sizes.items()
    ]
    slips = {"customers": 45, "by_chance": 44.0, "chance_spread": 3.0}
    movement = {"fitted": True, "month_end": "2025-12-31", "alerts": slips}
    facts = facts_of(folder)
    facts.segments = {"profiles": profiles}
    facts.movement = movement
    pages = segment_pages(facts)
    assert sorted(pages) == ["segment-at-risk", "segment-champions"]
    page = pages["segment-at-risk"].text(facts)
    words = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "Write to At Risk." in words and "bought once; the last time was 9 days" in words
    assert words.count("customers fit this.") == 3 and "ID0" not in page
    assert "medicine" not in page and "pill" not in page
    slipped = int(people.iloc[::9]["segment"].eq("At Risk").sum())
    assert f"{slipped} of the 45 who slipped are here" in words and "a normal month" in words
    facts.movement = {}
    facts.by_segment["At Risk"]["stories"] = []
    bare = pages["segment-at-risk"].text(facts)
    assert "a story could be recognised" in bare and "This run cannot say who slipped" in bare
