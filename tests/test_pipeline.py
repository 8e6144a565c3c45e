"""The runner, seen from outside: order, refusals, interruptions, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE, Project, alive, no_traceback, wait_for

import retail_ci

WAIT = (
    "import os, time, pathlib\npathlib.Path({flag!r}).write_text(str(os.getpid()))\n"
    "time.sleep(1200)"
)
ONE = "run.write('data_metrics', {'kept': 3})"


def manifest(project, run="current"):
    return json.loads((project.home() / run / "manifest.json").read_text())


def run_well(project, *words):
    """A run that must succeed, with nothing on stderr."""
    result = project.here("run", *words)
    assert (result.returncode, result.stderr) == (0, "")
    return result


def interrupt(project, tmp_path, send):
    """Start a run whose only notebook waits, and interrupt it there; the process, what it said, and
    the kernel's id.
    """
    flag = tmp_path / "at-work"
    project.only("01_cleaning", WAIT.format(flag=str(flag)))
    process = project.start("run")
    kernel = int(wait_for(lambda: flag.exists() and flag.read_text()))
    assert alive(kernel)
    send(process)
    out, err = process.communicate(timeout=PATIENCE)
    return process, out, err, kernel


def test_a_run_is_whole_and_has_its_papers(ran):
    project, result = ran
    assert (result.returncode, result.stderr) == (0, "")
    assert all(
        name in result.stdout
        for name in (
            "01_cleaning",
            "02_features",
            "03c_segment_profiles",
            "index",
            "peak MiB",
            "runs/default/current",
        )
    )
    papers = manifest(project)
    run = project.home() / "current"
    assert (
        papers["run"] == project.current()
        and papers["seed"] == 42
        and papers["commit"] is None
        and papers["counts"] == {"kept": 3}
    )
    assert [n["name"] for n in papers["notebooks"]] == [
        "01_cleaning",
        "02_features",
        "03c_segment_profiles",
        "index",
    ]
    assert all(
        n["peak_mib"] > 30 and n["seconds"] > 0 and len(n["sha256"]) == 64
        for n in papers["notebooks"]
    )
    assert [a["path"] for a in papers["artifacts"]] == [
        "metrics/data.json",
        "metrics/segments.json",
        "models/rfm_cut_points.json",
    ]
    assert sorted(p.stem for p in (run / "executed").iterdir()) == [
        "01_cleaning",
        "02_features",
        "03c_segment_profiles",
        "index",
    ]
    assert (
        papers["versions"]["python"].startswith("3.")
        and list(papers["inputs"]) == ["synthetic"]
        and papers["config"]["name"] == "default"
    )
    assert not project.leftovers()
    assert not subprocess.run(
        ["pgrep", "-f", str(project.root)], capture_output=True, text=True
    ).stdout, "processes are left"


def test_nothing_of_a_run_depends_on_its_id_but_the_manifest(project):
    first = manifest(project)
    run_well(project)
    second = manifest(project)
    assert first["run"] != second["run"] and first["artifacts"] == second["artifacts"]


def test_rooms_that_need_not_each_other_run_side_by_side(fresh, tmp_path):
    meet = (
        "import time, pathlib\npathlib.Path({mine!r}).touch()\nend = time.monotonic() + 1200\n"
        "while not pathlib.Path({other!r}).exists():\n    assert time.monotonic() < end\n    "
        "time.sleep(.05)"
    )
    a = str(tmp_path / "a")
    b = str(tmp_path / "b")
    fresh.only("02_features", meet.format(mine=a, other=b), "run.write('cut_points', {})")
    fresh.notebook(
        "03c_segment_profiles", meet.format(mine=b, other=a), "run.write('segment_metrics', {})"
    )
    run_well(fresh)


def test_one_worker_runs_them_one_after_the_other_in_file_order(fresh, tmp_path):
    log = "open({log!r}, 'a').write({word!r})"
    fresh.only(
        "04_b",
        log.format(log=str(tmp_path / "log"), word="<b"),
        log.format(log=str(tmp_path / "log"), word=">"),
    )
    for name, word in (("04a_c", "c"), ("03_a", "a")):
        fresh.notebook(
            name,
            log.format(log=str(tmp_path / "log"), word=f"<{word}"),
            log.format(log=str(tmp_path / "log"), word=">"),
        )
    run_well(fresh, "--set", "runs.workers=1")
    assert (tmp_path / "log").read_text() == "<a><b><c>"


def test_the_kernel_is_this_python_whatever_a_user_has_registered(fresh, tmp_path, monkeypatch):
    spec = tmp_path / "jupyter/kernels/python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps(
            {
                "argv": ["/bin/false", "{connection_file}"],
                "display_name": "another",
                "language": "python",
            }
        )
    )
    fresh.only("01_cleaning", "import sys\nrun.write('data_metrics', {'python': sys.prefix})")
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    run_well(fresh)
    assert json.loads((fresh.home() / "current/metrics/data.json").read_text()) == {
        "python": sys.prefix
    }


def test_old_runs_go_and_the_current_one_stays(project):
    project.only("01_cleaning", ONE)
    for _ in range(2):
        run_well(project, "--set", "runs.keep=2")
    runs = sorted(p.name for p in project.home().iterdir() if p.name[0] == "2")
    assert len(runs) == 2 and project.current() == runs[-1]


def test_to_stops_and_does_not_become_current(project):
    before = project.current()
    shown = run_well(project, "--to", "01").stdout
    assert "runs/default/to-01/" in shown and project.current() == before
    assert (project.home() / "to-01/metrics/data.json").exists() and not (
        project.home() / "to-01/metrics/segments.json"
    ).exists()
    run_well(project, "--to", "01")
    assert [p.name for p in project.home().glob("to-*")] == ["to-01"] and not manifest(
        project, "to-01"
    )["complete"]


def test_from_takes_over_what_is_the_same(project):
    old = project.home() / project.current()
    project.notebook(
        "03c_segment_profiles",
        "run.write('segment_metrics', {'k': 1 + run.read('data_metrics')['kept']})",
    )
    run_well(project, "--from", "03c")
    new = project.home() / project.current()
    for name in ("metrics/data.json", "executed/02_features.ipynb"):
        assert (new / name).read_bytes() == (old / name).read_bytes() and not os.path.samefile(
            old / name, new / name
        )
    assert (
        json.loads((old / "metrics/segments.json").read_text()),
        json.loads((new / "metrics/segments.json").read_text()),
    ) == ({"k": 3}, {"k": 4})
    assert [n.get("from") for n in manifest(project)["notebooks"]] == [
        old.name,
        old.name,
        None,
        None,
    ]
    assert [a["path"] for a in manifest(project)["artifacts"]] == [
        "metrics/data.json",
        "metrics/segments.json",
        "models/rfm_cut_points.json",
    ]


@pytest.mark.parametrize(
    "words, sentence",
    [(["--set", "seed=7"], "seed is 7, was 42"), (["--set", "rfm.bins=4"], "rfm.bins is 4, was 5")],
)
def test_from_refuses_another_config(project, words, sentence):
    before = project.current()
    result = project.here("run", "--from", "03c", *words)
    assert result.returncode == 4 and sentence in result.stderr and project.current() == before


def test_from_needs_a_finished_run(fresh):
    result = fresh.here("run", "--from", "03c")
    assert result.returncode == 4 and "no finished run of 'default' to start from" in result.stderr


def test_from_refuses_a_changed_notebook_and_a_changed_input(project):
    project.notebook("02_features", "2 + 2")
    result = project.here("run", "--from", "03c")
    assert result.returncode == 4 and "notebook 02_features has changed" in result.stderr
    project.only("01_cleaning", ONE)
    project.notebook("02_features", "run.write('cut_points', {})")
    (project.root / "sales.csv").write_text("customer_id\n1\n")
    project.config("data: {transactions: sales.csv}\n")
    run_well(project)
    (project.root / "sales.csv").write_text("customer_id\n2\n")
    result = project.here("run", "--from", "02")
    assert (
        result.returncode == 4 and "the input transactions/sales.csv has changed" in result.stderr
    )


def test_from_works_after_the_folder_was_moved(project, tmp_path):
    (project.root / "sales.csv").write_text("customer_id\n1\n")
    project.config("data: {transactions: sales.csv}\n")
    run_well(project)
    moved = Project(project.root.rename(tmp_path / "another place"))
    run_well(moved, "--from", "03c")
    assert [bool(n.get("from")) for n in manifest(moved)["notebooks"]] == [True, True, False, False]
    (moved.root / "sales.csv").write_text("customer_id\n2\n")
    result = moved.here("run", "--from", "03c")
    assert result.returncode == 4
    assert "the input transactions/sales.csv has changed" in result.stderr


def test_parts_of_one_name_are_all_fingerprinted(project):
    for year in (2024, 2025):
        (project.root / f"sales/year={year}").mkdir(parents=True)
        (project.root / f"sales/year={year}/part.csv").write_text(f"customer_id\n{year}\n")
    project.config("data: {transactions: sales}\n")
    run_well(project)
    (project.root / "sales/year=2024/part.csv").write_text("customer_id\n2023\n")
    result = project.here("run", "--from", "03c")
    assert result.returncode == 4
    assert "the input transactions/year=2024/part.csv has changed" in result.stderr


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--from", "07"], "Unknown notebook number '07'"),
        (["--to", "9"], "Unknown notebook number '9'"),
        (["--from", "03c", "--to", "02"], "comes after --to 02"),
        (["--set", "rfm.bin=4"], "did you mean 'bins'"),
        (["--set", "rfm.bins"], "must look like key=value"),
        (["--config", "defualt"], "did you mean 'default'"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_runs(fresh, words, sentence):
    result = fresh.here("run", *words)
    assert (
        result.returncode == 2
        and sentence in result.stderr
        and result.stderr.count("\n") == 1
        and not fresh.home().exists()
    )


def test_a_second_run_is_refused_and_the_first_goes_on(fresh, tmp_path):
    flag = tmp_path / "at-work"
    go = tmp_path / "go"
    fresh.only(
        "01_cleaning",
        f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\nwhile not "
        f"pathlib.Path({str(go)!r}).exists(): time.sleep(.05)",
        ONE,
    )
    first = fresh.start("run")
    wait_for(flag.exists)
    second = fresh.here("run")
    assert (
        second.returncode == 4
        and f"Another run of 'default' is in progress (process {first.pid})" in second.stderr
    )
    go.touch()
    assert (
        first.communicate(timeout=PATIENCE)[1] == "" and first.returncode == 0 and fresh.current()
    )


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_leaves_nothing_and_the_last_good_run(project, tmp_path, sign):
    before = project.current()
    send = (
        (lambda p: os.killpg(p.pid, sign))
        if sign == signal.SIGINT
        else (lambda p: p.send_signal(sign))
    )
    process, out, err, kernel = interrupt(project, tmp_path, send)
    assert (
        process.returncode == 130
        and err == "retail-ci: Stopped. The last good run is untouched.\n"
        and no_traceback(out)
    )
    assert (
        project.current() == before
        and not project.leftovers()
        and not (project.home() / "failed").exists()
    )
    wait_for(lambda: not alive(kernel))


def test_a_killed_run_leaves_the_last_good_one_and_the_next_run_cleans_up(project, tmp_path):
    before = project.current()
    papers = manifest(project)
    process, _, _, kernel = interrupt(project, tmp_path, lambda p: p.kill())
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not alive(kernel))
    assert (
        project.current() == before
        and manifest(project) == papers
        and len(project.leftovers()) == 1
    )
    project.only("01_cleaning", ONE)
    run_well(project)
    assert project.current() != before and not project.leftovers()


@pytest.mark.parametrize(
    "source, code, sentence",
    [
        (
            "from retail_ci.core.errors import DataError\nraise DataError('K must be at most 4, "
            "found 5; set segmentation.k.')",
            3,
            "retail-ci: K must be at most 4, found 5; set segmentation.k.\n",
        ),
        (
            "from retail_ci.core.errors import ConfigError\nraise ConfigError('No such model.')",
            2,
            "retail-ci: No such model.\n",
        ),
        (
            "{}['day']",
            1,
            "Notebook 01_cleaning failed in cell 4: KeyError: 'day'. The executed copy is "
            "runs/default/failed/01_cleaning.ipynb.\n",
        ),
        ("1 +", 1, "Notebook 01_cleaning failed in cell 4: SyntaxError"),
        (
            "import os\nraise OSError(28, os.strerror(28), 'features.parquet')",
            4,
            "could not write: [Errno 28] No space left on device: 'features.parquet'",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", 1, "want of memory"),
    ],
)
def test_a_failed_notebook_is_one_sentence(project, source, code, sentence):
    before = project.current()
    project.only("01_cleaning", source)
    result = project.here("run")
    assert (
        result.returncode == code and sentence in result.stderr and result.stderr.count("\n") == 1
    )
    assert project.current() == before and not project.leftovers()
    assert (project.home() / "failed/01_cleaning.ipynb").exists() == ("SIGKILL" not in source)


def test_a_failure_ends_what_runs_beside_it(fresh, tmp_path):
    flag = tmp_path / "at-work"
    fresh.only("02_features", WAIT.format(flag=str(flag)))
    fresh.notebook(
        "01_cleaning",
        f"import pathlib, time\nwhile not pathlib.Path({str(flag)!r}).exists(): time.sleep(.05)",
        "1 / 0",
    )
    assert fresh.here("run").returncode == 1
    wait_for(lambda: not alive(int(flag.read_text())))


def test_a_missing_or_empty_source_is_found_out_before_anything_runs(fresh):
    fresh.config("data: {transactions: sales.csv}\n")
    result = fresh.here("run")
    assert (
        result.returncode == 3
        and "sales.csv does not exist" in result.stderr
        and not fresh.home().exists()
    )
    (fresh.root / "sales.csv").touch()
    result = fresh.here("run")
    assert (
        result.returncode == 3
        and "sales.csv is empty" in result.stderr
        and not fresh.home().exists()
    )


def test_a_place_that_cannot_be_written(fresh):
    (fresh.root / "runs").write_text("a file")
    result = fresh.here("run")
    assert (
        result.returncode == 4
        and "Cannot write" in result.stderr
        and "runs" in result.stderr
        and result.stderr.count("\n") == 1
    )


def test_a_folder_without_notebooks(fresh):
    for notebook in (fresh.root / "nbs").iterdir():
        notebook.unlink()
    result = fresh.here("run")
    assert result.returncode == 4 and "There are no notebooks" in result.stderr


def test_only_the_default_run_goes_into_reports(project):
    project.only("01_cleaning", ONE)
    run_well(project, "--publish")
    assert json.loads((project.root / "reports/metrics/data.json").read_text()) == {"kept": 3}
    result = project.here("run", "--publish", "--set", "seed=1")
    assert (
        result.returncode == 2
        and "--publish works only with an unchanged configs/default.yaml" in result.stderr
    )


def test_site_needs_a_run(fresh):
    result = fresh.here("site")
    assert result.returncode == 4 and "retail-ci run --config default" in result.stderr


FROM_HERE = """
import sys
del sys.path[0]  # the working directory
from retail_ci.pipeline.kernels import _ALWAYS, _HEAVY, Server, set_environment
server = Server(_ALWAYS + _HEAVY)
server.ready.wait()
told = "import retail_ci.core.show; print(retail_ci.__file__)"
with set_environment(server.variables):
    process = server.context().Process(target=exec, args=(told,))
    process.start()
process.join()
"""


def test_the_server_takes_no_package_from_the_working_directory(tmp_path):
    """A folder that is called like the package, such as a checkout that is removed later."""
    (tmp_path / "retail_ci").mkdir()
    (tmp_path / "retail_ci/__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", FROM_HERE], cwd=tmp_path, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == Path(retail_ci.__file__), done.stderr
