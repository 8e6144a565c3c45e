"""The wheel in an empty folder: notebooks, configs and the look of the site come with it, once, and
what lies in the folder goes first.
"""

import configparser
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import nbformat
import pytest
from conftest import PATIENCE, no_traceback, wait_for
from environments import closure, groups, locked, make_environment
from small_service import free_port, tables

from retail_ci.serve.bundle import activate, write_bundle

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def carried(folder: Path) -> set[str]:
    """What the wheel must hold of a checkout."""
    return {
        p.relative_to(folder).as_posix()
        for pattern in (
            "nbs/*.ipynb",
            "configs/*.yaml",
            "assets/**/*",
            "_quarto.yml",
            "benchmarks/results/sizes.json",
        )
        for p in folder.glob(pattern)
        if p.is_file()
    }


def left_out(folder: str, names: list[str]) -> set[str]:
    """What is no part of the source: at the top whatever git ignores, caches everywhere."""
    caches = ("__pycache__", ".pytest_cache", ".hypothesis", ".ipynb_checkpoints")
    made = (".venv", ".git", "runs", "_site*", "data", "*.egg-info", "build", "dist")
    patterns = (*caches, *made) if Path(folder) == ROOT else caches
    return set(shutil.ignore_patterns(*patterns)(folder, names))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The checkout in another folder."""
    folder = tmp_path_factory.mktemp("source") / "retail_ci"
    return shutil.copytree(ROOT, folder, ignore=left_out)


@pytest.fixture(scope="module")
def dist(source, tmp_path_factory) -> Path:
    """The wheel, made from the source distribution, as a release is."""
    out = tmp_path_factory.mktemp("dist")
    here = ["--no-isolation"] if importlib.util.find_spec("setuptools") else []
    done = subprocess.run(
        [sys.executable, "-m", "build", *here, "--outdir", out, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert not (source / "retail_ci/_project").exists(), "a build must leave the checkout alone"
    return out


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory) -> Path:
    """The wheel, unpacked: what pip does with it."""
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(next(dist.glob("*.whl"))).extractall(folder)
    return folder


def call(installed: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess:
    """The command line of the unpacked wheel."""
    return subprocess.run(
        [sys.executable, "-c", "from retail_ci.cli import main; main()", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )


def test_the_wheel_carries_the_project_as_it_is(installed, source):
    project = installed / "retail_ci/_project"
    assert (
        {p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()}
        == carried(source)
        >= {"nbs/index.ipynb", "configs/default.yaml", "_quarto.yml"}
    )
    for name in carried(source):
        assert (project / name).read_bytes() == (source / name).read_bytes(), name


def test_the_source_distribution_is_whole(dist, source):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert (
        carried(source)
        | {
            "settings.ini",
            "setup.py",
            "LICENSE",
            "README.md",
            "CHANGELOG.md",
            "examples/drogerie.csv",
            "examples/drogerie.yaml",
        }
        <= names
    )
    assert not any(n.startswith(("runs/", "_site", ".git")) for n in names)


def test_the_version_stands_in_one_place(dist):
    version = next(
        line.split(" = ")[1]
        for line in (ROOT / "settings.ini").read_text().splitlines()
        if line.startswith("version = ")
    )
    assert {p.name.split("-")[1].removesuffix(".tar.gz") for p in dist.iterdir()} == {version}


def programs(wheel: Path) -> dict[str, str]:
    """The programs that pip makes of a wheel, and the function that each calls."""
    config = configparser.ConfigParser(delimiters=("=",))
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt")]
        config.read_string(archive.read(name).decode())
    return dict(config["console_scripts"])


@pytest.fixture(scope="module")
def in_a_checkout(source, tmp_path_factory) -> dict[str, str]:
    """The programs that an editable install makes."""
    out = tmp_path_factory.mktemp("editable")
    build = (
        "import sys; from setuptools.build_meta import build_editable; "
        "print(build_editable(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", build, out],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return programs(next(out.glob("*.whl")))


NOT_HERE = {
    f"nbdev_{name}"
    for name in (
        "docs",
        "preview",
        "proc_nbs",
        "readme",
        "contributing",
        "prepare",
        "install",
        "install_quarto",
        "install_hooks",
    )
}


def test_the_wheel_brings_one_program(dist):
    assert programs(next(dist.glob("*.whl"))) == {"retail-ci": "retail_ci.cli:main"}


@pytest.mark.parametrize(
    "name", ["runs/own/current/executed/page.ipynb", "runs/own/current/new.ipynb", "out.ipynb"]
)
def test_papermill_writes_no_notebook_into_a_finished_run(installed, tmp_path, name):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("print(6 * 7)")],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}
        },
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    page = tmp_path / "runs/own/20260101T000000Z-aaaa/executed/page.ipynb"
    page.parent.mkdir(parents=True)
    (page.parents[1] / "config.yaml").write_text("name: own\n")
    (page.parents[1] / "manifest.json").write_text('{"artifacts": []}')
    page.write_text("the published page")
    (tmp_path / "runs/own/current").symlink_to("20260101T000000Z-aaaa")
    done = subprocess.run(
        [BIN / "papermill", "in.ipynb", name, "--no-progress-bar"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"PYTHONPATH": str(installed), "JUPYTER_PREFER_ENV_PATH": "1"},
    )
    assert page.read_text() == "the published page" and [
        p.name for p in page.parents[1].rglob("*.ipynb")
    ] == ["page.ipynb"]
    if name == "out.ipynb":
        assert (
            done.returncode == 0
            and nbformat.read(tmp_path / name, 4).cells[0].outputs[0]["text"] == "42\n"
        )
    else:
        assert done.returncode != 0 and done.stderr.rstrip().endswith(
            "a finished run is never changed; give papermill another place for the notebook that "
            "it writes."
        )


def test_a_checkout_puts_ours_in_the_place_of_commands_that_do_harm(in_a_checkout):
    theirs = {
        e.name
        for e in importlib.metadata.distribution("nbdev").entry_points
        if e.group == "console_scripts"
    }
    assert theirs >= NOT_HERE  # a command that nbdev has renamed is a trap again
    assert in_a_checkout == {"retail-ci": "retail_ci.cli:main"} | dict.fromkeys(
        NOT_HERE, "retail_ci.cli:instead_of_nbdev"
    )


BY_MAKE = (Path(sys.prefix) / ".ready").is_file()


@pytest.mark.parametrize("name", sorted(NOT_HERE) if BY_MAKE else [])
def test_in_this_environment_a_command_that_does_harm_is_ours(name):
    assert "import instead_of_nbdev" in (BIN / name).read_text()


@pytest.mark.parametrize("name", ["nbdev_docs", "nbdev_preview"])
def test_a_command_that_does_harm_ends_with_a_sentence(name, tmp_path):
    program = BIN / name if BY_MAKE else pretend(tmp_path / name)
    (tmp_path / "empty").mkdir()
    env = os.environ | {"HOME": str(tmp_path / "empty"), "PATH": str(BIN)}
    done = subprocess.run(
        [program], cwd=tmp_path / "empty", capture_output=True, text=True, timeout=PATIENCE, env=env
    )
    assert (done.returncode, done.stdout) == (2, "") and not list((tmp_path / "empty").iterdir())
    assert (
        done.stderr.startswith(f"{name} is not for this project: `retail-ci site` builds the site")
        and done.stderr.count("\n") == 1
    )


def pretend(program: Path) -> Path:
    """What an installer makes of the entry point, where `make` has not made the environment."""
    program.write_text(
        f"#!{sys.executable}\nfrom retail_ci.cli import instead_of_nbdev\ninstead_of_nbdev()\n"
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("target", ["env", "report"])
def test_make_installs_the_project_after_nbdev(target):
    plan = subprocess.run(
        ["make", "-n", "-B", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    last = [line for line in plan.splitlines() if ".ci/install " in line][-1]
    assert "--no-deps --force-reinstall --editable ." in last


def test_it_runs_in_an_empty_folder(installed, tmp_path):
    done = call(installed, tmp_path, "run", "--config", "small", "--to", "00e")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/small/to-00e/data/raw/transactions.csv").is_file() and [
        p.name for p in tmp_path.iterdir()
    ] == ["runs"]
    assert '"commit": null' in (tmp_path / "runs/small/to-00e/manifest.json").read_text()


def test_a_config_of_the_folder_goes_before_one_that_came_along(installed, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/small.yaml").write_text("data: {transactions: nothing.csv}\n")
    done = call(installed, tmp_path, "run", "--config", "small")
    assert done.returncode == 3 and f"{tmp_path}/nothing.csv does not exist" in done.stderr


@pytest.mark.parametrize(
    "words, code, sentence",
    [
        (("run", "--config", "smal"), 2, "did you mean 'small'"),
        (("run", "--config", "mine.yaml"), 2, "give an existing file or a name from configs/"),
        (("site",), 4, "run `retail-ci run --config default` first"),
        (("serve",), 4, "run `retail-ci run --config default` first"),
    ],
)
def test_what_cannot_be_done_there_is_one_sentence(installed, tmp_path, words, code, sentence):
    done = call(installed, tmp_path, *words)
    assert (
        done.returncode == code
        and sentence in done.stderr
        and done.stderr.count("\n") == 1
        and not list(tmp_path.iterdir())
    )


def test_copies_for_the_repository_are_refused_outside_it(installed, tmp_path):
    done = call(installed, tmp_path, "run", "--config", "small", "--publish", "--to", "00c")
    assert done.returncode == 2 and "reports/" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_package_is_named_with_what_to_type(installed, tmp_path):
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/pytest.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'pytest'\")\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from retail_ci.cli import main; main()",
            "run",
            "--config",
            "small",
            "--to",
            "00c",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'blocked'}{os.pathsep}{installed}"},
    )
    assert (
        done.returncode == 4
        and "needs the Python package pytest, which is not installed" in done.stderr
        and "pip install 'retail_ci[chain]'" in done.stderr
    )


# ---------------------------------------------------------------- what the extras are for

TOOL = "from retail_ci.cli import main; main()"
ANALYSIS = {"numpy", "pandas", "scipy", "sklearn", "duckdb", "pyarrow", "ibis", "matplotlib"}


@pytest.fixture(scope="module")
def library(installed, tmp_path_factory) -> Path:
    """The Python of an environment as `pip install` of the wheel alone makes it."""
    folder = tmp_path_factory.mktemp("environments") / "library"
    return make_environment(folder, closure(groups()["base"]), installed)


@pytest.fixture(scope="module")
def service(installed, tmp_path_factory) -> Path:
    """The Python of an environment that holds what serve.txt lists, and the wheel."""
    folder = tmp_path_factory.mktemp("environments") / "service"
    return make_environment(folder, set(locked(ROOT / "serve.txt")), installed)


def alone(python: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess:
    """Call the Python of an environment, which sees nothing of this one."""
    return subprocess.run(
        [python, "-I", *words], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    "code, kind, sentence",
    [
        (f"import sys; sys.argv[1:] = ['run']; {TOOL}", 2, "pip install 'retail_ci[chain]'"),
        (f"import sys; sys.argv[1:] = ['site']; {TOOL}", 2, "pip install 'retail_ci[chain]'"),
        (f"import sys; sys.argv[1:] = ['serve']; {TOOL}", 2, "pip install 'retail_ci[serve]'"),
        (
            f"import sys; sys.argv[1:] = ['check', 'sales.xlsx']; {TOOL}",
            2,
            "pip install 'retail_ci[excel]'",
        ),
        (
            f"import sys; sys.argv[1:] = ['check', 'postgresql://u@localhost/x#t']; {TOOL}",
            2,
            "pip install 'retail_ci[sql]'",
        ),
        (
            f"import sys; sys.argv[1:] = ['check', '--config', 'spark.yaml']; {TOOL}",
            2,
            "pip install 'retail_ci[spark]'",
        ),
        ("from retail_ci.core.show import pyplot; pyplot()", 1, "pip install 'retail_ci[chain]'"),
        (
            "import pandas as pd; from retail_ci.customers.features import _plot_heatmap; "
            "_plot_heatmap(pd.DataFrame())",
            1,
            "pip install 'retail_ci[chain]'",
        ),
        (
            "from retail_ci.serve.tracking import import_mlflow; import_mlflow()",
            1,
            "pip install 'retail_ci[mlops]'",
        ),
    ],
)
def test_a_missing_extra_is_one_sentence_with_the_command(library, tmp_path, code, kind, sentence):
    (tmp_path / "sales.xlsx").write_bytes(b"PK\x03\x04 not read")
    (tmp_path / "sales.csv").write_text("customer_id,date,amount\nC1,2025-01-01,3.50\n")
    (tmp_path / "spark.yaml").write_text("data: {transactions: sales.csv, engine: spark}\n")
    before = sorted(tmp_path.iterdir())
    done = alone(library, tmp_path, "-c", code)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == kind and sentence in last, done.stderr
    if kind == 2:
        assert no_traceback(done.stderr) and done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


ALONE = """
import importlib, pkgutil, sys
import numpy as np
import pandas as pd
import retail_ci
for module in pkgutil.walk_packages(retail_ci.__path__, "retail_ci."):
    if module.name not in ("retail_ci.serve.api", "retail_ci.serve.connections"):
        importlib.import_module(module.name)
