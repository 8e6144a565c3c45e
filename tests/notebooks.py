"""nbdev_test, in which a warning that pytest.ini does not name fails the notebook. It takes
nbdev_test's arguments.
"""

import configparser
import multiprocessing
from pathlib import Path

from _pytest.config import apply_warning_filters
from execnb.shell import CaptureShell
from nbdev.test import nbdev_test

ROOT = Path(__file__).parents[1]


def filters() -> list[str]:
    """The filters of pytest.ini, one a line."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "pytest.ini", encoding="utf-8")
    return config["pytest"]["filterwarnings"].split("\n")[1:]


def keep_filters(shell: CaptureShell) -> None:
    """In place of IPython's own filter, which only shows what a notebook's code calls
    deprecated.
    """


if __name__ == "__main__":
    CaptureShell.init_deprecation_warnings = keep_filters
    multiprocessing.set_start_method("fork")  # so that the workers take the filters along
    apply_warning_filters(filters(), [])
    nbdev_test()
