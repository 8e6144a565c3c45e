"""A finished run stays as it is, whoever opens it; notebooks by hand work in a scratch run that
says what it is.
"""

import contextlib
import ctypes
import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import KERNEL, Project, make_project

from retail_ci.cli import COMMANDS
from retail_ci.core import show
from retail_ci.core.config import load_config
from retail_ci.core.errors import ConfigError, RunError
from retail_ci.core.runs import Run, open_run, save, sha256

LINE = "This is a scratch run, made by hand from "
PARAMETERS = 'config = "small"\nrun_dir = ""\nsettings = []'


def contents(folder: Path) -> dict[str, str]:
    """Every file of a run, links followed, with the hash of its bytes."""
    real = folder.resolve()
    return {
        p.relative_to(real).as_posix(): sha256(p) for p in sorted(real.rglob("*")) if p.is_file()
    }


def bits_count() -> None:
    """Permission bits do not stop root; give that up, as far as the program to come is
    concerned.
    """
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def with_settings(project: Project) -> None:
    """Give the notebooks the parameters cell of the chain, and have 02 say which window it was
    asked for.
    """
    for path in (project.root / "nbs").glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        notebook.cells[0].source = PARAMETERS
        notebook.cells[
            1
        ].source = (
            "from retail_ci.core.runs import open_run\nrun = open_run(config, run_dir, settings)"
        )
        if path.stem == "02_features":
            notebook.cells[2].source = (
                "run.write('cut_points', {'window': run.config.rfm.window_days, 'kept': "
                "run.read('data_metrics')['kept']})"
            )
        nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Project:
    """A finished run of the config small; tests leave it as it is."""
    project = make_project(tmp_path_factory.mktemp("sealed") / "project")
    project.config("seed: 42\n", "small")
    with_settings(project)
    assert project.here("run", "--config", "small").returncode == 0
    return project


@pytest.fixture(autouse=True)
def untouched(done) -> Iterator[None]:
    """After each test the finished run holds the files that it held before, to the byte."""
    before = contents(done.home("small") / "current")
    assert "manifest.json" in before and "models/rfm_cut_points.json" in before
    yield
    assert contents(done.home("small") / "current") == before


@pytest.fixture
def papermill(tmp_path, monkeypatch) -> Callable[..., str]:
    """A way to execute a notebook with papermill, in another folder; what the error says, if there
    is one. (test_readme.py calls the program, with the words that CONTRIBUTING.md has for it.)
    """
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")

    def execute(notebook: Path, **parameters: object) -> str:
        from papermill import execute_notebook

        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        with inside(tmp_path / "elsewhere"):
            try:
                execute_notebook(
                    notebook, "out.ipynb", parameters, kernel_name="python3", progress_bar=False
                )
            except Exception as error:
                return str(error).rstrip()
        return ""

    return execute


def second(project: Project) -> Path:
    return project.root / "nbs/02_features.ipynb"


def cuts(project: Project, run: str = "by-hand") -> dict:
    return json.loads((project.home("small") / run / "models/rfm_cut_points.json").read_text())


def test_every_file_of_a_finished_run_is_read_only(done):
    run = done.home("small") / "current"
    assert {oct(p.stat().st_mode & 0o222) for p in run.resolve().rglob("*") if p.is_file()} == {
        "0o0"
    }
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(
            ["sh", "-c", "echo more >> metrics/data.json"],
            cwd=run,
            check=True,
            stderr=subprocess.DEVNULL,
            preexec_fn=bits_count,
        )


