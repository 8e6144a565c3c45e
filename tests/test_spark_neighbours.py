"""The neighbours found on Spark are the ones found here, and pandas tables come out of Spark, and
go in, as they do with DuckDB.
"""

import datetime
import os
import sys

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from test_recommend import make_shop

from retail_ci.core.config import Config, DataConfig
from retail_ci.core.errors import RunError
from retail_ci.core.runs import Run
from retail_ci.data import engines
from retail_ci.recommend.baselines import PopularityRecommender
from retail_ci.recommend.collaborative import neighbours, neighbours_on_spark
from retail_ci.recommend.hybrid import make_model
from retail_ci.serve.batch_lists import recommend_run

pyspark = pytest.importorskip("pyspark")
LOG, SHELF = make_shop(customers=40, lines=900)


def taste_matrix(customers: int, products: int, seed: int) -> sp.csr_matrix:
    """Counts with tastes, many ties (customers with one purchase) and some empty rows."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, customers, customers * 6)
    group = rng.integers(0, 10, customers)
    what = (group[who] * products // 10 + rng.geometric(0.15, len(who))) % products
    return sp.csr_matrix((np.ones(len(who), np.float32), (who, what)), shape=(customers, products))


class DyingRecommender(PopularityRecommender):
    """Ends the process that asks it, as an executor without memory ends."""

    def _scores(self, rows):
        os._exit(137)


@pytest.fixture(scope="module")
def spark():
    """A session whose Python workers are this very Python, wherever it stands."""
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    if there := SparkSession.getActiveSession():
        there.stop()  # or it would be this one, with what it was started with
    session = (
        SparkSession.builder.master("local[2]")
        .appName("neighbours")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        # as Spark has them, whatever another file has asked of the same Java process before
        .config("spark.sql.adaptive.enabled", "true")
        .config("spark.sql.codegen.wholeStage", "true")
        .config("spark.sql.codegen.factoryMode", "FALLBACK")
        .getOrCreate()
    )
    yield session
    session.stop()


def test_spark_finds_the_same_neighbours(spark):
    counts = taste_matrix(600, 80, 1)
    here = neighbours(counts, 20)
    there = neighbours_on_spark(spark, counts, 20, partitions=3)
    assert (here.indptr == there.indptr).all() and (here.indices == there.indices).all()
    assert here.data.tobytes() == there.data.tobytes()


@pytest.mark.parametrize("name", ["popularity", "ease", "ranker"])
def test_spark_makes_the_same_lists(spark, name, monkeypatch):
    """Ten parts in three waves, with a stranger, a fresh basket and a rule for one customer."""
    monkeypatch.setattr("retail_ci.recommend.base._WAVE", 4)
    model = make_model(name).fit(LOG, SHELF)
    asked = {
        "customers": ["nobody", *LOG["customer_id"].dropna().unique()[:28], "new"],
        "block_for": pd.DataFrame({"customer_id": ["C001"], "product_id": ["P020"]}),
        "recent": pd.DataFrame({"customer_id": ["new"], "product_id": ["P033"]}),
        "exclude_purchased": True,
    }
    whole = model.recommend(**asked, k=60)
    seen = []
    parts = model.recommend_parts(
        **asked, k=60, size=3, spark=spark, progress=lambda done, total: seen.append((done, total))
    )
    found = list(parts)
    assert len(found) == 10 and seen == [(done, 30) for done in range(3, 31, 3)]
    assert found[-1].attrs["notes"] == whole.attrs["notes"] != []
    pd.testing.assert_frame_equal(pd.concat(found, ignore_index=True), whole)


def test_an_executor_that_dies_is_one_sentence(spark, tmp_path):
    model = DyingRecommender().fit(LOG, SHELF)
    with pytest.raises(RunError, match="^Spark could not make the lists: .*run it again") as caught:
        list(model.recommend_parts(k=3, size=10, spark=spark))
    assert "\n" not in str(caught.value)
    live = PopularityRecommender().fit(LOG, SHELF)
    assert len(list(live.recommend_parts(k=3, size=30, spark=spark))) == 2  # the session lives on


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 7, 50, 900])
def test_the_accelerator_changes_nothing(seed, n, monkeypatch):
    pytest.importorskip("sparse_dot_topn")
    monkeypatch.setattr("retail_ci.recommend.collaborative.SPARE", 4)
    counts = taste_matrix(700, 60, seed)
    plain = neighbours(counts, n, fast=False)
    fast = neighbours(counts, n, fast=True)
    assert (
        plain.indices.tobytes() == fast.indices.tobytes()
        and plain.data.tobytes() == fast.data.tobytes()
    )


def test_threads_and_blocks_change_nothing(monkeypatch):
    counts = taste_matrix(500, 60, 9)
    whole = neighbours(counts, 10, workers=1)
    monkeypatch.setattr("retail_ci.recommend.collaborative.BLOCK", 5_000)
    seen = []
    parts = neighbours(counts, 10, workers=2, progress=lambda done, size: seen.append((done, size)))
    assert (whole != parts).nnz == 0 and seen[-1] == (500, 500)


def test_neighbours_equal_a_dense_sort():
    counts = taste_matrix(120, 40, 3)
    dense = counts.toarray().astype(float)
    length = np.linalg.norm(dense, axis=1, keepdims=True)
    unit = dense / np.where(length > 0, length, 1)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, 0)
    found = neighbours(counts, 8).toarray()
    kept = np.sort(np.where(cosine > 1e-9, cosine, 0), axis=1)[:, ::-1][:, :8]
    assert np.allclose(np.sort(found, axis=1)[:, ::-1][:, :8], kept, atol=1e-6)


# What PySpark's warning about pandas 3 means here (nbs/00f_engines.ipynb has the table)

ROWS = """SELECT * FROM (VALUES
    (1, CAST('tea' AS {text}), CAST(7 AS BIGINT), CAST(1.5 AS DOUBLE),
     true, DATE '2025-01-31', {time} '2025-01-31 23:59:59.123456'),
    (2, CAST(NULL AS {text}), CAST(NULL AS BIGINT), CAST(NULL AS DOUBLE),
     CAST(NULL AS BOOLEAN), CAST(NULL AS DATE), CAST(NULL AS {time})),
    (3, CAST('' AS {text}), CAST(-9 AS BIGINT), CAST(0 AS DOUBLE),
     false, DATE '0001-01-01', {time} '9999-12-31 00:00:00')
    ) AS t(row, text, whole, number, yes, day, time)"""
TIME = datetime.datetime(2025, 1, 31, 23, 59, 59, 123456)


@pytest.fixture(scope="module")
def backends(spark):
    """Spark and DuckDB, each with the same three rows."""
    there = engines.connect(session=spark)
    here = engines.connect()
    there._session.sql(ROWS.format(text="STRING", time="TIMESTAMP_NTZ")).createOrReplaceTempView(
        "three"
    )
    here.raw_sql("CREATE TABLE three AS " + ROWS.format(text="VARCHAR", time="TIMESTAMP"))
    yield there, here
    engines.close(there)
    engines.close(here)


def test_spark_answers_with_the_pandas_table_that_duckdb_gives(backends):
    from_spark, from_duckdb = (
        engines.to_pandas(con.table("three").order_by("row")) for con in backends
    )
    pd.testing.assert_frame_equal(from_spark, from_duckdb, check_exact=True)
    kinds = {name: str(kind) for name, kind in from_spark.dtypes.items()}
    assert kinds == {
        "row": "int32",
        "text": "str",
        "whole": "float64",
        "number": "float64",
        "yes": "object",
        "day": "datetime64[s]",
        "time": "datetime64[us]",
    }
    values = [
        from_spark[name].astype(object).where(from_spark[name].notna(), None).tolist()
        for name in ("text", "whole", "number", "yes")
    ]
    assert values == [["tea", None, ""], [7.0, None, -9.0], [1.5, None, 0.0], [True, None, False]]
    times = [
        [None if pd.isna(v) else v.isoformat() for v in from_spark[name]]
        for name in ("day", "time")
    ]
    assert times == [
        ["2025-01-31T00:00:00", None, "0001-01-01T00:00:00"],
        ["2025-01-31T23:59:59.123456", None, "9999-12-31T00:00:00"],
    ]


@pytest.mark.filterwarnings(
    "ignore:toPandas attempted Arrow optimization:UserWarning"
)  # its words before it fails
def test_sparks_own_way_to_pandas_still_ends_in_2262(backends):
    """Once this fails, the detour in `answer` is no longer needed."""
    with pytest.raises(pa.ArrowInvalid, match="would result in out of bounds timestamp"):
        backends[0].table("three").execute()


SERIES = {
    "str": pd.Series(["tea", None, ""], dtype="str"),
    "object": pd.Series(["tea", None, ""], dtype=object),
    "string": pd.Series(["tea", None, ""], dtype="string"),
    "arrow": pd.Series(["tea", None, ""], dtype=pd.ArrowDtype(pa.string())),
    "category": pd.Series(["tea", None, ""], dtype="category"),
    "Int64": pd.Series([7, None, -9], dtype="Int64"),
    "float64": pd.Series([1.5, None, 0.0]),
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "us": pd.Series([TIME, None, datetime.datetime(1970, 1, 1)], dtype="datetime64[us]"),
    "ns": pd.Series([TIME, None, datetime.datetime(1970, 1, 1)], dtype="datetime64[ns]"),
    "s": pd.Series(
        [datetime.datetime(2025, 1, 31), None, datetime.datetime(1970, 1, 1)], dtype="datetime64[s]"
    ),
}
TEXT = ("str", ["tea", None, ""])
WANTED = dict.fromkeys(("str", "object", "string", "arrow", "category"), TEXT) | {
    "Int64": ("float64", [7.0, None, -9.0]),
    "float64": ("float64", [1.5, None, 0.0]),
    "boolean": ("object", [True, None, False]),
    "us": ("datetime64[us]", [pd.Timestamp(TIME), None, pd.Timestamp("1970-01-01")]),
    "ns": ("datetime64[us]", [pd.Timestamp(TIME), None, pd.Timestamp("1970-01-01")]),
    "s": ("datetime64[us]", [pd.Timestamp("2025-01-31"), None, pd.Timestamp("1970-01-01")]),
}


@pytest.mark.filterwarnings(
    "ignore:Series.values returning an ndarray:DeprecationWarning"
)  # of times only, which we do not pass
def test_pandas_tables_go_into_spark_and_come_back(backends):
    frame = pd.DataFrame(SERIES)
    tables = [con.execute(ibis.memtable(frame)) for con in backends]
    tables.append(backends[0]._session.createDataFrame(frame).toPandas())
    for table in tables:
        back = {
            name: (
                str(table[name].dtype),
                table[name].astype(object).where(table[name].notna(), None).tolist(),
            )
            for name in frame
        }
        assert back == WANTED


def test_map_in_pandas_hands_on_what_it_gets(backends):
    rows = backends[0]._session.sql("SELECT row, text, whole, number, yes FROM three ORDER BY row")

    def column_kinds(parts):  # in here, so that it travels to the workers as a whole
        for part in parts:
            yield pd.DataFrame({"kinds": [" ".join(map(str, part.dtypes))]})

    inside = rows.mapInPandas(column_kinds, "kinds string").toPandas()
    assert inside["kinds"].tolist() == ["int32 str Int64 float64 object"]
    pd.testing.assert_frame_equal(
        rows.mapInPandas(lambda parts: parts, rows.schema).toPandas(), rows.toPandas()
    )


def test_a_run_whose_engine_is_spark_makes_its_lists_there(tmp_path, monkeypatch):
    """The last test of this file: the session ends with the lists."""
    asked = []
    parts = PopularityRecommender.recommend_parts
    monkeypatch.setattr(
        PopularityRecommender,
        "recommend_parts",
        lambda *given, **named: asked.append(named["spark"]) or parts(*given, **named),
    )
    light = {"sql.shuffle.partitions": "2"}
    there = DataConfig(engine="spark", threads=2, memory="1GB", spill=str(tmp_path), spark=light)
    written = []
    for name, data in (("here", DataConfig()), ("there", there)):
        run = Run(Config(data=data), tmp_path / name)
        run.write("recommender", PopularityRecommender().fit(LOG, SHELF).to_arrays())
        notes = recommend_run(run, tmp_path / f"{name}.parquet", k=7)
        assert notes[-1].startswith("40 customers, 280 lines: ")
        written.append((tmp_path / f"{name}.parquet").read_bytes())
    assert written[0] == written[1]
    assert asked[0] is None and type(asked[1]).__name__ == "SparkSession"