log = pd.DataFrame({
    "customer_id": [f"C{i * 7 % 40:02d}" for i in range(200)],
    "product_id": [f"P{i * 3 % 25:02d}" for i in range(200)],
    "date": pd.date_range("2025-01-01", periods=200, freq="D"),
    "quantity": 1,
})
lists = retail_ci.HybridRecommender().fit(log).recommend(["C00", "C07"], k=3)
assert lists.groupby("customer_id").size().tolist() == [3, 3], lists
same = pd.DataFrame({"customer_id": range(100), "recency": range(100)})
assert (retail_ci.feature_drift(same, same)["psi"] == 0).all()
assert not {"matplotlib", "IPython", "papermill", "fastapi"} & set(sys.modules)
"""


def test_the_library_alone_imports_and_works(library, tmp_path):
    done = alone(library, tmp_path, "-c", ALONE)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """A folder with one bundle, as a run leaves it."""
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "v1", **tables("v1"), version="v1", depth=20)
    activate(folder, "v1")
    return folder


@contextlib.contextmanager
def answering(python: Path, bundles: Path, log: Path, **environment: str):
    """`retail-ci serve`, telling in a file what it imports; how to ask it."""
    port = free_port()
    words = ["serve", "--bundle", str(bundles), "--port", str(port)]
    with log.open("w") as told:
        process = subprocess.Popen(
            [python, "-X", "importtime", "-c", TOOL, *words],
            cwd=log.parent,
            env={"PATH": os.environ["PATH"], "RETAIL_CI_LOG": "off"} | environment,
            stdout=subprocess.DEVNULL,
            stderr=told,
        )

    def ask(path: str, body: dict | None = None) -> dict:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            body and json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return json.load(reply)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        with contextlib.suppress(urllib.error.URLError):
            return bool(ask("/health/ready"))
        return False

    try:
        wait_for(ready)
        yield ask
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.parametrize("where", ["with what serve.txt lists", "beside the whole library"])
def test_the_service_imports_nothing_of_the_analysis(where, service, installed, bundles, tmp_path):
    """`where` the packages for analysis are at hand, they are left alone."""
    environment = {}
    python = service
    if where == "beside the whole library":
        python, environment = sys.executable, {"PYTHONPATH": str(installed)}
    with answering(python, bundles, tmp_path / "imports", **environment) as ask:
        assert ask("/health")["status"] == "ok"
        asked = {"customer_id": "C00001", "last_purchased_product": "P0012", "n_recommendations": 7}
        assert len(ask("/recommend", asked)["recommendations"]) == 7
        assert ask("/segments/C00001")["segment"] == "Champions"
        assert ask("/segments")
    lines = (tmp_path / "imports").read_text().splitlines()
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if "|" in line}
    assert {"fastapi", "uvicorn", "retail_ci"} <= loaded
    assert not loaded & ANALYSIS
