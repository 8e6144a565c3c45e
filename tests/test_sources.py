"""Sources: whatever the lines come from, the same lines give the same tables."""

import sqlite3
import sys

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml

from retail_ci.cli import check
from retail_ci.core.config import Config, DataConfig, load_config
from retail_ci.core.errors import ConfigError, DataError
from retail_ci.core.runs import Run
from retail_ci.customers.features import reference_date, rfm_features
from retail_ci.data.cleaning import open_sources, prepare, prepare_run
from retail_ci.data.engines import close, connect, engine, write_table
from retail_ci.data.sources import open_source, place
from retail_ci.pipeline.manifest import input_hashes

TYPES = {
    "transaction_id": "text",
    "customer_id": "text",
    "product_id": "text",
    "date": "timestamp",
    "quantity": "double precision",
    "price": "double precision",
}


def sales(lines: int = 600) -> pd.DataFrame:
    """Lines with returns, copies, an unknown customer, and some that must be rejected."""
    rng = np.random.default_rng(7)
    basket = rng.integers(0, lines // 3, lines)
    table = pd.DataFrame(
        {
            "transaction_id": [f"B{b}" for b in basket],
            "customer_id": [f"{b % 40:05d}" for b in basket],
            "product_id": [f"{p:04d}" for p in rng.integers(1, 30, lines)],
            "date": pd.Timestamp("2025-01-01") + pd.to_timedelta(basket * 3, unit="h"),
            "quantity": rng.integers(1, 5, lines).astype(float),
            "price": rng.integers(1, 40, lines) / 4,
        }
    )
    (
        table.loc[::50, "customer_id"],
        table.loc[7::90, "quantity"],
        table.loc[11::100, "quantity"],
        table.loc[13::120, "price"],
        table.loc[17::130, "product_id"],
    ) = None, -1, 0, -2, None
    return pd.concat([table, table.iloc[20:26]], ignore_index=True)


@pytest.fixture(scope="module")
def con():
    con = connect()
    yield con
    close(con)


@pytest.fixture(scope="module")
def wanted(con, tmp_path_factory):
    """What the lines give when they come from a CSV file."""
    path = tmp_path_factory.mktemp("csv") / "sales.csv"
    sales().to_csv(path, index=False)
    return tables(con, DataConfig(transactions=str(path)))


def tables(con, settings: DataConfig) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """Facts, transactions and features."""
    source = open_source(con, "transactions", settings)
    result = prepare(source.backend, source.table, settings, parts=source.parts)
    features = rfm_features(result.transactions, reference_date(result.transactions), 365)
    return result.facts, result.transactions.execute(), features.execute()


def same(got, wanted, ordered: bool = True) -> None:
    """Equal facts, lines and features."""
    facts = [
        f | {"by_reason": {k: n for k, n in f["by_reason"].items() if n}}
        for f in (got[0], wanted[0])
    ]
    assert facts[0] == facts[1]
    lines = [t[1].astype({"weekday": int, "hour": int}) for t in (got, wanted)]
    if not ordered:
        lines = [t.sort_values(list(t.columns), ignore_index=True) for t in lines]
    pd.testing.assert_frame_equal(*lines, check_dtype=False)
    pd.testing.assert_frame_equal(
        got[2].sort_values("customer_id", ignore_index=True),
        wanted[2].sort_values("customer_id", ignore_index=True),
        check_dtype=False,
        rtol=1e-9,
        atol=1e-9,
    )


def test_postgres_answers_the_expressions_itself(postgres, wanted, con, tmp_path):
    postgres.fill("sales", sales(), TYPES)
    settings = DataConfig(transactions=postgres.url("sales"))
    source = open_source(con, "transactions", settings)
    assert engine(source.backend) == "postgres"
    same(tables(con, settings), wanted, ordered=False)
    result = prepare(source.backend, source.table, settings)
    for name in ("transactions", "rejected", "flagged", "customers", "products"):
        write_table(getattr(result, name), tmp_path / f"{name}.parquet")
    written = pd.read_parquet(tmp_path / "transactions.parquet")
    assert (
        len(written) == wanted[0]["kept"]
        and len(pd.read_parquet(tmp_path / "rejected.parquet")) == wanted[0]["rejected"]
        and set(written.columns) == set(wanted[1].columns)
    )
    assert {
        c: str(t)
        for c, t in written.dtypes.items()
        if c in ("quantity", "price", "revenue", "is_return")
    } == {"quantity": "float64", "price": "float64", "revenue": "float64", "is_return": "bool"}


def test_a_postgres_query_and_text_columns(postgres, wanted, con):
    postgres.fill(
        "texts",
        sales().assign(
            quantity=lambda t: t.quantity.astype(int).astype(str),
            price=lambda t: t.price.map("{:.2f}".format),
            date=lambda t: t.date.dt.strftime("%Y-%m-%d %H:%M:%S"),
        ),
        dict.fromkeys(TYPES, "text"),
    )
    postgres.sql(
        "INSERT INTO texts VALUES ('B0', '00001', '0001', '2025-02-30', '1', '4'), ('B0', "
        "'00001', '0001', '2025-02-03', '1', 'free')"
    )
    got = tables(
        con,
        DataConfig(
            transactions=postgres.url(),
            query={"transactions": "SELECT * FROM texts WHERE price <> 'none'"},
        ),
    )
    assert (
        got[0]["by_reason"]["bad_date"] == 1
        and got[0]["by_reason"]["bad_price"] == 1
        and got[0]["kept"] == wanted[0]["kept"]
        and got[0]["revenue"] == wanted[0]["revenue"]
    )


def test_lines_travel_where_the_sources_lie_apart(postgres, con, tmp_path, wanted):
    postgres.fill("apart", sales(), TYPES)
    (tmp_path / "products.csv").write_text("product_id,category\n0001,a\n")
    config = Config(
        name="apart",
        data=DataConfig(
            transactions=postgres.url("apart"), products=str(tmp_path / "products.csv")
        ),
    )
    found = open_sources(con, Run(config, tmp_path / "run"))
    assert all(s.backend is con for s in found.values())
    result = prepare_run(con, Run(config, tmp_path / "run"))
    assert (
        result.facts["revenue"] == wanted[0]["revenue"]
        and result.facts["by_flag"]["unlisted_product"] > 0
    )
    write_table(result.transactions, tmp_path / "t.parquet")
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == wanted[0]["kept"]


def test_postgres_says_what_is_wrong_in_one_sentence(postgres, con, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "very secret")
    for url, words in (
        (postgres.url("sale5"), "Unknown table 'sale5'"),
        (
            postgres.url()
            .replace("/postgres", "/nowhere")
            .replace("tester@", "tester:${SHOP_PASSWORD}@"),
            "cannot be opened",
        ),
        ("postgresql://x@127.0.0.1:1/none", "cannot be opened"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            open_source(con, "transactions", DataConfig(transactions=url))
        assert "\n" not in str(caught.value) and "very secret" not in str(caught.value)
    with pytest.raises(DataError, match="does not answer"):
        open_source(
            con,
            "transactions",
            DataConfig(transactions=postgres.url(), query={"transactions": "SELEKT 1"}),
        )


def test_a_table_that_has_changed_is_another_input(postgres):
    """The order of rows says nothing; a value, a row, a column and a type say everything."""
    rows = sales(60)
    postgres.fill("marked", rows, TYPES)
    postgres.fill("shuffled", rows.sample(frac=1, random_state=1), TYPES)

    def mark(table):
        return input_hashes(
            Config(name="marked", data=DataConfig(transactions=postgres.url(table)))
        )["transactions/database"]

    first = mark("marked")
    assert len(first) == 64 and mark("marked") == first == mark("shuffled")
    seen = {first}
    for change in (
        "UPDATE marked SET price = price + 0.01 WHERE ctid = '(0,7)'",
        "DELETE FROM marked WHERE ctid = '(0,3)'",
        "INSERT INTO marked SELECT * FROM shuffled LIMIT 1",
        "ALTER TABLE marked RENAME COLUMN price TO cost",
        "ALTER TABLE marked ALTER COLUMN cost TYPE numeric",
    ):
        postgres.sql(change)
        assert mark("marked") not in seen, change
        seen.add(mark("marked"))

    def by_query(words):
        return input_hashes(
            Config(
                name="marked",
                data=DataConfig(transactions=postgres.url(), query={"transactions": words}),
            )
        )["transactions/database"]

    assert (
        by_query("SELECT * FROM shuffled")
        == first
        != by_query("SELECT * FROM shuffled WHERE quantity > 0")
    )
    with pytest.raises(DataError, match="Unknown table 'marke'"):
        mark("marke")


def test_check_looks_into_a_database(postgres, capsys):
    postgres.fill(
        "till",
        sales(80).rename(
            columns={
                "transaction_id": "InvoiceNo",
                "customer_id": "CustomerID",
                "product_id": "StockCode",
                "date": "InvoiceDate",
                "quantity": "Quantity",
                "price": "UnitPrice",
            }
        ),
        {
            "InvoiceNo": "text",
            "CustomerID": "text",
            "StockCode": "text",
            "InvoiceDate": "timestamp",
            "Quantity": "double precision",
            "UnitPrice": "numeric",
        },
    )
    check(postgres.url("till"))
    proposed = yaml.safe_load(capsys.readouterr().out)["data"]
    assert proposed["transactions"] == postgres.url("till") and proposed["columns"] == {
        "transaction_id": "invoiceno",
        "customer_id": "customerid",
        "product_id": "stockcode",
        "date": "invoicedate",
        "quantity": "quantity",
        "price": "unitprice",
    }
    result = prepare(
        *(lambda s: (s.backend, s.table))(
            open_source(None, "transactions", DataConfig(**proposed))
        ),
        DataConfig(**proposed),
    )
    assert result.facts["kept"] > 0
    for url, words in (
        (postgres.url("till5"), "Unknown table 'till5'"),
        ("postgresql://x@127.0.0.1:1/none", "cannot be opened"),
        ("mysql://host/shop", "expected postgresql://"),
        ("postgresql://me:secret@host/shop", "holds a password"),
    ):
        with pytest.raises((DataError, ConfigError), match=words) as caught:
            check(url)
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_password_in_a_config_is_refused(tmp_path):
    (tmp_path / "shop.yaml").write_text(
        "data: {transactions: 'postgresql://me:secret@host/shop#sales'}\n"
    )
    with pytest.raises(ConfigError, match="holds a password") as caught:
        load_config(tmp_path / "shop.yaml")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "query, refused",
    [
        ("SELECT * FROM dblink('host=h user=u password=hunter2', 'SELECT 1')", True),
        ("SELECT * FROM dblink($$host=h password=hunter2$$, 'SELECT 1')", True),
        ("SELECT * FROM read_csv('https://ann:hunter2@host/a.csv')", True),
        ("SELECT * FROM postgres_scan('postgresql://u:hunter2@h/db', 'public', 't')", True),
        ("SELECT password, token AS customer FROM sales WHERE pass = 'hunter2'", False),
        ("SELECT * FROM sales WHERE note <> 'it''s paid' AND \"key\" = 'hunter2'", False),
        ("SELECT * FROM dblink('shop', 'SELECT 1')", False),
    ],
)
def test_a_password_in_a_query_is_refused_and_a_column_of_that_name_is_not(
    tmp_path, query, refused
):
    data = {"transactions": "postgresql://host/shop", "query": {"transactions": query}}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump({"data": data}))
    if not refused:
        assert load_config(tmp_path / "shop.yaml").data.query["transactions"] == query
        return
    with pytest.raises(ConfigError, match="'data.query.transactions' holds a password") as caught:
        load_config(tmp_path / "shop.yaml")
    assert "hunter2" not in str(caught.value)


def test_two_duckdb_files_of_one_name_are_two_sources(con, tmp_path):
    for year in ("2024", "2025"):
        (tmp_path / year).mkdir()
        with duckdb.connect(str(tmp_path / year / "shop.duckdb")) as file:
            file.execute(f"CREATE TABLE sales AS SELECT '{year}' AS year")
    for year in ("2024", "2025"):
        source = DataConfig(transactions=str(tmp_path / year / "shop.duckdb"))
        assert open_source(con, "transactions", source).table.execute()["year"].tolist() == [year]


def test_a_duckdb_file(con, tmp_path, wanted):
    frame = sales()
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as file:
        file.execute("CREATE TABLE sales AS SELECT * FROM frame")
    same(tables(con, DataConfig(transactions=str(tmp_path / "shop.duckdb") + "#sales")), wanted)
    same(
        tables(
            con,
            DataConfig(
                transactions=str(tmp_path / "shop.duckdb"),
                query={"transactions": "SELECT * FROM sales"},
            ),
        ),
        wanted,
    )
    with pytest.raises(
        DataError, match="Unknown table 'sale' in shop.duckdb; did you mean 'sales'"
    ):
        open_source(
            con, "transactions", DataConfig(transactions=str(tmp_path / "shop.duckdb") + "#sale")
        )


def test_sqlite_parquet_excel_and_packed_files(con, tmp_path, wanted):
    frame = sales()
    with sqlite3.connect(tmp_path / "shop.sqlite") as file:
        frame.to_sql("sales", file, index=False)
    file.close()
    frame.to_parquet(tmp_path / "sales.parquet")
    frame.to_excel(tmp_path / "sales.xlsx", index=False)
    frame.to_csv(tmp_path / "sales.csv.gz", index=False)
    frame.to_csv(tmp_path / "sales.zip", index=False)
    frame.to_csv(
        tmp_path / "german.csv",
        index=False,
        sep=";",
        decimal=",",
        encoding="utf-16",
        date_format="%d.%m.%Y %H:%M:%S",
    )
    for name in ("shop.sqlite#sales", "sales.parquet", "sales.xlsx", "sales.csv.gz", "sales.zip"):
        same(tables(con, DataConfig(transactions=str(tmp_path / name))), wanted)
    same(
        tables(
            con,
            DataConfig(
                transactions=str(tmp_path / "german.csv"),
                decimal=",",
                date_format="%d.%m.%Y %H:%M:%S",
            ),
        ),
        wanted,
    )


def test_monthly_files_and_partitions(con, tmp_path, wanted):
    frame = sales()
    for i, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        (tmp_path / f"parts/month={i}").mkdir(parents=True)
        frame.iloc[part].to_csv(tmp_path / f"sales_{i}.csv", index=False)
        frame.iloc[part].to_parquet(tmp_path / f"parts/month={i}/x.parquet")
    got = tables(con, DataConfig(transactions=str(tmp_path / "sales_*.csv")))
    same(got, wanted)
    assert (
        tables(con, DataConfig(transactions=str(tmp_path / "parts")))[0]["kept"]
        >= wanted[0]["kept"]
    )  # a copy in another partition is another line
    source = open_source(
        con, "transactions", DataConfig(transactions=str(tmp_path / "sales_*.csv"))
    )
    assert place(source.parts, 203) == ("sales_1.csv", 1)


def test_without_the_reader_for_spreadsheets(con, tmp_path, monkeypatch):
    pd.DataFrame({"a": [1]}).to_excel(tmp_path / "x.xlsx")
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ConfigError, match=r"pip install 'retail_ci\[excel\]'"):
        open_source(con, "transactions", DataConfig(transactions=str(tmp_path / "x.xlsx")))