@pytest.mark.parametrize(
    "way",
    [
        "runs/small/current",
        "runs/small/{id}",
        "runs/small/../small/current",
        "link",
        "links/current",
        "{root}/runs/small/current",
    ],
)
def test_a_finished_run_is_not_written_whichever_way_it_is_reached(done, way, tmp_path):
    import matplotlib.pyplot as plt

    os.symlink(done.home("small") / "current", tmp_path / "link")
    os.symlink(done.home("small"), tmp_path / "links")
    os.symlink(done.root / "runs", tmp_path / "runs")
    way = way.format(id=done.current("small"), root=done.root)
    with inside(tmp_path):
        read_only = [
            open_run(run_dir=way),
            open_run("small", way),
            Run(load_config(done.root / "configs/small.yaml"), Path(way)),
        ]
        for run in read_only:
            assert run.read("data_metrics") == {"kept": 3}
            for write in (
                lambda: run.write("data_metrics", {}),
                lambda: run.target("features"),
                lambda: show.save_figure(plt.figure(), "01_pareto", run, "", ""),
            ):
                with pytest.raises(
                    RunError,
                    match=(
                        "is finished, and a finished run is never changed; leave run_dir out, "
                        "and the notebook writes to a scratch run"
                    ),
                ):
                    write()
        for name in ("metrics/data.json", "new/deep/table.json", "manifest.json"):
            with pytest.raises(RunError, match="never changed"):
                save({}, Path(way) / name)
    plt.close("all")


def test_a_place_beside_a_finished_run_is_written(done, tmp_path):
    assert save({"a": 1}, done.home("small") / "evaluation/facts.json").is_file()
    assert (
        Run(load_config(done.root / "configs/small.yaml"), done.home("small") / "other")
        .write("data_metrics", {})
        .is_file()
    )


@pytest.mark.parametrize("where", ["{root}/runs/small/current", "here"])
def test_papermill_with_a_finished_run_as_its_folder_is_refused(done, where, tmp_path, papermill):
    (tmp_path / "elsewhere").mkdir()
    os.symlink(done.home("small") / "current", tmp_path / "elsewhere/here")
    said = papermill(second(done), run_dir=where.format(root=done.root))
    assert said.endswith("leave run_dir out, and the notebook writes to a scratch run.")


def test_papermill_says_that_a_notebook_without_results_takes_no_settings(
    tmp_path, papermill, caplog
):
    from papermill.inspection import inspect_notebook

    notebooks = sorted((Path(__file__).parents[1] / "nbs").glob("*.ipynb"))
    deaf = [
        n
        for n in notebooks
        if "settings" in inspect_notebook(n)
        and "open_run(config, run_dir, settings)" not in n.read_text(encoding="utf-8")
    ]
    assert len(notebooks) > 30 and deaf == []
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                'config = "small"\nrun_dir = ""', metadata={"tags": ["parameters"]}
            )
        ],
        metadata=KERNEL,
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    assert papermill(tmp_path / "in.ipynb", settings="rfm.nothing=4") == ""
    assert "Passed unknown parameter: settings" in caplog.text


def test_a_run_that_is_not_there_or_that_takes_no_settings_is_one_sentence(done, tmp_path):
    with (
        inside(tmp_path),
        pytest.raises(
            RunError,
            match="There is no run in 'runs/nowhere', as seen from .*Leave run_dir empty",
        ),
    ):
        open_run("small", "runs/nowhere", [])
    with pytest.raises(ConfigError, match="settings and run_dir cannot be combined"):
        open_run("small", str(done.home("small") / "current"), ["rfm.bins=4"])


def test_a_notebook_with_its_own_parameters_writes_to_the_scratch_run(done):
    from nbclient import NotebookClient

    notebook = nbformat.read(done.root / "nbs/02_features.ipynb", 4)
    NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(done.root / "nbs")}},
    ).execute()
    said = [
        o["text"]
        for c in notebook.cells
        for o in c.get("outputs", [])
        if o["output_type"] == "stream"
    ]
    assert (
        len(said) == 1
        and said[0].startswith(LINE + done.current("small"))
        and said[0].count("\n") == 1
    )
    assert cuts(done) == {"window": 365, "kept": 3}


def test_an_executed_notebook_of_a_run_that_is_run_again_says_what_to_do(done):
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    file = done.home("small") / "current/executed/02_features.ipynb"
    with pytest.raises(
        CellExecutionError,
        match="There is no run in .*partial.*Leave run_dir empty to work in a scratch run",
    ):
        NotebookClient(
            nbformat.read(file, 4),
            timeout=1200,
            kernel_name="python3",
            resources={"metadata": {"path": str(file.parent)}},
        ).execute()


