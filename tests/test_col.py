"""Columns that shops have beside the amounts: a status, a currency, a price that stands in the
products table; and what is missing without being a fault: a product, a customer.
"""

import json
import re
from decimal import Decimal
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
import yaml

import retail_ci
from retail_ci.cli import check, serve
from retail_ci.core.config import DataConfig, load_config
from retail_ci.core.errors import ConfigError, DataError, RunError
from retail_ci.core.runs import open_run
from retail_ci.data.cleaning import prepare
from retail_ci.data.engines import close, connect, engine, read_parquet, to_pandas
from retail_ci.data.proposal import closing, examine, proposal
from retail_ci.data.sources import open_source

STATUS = """order_id,customer_id,sku,date,qty,price,status
1,C1,A,2024-01-02,1,10.50,Shipped
2,C2,A,2024-01-03,1,10.50,Cancelled
3,C1,B,2024-01-04,2,4.25,Shipped
4,C3,B,2024-01-05,1,4.25,Returned
5,C2,A,2024-01-06,1,10.50,Shipped
6,C3,C,2024-01-07,1,7.75,Shipped
"""
STATUS_NAMES = {"transaction_id": "order_id", "product_id": "sku", "quantity": "qty"}
LISTED = {"cancelled": ["Cancelled"], "returned": ["Returned"]}
NO_PRICE = """order_no,customer,sku,qty,date
1,C1,A,2,2024-01-02
1,C1,B,1,2024-01-02
2,C2,A,1,2024-01-03
"""
PRODUCTS = "sku,title,list_price\nA,Apple,1.5\nB,Bread,3.0\n"
PRICE_NAMES = {
    "transaction_id": "order_no",
    "customer_id": "customer",
    "product_id": "sku",
    "quantity": "qty",
    "price": "list_price",
    "product_name": "title",
}
MISSING_WORD = r"""Receipt,Customer_ID,Category,Item_ID,Unit_Price,Quantity,Total_Spent,Date
T1,C1,Food,I1,6.5,2,13,2024-01-02
T2,C2,Food,\N,\N,10,155,2024-01-03
T3,C1,Toys,I2,9.5,1,9.5,2024-01-04
T4,C3,Toys,\N,29,\N,\N,2024-01-05
T5,C2,Food,I1,6.5,4,26,2024-02-02
"""
NOBODY = """date_time,Transaction,Item,unit_price,qty
2016-10-30 09:58,1,Bread,2.50,1
2016-10-30 10:05,2,Scandinavian,3.20,1
2016-10-30 10:07,3,Hot chocolate,2.80,2
2016-10-31 09:10,4,Coffee,2.10,1
"""
NOBODY_NAMES = {
    "transaction_id": "Transaction",
    "date": "date_time",
    "product_id": "Item",
    "price": "unit_price",
    "quantity": "qty",
}


