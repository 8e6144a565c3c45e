"""Would another forecast of the total have been closer? Nine cuts of three shops, other rules.

    python benchmarks/totals.py

The cuts, shops and windows are those of benchmarks/value.py, whose clean lines are taken
(`python benchmarks/value.py --customers 0` makes them). At each cut, and in each earlier window
(45 days apart, as long as 60 days of log lie before it), these rules forecast what the customers
known at its beginning bring in 90 days:

- model: MBG/NBD with Gamma-Gamma; with boosting: the mean of it and of LightGBM;
- smoothing, damped trend, Theta, robust line (Theil and Sen, in logarithms): of the weekly totals
  of customers known for up to 13 weeks, so that nobody joins; for the others in proportion;
- cohorts: spend per customer and day by age, a power of the age, over the whole log; and the same
  curve at the level of the last 90 days;
- model and smoothing: their mean;
- closest so far: at each cut, the rule with the smallest root mean squared error in the windows
  that had ended by then.

A rule may only be chosen by windows that ended before the first of the three cuts (`earlier`: the
mean of the absolute logarithms of expected over came). The result goes to
benchmarks/results/totals.json.
"""

import json

import ibis
import numpy as np
import pandas as pd
from scipy.stats import theilslopes
from value import AHEAD, CUTS, SHOPS, cleaned

from retail_ci.core.config import find_root
from retail_ci.customers.features import epoch_day, reference_date
from retail_ci.customers.lifetime_value import HiddenWindows

STEP = 45  # days from one window to the one before
LEAST = 60  # days of log before a window
WEEKS = 13  # of totals, at most
FEWEST = 5  # weeks of totals
BIN = 15  # days of age that share a rate
ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
BETAS = (0.01, 0.05, 0.1, 0.2)
DAMPINGS = (0.8, 0.9, 0.95)
NAMES = ("default", "completejourney", "cdnow")


class Spend:
    """What each customer spent on each day of a log."""

    def __init__(self, days: pd.DataFrame):
        self.begin = int(days["number"].min())
        who, names = pd.factorize(days["customer_id"])
        day = (days["number"] - self.begin).to_numpy()
        self.amounts = np.zeros((len(names), day.max() + 1))
        np.add.at(self.amounts, (who, day), days["net"].to_numpy(float))
        sold = days["sold"].to_numpy(bool)
        self.first = np.full(len(names), day.max() + 1)
        np.minimum.at(self.first, who[sold], day[sold])

    def between(self, start: int, end: int, known: int) -> np.ndarray:
        """By customer known before a day, and day; days count from the first of the log."""
        return self.amounts[self.first < known, start:end]


def level_and_trend(
    values: np.ndarray, alpha: float, beta: float, damping: float
) -> tuple[float, float, float]:
    """Squared error of one step ahead, and where level and trend end."""
    level, trend, error = values[:4].mean(), 0.0, 0.0
    for value in values:
        expected = level + damping * trend
        error += (value - expected) ** 2
        new = expected + alpha * (value - expected)
        trend = beta * (new - level) + (1 - beta) * damping * trend
        level = new
    return error, level, trend


def by_weeks(weeks: np.ndarray) -> dict[str, float]:
    """The mean of the coming weeks by the rules of series."""
    place = np.arange(len(weeks))
    ahead = np.arange(1, WEEKS + 1)
    level = min(level_and_trend(weeks, alpha, 0.0, 0.0) for alpha in ALPHAS)[1]
    tried = [
        (*level_and_trend(weeks, alpha, beta, damping), damping)
        for alpha in ALPHAS
        for beta in BETAS
        for damping in DAMPINGS
    ]
    _error, start, trend, damping = min(tried)
    slope, height, *_ends = theilslopes(np.log(np.maximum(weeks, 1e-9)), place)
    drift = np.polyfit(place, weeks, 1)[0] / 2
    return {
        "smoothing": level,
        "damped trend": start + float((trend * np.cumsum(damping**ahead)).mean()),
        "Theta": level + float((drift * ahead).mean()),
        "robust line": float(np.exp(height + slope * (len(weeks) - 1 + ahead)).mean()),
    }


