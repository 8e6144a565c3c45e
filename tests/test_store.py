"""Stores, baskets whose numbers start anew, and what revenue means: each figure against a plain
pandas computation, on every engine and by every door.
"""

import html
import re
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

import retail_ci
from retail_ci.core.config import Config, DataConfig, load_config
from retail_ci.core.errors import ConfigError, DataError
from retail_ci.core.runs import Run
from retail_ci.data.cleaning import _store_facts, by_store, clean, customer_lines, open_log, prepare
from retail_ci.data.contract import KEPT, revenue_sentence
from retail_ci.data.engines import close, connect, to_pandas
from retail_ci.data.proposal import closing, examine, proposal
from retail_ci.data.sources import open_source
from retail_ci.data.synthetic import generate
from retail_ci.export.powerbi import export_powerbi
from retail_ci.export.star_schema import TABLES
from retail_ci.report.page_parts import Facts
from retail_ci.report.pages import PAGES

ROOT = Path(__file__).parents[1]
CASES = next((p / "shared/cases" for p in ROOT.parents if (p / "shared/cases").is_dir()), None)
BASKET = ["transaction_id", "date", "store_id"]


def till_log() -> pd.DataFrame:
    """Three stores, ten days, receipts that start at 1 every morning in each store."""
    rng = np.random.default_rng(11)
    rows = []
    for day in range(10):
        for store in ("North", "South", None):
            for number in range(1, 8):
                customer = None if rng.random() < 0.2 else f"C{rng.integers(12):02d}"
                for product in rng.choice(9, 1 + rng.integers(3), replace=False):
                    rows.append(
                        {
                            "transaction_id": f"{number:04d}",
                            "customer_id": customer,
                            "product_id": f"P{product}",
                            "store_id": store,
                            "date": pd.Timestamp("2025-03-01") + pd.Timedelta(days=day, hours=9),
                            "quantity": float(rng.integers(1, 4)),
                            "price": float(rng.integers(4, 80)) / 4,
                        }
                    )
    log = pd.DataFrame(rows)
    log.loc[::17, "quantity"] = -1.0
    return log