def written(folder: Path, text: str, name: str = "log.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def proposed(source: str, folder: Path) -> tuple[Path, str]:
    """The proposal of `check`, as a config file, and its text."""
    found = examine(source)
    text = proposal(found.source, found.guesses, closing(found))
    path = folder / "proposed.yaml"
    path.write_text(text)
    return path, text


def frame(text: str) -> pd.DataFrame:
    """A log as a frame of text."""
    lines = [line.split(",") for line in text.strip().splitlines()]
    return pd.DataFrame(lines[1:], columns=lines[0])


# ------------------------------------------------------------------------------------------ status


def test_a_status_that_nobody_listed_counts_as_sales_and_is_said():
    done = retail_ci.clean(frame(STATUS), columns=STATUS_NAMES)
    assert done.facts["revenue"] == 52.00 and done.facts["by_flag"]["looks_undone"] == 2
    assert done.facts["revenue_by_fate"]["looks_undone"] == 10.50 + 4.25
    (told,) = done.facts["remarks"]
    assert "'Cancelled' (1), 'Returned' (1) count as sales" in told and "data.status" in told


def test_listed_statuses_are_counted_apart_and_the_books_add_up():
    done = retail_ci.clean(frame(STATUS), columns=STATUS_NAMES, status=LISTED, max_rejected=0)
    facts = done.facts
    log = pd.read_csv(pd.io.common.StringIO(STATUS))
    amounts = (log["qty"] * log["price"]).groupby(log["status"]).sum()
    assert facts["revenue"] == amounts["Shipped"] == 37.25
    assert (facts["rejected"], facts["set_aside"], facts["kept"]) == (0, 2, 4)
    assert facts["revenue_by_fate"]["cancelled"] == amounts["Cancelled"]
    assert facts["revenue_by_fate"]["returned"] == amounts["Returned"]
    assert done.books["lines"].sum() == facts["rows_in"] == 6
    assert done.books.loc[done.books["fate"] == "set aside", "reason"].tolist() == [
        "cancelled",
        "returned",
    ]
    assert done.rejected["row"].tolist() == [2, 4]


def test_a_return_of_its_own_stays_and_takes_the_sale_back():
    log = STATUS + "7,C1,A,2024-01-09,-1,10.50,Returned\n8,C1,A,2024-01-09,0,,Cancelled\n"
    done = retail_ci.clean(frame(log), columns=STATUS_NAMES, status=LISTED)
    assert done.facts["returns"] == 1 and done.facts["revenue"] == 37.25 - 10.50
    assert done.facts["rejected"] == 0, "a cancelled line is no fault, whatever else it lacks"


def test_a_listed_value_that_never_occurs_is_said():
    status = {"cancelled": ["Cancelled", "Storno"], "returned": ["Returned"]}
    (told,) = retail_ci.clean(frame(STATUS), columns=STATUS_NAMES, status=status).facts["remarks"]
    assert "'Storno', which no line has; found: 'Shipped', 'Cancelled', 'Returned'" in told


def test_a_key_about_a_column_that_is_not_there_is_refused():
    log = frame(STATUS).drop(columns="status")
    with pytest.raises(DataError, match=r"data.status is set, and the transactions have no column"):
        retail_ci.clean(log, columns=STATUS_NAMES, status=LISTED)
    with pytest.raises(DataError, match=r"data.currency_rates is set, and .* no column 'currency'"):
        retail_ci.clean(log, columns=STATUS_NAMES, currency_rates={"EUR": 1})


def test_other_calls_take_no_cancelled_order_for_a_sale():
    with pytest.raises(DataError, match="expected sales only, found lines with the status 'Canc"):
        retail_ci.customer_features(frame(STATUS), columns=STATUS_NAMES)
    with pytest.raises(DataError, match="in 3 currencies"):
        retail_ci.customer_features(money_log())
    with pytest.raises(ConfigError, match="Unknown kind of order 'canceled'"):
        retail_ci.clean(frame(STATUS), columns=STATUS_NAMES, status={"canceled": ["Cancelled"]})
    done = retail_ci.clean(frame(STATUS), columns=STATUS_NAMES, status=LISTED)
    assert retail_ci.customer_features(done.transactions)["monetary"].sum() == 37.25


def test_a_log_in_which_nothing_was_sold_is_refused():
    log = frame(STATUS).assign(status="Cancelled")
    with pytest.raises(
        DataError, match="None of 6 lines is a sale: 0 are rejected and 6 set aside"
    ):
        retail_ci.clean(log, columns=STATUS_NAMES, status=LISTED)


def test_check_proposes_the_status_and_the_proposal_runs(tmp_path, capsys):
    config, text = proposed(written(tmp_path, STATUS), tmp_path)
    values = yaml.safe_load(text)["data"]
    assert values["columns"]["status"] == "status" and values["status"] == LISTED
    assert "Shipped (4), Cancelled (1), Returned (1)" in text
    assert "4 of 6 lines, 4 baskets, 3 customers, net revenue 37.25" in text
    assert "if every 'status' is a sale: 6 of 6 lines" in text and "net revenue 52.00" in text
    assert "Are lines with 'status' Cancelled, Returned no sales?" in text
    check(config=str(config))
    books = capsys.readouterr().out
    assert "4 kept, 0 rejected, 2 set aside by their status" in books
    assert re.search(
        r"set aside +1  An order that was cancelled \(cancelled\), revenue 10.50", books
    )


def test_pending_is_named_and_left_to_a_person(tmp_path):
    log = STATUS.replace("5,C2,A,2024-01-06,1,10.50,Shipped", "5,C2,A,2024-01-06,1,10.50,On Hold")
    text = proposed(written(tmp_path, log), tmp_path)[1]
    assert yaml.safe_load(text)["data"]["status"] == LISTED
    assert 'add pending: ["On Hold"]' in text and "net revenue 37.25" in text


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ({"canceled": ["x"]}, "Unknown kind of order 'canceled' in data.status"),
        ({"cancelled": "x"}, "data.status.cancelled"),
        ({"cancelled": ["x"], "returned": ["x"]}, "lists 'x' under cancelled and under returned"),
    ],
)
def test_a_status_key_that_cannot_be_meant_is_refused(status, sentence, tmp_path):
    config = written(tmp_path, yaml.safe_dump({"data": {"status": status}}), "shop.yaml")
    with pytest.raises(ConfigError, match=sentence):
        load_config(config)


