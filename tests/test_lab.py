"""Notebooks by hand: JupyterLab finds them and the right kernel, and a notebook works from any
folder.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import nbformat
import pytest
from conftest import PATIENCE, Project, make_project
from small_service import free_port

ROOT = Path(__file__).parents[1]


def recipe(target: str) -> str:
    """What make would do."""
    return subprocess.run(
        ["make", "-n", target, "READY=", f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    """The environment of somebody whose own python3 kernel is another Python."""
    folder = tmp_path / "home"
    spec = folder / ".local/share/jupyter/kernels/python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [
                    "/usr/bin/nosuchpython",
                    "-m",
                    "ipykernel_launcher",
                    "-f",
                    "{connection_file}",
                ],
                "display_name": "Theirs",
                "language": "python",
            }
        )
    )
    return {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")} | {
        "HOME": str(folder),
        "JUPYTER_PLATFORM_DIRS": "0",
    }


@pytest.fixture
def lab(tmp_path, home):
    """JupyterLab as `make lab` starts it, without a browser: its address and its token."""
    command = [line for line in recipe("lab").splitlines() if "jupyter lab" in line][-1]
    port = free_port()
    token = secrets.token_hex(8)
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            f"exec env {command} --no-browser --allow-root --port={port} "
            f"--ServerApp.port_retries=0 --IdentityProvider.token={token}",
        ],
        cwd=ROOT,
        env=home,
        stdout=subprocess.DEVNULL,
        stderr=open(tmp_path / "log", "wb"),
        start_new_session=True,
    )
    try:
        yield lambda path: ask(
            process, tmp_path / "log", f"http://127.0.0.1:{port}/api/{path}", token
        )
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def ask(
    process: subprocess.Popen, log: Path, url: str, token: str, seconds: float = PATIENCE
) -> dict:
    """What the server says, once it listens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(
                Request(url, headers={"Authorization": f"token {token}"}), timeout=60
            ) as response:
                return json.load(response)
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


def test_the_lab_opens_on_the_notebooks_with_this_python(lab):
    names = {item["name"] for item in lab("contents")["content"]}
    assert {p.name for p in (ROOT / "nbs").glob("*.ipynb")} <= names
    specs = lab("kernelspecs")
    spec = specs["kernelspecs"][specs["default"]]["spec"]
    program = spec["argv"][0]
    assert specs["default"] == "python3" and spec["display_name"] != "Theirs"
    assert program in ("python", "python3") or os.path.samefile(program, sys.executable)


def test_the_lab_makes_the_small_run_first():
    assert re.search(
        r"\[ -e runs/small/current \] \|\| \S*retail-ci run --config small", recipe("lab")
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Project:
    """A project with a finished small run."""
    project = make_project(tmp_path_factory.mktemp("by-hand") / "project")
    project.config("seed: 42\n", "small")
    assert project.here("run", "--config", "small").returncode == 0
    return project


def by_hand(
    notebook: Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Execute a notebook as somebody would, without parameters."""
    return subprocess.run(
        [
            Path(sys.executable).parent / "jupyter",
            "nbconvert",
            "--to",
            "notebook",
            "--execute",
            "--output-dir",
            cwd,
            "--output",
            "out",
            notebook,
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=(env or dict(os.environ)) | {"JUPYTER_PREFER_ENV_PATH": "1"},
    )


def test_a_notebook_works_from_another_folder(done, tmp_path):
    ran = by_hand(done.root / "nbs/02_features.ipynb", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (done.home("small") / "by-hand/models/rfm_cut_points.json").is_file() and done.current(
        "small"
    )
    assert not (tmp_path / "runs").exists()


def test_papermill_from_another_folder_finds_the_checkouts_configs(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from retail_ci.core.config import "
                "load_config\nload_config('small').synthetic.lines"
            )
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}
        },
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    subprocess.run(
        [Path(sys.executable).parent / "papermill", "-k", "python3", "in.ipynb", "out.ipynb"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (
        nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0]["data"]["text/plain"] == "8000"
    )


def test_without_a_run_a_notebook_says_what_to_type(tmp_path):
    project = make_project(tmp_path / "fresh")
    project.config("name: never-run\n", "small")
    ran = by_hand(project.root / "nbs/02_features.ipynb", tmp_path)
    sentence = (
        "RunError: There is no finished run of 'never-run' yet; run `retail-ci run --config "
        "small` first."
    )
    assert (
        ran.returncode != 0
        and [line for line in ran.stderr.splitlines() if line.strip()][-1] == sentence
    )
