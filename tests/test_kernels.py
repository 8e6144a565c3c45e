"""The same numbers on every processor: what is fitted, and what is measured, does not depend on the
kernels of the linear algebra, on numpy's own code paths, or on the number of threads.
"""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import PATIENCE

# OpenBLAS's kernels for three generations of processors, and how many threads it may use; a kernel
# that this processor cannot run gives way to its own
KERNELS = {"SkylakeX": 1, "Haswell": 2, "Sandybridge": 1}

FITS = """
import json, sys
from pathlib import Path

import numpy as np
import pandas as pd

from retail_ci import (
    CustomerSegmentation, customer_features, customer_lifetime_value, evaluate_recommenders
)
from retail_ci.core.runs import to_plain
from retail_ci.evaluate.offline import ranking_facts
from retail_ci.recommend.ease import EaseRecommender
from retail_ci.recommend.hybrid import HybridRecommender

data = Path(sys.argv[1])
log = pd.read_parquet(data / "transactions.parquet")
products = pd.read_parquet(data / "products.parquet")
found = {}
model = HybridRecommender().fit(log, products)
found["who answers"] = [model.choice_, model.notes_]
found["scorers"] = {task: [str(part) for part in s] for task, s in model.scorers_.items()}
found["visits"] = {task: curve.tolist() for task, curve in model.visits_.items()}
for new_only in (False, True):
    lists = model.recommend(k=10, exclude_purchased=new_only)
    found[f"lists, new only: {new_only}"] = lists.to_csv(index=False)
found["ease"] = EaseRecommender().fit(log).weights_.tolist()
measured = evaluate_recommenders(["ranker", "first_buyers", "random"], log, products)
found["measured"] = to_plain(ranking_facts(measured))
features = customer_features(log, products)
segments = CustomerSegmentation(5).fit(features)
found["segments"] = [segments.labels_.tolist(), segments.centers_.round(9).tolist()]
worth = customer_lifetime_value(log, draws=5)
found["worth"] = worth.set_index("customer_id").astype(float).to_dict()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(small) -> dict[str, dict]:
    """What each kernel finds in the small shop."""
    assert small.ran.returncode == 0, small.ran.stderr
    ours = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
    out = {}
    for kernel, threads in KERNELS.items():
        env = os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": str(threads)}
        env |= {"OMP_NUM_THREADS": str(threads)}
        if kernel != "SkylakeX":  # numpy without what newer processors have
            env |= {"NPY_DISABLE_CPU_FEATURES": ours}
        asked = [sys.executable, "-c", FITS, str(small.run / "data")]
        done = subprocess.run(asked, env=env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        out[kernel] = json.loads(done.stdout)
    return out


def same_lists(here: str, there: str) -> None:
    """The same products in the same order for the same reasons; scores to four decimals, because a
    number of a pair may lie on the edge of the four decimals to which it is rounded.
    """
    one, other = (pd.read_csv(io.StringIO(text)) for text in (here, there))
    pd.testing.assert_frame_equal(one.drop(columns="score"), other.drop(columns="score"))
    assert (one["score"] - other["score"]).abs().max() < 5e-5


@pytest.mark.parametrize("kernel", ["Haswell", "Sandybridge"])
def test_what_is_fitted_and_measured_is_the_same_on_every_processor(found, kernel, subtests):
    for name, there in found["SkylakeX"].items():
        if name == "worth":  # an optimiser's stop, to four digits
            continue
        with subtests.test(what=name):
            if name.startswith("lists"):
                same_lists(found[kernel][name], there)
            else:
                assert found[kernel][name] == there
    for measure, values in found["SkylakeX"]["worth"].items():
        with subtests.test(what=measure):
            assert found[kernel]["worth"][measure] == pytest.approx(values, rel=1e-4, nan_ok=True)