# A list as `-y` gives it, and its text as `-p` gives it.
@pytest.mark.parametrize("settings", [["rfm.window_days=90"], '["rfm.window_days=90"]'])
def test_papermill_changes_a_setting_from_any_folder(done, settings, tmp_path, papermill):
    config = str(done.root / "configs/small.yaml")
    assert papermill(second(done), config=config, settings=settings) == ""
    assert cuts(done)["window"] == 90 and cuts(done, "current")["window"] == 365
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["out.ipynb"]


def test_the_environment_names_the_project(done, tmp_path, monkeypatch, papermill):
    monkeypatch.setenv("RETAIL_CI_ROOT", str(done.root))
    assert papermill(second(done), config="small") == ""
    with inside(tmp_path):
        assert open_run("small").path == (done.home("small") / "current").resolve()
    monkeypatch.setenv("RETAIL_CI_ROOT", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="RETAIL_CI_ROOT must name the project's folder"):
        open_run("small")


def test_papermill_refuses_a_setting_that_does_not_exist(done, papermill):
    scratch = contents(done.home("small") / "by-hand")
    config = str(done.root / "configs/small.yaml")
    said = papermill(second(done), config=config, settings=["rfm.windw_days=90"])
    assert said.splitlines()[-1] == (
        "ConfigError: Unknown config key 'windw_days' in rfm; did you mean 'window_days'?"
    )
    assert contents(done.home("small") / "by-hand") == scratch


def test_a_scratch_run_says_so_and_is_read_only_where_it_is_asked_for(done, capsys):
    with inside(done.root):
        scratch = open_run("small", "", ["rfm.window_days=90"])
        scratch.write("cut_points", {"window": 90})
        assert capsys.readouterr().err.startswith(
            f"{LINE}{done.current('small')} with rfm.window_days=90: "
        )
        good = open_run("small")
        assert good.read("cut_points")["window"] == 365 and capsys.readouterr().err == ""
        again = open_run(run_dir="runs/small/by-hand")
        assert (
            again.read("cut_points") == {"window": 90}
            and again.read("data_metrics") == {"kept": 3}
            and again.config.rfm.window_days == 90
        )
        said = capsys.readouterr().err
        assert (
            said.startswith(LINE)
            and said.count("\n") == 1
            and "open_run('small') reads the finished one" in said
        )


def test_what_stands_in_a_scratch_run_belongs_together(done, capsys):
    with inside(done.root):
        first = open_run("small", "", ["rfm.window_days=90"])
        first.write("cut_points", {"window": 90})
        assert open_run("small", "", ["rfm.window_days=90"]).read("cut_points") == {"window": 90}
        assert open_run("small", "").read("cut_points")["window"] == 365
        with pytest.raises(
            RunError,
            match=(
                "was cleared since this notebook opened it, .* run the notebook again from its "
                "first cell"
            ),
        ):
            first.write("cut_points", {})
    assert not list(done.home("small").glob(".by-hand*"))


def test_a_new_run_clears_the_scratch_run_and_a_part_of_one_does_not(project, capsys):
    with inside(project.root):
        scratch = open_run("default", "")
        scratch.write("cut_points", {"kept": 0})
        assert (
            project.here("run", "--to", "01").returncode == 0
            and (project.home() / "by-hand/models/rfm_cut_points.json").is_file()
        )
        assert project.here("run").returncode == 0 and not (project.home() / "by-hand").exists()
        with pytest.raises(RunError, match="was cleared since"):
            scratch.write("cut_points", {})
        assert not (project.home() / "by-hand").exists() and open_run("default").read(
            "cut_points"
        ) == {"kept": 3}


def test_a_scratch_run_that_outlived_its_run_is_never_read(project, capsys):
    with inside(project.root):
        open_run("default", "").write("cut_points", {"kept": 0})
        os.rename(project.home() / "by-hand", project.root / "spared")
        assert project.here("run").returncode == 0
        os.rename(project.root / "spared", project.home() / "by-hand")
        assert open_run("default", "").read("cut_points") == {"kept": 3} and open_run(
            "default"
        ).read("cut_points") == {"kept": 3}


