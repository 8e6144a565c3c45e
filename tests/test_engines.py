"""Engines by config, what they say when they cannot start, and source files that are read only
once.
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import LIGHT, Project, checkout

from retail_ci.core.config import DataConfig, load_config
from retail_ci.core.errors import ConfigError, RunError
from retail_ci.core.runs import load
from retail_ci.data import engines
from retail_ci.data.sources import open_source

HEADER = "basket,customer,product,date,quantity,price\n"


def test_memory_threads_and_spill_come_from_the_config(tmp_path):
    con = engines.connect(DataConfig(memory="1.5GB", threads=1, spill=str(tmp_path / "spill")))
    asked = dict(
        con.raw_sql(
            "SELECT name, value FROM duckdb_settings() WHERE name IN ('memory_limit', 'threads', "
            "'temp_directory')"
        ).fetchall()
    )
    assert (
        asked["threads"] == "1"
        and asked["memory_limit"].startswith("1.5")
        and asked["temp_directory"].startswith(str(tmp_path / "spill"))
    )
    engines.close(con)


def test_a_sort_larger_than_memory_spills_and_cleans_up(tmp_path):
    con = engines.connect(DataConfig(memory="96MB", threads=1, spill=str(tmp_path)))
    con.raw_sql("CREATE TABLE t AS SELECT md5(i::VARCHAR) AS k, i FROM range(3000000) r(i)")
    assert con.raw_sql(
        "SELECT count(*) FROM (SELECT k, row_number() OVER (ORDER BY k) AS n FROM t) WHERE n > 0"
    ).fetchone() == (3_000_000,)
    assert list(tmp_path.rglob("*")), "nothing was spilled"
    engines.close(con)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "setting, words",
    [
        ("data.memory=8MB", "at least 64MB, such as 8GB"),
        ("data.engine=sparc", "one of 'duckdb', 'spark'"),
        ("data.threads=0", "between 1 and"),
        ("data.spark=local", "a mapping of names to text"),
        ("data.spill=/dev/null/x", "of data.spill cannot be used"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_sentence(setting, words):
    with pytest.raises((ConfigError, RunError), match=words) as caught:
        engines.connect(load_config("small", [setting]).data)
    assert "\n" not in str(caught.value)


def test_spark_without_java_or_pyspark(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(
        ConfigError, match="no java was found; install it .* or set data.engine to duckdb"
    ) as caught:
        engines.connect(DataConfig(engine="spark"))
    assert "\n" not in str(caught.value)
    old = tmp_path / "bin/java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    with pytest.raises(ConfigError, match="Java 17 or newer, found openjdk version"):
        engines.connect(DataConfig(engine="spark"))
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match="pip install 'retail_ci.spark.'"):
        engines.connect(DataConfig(engine="spark"))


# A run on either engine


def test_a_run_on_spark_hands_on_what_a_run_on_duckdb_does(tmp_path):
    """The generated shop, from the raw log to the features, through the runner: what every later
    page reads.
    """
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("pyspark is not installed")
    if not shutil.which("java"):
        pytest.skip("there is no Java")
    project = checkout(tmp_path / "project", "00e", "01_", "02_")
    for engine in ("duckdb", "spark"):
        result = project.here(
            "run",
            "--config",
            "small",
            "--set",
            "synthetic.lines=1500",
            "--set",
            f"name={engine}",
            "--set",
            f"data.engine={engine}",
            "--set",
            f"data.spark={json.dumps(LIGHT)}",
        )
        assert (result.returncode, result.stderr) == (0, "")
    here, there = (project.home(engine) / "current" for engine in ("duckdb", "spark"))
    tables = sorted(p.relative_to(here) for p in here.glob("data/*.parquet"))
    assert [t.stem for t in tables] == [
        "customers",
        "features",
        "flagged",
        "products",
        "rejected",
        "transactions",
    ]
    for table in tables:
        a = pd.read_parquet(here / table)
        b = pd.read_parquet(there / table)
        assert (len(a) or table.stem == "flagged") and (a.dtypes == b.dtypes).all(), table
        pd.testing.assert_frame_equal(
            a,
            b,
            check_exact=table.stem != "features",
            **({"rtol": 1e-9, "atol": 1e-9} if table.stem == "features" else {}),
            obj=table.stem,
        )
    for facts in ("metrics/data.json", "models/rfm_cut_points.json"):
        assert load(here / facts) == load(there / facts), facts


# Staging


def month(folder: Path, n: int, lines: int = 40) -> Path:
    """A month of sales."""
    rows = [
        f"B{n}-{i},{i % 7:05d},P{i % 5},2025-{n:02d}-{1 + i % 28:02d} "
        f"10:00:00,{1 + i % 3},{1.5 + i % 4}"
        for i in range(lines)
    ]
    (folder / f"sales_{n:02d}.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return folder / f"sales_{n:02d}.csv"


def shop(folder: Path) -> DataConfig:
    return DataConfig(
        transactions=str(folder / "*.csv"),
        columns={"transaction_id": "basket", "customer_id": "customer", "product_id": "product"},
    )


def opened(settings: DataConfig, staging: Path) -> tuple[list[str], list[tuple]]:
    """The source files that were read, and all lines."""
    before = {p.name for p in staging.glob("*.parquet")} if staging.exists() else set()
    con = engines.connect(DataConfig(threads=1))
    table = open_source(con, "transactions", settings, staging).table
    lines = list(
        table.order_by("row").execute().drop(columns="damaged").itertuples(index=False, name=None)
    )
    engines.close(con)
    index = json.loads((staging / "index.json").read_text())
    return sorted(index[p.name] for p in staging.glob("*.parquet") if p.name not in before), lines


def test_only_new_and_changed_files_are_read(tmp_path):
    sales = tmp_path / "sales"
    sales.mkdir()
    for n in (1, 2, 3):
        month(sales, n)
    assert opened(shop(sales), tmp_path / "staging")[0] == [
        "sales_01.csv",
        "sales_02.csv",
        "sales_03.csv",
    ]
    assert opened(shop(sales), tmp_path / "staging")[0] == []
    month(sales, 2, 41)
    month(sales, 4)
    read, lines = opened(shop(sales), tmp_path / "staging")
    assert read == ["sales_02.csv", "sales_04.csv"]
    assert lines == opened(shop(sales), tmp_path / "fresh")[1] and len(lines) == 161
    os.utime(sales / "sales_01.csv", (0, 0))
    assert opened(shop(sales), tmp_path / "staging")[0] == [], "the content counts, not the date"


def test_another_way_of_reading_is_another_file(tmp_path):
    month(tmp_path, 1)
    opened(shop(tmp_path), tmp_path / "staging")
    settings = shop(tmp_path)
    settings.encoding = "latin-1"
    assert opened(settings, tmp_path / "staging")[0] == ["sales_01.csv"]


def test_a_crash_while_reading_leaves_nothing_half(tmp_path, monkeypatch):
    import retail_ci.data.sources as sources

    month(tmp_path, 1)
    month(tmp_path, 2)
    real = sources.batches

    def fails(file, *rest):
        for batch in real(file, *rest):
            yield batch
            if file.name == "sales_02.csv":
                raise KeyboardInterrupt

    monkeypatch.setattr(sources, "batches", fails)
    with pytest.raises(KeyboardInterrupt):
        opened(shop(tmp_path), tmp_path / "staging")
    (whole,) = (tmp_path / "staging").iterdir()
    assert len(pd.read_parquet(whole)) == 40
    monkeypatch.undo()
    read, lines = opened(shop(tmp_path), tmp_path / "staging")
    assert read == ["sales_02.csv"] and len(lines) == 80


@pytest.fixture(scope="module")
def branch(tmp_path_factory) -> Project:
    """A checkout with the first notebooks only, and a config of monthly files."""
    project = checkout(tmp_path_factory.mktemp("branch") / "project", "00c", "01")
    (project.root / "sales").mkdir()
    project.config(
        "runs: {keep: 1}\ndata:\n  transactions: sales/*.csv\n  columns: {transaction_id: basket, "
        "customer_id: customer, product_id: product}\n",
        "shop",
    )
    return project


def ran(project: Project, *words: str) -> tuple[dict, dict]:
    """What a run read, and the fingerprints of what it made."""
    result = project.here("run", "--config", "shop", *words)
    assert result.returncode == 0, result.stderr
    papers = json.loads((project.home("shop") / "current/manifest.json").read_text())
    return papers["staging"], {a["path"]: a["sha256"] for a in papers["artifacts"]}


def test_a_new_month_gives_the_bytes_of_a_full_rebuild(branch):
    for n in (1, 2, 3):
        month(branch.root / "sales", n)
    assert ran(branch)[0] == {"read": 3, "ready": 0}
    month(branch.root / "sales", 2, 41)
    month(branch.root / "sales", 4)
    staging, made = ran(branch)
    assert (
        staging == {"read": 2, "ready": 2}
        and len(list((branch.home("shop") / "staging").glob("*.parquet"))) == 4
    )
    staging, fresh = ran(branch, "--fresh")
    assert staging == {"read": 4, "ready": 0} and fresh == made
