"""Two branches change one notebook; the conflict is settled as CONTRIBUTING.md says, with git's
merge driver and without.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NOTEBOOK = "nbs/02_features.ipynb"


def call(repo: Path, *words: str, code: int = 0) -> str:
    """What a program says in the repository; it ends as expected."""
    env = os.environ | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HOME": str(repo.parent),
    }
    done = subprocess.run(words, cwd=repo, capture_output=True, text=True, timeout=1200, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def nbdev(repo: Path, name: str, *words: str, code: int = 0) -> str:
    """What one of nbdev's commands says."""
    return call(repo, str(BIN / f"nbdev_{name}"), *words, code=code)


def cells(repo: Path) -> list[dict]:
    """The cells of the notebook."""
    return json.loads((repo / NOTEBOOK).read_text(encoding="utf-8"))["cells"]


def put(repo: Path, found: list[dict]) -> None:
    """Write the notebook with these cells."""
    path = repo / NOTEBOOK
    notebook = json.loads(path.read_text(encoding="utf-8")) | {"cells": found}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def branch(repo: Path, name: str, cell: str) -> None:
    """A branch that defines one function more in the cell that defines another."""
    call(repo, "git", "checkout", "-q", "-b", name, "main")
    notebook = json.loads((repo / NOTEBOOK).read_text(encoding="utf-8"))
    (changed,) = [c for c in notebook["cells"] if f"def {cell}(" in "".join(c["source"])]
    changed["source"][-1] += "\n"
    changed["source"] += ["\n", f"def by_{name}() -> int: return 1"]
    put(repo, notebook["cells"])
    nbdev(repo, "export")
    call(repo, "git", "commit", "-qam", name)


@pytest.fixture
def repo(tmp_path) -> Path:
    """A repository with one notebook of the project and what is exported from it."""
    made = tmp_path / "checkout"
    (made / "nbs").mkdir(parents=True)
    for name in (NOTEBOOK, "settings.ini", ".gitattributes"):
        shutil.copy(ROOT / name, made / name)
    call(made, "git", "init", "-q", "-b", "main")
    call(made, "git", "config", "user.name", "Somebody")
    call(made, "git", "config", "user.email", "somebody@example.org")
    nbdev(made, "export")
    call(made, "git", "add", "-A")
    call(made, "git", "commit", "-qm", "main")
    (made / ".venv").symlink_to(BIN.parent)
    (made / ".git/info/exclude").write_text(".venv\n")
    return made


def set_up_driver(repo: Path) -> None:
    """Type what CONTRIBUTING.md says."""
    (line,) = re.findall(
        r"^git config merge\..*$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M
    )
    call(repo, "bash", "-c", line)


@pytest.mark.parametrize("driver", [False, True], ids=["by hand", "by the driver"])
def test_a_conflict_in_a_notebook_is_settled_as_the_text_says(repo, driver):
    branch(repo, "theirs", "reference_date")
    branch(repo, "ours", "reference_date")
    if driver:
        set_up_driver(repo)
    call(repo, "git", "merge", "theirs", code=1)
    state = call(repo, "git", "status", "--porcelain").splitlines()
    assert (
        f"UU {NOTEBOOK}" in state and len(state) >= 3
    )  # the package and its index are in conflict too
    if not driver:
        with pytest.raises(json.JSONDecodeError):
            cells(repo)
        assert "conflict remains" in nbdev(repo, "fix", NOTEBOOK, code=1)
    found = cells(repo)
    heads = ["".join(c["source"]) for c in found]
    first, middle, last = [
        i
        for i, text in enumerate(heads)
        if text in ("`<<<<<<< HEAD`", "`=======`", "`>>>>>>> theirs`")
    ]
    assert (
        "by_ours" in heads[first + 1]
        and "by_theirs" in heads[middle + 1]
        and (middle, last) == (first + 2, first + 4)
    )
    put(repo, found[:first] + found[middle + 1 : last] + found[last + 1 :])
    nbdev(repo, "export")
    nbdev(repo, "clean")
    call(repo, "git", "add", "-A")
    call(repo, "git", "commit", "-qm", "merged")
    assert (
        call(repo, "git", "diff", "--stat", "theirs") == ""
        and call(repo, "git", "status", "--porcelain") == ""
    )


@pytest.mark.parametrize("driver", [False, True], ids=["by hand", "by the driver"])
def test_two_changes_in_different_cells_need_nobody(repo, driver):
    branch(repo, "theirs", "reference_date")
    branch(repo, "ours", "_cut_points")
    if driver:
        set_up_driver(repo)
    call(
        repo, "git", "merge", "--no-commit", "theirs", "-X", "ours"
    )  # -X is for the package, which is exported anew
    nbdev(repo, "export")
    code = ["".join(c["source"]) for c in cells(repo) if c["cell_type"] == "code"]
    assert sum("by_ours" in c for c in code) == sum("by_theirs" in c for c in code) == 1
    assert not any("<<<<<<<" in "".join(c["source"]) for c in cells(repo))
