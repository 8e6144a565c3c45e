"""The real notebooks on the small config, in another folder; and what they say to input that cannot
be used.
"""

import ctypes
import io
import json
import os
import resource
import signal
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import (
    PATIENCE,
    RETAIL_CI,
    ROOT,
    Project,
    checkout,
    copy_of_small,
    leave_examples_out,
    wait_for,
)

from retail_ci.core.config import load_config
from retail_ci.core.runs import ARTEFACTS, FIGURES, sha256
from retail_ci.pipeline import kernels
from retail_ci.pipeline.chain import Progress, chain, number, split
from retail_ci.pipeline.manifest import copy_earlier, input_hashes, rows

NOTEBOOKS = [p.stem for p in chain(ROOT / "nbs")]


def test_the_small_config_runs_without_a_word_of_complaint(small):
    assert (small.ran.returncode, small.ran.stderr) == (0, "")
    assert "Warning" not in small.ran.stdout
    assert all(name in small.ran.stdout for name in NOTEBOOKS)


def test_everything_of_the_fixed_layout_is_there(small):
    missing = [a.path for a in ARTEFACTS.values() if not (small.run / a.path).stat().st_size]
    assert not missing
    assert {p.stem for p in (small.run / "figures").glob("*.png")} == set(FIGURES)
    assert {p.stem for p in (small.run / "executed").iterdir()} == set(NOTEBOOKS)


def test_the_manifest_tells_the_truth(small):
    run = small.run
    papers = json.loads((run / "manifest.json").read_text())
    listed = {a["path"]: a for a in papers["artifacts"]}
    there = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert (
        there - set(listed)
        == {"manifest.json", "config.yaml"} | {f"executed/{n}.ipynb" for n in NOTEBOOKS}
        and not set(listed) - there
    )
    assert list(listed) == sorted(listed)
    for path, fact in listed.items():
        assert (fact["sha256"], fact["rows"]) == (sha256(run / path), rows(run / path))
    counts = papers["counts"]
    assert (
        counts["rows_in"]
        == listed["data/raw/transactions.csv"]["rows"]
        == counts["kept"] + counts["rejected"] + counts["collapsed"]
    )
    assert (
        listed["data/transactions.parquet"]["rows"] == counts["kept"]
        and listed["data/rejected.parquet"]["rows"] == counts["rejected"]
    )
    assert listed["data/segments.parquet"]["rows"] == listed["data/features.parquet"]["rows"] > 0


NUMBERS = [number(p) for p in chain(ROOT / "nbs")]
MAKERS = {a.path: a.maker for a in ARTEFACTS.values()} | {
    f"figures/{name}.png": maker for name, maker in FIGURES.items()
}


def made(run: Path) -> dict[str, str]:
    """Every file that a run's manifest names, with its fingerprint."""
    return {
        a["path"]: a["sha256"] for a in json.loads((run / "manifest.json").read_text())["artifacts"]
    }


def test_a_start_at_any_notebook_takes_over_what_is_earlier(small, tmp_path):
    """The results and the pages of the notebooks before it, and nothing else."""
    config = load_config(small.project.root / "configs/small.yaml")
    whole = made(small.run)
    for first in NUMBERS:
        run = tmp_path / first
        earlier, _ = split(chain(small.project.root / "nbs"), first)
        facts = copy_earlier(earlier, small.run.parent, run, config, input_hashes(config))
        names = {p.stem for p in earlier}
        assert {fact["name"] for fact in facts} == names
        files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
        results = {path for path in whole if MAKERS[path] in NUMBERS[: NUMBERS.index(first)]}
        assert files == results | {f"executed/{name}.ipynb" for name in names}
        assert all(sha256(run / path) == whole[path] for path in results)


def test_a_run_starts_and_stops_where_it_is_told(small, tmp_path):
    """At the first notebook, at one in the middle that reads much, at the last, and from one to the
    end: the bytes are those of the whole run.
    """
    project = copy_of_small(small, tmp_path / "project")
    whole = made(small.run)
    for notebook in (project.root / "nbs").glob("08[b-f]*.ipynb"):
        leave_examples_out(notebook)  # which have run in the whole run
    for first, last in ((NUMBERS[0], NUMBERS[0]), ("06d", "06d"), ("08b", "")):
        words = ["--to", last] if last else []
        result = project.here("run", "--config", "small", "--from", first, *words)
        assert (result.returncode, result.stderr) == (0, "")
        done = NUMBERS[: NUMBERS.index(last or NUMBERS[-1]) + 1]
        place = project.home("small") / (f"to-{last}" if last else "current")
        assert made(place) == {path: sha for path, sha in whole.items() if MAKERS[path] in done}
        assert len(list((place / "executed").iterdir())) == len(done)


