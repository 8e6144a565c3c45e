"""The real notebooks on the small config, in another folder; and what they say to input that cannot
be used.
"""

import ast
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import nbformat
import pytest
from conftest import RETAIL_CI, Project, wait_for

from retail_ci.core.runs import ARTEFACTS, FIGURES, sha256
from retail_ci.pipeline.chain import chain, number
from retail_ci.pipeline.manifest import rows

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [p.stem for p in chain(ROOT / "nbs")]


def checkout(root: Path, *numbers: str) -> Project:
    """The project in another folder: all of it, or some notebooks only and of these what a run
    needs (the examples are run elsewhere).
    """
    shutil.copytree(
        ROOT,
        root,
        ignore=shutil.ignore_patterns(
            ".venv",
            ".git",
            "runs",
            "_site*",
            "__pycache__",
            "*.egg-info",
            ".pytest_cache",
            "build",
            "dist",
        ),
    )
    for path in (root / "nbs").iterdir() if numbers else ():
        if path.name.startswith(numbers):
            leave_examples_out(path)
        else:
            path.unlink()
    return Project(root)


def leave_examples_out(notebook: Path) -> None:
    """Leave the imports, the parameters, what is exported, and the results."""
    nb = nbformat.read(notebook, as_version=4)

    def needed(cell) -> bool:
        body = ast.parse(cell.source).body
        return (
            bool(re.search(r"^#\|\s*(export|chain)\b", cell.source, re.M))
            or "parameters" in cell.metadata.get("tags", [])
            or all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)
        )

    nb.cells = [c for c in nb.cells if c.cell_type == "code" and needed(c)]
    nbformat.write(nb, notebook)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One run of the small config."""
    project = checkout(tmp_path_factory.mktemp("chain") / "a folder with spaces")
    return project, project.call("run", "--config", "small")


def test_the_small_config_runs_without_a_word_of_complaint(small):
    project, result = small
    assert (result.returncode, result.stderr) == (0, "")
    assert "Warning" not in result.stdout and all(name in result.stdout for name in NOTEBOOKS)


def test_everything_of_the_fixed_layout_is_there(small):
    run = small[0].home("small") / "current"
    missing = [a.path for a in ARTEFACTS.values() if not (run / a.path).stat().st_size]
    assert not missing
    assert {p.stem for p in (run / "figures").glob("*.png")} == set(FIGURES)
    assert {p.stem for p in (run / "executed").iterdir()} == set(NOTEBOOKS)


def test_the_manifest_tells_the_truth(small):
    run = small[0].home("small") / "current"
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


@pytest.fixture(scope="module")
def elsewhere(small, tmp_path_factory) -> Project:
    """The finished run of the small config, with the whole project in another folder."""
    root = tmp_path_factory.mktemp("elsewhere") / "project"
    shutil.copytree(small[0].root, root, symlinks=True)
    return Project(root)


@pytest.mark.parametrize("first", NUMBERS)
def test_a_run_starts_at_every_notebook(elsewhere, first):
    before = made(elsewhere.home("small") / "current")
    result = elsewhere.here("run", "--config", "small", "--from", first, "--to", first)
    assert (result.returncode, result.stderr) == (0, "")
    done = NUMBERS[: NUMBERS.index(first) + 1]
    place = "current" if first == NUMBERS[-1] else f"to-{first}"
    assert made(elsewhere.home("small") / place) == {
        path: sha for path, sha in before.items() if MAKERS[path] in done
    }
    assert len(list((elsewhere.home("small") / place / "executed").iterdir())) == len(done)


def test_a_run_from_the_middle_equals_the_whole_one(elsewhere):
    before = made(elsewhere.home("small") / "current")
    result = elsewhere.here("run", "--config", "small", "--from", "06d")
    assert (result.returncode, result.stderr) == (0, "")
    assert made(elsewhere.home("small") / "current") == before


def test_executed_notebooks_hold_no_errors_and_no_warnings(small):
    for name in NOTEBOOKS:
        nb = json.loads((small[0].home("small") / f"current/executed/{name}.ipynb").read_text())
        for cell in nb["cells"]:
            for output in cell.get("outputs", []):
                assert output["output_type"] != "error"
                text = "".join(output.get("text", ""))
                assert output.get("name") != "stderr" or "Warning" not in text, (
                    f"{name}: {text[:300]}"
                )


def test_the_site_builds_and_holds_together(small):
    from retail_ci.report.finishing import check_site

    project = small[0]
    result = project.call("site", "--config", "small")
    assert (result.returncode, result.stderr) == (0, "")
    site = project.root / "_site"
    pages = {p.stem for p in site.rglob("*.html")}
    assert (site / "index.html").exists() and {n for n in NOTEBOOKS if n != "index"} <= pages
    assert check_site(site) == []


def write_sales(
    project: Project,
    customers: int,
    products: int,
    lines: int = 400,
    name: str = "sales.csv",
    **columns: str,
) -> None:
    """A plain sales file and a config that reads it."""
    names = {
        c: columns.get(c, c)
        for c in (
            "transaction_id",
            "customer_id",
            "product_id",
            "product_name",
            "category",
            "date",
            "quantity",
            "price",
        )
    }
    out = [",".join(names.values())]
    for i in range(lines):
        day = datetime(2025, 1, 1) + timedelta(hours=7 * i)
        product = (i * i // 3) % products
        out.append(
            f"t{i // 2},c{(i // 2 * 7) % customers:03d},p{product:03d},Product "
            f"{product},{'ab'[product % 2]},{day.isoformat()},{1 + i % 3},{1 + product}.50"
        )
    (project.root / name).write_text("\n".join(out) + "\n")
    project.config(f"data: {{transactions: {name}}}\n")


def refused(project: Project, code: int, *words: str, options: tuple[str, ...] = ()) -> str:
    """The run must end with one sentence that holds some words, and leave nothing."""
    result = project.here("run", *options)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("retail-ci: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert project.current() is None and not project.leftovers()
    return result.stderr


@pytest.fixture
def shop(tmp_path) -> Project:
    """A checkout up to the segments, with a plain sales file of 50 customers and 20 products."""
    project = checkout(tmp_path / "shop", "01", "02", "03")
    write_sales(project, customers=50, products=20)
    return project


def test_a_plain_sales_file_runs(tmp_path):
    project = checkout(tmp_path / "shop", "01", "02", "03", "04", "05", "08")
    write_sales(project, customers=50, products=20)
    result = project.here("run")
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        json.loads((project.home() / "current/manifest.json").read_text())["counts"]["customers"]
        == 50
    )


def test_a_missing_column(shop):
    write_sales(shop, 50, 20, customer_id="klant")
    assert "klant" in refused(shop, 3, "customer_id")


def test_a_column_in_the_config_that_the_file_does_not_have(shop):
    shop.config("data: {transactions: sales.csv, columns: {customer_id: Customer}}\n")
    refused(shop, 3, "Customer")


def test_a_file_with_a_header_only(shop):
    (shop.root / "sales.csv").write_text(
        (shop.root / "sales.csv").read_text().split("\n")[0] + "\n"
    )
    refused(shop, 3, "header", "no rows")


def test_more_segments_than_customers(shop):
    write_sales(shop, customers=8, products=20)
    refused(shop, 3, "12", "8", options=("--set", "segmentation.k=12"))


def test_one_customer(shop):
    write_sales(shop, customers=1, products=20)
    refused(shop, 3, "1", "customer")


def test_one_product(tmp_path):
    """No recommendation can be made: a sentence, or a run that says so on its pages, but never a
    traceback.
    """
    project = checkout(tmp_path / "shop", "01", "02", "03", "04", "05", "08")
    write_sales(project, customers=50, products=1)
    refused(project, 3, "product")


def test_text_where_dates_should_be(shop):
    text = (shop.root / "sales.csv").read_text().replace("2025-", "twenty-")
    (shop.root / "sales.csv").write_text(text)
    refused(shop, 3, "date")


def limited(project: Project, limit, *words: str) -> str:
    """Call the command line under a limit; the sentence with which it ends."""
    process = subprocess.run(
        [RETAIL_CI, *words],
        cwd=project.root,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
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


def test_no_write_permission(shop):
    (shop.root / "runs").mkdir(mode=0o555)
    said = limited(shop, no_override, "run")
    assert (
        "Cannot write" in said and "Permission denied" in said and str(shop.root / "runs") in said
    )


def test_ctrl_c_in_the_middle_of_the_real_chain(small, tmp_path):
    shutil.copytree(small[0].root, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    before = project.current("small")
    process = project.start("run", "--config", "small")
    wait_for(
        lambda: [p for p in project.home("small").glob(".*.partial/data/*") if p.is_file()], 300
    )
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (
        process.returncode == 130 and err == "retail-ci: Stopped. The last good run is untouched.\n"
    )
    assert project.current("small") == before and not project.leftovers("small")
