"""Inputs that are wrong in every way we could think of: each gets its reason or its one sentence,
and no number changes silently.
"""

import gzip
import io
import os
import re
import sqlite3
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from conftest import PATIENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_ci.cli import answer, check, evaluate, predict, recommend
from retail_ci.core.config import Config, DataConfig, check_data, load_config, structure
from retail_ci.core.errors import ConfigError, DataError, RetailError
from retail_ci.core.runs import check_writable
from retail_ci.data.cleaning import prepare
from retail_ci.data.engines import close, connect
from retail_ci.data.sources import open_source, reading
from retail_ci.export.campaigns import permissions
from retail_ci.pipeline.runner import _check_config, run_chain
from retail_ci.serve.api import read_keys

ROOT = Path(__file__).parents[1]
HEAD = "transaction_id,customer_id,product_id,date,quantity,price\n"
# three fine lines, 15 in all
GOOD = "B1,c1,p1,2025-01-03,2,4.50\nB2,c2,p2,2025-01-04,1,3.00\nB3,c1,p2,2025-01-05,1,3.00\n"
LOG = HEAD + GOOD
NO_QUANTITY = (
    "transaction_id,customer_id,product_id,date,revenue\nB1,c1,p1,2025-01-03,9\n"
    "B2,c2,p2,2025-01-04,6\n"
)


@dataclass
class Case:
    """One input: what it holds, how it is configured, and what must come of it."""

    name: str
    content: str | bytes | dict  # the file, or file: content
    expect: dict | str = field(
        default_factory=dict
    )  # broken rule: lines; or a pattern of the sentence
    config: dict = field(default_factory=dict)
    revenue: float | None = 15.0  # of the kept lines
    flags: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    suffix: str = ".csv"


def line(
    text: str, expect: dict | str | None = None, revenue: float = 15.0, name: str = "", **more
) -> Case:
    """The fine lines, and one more."""
    return Case(
        name or text,
        LOG + text + "\n",
        {} if expect is None else {expect: 1} if isinstance(expect, str) else expect,
        revenue=revenue,
        **more,
    )


