"""From raw lines to one row per customer: what the package takes, beside SQL by hand and pandas.

    python benchmarks/features.py [--lines N ...] [--methods ours,sql,pandas,spark]
        [--folder DIR] [--memory 1500MB]

Each method reads the same parquet file of raw lines and the same products table, on two threads, in
a process of its own, and writes customer features, which must agree to 1e-9. All three do the same
work:

1.  parse: ids trimmed, blank ids missing, amounts finite;
2.  look at the whole: do ids end in `.0` because they went through floats, and does a long silence
    precede the last dates;
3.  set aside, by the contract: no basket, product or date; a date before 1970; a quantity that is
    missing or zero; a price or revenue that is missing or negative against its sign; amounts of a
    trillion and more;
4.  collapse lines that equal an earlier one in every column;
5.  recency, frequency, monetary value and eight habits per known customer, over 365 days, returns
    netted.

`ours` is the package's own expressions on DuckDB: the contract is judged in full, with a reason for
each line, and copies are found by fingerprint. `sql` is what a person who knows DuckDB well writes
by hand, with the same tricks: a WHERE for the rules, fingerprints for the copies, equal things
brought together before they are counted. `pandas` is the same on frames. `spark` is what `ours` is,
on Spark on this machine, its start included; it needs Java, and is measured when it is named. 10^8
lines are not part of the default and are not given to pandas, which would need tens of gigabytes:
`--lines 100000000 --methods ours,sql --memory 9500MB` (with less it spills more, and takes longer
than in proportion).

The lines come from the project's generator: a million of them, repeated as often as is needed under
other customers and baskets. DuckDB is given 1500 MB, and spills what is more: without a limit it
takes memory that it can do without. CPU seconds are of all threads; the peak is the process's
largest resident memory, with its libraries. The result goes to benchmarks/results/features.json,
from which the page of the site is drawn; the load of the machine before each measurement stands
beside it.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WINDOW = 365
THREADS = 2
SPARK_MEMORY = "6GB"  # of its Java process; with less, ten million lines take far longer


def make(lines: int, folder: Path) -> Path:
    """A parquet file of about this many raw lines, with its products beside it."""
    import duckdb

    from retail_ci.core.config import load_config
    from retail_ci.data.synthetic import generate

    blocks = max(round(lines / 1_000_000), 1)
    size = round(lines / blocks)
    base = folder / f"base_{size}"
    if not (base / "transactions.parquet").exists():
        generate(
            load_config(
                "default",
                [
                    f"synthetic.lines={size}",
                    f"synthetic.customers={max(size // 40, 100)}",
                    "synthetic.products=2000",
                    "synthetic.format=parquet",
                ],
            ),
            base,
        )
    out = base / f"lines_{lines}.parquet"
    if not out.exists():
        con = duckdb.connect(config={"threads": THREADS, "memory_limit": "3GB"})
        con.execute("SET enable_progress_bar = false")
        block = (
            f"SELECT * REPLACE ('{{b}}-' || transaction_id AS transaction_id, '{{b}}-' || "
            f"customer_id AS customer_id) FROM '{base}/transactions.parquet'"
        )
        con.execute(
            f"COPY ({' UNION ALL '.join(block.format(b=b) for b in range(blocks))}) TO '{out}' "
            "(COMPRESSION zstd)"
        )
    return out


def ours(file: Path, products: Path, memory: str | None):
    """The package's expressions, on DuckDB."""
    return expressions(file, products, engine="duckdb", memory=memory)


def spark(file: Path, products: Path, memory: str | None):
    """The same expressions on Spark, in one process for the same cores."""
    return expressions(file, products, engine="spark", memory=SPARK_MEMORY)


