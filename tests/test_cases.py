"""Delicate exports, from the file to the result: `check` writes a config, a person answers what it
asks, and a run with that config ends with the right figures or with the right sentence. The exports
are those of the shared cases, in cases.json; the figures are counted by hand. Each is looked at
once for all tests here. CASES=all runs the whole chain on each of them (`make soak`).
"""

import base64
import contextlib
import functools
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pandas as pd
import pytest
import yaml
from any_shop import QUICK, Rooms, outcome
from check_words import columns, shown, sure

from retail_ci.cli import check
from retail_ci.core.config import load_config
from retail_ci.core.errors import RetailError
from retail_ci.data import proposal, related
from retail_ci.data.profiling import check_source
from retail_ci.data.proposal import Examination, examine

EXPORTS = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
FEW = "5 segments need at least 5 customers"


class Case(NamedTuple):
    """What an export has to give."""

    books: tuple[int, int, int, float] | None  # lines kept, baskets, customers, revenue
    end: str = ""  # words of the sentence that ends the run; "" where it finishes
    answers: dict = {}  # what a person decides, in the data section
    said: str = ""  # what `check` says, as a regular expression


CASES = {
    "attribute_named_customers": Case((399, 170, 73, 5210.0)),
    "blank_name_first": Case((21, 21, 5, 205.0)),
    "case_attr": Case((2, 2, 2, 20.0), FEW),
    "case_columns": Case((2, 2, 2, 297.0), FEW, said="price is 'price .7.'.*net revenue 30.00"),
    "case_columns_pq": Case((2, 2, 2, 297.0), FEW, said="price is 'price':.*net revenue 30.00"),
    "clock_ahead_shop": Case((399, 170, 73, 5210.0), said="1 line does not count: A date in the"),
    "closed_sunday": Case((19, 19, 6, 124.5)),
    "closed_two_months": Case((10, 10, 2, 1000.0), FEW),
    "customer_table": Case(None, "This is a table of people"),
    "customers_no_match": Case((2, 2, 2, 20.0), FEW),
    "daily_receipts": Case((100, 100, 5, 1000.0), FEW, said="start anew every day"),
    "epoch_ms": Case((10, 10, 3, 100.0), FEW),
    "epoch_s": Case((10, 10, 3, 100.0), FEW),
    "excel_serial": Case((10, 10, 3, 100.0), FEW),
    "few_products": Case((60, 60, 60, 15299.25)),
    "few_products_15": Case((15, 15, 15, 5269.5)),
    "float_ids_placeholder": Case((3, 3, 3, 30.0), FEW),
    "headerless": Case(None, "Neither a price nor a revenue column", said="What are the columns"),
    "line_id_first": Case((30, 10, 5, 76.35)),
    "lookalike_ids": Case((8, 8, 3, 80.0), FEW),
    "missing_word": Case((9, 9, 4, 255.5), FEW),
    "mixed_dates": Case((30, 30, 7, 165.0)),
    "multiline_name": Case((2, 2, 2, 20.0), FEW),
    "no_customers": Case((4, 4, 0, 13.4), said="sales, products and baskets need none"),
    "no_receipt_copies": Case((33, 32, 2, 82.5), FEW),
    "one_off_shop": Case((60, 60, 60, 65359.26)),
    "price_in_products": Case((3, 2, 2, 7.5), FEW),
    "product_category": Case((5, 5, 5, 1780.0)),
    "return_date": Case((6, 6, 4, 123.25), FEW),
    "rounded_basket_id": Case((12, 9, 3, 120.0), FEW),
    "spanish_quantity": Case((5, 4, 3, 200.75), FEW),
    "status": Case((4, 4, 3, 37.25), FEW, said="Cancelled, Returned no sales"),
    "substring_names": Case((41, 41, 11, 1808.93)),
    "thousands_point": Case(
        (120, 120, 7, 1104200.0),
        answers={"decimal": ",", "thousands": "."},
        said=r"net revenue 1,104.20,.*net revenue 1,104,200.00,",
    ),
    "tz_parquet": Case((2, 2, 2, 30.0), FEW),
    "ukraine": Case((4, 4, 3, 87.15), FEW),
    "unclosed_quote": Case((14, 14, 4, 177.25), FEW),
    "unit_cost": Case((4, 3, 3, 24.93), FEW),
    "whole_prices": Case((3, 2, 2, 2900.0), FEW),
    "workbook": Case((6, 6, 3, 87.0), FEW),
    "z_format": Case((1, 1, 1, 10.0), FEW),
}