def sheet(rows: list[list]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_excel(buffer, header=False, index=False)
    return buffer.getvalue()


def database(*statements: str) -> bytes:
    con = sqlite3.connect(":memory:")
    for statement in statements:
        con.execute(statement)
    return con.serialize()


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for name, text in files.items():
            z.writestr(f"{name}.csv", text)
    return buffer.getvalue()


COMMA = {"decimal": ",", "thousands": ".", "delimiter": ";"}
SEMI = "transaction_id;customer_id;product_id;date;quantity;price\n"
MANY = HEAD + "".join(
    f"B{i},c{i % 7},p{i % 5},2025-{1 + i % 3:02}-{1 + i % 28:02},1,1.00\n" for i in range(200)
)

CASES = [
    # a line that is no sale
    line(
        "B4,c1,,2025-01-06,1,5",
        "missing_product",
        config={"without_product": "reject"},
        name="no product, where each line needs one",
    ),
    line(",c1,p1,2025-01-06,1,5", "missing_basket"),
    line(" ,c1,p1,2025-01-06,1,5", "missing_basket", name="blank basket"),
    line("B4,c1,p1,,1,5", "bad_date"),
    line("B4,c1,p1,31/12/2025,1,5", "bad_date"),
    line("B4,c1,p1,2025-02-30,1,5", "bad_date"),
    line("B4,c1,p1,2025-13-01,1,5", "bad_date"),
    line("B4,c1,p1,yesterday,1,5", "bad_date"),
    line("B4,c1,p1,45678,1,5", "bad_date", name="a date as a spreadsheet counts it"),
    line("B4,c1,p1,0000-00-00,1,5", "bad_date"),
    line("B4,c1,p1,infinity,1,5", "bad_date"),
    line("B4,c1,p1,1970-01-01,1,5", "too_old"),
    line("B4,c1,p1,1899-12-30,1,5", "too_old"),
    line(
        "B4,c1,p1,2024-12-31,1,5",
        "too_old",
        config={"earliest": "2025-01-01"},
        name="before data.earliest",
    ),
    line(
        "B4,c1,p1,2025-02-01,1,5",
        "future",
        config={"last_date": "2025-01-31"},
        name="after data.last_date",
    ),
    line(
        "B4,c1,p1,2025-01-31 23:59:59,1,5",
        revenue=20,
        config={"last_date": "2025-01-31"},
        name="the last second of data.last_date",
    ),
    Case("one date in 2099", MANY + "B999,c1,p1,2099-01-01,1,1.00\n", {"future": 1}, revenue=200),
    line("B4,c1,p1,2025-01-06,,5", "bad_quantity"),
    line("B4,c1,p1,2025-01-06,two,5", "bad_quantity"),
    line("B4,c1,p1,2025-01-06,0,5", "zero_quantity"),
    line("B4,c1,p1,2025-01-06,-0,5", "zero_quantity"),
    line("B4,c1,p1,2025-01-06,0x10,5", "bad_quantity"),
    line("B4,c1,p1,2025-01-06,1_000,5", "bad_quantity"),
    line('B4,c1,p1,2025-01-06,"1,000",5', "bad_quantity"),
    line("B4,c1,p1,2025-01-06,nan,5", "bad_quantity"),
    line("B4,c1,p1,2025-01-06,1e15,5", "too_large"),
    line("B4,c1,p1,2025-01-06,1,", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,inf", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,-inf", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,NaN", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,free", "bad_price"),
    line('B4,c1,p1,2025-01-06,1,"4,50"', "bad_price"),
    line('B4,c1,p1,2025-01-06,1,"1,234"', "bad_price"),
    line("B4,c1,p1,2025-01-06,1,€5", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,(5.00)", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,5.00-", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,1e999", "bad_price"),
    line("B4,c1,p1,2025-01-06,1,4006381333931", "too_large"),
    line("B4,c1,p1,2025-01-06,1,٥", "bad_price", name="digits of another script"),
    line("B4,c1,p1,2025-01-06,1,-5", "negative_price"),
    line("B4,c1,p1,2025-01-06,-1,-5", "negative_price"),
    line(
        "B4,c1,POST,2025-01-06,1,5",
        "not_a_product",
        config={"non_product": {"product_id": "^(POST|FEE)$"}},
        name="postage",
    ),
    line(
        "B4,c1,p9,2025-01-06,1,5",
        "unknown_product",
        config={"products": "products.csv", "known_products_only": True},
        name="a product that is not on file",
    ),
    line(HEAD.strip(), "repeated_header"),
    line("B4,c1,p1,2025-01-06,1", "damaged_line"),
    line("B4,c1,p1,2025-01-06,1,5,6", "damaged_line"),
    line("B4,c1", "damaged_line"),
    line("B4,c\0,p1,2025-01-06,1,5", "damaged_line", name="a zero byte"),
    line(",,,,,", "bad_date", name="a line of delimiters"),
    line("\n\n", name="blank lines"),
    # a sale that needs a word
    line(
        "B4,c1,,2025-01-06,1,5",
        revenue=20,
        flags={"no_product": 1},
        config={"without_product": "keep"},
        name="no product",
    ),
    line(
        "B4,c1,   ,2025-01-06,1,5",
        revenue=20,
        flags={"no_product": 1},
        config={"products": "products.csv", "known_products_only": True},
        name="a blank product is not an unknown one",
    ),
    line("B4,,p1,2025-01-06,1,5", revenue=20, facts={"anonymous": 1}),
    line("B4,  ,p1,2025-01-06,1,5", revenue=20, facts={"anonymous": 1}),
    line("B4,NULL,p1,2025-01-06,1,5", revenue=20, flags={"missing_word": 1}),
    line(
        "B4,NULL,p1,2025-01-06,1,5",
        revenue=20,
        config={"missing": ["NULL"]},
        facts={"anonymous": 1},
        name="NULL is declared",
    ),
    line("B4,NA,p1,2025-01-06,1,5", revenue=20, facts={"customers": 3}, flags={"missing_word": 1}),
    line("B4,00012,p1,2025-01-06,1,5", revenue=20, facts={"customers": 3}, name="leading zeros"),
    line("B4,1.23E+12,p1,2025-01-06,1,5", revenue=20, flags={"damaged_id": 1}),
    line("B4,c1,p1,2025-01-06,-1,5", revenue=10, facts={"returns": 1}),
    line(
        "C4,c1,p1,2025-01-06,1,5",
        revenue=10,
        config={"cancelled_prefix": "C"},
        facts={"returns": 1},
        name="cancelled by its prefix",
    ),
    line("B4,c1,p1,2025-01-06,1,0", name="free of charge"),
    line("B4,c1,p1,2025-01-06,1e0,5.", revenue=20),
    line("B4,c1,p1,2025-01-06,+1,.5", revenue=15.5),
    line(
        "B2,c2,p2,2025-01-04,1,3.00",
        name="an exact copy",
        config={"max_collapsed": 0.3},
        facts={"collapsed": 1},
    ),
    line(
        "B2,c2,p2,2025-01-04,1,3.00",
        revenue=18,
        name="copies are real",
        config={"duplicates": "keep"},
        facts={"collapsed": 0},
    ),
    line(
        "B1,c2,p2,2025-01-03,1,1",
        revenue=16,
        flags={"shared_basket": 2},
        name="one basket under two customers",
    ),
    line(
        "B4,c1,p9,2025-01-06,1,5",
        revenue=20,
        config={"products": "products.csv"},
        flags={"unlisted_product": 1},
        name="an unlisted product",
    ),
    Case(
        "ids that went through floats",
        LOG.replace("c1", "17850.0").replace("c2", "12.0"),
        facts={"customers": 2, "float_ids": {"customer_id": 3}},
    ),
    Case(
        "some ids with a point and a letter",
        LOG.replace("c1", "17850.0"),
        facts={"customers": 2, "float_ids": {"customer_id": 2}},
    ),
    Case(
        "revenue contradicts",
        (
            "transaction_id,customer_id,product_id,date,quantity,price,revenue\n"
            "B1,c1,p1,2025-01-03,2,4.50,9\nB2,c1,p1,2025-01-03,2,4.50,6\n"
        ),
        flags={"contradiction": 1},
    ),
    Case(
        "negative revenue, positive quantity",
        (
            "transaction_id,customer_id,product_id,date,quantity,revenue\n"
            "B1,c1,p1,2025-01-03,2,15\nB2,c1,p1,2025-01-03,2,-6\n"
        ),
        {"negative_revenue": 1},
    ),
    Case(
        "negative revenue, no quantity",
        NO_QUANTITY + "B3,c1,p1,2025-01-05,-4\n",
        revenue=11,
        facts={"returns": 1},
    ),
    Case(
        "no price in a line with revenue",
        (
            "transaction_id,customer_id,product_id,date,quantity,price,revenue\n"
            "B1,c1,p1,2025-01-03,2,,15\nB2,c1,p1,2025-01-03,2,x,6\n"
        ),
        {"bad_price": 1},
    ),
    # letters and numbers of other countries
    Case("decimal comma", SEMI + "B1,c1;c1;p1;2025-01-03;2;1.234,50\n", config=COMMA, revenue=2469),
    Case(
        "decimal comma, a point without thousands",
        SEMI + "B1;c1;p1;2025-01-03;2;7,50\nB2;c1;p1;2025-01-03;2;12.34\n",
        {"bad_price": 1},
        COMMA,
    ),
    Case(
        "euros", SEMI + "B1;c1;p1;2025-01-03;2;7,50 €\n", config=COMMA | {"currency_signs": ["€"]}
    ),
    Case(
        "thousands by blanks",
        SEMI + "B1;c1;p1;2025-01-03;1;1\u00a0015,00\n",
        config=COMMA | {"thousands": " "},
        revenue=1015,
    ),
    Case(
        "day first",
        LOG.replace("2025-01-03", "03/01/2025")
        .replace("2025-01-04", "04/01/2025")
        .replace("2025-01-05", "13/01/2025"),
        config={"date_format": "%d/%m/%Y"},
        facts={"last_date": pd.Timestamp("2025-01-13")},
    ),
    Case(
        "two declared formats",
        LOG.replace("2025-01-03", "03.01.2025"),
        config={"date_format": ["%Y-%m-%d", "%d.%m.%Y"]},
        facts={"first_date": pd.Timestamp("2025-01-03")},
    ),
    Case("byte order mark", b"\xef\xbb\xbf" + LOG.encode()),
    Case("utf-16", LOG.encode("utf-16")),
    Case(
        "utf-16 without a mark",
        LOG.encode("utf-16-le"),
        "looks like UTF-16 without a byte order mark",
    ),
    Case("utf-16 declared", LOG.encode("utf-16-le"), config={"encoding": "utf-16-le"}),
    Case(
        "latin-1",
        LOG.replace("c1", "Müller").encode("latin-1"),
        "not utf-8: byte 0xfc at position 62 is not valid in it. Set data.encoding to the one it "
        "was written in; cp1252",
    ),
    Case(
        "latin-1 declared",
        LOG.replace("c1", "Müller").encode("latin-1"),
        config={"encoding": "cp1252"},
    ),
    Case("old line ends", LOG.replace("\n", "\r")),
    Case("windows line ends", LOG.replace("\n", "\r\n")),
    Case("no line end at the end", LOG.rstrip()),
    Case("excel's sep line", "sep=,\n" + LOG),
    Case("tabs", LOG.replace(",", "\t")),
    Case("pipes", LOG.replace(",", "|")),
    Case("quoted delimiters", LOG.replace("c1", '"c,1"')),
    Case("whitespace", LOG.replace(",", "   "), config={"delimiter": "whitespace"}),
    Case("no header", GOOD, config={"header": HEAD.strip().split(",")}),
    Case(
        "no header and none declared",
        GOOD,
        r"Column 'date' \(our date\) is not in the transactions; found: B1, c1",
    ),
    Case(
        "a header of another width",
        GOOD,
        "names 2 columns, and the first line of sales.csv has 6 values",
        config={"header": ["a", "b"]},
    ),
    # files that cannot be read
    Case("empty", "", "is empty"),
    Case("blank lines only", "\n\n\n", "holds no text"),
    Case("header only", HEAD, "a header and no rows"),
    Case(
        "one column twice",
        LOG.replace("transaction_id", "date"),
        "'date' appears twice in the header",
    ),
    Case(
        "an unclosed quotation mark",
        LOG.replace("c2", '"c2'),
        {"damaged_line": 1},
        revenue=12.0,
    ),
    Case("inches", LOG.replace("c2", 'c2"'), config={"quote": ""}),
    Case("quotation marks as letters", LOG.replace("c2", '"c2'), config={"quote": ""}),
    Case(
        "no such column",
        LOG,
        "Column 'Kunde' .our customer_id. is not in the transactions",
        config={"columns": {"customer_id": "Kunde"}},
    ),
    Case(
        "no such name of ours",
        LOG,
        "Unknown column 'customer' in data.columns; did you mean 'customer_id'",
        config={"columns": {"customer": "customer_id"}},
    ),
    Case("no price at all", LOG.replace("price", "weight"), "Neither a price nor a revenue column"),
    Case(
        "cut gzip",
        gzip.compress(MANY.encode())[:-20],
        "damaged and cannot be unpacked",
        suffix=".csv.gz",
    ),
    Case("gzip", gzip.compress(LOG.encode()), suffix=".csv.gz"),
    Case("zip", zipped(a=LOG), suffix=".zip"),
    Case("zip of two", zipped(a=LOG, b=LOG), "holds 2 files", suffix=".zip"),
    Case("an archive without a file", zipped(), "is an archive without a file", suffix=".zip"),
    Case(
        "an archive in an archive",
        gzip.compress(zipped(a=LOG)),
        "contains another archive or a table",
        suffix=".csv.gz",
    ),
    Case(
        "a spreadsheet called .csv",
        sheet([["a"], [1]]),
        "is a spreadsheet by its content; give it the ending .xlsx",
    ),
    Case(
        "a PDF document called .csv", b"%PDF-1.4\n%\xe2\xe3\n", "is a PDF document by its content"
    ),
    Case("a web page called .csv", "<table border=1>\n<tr><td>a", r"is a web page \(HTML\) by its"),
    Case("a web page called .xls", "<html>\n<table>", r"is a web page \(HTML\)", suffix=".xls"),
    Case("XML called .xls", "<?xml version='1.0'?>\n<Workbook>", "is an XML doc", suffix=".xls"),
    Case("lines of JSON", '{"a": 1, "b": 2}\n{"a": 2}\n', r"is JSON by its.*lines=True"),
    Case("a list of JSON", '[\n {"a": 1, "b": 2}]\n', r"is JSON by its.*read_json\('sales.csv'\)"),
    Case("text called .xlsx", LOG, "is a text by its content, and no .xlsx file", suffix=".xlsx"),
    Case("text called .parquet", LOG, "is a text by its content, and no .pa", suffix=".parquet"),
    Case(
        "not the declared encoding",
        LOG.encode() + b"\x8d",
        r"is not cp1252: byte 0x8d at position \d+ is not valid in it. Set data.encoding to the "
        r"one it was written in; cp1250, cp1251, mac_roman and others can read it",
        config={"encoding": "cp1252"},
    ),
    Case(
        "a folder without data",
        {"read.me": "x", "notes.md": "y"},
        "holds no data files; expected some that end in .csv",
    ),
    Case("no parquet", "PAR1 no", "cannot be read", suffix=".parquet"),
    Case("no spreadsheet", "text", "cannot be read as a spreadsheet", suffix=".xlsx"),
    Case(
        "spreadsheet",
        sheet(
            [HEAD.strip().split(","), ["B1", 17850, "00012", pd.Timestamp("2025-01-03"), 2, 7.5]]
        ),
        suffix=".xlsx",
        facts={"customers": 1, "first_date": pd.Timestamp("2025-01-03")},
    ),
    Case("empty sheet", sheet([[]]), "is empty; expected a header", suffix=".xlsx"),
    Case(
        "sqlite",
        database(
            "CREATE TABLE s (transaction_id, customer_id, product_id, date, quantity, price)",
            "INSERT INTO s VALUES ('B1', 17850, '00012', '2025-01-03', 2, 7.5)",
        ),
        suffix=".db",
    ),
    Case(
        "two tables",
        database("CREATE TABLE a (x)", "CREATE TABLE b (x)"),
        r"holds 2 tables \(a, b\); name one after a #",
        suffix=".db",
    ),
    Case(
        "monthly files with other columns",
        {
            "s1.csv": LOG,
            "s2.csv": (
                "transaction_id,customer_id,product_id,date,quantity,price,shop\n"
                "B9,c9,p9,2025-02-01,1,5,north\n"
            ),
        },
        revenue=20,
        facts={"customers": 3},
    ),
    Case(
        "a month without prices",
        {
            "s1.csv": LOG,
            "s2.csv": (
                "transaction_id,customer_id,product_id,date,quantity\nB9,c9,p9,2025-02-01,1\n"
            ),
        },
        "Column 'price' .our price. is missing in s2.csv",
        config={"columns": {"price": "price"}},
    ),
    Case(
        "the same month twice",
        {"s1.csv": LOG, "s2.csv": LOG},
        config={"max_collapsed": 0.5},
        facts={"collapsed": 3},
    ),
    Case(
        "two kinds of files", {"s1.csv": LOG, "s2.parquet": b"PAR1"}, "mixes parquet and text files"
    ),
    # too much
    Case(
        "too many rejected",
        LOG + "B4,c1,p1,never,1,5\n" * 2,
        (
            r"2 of 5 lines are rejected, more than the 20% .* most often bad_date \(2 lines; "
            r"row 4 of sales.csv: date 'never'\)"
        ),
        config={"max_rejected": 0.2},
    ),
    Case(
        "nobody is known",
        LOG.replace("c1", "").replace("c2", ""),
        facts={"customers": 0, "anonymous": 3},
    ),
    Case(
        "nobody is known, and the config names a column",
        LOG.replace("c1", "").replace("c2", ""),
        "No line has a customer, though data.columns.customer_id names 'customer_id'",
        config={"columns": {"customer_id": "customer_id"}},
    ),
    Case(
        "nothing was sold",
        LOG.replace("price", "price,status").replace("0\n", "0,void\n"),
        "None of 3 lines is a sale: 0 are rejected and 3 set aside by their status",
        config={"status": {"cancelled": ["void"]}},
    ),
    Case(
        "everything is wrong",
        HEAD + "B,c,p,x,y,z\n",
        "1 of 1 line is rejected",
        config={"max_rejected": 0.5},
    ),
    # a config that cannot be
    Case(
        "no such encoding",
        LOG,
        "'data.encoding' must be a text encoding that Python knows",
        config={"encoding": "klingon"},
    ),
    Case(
        "a broken pattern",
        LOG,
        "must be a regular expression",
        config={"non_product": {"product_id": "("}},
    ),
    Case(
        "a pattern on no column",
        LOG,
        "Unknown column 'sku' in data.non_product",
        config={"non_product": {"sku": "x"}},
    ),
    Case("no such file", {}, "does not exist", config={"transactions": "none.csv"}),
    Case(
        "no such database",
        LOG,
        r"expected postgresql://",
        config={"transactions": "oracle://host/db"},
    ),
    Case(
        "rules on products without products",
        LOG,
        "need a products table",
        config={"known_products_only": True},
    ),
]


TOGETHER = [
    c
    for c in CASES
    if isinstance(c.expect, dict)
    and not c.config
    and not set(c.facts) - {"anonymous", "returns"}
    and isinstance(c.content, str)
    and c.content.startswith(LOG)
    and "shared_basket" not in c.flags
    and c.content.count("\n") == 5
]
ALONE = [c for c in CASES if c not in TOGETHER]


@pytest.fixture(scope="module")
def con():
    con = connect()
    yield con
    close(con)


def test_there_are_enough():
    assert (
        len(CASES) >= 60
        and len({c.name for c in CASES}) == len(CASES)
        and len(TOGETHER) > 40
        and len(ALONE) > 60
    )


@pytest.fixture(scope="module")
def together(con, tmp_path_factory):
    """All the single lines in one file, each under a basket of its own: what came of each row."""
    lines = [
        c.content.splitlines()[4].replace("B4,", f"B{100 + i},") for i, c in enumerate(TOGETHER)
    ]
    place = tmp_path_factory.mktemp("together") / "sales.csv"
    place.write_text(LOG + "\n".join(lines) + "\n")
    result = outcome(con, {"transactions": str(place), "max_rejected": 0.95})
    kept = result.transactions.execute().set_index("transaction_id")
    return (
        result.facts,
        result.rejected.execute().set_index("row").reason,
        kept,
        result.flagged.execute().groupby("row").flag.agg(list),
    )


def test_the_rows_add_up(together):
    facts, reasons, kept, _ = together
    assert (
        facts["rows_in"] == 3 + len(TOGETHER) == len(kept) + len(reasons) + facts["collapsed"]
        and facts["collapsed"] == 0
    )
    assert facts["revenue"] == pytest.approx(15 + sum(c.revenue - 15 for c in TOGETHER), abs=1e-9)


@pytest.mark.parametrize("number, case", list(enumerate(TOGETHER)), ids=[c.name for c in TOGETHER])
def test_bad_line(number, case, together):
    _, reasons, kept, flags = together
    assert [reasons[number + 4]] == list(case.expect) if case.expect else number + 4 not in reasons
    assert flags.get(number + 4, []) == list(case.flags)
    if case.expect:
        return
    line = kept.loc[f"{'B' if 'B4' in case.content else 'C'}{100 + number}"]
    assert (
        line.revenue == pytest.approx(case.revenue - 15)
        and pd.isna(line.customer_id) == bool(case.facts.get("anonymous"))
        and line.is_return == bool(case.facts.get("returns"))
    )


@pytest.mark.parametrize("case", ALONE, ids=lambda c: c.name)
def test_bad_input(case, con, tmp_path):
    files = (
        case.content if isinstance(case.content, dict) else {f"sales{case.suffix}": case.content}
    )
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    place = tmp_path / "in" / (f"sales{case.suffix}" if len(files) == 1 else "")
    if "products" in case.config:
        (tmp_path / "products.csv").write_text("product_id,category\np1,a\np2,b\n")
    config = {"transactions": str(place), "max_rejected": 0.9} | case.config
    for role in ("transactions", "products"):
        if config.get(role, "").endswith(".csv"):
            config[role] = str(tmp_path / config[role])
    if isinstance(case.expect, str):
        with pytest.raises(RetailError, match=case.expect) as caught:
            outcome(con, config)
        assert (
            caught.value.exit_code in (2, 3)
            and "\n" not in str(caught.value)
            and len(str(caught.value)) < 600
        )
        return
    result = outcome(con, config)
    facts = result.facts
    assert {k: n for k, n in facts["by_reason"].items() if n} == case.expect
    assert {k: n for k, n in facts["by_flag"].items() if n} == case.flags
    assert facts["revenue"] == pytest.approx(case.revenue, abs=1e-9)
    assert {k: facts[k] for k in case.facts} == case.facts
    assert facts["rows_in"] == facts["kept"] + facts["rejected"] + facts["collapsed"]
    assert (
        facts["kept"] == result.transactions.count().execute()
        and facts["rejected"] == result.rejected.count().execute()
    )


READING = (
    "transactions",
    "encoding",
    "delimiter",
    "header",
    "quote",
)  # settings that the reader alone looks at
CLEANED = {}


def outcome(con, config: dict):
    """Read and clean, as a run does; files that were read into the same lines, to be cleaned by the
    same rules, are cleaned once.
    """
    settings = check_data(structure(DataConfig, config, "data"))
    source = open_source(con, "transactions", settings)
    if settings.products:
        return prepare(
            con,
            source.table,
            settings,
            open_source(con, "products", settings).table,
            parts=source.parts,
        )
    cleaning = {name: value for name, value in asdict(settings).items() if name not in READING}
    same = repr(
        (
            source.table.schema(),
            source.table.order_by("row").execute().to_numpy().tolist(),
            [rows for _, rows in source.parts],
            cleaning,
        )
    )
    if same not in CLEANED:
        CLEANED[same] = prepare(con, source.table, settings, parts=source.parts)
    return CLEANED[same]


def test_a_customer_who_is_listed_twice_is_not_taken_at_one_word(con, tmp_path):
    """Consent in one line and none in the other is no consent; a complaint in one line is a
    complaint; what the lines agree on stays.
    """
    (tmp_path / "sales.csv").write_text(
        "customer_id,date,revenue\n"
        + "".join(f"{c},2025-01-03,5\n" for c in ("a", "b", "c", "d", "e"))
    )
    listed = (
        "customer_id,region,consent,do_not_contact\na,north,yes,\nb,north,yes,\nb,north,no,\n"
        "c,south,yes,no\nc,south,yes,no\nd,south,yes,\nd,east,yes,2025-01-03\ne,east,,no\n"
        "e,east,yes,no\n"
    )
    (tmp_path / "customers.csv").write_text(listed)
    settings = DataConfig(
        transactions=str(tmp_path / "sales.csv"), customers=str(tmp_path / "customers.csv")
    )
    lines, people = (
        open_source(con, role, settings).table for role in ("transactions", "customers")
    )
    result = prepare(con, lines, settings, customers=people)
    found = result.customers.execute()
    assert list(found.columns) == [
        "customer_id",
        "first_purchase",
        "counter_like",
        "region",
        "consent",
        "do_not_contact",
    ] and found.customer_id.tolist() == list("abcde")
    assert permissions(found, ["consent"], ["do_not_contact"]).to_dict() == {
        "a": "yes",
        "b": "no consent",
        "c": "yes",
        "d": "suppressed",
        "e": "no consent",
    }
    assert (
        found.region.tolist() == ["north", "north", "south", "contradictory", "east"]
        and result.facts["by_flag"]["contradictory"] == 3
    )


def test_contradicting_truths_of_a_parquet_file_are_no_consent(con, tmp_path):
    (tmp_path / "sales.csv").write_text(
        "customer_id,date,revenue\na,2025-01-03,5\nb,2025-01-03,5\n"
    )
    pd.DataFrame({"customer_id": ["a", "a", "b"], "consent": [True, False, True]}).to_parquet(
        tmp_path / "customers.parquet"
    )
    settings = DataConfig(
        transactions=str(tmp_path / "sales.csv"), customers=str(tmp_path / "customers.parquet")
    )
    lines, people = (
        open_source(con, role, settings).table for role in ("transactions", "customers")
    )
    found = prepare(con, lines, settings, customers=people).customers.execute()
    assert permissions(found, ["consent"], []).to_dict() == {"a": "no consent", "b": "yes"}


ODD_SETTINGS = [
    "data.transactions=[",
    "data=*nowhere",
    "seed=" + "9" * 5000,
    "data.last_date=2025-13-01",
    "data.encoding=rot13",
    "data.encoding=undefined",
    'data.encoding="a\\0b"',
    "rfm.bins=" + "[" * 3000,
    "worth.margin=0x" + "f" * 6000,
    "name=" + "x" * 300,
    "data.transactions=!!python/object:os.system x",
]


@pytest.mark.parametrize("setting", ODD_SETTINGS, ids=lambda s: s[:30])
def test_a_setting_that_cannot_be(setting):
    with pytest.raises(ConfigError) as caught:
        load_config("small", [setting])
    assert (
        "\n" not in str(caught.value)
        and len(str(caught.value)) < 700
        and setting.partition("=")[0].split(".")[-1] in str(caught.value)
    )


KEYS = [
    f"{section.name}.{key.name}"
    for section in fields(Config)
    if is_dataclass(section.default_factory)
    for key in fields(section.default_factory)
]
VALUES = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "*x",
            "&a [*a]",
            "!!binary aGVsbG8=",
            "{? [1]: 2}",
            ".nan",
            "-.inf",
            "1e400",
            "/dev/zero",
            "package:os/x",
            "9" * 5000,
        ]
    ),
    st.integers().map(str),
    st.recursive(st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3)).map(str),
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_of_any_key_is_taken_or_refused_in_one_sentence(key, value):
    try:
        load_config("small", [f"{key}={value}"])
    except RetailError as e:
        assert e.exit_code == 2 and "\n" not in str(e) and len(str(e)) < 900