def expressions(file: Path, products: Path, **engine: str | None):
    """The package's expressions, on an engine."""
    from retail_ci.core.config import DataConfig
    from retail_ci.customers import features as rfm
    from retail_ci.data import cleaning as data
    from retail_ci.data import engines

    # the SQL and pandas set lines without a product aside
    settings = DataConfig(
        threads=THREADS, spill=str(file.parent), without_product="reject", **engine
    )
    con = engines.connect(settings)
    raw = engines.read_parquet(con, [file])
    listed = data.read_products(engines.read_parquet(con, [products]), settings)
    return (
        rfm.rfm_features(*data.customer_lines(raw, settings), WINDOW, listed)
        .execute()
        .set_index("customer_id")
    )


TRIMMED = (
    "nullif(CASE WHEN {0} < '!' OR {0}[-1] < '!' THEN trim({0}, E' \t\n\r\v\f') ELSE {0} END, '')"
)
SQL = """
CREATE TEMP VIEW raw AS SELECT * EXCLUDE (file_row_number), file_row_number AS row
    FROM read_parquet('{file}', file_row_number = true);
CREATE TEMP VIEW products AS FROM read_parquet('{products}');
CREATE TEMP VIEW typed AS SELECT row, {basket} AS basket, {customer} AS customer,
    {product} AS product, date, CAST(quantity AS DOUBLE) AS quantity,
    CASE WHEN isfinite(price) THEN price END AS price, price AS said_price,
    CASE WHEN isfinite(revenue) THEN revenue END AS said, revenue AS said_revenue FROM raw;
CREATE TEMP VIEW amounts AS SELECT *, coalesce(price, abs(said) / nullif(abs(quantity), 0)) AS paid,
    coalesce(abs(said) * CASE WHEN quantity < 0 THEN -1 ELSE 1 END, quantity * price) AS revenue
    FROM typed;
CREATE TEMP VIEW fine AS SELECT row, basket, customer, product, CAST(date AS DATE) AS day, quantity,
    revenue FROM amounts
    WHERE NOT (basket IS NULL OR product IS NULL OR date IS NULL OR quantity IS NULL OR paid IS NULL
    OR revenue IS NULL
    OR coalesce(date < TIMESTAMP '1970-01-02' OR quantity = 0
    OR (said_price IS NOT NULL AND price IS NULL) OR (said_revenue IS NOT NULL AND said IS NULL)
    OR paid < 0 OR (said < 0 AND quantity > 0)
        OR abs(quantity) >= 1e12 OR paid >= 1e12 OR abs(revenue) >= 1e12, false))
"""
WHOLE = """SELECT day, count(*) AS lines,
    count(*) FILTER (suffix(customer, '.0')) + count(*) FILTER (suffix(basket, '.0'))
    + count(*) FILTER (suffix(product, '.0')) AS floats
    FROM fine GROUP BY day ORDER BY day"""
