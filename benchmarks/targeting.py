"""Fifty generated shops whose letters have known effects: whom does one measured wave say to write
to, and what would that have earned?

    python benchmarks/targeting.py [--shops 50] [--customers 6000] [--control 0.5] [--seed 0]

Each shop (fifteen lines per customer, a hundred products) sends two waves of letters. The first is
measured; `target_customers` sees the log up to the eve of the second and says whom to write to.
The truth then says what a letter of the second wave is expected to bring each customer, less the
letter and the voucher. Nothing was chosen or tuned on these seeds; that was done on seeds from 5000
on.

- reached: the expected profit of the list, over that of an oracle who knows each customer's effect
  and writes to whoever brings more than they cost; all shops together;
- sent: the share of shops that are told to send; worse: the share whose list loses money;
- beside it everybody, and as many customers as are on the list, by spend and by visits;
- no effect: the same shops with letters that change nothing: how many are told to send.

The result goes to benchmarks/results/targeting.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from retail_ci.core.config import CampaignsConfig, Config, SyntheticConfig
from retail_ci.core.runs import load
from retail_ci.data.synthetic import generate
from retail_ci.export.targeting import target_customers, wave_of_lists


def make_shop(seed: int, customers: int, control: float, effect: float) -> tuple:
    """Log, products, table of waves and truth of a generated shop."""
    size = SyntheticConfig(
        lines=15 * customers, customers=customers, products=100, campaigns=2, effect=effect
    )
    config = Config(seed=seed, campaigns=CampaignsConfig(control=control), synthetic=size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(config, folder, format="parquet")
        lines = pd.read_parquet(folder / "transactions.parquet")
        products = pd.read_parquet(folder / "products.parquet")
        waves = pd.read_parquet(folder / "campaigns.parquet")
        truth = load(folder / "truth.npz")
    lines["customer_id"] = lines["customer_id"].str.strip()
    good = lines["quantity"].ne(0) & lines["price"].ge(0) & lines["product_id"].notna()
    log = lines[good & lines["date"].notna()].drop_duplicates()
    return log, products, waves, truth


def one_shop(seed: int, customers: int, control: float, effect: float) -> dict:
    """What the list of a shop earns, and what others would."""
    log, products, waves, truth = make_shop(seed, customers, control, effect)
    first, second = (rows for _, rows in waves.groupby("wave"))
    eve = pd.Timestamp(second["day"].iloc[0])
    lists = [first.loc[first["group"] == group, ["customer_id"]] for group in ("send", "control")]
    wave = wave_of_lists(*lists, first["day"].iloc[0], int(first["days"].iloc[0]))
    costs = {"contact_cost": float(truth["contact_cost"]), "voucher": float(truth["voucher"])}
    past = log[log["date"] < eve]
    people = second["customer_id"]
    found = target_customers(
        [wave], past, customers=people, products=products, random_state=seed, **costs
    )
    brought = truth["wave_margin"][:, 1] - costs["voucher"] * truth["wave_redeemed"][:, 1]
    profit = pd.Series(brought - costs["contact_cost"], truth["customer_id"])[people]
    listed = found.customers["customer_id"][found.customers["send"]]
    known = past[past["customer_id"].isin(people)].groupby("customer_id")
    spend = known["revenue"].sum().reindex(people, fill_value=0.0)
    visits = known["transaction_id"].nunique().reindex(people, fill_value=0)
    size = len(listed)
    return {
        "oracle": float(profit.clip(lower=0).sum()),
        "list": float(profit[listed].sum()),
        "everybody": float(profit.sum()),
        "by_spend": float(profit[spend.sort_values(kind="stable").index[::-1][:size]].sum()),
        "by_visits": float(profit[visits.sort_values(kind="stable").index[::-1][:size]].sum()),
        "sent": bool(found.facts["send"]),
        "share": size / len(people),
    }


def summary(shops: list[dict], still: list[dict]) -> dict:
    """The shares that are asked for."""
    table = pd.DataFrame(shops)
    oracle = table["oracle"].sum()
    reached = {k: table[k].sum() / oracle for k in ("list", "everybody", "by_spend", "by_visits")}
    of_each = (table["list"] / table["oracle"]).quantile([0.1, 0.5, 0.9])
    return {
        "shops": len(table),
        "reached": {k: round(float(v), 3) for k, v in reached.items()},
        "reached_10_50_90": of_each.round(3).tolist(),
        "sent": float(table["sent"].mean()),
        "reached_where_sent": round(
            float(table["list"].sum() / table["oracle"][table["sent"]].sum()), 3
        )
        if table["sent"].any()
        else None,
        "worse": float((table["list"] < 0).mean()),
        "worst": float(table["list"].min()),
        "listed_share": float(table["share"][table["sent"]].mean()) if table["sent"].any() else 0.0,
        "no_effect_shops": len(still),
        "no_effect_sent": float(np.mean([shop["sent"] for shop in still])),
    }


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shops", type=int, default=50)
    parser.add_argument("--customers", type=int, default=6000)
    parser.add_argument("--control", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results/targeting.json"))
    asked = parser.parse_args()
    about = {"customers": asked.customers, "control": asked.control, "first_seed": asked.seed}
    shops, still = [], []
    for seed in range(asked.seed, asked.seed + asked.shops):
        for effect, found in ((1.0, shops), (0.0, still)):
            found.append(one_shop(seed, asked.customers, asked.control, effect))
        result = {**about, **summary(shops, still)}
        print(json.dumps(result), flush=True)
        Path(asked.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