# ---------------------------------------------------------------------------------------- currency


def money_log(lines: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "transaction_id": [f"B{n // 2}" for n in range(lines)],
            "customer_id": [f"C{n // 2 % 37}" for n in range(lines)],
            "product_id": rng.choice(["A", "B", "C", "D"], lines),
            "date": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(lines) // 2, "D"),
            "quantity": rng.integers(1, 9, lines),
            "price": rng.integers(50, 9_999, lines) / 100,
            "currency": rng.choice(["EUR", "USD", "GBP"], lines, p=[0.6, 0.3, 0.1]),
        }
    )


def test_several_currencies_are_refused_with_their_lines():
    log = money_log()
    counts = log["currency"].value_counts()
    shown = rf"EUR \({counts['EUR']} lines\), USD \({counts['USD']} lines\), GBP"
    with pytest.raises(DataError, match=rf"in 3 currencies, {shown} .*set data.currency_rates"):
        retail_ci.clean(log)
    with pytest.raises(DataError, match="data.currency_rates has no rate for GBP"):
        retail_ci.clean(log, currency_rates={"EUR": 1, "USD": 0.92})


def test_a_currency_in_small_letters_is_the_same_currency():
    log = money_log()
    rates = {"EUR": 1, "USD": 0.92, "GBP": 1.17}
    revenue = retail_ci.clean(log, currency_rates=rates).facts["revenue"]
    small = log.assign(
        currency=log["currency"].where(log.index % 2 == 0, log["currency"].str.lower())
    )
    assert retail_ci.clean(small, currency_rates=rates).facts["revenue"] == revenue
    lower = {code.lower(): rate for code, rate in rates.items()}
    assert retail_ci.clean(log, currency_rates=lower).facts["revenue"] == revenue
    with pytest.raises(DataError, match="gives USD two rates, 0.92 and 0.5"):
        retail_ci.clean(log, currency_rates=rates | {"usd": 0.5})
    one = retail_ci.clean(log.assign(currency=["chf", "CHF"] * 200))
    assert one.facts["revenue"] == pytest.approx((log["quantity"] * log["price"]).sum())


def test_converted_money_is_exact_to_the_cent():
    log = money_log()
    rates = {"EUR": 1, "USD": 0.92, "GBP": 1.17}
    done = retail_ci.clean(log, currency_rates=rates)
    lines = [
        Decimal(str(p)) * int(q) * Decimal(str(rates[c]))
        for p, q, c in zip(log["price"], log["quantity"], log["currency"])
    ]
    assert abs(Decimal(str(done.facts["revenue"])) - sum(lines)) < Decimal("0.005")
    by_hand = log["quantity"] * log["price"] * log["currency"].map(rates)
    assert np.allclose(done.transactions["revenue"], by_hand, rtol=0, atol=1e-9)
    assert np.allclose(by_hand, [float(line) for line in lines], rtol=0, atol=1e-9)
    assert "1 USD = 0.92" in done.facts["remarks"][0]
    assert "currency" not in done.transactions


def test_a_line_without_a_currency_among_several_is_rejected_and_alone_is_said():
    log = money_log()
    log.loc[3, "currency"] = None
    done = retail_ci.clean(log, currency_rates={"EUR": 1, "USD": 0.92, "GBP": 1.17})
    assert done.facts["by_reason"]["no_currency"] == 1 and done.rejected["row"].tolist() == [4]
    alone = retail_ci.clean(log.assign(currency=log["currency"].where(log.index == 7, "EUR")[:6]))
    assert "lines without a currency, taken for EUR" in alone.facts["remarks"][0]