@pytest.mark.parametrize(
    "content, config, code, words",
    [
        (LOG, {"date_format": "%Q%%%"}, 2, "'data.date_format' cannot be '%Q%%%'"),
        (
            "x" * 140_000 + ",customer_id\n1,2\n",
            {},
            3,
            "sales.csv cannot be read: field larger than field limit",
        ),
        (LOG, {"transactions": "package:os/x"}, 3, "a Python module that holds no files"),
        (LOG, {"transactions": "package:/x"}, 2, "must look like package:NAME/FILE"),
        (LOG, {"transactions": "/dev/zero"}, 3, "neither a file nor a folder"),
        (LOG, {"non_product": {"product_id": "(?=a)"}}, 3, "cannot be read"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_a_library_that_refuses(content, config, code, words, con, tmp_path):
    (tmp_path / "sales.csv").write_text(content)
    with pytest.raises(RetailError, match=re.escape(words)) as caught:
        outcome(con, {"transactions": str(tmp_path / "sales.csv")} | config)
    assert caught.value.exit_code == code and "\n" not in str(caught.value)


BEFORE_A_RUN = [  # a setting, and what is said of it before the first notebook starts
    (
        "recommender.parameters={personal_decayed: {half_life: -3}}",
        "recommender.parameters.personal_decayed: half_life must be a number above zero, got -3.",
    ),
    (
        "recommender.parameters={collaborative: {neighbours: many}}",
        "'recommender.parameters.collaborative.neighbours' must be a whole number, found 'many'",
    ),
    (
        "recommender.parameters={collaborative: {weighting: tfid}}",
        "Unknown weighting 'tfid'; did you mean 'tfidf'?",
    ),
    (
        "recommender.parameters={ease: {half: 3}}",
        "Unknown parameter 'half' in recommender.parameters.ease; did you mean 'half_life'?",
    ),
    (
        "recommender.weights={collaborative: 0, content: 0}",
        "'recommender.weights' must give a part",
    ),
    ("rfm.cut_points={recency: [3, 1]}", "rfm.cut_points.recency must be 4 numbers in rising"),
    ("rfm.cut_points={recensy: [1, 2, 3, 4]}", "did you mean 'recency'?"),
    ("data.columns={custmer_id: a}", "in data.columns; did you mean 'customer_id'?"),
    ("data.columns={price: a, revenue: a}", "'data.columns' names 'a' for price and revenue;"),
    ('data.date_format="%d/%m"', "'data.date_format' must name a day, a month and a year"),
    ('data.date_format=["%Y-%m-%d", "%Q"]', "'data.date_format' cannot be '%Q'"),
    ("data.memory=lots", "'data.memory' must be a size of at least 64MB"),
    ("data.last_date=1960-01-01", "'data.last_date' must not lie before data.earliest"),
    ("data.earliest=soon", "'data.earliest' must be a day"),
    ("synthetic.start=soon", "'synthetic.start' must be a day"),
    ("synthetic.start=1950-01-01", "'synthetic.start' must lie between 1970-01-02 and"),
]


@pytest.mark.parametrize("setting, words", BEFORE_A_RUN, ids=[s for s, _ in BEFORE_A_RUN])
def test_a_run_does_not_begin_with_a_value_that_it_would_refuse(setting, words, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        run_chain(load_config("small", [setting]), tmp_path, ROOT / "nbs")
    assert "\n" not in str(refused.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "setting",
    [
        "recommender.parameters={ease: {half_life: 30}, weighted: {content: 0.1}}",
        "rfm.cut_points={recency: [3, 10, 30, 90]}",
        "data.columns={customer_id: a, product_name: b, category: b}",
        'data.date_format=["%d.%m.%y %H:%M", "%b %d, %Y", "%Y%m%d"]',
        "data.memory=512 MiB",
    ],
)
def test_a_value_that_makes_sense_is_taken(setting):
    _check_config(load_config("small", [setting]))


def test_every_config_that_is_shipped_passes_the_check():
    files = [*ROOT.glob("configs/*.yaml"), *ROOT.glob("examples/*.yaml")]
    assert len(files) > 3
    for file in files:
        _check_config(load_config(file))


def shop_file(ending: str, folder: Path) -> bytes:
    """A fine log as a file of each kind."""
    table = pd.read_csv(io.StringIO(MANY), dtype=str)
    path = folder / f"good{ending}"
    if ending == ".parquet":
        table.to_parquet(path)
    elif ending == ".xlsx":
        table.to_excel(path, index=False)
    elif ending == ".duckdb":
        with duckdb.connect(str(path)) as con:
            con.register("lines", table).execute("CREATE TABLE sales AS SELECT * FROM lines")
    elif ending == ".db":
        con = sqlite3.connect(path)
        table.to_sql("sales", con, index=False)
        con.close()
    else:
        path.write_bytes(
            {
                ".csv": MANY.encode(),
                ".csv.gz": gzip.compress(MANY.encode()),
                ".zip": zipped(a=MANY),
            }[ending]
        )
    return path.read_bytes()


ENDINGS = (".csv", ".csv.gz", ".zip", ".xlsx", ".parquet", ".db", ".duckdb")


def lines_of(con, path: Path) -> int:
    """How many lines a source has, all of them read."""
    settings = check_data(structure(DataConfig, {"transactions": str(path)}, "data"))
    source = open_source(con, "transactions", settings)
    with reading(settings):
        return len(source.table.execute())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_file_of_any_kind_is_one_sentence(ending, con, tmp_path):
    """Cut anywhere, or written over in the middle; what is still read as text has no more lines
    than before.
    """
    good = shop_file(ending, tmp_path)
    (tmp_path / f"whole{ending}").write_bytes(good)
    assert lines_of(con, tmp_path / f"whole{ending}") == 200
    damaged = [good[:n] for n in (1, 8, 30, len(good) // 2, len(good) - 30)]
    damaged += [
        good[:at] + bytes(range(128, 256)) + good[at + 128 :]
        for at in (20, len(good) // 3, len(good) // 2)
    ]
    refused = 0
    for number, content in enumerate(damaged):
        path = tmp_path / f"damaged{number}{ending}"
        path.write_bytes(content)
        try:
            assert lines_of(con, path) <= 200, number
        except RetailError as error:
            refused += 1
            assert error.exit_code in (2, 3) and "\n" not in str(error) and len(str(error)) < 600, (
                str(error)
            )
            assert path.name in str(error), str(error)
    assert refused >= 3


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "make, words",
    [
        (os.mkfifo, "is neither a file nor a folder"),
        (lambda p: p.symlink_to(p), "does not exist"),
        (lambda p: p.symlink_to("/dev/null"), "is neither a file nor a folder"),
        (lambda p: p.mkdir(), "holds no data files"),
    ],
    ids=["pipe", "loop", "device", "folder"],
)
def test_what_is_no_file_is_said_at_once(make, words, ending, con, tmp_path):
    path = tmp_path / f"sales{ending}"
    make(path)
    with pytest.raises(DataError, match=words):
        lines_of(con, path)


def test_a_place_that_cannot_be_written_is_one_short_sentence(capsys, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for out in (tmp_path / "loop", "a\0b", "\ud800", "ü" * 300):
        assert answer(as_guarded, out=str(out)) == 4, out
        said = capsys.readouterr().err
        assert (
            said.startswith("retail-ci: Cannot ") and "Unexpected" not in said and len(said) < 400
        ), said


@pytest.mark.parametrize(
    "command, options, words",
    [
        (evaluate, {"cuts": 65_536}, "--cuts must be between 1 and 60, found 65536"),
        (evaluate, {"cuts": 0}, "--cuts must be between 1 and 60, found 0"),
        (evaluate, {"k": 10**20}, "-k must be between 1 and 1000, found 100000000000000000000"),
        (predict, {"k": 1001}, "-k must be between 1 and 1000, found 1001"),
        (
            recommend,
            {"k": 65_536, "all_": True, "out": "lists.csv"},
            "-k must be between 1 and 1000, found 65536",
        ),
        (
            recommend,
            {"k": -1, "all_": True, "out": "lists.csv"},
            "-k must be between 1 and 1000, found -1",
        ),
    ],
)
def test_an_option_has_the_limits_of_its_config_key(command, options, words, capsys):
    assert answer(command, **options) == 2
    assert words in capsys.readouterr().err


def as_guarded(out: str) -> None:
    """What each command does with --out first; then it writes there."""
    check_writable(out)
    Path(out).write_text("x")


def test_a_name_of_bytes_that_are_no_text_can_be_told(tmp_path):
    """A file system takes any bytes; what is printed must not stop the command."""
    (tmp_path / os.fsdecode(b"s\xff.csv")).write_text(LOG)
    done = subprocess.run(
        [Path(sys.executable).with_name("retail-ci"), "check", b"s\xff.csv"],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        timeout=PATIENCE,
    )
    assert done.returncode == 0 and b"columns:" in done.stdout and b"s\\udcff.csv" in done.stdout, (
        done.stderr
    )


def test_generated_data_are_not_checked(capsys):
    assert answer(check, config="small") == 2
    assert "The data of the config 'small' are generated by a run" in capsys.readouterr().err


def test_a_binary_key_file(tmp_path):
    (tmp_path / "keys").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ConfigError, match="The API keys in .* cannot be read: 'utf-8' codec"):
        read_keys(f"@{tmp_path / 'keys'}")


def test_what_nobody_foresaw_is_one_sentence_that_says_where_to_look(capsys):
    def bug() -> None:
        raise KeyError("a\nb")

    assert answer(bug) == 1
    assert capsys.readouterr().err == (
        "retail-ci: Unexpected KeyError: 'a\\nb'. Set RETAIL_CI_DEBUG=1 and run the command again "
        "to see where.\n"
    )


def test_bytes_that_are_no_text_are_one_sentence(capsys, tmp_path):
    word = os.fsdecode(b"caf\xe9")  # as a shell hands it over

    def note() -> None:
        (tmp_path / "log").write_text(word, encoding="utf-8")

    assert answer(note) == 2
    assert capsys.readouterr().err == (
        "retail-ci: A value or a file name contains bytes that are not UTF-8 text and cannot be "
        "written; write it in UTF-8 and try again.\n"
    )


# The config


@pytest.mark.parametrize(
    "text, words",
    {
        "name: a\nname: b\n": "the key 'name' for the second time in line 2, column 1",
        "rfm:\n  bins: 3\n  bins: 4\n": "the key 'bins' for the second time in line 3, column 3",
        "recommender: {weights: {content: -1}}": "weights.content' must be a number between 0",
        "recommender: {weights: {content: .nan}}": "weights.content' must be a number between 0",
    }.items(),
)
def test_a_config_says_each_thing_once_and_in_its_bounds(tmp_path, text, words):
    (tmp_path / "shop.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(tmp_path / "shop.yaml")


def test_a_config_is_asked_for_by_name_and_with_a_list_of_settings():
    for config in (None, 3):
        with pytest.raises(ConfigError, match=r"A config must be a name .*, found (None|3)\."):
            load_config(config)
    for given_settings in (3, "rfm.bins=4", {"rfm.bins": 4}, [4], [None]):
        with pytest.raises(ConfigError, match=r"a list such as \['rfm.bins=4'\], found "):
            load_config("small", given_settings)
    assert load_config("small", ("rfm.bins=4",)).rfm.bins == 4
