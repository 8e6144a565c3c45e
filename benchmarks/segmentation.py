"""How long the segmentation takes on a million customers and, in single precision, on ten million.

The customers are drawn from a mixture that looks like a shop's: visits by a gamma rate, lapses,
lognormal spend. `choice of K` tries every number of segments from 2 to 10 with elbow and
silhouette, as the page does; `fit` includes the choice of the view and the names; `predict` names
everybody. Seconds of wall time; a second on one machine is not a second on another.

    python benchmarks/segmentation.py [CUSTOMERS ...]

Without a number it takes 1000000 and 10000000f (f: float32).
"""

import resource
import sys
import time

import numpy as np
import pandas as pd

from retail_ci.customers.segment_checks import compare_k, knee
from retail_ci.customers.segmentation import CustomerSegmentation, rfm_values

LIMITS = {
    "1000000": {"fit with choice of K": 60, "predict": 2},
    "10000000f": {"fit with choice of K": 120},
}


def customers(n: int, dtype: str, seed: int = 1) -> pd.DataFrame:
    """Recency, frequency and monetary of n customers."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.8, 1 / 30, n)
    alive = rng.random(n) < 0.6
    seen = np.where(alive, 365, rng.uniform(1, 365, n))
    frequency = 1 + rng.poisson(rate * seen)
    recency = np.clip(366 - seen + rng.exponential(seen / (frequency + 1)), 1, 365).astype(int)
    monetary = frequency * np.exp(
        3.3 + 0.6 * rng.normal(size=n) + 0.5 * rng.normal(size=n) / np.sqrt(frequency)
    )
    return pd.DataFrame(
        {"recency": recency, "frequency": frequency, "monetary": monetary.round(2)}
    ).astype(dtype)


def measure(what: str) -> None:
    """Time one size."""
    features = customers(int(what.rstrip("f")), "float32" if what.endswith("f") else "float64")
    steps = {}
    began = time.perf_counter()
    model = CustomerSegmentation().fit(features)
    steps["fit"] = time.perf_counter() - began
    tried = compare_k(model.space_.transform(rfm_values(features)), range(2, 11))
    best = int(tried.k[tried.silhouette.idxmax()])
    steps["fit with choice of K"] = time.perf_counter() - began
    began = time.perf_counter()
    names = model.predict(features)
    steps["predict"] = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\n{len(features):,} customers, {features.monetary.dtype}: knee at "
        f"{knee(tried.k.to_numpy(), tried.inertia.to_numpy())}, silhouette highest at {best}; "
        f"names {', '.join(model.names_)}"
    )
    for step, seconds in steps.items():
        limit = LIMITS.get(what, {}).get(step)
        verdict = "kept" if limit and seconds <= limit else "MISSED"
        note = f"   (limit {limit} s: {verdict})" if limit else ""
        print(f"  {step:22s} {seconds:7.1f} s{note}")
    print(
        f"  largest memory         {peak:7.0f} MiB; largest segment "
        f"{pd.Series(names).value_counts(normalize=True).iloc[0]:.0%}",
        flush=True,
    )


if __name__ == "__main__":
    for size in sys.argv[1:] or ["1000000", "10000000f"]:
        measure(size)