def test_a_listed_price_is_not_converted_and_not_said_to_be():
    log = money_log()
    log.loc[log.index % 3 == 0, "price"] = None
    log.loc[3, "currency"] = "CHF"  # needs no rate, because its price is listed
    listed = pd.DataFrame({"product_id": list("ABCD"), "price": [1.5, 2.25, 4.0, 8.75]})
    rates = {"EUR": 1, "USD": 0.92, "GBP": 1.17}
    done = retail_ci.clean(log, listed, currency_rates=rates)
    own = log["price"] * log["currency"].map(rates)
    price = own.fillna(log["product_id"].map(listed.set_index("product_id")["price"]))
    assert done.facts["kept"] == len(log) and not done.facts["rejected"]
    assert done.facts["revenue"] == pytest.approx((log["quantity"] * price).sum(), abs=0.005)
    converted, unchanged = done.facts["remarks"]
    dollars = int((log["price"].notna() & (log["currency"] == "USD")).sum())
    assert f"USD ({dollars} lines)" in converted and "CHF" not in converted
    assert f"The price of {int(log['price'].isna().sum())} lines is that of the" in unchanged
    bare = retail_ci.clean(log.drop(columns="price"), listed)
    assert len(bare.facts["remarks"]) == 1 and "not converted" in bare.facts["remarks"][0]


def test_check_proposes_the_sign_of_one_currency_and_asks_about_several(tmp_path):
    log = money_log()
    path = tmp_path / "log.csv"
    log.assign(currency="USD").to_csv(path, index=False)
    config, text = proposed(str(path), tmp_path)
    assert yaml.safe_load(text)["report"]["currency"] == "$"
    assert load_config(str(config)).report.currency == "$"
    log.to_csv(path, index=False)
    text = proposed(str(path), tmp_path)[1]
    assert "report" not in yaml.safe_load(text)
    assert re.search(r"# currency_rates: .*several currencies cannot be added", text)
    assert "The amounts are in 3 currencies, EUR" in text


# ------------------------------------------------------------------------- price, product, customer


def test_a_price_from_the_products_table_is_used_and_said(tmp_path, capsys):
    written(tmp_path, NO_PRICE)
    written(tmp_path, PRODUCTS, "products.csv")
    data = {"transactions": "log.csv", "products": "products.csv", "columns": PRICE_NAMES}
    config = written(tmp_path, yaml.safe_dump({"data": data}), "shop.yaml")
    check(config=config)
    books = capsys.readouterr().out
    assert "3 kept, 0 rejected" in books and "net revenue 7.50" in books
    assert re.search(
        r"flag +3  A line without an amount, at the price of the products table", books
    )
    done = retail_ci.clean(frame(NO_PRICE), frame(PRODUCTS), columns=PRICE_NAMES)
    assert done.transactions["revenue"].tolist() == [3.0, 3.0, 1.5]
    assert done.facts["revenue_by_fate"]["listed_price"] == 7.5


def test_a_line_with_an_amount_never_needs_a_listed_price():
    log = frame(NO_PRICE).assign(revenue=["2.80", "", "-1.50"], qty=["2", "1", "-1"])
    done = retail_ci.clean(log, frame(PRODUCTS), columns=PRICE_NAMES)
    assert done.transactions["revenue"].tolist() == [2.8, 3.0, -1.5]
    assert done.facts["by_flag"]["listed_price"] == 1
    unlisted = retail_ci.clean(
        log.assign(sku=["A", "X", "A"]), frame(PRODUCTS), columns=PRICE_NAMES, max_rejected=0.5
    )
    assert unlisted.facts["by_reason"]["bad_price"] == 1


def test_a_sale_without_a_product_keeps_its_revenue(tmp_path):
    config, text = proposed(written(tmp_path, MISSING_WORD), tmp_path)
    assert yaml.safe_load(text)["data"]["missing"] == ["\\N"]
    settings = load_config(str(config)).data
    done = retail_ci.clean(settings.transactions, columns=settings.columns, missing=["\\N"])
    assert done.facts["revenue"] == 13 + 155 + 9.5 + 26
    assert done.facts["by_flag"]["no_product"] == 1
    assert done.facts["revenue_by_fate"]["no_product"] == 155
    assert done.facts["by_reason"]["bad_quantity"] == 1, "29 for an unknown number of things"
    assert sorted(done.products["product_id"]) == ["I1", "I2"]
    strict = retail_ci.clean(
        settings.transactions,
        columns=settings.columns,
        missing=["\\N"],
        without_product="reject",
        max_rejected=0.5,
    )
    assert strict.facts["by_reason"]["missing_product"] == 2


