"""The example that uses the package as a library: it runs, it is short, and its results are those
of an independent computation.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def code_cells() -> list[str]:
    cells = json.loads((EXAMPLES / "library.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


@pytest.fixture(scope="module")
def room() -> dict:
    """The names that the notebook leaves behind."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        names = {}
        for cell in code_cells():
            exec(compile(cell, "library.ipynb", "exec"), names)
        return names
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def kept(room) -> pd.DataFrame:
    """The lines that count, found with pandas alone."""
    return room["sales"].drop_duplicates().query("pieces != 0").reset_index(drop=True)


def test_it_has_at_most_forty_lines():
    lines = [line for cell in code_cells() for line in cell.splitlines()]
    assert len([line for line in lines if line.strip()]) <= 40


def test_every_line_has_its_fate(room, kept):
    books = room["done"].books.set_index(["fate", "reason"])["lines"]
    assert books.sum() == len(room["sales"])
    assert books["rejected", "zero_quantity"] == 12
    assert books["kept", ""] == len(kept)


def test_the_revenue_is_what_was_paid(room, kept):
    assert room["log"]["revenue"].sum() == pytest.approx(kept["paid"].sum(), abs=0.005)
    theirs = kept.groupby("store")["paid"].sum()
    assert room["by_store"] == pytest.approx(theirs.to_dict(), abs=0.005)


def test_customers_and_their_measures(room, kept):
    bought = kept[kept["card"].notna() & (kept["pieces"] > 0)]
    features = room["features"].set_index("customer_id")
    assert set(features.index) == set(bought["card"])
    day = kept["sold_at"].max().normalize() + pd.Timedelta(days=1)
    recent = kept[kept["sold_at"] >= day - pd.Timedelta(days=365)]
    spent = recent.groupby("card")["paid"].sum().reindex(features.index, fill_value=0.0)
    assert features["monetary"].to_numpy() == pytest.approx(spent.to_numpy(), abs=0.005)
    last = bought.groupby("card")["sold_at"].max().dt.normalize()
    assert features["recency"].eq((day - last).dt.days.reindex(features.index)).all()
    baskets = recent[recent["pieces"] > 0].groupby("card")["receipt"].nunique()
    assert features["frequency"].eq(baskets.reindex(features.index, fill_value=0)).all()


def test_everybody_has_one_segment_value_and_group(room):
    customers = sorted(room["features"]["customer_id"])
    for table in ("segments", "value", "lists"):
        assert sorted(room[table]["customer_id"]) == customers
    assert set(room["segments"]["segment"]) == set(room["model"].names_)
    assert (room["model"].labels_ == room["segments"]["segment"]).all()
    assert (room["value"]["value_365"] >= room["value"]["value_90"]).all()
    before, after = room["migration"].states.iloc[:, -2:].T.to_numpy()
    there = pd.Series(after) != "Not yet a customer"
    assert room["migration"].matrix.to_numpy().sum() == there.sum()
    assert len(before) == len(after)


def test_offers_are_known_products_that_are_new_to_the_customer(room, kept):
    offers = room["offers"]
    assert set(offers["product_id"]) <= set(room["articles"]["article"])
    sold = kept[(kept["pieces"] > 0) & kept["card"].notna()]
    had = set(zip(sold["card"], sold["article"]))
    assert not had & set(zip(offers["customer_id"], offers["product_id"]))
    assert offers.groupby("customer_id").size().max() == 5


def test_lists_hold_whom_they_may(room):
    lists = room["lists"].set_index("customer_id")
    labels = set(room["articles"]["label"])
    for place in (1, 2, 3):
        assert set(lists[f"name_{place}"].dropna()) <= labels
    said_yes = room["members"].set_index("card")["consent"].eq("true")
    reached = lists.index[lists["group"].isin(["send", "control"])]
    assert said_yes.reindex(reached, fill_value=False).all()
    for _segment, part in lists[lists["group"].isin(["send", "control"])].groupby("segment"):
        assert (part["group"] == "control").sum() == int(len(part) * 0.1 + 0.5)


def test_both_models_were_measured_on_the_same_customers(room):
    table = room["evaluation"].table
    assert set(table["model"]) == {"mine", "ours"}
    scores = room["evaluation"].scores["any"]
    assert len(scores["mine"]["ndcg"]) == len(scores["ours"]["ndcg"]) > 50