COPIES = """
CREATE TEMP TABLE copies AS WITH twice AS (SELECT hash({columns}) AS mark FROM raw
    GROUP BY mark HAVING count(*) > 1)
SELECT row FROM (SELECT row, row_number() OVER (PARTITION BY {columns} ORDER BY row) AS nth FROM raw
    WHERE hash({columns}) IN (FROM twice)) WHERE nth > 1
"""
FEATURES = """
WITH kept AS (SELECT customer, basket, product, day - DATE '1970-01-01' AS number,
    CAST(round(revenue * 10000) AS BIGINT) AS amount, quantity > 0 AS sale,
    isodow(day) >= 6 AS weekend,
    day - DATE '1970-01-01' >= {today} - {window} AS recent FROM fine ANTI JOIN copies USING (row)
    WHERE customer IS NOT NULL),
sums AS (SELECT customer, min(number) FILTER (sale) AS first, max(number) FILTER (sale) AS last,
    count(*) FILTER (recent) AS n, count(*) FILTER (sale AND recent) AS sales,
    sum(amount) FILTER (recent) AS net, sum(amount) FILTER (sale AND recent) AS spent FROM kept
    GROUP BY customer),
days AS (SELECT customer, count(*) AS days FROM (SELECT DISTINCT customer, number FROM kept
    WHERE sale) GROUP BY customer),
visits AS (SELECT customer, count(*) AS frequency, count(*) FILTER (weekend) AS weekends
    FROM (SELECT customer, basket, bool_or(weekend) AS weekend FROM kept WHERE sale AND recent
    GROUP BY ALL) GROUP BY customer),
kinds AS (SELECT customer, coalesce(category, 'Uncategorised') AS category, count(*) AS products
    FROM (SELECT DISTINCT customer, product FROM kept WHERE sale AND recent)
    LEFT JOIN products ON product = product_id GROUP BY ALL),
variety AS (SELECT customer, sum(products) AS product_variety, count(*) AS category_variety
    FROM kinds GROUP BY customer)
SELECT customer AS customer_id, {today} - last AS recency, coalesce(frequency, 0) AS frequency,
    coalesce(net / 10000.0, 0) AS monetary,
    {today} - first AS tenure, (last - first) / nullif(days - 1, 0) AS interpurchase_days,
    spent / 10000.0 / nullif(frequency, 0) AS basket_value,
    sales / nullif(frequency, 0) AS basket_size, coalesce(category_variety, 0) AS category_variety,
    coalesce(product_variety, 0) AS product_variety,
    weekends / nullif(frequency, 0) AS weekend_ratio, (n - sales) / nullif(n, 0) AS return_ratio
FROM sums LEFT JOIN days USING (customer) LEFT JOIN visits USING (customer)
    LEFT JOIN variety USING (customer) WHERE last IS NOT NULL ORDER BY customer
"""


