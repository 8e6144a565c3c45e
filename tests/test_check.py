"""What `retail-ci check` proposes for an export that nobody has described: shapes made here, and
the books against pandas. Of the delicate exports of the shared cases, see test_cases.py.
"""

import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from check_words import columns, shown, sure

import retail_ci
from retail_ci.cli import check
from retail_ci.core.config import load_config
from retail_ci.core.errors import DataError
from retail_ci.data import proposal as proposals
from retail_ci.data.engines import connect
from retail_ci.data.profiling import check_source, guess_numbers
from retail_ci.data.proposal import Examination, closing, examine, guess, proposal, question
from retail_ci.data.related import examine_all
from retail_ci.data.sources import open_source
from retail_ci.data.synthetic import generate


def test_the_default_shop_is_sure_and_raises_nothing(tmp_path):
    generate(load_config("small"), tmp_path)
    found = examine(str(tmp_path / "transactions.csv"))
    assert {g.sure for g in found.guesses if g.key.startswith("columns.")} == {"sure"}
    assert len(columns(found)) == 7 and not found.notes and not found.verdict
    text = closing(found)
    assert [line.split(",")[0] for line in text[:-1]] == ["What it would give"]
    assert "Do the shop's own books say" in text[-1]
    for name, what in (("customers", "table of people"), ("products", "table of products")):
        assert what in examine(str(tmp_path / f"{name}.csv")).verdict


def shop(lines: int = 400) -> pd.DataFrame:
    """A plain log: baskets of up to three lines, forty customers, twelve products."""
    n = pd.Series(range(lines))
    basket = n // 3
    product = (n * 7 + n // 5) % 12
    quantity = 1 + n % 4
    price = 2.5 + product * 1.25
    return pd.DataFrame(
        {
            "basket_no": "B" + (1000 + basket).astype(str),
            "customer_no": "C" + (basket * 11 % 40).astype(str),
            "day": (pd.Timestamp("2025-01-01") + pd.to_timedelta(basket, "D")).dt.strftime(
                "%Y-%m-%d"
            ),
            "product_no": "P" + product.astype(str),
            "quantity": quantity.astype(str),
            "unit_price": price.map("{:.2f}".format),
            "amount": (quantity * price).map("{:.2f}".format),
        }
    )


def looked(log: pd.DataFrame, folder: Path, **how) -> Examination:
    log.to_csv(folder / "log.csv", index=False, **how)
    return examine(str(folder / "log.csv"))


def test_the_books_are_those_of_pandas(tmp_path):
    log = shop()
    found = looked(log, tmp_path, sep=";")
    assert set(sure(found).values()) <= {"sure", "likely"}
    assert {g.sure for g in found.guesses if g.key.startswith("columns.")} == {"sure"}
    assert shown("\n".join(closing(found))) == (
        len(log),
        log["basket_no"].nunique(),
        log["customer_no"].nunique(),
        pytest.approx(log["amount"].astype(float).sum()),
    )


def test_a_total_in_the_place_of_a_price_is_asked_about(tmp_path):
    log = shop().drop(columns="unit_price").rename(columns={"amount": "price"})
    found = looked(log, tmp_path)
    assert sure(found)["price"] == "unsure"
    assert "for the same product" in closing(found)[-1] and "already?" in closing(found)[-1]


def test_amounts_that_contradict_each_other_are_shown_both(tmp_path):
    log = shop()
    log["amount"] = (log["amount"].astype(float) * 1.5).map("{:.2f}".format)
    text = "\n".join(closing(looked(log, tmp_path)))
    paid, listed = shown(text)[3], shown(text, "What else it could be, quantity × price")[3]
    assert paid == pytest.approx(1.5 * listed, rel=1e-4) and "which of them" in text


def test_two_currencies_are_asked_about(tmp_path):
    log = shop().assign(currency=["EUR", "USD"] * 200)
    text = closing(looked(log, tmp_path))
    assert "currency 'currency': EUR (200), USD (200)." in text
    assert "in EUR, USD" in text[-1]


def test_a_running_total_and_a_percentage_are_no_quantity(tmp_path):
    log = shop().drop(columns=["amount", "quantity"])
    log["units"] = [str(n * 2) for n in range(len(log))]
    log["qty"] = ["0.25", "0.5"] * 200
    assert "quantity" not in columns(looked(log, tmp_path))


def test_a_total_of_the_basket_on_every_line_is_no_revenue(tmp_path):
    log = shop().drop(columns=["unit_price", "quantity"])
    totals = log.groupby("basket_no")["amount"].transform(lambda a: a.astype(float).sum())
    found = looked(log.assign(amount=totals.map("{:.2f}".format)), tmp_path)
    assert "revenue" not in columns(found)
    assert any("'amount' is the same on all lines of a basket" in note for note in found.notes)
    assert "What did each line cost the customer" in closing(found)[-1]
    unsold = log.drop(columns="product_no").assign(remark=[f"r {n}" for n in range(len(log))])
    unsold["amount"] = totals.map("{:.2f}".format)
    found = looked(unsold, tmp_path)  # nothing says whether the lines sell different things
    assert sure(found)["revenue"] == "unsure"
    assert "Is 'amount' the amount of each line?" in closing(found)[-1]


def test_a_customer_with_a_third_of_the_lines_is_asked_about(tmp_path):
    log = shop()
    log.loc[log["basket_no"].isin(sorted(log["basket_no"].unique())[::3]), "customer_no"] = "0"
    found = looked(log, tmp_path)
    assert sure(found)["customer_id"] == "unsure" and "'0' has" in closing(found)[-1]


def test_two_dates_are_both_shown(tmp_path):
    later = pd.to_datetime(shop()["day"]) + pd.Timedelta(days=40)
    log = shop().assign(order_date=later.dt.strftime("%Y-%m-%d"))
    found = looked(log, tmp_path)
    text = "\n".join(closing(found))
    assert sure(found)["date"] == "likely" and "date is 'order_date'" in text


def test_copies_and_their_key_are_named(tmp_path):
    log = pd.concat([shop(), shop().head(100)])
    text = closing(looked(log, tmp_path))
    assert "100 lines do not count: Exact copies of a line" in text[0]
    assert "set data.duplicates to keep" in text[-1]


def test_every_reason_is_named_with_its_lines(tmp_path):
    log = shop()
    log.loc[log.index[:7], "quantity"] = "x"
    text = closing(looked(pd.concat([log, log.tail(3)]), tmp_path))
    told = "10 lines do not count: A quantity that is not a number (7); Exact copies of a line (3)"
    assert told in text[0]


def test_columns_between_blanks_are_read(tmp_path):
    log = shop()[["customer_no", "day", "quantity", "amount"]]
    (tmp_path / "t.txt").write_text(log.to_string(index=False))
    found = examine(str(tmp_path / "t.txt"))
    assert found.settings().delimiter == "whitespace" and sure(found)["date"] == "sure"
    assert shown("\n".join(closing(found)))[3] == pytest.approx(log["amount"].astype(float).sum())


@pytest.mark.parametrize(
    "table, what",
    [
        ({"month": ["2025-01", "2025-02", "2025-03"], "sales": ["1", "2", "3"]}, "period"),
        (
            {"date": [f"2025-{m:02d}-01" for m in range(1, 13)], "revenue": ["10"] * 12},
            "sums by month",
        ),
        ({"sku": ["A", "B"], "stock": ["3", "4"], "warehouse": ["N", "S"]}, "table of stock"),
        ({"campaign": ["A", "B"], "clicks": ["3", "4"], "sales": ["9", "8"]}, "campaign"),
        ({"length": ["3", "4"], "weight": ["9", "8"]}, "neither days"),
    ],
)
def test_what_is_no_log_is_refused_with_what_it_is(tmp_path, table, what):
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=f"{what}.*ask for that export"):
        check(str(tmp_path / "t.csv"))


