"""Two years of a shop with three stores, as its analyst holds them: names of their own, discounts,
returns, and a few lines that cannot be true. `own_log()` makes the same tables each time.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from retail_ci.core.config import Config, SyntheticConfig
from retail_ci.data.synthetic import generate

SHOP = SyntheticConfig(lines=14_000, customers=500, products=80, days=730, start="2024-01-01")
THEIRS = {
    "transaction_id": "receipt",
    "customer_id": "card",
    "product_id": "article",
    "date": "sold_at",
    "quantity": "pieces",
}


def _generated() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Sales that keep every rule, articles and members, as the generator makes them."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Config(seed=11, synthetic=SHOP), Path(folder))
        sales, articles, members = (
            pd.read_csv(Path(folder) / f"{name}.csv", dtype=str)
            for name in ("transactions", "products", "customers")
        )
    sales = sales.apply(lambda column: column.str.strip())
    sales["date"] = pd.to_datetime(sales["date"], errors="coerce", format="%Y-%m-%d %H:%M:%S")
    for name in ("quantity", "price"):
        sales[name] = pd.to_numeric(sales[name], errors="coerce")
    fine = (
        sales["date"].dt.year.between(2024, 2025) & sales["quantity"].ne(0) & sales["price"].gt(0)
    )
    fine &= sales["quantity"].notna() & sales["product_id"].isin(articles["product_id"])
    return sales[fine].drop_duplicates(ignore_index=True), articles, members


def own_log() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The sales (a row per line), the articles and the members of the shop."""
    sales, articles, members = _generated()
    rng = np.random.default_rng(3)
    sales["store"] = rng.choice(["North", "Harbour", "Online"], len(sales), p=[0.5, 0.3, 0.2])
    sales["discount"] = rng.choice([0.0, 0.1, 0.25], len(sales), p=[0.8, 0.15, 0.05])
    sales["paid"] = (sales["quantity"] * sales["price"] * (1 - sales["discount"])).round(2)
    sales = sales.drop(columns=["price", "revenue"]).rename(columns=THEIRS)
    impossible = sales.head(12).assign(pieces=0.0)
    log = pd.concat([sales, sales.tail(25), impossible], ignore_index=True)
    named = {"product_id": "article", "product_name": "label", "category": "aisle"}
    articles = articles.rename(columns=named)[["article", "label", "aisle"]]
    return log, articles, members.rename(columns={"customer_id": "card"})[["card", "consent"]]
