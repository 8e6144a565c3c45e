"""Delicate exports, from the file to the result: `check` writes a config, a person answers what it
asks, and a run with that config ends with the right figures or with the right sentence. The exports
are those of the shared cases, in cases.json; the figures are counted by hand. CASES=all runs the
whole chain on each of them (`make soak`).
"""

import base64
import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from any_shop import QUICK, Rooms, outcome

from retail_ci.cli import check
from retail_ci.core.config import load_config
from retail_ci.core.errors import RetailError
from retail_ci.data.profiling import check_source

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


def proposed(name: str, folder: Path) -> tuple[Path | None, str]:
    """The config that `check` writes, with the answers of a person; and what it prints, or the
    sentence with which it refuses.
    """
    log, config, told = unpack(name, folder), folder / "shop.yaml", io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            check(str(log), out=str(config))
    except RetailError as refused:
        return None, str(refused)
    found = yaml.safe_load(config.read_text("utf-8"))
    found["data"] |= CASES[name].answers
    config.write_text(yaml.safe_dump(found | QUICK), "utf-8")
    return config, told.getvalue()


def books(told: str) -> tuple[int, int, int, float]:
    """Lines kept, baskets, customers and revenue, as `check --config` prints them."""
    kept = re.search(r"came in: ([\d,]+) kept", told)[1]
    found = re.search(r"Kept: ([\d,]+) customers?, ([\d,]+) baskets?, net revenue ([\d,.]+),", told)
    customers, baskets, revenue = (n.replace(",", "") for n in found.groups())
    return int(kept.replace(",", "")), int(baskets), int(customers), float(revenue)


def test_every_shared_case_is_here():
    assert set(EXPORTS) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_proposed_config_gives_the_right_books(name, tmp_path):
    case = CASES[name]
    config, told = proposed(name, tmp_path)
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
    config, told = proposed(name, tmp_path)
    if config is None:
        assert case.end in told
        return
    run, refusal = outcome(rooms, config, tmp_path / "run", drawn=False)
    assert (case.end in refusal) if case.end else not refusal, refusal
    if run:
        counts = json.loads((run / "manifest.json").read_text())["counts"]
        assert (counts["kept"], counts["baskets"], counts["customers"]) == case.books[:3]
