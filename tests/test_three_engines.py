"""DuckDB, Spark and PostgreSQL clean delicate logs alike: the tables, the books, the flags and the
words of the report are the same. CASES=all tries every delicate export (`make soak`).
"""

import dataclasses
import functools
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import yaml
from test_cases import CASES, proposed

from retail_ci.core.config import Config, DataConfig, load_config
from retail_ci.core.errors import RetailError
from retail_ci.core.runs import Run
from retail_ci.data.cleaning import apply_contract, open_sources
from retail_ci.data.engines import close, connect
from retail_ci.data.profiling import report
from retail_ci.data.sources import open_source

ROLES = ("transactions", "products", "customers")
# a database has an order of its own
OF_PLACES = ("row", "source_file", "source_row", "source_line")
OF_FILES = ("delimiter", "encoding", "header", "skip_rows", "quote")


@pytest.fixture(scope="module")
def duckdb():
    con = connect()
    yield con
    close(con)


# What an engine finds


def frame(table) -> pd.DataFrame:
    """A table in an order of its own, without what depends on where it lies."""
    found = table.execute() if hasattr(table, "execute") else table
    if found is None:
        return pd.DataFrame()
    found = found.drop(columns=[c for c in OF_PLACES if c in found.columns])
    text = found.astype("object").where(found.notna(), "").astype("str")
    return found.loc[text.sort_values(list(text.columns)).index].reset_index(drop=True)


def cleaned(con, config: Config, folder: Path) -> dict | str:
    """The tables, the books, the flags and the report; or the sentence that refuses the log."""
    try:
        found = open_sources(con, Run(config, folder / "run"))
        main = found["transactions"]
        beside = [found[r].table if r in found else None for r in ROLES[1:]]
        result = apply_contract(main.backend, main.table, config.data, *beside, main.parts)
        told = report(result, config.data.max_rejected)
    except RetailError as error:
        return str(error)
    told = "\n".join(line for line in told.splitlines() if not re.match(r" +row [\d,]+ of ", line))
    by_reason = {reason: n for reason, n in result.facts["by_reason"].items() if n}
    return {
        "kept": frame(result.transactions),
        "rejected": frame(result.rejected),
        "customers": frame(result.customers),
        "products": frame(result.products),
        "facts": result.facts | {"by_reason": by_reason},
        "flags": result.plausible["raised"],
        "report": told,
    }


def in_postgres(server, config: Config) -> Config:
    """The same config, with its files as tables of texts in a database."""
    data = config.data
    places = {role: getattr(data, role) for role in ROLES if getattr(data, role)}
    plain = {name: getattr(DataConfig(), name) for name in OF_FILES}
    for role, place in places.items():
        files = dataclasses.replace(data) if role == "transactions" else DataConfig()
        files = dataclasses.replace(files, transactions=place, products=None, customers=None)
        raw = open_source(connect(), "transactions", files).table
        texts = raw.drop(*(c for c in ("row", "damaged") if c in raw.columns)).execute()
        laid_down(server, f"parity_{role}", texts)
        places[role] = server.url(f"parity_{role}")
    return dataclasses.replace(config, data=dataclasses.replace(data, **places, **plain))


def laid_down(server, name: str, table: pd.DataFrame) -> None:
    """Make a table of texts, under the very names of its columns."""
    import psycopg

    kinds = {
        c: "timestamp" if str(k).startswith("datetime") else "text" for c, k in table.dtypes.items()
    }
    columns = ", ".join('"{}" {}'.format(c.replace('"', '""'), kind) for c, kind in kinds.items())
    with psycopg.connect(server.url()) as con:
        con.execute(f"DROP TABLE IF EXISTS {name}")
        con.execute(f"CREATE TABLE {name} ({columns})")
        with con.cursor().copy(f"COPY {name} FROM STDIN") as copy:
            for row in table.itertuples(index=False, name=None):
                copy.write_row([None if pd.isna(v) else v for v in row])


def compared(here: dict | str, there: dict | str) -> None:
    """Whether two engines have found the same."""
    if isinstance(here, str) or isinstance(there, str):
        assert here == there
        return
    for name in ("kept", "rejected", "customers", "products"):
        pd.testing.assert_frame_equal(here[name], there[name], obj=name)
    assert here["facts"] == there["facts"]
    assert here["flags"] == there["flags"]
    assert here["report"] == there["report"]