def test_executed_notebooks_hold_no_errors_and_no_warnings(small):
    for name in NOTEBOOKS:
        nb = json.loads((small.run / f"executed/{name}.ipynb").read_text())
        for cell in nb["cells"]:
            for output in cell.get("outputs", []):
                assert output["output_type"] != "error"
                text = "".join(output.get("text", ""))
                assert output.get("name") != "stderr" or "Warning" not in text, (
                    f"{name}: {text[:300]}"
                )


def test_the_site_builds_and_holds_together(small):
    from retail_ci.report.finishing import check_site

    assert (small.built.returncode, small.built.stderr) == (0, "")
    site = small.project.root / "_site"
    pages = {p.stem for p in site.rglob("*.html")}
    assert (site / "index.html").exists() and {n for n in NOTEBOOKS if n != "index"} <= pages
    assert check_site(site) == []


def test_a_missing_column_ends_the_run_with_a_sentence(tmp_path):
    """From the notebook to the terminal; test_any_shop.py has what else a file may lack."""
    project = checkout(tmp_path / "shop", "01")
    (project.root / "sales.csv").write_text("customer_id,dag,revenue\nc1,2025-01-03,5\n")
    project.config("data: {transactions: sales.csv}\n")
    result = project.here("run")
    assert result.returncode == 3 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("retail-ci: Column 'date'") and "dag" in result.stderr
    assert project.current() is None and not project.leftovers()


def limited(project: Project, limit, *words: str) -> str:
    """Call the command line under a limit; the sentence with which it ends."""
    process = subprocess.run(
        [RETAIL_CI, *words],
        cwd=project.root,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        preexec_fn=limit,
    )
    assert (
        process.returncode == 4
        and process.stderr.startswith("retail-ci: ")
        and process.stderr.count("\n") == 1
    ), process.stderr
    return process.stderr


def test_no_space(tmp_path):
    """A limit on the size of files is to a program what a full disk is."""
    project = checkout(tmp_path / "full", "00e", "01")
    said = limited(
        project,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
        "run",
        "--config",
        "small",
    )
    assert (
        "File too large" in said
        and project.current("small") is None
        and not project.leftovers("small")
    )


def no_override() -> None:
    """Root may write anywhere; give that up, as far as the program to come is concerned."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def test_no_write_permission(fresh):
    (fresh.root / "runs").mkdir(mode=0o555)
    said = limited(fresh, no_override, "run")
    assert "Cannot write" in said and "Permission denied" in said
    assert str(fresh.root / "runs") in said


def test_ctrl_c_in_the_middle_of_the_real_chain(small, tmp_path):
    project = copy_of_small(small, tmp_path / "project")
    for notebook in (project.root / "nbs").glob("0*.ipynb"):
        leave_examples_out(notebook)  # so that the results begin sooner
    before = project.current("small")
    process = project.start("run", "--config", "small")
    wait_for(lambda: [p for p in project.home("small").glob(".*.partial/data/*") if p.is_file()])
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (
        process.returncode == 130 and err == "retail-ci: Stopped. The last good run is untouched.\n"
    )
    assert project.current("small") == before and not project.leftovers("small")


def test_a_waiting_notebook_is_looked_at_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(kernels, "lacks", lambda notebook, run: asked.append(notebook.stem) or "")
    sorter = TopologicalSorter({"features": {"cleaning"}, "cleaning": set(), "formats": set()})
    sorter.prepare()
    paths = {name: Path(f"{name}.ipynb") for name in ("cleaning", "features", "formats")}

    def pass_over(ready):
        return kernels._pass_over(ready, paths, tmp_path, sorter, Progress(3, io.StringIO()), {})

    ready = pass_over([])
    assert set(ready) == set(asked) == {"cleaning", "formats"}
    assert pass_over(ready) == ready and len(asked) == 2
    sorter.done("cleaning")
    assert pass_over(["formats"]) == ["formats", "features"]
    assert asked[2:] == ["features"]


def test_what_is_loaded_for_all_notebooks_needs_no_library_of_the_system(tmp_path):
    (tmp_path / "lightgbm.py").write_text("raise OSError('libgomp.so.1: cannot open')")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import importlib; from retail_ci.pipeline import kernels\n"
            "names = kernels._ALWAYS + kernels._HEAVY + kernels._FITTED\n"
            "for name in names: importlib.import_module(name)",
        ],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