def test_a_log_without_customers_is_cleaned_and_says_what_steps_aside(tmp_path, capsys):
    log = written(tmp_path, NOBODY)
    done = retail_ci.clean(log, columns=NOBODY_NAMES)
    assert done.facts["revenue"] == 2.5 + 3.2 + 5.6 + 2.1 and done.customers is None
    assert done.facts["baskets"] == 4 and "No line has a customer" in done.facts["remarks"][0]
    config = written(
        tmp_path,
        yaml.safe_dump({"data": {"transactions": "log.csv", "columns": NOBODY_NAMES}}),
        "shop.yaml",
    )
    check(config=config)
    books = capsys.readouterr().out
    assert "0 customers, 4 baskets, net revenue 13.40" in books and "step aside" in books


def test_customers_that_a_config_or_a_header_names_are_not_lost_in_silence():
    log = frame(STATUS).rename(columns={"customer_id": "CustomerID"})
    with pytest.raises(DataError, match="'CustomerID' sounds like it; name it under data.columns"):
        retail_ci.clean(log, columns=STATUS_NAMES)
    named = STATUS_NAMES | {"customer_id": "CustomerID"}
    with pytest.raises(DataError, match="though data.columns.customer_id names 'CustomerID'"):
        retail_ci.clean(log.assign(CustomerID=""), columns=named)


def test_a_notebook_without_what_it_needs_is_passed_over(fresh):
    """And what waits for it need not wait; by hand it says why."""
    fresh.notebook("01_cleaning", "run.write('data_metrics', {'kept': 3, 'customers': 0})")
    fresh.notebook("02_features", "run.require('customers')", "1 / 0")
    fresh.notebook("03c_segment_profiles", "run.has('cut_points')", "print('sales')")
    fresh.notebook("index", "run.require('segments')")
    done = fresh.here("run")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "steps aside" in line]
    assert [line.split()[1] for line in told] == ["02_features", "index"]
    assert told[0].endswith("– steps aside: no line of the log has a customer")
    current = fresh.home() / "current"
    left = json.loads((current / "executed/02_features.ipynb").read_text())["cells"]
    assert [c["source"] for c in left] == [
        "This page has no results: no line of the log has a customer."
    ]
    papers = json.loads((current / "manifest.json").read_text())["notebooks"]
    assert [n["name"] for n in papers if "aside" in n] == ["02_features", "index"]
    with pytest.raises(RunError, match="has no features: no line of its log has a customer"):
        open_run(run_dir=current).read("features")


# ------------------------------------------------------------------------------------------ engines


