"The neighbours found on Spark are the ones found here."
import os, sys
import numpy as np
import pytest
import scipy.sparse as sp
from retail_ci.collaborative import neighbours, neighbours_on_spark

pyspark = pytest.importorskip("pyspark")


def taste_matrix(customers: int, products: int, seed: int) -> sp.csr_matrix:
    "Counts with tastes, many ties (customers with one purchase) and some empty rows."
    rng = np.random.default_rng(seed)
    who, group = rng.integers(0, customers, customers * 6), rng.integers(0, 10, customers)
    what = (group[who] * products // 10 + rng.geometric(.15, len(who))) % products
    return sp.csr_matrix((np.ones(len(who), np.float32), (who, what)), shape=(customers, products))


@pytest.fixture(scope="module")
def spark():
    "A session whose Python workers are this very Python, wherever it stands."
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession
    session = (SparkSession.builder.master("local[2]").appName("neighbours").config("spark.ui.enabled", "false")
               .config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
               .config("spark.sql.shuffle.partitions", "2").getOrCreate())
    yield session
    session.stop()


def test_spark_finds_the_same_neighbours(spark):
    counts = taste_matrix(600, 80, 1)
    here, there = neighbours(counts, 20), neighbours_on_spark(spark, counts, 20, partitions=3)
    assert (here.indptr == there.indptr).all() and (here.indices == there.indices).all()
    assert here.data.tobytes() == there.data.tobytes()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 7, 50, 900])
def test_the_accelerator_changes_nothing(seed, n, monkeypatch):
    pytest.importorskip("sparse_dot_topn")
    monkeypatch.setattr("retail_ci.collaborative.SPARE", 4)
    counts = taste_matrix(700, 60, seed)
    plain, fast = neighbours(counts, n, fast=False), neighbours(counts, n, fast=True)
    assert plain.indices.tobytes() == fast.indices.tobytes() and plain.data.tobytes() == fast.data.tobytes()


def test_threads_and_blocks_change_nothing(monkeypatch):
    counts = taste_matrix(500, 60, 9)
    whole = neighbours(counts, 10, workers=1)
    monkeypatch.setattr("retail_ci.collaborative.BLOCK", 5_000)
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