# Logs with what the cases lack


def orders() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Orders of two stores in two currencies, with a status on each line, a discount in percent, a
    tax, days in two formats and one that is none; ids of every kind; tables with other id names.
    """
    rows = []
    for day in range(1, 91):
        for store in ("N", "S"):
            when = pd.Timestamp("2025-01-01") + pd.Timedelta(days=day, hours=9 + day % 8)
            number, who = f"{day % 30:04d}", f"K{(day * 7) % 20:03d}"
            for n in range(1 + day % 3):
                product = f"A-{(day + 3 * n) % 12:02d}"
                rows.append([number, store, who, product, when, 1 + n, 2.5 + n])
    names = ["Beleg", "Filiale", "Kunde", "Artikel", "Datum", "Menge", "Preis"]
    log = pd.DataFrame(rows, columns=names)
    german = log["Datum"].dt.strftime("%d.%m.%Y %H:%M")
    log["Datum"] = german.where(log.index % 5 > 0, log["Datum"].dt.strftime("%Y-%m-%d %H:%M"))
    log["Preis"] = (log["Preis"] * 1000).map(lambda v: f"{v:,.2f}".translate(_TO_COMMA))
    log["Menge"] = log["Menge"].astype("str")
    log["Rabatt"] = (log.index % 4 * 5).astype("str")
    log["Steuer"] = (log.index % 3 * 2.0).map(lambda v: f"{v:.2f}".replace(".", ","))
    log["Status"] = "fertig"
    log["Waehrung"] = log["Filiale"].map({"N": "EUR", "S": "CHF"})
    for at, name, value in _ODD:
        log.loc[at, name] = value
    copies = log.iloc[100:110]
    twice = log.iloc[40:60].assign(Export="2")
    goods = [[f"A-{n:02d}", f"Seife {n}", f"{n % 3}", "1.500,00"] for n in range(11)]
    products = pd.DataFrame(goods, columns=["ID", "Name", "Gruppe", "Preis"])
    people = [[f"k{n:03d}" if n % 2 else f"K{n:03d}", ("Köln", "Graz")[n % 2]] for n in range(16)]
    customers = pd.DataFrame([*people, ["K000", "Wien"], ["", "x"]], columns=["Nr", "Ort"])
    return (
        pd.concat([log.assign(Export="1"), copies.assign(Export="1"), twice]),
        products,
        customers,
    )


_TO_COMMA = str.maketrans(",.", ".,")
_ODD = [  # a line, a column, and what stands there
    (3, "Status", "storniert"),
    (4, "Status", "Retoure"),
    (5, "Status", "offen"),
    (6, "Status", "geplatzt"),
    (7, "Preis", "1.234,50 €"),
    (8, "Preis", "(100,00)"),
    (9, "Preis", "5,5.5"),
    (10, "Preis", ""),
    (11, "Artikel", ""),
    (12, "Artikel", "GIFT"),
    (13, "Artikel", "a-01"),
    (14, "Kunde", ""),
    (15, "Kunde", "K001.0"),
    (16, "Kunde", "5,41E+11"),
    (17, "Kunde", "\u200bK002 "),
    (18, "Datum", "31.02.2025"),
    (19, "Datum", "05/02/2025"),
    (20, "Datum", "01.02.2031 10:00"),
    (21, "Datum", "02.02.2025 03:10"),
    (22, "Menge", "0"),
    (23, "Menge", "-2"),
    (24, "Menge", "4012345678901"),
    (25, "Beleg", ""),
    (26, "Rabatt", "250"),
    (27, "Steuer", "x"),
    (28, "Waehrung", ""),
    (29, "Kunde", "unbekannt"),
    (30, "Artikel", "Summe"),
]


def delicate(folder: Path) -> Path:
    """The orders as files of an old program, and the config that reads them."""
    tables = orders()
    places = dict(zip(ROLES, (folder / "orders.csv", folder / "goods.csv", folder / "people.csv")))
    for table, place in zip(tables, places.values()):
        table.to_csv(place, index=False, sep=";", encoding="utf-8")
    columns = dict(zip(_OURS, [*tables[0].columns[:9], "Status", "Waehrung"]))
    columns |= {"product_name": "Name", "category": "Gruppe"}
    data = {role: str(place) for role, place in places.items()} | {"columns": columns} | _READ
    config = folder / "shop.yaml"
    config.write_text(yaml.safe_dump({"data": data}, allow_unicode=True), "utf-8")
    return config


_OURS = [
    *("transaction_id", "store_id", "customer_id", "product_id", "date", "quantity", "price"),
    *("discount", "tax", "status", "currency"),
]
_READ = {
    "keys": {"products": "ID", "customers": "Nr"},
    "basket": ["transaction_id", "date", "store_id"],
    "date_format": ["%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M"],
    "decimal": ",",
    "thousands": ".",
    "currency_signs": ["€"],
    "missing": ["unbekannt"],
    "rates": {"discount": "percent"},
    "amounts": {"tax": "net"},
    "revenue": {"discount": "net", "tax": "gross"},
    "status": {"cancelled": ["storniert"], "returned": ["Retoure"], "pending": ["offen"]},
    "currency_rates": {"EUR": 1, "CHF": 1.05},
    "exclude": {"product_name": ["Seife 5"]},
}
LOGS = {"orders": delicate}


# The tests

HAVE_BOOKS = [name for name, case in CASES.items() if case.books]
FEW = ["no_receipt_copies", "status", "daily_receipts", "price_in_products", "mixed_dates"]
ALL = os.environ.get("CASES") == "all"


@pytest.fixture(scope="module")
def on_duckdb(duckdb, tmp_path_factory):
    """The config of a log, and what DuckDB finds in it."""

    @functools.cache
    def found(name: str) -> tuple[Config, dict | str]:
        folder = tmp_path_factory.mktemp(name)
        with mock.patch.object(tempfile, "tempdir", str(folder)):
            place = LOGS[name](folder) if name in LOGS else proposed(name).config
        config = load_config(str(place))
        return config, cleaned(duckdb, config, folder)

    return found


def test_the_delicate_orders_are_kept_as_pandas_counts_them(on_duckdb):
    here = on_duckdb("orders")[1]
    log = orders()[0].reset_index(drop=True)
    plain = log.drop(index=[at for at, _, _ in _ODD]).drop_duplicates()
    plain = plain[plain["Artikel"] != "A-05"]  # excluded, by its name
    price, off, tax = (
        plain[c].str.replace(".", "").str.replace(",", ".").astype(float)
        for c in ("Preis", "Rabatt", "Steuer")
    )
    paid = plain["Menge"].astype(float) * price * (1 - off / 100) + tax
    paid = (paid * plain["Waehrung"].map({"EUR": 1, "CHF": 1.05})).round(2)
    kept = here["kept"]
    found = Counter(zip(kept["product_id"], kept["store_id"], kept["revenue"].round(2)))
    assert not Counter(zip(plain["Artikel"], plain["Filiale"], paid)) - found
    assert 0 < found.total() - len(plain) < len(_ODD)
    once = {"cancelled", "returned", "pending", "missing_basket", "bad_date", "zero_quantity"}
    once |= {"future", "no_currency", "bad_price", "bad_discount", "bad_tax", "too_large"}
    assert {r for r, n in here["facts"]["by_reason"].items() if n == 1} == once


@pytest.mark.parametrize("name", ["orders", *(HAVE_BOOKS if ALL else FEW)])
def test_postgres_finds_what_duckdb_does(name, duckdb, postgres, on_duckdb, tmp_path):
    config, here = on_duckdb(name)
    assert isinstance(here, dict), here
    compared(here, cleaned(duckdb, in_postgres(postgres, config), tmp_path))


@pytest.mark.parametrize("name", ["orders", *(HAVE_BOOKS if ALL else [])])
def test_spark_finds_what_duckdb_does(name, spark, on_duckdb, tmp_path):
    config, here = on_duckdb(name)
    assert isinstance(here, dict), here
    data = dataclasses.replace(config.data, engine="spark")
    compared(here, cleaned(spark, dataclasses.replace(config, data=data), tmp_path))