def sql(file: Path, products: Path, memory: str | None):
    """DuckDB by hand."""
    import duckdb

    con = duckdb.connect(
        config={
            "threads": THREADS,
            "temp_directory": str(file.parent / "sql-spill"),
            "preserve_insertion_order": False,
        }
        | ({"memory_limit": memory} if memory else {})
    )
    con.execute("SET enable_progress_bar = false")
    ids = {name: TRIMMED.format(f"{name}_id") for name in ("customer", "product")}
    con.execute(
        SQL.format(file=file, products=products, basket=TRIMMED.format("transaction_id"), **ids)
    )
    days = con.execute(WHOLE).df()
    assert (days.day.diff().dt.days.dropna() <= 92).all() and not days.floats.any()
    con.execute(
        COPIES.format(
            columns=", ".join(c for c, *_ in con.execute("DESCRIBE raw").fetchall() if c != "row")
        )
    )
    today = int(days.day.max().timestamp() // 86400) + 1
    return con.execute(FEATURES.format(today=today, window=WINDOW)).df().set_index("customer_id")


def pandas(file: Path, products: Path, memory: str | None):
    """The same on frames."""
    import numpy as np
    import pandas as pd

    t = pd.read_parquet(file)
    copied = t.duplicated()
    for name in ("transaction_id", "customer_id", "product_id"):
        t[name] = t[name].str.strip().replace("", pd.NA)
        assert not t[name].str.endswith(".0").any()

    def finite(s):
        return s.where(np.isfinite(s))

    quantity = t.quantity.astype(float)
    price = finite(t.price)
    said = finite(t.revenue)
    paid = price.fillna(said.abs() / quantity.abs().replace(0, np.nan))
    revenue = (said.abs() * np.where(quantity < 0, -1, 1)).fillna(quantity * price)
    fine = (
        t.transaction_id.notna()
        & t.product_id.notna()
        & (t.date >= pd.Timestamp("1970-01-02"))
        & (quantity != 0)
        & paid.notna()
        & revenue.notna()
        & (t.price.isna() | price.notna())
        & (t.revenue.isna() | said.notna())
        & (paid >= 0)
        & ~((said < 0) & (quantity > 0))
        & (quantity.abs() < 1e12)
        & (paid < 1e12)
        & (revenue.abs() < 1e12)
    )
    day = t.date.dt.floor("D")
    assert (day[fine].drop_duplicates().sort_values().diff().dt.days.dropna() <= 92).all()
    today = day[fine].max() + pd.Timedelta(days=1)
    fine &= ~copied & t.customer_id.notna()
    t = pd.DataFrame(
        {
            "customer_id": t.customer_id,
            "basket": t.transaction_id,
            "product": t.product_id,
            "day": day,
            "amount": np.round(revenue * 10_000),
            "sale": quantity > 0,
        }
    )[fine]
    t["category"] = (
        t["product"]
        .map(pd.read_parquet(products).set_index("product_id").category)
        .fillna("Uncategorised")
    )
    window = t[t.day >= today - pd.Timedelta(days=WINDOW)]
    sales = t[t.sale].groupby("customer_id")
    now = window[window.sale]
    weekend = now[now.day.dt.day_of_week >= 5].groupby("customer_id")
    each = now.groupby("customer_id")
    recent = window.groupby("customer_id")
    out = pd.DataFrame(
        {"first": sales.day.min(), "last": sales.day.max(), "days": sales.day.nunique()}
    )

    def fill(s):
        return s.reindex(out.index).fillna(0)

    def never(s):
        return s.where(s != 0)

    frequency = fill(each.basket.nunique())
    lines = fill(recent.size())
    kept = fill(each.size())
    return pd.DataFrame(
        {
            "recency": (today - out["last"]).dt.days,
            "frequency": frequency,
            "monetary": fill(recent.amount.sum()) / 10_000,
            "tenure": (today - out["first"]).dt.days,
            "interpurchase_days": (out["last"] - out["first"]).dt.days / never(out.days - 1),
            "basket_value": fill(each.amount.sum()) / 10_000 / never(frequency),
            "basket_size": kept / never(frequency),
            "category_variety": fill(each.category.nunique()),
            "product_variety": fill(each["product"].nunique()),
            "weekend_ratio": fill(weekend.basket.nunique()) / never(frequency),
            "return_ratio": (lines - kept) / never(lines),
        }
    ).sort_index()


METHODS = {"ours": ours, "sql": sql, "pandas": pandas, "spark": spark}


def one(method: str, file: Path, memory: str | None, out: Path) -> None:
    """The work of one process: features to a file, what it took to standard output."""
    began = time.perf_counter()
    METHODS[method](file, file.parent / "products.parquet", memory).to_parquet(out)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    helpers = [spent(process) for process in started_by(os.getpid())]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": used.ru_utime + used.ru_stime + sum(cpu for cpu, _ in helpers),
                "gib": used.ru_maxrss / 2**20 + sum(gib for _, gib in helpers),
            }
        )
    )


def started_by(process: int) -> list[int]:
    """The numbers of the processes that a process has started, such as Java, and of theirs."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    children = [int(child) for text in lists for child in text.read_text().split()]
    return children + [other for child in children for other in started_by(child)]


def spent(process: int) -> tuple[float, float]:
    """Processor seconds and peak GiB of a process; one that has ended holds no memory any more."""
    place = Path(f"/proc/{process}")
    ticks = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
    lines = (place / "status").read_text().splitlines()
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), sum(peaks) / 2**20


def measure(method: str, file: Path, memory: str | None) -> tuple[dict, Path]:
    """Start a process of its own and wait."""
    out = file.with_name(f"features_{method}.parquet")
    command = [
        sys.executable,
        __file__,
        "--one",
        method,
        "--file",
        str(file),
        "--out",
        str(out),
    ] + (["--memory", memory] if memory else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{method}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]), out


def compare(files: dict[str, Path]) -> int:
    """Customers; stops unless all methods agree on every feature to 1e-9."""
    import numpy as np
    import pandas as pd

    frames = {m: pd.read_parquet(f) for m, f in files.items()}
    first, reference = next(iter(frames.items()))
    for method, frame in frames.items():
        assert list(frame.index) == list(reference.index), (
            f"{method} and {first} have other customers"
        )
        for name in (
            "recency",
            "frequency",
            "monetary",
            "tenure",
            "interpurchase_days",
            "basket_value",
            "basket_size",
            "category_variety",
            "product_variety",
            "weekend_ratio",
            "return_ratio",
        ):
            a = frame[name].to_numpy(dtype=float)
            b = reference[name].to_numpy(dtype=float)
            assert np.allclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True), (
                f"{method} and {first} differ in {name}: {np.nanmax(np.abs(a - b))}"
            )
    return len(reference)


def machine() -> dict:
    """What was measured on; no name and no path."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "cpu": model,
        "system": platform.system(),
    }