def mixed_log() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A log with everything of this page in it, and its products."""
    log = money_log(120)
    log["status"] = np.where(np.arange(120) % 9 == 0, "Cancelled", "Shipped")
    log["status"] = log["status"].where(np.arange(120) % 11 != 1, "Returned")
    log.loc[log.index % 7 == 2, "product_id"] = None
    log.loc[log.index % 10 == 4, "price"] = np.nan
    log.loc[log.index % 17 == 5, "currency"] = None
    log["date"] = log["date"].dt.strftime("%Y-%m-%d")
    log.loc[119, ["transaction_id", "customer_id", "product_id"]] = ["Gesamtsumme", None, None]
    return log, pd.DataFrame({"product_id": list("ABC"), "price": [1.5, 2.25, 3.0]})


SHOP = {
    "status": {"cancelled": ["Cancelled"], "returned": ["Returned", "Lost"]},
    "currency_rates": {"EUR": 1, "USD": 0.92, "GBP": 1.17},
    "max_rejected": 0.9,
}


def by_hand() -> pd.DataFrame:
    """The same in plain pandas: kept lines, and the reason of the others."""
    log, products = mixed_log()
    rate = log["currency"].map(SHOP["currency_rates"])
    listed = log["product_id"].map(products.set_index("product_id")["price"])
    log["price"] = (log["price"] * rate).fillna(listed)
    log["revenue"] = log["price"] * log["quantity"]
    reason = pd.Series(None, index=log.index, dtype=object)
    reason[log["price"].isna()] = "bad_price"
    reason[rate.isna()] = "no_currency"
    reason[log["status"] == "Returned"] = "returned"
    reason[log["status"] == "Cancelled"] = "cancelled"
    reason[log["transaction_id"] == "Gesamtsumme"] = "total_row"
    return log.assign(reason=reason)


def same_as_by_hand(con, log: ibis.Table, products: ibis.Table) -> None:
    result = prepare(con, log, DataConfig(products="listed", **SHOP), products)
    wanted = by_hand()
    kept = wanted[wanted["reason"].isna()]
    facts = result.facts
    counts = {k: n for k, n in facts["by_reason"].items() if n}
    assert counts == wanted["reason"].value_counts().to_dict()
    assert facts["revenue"] == pytest.approx(kept["revenue"].sum(), abs=0.005)
    assert facts["by_flag"]["no_product"] == kept["product_id"].isna().sum() > 0
    assert facts["by_flag"]["listed_price"] > 0 and facts["set_aside"] > 0
    lines = to_pandas(result.transactions)
    assert np.allclose(lines["revenue"].sort_values(), kept["revenue"].sort_values(), atol=1e-9)
    assert "'Lost', which no line has" in " ".join(facts["remarks"])
    aside = wanted[wanted["reason"].isin(["cancelled", "returned"])]
    assert facts["rows_in"] == facts["kept"] + facts["rejected"] + len(aside)
    unused_columns_are_named(con, log, products)


def unused_columns_are_named(con, log: ibis.Table, products: ibis.Table) -> None:
    for ours, what in (("customer_id", "customer"), ("transaction_id", "receipt")):
        renamed = log.rename({"xy z": ours})
        told = prepare(con, renamed, DataConfig(products="listed", **SHOP), products).facts
        assert f"could be the {what}: 'xy z' (" in " ".join(told["remarks"])


def laid(con, folder: Path) -> tuple[ibis.Table, ibis.Table]:
    tables = []
    for name, table in zip(("log", "products"), mixed_log()):
        table.to_parquet(folder / f"{name}.parquet", index=False)
        tables.append(read_parquet(con, [folder / f"{name}.parquet"]))
    return tables[0], tables[1]


def test_duckdb_agrees_with_plain_pandas(tmp_path):
    con = connect()
    same_as_by_hand(con, *laid(con, tmp_path))
    close(con)


def test_spark_agrees_with_plain_pandas(spark, tmp_path):
    same_as_by_hand(spark, *laid(spark, tmp_path))


def test_postgres_agrees_with_plain_pandas(postgres, tmp_path):
    log, products = mixed_log()
    types = dict.fromkeys(log.columns, "text") | {"quantity": "int", "price": "float8"}
    postgres.fill("col_log", log, types)
    postgres.fill("col_products", products, {"product_id": "text", "price": "float8"})
    con = connect()
    main = open_source(con, "transactions", DataConfig(transactions=postgres.url("col_log")))
    assert engine(main.backend) == "postgres"
    listed = main.backend.table("col_products").mutate(row=ibis.row_number() + 1)
    same_as_by_hand(main.backend, main.table, listed)
    close(con)


# ------------------------------------------------------------------------- what serving needs first


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Path:
    """A folder with the leftovers of a run: metrics to be written by the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETAIL_CI_ROOT", str(tmp_path))
    (tmp_path / "shop.yaml").write_text("data: {transactions: t.csv}\n")
    (tmp_path / "runs/shop/current/metrics").mkdir(parents=True)
    (tmp_path / "runs/shop/current/models").mkdir()
    (tmp_path / "runs/shop/serving").mkdir()
    return tmp_path / "runs/shop"


def test_serve_without_customers_says_what_is_lacking(finished):
    (finished / "current/metrics/data.json").write_text('{"customers": 0}')
    with pytest.raises(RunError, match=r"no line of its log has a customer. Name .*customer_id"):
        serve("shop.yaml")


def test_serve_without_a_recommender_gives_its_reason(finished):
    (finished / "current/metrics/data.json").write_text('{"customers": 3}')
    (finished / "current/metrics/ranking.json").write_text("{}")
    np.savez(finished / "current/models/recommender.npz", note="two products are too few")
    with pytest.raises(RunError, match=r"no recommender to serve: two products are too few\."):
        serve("shop.yaml")


@pytest.mark.parametrize("refused", [True, False])
def test_serve_names_the_command_that_helps(finished, refused):
    (finished / "current/metrics/data.json").write_text('{"customers": 3}')
    (finished / "current/metrics/ranking.json").write_text("{}")
    np.savez(finished / "current/models/recommender.npz", k=10)
    found = {"name": "beats popularity", "passed": False, "found": ".1 against .2"}
    line = json.dumps({"when": "1", "version": "", "promoted": False, "checks": [found]}) + "\n"
    (finished / "serving/log.jsonl").write_text(line * refused)
    with pytest.raises(RunError) as told:
        serve("shop.yaml")
    assert "retail-ci models promote --config shop.yaml" in str(told.value)
    assert refused == ("beats popularity (.1 against .2)" in str(told.value))
    assert refused == ("--force REASON" in str(told.value))
