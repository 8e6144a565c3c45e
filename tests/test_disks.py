"""What disks, clocks and locks do to runs and bundles: one sentence, and nothing is lost.

Every call that changes names or waits for the disk fails once, as on a full disk. What is there
then is the old state or the new one, and the same command ends well once there is room.
"""

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from conftest import PATIENCE, RETAIL_CI, Project, make_project, no_traceback
from test_chain import no_override
from test_crash import small_run
from test_power import CALLS, publish_run
from test_tracking import FIRST, SECOND, finished_run, new_shop

from retail_ci.core.config import Config
from retail_ci.core.errors import RunError, translation
from retail_ci.core.runs import Run, check_run
from retail_ci.core.suppression import add_forgotten, read_forgotten
from retail_ci.export.ledger import draw_wave, list_waves
from retail_ci.pipeline.forget import _links_in
from retail_ci.pipeline.manifest import locked, prune
from retail_ci.serve.bundle import Bundle, current_bundle, self_test
from retail_ci.serve.promotion import only_one, promote, read_log, settle_pending, take_back

STEP = int(os.environ.get("STEP", "4"))  # of the many calls that finish a run; 1 in `make soak`


class Full(OSError):
    """What a full disk answers; our own, so that no other error is taken for it."""


@contextlib.contextmanager
def failing(at: int) -> Iterator[list[str]]:
    """Let the call number `at` fail, and all that follow; the calls that were made."""
    made: list[str] = []

    def watched(name: str) -> Callable:
        call = getattr(os, name)

        def wrapped(*args, **options):
            made.append(name)
            removes = name in ("unlink", "remove", "rmdir")
            if len(made) > at and not removes:  # a full disk lets go of files
                raise Full(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))
            return call(*args, **options)

        return wrapped

    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, watched(name)))
        yield made


def at_each_call(
    begin: Callable[[], Path], work: Callable[[Path], object], step: int = 1
) -> Iterator[Path]:
    """Begin anew for each call of some work, or every so many, and let it fail there."""
    with failing(10**9) as made:
        work(begin())
    for at in range(0, len(made), step):
        place = begin()
        with contextlib.suppress(Full, RunError), failing(at):
            work(place)
        yield place


def counted(root: Path, fill: Callable[[Path], object]) -> Callable[[], Path]:
    """Make the same folder again and again, each time under another name."""
    whole = root / "whole"
    whole.mkdir()
    fill(whole)

    def begin() -> Path:
        place = root / f"try{len(list(root.iterdir()))}"
        shutil.copytree(whole, place, symlinks=True)
        return place

    return begin


def test_a_run_on_a_full_disk(tmp_path):
    begin = counted(tmp_path, lambda place: publish_run(place / "shop", 1))
    for place in at_each_call(begin, lambda place: publish_run(place / "shop", 2), STEP):
        current = place / "shop/current"
        check_run(current)
        assert Run(Config(), current).read("data_metrics")["kept"] in (1, 2)
        publish_run(place / "shop", 3)
        assert Run(Config(), current).read("data_metrics")["kept"] == 3
        assert sorted(p.name for p in (place / "shop").iterdir()) == sorted(
            [".lock", "current", os.readlink(current)]
        ), "what was half done is cleared"


def test_a_rollback_on_a_full_disk(tmp_path):
    runs = [small_run(tmp_path / f"run{seed}", seed) for seed in (1, 2)]
    names = []

    def fill(place: Path) -> None:
        names.extend(promote(run, place, force="a trial")[1] for run in runs)

    (tmp_path / "tries").mkdir()
    begin = counted(tmp_path / "tries", fill)
    for place in at_each_call(begin, take_back):
        settle_pending(place)
        now = current_bundle(place)
        self_test(Bundle(now))
        promoted = [line["version"] for line in read_log(place) if line["promoted"]]
        assert promoted[-1] == now.name, "the log says what answers"
        if now.name == names[1]:
            take_back(place)
        assert current_bundle(place).name == names[0]
        assert promoted[:2] == names, "no line of the log is lost"


def test_a_wave_on_a_full_disk(tmp_path):
    people = pd.DataFrame({"customer_id": [f"C{n}" for n in range(30)], "segment": "Loyal"})
    lists = people.assign(group="send")

    def draw(place: Path, name: str = "summer", day: str = "2026-06-01") -> pd.DataFrame:
        return draw_wave(lists, name, place / "ledger", day=day).table

    begin = counted(tmp_path, lambda place: draw(place, "spring", "2026-03-01"))
    arms = draw(begin())["arm"].tolist()
    for place in at_each_call(begin, draw):
        assert list_waves(place / "ledger")["wave"].tolist() in (["spring"], ["spring", "summer"])
        assert draw(place)["arm"].tolist() == arms


def test_forgetting_on_a_full_disk(tmp_path):
    begin = counted(tmp_path, lambda place: add_forgotten(place, ["C1"]))
    for place in at_each_call(begin, lambda place: add_forgotten(place, ["C2"])):
        assert "C1" in read_forgotten(place)
        add_forgotten(place, ["C2"])
        assert {"C1" in read_forgotten(place), "C2" in read_forgotten(place)} == {True}


@pytest.mark.parametrize(
    "number,advice",
    [
        (errno.ENOSPC, "Free some space or correct the permissions"),
        (errno.EROFS, "Free some space or correct the permissions"),
        (errno.EDQUOT, "Free some space or correct the permissions"),
        (errno.EMFILE, "Allow more open files with `ulimit -n`"),
        (errno.ENFILE, "Allow more open files with `ulimit -n`"),
    ],
)
def test_what_a_disk_says_comes_with_advice(number, advice):
    said = translation(OSError(number, os.strerror(number), "x"), RunError, "Cannot use x")
    assert str(said) == f"Cannot use x: {os.strerror(number)}. {advice}, and try again."


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Project:
    """A shop whose first model answers, and whose second run is finished."""
    project = new_shop(tmp_path_factory.mktemp("shop"), enabled=False)
    run = finished_run(project, FIRST)
    promote(run, project.home("trial") / "serving", force="a trial")
    finished_run(project, SECOND, seed=1)
    return project