def test_the_table_of_a_database_that_looks_like_a_log_is_proposed(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as con:
        shop().to_sql("verkauf", con, index=False)
        pd.DataFrame({"product_no": ["P1", "P2"], "name": ["a", "b"]}).to_sql(
            "artikel", con, index=False
        )
    con.close()
    found = examine(str(tmp_path / "shop.db"))
    assert found.source.endswith("shop.db#verkauf") and "'artikel' is left out" in found.notes[0]
    assert shown("\n".join(closing(found)))[0] == 400


def test_line_breaks_in_quotes_are_read(tmp_path):
    log = shop().assign(product_name="Gift set:\nsoap, candle")
    found = looked(log, tmp_path)
    assert shown("\n".join(closing(found)))[0] == 400
    assert yaml.safe_load(proposal("x", found.guesses, closing(found)))["data"]["columns"]


def test_damaged_lines_are_counted(tmp_path):
    text = shop().to_csv(index=False).splitlines()
    text[50] += ",one more"
    (tmp_path / "t.csv").write_text("\n".join(text) + "\n")
    told = "\n".join(closing(examine(str(tmp_path / "t.csv"))))
    assert "399 of 400 lines" in told and "1 line does not count: More or fewer values" in told


@pytest.mark.parametrize(
    "written",
    [
        "%Y-%m-%d 17:30 +0500",
        "%Y-%m-%d 17:30:28+05",
        "%Y-%m-%d 05:30 PM -0300",
        "%Y-%m-%dT17:30Z",
        "%d.%m.%Y 17:30:07.25 +05:00",
        "%d.%m.%Y 17:30 UTC",
        "%m/%d/%Y 05:30:28 PM +0500",
    ],
)
def test_an_offset_is_read_with_and_without_a_blank_before_it(tmp_path, written):
    log = shop(60)
    found = looked(log.assign(day=pd.to_datetime(log["day"]).dt.strftime(written)), tmp_path)
    text = "\n".join(closing(found))
    assert columns(found)["date"] == "day" and sure(found)["timezone"] == "unsure"
    assert shown(text)[0] == 60 and "2025-01-01 to 2025-01-20" in text


def shop_orders(lines: int = 90) -> pd.DataFrame:
    """The orders of a web shop: addresses, and totals on the first line of an order alone."""
    n = pd.Series(range(lines))
    order = n * 2 // 3
    later = order.duplicated()
    street = (order % 20).map("{} High Street".format).where(~later & (order % 4 > 0))
    table = pd.DataFrame({"Name": order.map("#{}".format), "Lineitem quantity": n % 2 + 1})
    table["Created at"] = pd.Timestamp("2026-01-24") + pd.to_timedelta(order * 7, "h")
    table["Created at"] = table["Created at"].dt.strftime("%Y-%m-%d %H:%M:%S +0500")
    table["Fulfilled at"] = table["Created at"].where(order % 3 > 0)
    table["Lineitem name"] = (n % 5).map("Article {}".format)
    table["Lineitem price"] = (n % 5 + 1) * 2.5
    return table.assign(**{"Billing Street": street, "Billing City": "Ghent", "Phone": "32"})


def test_orders_with_addresses_are_no_table_of_people(tmp_path):
    table = shop_orders()
    found = looked(table, tmp_path)
    names = columns(found)
    assert not found.verdict and names["date"] == "Created at"
    assert names["quantity"] == "Lineitem quantity" and names["price"] == "Lineitem price"
    assert names["product_name"] == "Lineitem name"
    worth = (table["Lineitem quantity"] * table["Lineitem price"]).sum()
    assert shown("\n".join(closing(found)))[::3] == (90, pytest.approx(worth))
    undated = table.drop(columns=["Created at", "Fulfilled at"])
    assert "table of people" not in looked(undated, tmp_path).verdict


def test_a_number_of_the_line_is_no_product(tmp_path):
    log = shop()
    log = log.drop(index=log.index[1::12])  # baskets of two lines and of three
    log["item_id"] = log.groupby("basket_no").cumcount() + 1
    assert columns(looked(log, tmp_path))["product_id"] == "product_no"
    alone = log.drop(columns="product_no")
    assert "product_id" not in columns(looked(alone, tmp_path))
    articles = log.assign(item_id=log["product_no"].str[1:]).drop(columns="product_no")
    assert columns(looked(articles, tmp_path))["product_id"] == "item_id"


def test_tables_are_said_to_belong_together_until_they_are_joined(tmp_path):
    log = shop()
    heads = log[["basket_no", "customer_no", "day"]].drop_duplicates()
    lines = log.drop(columns=["customer_no", "day"])
    heads.to_csv(tmp_path / "heads.csv", index=False)
    lines.to_csv(tmp_path / "lines.csv", index=False)
    found = examine_all(str(tmp_path / "lines.csv"))
    seen = {g.key: g.why for g in found.guesses}["columns.transaction_id"]
    assert "134 values on 400 lines" in seen and "stands on one line" not in seen
    assert "'lines.csv' and 'heads.csv' belong together" in found.notes[-1]
    lines.merge(heads, on="basket_no").to_csv(tmp_path / "sales.csv", index=False)
    joined = examine_all(str(tmp_path / "sales.csv"))
    assert not joined.verdict and not any("belong together" in note for note in joined.notes)
    (tmp_path / "heads.csv").unlink()
    told = examine_all(str(tmp_path / "lines.csv")).notes[-1]
    assert "sales.csv has the same columns and 'customer_no' and 'day': check it instead" in told


def test_the_command_writes_a_config_that_runs(tmp_path, monkeypatch, capsys):
    shop().to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.chdir(tmp_path)
    check("t.csv", out="mine.yaml")
    said = capsys.readouterr().out
    assert said == (tmp_path / "mine.yaml").read_text() and "# Question: " in said
    check(config="mine.yaml")
    assert "400 lines came in: 400 kept" in capsys.readouterr().out
    assert guess("t.csv") == examine("t.csv").guesses


@pytest.mark.parametrize("out", ["sub/mine.yaml", "configs/mine.yaml", "sub/configs/mine.yaml"])
def test_a_config_in_another_folder_names_the_files_from_there(tmp_path, monkeypatch, capsys, out):
    goods = pd.DataFrame({"product_no": [f"P{n}" for n in range(12)]})
    (tmp_path / "data").mkdir()
    (tmp_path / out).parent.mkdir(parents=True)
    shop().to_csv(tmp_path / "data/t.csv", index=False)
    goods.assign(category="soap").to_csv(tmp_path / "data/goods.csv", index=False)
    monkeypatch.chdir(tmp_path)
    check("data/t.csv", out=out)
    assert "goods.csv" in (tmp_path / out).read_text()
    capsys.readouterr()
    check(config=out)
    assert "400 lines came in: 400 kept" in capsys.readouterr().out
    with pytest.raises(DataError, match="nothere.csv does not exist.*Correct the name, here or as"):
        check("nothere.csv")


def test_a_line_after_a_long_silence_is_called_that(tmp_path):
    log = shop()
    late = log.tail(1).assign(day="2025-12-28", basket_no="X")
    text = "\n".join(closing(looked(pd.concat([log, late]), tmp_path)))
    told = "1 line does not count: A date in the future, or after a long silence"
    assert told in text and "if these are sales, set data.earliest or data.last_date" in text


def test_the_share_of_days_is_that_of_the_lines(tmp_path):
    log = shop()
    log["day"] = [f"2025-01-{n % 10 + 1:02d}" for n in range(len(log))]
    log.loc[log.index[:4], "day"] = "later"
    (date,) = [g for g in looked(log, tmp_path).guesses if g.key == "date_format"]
    assert "reads 99% of 'day'" in date.why  # 396 of 400 lines, though 10 of 11 values


def counter_sales(lines: int = 300) -> pd.DataFrame:
    """Sales over the counter of a pharmacy: a number for each, and nobody's name."""
    n = pd.Series(range(lines))
    price = [4.5, 12.25, 8.1, 30.0]
    table = pd.DataFrame(
        {
            "sale_id": 5000 + n,
            "pharmacy_id": n * 7 % 3 + 1,
            "medication_id": 100 + n % 4,
            "sale_date": pd.Timestamp("2024-01-01") + pd.to_timedelta(n // 2, "D"),
            "quantity": 1 + n * 5 % 3,
            "unit_price": [price[k] for k in n % 4],
            "membership_status": n.map(lambda k: "Cancelled" if k % 5 == 0 else "Active"),
        }
    )
    return table.assign(total_amount=table["quantity"] * table["unit_price"])


def test_a_pharmacy_s_sales_are_receipts_and_a_cancelled_membership_is_a_sale(tmp_path):
    table = counter_sales()
    table.to_csv(tmp_path / "counter.csv", index=False)
    found = examine(str(tmp_path / "counter.csv"))
    named = columns(found)
    assert (named["transaction_id"], named["product_id"]) == ("sale_id", "medication_id")
    assert not {"status", "customer_id"} & set(named)
    assert not any(g.key == "status" for g in found.guesses)
    revenue = round(table["total_amount"].sum(), 2)
    assert shown("\n".join(closing(found))) == (300, 300, 0, revenue)
    table.drop(columns="sale_id").to_csv(tmp_path / "bare.csv", index=False)
    (lacking,) = [
        g.why for g in guess(str(tmp_path / "bare.csv")) if g.key == "columns.transaction_id"
    ]
    assert "every line is a basket of its own" in lacking


# --------------------------------------------------------------- customers and receipts by any name


def till_lines(customer: str, receipt: str = "transaction_id") -> pd.DataFrame:
    """Sixty receipts of one to three lines, of twelve people, in two stores."""
    lines = []
    for number in range(60):
        for line in range(1 + number % 3):
            day = f"2025-{1 + number // 28:02}-{1 + number % 28:02}"
            lines.append((f"B{number:03}", f"K{number % 12:02}", day, f"P{line}", "NS"[number % 2]))
    names = [receipt, customer, "date", "product_id", "filiale"]
    return pd.DataFrame(lines, columns=names).assign(quantity=2, price=1.5, revenue=3.0)


def remarks(lines: pd.DataFrame, **more) -> str:
    return " ".join(retail_ci.clean(lines, **more).facts.get("remarks", []))


@pytest.mark.parametrize("header", ["loyalty number", "loyalty card", "xyz", "Email"])
def test_a_column_that_could_be_the_customer_is_named(header, tmp_path):
    told = remarks(till_lines(header))
    assert f"could be the customer: {header!r} (" in told and "12 different values" in told
    assert "filiale" not in told
    # without a config too: an unknown header is asked about, with what it would give
    till_lines(header).to_csv(tmp_path / "sales.csv", index=False)
    found = examine(str(tmp_path / "sales.csv"))
    told = "\n".join([proposal("", found.guesses), *closing(found)])
    assert "60 baskets, 12 customers" in told
    if columns(found).get("customer_id") != header:
        assert f"It could be {header!r}" in told and f"Is {header!r} the customer" in told


@pytest.mark.parametrize("header", ["klant", "Kundennummer", "顧客番号", "cliente", "customer"])
def test_a_header_that_names_the_customer_clearly_is_refused_unmapped(header):
    with pytest.raises(DataError, match=rf"{header!r} sounds like it; name it under"):
        retail_ci.clean(till_lines(header))


@pytest.mark.parametrize("header", ["xyz", "顧客番号"])  # one of each of the two tests above
def test_a_header_that_is_mapped_is_the_customer_and_nothing_could_be_it(header):
    done = retail_ci.clean(till_lines(header), columns={"customer_id": header})
    assert done.facts["customers"] == 12
    assert "could be" not in " ".join(done.facts.get("remarks", []))


@pytest.mark.parametrize("header", ["card", "account", "user"])
def test_a_way_to_pay_is_no_customer(header):
    cards = ["Visa", "Mastercard", "Maestro"]
    lines = till_lines(header)
    lines[header] = lines[header].str[1:].astype(int).mod(3).map(dict(enumerate(cards)))
    assert lines[header].nunique() == 3
    done = retail_ci.clean(lines)
    assert done.facts["kept"] == len(lines) and done.facts["customers"] == 0


def test_a_missing_amount_is_asked_for_before_the_customer(tmp_path):
    lines = till_lines("xyz").drop(columns=["price", "revenue"])
    lines.to_csv(tmp_path / "sales.csv", index=False)
    found = examine(str(tmp_path / "sales.csv"))
    assert columns(found).get("customer_id") is None
    assert question(found, []).startswith("What did each line cost the customer")
    till_lines("xyz").to_csv(tmp_path / "priced.csv", index=False)
    assert "Is 'xyz' the customer" in question(examine(str(tmp_path / "priced.csv")), [])


@pytest.mark.parametrize("header", ["bon", "ticket no", "xyz"])
def test_without_a_receipt_the_baskets_are_said_and_what_could_be_it(header):
    lines = till_lines("customer_id", header)
    told = remarks(lines, duplicates="keep")
    assert "No column is read as the receipt: the lines of a customer's day are one" in told
    assert f"could be the receipt: {header!r} (" in told and "60 different values" in told


def test_a_receipt_or_a_basket_that_is_named_is_not_asked_for():
    lines = till_lines("customer_id", "xyz")
    assert "receipt" not in remarks(lines, columns={"transaction_id": "xyz"})
    assert "receipt" not in remarks(lines, basket=["customer_id", "date"])


def test_the_amount_after_a_discount_is_called_that(tmp_path):
    lines = till_lines("customer_id").assign(discount=lambda t: [0.0, 0.25] * (len(t) // 2))
    lines["revenue"] = lines["quantity"] * lines["price"] * (1 - lines["discount"])
    lines.assign(currency="EUR").to_csv(tmp_path / "sales.csv", index=False)
    why = {g.key: g.why for g in examine(str(tmp_path / "sales.csv")).guesses}
    for role in ("quantity", "price", "revenue"):
        told = why[f"columns.{role}"]
        assert "quantity × price, less 'discount', gives the amount in 100% of the lines" in told
        assert "quantity × price gives" not in told
    lines["revenue"] = lines["quantity"] * lines["price"]
    lines.to_csv(tmp_path / "before.csv", index=False)
    why = {g.key: g.why for g in examine(str(tmp_path / "before.csv")).guesses}
    assert "quantity × price gives the amount in 100%" in why["columns.revenue"]


def written(folder: Path, table: pd.DataFrame) -> Examination:
    """What is proposed for a table as a file of commas."""
    table.to_csv(folder / "export.csv", index=False)
    return examine(str(folder / "export.csv"))


def orders(lines: int = 60) -> pd.DataFrame:
    """Lines of a shop: two a receipt, one receipt a day."""
    n = pd.Series(range(lines))
    days = pd.Timestamp("2025-03-01") + pd.to_timedelta(n // 2, unit="D")
    return pd.DataFrame(
        {
            "order_id": 1000 + n // 2,
            "customer_id": "C" + (n // 2 % 9).astype(str),
            "order_date": days.dt.strftime("%Y-%m-%d"),
            "product_id": "P" + (n % 7).astype(str),
        }
    )


def test_what_was_paid_is_the_price_less_its_percentage(tmp_path):
    table = orders().drop(columns="order_id")
    table["price"] = 20.5 + table.index % 7 * 13.25
    table["discount"] = 5 + table.index % 5 * 7.5
    table["final_price"] = (table["price"] * (1 - table["discount"] / 100)).round(2)
    table["review_count"] = 1 + table.index * 3 % 40
    found = written(tmp_path, table)
    assert "quantity" not in columns(found)
    assert (columns(found)["revenue"], sure(found)["revenue"]) == ("final_price", "likely")
    assert found.settings().rates == {"discount": "percent"}
    assert shown("\n".join(closing(found)))[3] == round(table["final_price"].sum(), 2)


def test_a_net_price_of_one_piece_is_the_price(tmp_path):
    table = orders()
    table["qty"] = 1 + table.index % 4
    table["list price"] = 20.5 + table.index % 7 * 13.25
    table["discount"] = 0.05 + table.index % 5 * 0.075
    table["net price"] = (table["list price"] * (1 - table["discount"])).round(2)
    found = written(tmp_path, table)
    assert (columns(found)["price"], columns(found)["quantity"]) == ("net price", "qty")
    paid = (table["qty"] * table["net price"]).sum()
    assert shown("\n".join(closing(found)))[3] == pytest.approx(paid, abs=0.005)


def test_an_amount_for_each_unit_is_the_price_where_a_discount_leads_to_the_total(tmp_path):
    table = orders()
    table["Quantidade"] = 1 + table.index % 4
    table["Valor Unitario"] = 20.5 + table.index % 7 * 13.25
    table["Desconto"] = table.index % 3 * 0.1
    whole = table["Quantidade"] * table["Valor Unitario"]
    table["Valor Total"] = (whole * (1 - table["Desconto"])).round(2)
    table["Estado"] = ["SP", "MG", "PR"] * 20
    found = written(tmp_path, table)
    assert columns(found)["price"] == "Valor Unitario"
    assert columns(found)["revenue"] == "Valor Total"
    assert found.settings().rates == {"discount": "share"} and "status" not in columns(found)
    text = "\n".join(closing(found))
    assert shown(text)[3] == round(table["Valor Total"].sum(), 2) and "Estado" not in text
    table["Estado"] = ["Entregado", "Enviado", "Cancelado"] * 20
    assert columns(written(tmp_path, table))["status"] == "Estado"


def test_a_total_with_its_tax_contradicts_nothing(tmp_path):
    table = orders()
    table["qty"] = 1 + table.index % 4
    table["unit_price"] = 20.5 + table.index % 7 * 13.25
    table["tax_5%"] = (table["qty"] * table["unit_price"] * 0.05).round(4)
    table["total"] = table["qty"] * table["unit_price"] + table["tax_5%"]
    table["time"] = "13:08"
    found = written(tmp_path, table)
    assert {sure(found)[role] for role in ("quantity", "price", "revenue")} == {"likely"}
    why = {g.key: g.why for g in found.guesses}["columns.revenue"]
    assert "quantity × price with 'tax_5%' gives the amount in 100% of the lines" in why
    text = "\n".join(closing(found))
    assert shown(text)[3] == round(table["total"].sum(), 2) and "time 'time'" in text


@pytest.mark.parametrize("vat, way", [(20, "percent"), (0.2, "share")])
def test_a_tax_that_is_a_rate_is_read_as_one(tmp_path, vat, way):
    table = orders()
    table["qty"] = 1 + table.index % 4
    table["unit_price"] = 20.5 + table.index % 7 * 13.25
    table["vat"] = vat
    table["total"] = (table["qty"] * table["unit_price"] * 1.2).round(2)
    found = written(tmp_path, table).settings()
    assert found.columns["tax"] == "vat" and found.rates["tax"] == way
    assert found.amounts["tax"] == "gross"


def test_a_word_for_nothing_is_seen_beside_a_decimal_comma(tmp_path):
    table = orders(200)
    table["price"] = [f"{12 + n % 7},50" for n in table.index]
    table.loc[::10, "price"] = "ERROR"
    assert written(tmp_path, table).settings().missing == ["ERROR"]


def test_words_for_nothing_are_missing_where_several_columns_or_numbers_hold_them(tmp_path):
    table = orders(200)
    table["qty"] = (1 + table.index % 4).astype(str)
    table["unit_price"] = (20.5 + table.index % 7 * 13.25).astype(str)
    total = table["qty"].astype(int) * table["unit_price"].astype(float)
    table["total"] = total.astype(str)
    table["size"] = ["none", "S", "M", "L"] * 50  # one column of words: it may be a size
    table.loc[3, "qty"] = table.loc[7, "product_id"] = "UNKNOWN"
    table.loc[11, "unit_price"] = table.loc[13, "product_id"] = "ERROR"
    table.loc[17, "order_date"] = "#N/A"
    found = written(tmp_path, table)
    assert found.settings().missing == ["#N/A", "ERROR", "UNKNOWN"]
    assert not set(found.found.column("product_id").values) & {"UNKNOWN", "ERROR"}
    kept = shown("\n".join(closing(found)))
    # the total tells what one piece cost; how many were sold, and when, nothing tells
    assert kept[3] == pytest.approx(total.drop([3, 17]).sum(), abs=0.005)


def test_a_stock_of_days_is_no_log_and_a_log_with_its_stock_is(tmp_path):
    table = orders()[["order_date", "product_id"]]
    table["units_sold"] = 1 + table.index % 4
    table["price"] = 20.5 + table.index % 7
    table["stock"] = 90 - table.index % 50
    assert not written(tmp_path, table).verdict
    table["closing_stock"] = table["stock"] - table["units_sold"]
    assert "table of stock: it has 'stock' and 'closing_stock' of the days of 'order_date'" in (
        written(tmp_path, table).verdict
    )
    alone = table[["product_id", "stock", "order_date"]]
    assert "table of stock: it has 'stock'" in written(tmp_path, alone).verdict
    pairs = pd.DataFrame({"store": ["N"] * 9 + ["S"] * 9, "sku": [*"ABCDEFGHI"] * 2, "qty": 4})
    assert "one row for each pair of 'sku' and 'store'" in written(tmp_path, pairs).verdict


def test_what_may_be_no_sales_is_asked(tmp_path):
    day = orders().groupby("order_date").size().rename("sales").reset_index()
    asked = closing(written(tmp_path, day))[-1]
    assert asked == (
        "Question: Each line has a day of its own: is it one sale, or the sum of that day?"
    )
    paid = orders()[["order_date"]].assign(amount=20.25 + orders().index, supplier="Steel Ltd")
    assert "'supplier' speaks of suppliers" in closing(written(tmp_path, paid))[-1]
    named = paid.drop(columns="supplier")
    named.to_csv(tmp_path / "Purchases 2025.csv", index=False)
    asked = closing(examine(str(tmp_path / "Purchases 2025.csv")))[-1]
    assert "are the lines what the shop bought, and no sales?" in asked


def test_the_cells_of_a_sheet_that_hold_a_whole_line_are_named(tmp_path):
    lines = orders().to_csv(index=False, sep=";").splitlines()
    cells = pd.DataFrame(lines[1:], columns=[lines[0]])
    cells.to_excel(tmp_path / "cells.xlsx", index=False)
    verdict = examine(str(tmp_path / "cells.xlsx")).verdict
    assert "Each line stands in quotes, or in one cell" in verdict
    assert "its 4 columns are one" in verdict and "neither" not in verdict


def test_a_second_header_says_what_becomes_of_its_lines(tmp_path):
    table = orders().assign(amount=20.25 + orders().index % 17)
    head = pd.DataFrame([["Order", "Customer", "Date", "Product", "Amount"]], columns=table.columns)
    both = pd.concat([table[:40], head, table[40:]])
    note = "\n".join(closing(written(tmp_path, both)))
    assert "that row would be rejected, and the lines below it are read by the first header" in note
    assert shown(note)[0] == len(table)


def test_takings_have_names_of_their_own_in_each_language(tmp_path):
    table = orders().drop(columns="customer_id").assign(Utarg=20.25 + orders().index % 17)
    assert columns(written(tmp_path, table))["revenue"] == "Utarg"
    table = table.rename(columns={"Utarg": "Incasso"})
    assert columns(written(tmp_path, table))["revenue"] == "Incasso"


def test_the_headers_of_a_bookkeeping_system_and_of_indonesian_are_read(tmp_path):
    table = orders().assign(qty=1 + orders().index % 4, price=20.5 + orders().index % 7)
    aspel = ["CVE_DOC", "CVE_CLPV", "FECHA_DOC", "CVE_ART", "CANT", "PRECIO_UNITARIO"]
    ours = ["transaction_id", "customer_id", "date", "product_id", "quantity", "price"]
    assert columns(written(tmp_path, table.set_axis(aspel, axis=1))) == dict(zip(ours, aspel))
    bahasa = ["id_faktur", "id_pelanggan", "tanggal", "kode_barang", "jumlah_barang", "harga"]
    assert columns(written(tmp_path, table.set_axis(bahasa, axis=1))) == dict(zip(ours, bahasa))
    counted = table.set_axis([*aspel[:4], "Items Ordered", "Total Cost"], axis=1)
    found = written(tmp_path, counted)
    assert columns(found)["quantity"] == "Items Ordered" and "revenue" not in columns(found)
    assert closing(found)[-1] == (
        "Question: Is 'Total Cost' what the customer paid, or what the shop did?"
    )


def test_one_row_for_each_address_is_a_table_of_people_and_a_list_of_towns_is_none(tmp_path):
    people = pd.DataFrame({"Email": [f"a{n}@example.com" for n in range(30)], "Address": "Hill St"})
    assert "table of people: one row for each value of 'Email'" in written(tmp_path, people).verdict
    towns = pd.DataFrame({"CityCD": [f"T{n}" for n in range(30)], "CityName": "Hill"})
    assert "neither days" in written(tmp_path, towns).verdict


def web_orders(count: int = 60) -> pd.DataFrame:
    """The orders of a web shop as it exports them: money and states on the first line alone."""
    n = pd.Series(range(count * 2)) // 2
    table = pd.DataFrame({"Name": n.map("#{}".format), "Email": n.mod(23).map("c{}@x.org".format)})
    later = n.duplicated()
    line = pd.Series(range(len(n)))
    price, quantity = 2.5 + line * 7 % 9 * 1.25, 1 + line % 3
    whole = (price * quantity).groupby(n).transform("sum")
    table["Financial Status"] = n.mod(10).map({3: "refunded"}).fillna("paid").mask(later)
    for name, values in (("Subtotal", whole), ("Taxes", whole * 0.2), ("Total", whole + 5)):
        table[name] = values.round(2).mask(later)
    table["Created at"] = pd.Timestamp("2025-01-24") + pd.to_timedelta(n * 7, "h")
    table["Created at"] = table["Created at"].dt.strftime("%Y-%m-%d %H:%M:%S +0100")
    table["Lineitem quantity"], table["Lineitem price"] = quantity, price
    table["Lineitem name"] = (line * 7 % 9).map("Article {}".format)
    table["Lineitem sku"] = (line * 7 % 9).map("S{}".format)
    # most orders have one line, so that most lines have a total
    return table[~(later & (n % 3 > 0))].reset_index(drop=True)


def test_the_totals_of_an_order_are_no_lines_and_its_name_is_its_number(tmp_path):
    table = web_orders()
    assert table["Total"].notna().mean() > 0.7
    found = written(tmp_path, table)
    assert columns(found) == {
        "date": "Created at",
        "customer_id": "Email",
        "transaction_id": "Name",
        "quantity": "Lineitem quantity",
        "price": "Lineitem price",
        "product_id": "Lineitem sku",
        "product_name": "Lineitem name",
    }
    text = "\n".join(closing(found))
    worth = (table["Lineitem quantity"] * table["Lineitem price"]).sum()
    customers = table["Email"].nunique()
    assert shown(text) == (len(table), 60, customers, pytest.approx(worth, abs=0.005))
    assert "'Subtotal', 'Taxes', 'Total': filled on the first line of a basket only" in text
    plain = written(tmp_path, table.drop(columns="Lineitem sku"))
    assert columns(plain)["product_id"] == columns(plain)["product_name"] == "Lineitem name"


def test_a_status_on_first_lines_is_written_down_by_the_command_that_is_named(
    tmp_path, monkeypatch
):
    table = web_orders()
    monkeypatch.chdir(tmp_path)
    table.to_csv("orders.csv", index=False)
    (told,) = [t for t in examine("orders.csv").notes if "'Financial Status'" in t]
    program = re.search(r'python -c "(.*)"$', told)[1]
    exec(program, {})
    found = examine("filled.csv")
    assert columns(found)["status"] == "Financial Status"
    paid = table[table["Name"].str[1:].astype(int) % 10 != 3]
    worth = (paid["Lineitem quantity"] * paid["Lineitem price"]).sum()
    text = "\n".join(closing(found))
    assert shown(text)[::3] == (len(paid), pytest.approx(worth, abs=0.005))


@pytest.mark.parametrize("header", ["Ref", "Order", "Nummer", "id"])
def test_totals_on_first_lines_show_the_order_whatever_it_is_called(tmp_path, header):
    table = web_orders().rename(columns=lambda name: name.replace("Lineitem ", "item "))
    found = written(tmp_path, table.rename(columns={"Name": header, "Total": "Order total"}))
    assert columns(found)["transaction_id"] == header and "revenue" not in columns(found)
    if header == "Ref":  # the others read the same columns
        worth = (table["item quantity"] * table["item price"]).sum()
        assert shown("\n".join(closing(found)))[1::2] == (60, pytest.approx(worth, abs=0.005))


def test_orders_that_are_named_on_their_first_line_only_are_written_down(tmp_path, monkeypatch):
    table = web_orders().rename(columns={"Name": "Order Number", "Created at": "Order Date"})
    first = ~table["Order Number"].duplicated()
    whole = table.copy()
    for name in ("Order Number", "Order Date", "Email"):
        table[name] = table[name].where(first)
    monkeypatch.chdir(tmp_path)
    table.to_csv("orders.csv", index=False)
    verdict = examine("orders.csv").verdict
    assert "'Order Number', 'Order Date' stand on the first line of an order only" in verdict
    exec(re.search(r'python -c "(.*)"', verdict)[1], {})
    worth = (whole["Lineitem quantity"] * whole["Lineitem price"])[
        whole["Order Number"].str[1:].astype(int) % 10 != 3
    ]
    given = shown("\n".join(closing(examine("filled.csv"))))
    assert given[::3] == (len(worth), pytest.approx(worth.sum(), abs=0.005))


def test_a_bill_with_most_of_a_sheet_looks_odd(tmp_path):
    log = shop()
    log["basket_no"] = log["basket_no"].where(pd.Series(log.index) % 20 >= 13, "B1")
    log["customer_no"], log["day"] = "C1", "2025-01-01"
    log["line"] = log.index  # so that no two lines are equal
    big = log["basket_no"] == "B1"
    assert big.mean() == 0.65 and log["basket_no"].nunique() > 20
    (told,) = [t for t in closing(looked(log, tmp_path)) if "A basket with a quarter" in t]
    worth = log["amount"].astype(float)[big].sum()
    rest = log["amount"].astype(float)[~big].sum()
    assert f"{big.sum()} lines, revenue {worth:,.2f} (B1)" in told
    assert f"a net revenue of {rest:,.2f} remain" in told
    few = log[log["basket_no"].isin(["B1", *log["basket_no"].unique()[-10:]])]
    assert "A basket with a quarter" not in "\n".join(closing(looked(few, tmp_path)))
    healthy = shop(60)  # twenty receipts of three lines
    assert "A basket with a quarter" not in "\n".join(closing(looked(healthy, tmp_path)))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_lines_that_are_quoted_as_a_whole_are_read(tmp_path, separator):
    table = shop(90).assign(title='Soap, "fine"; in a box')
    text = table.to_csv(index=False, sep=separator)
    lines = ['"' + line.replace('"', '""') + '"' for line in text.splitlines()]
    (tmp_path / "quoted.csv").write_text("\r\n".join(lines) + "\r\n")
    found = examine(str(tmp_path / "quoted.csv"))
    said = "\n".join(closing(found))
    assert "90 lines stand in quotation marks as a whole" in said
    worth = table["amount"].astype(float).sum()
    baskets, customers = table["basket_no"].nunique(), table["customer_no"].nunique()
    assert shown(said) == (90, baskets, customers, pytest.approx(worth, abs=0.005))
    if separator in ",;":  # a header without the marks is read as well
        lines[0] = text.splitlines()[0]
        (tmp_path / "quoted.csv").write_text("\n".join(lines))
        assert shown("\n".join(closing(examine(str(tmp_path / "quoted.csv")))))[0] == 90


def pizzas(lines: int = 240) -> pd.DataFrame:
    """The orders of a restaurant: a number for each line, and a code for each dish."""
    n = pd.Series(range(lines))
    table = pd.DataFrame({"pizza_id": n + 1, "order_id": n // 3 + 1, "quantity": 1 + n % 2})
    day = pd.Timestamp("2025-01-01") + pd.to_timedelta(n // 12, "D")
    table["order_date"] = day.dt.strftime("%Y-%m-%d")
    return table.assign(pizza_name_id=(n * 5 % 11).map("pie_{}_m".format))


@pytest.mark.parametrize(
    "dish, number", [("pizza_name_id", "pizza_id"), ("Symbol", "item_id"), ("Symbol", "Line")]
)
def test_the_product_is_what_baskets_name_again_and_no_running_number(tmp_path, dish, number):
    table = pizzas().rename(columns={"pizza_name_id": dish, "pizza_id": number})
    found = written(tmp_path, table.assign(price=5 + table.index * 5 % 11 * 0.5))
    assert columns(found)["product_id"] == dish and sure(found)["product_id"] == "likely"


def test_a_symbol_without_baskets_is_asked_about(tmp_path):
    table = (
        pizzas().drop(columns=["order_id", "pizza_id"]).rename(columns={"pizza_name_id": "Symbol"})
    )
    (told,) = [g for g in written(tmp_path, table).guesses if g.key == "columns.product_id"]
    assert told.value is None and "Could it be 'Symbol'?" in told.why


@pytest.mark.parametrize("key", ["pizza_name_id", "item", "Item name"])
def test_a_menu_beside_the_log_gives_names_and_prices(tmp_path, key):
    log = pizzas().rename(columns={"pizza_name_id": key}).drop(columns="pizza_id")
    menu = pd.DataFrame({key: [f"pie_{n}_m" for n in range(11)]})
    menu["price"] = [4 + n * 0.75 for n in range(11)]
    log.to_csv(tmp_path / "sales.csv", index=False)
    menu.to_csv(tmp_path / "menu.csv", index=False)
    found = examine_all(str(tmp_path / "sales.csv"))
    assert Path(found.settings().products).name == "menu.csv"
    assert columns(found)["price"] == "price" and columns(found)["product_id"] == key
    both = log.merge(menu, on=key)
    worth = (both["quantity"] * both["price"]).sum()
    assert shown("\n".join(closing(found)))[::3] == (len(log), pytest.approx(worth, abs=0.005))
    if key == "item":  # under a name that many tables share
        menu[key] = menu[key] + "?"
        menu.to_csv(tmp_path / "menu.csv", index=False)
        assert not examine_all(str(tmp_path / "sales.csv")).settings().products


def test_a_price_of_the_day_is_no_price_of_a_line(tmp_path):
    table = orders(200).assign(fuel_price=lambda t: 2 + t.index // 2 * 0.01, qty=2)
    found = written(tmp_path, table)
    assert "price" not in columns(found)
    assert any("'fuel_price' is the same on all lines of a day" in note for note in found.notes)
    # the same price where it belongs to the products, or where it makes the amount
    own = written(tmp_path, table.assign(fuel_price=2 + table.index % 7 * 0.5))
    assert columns(own)["price"] == "fuel_price"
    paid = written(tmp_path, table.assign(amount=2 * table["fuel_price"]))
    assert columns(paid)["price"] == "fuel_price"
    weeks = pd.DataFrame({"Date": pd.date_range("2024-01-05", periods=60, freq="7D").astype("str")})
    weeks = pd.concat([weeks.assign(Store=s, Fuel_Price=2 + s + weeks.index / 50) for s in (1, 2)])
    found = written(tmp_path, weeks)
    assert "price" not in columns(found)
    assert any("'Fuel_Price' is the price of a day" in note for note in found.notes)


@pytest.mark.parametrize("ordered", ["Ordered", "Order placed", "Bestellt", "Pedido", "order_date"])
@pytest.mark.parametrize("sent", ["Arrival Date", "Delivery Date", "Date", "Data"])
def test_the_day_of_the_order_comes_before_that_of_the_delivery(tmp_path, ordered, sent):
    table = (
        orders().rename(columns={"order_date": ordered}).assign(amount=lambda t: 5 + t.index % 9)
    )
    later = pd.to_datetime(table[ordered]) + pd.to_timedelta(2 + table.index % 3, "D")
    table.insert(0, sent, later.dt.strftime("%Y-%m-%d"))
    found = written(tmp_path, table)
    assert columns(found)["date"] == ordered
    if sent == "Date":  # which column is read stands above; what it then gives is the same
        assert "2025-03-01 to 2025-03-30" in "\n".join(closing(found))


def test_what_was_paid_is_the_amount_less_its_discount_where_no_price_stands(tmp_path):
    table = orders().assign(qty=1 + orders().index % 4)
    gross = table["qty"] * (4.5 + table.index % 7)
    off = (gross * 0.1).round(2).where(table.index % 3 == 0, 0)
    table["Gross Sales"], table["Discounts"], table["Net Sales"] = gross, -off, gross - off
    found = written(tmp_path, table)
    assert columns(found)["revenue"] == "Net Sales"
    worth = (gross - off).sum()
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth, abs=0.005)


def test_prices_with_and_without_tax_and_a_number_sign_are_read(tmp_path):
    table = orders().rename(columns={"order_id": "N.º de venda", "order_date": "Data da venda"})
    table["product_quantity"] = 1 + table.index % 4
    for side, rate in (("incl", 1.2), ("excl", 1)):
        table[f"unit_price_tax_{side}"] = (2.5 + table.index % 7) * rate
        price = table[f"unit_price_tax_{side}"]
        table[f"total_price_tax_{side}"] = price * table["product_quantity"]
    found = written(tmp_path, table.assign(current_state=["Livré", "Annulé", "Livré"] * 20))
    assert columns(found)["transaction_id"] == "N.º de venda"
    assert columns(found)["status"] == "current_state"
    sold = [n % 3 != 1 for n in table.index]
    worth = table["total_price_tax_incl"][sold].sum()
    text = "\n".join(closing(found))
    assert shown(text)[::3] == (40, pytest.approx(worth, abs=0.005))
    assert columns(found)["price"] == "unit_price_tax_incl"


def test_a_line_s_own_amount_beside_line_items_is_no_total_of_the_order(tmp_path):
    table = web_orders().drop(columns=["Financial Status", "Subtotal", "Taxes"])
    whole = table["Lineitem price"] * table["Lineitem quantity"]
    table["Discount"] = (0.5 + table.index % 4 * 0.25) * (table.index % 3 == 0)
    table["Net amount"] = (whole - table["Discount"]).round(2)
    table["Total"] = table.groupby("Name")["Net amount"].transform("sum").round(2)
    found = written(tmp_path, table)
    assert columns(found)["revenue"] == "Net amount"
    assert columns(found)["discount"] == "Discount"
    worth = table["Net amount"].sum()
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth, abs=0.005)


def test_a_few_values_that_stand_on_first_lines_by_chance_are_no_totals(tmp_path):
    table = orders(240).assign(qty=1, price=lambda t: 4.5 + t.index % 7)
    first = table.index[~table["order_id"].duplicated()][[3, 20, 70]]
    table.loc[first, "discount"] = "2.00"
    assert table["order_id"].duplicated().sum() > 50
    found = written(tmp_path, table)
    assert "on the first line of a basket only" not in "\n".join([*found.notes, *closing(found)])
    # on three of the four baskets with several lines it is no chance
    few = written(tmp_path, web_orders(10))
    assert any("filled on the first line of a basket only" in note for note in few.notes)


@pytest.mark.parametrize("worker", ["sales_rep_email", "Manager Email", "Mitarbeiter E-Mail"])
def test_who_is_at_work_is_no_customer(tmp_path, worker):
    table = web_orders().rename(columns={"Email": worker})
    assert "customer_id" not in columns(written(tmp_path, table))


def test_an_address_that_says_not_whose_it_is_is_asked_about(tmp_path):
    table = web_orders().rename(columns={"Email": "bdm_email"}).drop(columns="Financial Status")
    found = written(tmp_path, table)
    assert columns(found)["customer_id"] == "bdm_email"
    assert "Is 'bdm_email' who bought?" in closing(found)[-1]


@pytest.mark.parametrize("header", ["staff no", "Color code", "Talla", "Lot no"])
def test_what_a_product_has_is_no_product(tmp_path, header):
    table = pizzas().rename(columns={"pizza_name_id": header}).drop(columns="pizza_id")
    found = written(tmp_path, table.assign(price=5 + table.index * 5 % 11 * 0.5, customer=1))
    assert "product_id" not in columns(found)


def test_a_product_that_is_known_by_its_use_alone_is_asked_about(tmp_path):
    table = pizzas().assign(price=5 + pizzas().index * 5 % 11 * 0.5)
    table["customer_id"] = (table["order_id"] * 7 % 31).map("C{}".format)
    text = closing(written(tmp_path, table))
    assert "Is 'pizza_name_id' what was sold?" in text[-1]


def test_the_price_of_the_day_may_be_what_a_litre_cost(tmp_path):
    n = pd.Series(range(160))
    table = pd.DataFrame({"receipt_no": n + 1, "customer_id": (n * 7 % 41).map("C{}".format)})
    table["date"] = (pd.Timestamp("2025-01-01") + pd.to_timedelta(n // 4, "D")).dt.strftime("%F")
    table["quantity"] = 10 + n * 3.7 % 41
    table["price"] = (1.5 + n // 4 * 0.013).round(3)
    found = written(tmp_path, table)
    assert columns(found)["price"] == "price" and sure(found)["price"] == "unsure"
    text = closing(found)
    worth = (table["quantity"] * table["price"]).sum()
    assert shown("\n".join(text))[3] == pytest.approx(worth, rel=0.002)  # rounded line by line
    assert "'price' what a piece on each line cost" in text[-1] and "price of the day" in text[-1]


def test_a_state_where_people_live_is_no_status(tmp_path):
    regions = ["Bretagne", "Pays de la Loire", "Corse", "Normandie", "Grand Est", "Occitanie"]
    table = orders().assign(amount=lambda t: 5 + t.index % 9)
    table["State"] = [regions[n % 6] for n in table.index]
    found = written(tmp_path, table)
    assert "status" not in columns(found)
    done = table.assign(State=["Vigente", "Procesado", "Anulado"] * 20)
    assert columns(written(tmp_path, done))["status"] == "State"


def orders_of_a_plugin(lines: int = 60) -> tuple[pd.DataFrame, pd.Series]:
    """Orders with their total on each line, as a plugin exports them; what each line is worth."""
    table = orders(lines).assign(Quantity=1 + orders(lines).index % 4)
    table["Item Cost"] = 2.5 + table["product_id"].str[1:].astype(int)
    worth = table["Quantity"] * table["Item Cost"]
    sent = 4.9 * (table["order_id"].astype("category").cat.codes % 2)
    table["Order Total"] = (worth.groupby(table["order_id"]).transform("sum") + sent).round(2)
    return table, worth


def test_what_items_cost_is_proposed_in_place_of_the_total_that_they_add_up_to(tmp_path):
    table, worth = orders_of_a_plugin()
    found = written(tmp_path, table)
    assert columns(found)["price"] == "Item Cost" and "revenue" not in columns(found)
    assert sure(found)["price"] == "likely"
    text = "\n".join(closing(found))
    assert shown(text)[:2] == (60, 30) and shown(text)[3] == pytest.approx(worth.sum(), abs=0.005)
    assert "'Order Total' is the same on all lines of a basket" in text
    assert "matters: amount 'Order Total'" not in text


def test_a_total_on_each_line_is_no_lines_where_no_receipt_is_known_either(tmp_path):
    table, worth = orders_of_a_plugin()
    found = written(tmp_path, table.drop(columns="order_id"))
    assert columns(found)["price"] == "Item Cost" and "revenue" not in columns(found)
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth.sum(), abs=0.005)


def test_a_cost_that_does_not_add_up_to_the_total_is_asked_about(tmp_path):
    table, _ = orders_of_a_plugin()
    table["Unit Cost"] = (table.pop("Item Cost") * (0.6 + table.index % 5 * 0.05)).round(2)
    found = written(tmp_path, table)
    assert not {"price", "revenue"} & set(columns(found))
    assert closing(found)[-1] == (
        "Question: Is 'Unit Cost' what the customer paid, or what the shop did?"
    )


def test_no_total_of_orders_is_counted_on_each_line_whatever_is_sold(tmp_path):
    table, _ = orders_of_a_plugin()
    found = written(tmp_path, table.drop(columns=["Item Cost", "Quantity"]))
    assert "revenue" not in columns(found)
    told = "\n".join(closing(found))
    assert "'Order Total' is the same on all lines of a basket" in told
    assert "net revenue" not in told and "What did each line cost the customer" in told


def test_lines_own_totals_are_taken_before_those_of_their_order(tmp_path):
    table, worth = orders_of_a_plugin()
    table["Item Total"] = worth
    found = written(tmp_path, table.drop(columns=["Item Cost", "Quantity"]))
    assert columns(found)["revenue"] == "Item Total"
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth.sum(), abs=0.005)


def test_a_count_of_an_orders_products_is_no_revenue(tmp_path):
    table, worth = orders_of_a_plugin()
    table = table.rename(columns={"Item Cost": "Product Price"}).drop(columns="Order Total")
    table["Total products"] = table.groupby("order_id")["product_id"].transform("size")
    found = written(tmp_path, table)
    assert sure(found)["price"] == sure(found)["quantity"] == "sure"
    assert "revenue" not in columns(found)
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth.sum(), abs=0.005)


@pytest.mark.parametrize("own", [True, False])
def test_without_a_receipt_an_amount_beside_line_items_is_the_lines_or_the_orders(tmp_path, own):
    table = web_orders(90).drop(columns=["Name", "Taxes", "Subtotal", "Financial Status"])
    worth = table["Lineitem quantity"] * table["Lineitem price"]
    days = [table["Email"], table["Created at"].str[:10]]
    less = (worth - table.index % 3 * 0.5).round(2)
    table["Total"] = less if own else worth.groupby(days).transform("sum") + 5
    found = written(tmp_path, table.assign(**{"Line discount": table.index % 3 * 0.5}))
    assert columns(found).get("revenue") == ("Total" if own else None)
    worth = less if own else worth
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth.sum(), abs=0.005)


def test_what_was_paid_is_taken_before_what_it_cost_without_the_discount(tmp_path):
    table = orders().assign(qty=1 + orders().index % 3)
    table["Product Price"] = 4.5 + table["product_id"].str[1:].astype(int)
    table["Sales"] = table["qty"] * table["Product Price"]
    table["Item Discount"] = (table["Sales"] * (table.index % 4) * 0.05).round(2)
    table["Item Discount Rate"] = table.index % 4 * 0.05
    table["Item Total"] = (table["Sales"] - table["Item Discount"]).round(2)
    found = written(tmp_path, table)
    assert columns(found)["revenue"] == "Item Total"
    worth = table["Item Total"].sum()
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth, abs=0.005)


def test_the_share_that_is_left_to_pay_is_no_discount(tmp_path):
    table = orders().assign(qty=1 + orders().index % 3, price=4.5 + orders().index % 7)
    table["discount_rate"] = 0.9 + table.index % 10 * 0.01
    table["amount"] = (table["qty"] * table["price"] * table["discount_rate"]).round(2)
    found = written(tmp_path, table)
    assert "discount" not in columns(found)
    (told,) = [g.why for g in found.guesses if g.key == "columns.discount"]
    assert "the share that is left to pay" in told and "the amounts are after it" in told


def test_a_picture_of_the_product_and_a_number_of_the_line_are_no_products(tmp_path):
    table = orders().assign(price=4.5 + orders().index % 7)
    table["Order Item Id"] = 77000 + table.index * 7 % 61
    number = table.pop("product_id").str[1:]
    table["Product Image"] = "http://img.example.org/" + number + "/front"
    table["Product Name"] = "Soap " + number
    found = written(tmp_path, table)
    assert columns(found)["product_id"] == "Product Name" and sure(found)["product_id"] == "likely"


def test_the_last_step_of_a_status_says_what_became_of_an_order(tmp_path):
    done = ["Shipped", "Shipped - Returned to Seller", "Shipped - Delivered to Buyer"]
    table = orders().assign(amount=5.0, Status=[done[n % 3] for n in range(60)])
    found = written(tmp_path, table)
    (undone,) = [g.value for g in found.guesses if g.key == "status"]
    assert undone == {"returned": ["Shipped - Returned to Seller"]}


def test_days_of_stores_are_asked_about_where_one_was_noted_twice(tmp_path):
    n = pd.Series(range(120))
    table = pd.DataFrame({"store": (n % 4).map("S{}".format)})
    table["date"] = (pd.Timestamp("2025-01-01") + pd.to_timedelta(n // 4, "D")).dt.strftime("%F")
    table["units"], table["net sales"] = 40 + n % 9, 900 + n * 7 % 97
    again = pd.concat([table, table.iloc[[5]].assign(units=0)])
    told = closing(written(tmp_path, again))[-1]
    assert told.startswith("Question: Each line, but for 1, has a day and store of its own")


def test_the_products_beside_several_files_are_found(tmp_path):
    table = orders().assign(quantity=1)
    for year, part in (("2024", table[:30]), ("2025", table[30:])):
        part.to_csv(tmp_path / f"sales_{year}.csv", index=False)
    goods = pd.DataFrame({"product_id": sorted(table["product_id"].unique())})
    goods["product_price"] = 3.0 + goods.index
    goods.to_csv(tmp_path / "goods.csv", index=False)
    found = examine_all(str(tmp_path / "sales_*.csv"))
    assert found.settings().products == str(tmp_path / "goods.csv")
    worth = table.merge(goods, on="product_id")["product_price"].sum()
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth, abs=0.005)


def test_a_log_that_a_run_would_refuse_is_said_to_be(tmp_path):
    table = orders().assign(amount=5 + orders().index % 9)
    said = "\n".join(closing(written(tmp_path, pd.concat([table, table]))))
    assert "A run would refuse these data: 50% of the lines are copies of others" in said
    assert "refuse" not in "\n".join(closing(written(tmp_path, table)))


def test_bytes_that_are_no_text_are_not_called_cp1252(tmp_path):
    file = tmp_path / "sales.csv"
    file.write_bytes(b"date,amount\n" + bytes(n * 37 % 255 + 1 for n in range(9000)))
    with pytest.raises(DataError, match="No usual encoding reads it. Export it again as text") as e:
        examine(str(file))
    assert "cp1252" not in str(e.value)


NOT_WHO_BOUGHT = [  # what several people share, in several languages
    "Customer Lname",
    "Customer Fname",
    "Customer City",
    "Customer Birthday",
    "Customer Phone Prefix",
    "Customer Company",
    "Customer Name",
    "Apellidos cliente",
    "Nachname Kunde",
    "Cognome cliente",
    "Sobrenome do cliente",
    "Achternaam klant",
    "Nazwisko klienta",
    "Müşteri soyadı",
    "Фамилия клиента",
    "客户姓名",
    "顧客氏名",
    "Nama pelanggan",
]


@pytest.mark.parametrize("header", NOT_WHO_BOUGHT)
def test_what_several_people_share_is_never_surely_the_customer(tmp_path, header):
    table = orders().assign(amount=5 + orders().index % 9)
    names = ["Kim", "Berg", "Costa", "Dia", "Evans", "Falk", "Gomez", "Holm", "Ito"]
    table[header] = [names[int(c[1:])] for c in table.pop("customer_id")]
    found = written(tmp_path, table)
    told = [g for g in found.guesses if g.key == "columns.customer_id"]
    assert [g.sure for g in told] == ["unsure"]
    assert told[0].value is None or "names, which two customers may share" in told[0].why


def test_names_of_people_under_the_header_of_a_customer_are_doubted_and_codes_are_not(tmp_path):
    table = orders().assign(amount=5 + orders().index % 9)
    numbers = table.pop("customer_id").str[1:].astype(int)
    for values, doubted in (
        (
            numbers.map("Ann {}.".format).str.translate(str.maketrans("012345678", "abcdefghi")),
            True,
        ),
        (numbers.map("K{}".format), False),
        (numbers.map(lambda n: "WXYZABCDE"[n] * 5), False),
        (numbers.map("c{}@example.org".format), False),
    ):
        found = written(tmp_path, table.assign(Customer=values))
        assert columns(found)["customer_id"] == "Customer"
        assert (sure(found)["customer_id"] == "unsure") == doubted


@pytest.mark.parametrize("stray", [0x81, 0x8D, 0x8F, 0x90, 0x9D])
def test_one_impossible_byte_does_not_change_the_encoding(tmp_path, stray):
    table = orders().assign(amount=5 + orders().index % 9)
    table["city"] = [["Orléans", "Müllheim", "León", "Malmö"][n % 4] for n in table.index]
    text = table.to_csv(index=False).encode("cp1252")
    broken = text.replace("León".encode("cp1252"), b"Le" + bytes([stray]) + b"n", 1)
    file = tmp_path / "export.csv"
    file.write_bytes(broken)
    (told,) = [g for g in examine(str(file)).guesses if g.key == "encoding"]
    assert told.value == "cp1252" and "are set aside" in told.why
    log = retail_ci.clean(
        str(file), encoding="cp1252", columns={"date": "order_date", "revenue": "amount"}
    )
    assert log.books.loc[log.books["fate"] == "rejected", ["reason", "lines"]].values.tolist() == [
        ["damaged_line", 1]
    ]
    kept = table.drop(index=2)["amount"].sum()
    assert log.facts["revenue"] == pytest.approx(kept)


def test_letters_of_an_old_macintosh_are_told_from_those_of_windows(tmp_path):
    table = orders().assign(amount=5 + orders().index % 9)
    table["city"] = [["Orléans", "Müllheim", "León", "Malmö"][n % 4] for n in table.index]
    table.to_csv(tmp_path / "export.csv", index=False, encoding="mac_roman")
    found = examine(str(tmp_path / "export.csv"))
    assert [g.value for g in found.guesses if g.key == "encoding"] == ["mac_roman"]


@pytest.mark.parametrize(
    "dates, helps, does_not",
    [
        (["", " "], "Ask for an export that has the day", "data.date_format"),
        (["0000-00-00", "unknown"], "Ask for an export that has the day", "data.date_format"),
        (["31.12.25 noon", "2025-13-45"], "Set data.date_format", "Ask for an export"),
        (["", "2025-13-45"], "1 of them has no value: ask for an export", "them have"),
    ],
)
def test_the_advice_on_a_date_is_what_helps(tmp_path, dates, helps, does_not):
    table = orders().assign(amount=5 + orders().index % 9)
    table.loc[[3, 4], "order_date"] = dates
    table.to_csv(tmp_path / "export.csv", index=False)
    told = books_of(tmp_path / "export.csv", date="order_date", revenue="amount")
    assert "rejected          2  No date" in told
    assert helps in told and does_not not in told


def books_of(file: Path, **mapped: str) -> str:
    """What `check --config` says of a file."""
    config = file.parent / "shop.yaml"
    config.write_text(yaml.safe_dump({"data": {"transactions": str(file), "columns": mapped}}))
    return check_source(load_config(str(config)))[0]


def test_one_of_a_thing_is_said_in_the_singular(tmp_path):
    file = tmp_path / "export.csv"
    table = orders().iloc[:1].assign(amount=5.5)
    several = re.compile(
        r"(?<![\d,.])1 (?:lines|rows|customers|baskets|values|columns|days|tables)\b"
    )
    said = "\n".join(closing(written(tmp_path, table)))
    assert "1 of 1 line, 1 basket, 1 customer, net revenue 5.50" in said
    assert not several.search(said)
    told = books_of(file, date="order_date", revenue="amount")
    assert "1 line came in: 1 kept" in told and "Kept: 1 customer, 1 basket, net" in told
    assert not several.search(told)
    table.assign(order_date="never").to_csv(file, index=False)
    with pytest.raises(DataError, match=r"1 of 1 line is rejected.*bad_date \(1 line; row 1"):
        retail_ci.clean(str(file), columns={"date": "order_date", "revenue": "amount"})


def test_what_was_sold_is_a_quantity_beside_an_amount(tmp_path):
    table = orders()[["order_date", "product_id"]].assign(Terjual=1 + orders().index % 6)
    price = 1500 * (1 + table["product_id"].str[1:].astype(int))
    table["Total_Pendapatan"] = table["Terjual"] * price
    found = written(tmp_path, table)
    assert columns(found)["quantity"] == "Terjual"
    assert columns(found)["revenue"] == "Total_Pendapatan"
    gave = shown("\n".join(closing(found)))
    assert gave == (60, 60, 0, float(table["Total_Pendapatan"].sum()))
    money = table.drop(columns="Total_Pendapatan").assign(Terjual=table["Terjual"] + 0.35)
    assert columns(written(tmp_path, money))["revenue"] == "Terjual"


def test_the_items_of_an_order_are_counted_and_not_added_up(tmp_path):
    table = orders().assign(total_items=1 + orders().index % 3, total_paid=19.9)
    table["total_paid"] += table.index % 11
    found = written(tmp_path, table)
    assert columns(found)["quantity"] == "total_items"
    assert columns(found)["revenue"] == "total_paid"


def test_a_brand_is_no_product(tmp_path):
    table = orders().assign(amount=5 + orders().index % 9, brand_product="Brand A")
    table["produit_nom"] = "Savon " + table["product_id"].str[1:]
    table["produit_marque"] = [f"Marque {int(p[1:]) % 2}" for p in table.pop("product_id")]
    found = written(tmp_path, table)
    assert columns(found)["product_id"] == "produit_nom"


@pytest.mark.parametrize(
    "table, says",
    [
        (
            {"ID_Produk": "P{}", "nama_produk": "Sabun {}", "harga": "{}.50", "tanggal_rilis": "D"},
            "This is a table of products: one row for each value of 'ID_Produk'",
        ),
        (
            {"id_client": "C{}", "nom": "Ann {}", "ville": "Lyon", "date_inscription": "D"},
            "This is a table of people.*no day of a sale .'date_inscription' is another",
        ),
        (
            {"CustomerKey": "{}", "FirstName": "Ann", "BirthDate": "D", "TotalChildren": "2"},
            "This is a table of people.*no day of a sale .'BirthDate' is another",
        ),
        ({"Date": "D"}, "This is a table of days: beside 'Date' it has nothing"),
    ],
)
def test_a_day_that_is_no_sale_makes_no_log(tmp_path, table, says):
    days = pd.Series(pd.date_range("2024-01-01", periods=80)).dt.strftime("%Y-%m-%d")
    rows = pd.DataFrame(
        {
            name: days if form == "D" else [form.format(n) for n in range(80)]
            for name, form in table.items()
        }
    )
    assert re.search(says, written(tmp_path, rows).verdict)


def test_the_table_that_says_most_of_the_products_is_taken_and_no_other_log(tmp_path):
    table = orders().assign(amount=5 + orders().index % 9)
    ids = sorted(table["product_id"].unique())
    pd.DataFrame({"photo": range(7), "product_id": ids}).to_csv(tmp_path / "a.csv", index=False)
    goods = pd.DataFrame({"product_id": ids, "product_name": [f"Soap {p}" for p in ids]})
    goods.to_csv(tmp_path / "goods.csv", index=False)
    table.assign(invoice_date=table["order_date"]).drop_duplicates("customer_id").to_csv(
        tmp_path / "firsts.csv", index=False
    )
    table.to_csv(tmp_path / "sales.csv", index=False)
    found = examine_all(str(tmp_path / "sales.csv"))
    assert found.settings().products == str(tmp_path / "goods.csv")
    assert not found.settings().customers


def test_a_question_stays_a_question(tmp_path):
    table = orders().assign(amount=5 + orders().index % 9)
    table["customer_id"] = ["C1" if n % 2 else f"C{n % 20}" for n in table["order_id"]]
    asked = closing(written(tmp_path, table))[-1]
    assert asked.endswith("has 50% of the lines: a person?")


def test_traditional_chinese_headers_are_read(tmp_path):
    table = orders().assign(數量=1 + orders().index % 3)
    table["單價"] = 2.5 + table["product_id"].str[1:].astype(int)
    names = {"order_id": "交易編號", "customer_id": "顧客ID", "order_date": "日期"}
    table = table.rename(columns=names | {"product_id": "商品名稱"})
    found = written(tmp_path, table)
    assert {
        r: columns(found)[r] for r in ("transaction_id", "quantity", "price", "product_id")
    } == {
        "transaction_id": "交易編號",
        "quantity": "數量",
        "price": "單價",
        "product_id": "商品名稱",
    }
    worth = (table["數量"] * table["單價"]).sum()
    assert shown("\n".join(closing(found)))[3] == pytest.approx(worth, abs=0.005)


def test_a_column_for_each_day_is_a_wide_table(tmp_path):
    days = pd.date_range("2025-01-02", periods=9).strftime("%d.%m.%Y")
    table = pd.DataFrame({"Номенклатура": [f"Вода {n}" for n in range(40)]})
    for n, day in enumerate(days):
        table[day] = (table.index * 7 + n) % 11
    assert "wide table: a column for each day ('02.01.2025'" in written(tmp_path, table).verdict


def test_what_is_not_done_yet_is_called_pending(tmp_path):
    table = orders().assign(amount=5.0 + orders().index % 7)
    table["status"] = ["no completed" if n % 2 else "completed" for n in table["order_id"]]
    (told,) = [g.why for g in written(tmp_path, table).guesses if g.key == "status"]
    assert 'add pending: ["no completed"] if those are not' in told


def test_a_payment_is_an_amount_and_the_brand_of_a_card_is_nobody(tmp_path):
    table = orders().assign(**{"Payment Amount": 5.5 + orders().index % 7})
    table = table.drop(columns=["product_id", "customer_id"]).drop_duplicates("order_id")
    table["Card Brand"] = [["Visa", "Master", "Amex"][n % 3] for n in table["order_id"]]
    found = written(tmp_path, table)
    assert columns(found)["revenue"] == "Payment Amount" and "customer_id" not in columns(found)
    assert shown("\n".join(closing(found)))[3] == table["Payment Amount"].sum()


def test_counts_under_words_are_no_products_and_a_name_may_be_one(tmp_path):
    table = orders().assign(amount=5.0 + orders().index % 7)
    goods = table.pop("product_id").str[1:].astype(int)
    found = written(tmp_path, table.assign(MeatProducts=goods * 3, FishProducts=goods * 5))
    assert "product_id" not in columns(found)
    single = table.drop_duplicates("order_id")
    found = written(tmp_path, single.assign(tea_name=goods.map("Tea {}".format)))
    (told,) = [g.why for g in found.guesses if g.key == "columns.product_id"]
    assert "Could it be 'tea_name'?" in told


def test_the_logs_of_three_years_together_with_prices_beside_them(tmp_path):
    parts = []
    for year in (2023, 2024, 2025):
        part = orders(600).assign(units=1 + orders(600).index % 3)
        days = pd.to_datetime(part["order_date"]) + pd.DateOffset(years=year - 2025)
        part["order_date"] = days.dt.strftime("%-m/%-d/%Y")
        part["order_id"] += 100_000 * year
        parts.append(part.rename(columns={"order_id": "OrderNumber"}))
        parts[-1].to_csv(tmp_path / f"Shop_Sales_{year}.csv", index=False)
    text = (tmp_path / "Shop_Sales_2025.csv").read_text()
    (tmp_path / "Shop_Sales_2025.csv").write_text(text + "=======\n" + text)  # merged by hand
    goods = pd.DataFrame({"product_id": sorted(parts[0]["product_id"].unique())})
    goods["ProductPrice"] = 3.25 + goods.index
    goods.to_csv(tmp_path / "Shop_Products.csv", index=False)
    found = examine_all(str(tmp_path / "Shop_Sales_*.csv"))
    log = pd.concat(parts).merge(goods, on="product_id")
    worth = (log["units"] * log["ProductPrice"]).sum()
    told = "\n".join(closing(found))
    assert shown(told) == (1800, 900, 9, pytest.approx(worth, abs=0.005))
    assert "Exact copies of a line (600)" in told and "The header once more" in told
    assert "A run would refuse these data" in told


# ------------------------------------------------------------------------------ every line counts
FIRST_ROWS = 20_000  # by which columns are judged


def _long_log(tmp_path: Path, **later: tuple[str, str]) -> tuple[Examination, str]:
    """A log whose columns hold one text at first and another in the last thousand lines."""
    rows = range(FIRST_ROWS + 5_000)
    table = pd.DataFrame(
        {
            "order_id": [f"R{n // 2}" for n in rows],
            "order_date": [f"{n // 1000 % 12 + 1:02d}/{n // 2 % 12 + 1:02d}/2024" for n in rows],
            "customer_id": [f"C{n // 2 % 900}" for n in rows],
            "product_id": [f"P{n % 90}" for n in rows],
            "amount": [f"{n % 90 + 1}.50" for n in rows],
        }
    )
    for name, (first, last) in later.items():
        table.loc[:, name] = first if first else table[name]
        table.loc[table.index[-1000:], name] = last
    table.to_csv(tmp_path / "long.csv", index=False)
    found = examine(str(tmp_path / "long.csv"))
    return found, "\n".join(closing(found))


def _date(found: Examination):
    return next(g for g in found.guesses if g.key == "date_format")


def test_a_day_beyond_the_first_rows_tells_day_and_month_apart(tmp_path):
    found, text = _long_log(tmp_path, order_date=("", "03/25/2024"))
    assert (_date(found).value, _date(found).sure) == ("%m/%d/%Y", "sure")
    assert "day first" not in text.lower() and "24,999 of" not in text
    assert "25,000 of 25,000 lines" in text


def test_one_line_is_too_few_to_be_sure_of_day_and_month(tmp_path):
    found, _ = _long_log(tmp_path)
    assert _date(found).sure == "ambiguous"
    rows = pd.read_csv(tmp_path / "long.csv", dtype=str)
    rows.loc[len(rows) - 1, "order_date"] = "25/03/2024"
    rows.to_csv(tmp_path / "long.csv", index=False)
    found = examine(str(tmp_path / "long.csv"))
    closing(found)
    assert (_date(found).value, _date(found).sure) == ("%d/%m/%Y", "likely")
    assert "only 1 line tells the day from the month" in _date(found).why


def test_a_format_that_begins_beyond_the_first_rows_is_proposed(tmp_path):
    found, text = _long_log(tmp_path, order_date=("25/03/2024", "2024-03-26 10:15"))
    assert sorted(_date(found).value) == ["%Y-%m-%d %H:%M", "%d/%m/%Y"]
    assert "25,000 of 25,000 lines" in text and "2024-03-25 to 2024-03-26" in text


def test_amounts_beyond_the_first_rows_tell_the_decimal_sign(tmp_path):
    told = {}
    for last in ("7,50", "7.50"):
        found, _ = _long_log(tmp_path, order_date=("25/03/2024", "25/03/2024"), amount=("12", last))
        told[last] = next(g for g in found.guesses if g.key == "decimal")
    assert (told["7,50"].value, told["7,50"].sure) == (",", "sure")
    assert (told["7.50"].value, told["7.50"].sure) == (".", "sure")
    assert "1,000 values look like 4.50" in told["7.50"].why


def test_a_contradiction_beyond_the_first_rows_makes_the_decimal_sign_ambiguous(tmp_path):
    days = ("25/03/2024", "25/03/2024")
    found, text = _long_log(tmp_path, order_date=days, amount=("", "7,50"))
    (decimal,) = [g for g in found.guesses if g.key == "decimal"]
    assert decimal.sure == "ambiguous" and decimal.value is None
    assert "24,000 values end like 4.50 and 1,000 like 4,50" in decimal.why


def test_a_status_beyond_the_first_rows_is_proposed(tmp_path):
    rows = range(FIRST_ROWS + 5_000)
    table = pd.DataFrame(
        {
            "order_id": [f"R{n // 2}" for n in rows],
            "order_date": [f"2024-03-{n // 1000 + 1:02d}" for n in rows],
            "customer_id": [f"C{n // 2 % 900}" for n in rows],
            "product_id": [f"P{n % 90}" for n in rows],
            "amount": [f"{n % 90 + 1}.50" for n in rows],
            "status": ["Complete" if n % 2 else "Shipped" for n in rows],
            "currency": "EUR",
        }
    )
    table.loc[table.index[-1000:], "status"] = "Cancelled"
    table.loc[table.index[-10:], "currency"] = "USD"
    table.to_csv(tmp_path / "long.csv", index=False)
    found = examine(str(tmp_path / "long.csv"))
    text = "\n".join(closing(found))
    keys = {g.key: g.value for g in found.guesses}
    assert keys["status"] == {"cancelled": ["Cancelled"]}
    assert "currency_rates" in keys and "report.currency" not in keys
    assert "status 'status': Complete (12000), Shipped (12000), Cancelled (1,000)" in text.replace(
        "12,000", "12000"
    )


# ---------------------------------------------------- tables beside a log with ids of other names
KEYS = {  # the log's customer and product, and the tables with their columns of ids
    "es": ("ID_Cliente", "ID_Producto", "clientes", "id", "productos", "ID"),
    "de": ("Kundennummer", "Artikelnummer", "kunden", "Nr", "artikel", "Nummer"),
    "fr": ("code_client", "code_produit", "clients", "Code", "produits", "Code"),
    "pl": ("id_klienta", "kod_produktu", "klienci", "Id", "produkty", "Kod"),
    "tr": ("musteri_no", "urun_kodu", "musteriler", "No", "urunler", "Kod"),
    "ru": ("Код клиента", "Код товара", "клиенты", "Код", "товары", "Код"),
    "zh": ("客户编号", "商品编号", "客户", "编号", "商品", "编号"),
}


def _with_tables(folder: Path, language: str, product: str = "P{}") -> tuple[str, tuple]:
    """A log of forty customers and twelve products, with both tables beside it."""
    names = KEYS[language]
    log = shop().rename(columns={"customer_no": names[0], "product_no": names[1]})
    log.to_csv(folder / "log.csv", index=False)
    people = range(50)
    town = [("Ulm", "Bonn", "Kiel")[n % 3] for n in people]
    rows = {names[3]: [f"C{n}" for n in people], "city": town, "age": [20 + n for n in people]}
    pd.DataFrame(rows).to_csv(folder / f"{names[2]}.csv", index=False)
    goods = range(15)
    rows = {names[5]: [product.format(n) for n in goods], "category": [f"K{n % 3}" for n in goods]}
    rows["description"] = [f"Thing {n}" for n in goods]
    pd.DataFrame(rows).to_csv(folder / f"{names[4]}.csv", index=False)
    return str(folder / "log.csv"), names


@pytest.mark.parametrize("language", sorted(KEYS))
def test_tables_with_bare_ids_are_joined_where_the_values_meet(tmp_path, language, capsys):
    log, names = _with_tables(tmp_path, language)
    check(log, out=str(tmp_path / "shop.yaml"))
    text = capsys.readouterr().out
    assert f"40 of the 40 customers in the first lines are among the 50 in its '{names[3]}'" in text
    held = shop()["product_no"].nunique()
    told = f"{held} of the {held} products in the first lines are among the 15 in its"
    assert f"{told} '{names[5]}'" in text
    settings = load_config(str(tmp_path / "shop.yaml"))
    assert settings.data.keys == {"customers": names[3], "products": names[5]}
    if language not in ("ru", "zh"):  # a run goes by the config, whatever its words mean
        return
    told, fine = check_source(settings)
    assert fine and "400 lines came in: 400 kept" in told
    kept = retail_ci.clean(
        pd.read_csv(log, dtype=str),
        products=pd.read_csv(tmp_path / f"{names[4]}.csv").rename(columns={names[5]: names[1]}),
        columns=settings.data.columns,
    )
    assert sorted(kept.products["category"].dropna().unique()) == ["K0", "K1", "K2"]


def test_a_run_reads_the_ids_of_a_table_by_the_key_that_is_named(tmp_path):
    log, _ = _with_tables(tmp_path, "es")
    found = examine_all(log)
    settings = found.settings()
    con = connect(settings)
    table = open_source(con, "products", settings).table.execute()
    assert list(table["ID_Producto"]) == [f"P{n}" for n in range(15)] and "ID" not in table
    wrong = replace(settings, keys={"products": "Idd"})
    with pytest.raises(DataError, match="(?s)Idd.*data.keys.products"):
        open_source(con, "products", wrong)


def test_a_table_whose_ids_meet_nobody_is_unsure(tmp_path):
    log, _ = _with_tables(tmp_path, "es", product="00{}")
    found = examine_all(log)
    (products,) = [g for g in found.guesses if g.key == "products"]
    assert products.value is None and products.sure == "unsure"
    held = shop()["product_no"].nunique()
    assert (
        f"0 of the {held} products in the first lines are among the 15 in its 'ID'" in products.why
    )
    assert "such as P0 and 000: are they written in two ways?" in products.why
    assert [g.value for g in found.guesses if g.key == "keys"] == [{"customers": "id"}]


def test_numbers_that_meet_by_chance_join_no_table_of_something_else(tmp_path):
    log = shop().assign(product_no=lambda t: t["product_no"].str[1:])
    log.to_csv(tmp_path / "log.csv", index=False)
    stores = pd.DataFrame({"ID": range(12), "Manager": [f"M{n}" for n in range(12)]})
    stores.to_csv(tmp_path / "branches.csv", index=False)
    found = examine_all(str(tmp_path / "log.csv"))
    assert not {"products", "customers", "keys"} & {g.key for g in found.guesses}


def test_a_discount_that_line_items_need_is_their_own(tmp_path):
    rows = range(60)
    log = pd.DataFrame(
        {
            "Name": [f"#{1000 + n}" for n in rows],
            "Email": [f"c{n % 40}@shop.example" for n in rows],
            "Created at": [f"2025-03-{n % 28 + 1:02d} 10:15:00" for n in rows],
            "Lineitem quantity": [n % 3 + 1 for n in rows],
            "Lineitem name": [f"Thing {n % 7}" for n in rows],
            "Lineitem price": [20 + n % 7 for n in rows],
            "Lineitem discount": 0,
        }
    )
    whole = log["Lineitem quantity"] * log["Lineitem price"]
    log["Discount Amount"] = (whole * 0.08).round(2)
    log["Subtotal"] = (whole - log["Discount Amount"]).round(2)
    log["Discount Code"] = [f"CODE{n % 9}" for n in rows]
    found = looked(log, tmp_path)
    assert columns(found)["revenue"] == "Subtotal" and sure(found)["revenue"] == "sure"
    assert columns(found)["discount"] == "Discount Amount"
    assert shown("\n".join(closing(found)))[3] == pytest.approx(log["Subtotal"].sum(), abs=0.005)


def test_yes_or_no_is_no_receipt(tmp_path):
    log = shop(9).drop(columns=["basket_no", "customer_no"])
    log["ordonnance"] = ["oui", "non", "oui"] * 3
    found = looked(log, tmp_path)
    assert "transaction_id" not in columns(found)


def test_a_day_is_no_amount_that_was_paid(tmp_path):
    log = shop().assign(**{"Paid at": lambda t: t["day"]})
    told = "\n".join(closing(looked(log, tmp_path)))
    assert "date 'Paid at'" in told and "amount 'Paid at'" not in told


@pytest.mark.parametrize("header", ["grup_category", "Kundengruppe Kategorie", "categoria_abc"])
def test_a_group_with_a_strange_word_and_no_product_is_no_sure_category(tmp_path, header):
    log = shop(90).drop(columns="product_no")
    log[header] = ["Pharmacy", "Clinic", "Grocer"] * 30
    found = looked(log, tmp_path)
    assert sure(found).get("category", "unsure") == "unsure"


def test_what_each_customer_has_one_of_is_no_category_of_products(tmp_path):
    log = shop(90).drop(columns="product_no")
    log["category"] = log["customer_no"].str[-1].map(lambda d: "AB"[int(d) % 2])
    found = looked(log, tmp_path)
    assert sure(found)["category"] == "unsure"
    (told,) = [g.why for g in found.guesses if g.key == "columns.category"]
    assert "a group of customers?" in told


def test_a_category_without_products_stays_likely(tmp_path):
    log = shop(90).drop(columns="product_no")
    log["category"] = ["Food", "Toys", "Books", "Garden"] * 22 + ["Food", "Toys"]
    assert sure(looked(log, tmp_path))["category"] == "likely"


def test_a_file_of_one_column_is_no_log(tmp_path):
    verdict = looked(shop()[["basket_no"]], tmp_path).verdict
    assert "This table has one column, 'basket_no'" in verdict and "data.delimiter" in verdict


@pytest.mark.parametrize("plain", ["log", "table"])
def test_a_table_in_a_code_page_goes_with_a_log_in_ascii_and_the_reverse(tmp_path, plain):
    log = shop().assign(remark="x" if plain == "log" else "Café")
    names = [f"Crème {n}" if plain == "log" else f"Cream {n}" for n in range(12)]
    goods = pd.DataFrame({"product_no": [f"P{n}" for n in range(12)], "product_name": names})
    goods["category"] = ["A", "B", "C"] * 4
    log.to_csv(tmp_path / "log.csv", index=False, encoding="cp1252")
    goods.to_csv(tmp_path / "goods.csv", index=False, encoding="cp1252")
    found = examine_all(str(tmp_path / "log.csv"))
    settings = found.settings()
    assert settings.encoding == "cp1252" and settings.products
    table = open_source(connect(settings), "products", settings).table.execute()
    assert sorted(table["product_name"]) == sorted(names)


def test_a_file_without_a_header_is_seen_by_its_codes_and_equal_cells(tmp_path):
    rows = range(60)
    table = pd.DataFrame(
        {
            "order": [f"CN-2017-{100001 + n}" for n in rows],
            "day": [f"2017-01-{n % 28 + 1:02d}" for n in rows],
            "waited": [n % 5 + 3 for n in rows],
            "customer": [f"Cust-{10015 + n * 7 % 31}" for n in rows],
            "product": [f"Prod-{10004800 + n * 5 % 17}" for n in rows],
            "amount": [f"{20 + n % 17}.36" for n in rows],
            "pieces": [n % 3 + 3 for n in rows],  # the first cell is that of another column
        }
    )
    table.to_csv(tmp_path / "log.csv", index=False, header=False)
    found = examine(str(tmp_path / "log.csv"))
    assert next(g for g in found.guesses if g.key == "header").sure == "unsure"
    assert set(columns(found).values()) <= {f"column {n}" for n in range(1, 8)}


def test_a_header_with_a_year_and_codes_below_it_is_a_header(tmp_path):
    log = shop().rename(columns={"amount": "Sales 2025", "customer_no": "Cust-No"})
    found = looked(log, tmp_path)
    assert "header" not in {g.key for g in found.guesses}


def test_an_amount_below_the_price_of_its_piece_is_doubted(tmp_path):
    log = shop(120)[["day", "unit_price"]].rename(columns={"day": "date"})
    log["basic_price"] = [str(2000 + 10 * (n % 40)) for n in range(120)]
    log["basic_sale"] = [str(40 + n % 50) for n in range(120)]
    found = looked(log.drop(columns="unit_price"), tmp_path)
    assert sure(found)["revenue"] == "unsure"
    text = "\n".join(closing(found))
    (told,) = [g.why for g in found.guesses if g.key == "columns.revenue"]
    assert "less than half of 'basic_price' in 100% of the lines: a percentage" in told
    worth = log["basic_price"].astype(float).sum()
    other = "What else it could be, one piece at 'basic_price', without 'basic_sale'"
    assert f"{other}: 120 of 120 lines" in text and f"net revenue {worth:,.2f}" in text


def test_returns_with_a_day_and_no_amounts_are_no_sales(tmp_path):
    log = pd.DataFrame(
        {
            "RetoureID": [f"{5000 + n}" for n in range(60)],
            "Datum": [f"2023-09-{n % 28 + 1:02d}" for n in range(60)],
            "Artikelnummer": [f"A{n % 9}" for n in range(60)],
            "GrundDerRetoure": ["Falscher Artikel", "Beschädigt"] * 30,
            "Menge": [f"{n % 4 + 1}" for n in range(60)],
        }
    )
    assert "table of returns" in looked(log, tmp_path).verdict


def test_stock_that_moves_is_no_sales(tmp_path):
    log = pd.DataFrame(
        {
            "AusgangsID": [f"{2468 + n}" for n in range(90)],
            "Ausgangsdatum": [f"2023-{n % 9 + 1:02d}-{n % 28 + 1:02d}" for n in range(90)],
            "BestellID": [f"{1500 + n // 3}" for n in range(90)],
            "Artikelnummer": [f"A{n // 3 % 9}" for n in range(90)],
            "VerbrauchteMenge": [f"{n % 4 + 1}" for n in range(90)],
            "LagerbestandVor": [f"{300 - n}" for n in range(90)],
            "LagerbestandNach": [f"{296 - n - n % 4}" for n in range(90)],
        }
    )
    assert "table of stock" in looked(log, tmp_path).verdict


def test_what_a_shop_orders_from_suppliers_is_asked_about(tmp_path):
    log = shop().drop(columns="customer_no").rename(columns={"day": "Bestelldatum"})
    log["basket_no"] = [f"B{n}" for n in range(len(log))]
    log = log.rename(columns={"basket_no": "BestellID"}).assign(Lieferant="SRAM AG")
    text = "\n".join(closing(looked(log, tmp_path)))
    assert "Question: 'Lieferant' speaks of suppliers" in text
    sold = log.rename(columns={"Bestelldatum": "Verkaufsdatum"})
    assert "speaks of suppliers" not in "\n".join(closing(looked(sold, tmp_path)))


def test_a_workbook_of_products_beside_the_log_is_joined(tmp_path):
    log = shop()
    log.to_csv(tmp_path / "log.csv", index=False)
    goods = pd.DataFrame({"ID": [f"P{n}" for n in range(12)], "category": ["A", "B", "C"] * 4})
    goods.to_excel(tmp_path / "products.xlsx", index=False)
    settings = examine_all(str(tmp_path / "log.csv")).settings()
    assert settings.keys == {"products": "ID"} and settings.products.endswith("products.xlsx")


def test_a_table_whose_ids_meet_nobody_leaves_the_check_of_a_log_standing(tmp_path):
    log, _ = _with_tables(tmp_path, "es", product="X{}")
    (tmp_path / "shops").mkdir()
    check(log, out=str(tmp_path / "shops/new.yaml"))
    assert load_config(str(tmp_path / "shops/new.yaml")).data.products is None


def test_a_neighbour_that_holds_no_table_leaves_the_check_of_a_log_standing(tmp_path, capsys):
    log, _ = _with_tables(tmp_path, "es")
    (tmp_path / "products.xls").write_text("<html><table><tr><td>P1</td></tr></table></html>")
    (tmp_path / "customers.xlsx").write_text("customer_id,city\nC1,Ulm\n")
    check(log)
    assert "productos.csv" in capsys.readouterr().out


def test_a_padded_status_is_proposed_without_its_blanks(tmp_path):
    table = shop().assign(status="Complete  ")
    table.loc[::10, "status"] = "Cancelled "
    table.to_csv(tmp_path / "log.csv", index=False)
    found = examine_all(str(tmp_path / "log.csv"))
    closing(found)
    (status,) = [g for g in found.guesses if g.key == "status"]
    assert status.value == {"cancelled": ["Cancelled"]}


@pytest.mark.parametrize(
    "commas, value, sure", [(1, ".", "likely"), (1000, None, "ambiguous"), (0, ".", "sure")]
)
def test_one_misspelt_amount_among_a_million_does_not_hide_the_decimal_sign(commas, value, sure):
    texts = ["4.50", "7,50"][: 1 + bool(commas)]
    lines = pd.Series([1_000_000 - commas, commas][: len(texts)])
    decimal = guess_numbers({"price": pd.Series(texts)}, {"price": lines})[0]
    assert (decimal.value, decimal.sure) == (value, sure)


def test_a_workbook_beside_a_log_in_a_code_page_is_joined(tmp_path):
    log = shop().assign(size="Größe")
    log.to_csv(tmp_path / "log.csv", index=False, encoding="cp1252")
    goods = sorted(log["product_no"].unique())
    table = pd.DataFrame({"product_no": goods, "category": "K", "description": goods})
    table.to_excel(tmp_path / "products.xlsx", index=False)
    guesses = examine_all(str(tmp_path / "log.csv")).guesses
    (told,) = [g for g in guesses if g.key == "products"]
    assert told.value.endswith("products.xlsx")
    assert [g.value for g in guesses if g.key == "encoding"] == ["cp1252"]


def test_a_wide_table_of_a_year_is_known_before_its_columns_are_compared(tmp_path, monkeypatch):
    table = pd.DataFrame({"Номенклатура": [f"Вода {n}" for n in range(9)]})
    days = pd.date_range("2025-01-01", periods=365).strftime("%d.%m.%Y")
    year = pd.DataFrame([[n % 7] * 365 for n in range(9)], columns=days)
    monkeypatch.setattr(proposals, "assign", lambda columns: pytest.fail("compared"))
    assert "a column for each day" in looked(pd.concat([table, year], axis=1), tmp_path).verdict


def test_empty_columns_are_no_yes_and_no_for_products(tmp_path):
    blank = {f"Card Address Line{n}": None for n in range(8)}
    assert looked(shop().assign(**blank), tmp_path).verdict == ""
    baskets = pd.DataFrame({f"Tee {n}": [(n + row) % 2 for row in range(20)] for n in range(6)})
    baskets["invoice_no"] = [f"R{row}" for row in range(20)]
    assert "0 and 1 for each product" in looked(baskets, tmp_path).verdict


def test_goals_of_agents_by_group_are_no_table_of_people(tmp_path):
    rows = range(60)
    table = pd.DataFrame(
        {
            "NOMEAGENTE": [f"AGENTE {n // 6}" for n in rows],
            "CLIENTE": [f"K{n // 6}" for n in rows],
            "META": [n * 100 for n in rows],
            "id": [f"GPK{n}x" for n in rows],
        }
    )
    assert "people" not in looked(table, tmp_path).verdict
    people = table.drop_duplicates("CLIENTE").assign(idade=30, email="x@example.org")
    assert "table of people" in looked(people, tmp_path).verdict


def test_a_day_called_created_date_is_proposed(tmp_path):
    found = looked(shop().rename(columns={"day": "Created date (UTC)"}), tmp_path)
    assert columns(found)["date"] == "Created date (UTC)" and sure(found)["date"] == "likely"
    due = looked(shop().rename(columns={"day": "Delivery date"}), tmp_path)
    assert "date" not in columns(due)


@pytest.mark.parametrize("shared, sureness", [(3, "unsure"), (0, "sure")])
def test_ids_that_several_products_share_are_no_sure_product(tmp_path, shared, sureness):
    log = shop()
    log["product_no"] = [f"P{n % 9}" for n in range(400)]
    log["description"] = [f"Balm {n % 9}, {n // 9 % 2 * (n % 9 < shared)}" for n in range(400)]
    assert sure(looked(log, tmp_path))["product_id"] == sureness


def test_a_kind_of_day_is_no_date_that_is_left_out(tmp_path):
    log = shop().assign(daytype=["Weekday", "Weekend"] * 200, hour_of_day=["9", "17"] * 200)
    told = "\n".join(closing(looked(log, tmp_path)))
    assert "daytype" not in told
    assert "time 'hour_of_day': 17 (200), 9 (200)" in told


def test_a_note_or_a_province_is_no_customer(tmp_path):
    log = shop().drop(columns="customer_no")
    basket = log["basket_no"].str[1:].astype(int)
    log["customer_note"] = "N" + (basket % 40).astype(str)
    log["Billing Province Name"] = "Province " + (basket % 30).astype(str)
    found = looked(log, tmp_path)
    told = "\n".join([*closing(found), *(g.why for g in found.guesses)])
    assert "customer_note" not in told and "Billing Province Name" not in told


@pytest.mark.parametrize("header", ["Club member", "Is member", "Loyalty card", "Customer"])
def test_yes_and_no_are_nobody(tmp_path, header):
    log = shop().drop(columns="customer_no").assign(**{header: ["yes", "no"] * 200})
    found = looked(log, tmp_path)
    assert "customer_id" not in columns(found)
    assert not [g for g in found.guesses if g.key == "columns.customer_id" and header in g.why]


def test_yes_and_no_are_not_offered_as_the_receipt(tmp_path):
    log = shop().drop(columns="basket_no").assign(prescription=["oui", "non"] * 200)
    log["prescription"] = [["oui", "non"][int(day[-2:]) % 2] for day in log["day"]]
    found = looked(log, tmp_path)
    assert "prescription" not in "\n".join([*closing(found), *(g.why for g in found.guesses)])


@pytest.mark.parametrize("header, taken", [("local", False), ("tienda", True)])
@pytest.mark.parametrize("receipts", ["none", "a line each"])
def test_a_local_without_receipts_may_be_any_place(tmp_path, header, taken, receipts):
    log = shop(60).assign(basket_no=[f"B{n}" for n in range(60)])
    log = log if receipts != "none" else log.drop(columns="basket_no")
    log[header] = [f"Lugar {n % 4}" for n in range(60)]
    assert ("store_id" in columns(looked(log, tmp_path))) == taken


def test_a_local_of_each_receipt_is_a_store(tmp_path):
    log = shop(60)
    log["local"] = ["Lugar " + basket[-1] for basket in log["basket_no"]]
    assert columns(looked(log, tmp_path))["store_id"] == "local"


def test_orders_that_are_not_done_are_asked_about(tmp_path):
    log = shop().assign(status=["no completed", "completed"] * 200)
    told = closing(looked(log, tmp_path))[-1]
    assert told == (
        "Question: Are lines with 'status' \"no completed\" sales already? They are counted above."
    )


def test_words_for_nothing_beyond_the_first_rows_are_proposed(tmp_path):
    found, text = _long_log(tmp_path, amount=("", "ERROR"), customer_id=("", "unknown"))
    (missing,) = [g for g in found.guesses if g.key == "missing"]
    assert missing.value == ["ERROR", "unknown"]
    assert missing.why == "words for nothing: 1,000 × ERROR, 1,000 × unknown"
    assert columns(found)["revenue"] == "amount"
    assert "24,000 of 25,000 lines" in text


def test_an_amount_in_meta_data_is_no_date(tmp_path):
    log = shop().assign(**{"metaData.usdAmount": [n % 70 + 0.5 for n in range(400)]})
    told = "\n".join(closing(looked(log, tmp_path)))
    assert "amount 'metaData.usdAmount': 0.5 to 69.5" in told and "date 'meta" not in told


# ------------------------------------------------------------------------------- in which unit


def _in_cents(log: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The log with whole cents in some columns, under other headers."""
    for name in names:
        log[name] = (log[name].astype(float) * 100).round().astype(int).astype(str)
    return log.rename(columns=names)


def _total(log: pd.DataFrame) -> float:
    return pytest.approx(log["amount"].astype(float).sum())


CENTS = ({"unit_price": "unit_price_cents", "amount": "amount_cents"},)
CENTS += ({"amount": "Betrag in Cent"}, {"amount": "amount_minor_units"}, {"amount": "金额(分)"})


@pytest.mark.parametrize("names", CENTS, ids=lambda names: list(names.values())[-1])
def test_cents_are_asked_about_and_read_as_money_where_the_currency_is_known(tmp_path, names):
    log = shop()
    cents = _in_cents(log.copy(), names).drop(columns=({"unit_price"} - {*names}))
    found = looked(cents, tmp_path)
    assert sure(found)["revenue"] == "unsure" and not columns(found).get("currency")
    first = f"{int(cents[names['amount']].iloc[0]):,}"
    told = closing(found)
    assert f"Does {first} in {names['amount']!r} stand for {log['amount'].iloc[0]}" in told[-1]
    assert "convert the column in the export" in told[-1]
    assert shown("\n".join(told))[3] == pytest.approx(100 * log["amount"].astype(float).sum())
    known = looked(cents.assign(currency="chf"), tmp_path)
    assert known.settings().currency_rates == {"CHF": 0.01}
    assert shown("\n".join(closing(known)))[3] == _total(log)


def test_thousands_are_asked_about_and_decimals_are_no_cents(tmp_path):
    log = shop().drop(columns="unit_price")
    kilo = log.assign(amount=(log["amount"].astype(float) / 1000).astype(str))
    told = closing(looked(kilo.rename(columns={"amount": "Amount (in thousands)"}), tmp_path))[-1]
    assert "in 'Amount (in thousands)' stand for 2.50" in told
    plain = looked(log.rename(columns={"amount": "amount_cents"}), tmp_path)
    assert sure(plain)["revenue"] == "sure" and "stand for" not in closing(plain)[-1]


def test_an_amount_or_a_price_in_another_unit_than_the_rest_is_left_out(tmp_path):
    log = shop()
    for name in ("amount", "unit_price"):
        found = looked(_in_cents(log.copy(), {name: name}), tmp_path)
        told = "\n".join(closing(found))
        assert name not in columns(found).values() and f"{name!r} " in told
        assert "such as cents; it is left out" in told and shown(told)[3] == _total(log)


def test_grams_beside_a_price_per_kilogram(tmp_path):
    log = shop()
    log["quantity"] = (log["quantity"].astype(int) * 250 + 10).astype(str)
    paid = log["quantity"].astype(int) * log["unit_price"].astype(float) / 1000
    log["amount"] = paid.map("{:.4f}".format)
    told = "\n".join(closing(looked(log, tmp_path)))
    assert "'quantity' counts thousandths of what 'unit_price' is for" in told
    assert shown(told)[3] == pytest.approx(paid.sum(), abs=0.05)
    named = log.drop(columns="amount").rename(
        columns={"quantity": "quantity_g", "unit_price": "price_per_kg"}
    )
    found = looked(named, tmp_path)
    assert sure(found)["price"] == "unsure" and "counts grams" in closing(found)[-1]
    kilos = looked(named.rename(columns={"quantity_g": "quantity"}), tmp_path)
    assert "counts grams" not in closing(kilos)[-1]


def test_lines_that_sum_their_basket_are_asked_about(tmp_path):
    log = shop().drop(columns=["unit_price"])
    log["amount"] = log["amount"].astype(float)
    sums = log.groupby("basket_no", as_index=False).agg(
        {"customer_no": "first", "day": "first", "amount": "sum"}
    )
    both = pd.concat([log, sums.assign(product_no="BON-SUM", quantity="1")]).sort_values(
        "basket_no", kind="stable"
    )
    found = looked(both, tmp_path)
    assert sure(found)["revenue"] == "unsure"
    assert "lines of 'BON-SUM' are the sums of the others of their basket" in closing(found)[-1]
    assert sure(looked(log, tmp_path))["revenue"] == "sure"


def test_a_type_of_line_tells_returns_that_have_positive_amounts(tmp_path):
    log = shop().assign(type=["RETURN" if n % 17 == 5 else "SALE" for n in range(400)])
    found = looked(log, tmp_path)
    assert columns(found)["status"] == "type"
    assert found.settings().status == {"returned": ["RETURN"]}
    back = log["type"] == "RETURN"
    for name in ("quantity", "amount"):
        log.loc[back, name] = "-" + log.loc[back, name]
    assert "status" not in columns(looked(log, tmp_path))


@pytest.mark.parametrize(
    "key, day, amount",
    [("快递号", "发货日期", "金额"), ("tracking_no", "ship_date", "amount")],
)
def test_a_list_of_parcels_is_no_table_of_people(tmp_path, key, day, amount):
    log = shop(240).drop_duplicates("basket_no")
    number = log["basket_no"].str[1:].astype(int)
    parcels = pd.DataFrame(
        {
            key: "SF" + (7_000_000_000 + number * 37).astype(str),
            "first name": "Ann",
            "last name": "Lee" + (number % 20).astype(str),
            "phone": "0138" + (number % 20).astype(str),
            "city": "Bonn",
            day: log["day"],
            "item": log["product_no"],
            "qty": log["quantity"],
            amount: log["amount"],
        }
    )
    found = looked(parcels, tmp_path)
    assert not found.verdict and columns(found)["date"] == day
    assert columns(found)["transaction_id"] == key and sure(found)["date"] == "likely"
    assert shown("\n".join(closing(found)))[3] == _total(log)


# ------------------------------------------------------------ how numbers and days are written


@pytest.mark.parametrize("way, told", [("({})", "parentheses"), ("{}-", "a minus behind")])
def test_negative_amounts_that_a_run_does_not_read_are_said(tmp_path, way, told):
    log = shop().drop(columns="unit_price")
    back = [n % 20 == 7 for n in range(400)]
    log.loc[back, "amount"] = log.loc[back, "amount"].map(way.format)
    text = "\n".join(closing(looked(log, tmp_path)))
    assert f"20 values of 'amount', such as {way.format('20.00')}, are negative by {told}" in text


def test_the_digits_of_another_script_are_said(tmp_path):
    digits = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    log = shop().map(lambda value: value.translate(digits))
    text = "\n".join(closing(looked(log, tmp_path)))
    assert "400 values of 'day', such as ٢٠٢٥-٠١-٠١, are in the digits of another script" in text
    assert "400 values of 'amount'" in text and "date" not in columns(looked(log, tmp_path))


def _lakhs(amount: float) -> str:
    whole, cents = f"{amount:.2f}".split(".")
    head, tail = whole[:-3], whole[-3:]
    groups = [head[max(0, n - 2) : n] for n in range(len(head), 0, -2)][::-1]
    return ",".join([*groups, tail]) + "." + cents


@pytest.mark.parametrize(
    "way", [_lakhs, lambda v: f"{v:,.2f}".replace(",", "'"), lambda v: f"Rp {v:,.2f}"]
)
def test_thousands_in_other_countries_are_read(tmp_path, way):
    log = shop().drop(columns="unit_price")
    amounts = log["amount"].astype(float) * 54_321
    text = "\n".join(closing(looked(log.assign(amount=amounts.map(way)), tmp_path)))
    assert shown(text)[0] == 400 and shown(text)[3] == pytest.approx(amounts.round(2).sum())


@pytest.mark.parametrize(
    "off, name, shown_year", [(543, "Buddhist", 2568), (-621, "Persian", 1404)]
)
def test_days_of_another_calendar_are_asked_about(tmp_path, off, name, shown_year):
    log = shop()
    log["day"] = log["day"].map(lambda d: f"{int(d[:4]) + off}/{d[5:7]}/{min(int(d[8:]), 28):02d}")
    told = closing(looked(log, tmp_path))[-1]
    assert f"'day' by the {name} calendar, {shown_year} for 2025?" in told