def keep(path: Path, rows: list[dict], versions: dict) -> None:
    """Write what was measured beside what is there already; a size and method that was measured
    again takes its old place.
    """
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    fresh = {(r["size"], r["method"]) for r in rows}
    both = sorted(
        [r for r in old if (r["size"], r["method"]) not in fresh] + rows,
        key=lambda r: (r["size"], list(METHODS).index(r["method"])),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {"machine": machine(), "versions": versions, "threads": THREADS, "rows": both}, indent=1
        )
        + "\n"
    )


def report(
    sizes: list[int], methods: list[str], folder: Path, memory: str | None, out: Path | None
) -> None:
    """Measure, print, and keep the result."""
    import duckdb
    import ibis
    import pandas as pd

    versions = {
        "python": sys.version.split()[0],
        "duckdb": duckdb.__version__,
        "ibis": ibis.__version__,
        "pandas": pd.__version__,
    }
    print(
        f"{', '.join(f'{k} {v}' for k, v in versions.items())}; {THREADS} threads, DuckDB with "
        f"{memory}\n"
    )
    print(
        "| lines | method | wall s | CPU s | peak GiB | CPU against SQL by hand "
        "|\n|---:|---|---:|---:|---:|---:|"
    )
    for lines in sizes:
        file = make(lines, folder)
        rows = duckdb.connect().execute(f"SELECT count(*) FROM '{file}'").fetchone()[0]
        took = {}
        load = {}
        for method in methods:
            if method == "pandas" and lines > 10_000_000:
                continue
            load[method] = os.getloadavg()[0]
            took[method] = t, _ = measure(method, file, memory)
            ratio = f"{t['cpu'] / took['sql'][0]['cpu']:.2f}" if "sql" in took else ""
            print(
                f"| {rows:,} | {method} | {t['seconds']:.1f} | {t['cpu']:.1f} | {t['gib']:.2f} | "
                f"{ratio} |",
                flush=True,
            )
        customers = compare({m: f for m, (_, f) in took.items()})
        print(f"| | | | | | {customers:,} customers, all equal |", flush=True)
        made = [
            {
                "size": lines,
                "lines": rows,
                "method": m,
                "customers": customers,
                "limit": memory if m != "pandas" else None,
                "date": time.strftime("%Y-%m-%d"),
                "load_before": round(load[m], 1),
            }
            | {k: round(v, 2) for k, v in t.items()}
            for m, (t, _) in took.items()
        ]
        if out:
            keep(out, made, versions)
        file.unlink()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--lines", type=int, nargs="+", default=[80_000, 1_470_000, 10_000_000])
    options.add_argument("--methods", default="ours,sql,pandas")
    options.add_argument("--folder", help="where the files go; a temporary folder if left out")
    options.add_argument(
        "--memory",
        default="1500MB",
        help=(
            "DuckDB's limit, for both who use it; it spills what is more (give 9500MB for 10^8 "
            "lines)"
        ),
    )
    options.add_argument(
        "--results",
        default=str(Path(__file__).parent / "results/features.json"),
        help="where the result is kept; an empty word keeps nothing",
    )
    for hidden in ("--one", "--file", "--out"):
        options.add_argument(hidden, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        one(given.one, Path(given.file), given.memory, Path(given.out))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            report(
                given.lines,
                given.methods.split(","),
                Path(given.folder or temporary),
                given.memory,
                Path(given.results) if given.results else None,
            )