def small_files() -> None:
    """No file may grow beyond two thousand bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def few_handles() -> None:
    """Six open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))


def tree(folder: Path) -> dict[str, bytes | str]:
    """All that a folder holds; without the locks, in which a process writes its number."""
    paths = [p for p in folder.rglob("*") if p.is_symlink() or p.is_file()]
    return {
        p.relative_to(folder).as_posix(): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in paths
        if p.name != ".lock"
    }


@pytest.mark.parametrize("limit", [small_files, few_handles, no_override])
def test_a_promotion_without_room_files_or_permission(shop, tmp_path, limit):
    """The kernel's own limits: one sentence, and the model that answers goes on."""
    shutil.copytree(shop.root, tmp_path / "shop", symlinks=True)
    project = Project(tmp_path / "shop")
    serving = project.home("trial") / "serving"
    before = tree(serving)
    if limit is no_override:
        serving.chmod(0o555)
        (serving / ".lock").chmod(0o444)
    words = ["models", "promote", "--config", "trial", "--force", "a trial"]
    done = subprocess.run(
        [RETAIL_CI, *words],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=limit,
        env=os.environ | {"RETAIL_CI_TRACKING": "off"},
    )
    serving.chmod(0o755)
    assert done.returncode == 4 and no_traceback(done.stderr)
    told = [line for line in done.stderr.splitlines() if line.startswith("retail-ci: ")]
    assert len(told) == 1 and told[0].endswith("try again.")
    after = tree(serving)
    assert after == before or set(before.items()) <= set(after.items())
    self_test(Bundle(current_bundle(serving)))
    assert promote(
        Run(Config(name="trial"), project.home("trial") / SECOND), serving, force="a trial"
    )[0]


def test_a_run_needs_some_open_files(fresh):
    done = subprocess.run(
        [RETAIL_CI, "run"],
        cwd=fresh.root,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)),
    )
    assert done.returncode == 4 and done.stderr.count("\n") == 1
    assert "Too few files may be open at once: expected at least 256, found 20." in done.stderr
    assert not fresh.home().exists()


def test_a_clock_that_was_set_back(tmp_path):
    """The run that was made last is current and stays, whatever the others are called."""
    home = tmp_path / "shop"
    later = publish_run(home, 1).path.name
    a_year_ago = time.time_ns() - 365 * 86_400 * 10**9
    with mock.patch.object(time, "time_ns", lambda: a_year_ago):
        earlier = publish_run(home, 2).path.name
    assert earlier < later and os.readlink(home / "current") == earlier
    prune(home, 1)
    assert Run(Config(), home / "current").read("data_metrics")["kept"] == 2
    publish_run(home, 3)
    assert Run(Config(), home / "current").read("data_metrics")["kept"] == 3


def test_a_lock_of_a_dead_process_whose_number_is_in_use_again(tmp_path):
    for number in (os.getpid(), 1):
        (tmp_path / ".lock").write_text(str(number))
        with locked(tmp_path):
            assert (tmp_path / ".lock").read_text() == str(os.getpid())
        with only_one(tmp_path):
            assert current_bundle(tmp_path) is None


@pytest.mark.parametrize("hold", [locked, only_one])
def test_a_folder_in_place_of_the_link(tmp_path, hold):
    """As a copy that follows links leaves it; the run in it is not touched."""
    (tmp_path / "current").mkdir()
    (tmp_path / "current/manifest.json").write_text("{}")
    before = tree(tmp_path)
    with pytest.raises(RunError, match="current is a folder. Expected a link, .* move it away"):
        with hold(tmp_path):
            raise AssertionError("nothing begins")
    assert tree(tmp_path) == before


def test_a_link_in_place_of_a_folder(tmp_path):
    """Runs may lie on another disk; what a link points to elsewhere is named, and not removed."""
    (tmp_path / "disk/reports").mkdir(parents=True)
    (tmp_path / "runs").symlink_to("disk")
    home = tmp_path / "runs/shop"
    publish_run(home, 1)
    publish_run(home, 2)
    assert (tmp_path / "disk/shop/current/manifest.json").exists()
    (home / "powerbi").symlink_to("../reports")
    assert _links_in(home) == ["what the link shop/powerbi points to: ../reports"]
    prune(home, 1)
    assert (tmp_path / "disk/reports").is_dir() and (home / "powerbi").is_symlink()


def test_a_bundle_of_a_newer_version(shop, tmp_path):
    """It is refused by name; the model that answers goes on."""
    shutil.copytree(shop.home("trial") / "serving", tmp_path / "serving", symlinks=True)
    folder = current_bundle(tmp_path / "serving")
    papers = json.loads((folder / "manifest.json").read_text())
    papers.pop("seal", None)
    (folder / "manifest.json").write_text(json.dumps(papers | {"format": 99}))
    before = tree(tmp_path)
    with pytest.raises(RunError, match="has format 99, and this version reads up to 2. Install a"):
        Bundle(folder)
    assert tree(tmp_path) == before


def test_a_project_whose_runs_are_a_file(tmp_path):
    project = make_project(tmp_path / "project")
    (project.root / "runs").write_text("no folder")
    done = project.call("run")
    assert done.returncode == 4 and done.stderr.count("\n") == 1
    assert (project.root / "runs").read_text() == "no folder"