def unpack(name: str, folder: Path) -> Path:
    """Write the files of an export; the log among them."""
    for file, content in EXPORTS[name].items():
        data = base64.b64decode(content[7:]) if content.startswith("base64:") else content.encode()
        (folder / file).write_bytes(data)
    log = next(
        (f for f in EXPORTS[name] if f.startswith(("t.", "sales"))), next(iter(EXPORTS[name]))
    )
    return folder / log


class Proposed(NamedTuple):
    """What `check` makes of an export."""

    found: Examination
    end: str  # what stands below the proposal
    told: str  # all that it prints, or the sentence with which it refuses
    config: Path | None  # what it writes, with the answers of a person


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory) -> Iterator[None]:
    """The exports lie in a folder of this module, which the next call of pytest removes."""
    with mock.patch.object(tempfile, "tempdir", str(tmp_path_factory.mktemp("cases"))):
        yield


def listening(function: Callable, heard: list) -> Callable:
    """The same function; what it returns is written down as well."""

    def called(*given):
        heard.append(function(*given))
        return heard[-1]

    return called


@functools.cache
def proposed(name: str) -> Proposed:
    """Ask `check`, and listen to what it looks at and adds."""
    folder = Path(tempfile.mkdtemp())
    log, config, told = unpack(name, folder), folder / "shop.yaml", io.StringIO()
    looked: list[Examination] = []
    ends: list[list[str]] = []

    try:
        with (
            contextlib.redirect_stdout(told),
            mock.patch.object(related, "examine_all", listening(related.examine_all, looked)),
            mock.patch.object(proposal, "closing", listening(proposal.closing, ends)),
        ):
            check(str(log), out=str(config))
    except RetailError as refused:
        return Proposed(looked[0], "", str(refused), None)
    written = yaml.safe_load(config.read_text("utf-8"))
    written["data"] |= CASES[name].answers
    config.write_text(yaml.safe_dump(written | QUICK), "utf-8")
    return Proposed(looked[0], "\n".join(ends[0]), told.getvalue(), config)


def books(told: str) -> tuple[int, int, int, float]:
    """Lines kept, baskets, customers and revenue, as `check --config` prints them."""
    kept = re.search(r"came in: ([\d,]+) kept", told)[1]
    found = re.search(r"Kept: ([\d,]+) customers?, ([\d,]+) baskets?, net revenue ([\d,.]+),", told)
    customers, baskets, revenue = (n.replace(",", "") for n in found.groups())
    return int(kept.replace(",", "")), int(baskets), int(customers), float(revenue)


def test_every_shared_case_is_here():
    assert set(EXPORTS) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_proposed_config_gives_the_right_books(name):
    case = CASES[name]
    _, _, told, config = proposed(name)
    assert re.search(case.said, told, re.S), told
    if config is None:
        assert case.books is None and case.end in told
        return
    try:
        told, _ = check_source(load_config(str(config)))
    except RetailError as refused:
        assert case.books is None and case.end in str(refused)
        return
    assert books(told) == case.books, told


# test_any_shop.py runs the shop of few_products_15
WHOLE = ["no_customers", "thousands_point", "status", "headerless"]


@pytest.fixture(scope="module")
def rooms():
    return Rooms()