def taxed_log() -> pd.DataFrame:
    """Lines with a list price, a discount and a tax that was added on top of what was left."""
    rng = np.random.default_rng(5)
    n = 200
    log = pd.DataFrame(
        {
            "transaction_id": [f"B{i // 2:04d}" for i in range(n)],
            "customer_id": [f"C{i // 2 % 20:02d}" for i in range(n)],
            "product_id": [f"P{p}" for p in rng.integers(0, 9, n)],
            "date": pd.Timestamp("2025-03-01") + pd.to_timedelta(np.arange(n) // 2, unit="h"),
            "quantity": rng.integers(1, 5, n).astype(float),
            "price": rng.integers(8, 80, n) / 4,
            "off": rng.choice([0.0, 0.1, 0.25], n),
            "rate": rng.choice([0.07, 0.19], n),
        }
    )
    log.loc[::20, "quantity"] *= -1
    gross = log["quantity"] * log["price"]
    log["discount_amount"] = (gross * log["off"]).abs()
    log["paid"] = gross * (1 - log["off"])
    log["vat"] = (log["paid"] * log["rate"]).abs()
    log["vat_inside"] = (log["paid"] * log["rate"] / (1 + log["rate"])).abs()
    return log


# The baskets of a till that starts anew


def test_receipts_that_start_anew_each_day_are_twenty_baskets_and_not_one():
    if CASES is None:
        pytest.skip("the shared cases are not beside the checkout")
    log = pd.read_csv(CASES / "daily_receipts" / "t.csv", dtype=str)
    days = log.groupby("customer_id")["date"].nunique()
    assert set(days) == {20}
    one = clean(log)
    assert one.facts["baskets"] == 5
    done = clean(log, basket=["transaction_id", "date"])
    frequency = done.transactions.groupby("customer_id")["transaction_id"].nunique()
    assert frequency.to_dict() == days.to_dict()
    features = retail_ci.customer_features(done.transactions)
    assert set(features["frequency"]) == {20}


def test_a_basket_is_number_day_and_store():
    log = till_log()
    right = log.assign(store_id=log["store_id"].fillna(""), day=log["date"].dt.date)
    done = clean(log, basket=BASKET)
    assert done.facts["baskets"] == right.groupby(["transaction_id", "day", "store_id"]).ngroups
    assert done.facts["by_flag"]["shared_basket"] == 0
    assert clean(log, basket=["transaction_id", "date"]).facts["by_flag"]["shared_basket"] > 0
    assert done.transactions["store_id"].isna().sum() == log["store_id"].isna().sum()
    order = clean(log, basket=["store_id", "date", "transaction_id"]).transactions
    assert order["transaction_id"].equals(done.transactions["transaction_id"])


def test_the_advice_for_one_basket_under_two_customers_names_the_key():
    books = clean(till_log())
    assert books.facts["by_flag"]["shared_basket"] > 0
    rules = {r.name: r for r in KEPT}
    assert "data.basket" in rules["shared_basket"].advice


def test_without_receipts_a_basket_can_be_a_customers_day_in_a_store():
    log = till_log().drop(columns="transaction_id")
    done = clean(log, basket=["customer_id", "date", "store_id"])
    known = log.dropna(subset="customer_id").assign(store_id=lambda t: t["store_id"].fillna(""))
    visits = known.groupby(["customer_id", known["date"].dt.date, "store_id"]).ngroups
    assert done.facts["baskets"] == visits + done.facts["anonymous"]


def test_a_cancellation_is_known_by_its_number_whatever_the_basket_takes():
    log = till_log()
    log.loc[5, "transaction_id"] = "C0003"
    log.loc[5, "quantity"] = 2.0
    done = clean(log, basket=BASKET, cancelled_prefix="C")
    (line,) = done.transactions[
        done.transactions["transaction_id"].str.startswith("C")
    ].itertuples()
    assert line.quantity == -2 and line.is_return


@pytest.mark.parametrize(
    "basket, error, words",
    [
        (
            ["transaction_id", "shop"],
            ConfigError,
            "basket' must be a list of one of .*'store_id', found",
        ),
        (["date"], ConfigError, "must name transaction_id or customer_id"),
        (["transaction_id", "store_id"], DataError, "data.basket names store_id, and the trans"),
    ],
)
def test_a_basket_that_cannot_be_made_is_refused_in_one_sentence(basket, error, words):
    with pytest.raises(error, match=words):
        clean(till_log().drop(columns="store_id"), basket=basket)


# Every door and every engine


def test_arrow_tables_and_paths_give_what_frames_give(tmp_path):
    log = till_log()
    log.to_csv(tmp_path / "log.csv", index=False)
    log.to_parquet(tmp_path / "log.parquet")
    wanted = clean(log, basket=BASKET).transactions
    assert {"store_id"} < set(wanted.columns)
    arrow = pa.Table.from_pandas(log, preserve_index=False)
    for given in (arrow, str(tmp_path / "log.csv"), tmp_path / "log.parquet"):
        got = clean(given, basket=BASKET).transactions
        got = to_pandas(got) if isinstance(got, ibis.Table) else got
        pd.testing.assert_frame_equal(got, wanted, check_dtype=False)
    with open_log(log.drop_duplicates(), basket=BASKET) as lines:
        assert lines.transaction_id.nunique().execute() == wanted["transaction_id"].nunique()
    with open_log(wanted) as lines:
        assert "store_id" in lines.columns


SETTINGS = {
    "basket": BASKET,
    "columns": {"store_id": "store", "discount": "off", "tax": "vat"},
    "rates": {"discount": "share"},
    "amounts": {"tax": "net"},
    "revenue": {"tax": "gross"},
    "duplicates": "keep",
}


def both_logs() -> pd.DataFrame:
    """Stores, discounts and taxes in one log, with lines that cannot be true."""
    log = taxed_log()[
        ["transaction_id", "customer_id", "product_id", "date", "quantity", "price", "off", "vat"]
    ]
    log["store"] = ["North", "South", "East", None] * 50
    log["vat"] = log["vat"].round(2)
    log.loc[3, "off"] = 1.5
    log.loc[8, "vat"] = -1.0
    return log


def told(result) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    lines = to_pandas(result.transactions).astype({"weekday": int, "hour": int})
    order = ["date", "transaction_id", "product_id", "revenue"]
    stores = by_store(result.transactions)
    return result.facts, lines.sort_values(order, ignore_index=True), stores


def same(got, wanted) -> None:
    facts = [{k: v for k, v in f[0].items() if k != "by_reason"} for f in (got, wanted)]
    assert facts[0] == facts[1]
    reasons = [{k: n for k, n in f[0]["by_reason"].items() if n} for f in (got, wanted)]
    assert reasons[0] == reasons[1]
    pd.testing.assert_frame_equal(got[1], wanted[1], check_dtype=False)
    pd.testing.assert_frame_equal(got[2], wanted[2], check_dtype=False)


@pytest.fixture(scope="module")
def on_duckdb(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "log.csv"
    both_logs().to_csv(path, index=False)
    settings = DataConfig(transactions=str(path), **SETTINGS)
    con = connect(settings)
    source = open_source(con, "transactions", settings)
    found = told(prepare(con, source.table, settings, parts=source.parts))
    streamed, _ = customer_lines(source.table, settings)
    assert streamed.revenue.sum().execute() == pytest.approx(found[1]["revenue"].sum())
    close(con)
    return path, found


def test_duckdb_counts_what_cannot_be_true(on_duckdb):
    facts, lines, _ = on_duckdb[1]
    log = both_logs().drop(index=[3, 8])
    right = log["quantity"] * log["price"] * (1 - log["off"]) + log["vat"] * np.sign(
        log["quantity"]
    )
    assert {k: n for k, n in facts["by_reason"].items() if n} == {"bad_discount": 1, "bad_tax": 1}
    assert facts["revenue"] == pytest.approx(right.sum())
    assert facts["revenue_is"] == {"discount": "net", "tax": "gross"}
    taken = (log["quantity"] * log["price"] * log["off"]).sum()
    assert facts["parts"]["discount"] == pytest.approx(taken)
    assert facts["by_flag"]["contradiction"] == 0
    assert lines["store_id"].nunique() == 3


def test_postgres_gives_the_same(postgres, on_duckdb):
    types = dict.fromkeys(["quantity", "price", "off", "vat"], "double precision")
    log = both_logs()
    postgres.fill("tills", log, dict.fromkeys(log, "text") | types | {"date": "timestamp"})
    settings = DataConfig(transactions=postgres.url("tills"), **SETTINGS)
    con = connect()
    source = open_source(con, "transactions", settings)
    same(told(prepare(source.backend, source.table, settings)), on_duckdb[1])
    close(con)


def test_spark_gives_the_same(spark, on_duckdb):
    settings = DataConfig(transactions=str(on_duckdb[0]), engine="spark", **SETTINGS)
    source = open_source(spark, "transactions", settings)
    same(told(prepare(spark, source.table, settings, parts=source.parts)), on_duckdb[1])


# What revenue means


@pytest.mark.parametrize("tax", ["net", "gross"])
@pytest.mark.parametrize("discount", ["net", "gross"])
@pytest.mark.parametrize("given", ["price", "amount before", "amount after", "rates"])
def test_revenue_is_what_the_config_asks_for(given, discount, tax):
    log = taxed_log()
    gross = log["quantity"] * log["price"]
    columns = {"discount": "discount_amount", "tax": "vat"}
    options: dict = {"amounts": {"tax": "net"}}
    if given == "amount before":
        log["amount"] = gross
        columns["revenue"] = "amount"
        options = {"amounts": {"discount": "gross", "tax": "net"}}
    elif given == "amount after":
        log["amount"] = log["paid"]
        columns["revenue"] = "amount"
    elif given == "rates":
        columns["discount"], columns["tax"] = "off", "rate"
        options["rates"] = {"discount": "share", "tax": "share"}
    done = clean(log, columns=columns, revenue={"discount": discount, "tax": tax}, **options)
    kept = gross if discount == "gross" else log["paid"]
    due = log["vat"] * np.sign(log["quantity"])
    if given == "rates":  # a rate is of the amount that it is applied to
        due = kept * log["rate"]
    right = kept + due if tax == "gross" else kept
    exact = 1e-4 if given == "rates" else 1e-9  # a rate gives ten-thousandths
    np.testing.assert_allclose(done.transactions["revenue"], right, atol=exact)
    assert done.facts["revenue"] == pytest.approx(right.sum(), abs=0.01)
    assert done.facts["revenue_is"] == {"discount": discount, "tax": tax}
    assert done.facts["by_flag"]["contradiction"] == len(done.rejected) == 0


@pytest.mark.parametrize("rates", [{}, {"tax": "percent"}])
def test_a_tax_inside_the_price_is_taken_out(rates):
    log = taxed_log()
    log["percent"] = (100 * log["rate"]).round().astype(int).astype(str) + " %"
    columns = {"discount": "discount_amount", "tax": "percent" if rates else "vat_inside"}
    done = clean(log, columns=columns, revenue={"tax": "net"}, rates=rates)
    right = log["paid"] / (1 + log["rate"])
    np.testing.assert_allclose(done.transactions["revenue"], right, atol=1e-4)


def test_a_column_called_discount_counts_only_where_it_is_named():
    log = taxed_log().rename(columns={"discount_amount": "discount", "vat": "tax"})
    plain = clean(log)
    assert "revenue_is" not in plain.facts and "discount" not in plain.transactions
    assert plain.facts["revenue"] == pytest.approx((log["quantity"] * log["price"]).sum())
    named = clean(log, columns={"discount": "discount"})
    assert named.facts["revenue"] == pytest.approx(log["paid"].sum())


def test_the_size_of_a_discount_counts_and_nothing_is_no_discount():
    log = taxed_log().assign(off=lambda t: -t["discount_amount"].where(t.index % 3 > 0))
    done = clean(log, columns={"discount": "off"})
    less = log["discount_amount"].where(log.index % 3 > 0, 0) * np.sign(log["quantity"])
    right = log["quantity"] * log["price"] - less
    np.testing.assert_allclose(done.transactions["revenue"], right, atol=1e-9)


def test_what_cannot_be_true_is_a_reason_where_it_counts_and_a_flag_where_it_does_not():
    log = taxed_log()[:8].assign(quantity=1.0, price=10.0, off=0.0, tax=1.0, amount=10.0)
    log["off"] = ["12", "x", "", "1", "1", "1", "1", "1"]
    log.loc[4, "tax"] = -1.0
    named = {"discount": "off", "tax": "tax"}
    used = clean(log, columns=named, revenue={"tax": "net"}, max_rejected=0.9)
    assert used.rejected["reason"].tolist() == ["bad_discount", "bad_discount", "bad_tax"]
    assert used.facts["revenue"] == pytest.approx(9 + 4 * 8)
    unused = clean(log, columns=named | {"revenue": "amount"})
    assert unused.facts["revenue"] == 80 and len(unused.rejected) == 0
    counted = unused.facts["by_flag"]
    # 10.00 is the price without the discount, so a discount of 12.00 may have been before it
    assert (counted["odd_discount"], counted["odd_tax"]) == (1, 1)


def test_what_no_column_says_is_refused_in_one_sentence():
    with pytest.raises(DataError, match="no column says how much it is; set data.columns.tax"):
        clean(taxed_log(), revenue={"tax": "net"})
    listed = pd.DataFrame({"product_id": [f"P{p}" for p in range(9)], "price": 2.0})
    with pytest.raises(DataError, match="data.columns.discount needs an amount on the lines"):
        clean(taxed_log().drop(columns="price"), listed, columns={"discount": "discount_amount"})
    said = clean(taxed_log(), revenue={"tax": "net"}, amounts={"tax": "net"})
    assert said.facts["revenue_is"] == {"tax": "net"}
    assert revenue_sentence(said.facts["revenue_is"]).startswith(
        "Net revenue is sales less returns"
    )
    with pytest.raises(ConfigError, match="must be one of 'net', 'gross', found 'nett'"):
        clean(taxed_log(), revenue={"tax": "nett"})


# By store


def test_sales_by_store_agree_with_pandas():
    log = till_log()
    found = by_store(ibis.memtable(clean(log, basket=BASKET).transactions)).set_index("store_id")
    log["revenue"] = log["quantity"] * log["price"]
    for store, lines in log.groupby("store_id", dropna=False):
        got = found[found.index.isna()].iloc[0] if pd.isna(store) else found.loc[store]
        sold, back = lines[lines["quantity"] > 0], lines[lines["quantity"] < 0]
        assert got["lines"] == len(lines) and got["revenue"] == pytest.approx(
            lines["revenue"].sum()
        )
        assert got["baskets"] == sold.groupby(["transaction_id", "date"]).ngroups
        assert got["customers"] == lines["customer_id"].nunique()
        assert got["anonymous"] == pytest.approx(lines["customer_id"].isna().mean())
        assert got["return_rate"] == pytest.approx(-back["revenue"].sum() / sold["revenue"].sum())


def test_the_default_shop_has_none_of_it():
    settings = load_config("default").data
    assert (settings.basket, settings.revenue, settings.amounts, settings.rates) == ([], {}, {}, {})


# What `check` proposes


def proposed(log: pd.DataFrame, folder: Path):
    """What `check` makes of a log."""
    log.to_csv(folder / "log.csv", index=False)
    found = examine(str(folder / "log.csv"))
    return found, {g.key: g for g in found.guesses}, "\n".join(closing(found))


def shop_log(**more) -> pd.DataFrame:
    """The taxed log as a shop writes it: with its names, and more columns."""
    log = taxed_log().round({"discount_amount": 2, "paid": 2, "vat": 2})
    log = log.assign(
        date=log["date"].dt.strftime("%Y-%m-%d"), quantity=log["quantity"].abs().astype(int)
    )
    names = ["transaction_id", "customer_id", "product_id", "date", "quantity", "price"]
    for name, values in more.items():
        log[name] = values(log) if callable(values) else values
    return log[names + list(more)]


def test_check_proposes_a_basket_where_numbers_start_anew():
    if CASES is None:
        pytest.skip("the shared cases are not beside the checkout")
    found = examine(str(CASES / "daily_receipts" / "t.csv"))
    (guess,) = [g for g in found.guesses if g.key == "basket"]
    assert (guess.value, guess.sure) == (["transaction_id", "date"], "likely")
    assert "one day in 0%" in guess.why
    assert yaml.safe_load(proposal(found.source, found.guesses))["data"]["basket"] == guess.value
    assert "100 of 100 lines, 100 baskets, 5 customers" in "\n".join(closing(found))


def test_check_proposes_stores_and_a_basket_with_them(tmp_path):
    log = till_log().assign(store_id=lambda t: t["store_id"].fillna("East"))
    log["date"] = log["date"].dt.strftime("%Y-%m-%d %H:%M:%S")
    named = log.rename(columns={"store_id": "Branch", "transaction_id": "ReceiptNo"})
    found, guesses, end = proposed(named, tmp_path)
    assert guesses["columns.store_id"].value == "Branch"
    assert guesses["basket"].value == BASKET
    assert "Left out, and it matters: store" not in end
    right = log.groupby(["transaction_id", "date", "store_id"]).ngroups
    assert f" {right} baskets" in end
    assert found.settings().basket == BASKET


def test_check_says_what_the_amounts_are_where_the_relation_decides(tmp_path):
    log = shop_log(
        Rabatt=lambda t: t["discount_amount"],
        Total=lambda t: (t["quantity"] * t["price"] - t["discount_amount"]).round(2),
    )
    _, guesses, end = proposed(log, tmp_path)
    assert (guesses["columns.discount"].value, guesses["columns.discount"].sure) == (
        "Rabatt",
        "sure",
    )
    assert "rates" not in guesses and "amounts" not in guesses
    assert f"net revenue {log['Total'].sum():,.2f}," in end
    percent = shop_log(
        Discount=lambda t: (100 * t["off"]).astype(int).astype(str) + "%",
        Total=lambda t: (t["quantity"] * t["price"] * (1 - t["off"])).round(2),
    )
    found, guesses, end = proposed(percent, tmp_path)
    assert guesses["rates"].value == found.settings().rates == {"discount": "percent"}
    done = clean(tmp_path / "log.csv", columns=found.settings().columns, **asked(found))
    assert done.facts["revenue"] == pytest.approx(percent["Total"].sum())
    assert done.facts["by_flag"]["contradiction"] == done.facts["by_flag"]["odd_discount"] == 0


def asked(found) -> dict:
    """The keys of a proposal beside its columns."""
    data = found.settings()
    return {k: getattr(data, k) for k in ("basket", "rates", "amounts", "revenue")}


def test_check_asks_where_nothing_decides(tmp_path):
    log = shop_log(
        Discount=lambda t: t["discount_amount"], Total=lambda t: t["quantity"] * t["price"]
    )
    _, guesses, end = proposed(log, tmp_path)
    assert guesses["columns.discount"].value is None
    assert "Question: 'Total' is quantity × price, before 'Discount'" in end
    assert "discount 'Discount'" in end
    bare = shop_log(Discount=lambda t: t["discount_amount"])
    _, guesses, end = proposed(bare, tmp_path)
    assert guesses["columns.discount"].value is None
    assert "Question: Is 'price' before 'Discount' or after it?" in end


@pytest.mark.parametrize("side", ["net", "gross"])
def test_check_knows_an_amount_with_a_tax_from_one_without(tmp_path, side):
    paid = shop_log(Subtotal=lambda t: (t["quantity"] * t["price"]).round(2))
    paid["VAT"] = (paid["Subtotal"] * 0.19).round(2)
    paid["Amount"] = (paid["Subtotal"] + paid["VAT"]).round(2)
    log = paid.rename(columns={"Amount": "Brutto"})
    if side == "gross":
        log = paid.rename(columns={"Subtotal": "Before"}).drop(columns="price")
    found, guesses, end = proposed(log, tmp_path)
    amount = found.settings().columns["revenue"]
    assert amount == {"net": "Subtotal", "gross": "Amount"}[side]
    assert guesses["columns.tax"].value == "VAT" and guesses["amounts"].value == {"tax": side}
    assert guesses["revenue"].value == {"tax": side}
    assert f"net revenue {log[amount].sum():,.2f}," in end


def test_a_clean_log_is_proposed_as_before(tmp_path):
    _, guesses, _ = proposed(shop_log(), tmp_path)
    assert not {"basket", "rates", "amounts", "revenue"} & set(guesses)


# The generated shop


def test_the_generator_makes_stores_on_request_and_the_same_sales(tmp_path):
    file = tmp_path / "shop.yaml"
    text = "data: {transactions: synthetic}\nsynthetic: {lines: 3000, customers: 200, stores: 3}\n"
    file.write_text(text)
    config = load_config(file)
    assert config.data.basket == BASKET
    generate(config, tmp_path / "stores")
    config.synthetic.stores = 0
    generate(config, tmp_path / "plain")
    stores, plain = (
        pd.read_csv(tmp_path / name / "transactions.csv", dtype=str) for name in ("stores", "plain")
    )
    same_columns = [c for c in plain if c != "transaction_id"]
    assert stores[same_columns].equals(plain[same_columns]) and "store_id" not in plain
    done, old = (
        clean(log, basket=basket, max_rejected=0.5)
        for log, basket in ((stores, BASKET), (plain, []))
    )
    pairs = pd.DataFrame(
        {"new": done.transactions["transaction_id"], "old": old.transactions["transaction_id"]}
    ).drop_duplicates()
    assert len(pairs) == pairs["new"].nunique() == pairs["old"].nunique()
    firsts = done.transactions.drop_duplicates(["store_id", "day"])["transaction_id"]
    assert firsts.str.startswith("0001|").mean() > 0.9
    truth = np.load(tmp_path / "stores" / "truth.npz")
    assert truth["store_id"].tolist() == ["S01", "S02", "S03"]
    home = pd.Series(truth["store_id"][truth["home_store"]], index=truth["customer_id"])
    known = done.transactions.dropna(subset="customer_id")
    at_home = (known["store_id"] == known["customer_id"].map(home)).mean()
    assert 0.8 < at_home < 0.99
    assert not {"home_store", "store_id"} & set(np.load(tmp_path / "plain" / "truth.npz"))


# The report and Power BI


def made(folder: Path, log: pd.DataFrame, **options) -> Run:
    """What a run leaves of a log, as far as Power BI reads it."""
    run = Run(Config(name="shop"), folder)
    done = clean(log, **options)
    ids = done.customers["customer_id"]
    run.write("transactions", done.transactions)
    run.write("customers", done.customers)
    run.write("products", done.products)
    run.write("features", pd.DataFrame({"customer_id": ids}))
    run.write("segments", pd.DataFrame({"customer_id": ids, "segment": "Loyal", "action": "write"}))
    for name, columns in (
        ("worth", ["customer_id"]),
        ("snapshots", ["customer_id", "month_end", "segment"]),
        ("recommendations", ["customer_id", "product_id"]),
    ):
        run.write(name, pd.DataFrame(columns=columns, dtype="str"))
    return run


def test_power_bi_has_stores_discounts_and_taxes_where_there_are_any(tmp_path):
    run = made(tmp_path / "run", both_logs(), **SETTINGS)
    told = export_powerbi(run, tmp_path / "out")
    sales = pd.read_csv(tmp_path / "out/csv/fact_sales.csv")
    stores = pd.read_csv(tmp_path / "out/csv/dim_store.csv")
    lines = run.read("transactions")
    joined = sales.merge(stores, on="store_key", validate="many_to_one")
    named = lines["store_id"].fillna("(no store)")
    right = lines.groupby(named)["revenue"].sum()
    pd.testing.assert_series_equal(
        joined.groupby("store_id")["revenue"].sum(), right, check_names=False
    )
    assert stores["store_id"].tolist() == ["(no store)", "East", "North", "South"]
    assert sales["discount"].sum() == pytest.approx(lines["discount"].sum())
    assert sales["tax"].sum() == pytest.approx(lines["tax"].sum())
    names = [m["measure"] for m in told["measures"]]
    assert names[-2:] == ["Discounts", "Taxes"]
    [model] = (tmp_path / "out/model").rglob("relationships.tmdl")
    assert "relationship fact_sales_store_key" in model.read_text()


def test_microsofts_library_reads_a_model_with_stores(model_reader, tmp_path):
    export_powerbi(made(tmp_path / "run", both_logs(), **SETTINGS), tmp_path / "out")
    [answer] = model_reader(tmp_path / "out/model/retail_ci.SemanticModel/definition")
    assert answer["complaint"] is None and "dim_store" in str(answer)


def test_power_bi_is_as_before_without_them(tmp_path):
    run = made(tmp_path / "run", till_log().drop(columns="store_id"))
    told = export_powerbi(run, tmp_path / "out")
    assert [t["table"] for t in told["tables"]] == [t.name for t in TABLES]
    sales = pd.read_csv(tmp_path / "out/csv/fact_sales.csv")
    assert not {"store_key", "discount", "tax"} & set(sales)
    assert not {"Discounts", "Taxes"} & {m["measure"] for m in told["measures"]}


def test_the_sales_page_says_what_revenue_is_and_shows_the_stores(tmp_path):
    page = PAGES["sales"]
    data = clean(both_logs(), **SETTINGS)
    facts = data.facts | _store_facts(ibis.memtable(data.transactions))
    text = "\n".join(page.builder(Facts(tmp_path, data=facts)))
    plain = html.unescape(re.sub("<[^>]+>", " ", text))
    assert "after discounts, with taxes" in plain and "Discounts were" in plain
    assert "(no store)" in plain and "North" in plain
    without = "\n".join(page.builder(Facts(tmp_path, data=clean(till_log()).facts)))
    assert "discounts and taxes as the source has them" in without


def test_many_stores_are_the_largest_and_one_row_for_the_others():
    log = till_log().assign(store_id=lambda t: [f"S{i % 60:02d}" for i in range(len(t))])
    stores = by_store(ibis.memtable(clean(log, basket=BASKET).transactions))
    found = _store_facts(ibis.memtable(clean(log, basket=BASKET).transactions))["stores"]
    assert found["count"] == 60 and len(found["largest"]) == 50
    assert found["others"]["lines"] == stores["lines"][50:].sum()
    assert found["others"]["revenue"] == pytest.approx(stores["revenue"][50:].sum())
