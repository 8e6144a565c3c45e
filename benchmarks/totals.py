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
  curve at the level of the last 90 days; and two curves, one for customers who arrived after the
  first 60 days and one for those who were there, about whose age the log says too little;
- season: the model times a season, squared season over squared season plus squared standard error
  of it believed: of the same weeks a year before, where the log has them, or of a wave of one year
  (sine and cosine) in all weeks over the cohorts' curve;
- model and smoothing: their mean; weighted mean: of the first eight rules, in logarithms, by one
  over the mean squared error in the windows that had ended by then;
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
from value import AHEAD, CUTS, SHOPS, STEP, cleaned

from retail_ci.core.config import find_root
from retail_ci.customers.features import epoch_day, reference_date
from retail_ci.customers.lifetime_value import HiddenWindows

LEAST = 60  # days of log before a window
WEEKS = 13  # of totals, at most
FEWEST = 5  # weeks of totals
BIN = 15  # days of age that share a rate
ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
BETAS = (0.01, 0.05, 0.1, 0.2)
DAMPINGS = (0.8, 0.9, 0.95)
YEAR = 364  # days: the same weekdays
USUAL = 0.1  # miss of a rule, as a logarithm; counts as much as two windows
MIXED = ("model", "with boosting", "smoothing", "damped trend", "Theta", "robust line", "cohorts")
MIXED += ("cohorts at the last level",)
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


class AgeCurve:
    """Spend per customer and day by age: a power of the age, of customers known by a day."""

    def __init__(self, known: np.ndarray, first: np.ndarray, cut: int):
        """`known`: their spend by day. `first`: the first day of each. `cut`: the day."""
        self.known, self.first, self.cut = known, first[:, None], cut
        age = np.arange(cut)[None, :] - self.first
        self.lived = age >= 0
        self.bins = (cut + AHEAD) // BIN + 1
        self.place = np.maximum(age, 0) // BIN
        came = np.bincount(self.place[self.lived], known[self.lived], self.bins)
        people = np.bincount(self.place[self.lived], minlength=self.bins)
        middle = np.log((np.arange(self.bins) + 0.5) * BIN)
        use = (came > 0) & (people > 0) & (np.arange(self.bins) > 0)
        self.fits = use.sum() >= 3
        if self.fits:
            rates = np.log(came[use] / people[use])
            line = np.polyfit(middle[use], rates, 1, w=np.sqrt(came[use]))
            self.curve = np.exp(np.polyval(line, middle))

    def total(self) -> float:
        """What the 90 days after the day are expected to bring."""
        ahead = np.arange(self.cut, self.cut + AHEAD)[None, :] - self.first
        return float(self.curve[ahead // BIN].sum())

    def level(self) -> float:
        """What the last 90 days brought, over what the curve says of them."""
        late = self.lived & (np.arange(self.cut) >= self.cut - AHEAD)
        return float(self.known[late].sum() / self.curve[self.place[late]].sum())

    def weeks(self) -> tuple[np.ndarray, np.ndarray]:
        """Middle days of weeks, and the logarithm of what came over the curve."""
        expected = np.where(self.lived, self.curve[self.place], 0.0).sum(axis=0)
        count = self.cut // 7
        start = self.cut - 7 * count
        sums = [v[start:].reshape(count, 7).sum(axis=1) for v in (self.known.sum(axis=0), expected)]
        day = start + 7 * np.arange(count) + 3
        use = (sums[0] > 0) & (sums[1] > 0) & (day >= 28)
        return day[use], np.log(sums[0][use] / sums[1][use])


def from_cohorts(spend: Spend, cut: int) -> dict[str, float]:
    """Totals of the 90 days after a cut by spend at each age."""
    first = spend.first[spend.first < cut]
    known = spend.between(0, cut, cut)
    curve = AgeCurve(known, first, cut)
    if not curve.fits:
        return {}
    found = {"cohorts": curve.total(), "cohorts at the last level": curve.total() * curve.level()}
    new = first >= LEAST
    parts = [AgeCurve(known[own], first[own], cut) for own in (~new, new) if own.any()]
    if all(part.fits for part in parts):
        found["cohorts, arrivals apart"] = sum(part.total() for part in parts)
    return found


def believed(season: float, square: float) -> float:
    """A season, shrunk by the square of its standard error."""
    return season**3 / (season**2 + square) if season else 0.0


def yearly_wave(day: np.ndarray, weeks: np.ndarray, cut: int) -> float:
    """What a wave of one year says of the 90 days after a cut, beside the weeks before it."""
    turn = 2 * np.pi / YEAR
    wave = np.column_stack([np.ones(len(day)), np.cos(turn * day), np.sin(turn * day)])
    line = np.linalg.lstsq(wave, weeks, rcond=None)[0]
    left = weeks - wave @ line
    alike = np.clip(left[1:] @ left[:-1] / max(left @ left, 1e-12), 0, 0.9)
    noise = left @ left / (len(left) - 3) * (1 + alike) / (1 - alike)
    ahead = cut + np.arange(AHEAD)
    away = np.array([1.0, np.cos(turn * ahead).mean(), np.sin(turn * ahead).mean()])
    away -= wave.mean(axis=0)
    return believed(float(away @ line), float(away @ np.linalg.inv(wave.T @ wave) @ away * noise))


def seasons(spend: Spend, cut: int, last_year: float | None) -> dict[str, float]:
    """Logarithms of the seasons that are believed; `last_year`: of the same weeks."""
    curve = AgeCurve(spend.between(0, cut, cut), spend.first[spend.first < cut], cut)
    if not curve.fits:
        return {}
    day, weeks = curve.weeks()
    found = {"season, same weeks": 0.0}
    own = weeks[(day >= cut - YEAR) & (day < cut - YEAR + AHEAD)]
    if last_year is not None and len(own) > 3:
        found["season, same weeks"] = believed(last_year, own.var(ddof=1) / len(own))
    if len(day) >= 10:
        found["season, yearly wave"] = yearly_wave(day, weeks, cut)
    return found


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
    for rule, season in seasons(spend, cut, windows.last_year(start)).items():
        found[rule] = found["model"] * np.exp(season)
    return {k: float(np.log(v / window["actual"].sum())) for k, v in found.items()}


def weighted(table: pd.DataFrame, days: int) -> float:
    """The error of the weighted mean in the window that begins so many days before the end."""
    rules = [rule for rule in MIXED if rule in table and pd.notna(table.loc[days, rule])]
    past = table[table.index >= days + AHEAD].head(6)[rules]
    squares = (2 * USUAL**2 + (past**2).sum()) / (past.notna().sum() + 2)
    return float((table.loc[days, rules] / squares).sum() / (1 / squares).sum())


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
    mean = pd.Series({days: weighted(table, days) for days in table.index})
    table["closest so far"] = pd.Series(chosen)
    table["weighted mean"] = mean
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