@pytest.mark.parametrize("name", CASES if os.environ.get("CASES") == "all" else WHOLE)
def test_a_run_reaches_its_end_or_its_sentence(name, rooms, tmp_path):
    case = CASES[name]
    _, _, told, config = proposed(name)
    if config is None:
        assert case.end in told
        return
    run, refusal = outcome(rooms, config, tmp_path / "run", drawn=False)
    assert (case.end in refusal) if case.end else not refusal, refusal
    if run:
        counts = json.loads((run / "manifest.json").read_text())["counts"]
        assert (counts["kept"], counts["baskets"], counts["customers"]) == case.books[:3]


# What is said of an export, and how sure it is


def test_a_file_without_a_header_asks_for_the_names():
    found = proposed("headerless").found
    (header,) = [g for g in found.guesses if g.key == "header"]
    assert header.sure == "unsure" and "1808, 21-07-2015, tropical fruit" in header.why
    assert found.notes[1].startswith("column 2: 21-07-2015, 05-01-2015")
    assert columns(found) == {"date": "column 2"} and sure(found)["date"] == "likely"
    assert "What are the columns called" in proposed("headerless").end


def test_several_date_formats_read_all_lines_and_blank_lines_are_called_blank():
    found = proposed("mixed_dates").found
    assert found.settings().date_format == ["%m/%d/%y %H:%M", "%m/%d/%Y %H:%M"]
    assert "1 of the first 31 lines is blank" in proposed("mixed_dates").end
    assert shown(proposed("mixed_dates").end)[:3] == (30, 30, 7)


def test_a_line_number_is_no_basket():
    found = proposed("line_id_first").found
    assert columns(found)["transaction_id"] == "order_id"
    # its baskets run over three days each, and that is said
    assert sure(found)["transaction_id"] == "unsure"
    assert shown(proposed("line_id_first").end)[1] == 10


def test_whole_words_decide():
    found = proposed("substring_names").found
    assert columns(found) == {
        "date": "order_date",
        "customer_id": "customer_id",
        "revenue": "amount",
        "status": "order_status",
    }
    assert "status 'order_status': shipped (41), cancelled (19)" in proposed("substring_names").end
    assert "discount 'discount'" in proposed("substring_names").end


def test_a_table_of_people_is_refused():
    verdict = proposed("customer_table").found.verdict
    assert "table of people: one row for each value of 'customer_id'" in verdict
    assert "2 columns of first, last or other days" in verdict and "ask for that export" in verdict


def test_a_currency_sign_counts_beside_numbers_only():
    found = proposed("ukraine").found
    assert "currency_signs" not in sure(found) and "quantity" not in columns(found)
    assert shown(proposed("ukraine").end) == (4, 4, 3, 87.15)


def test_a_column_that_is_mostly_empty_is_not_the_date():
    assert columns(proposed("return_date").found)["date"] == "ts"
    assert sure(proposed("return_date").found)["date"] == "sure"
    assert "return 'return_date': 2025-07-09 (1)" in proposed("return_date").end


def test_whole_prices_are_prices():
    found = proposed("whole_prices").found
    assert columns(found)["price"] == "unit_price" and sure(found)["price"] == "likely"
    assert "against" not in proposal.proposal("", found.guesses)


def test_a_category_is_no_product():
    found = proposed("product_category").found
    assert columns(found)["category"] == "Product Category"
    assert "product_id" not in columns(found) and sure(found)["product_id"] == "unsure"
    assert sure(found)["revenue"] == sure(found)["price"] == sure(found)["quantity"] == "sure"


def test_a_cost_is_no_price():
    found = proposed("unit_cost").found
    assert "price" not in columns(found) and columns(found)["revenue"] == "unit_spend"
    assert "cost 'unit_cost'" in proposed("unit_cost").end
    assert shown(proposed("unit_cost").end) == (4, 3, 3, 24.93)