def from_series(spend: Spend, cut: int) -> dict[str, float]:
    """Totals of the 90 days after a cut by weekly totals; nothing where the log is too short."""
    weeks = min(WEEKS, (cut - LEAST) // 7)
    if weeks < FEWEST:
        return {}
    since = cut - 7 * weeks
    totals = spend.between(since, cut, since).sum(axis=0).reshape(weeks, 7).sum(axis=1)
    if totals.min() <= 0:
        return {}
    month = [spend.between(cut - 28, cut, known).sum() for known in (cut, since)]
    return {k: v * AHEAD / 7 * month[0] / month[1] for k, v in by_weeks(totals).items()}


def from_cohorts(spend: Spend, cut: int) -> dict[str, float]:
    """Totals of the 90 days after a cut by spend at each age."""
    first = spend.first[spend.first < cut][:, None]
    age = np.arange(cut)[None, :] - first
    lived = age >= 0
    known = spend.between(0, cut, cut)
    bins = (cut + AHEAD) // BIN + 1
    came = np.bincount(age[lived] // BIN, known[lived], bins)
    people = np.bincount(age[lived] // BIN, minlength=bins)
    middle = np.log((np.arange(bins) + 0.5) * BIN)
    use = (came > 0) & (people > 0) & (np.arange(bins) > 0)
    if use.sum() < 3:
        return {}
    rates = np.log(came[use] / people[use])
    curve = np.exp(np.polyval(np.polyfit(middle[use], rates, 1, w=np.sqrt(came[use])), middle))
    ahead = np.arange(cut, cut + AHEAD)[None, :] - first
    total = curve[ahead // BIN].sum()
    late = lived & (np.arange(cut) >= cut - AHEAD)
    level = known[late].sum() / curve[age[late] // BIN].sum()
    return {"cohorts": total, "cohorts at the last level": total * level}


def errors_at(spend: Spend, windows: HiddenWindows, start: int) -> dict[str, float] | None:
    """Logarithms of expected over came, by rule; nothing where no window begins there."""
    window = windows.at(start)
    if window is None:
        return None
    cut = start - spend.begin
    found = {"model": window["model"].sum()}
    mixed = windows.mixed(start)
    if mixed is not None:
        found["with boosting"] = mixed.sum()
    found |= from_series(spend, cut) | from_cohorts(spend, cut)
    if "smoothing" in found:
        found["model and smoothing"] = (found["model"] + found["smoothing"]) / 2
    return {k: float(np.log(v / window["actual"].sum())) for k, v in found.items()}


def measure(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors at the cuts and in the windows before all of them; a row each, a column per rule."""
    lines = ibis.duckdb.connect().read_parquet(cleaned(*SHOPS[name], True))
    end = epoch_day(reference_date(lines))
    windows = HiddenWindows(lines, end)
    spend = Spend(windows.days.execute())
    starts = range(end - AHEAD, windows.begin + LEAST - 1, -STEP)
    rows = {end - start: errors_at(spend, windows, start) for start in starts}
    table = pd.DataFrame({k: v for k, v in rows.items() if v is not None}).T
    chosen = {}
    for days in CUTS:
        past = table[table.index >= days + AHEAD].head(6)
        error = np.sqrt((past**2).mean())[table.loc[days].notna()].dropna()
        chosen[days] = table.loc[days, error.idxmin()] if len(error) else table.loc[days, "model"]
    table["closest so far"] = pd.Series(chosen)
    return table.loc[list(CUTS)], table[table.index >= max(CUTS) + AHEAD]


def main() -> None:
    """Measure, print, write."""
    found = {name: measure(name) for name in NAMES}
    rules = list(found[NAMES[0]][0].columns)
    out: dict = {"ahead": AHEAD, "cuts": CUTS, "rules": {}}
    for rule in rules:
        at = {name: np.exp(cuts[rule]).round(4) for name, (cuts, _past) in found.items()}
        before = {name: past[rule].abs().mean() for name, (_cuts, past) in found.items()}
        out["rules"][rule] = {
            "within_5": int(sum(ratio.between(0.95, 1.05).sum() for ratio in at.values())),
            "earlier": {k: None if np.isnan(v) else round(float(v), 4) for k, v in before.items()},
            "total": {
                name: [None if np.isnan(v) else float(v) for v in ratio]
                for name, ratio in at.items()
            },
        }
        print(rule, out["rules"][rule], flush=True)
    target = find_root() / "benchmarks/results/totals.json"
    target.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