def test_who_may_not_write_beside_the_run_is_told_so(done):
    home = done.home("small")
    program = (
        "from retail_ci.core.runs import open_run\ntry: open_run('small', '', ['rfm.bins=3'])\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    home.chmod(0o555)
    try:
        said = subprocess.run(
            [sys.executable, "-c", program],
            cwd=done.root,
            capture_output=True,
            text=True,
            preexec_fn=bits_count,
            check=True,
        ).stdout
    finally:
        home.chmod(0o755)
    assert said.startswith("RunError Cannot write the scratch run ") and "Permission denied" in said


COMMANDS_IN_A_ROW = """
import json, sys
from retail_ci.cli import app
for words in json.loads(sys.argv[1]):
    try:
        app()(["run", *words])
    except SystemExit as end:
        assert not end.code, words
"""


def test_the_runner_goes_on_where_permission_bits_count(project):
    """Over what it has sealed itself; in one process, which is quicker."""
    words = [
        ["--from", "03c"],
        ["--to", "02"],
        ["--to", "02"],
        ["--fresh", "--set", "runs.keep=1"],
    ]
    ran = subprocess.run(
        [sys.executable, "-c", COMMANDS_IN_A_ROW, json.dumps(words)],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=1200,
        preexec_fn=bits_count,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (
        sorted(p.name for p in project.home().iterdir() if p.name[0] == "2") == [project.current()]
        and not project.leftovers()
    )
    assert (
        subprocess.run(["rm", "-rf", "runs"], cwd=project.root, preexec_fn=bits_count).returncode
        == 0
        and not project.home().exists()
    )


def test_a_notebook_that_changes_what_it_was_given_does_not_change_the_run_that_gave_it(project):
    old = project.home() / project.current()
    before = contents(old)
    project.notebook(
        "03c_segment_profiles",
        "run.write('segment_metrics', {'k': 1})",
        "with run.file('data_metrics').open('a') as file: file.write(' ')",
    )
    ran = project.here("run", "--from", "03c")
    assert ran.returncode == 0, ran.stderr
    assert project.current() != old.name and contents(old) == before
    assert (project.home() / "current/metrics/data.json").read_text().endswith("\n ")


def test_a_run_is_not_made_within_a_finished_one(done):
    (done.root / "runs/inner").symlink_to("small/current")
    try:
        ran = done.here("run", "--config", "small", "--set", "name=inner")
    finally:
        (done.root / "runs/inner").unlink()
    assert ran.returncode == 4 and "never changed; give the run another name" in ran.stderr


def needed(function: Callable) -> list[str]:
    """What a command asks for besides its config and --out."""
    return {"check": ["sales.csv"], "recommend": ["--all"]}.get(function.__name__, [])


@pytest.mark.parametrize(
    "function",
    [f for f in COMMANDS if "out" in inspect.signature(f).parameters],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize(
    "place", ["runs/small/current/metrics/data.json", "runs/small/by-hand/../current/new/place.csv"]
)
def test_no_command_writes_into_a_finished_run(done, function, place):
    ran = done.here(
        *function.__name__.split("_"), *needed(function), "--config", "small", "--out", place
    )
    assert (
        ran.returncode == 4
        and ran.stderr.startswith("retail-ci: Cannot write ")
        and ran.stderr.count("\n") == 1
    ), ran.stderr
    assert ran.stderr.rstrip().endswith(
        "is finished, and a finished run is never changed; give another place to --out."
    )


def test_an_error_of_ours_is_one_sentence_in_a_notebook(done, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        shell.run_cell(
            "from retail_ci.core.errors import RunError\ndef fail(): raise RunError('Nothing is "
            "there; run it.')\nfail()"
        )
    assert said.getvalue().strip() == "RunError: Nothing is there; run it."
    monkeypatch.setenv("RETAIL_CI_DEBUG", "1")
    with contextlib.redirect_stdout(said):
        shell.run_cell("fail()")
    assert "in fail" in said.getvalue()