def test_spanish_headers_are_read():
    found = proposed("spanish_quantity").found
    assert columns(found) == {
        "date": "fecha",
        "customer_id": "id_cliente",
        "transaction_id": "num_factura",
        "quantity": "cantidad",
        "price": "precio_unitario",
        "product_id": "cod_producto",
    }
    assert shown(proposed("spanish_quantity").end)[3] == 200.75


def test_cancelled_orders_are_named_with_what_they_are_worth():
    text = proposed("status").end
    assert "status 'status': Shipped (4), Cancelled (1), Returned (1)" in text
    assert "Are lines with 'status' Cancelled, Returned no sales?" in text
    raw = pd.read_csv(proposed("status").config.parent / "status.csv")
    for label, lines in (
        ("What it would give", raw[raw["status"] == "Shipped"]),
        ("What else it could be, if every 'status' is a sale", raw),
    ):
        assert shown(text, label) == (
            len(lines),
            lines["order_id"].nunique(),
            lines["customer_id"].nunique(),
            pytest.approx((lines["qty"] * lines["price"]).sum()),
        )


def test_a_word_for_nothing_is_proposed():
    assert proposed("missing_word").found.settings().missing == ["\\N"]
    assert sure(proposed("missing_word").found)["revenue"] == "sure"


def test_the_sheet_that_looks_like_a_log_is_proposed():
    found = proposed("workbook").found
    assert found.source.endswith("workbook.xlsx#Transactions")
    assert all(name in found.notes[0] for name in ("'Title Sheet'", "'Customers'"))
    assert sure(found)["quantity"] == "unsure"  # a price without a quantity is said
    assert shown(proposed("workbook").end)[:3] == (6, 6, 3), "two of eight orders are cancelled"
    label = "What else it could be, if every 'order_status' is a sale"
    assert shown(proposed("workbook").end, label)[:3] == (8, 8, 4)


def test_three_digits_after_a_point_are_two_readings():
    assert sure(proposed("thousands_point").found)["decimal"] == "ambiguous"
    text = proposed("thousands_point").end
    assert shown(text)[3] == 1104.20
    assert shown(text, "What else it could be, 1.234 is a thousand")[3] == 1104200
    assert "How are amounts written" in text


@pytest.mark.parametrize(
    "name, format", [("epoch_ms", "epoch_ms"), ("epoch_s", "epoch_s"), ("excel_serial", "excel")]
)
def test_the_numbers_of_a_clock_are_proposed_as_days(name, format):
    assert proposed(name).found.settings().date_format == format
    assert sure(proposed(name).found)["date_format"] == "likely"


def test_a_log_without_customers_says_what_needs_them_and_counts_the_rest():
    (lacking,) = [
        g for g in proposed("no_customers").found.guesses if g.key == "columns.customer_id"
    ]
    assert lacking.value is None and "segments" in lacking.why
    # one line is an exact copy of another
    assert shown(proposed("no_customers").end) == (4, 4, 0, 13.40)


def test_a_price_in_another_table_is_asked_for_where_that_table_is_not_there(tmp_path):
    (tmp_path / "t.csv").write_text(EXPORTS["price_in_products"]["price_in_products.csv"])
    found = examine(str(tmp_path / "t.csv"))
    assert sure(found)["revenue"] == "unsure"
    assert "table of prices" in "\n".join(proposal.closing(found))


def test_receipts_that_start_anew_each_day_take_the_day():
    text = proposed("daily_receipts").end
    found = proposed("daily_receipts").found
    assert sure(found)["transaction_id"] == sure(found)["basket"] == "likely"
    assert found.settings().basket == ["transaction_id", "date"]
    raw = pd.read_csv(proposed("daily_receipts").config.parent / "t.csv", dtype=str)
    visits = len(raw.drop_duplicates(["customer_id", "date"]))
    assert shown(text)[1] == visits
    assert shown(text, "What else it could be, a basket is its number alone")[1] == 5
    assert "Do the numbers in 'transaction_id' start anew every day?" in text
