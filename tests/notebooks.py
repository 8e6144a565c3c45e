"""nbdev_test, in which a warning that pytest.ini does not name fails the notebook. It takes
nbdev_test's arguments.
"""

import configparser
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import nbdev.test
from _pytest.config import apply_warning_filters
from execnb.shell import CaptureShell
from fastcore.parallel import parallel

ROOT = Path(__file__).parents[1]
# These take longest, and are begun first, so that no worker is left alone with one at the end.
LONG = ["11d_runner", "00c_runs", "01_cleaning", "01d_proposal", "03e_lifetime_value", "06d_drift"]
LONG += ["05b_backtest", "08e_measure", "08f_targeting", "01c_column_evidence", "00h_contract"]
LONG += ["03d_migration", "03a_segmentation", "12_cli"]


def filters() -> list[str]:
    """The filters of pytest.ini, one a line."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "pytest.ini", encoding="utf-8")
    return config["pytest"]["filterwarnings"].split("\n")[1:]


def keep_filters(shell: CaptureShell) -> None:
    """In place of IPython's own filter, which only shows what a notebook's code calls
    deprecated.
    """


def longest_first(test: Callable, notebooks: list[Path], **options) -> list:
    """What `parallel` gives for each notebook."""
    begun = sorted(notebooks, key=lambda p: LONG.index(p.stem) if p.stem in LONG else len(LONG))
    found = dict(zip(begun, parallel(test, begun, **options)))
    return [found[p] for p in notebooks]


if __name__ == "__main__":
    nbdev.test.parallel = longest_first
    CaptureShell.init_deprecation_warnings = keep_filters
    multiprocessing.set_start_method("fork")  # so that the workers take the filters along
    apply_warning_filters(filters(), [])
    nbdev.test.nbdev_test()
