"""`.ci/install` without an index: by uv, told of what pip has been told of, or by pip alone."""

import os
import shutil
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import PATIENCE

ROOT = Path(__file__).parents[1]
SAID = "pip installs alone"


@pytest.fixture(scope="module")
def links(tmp_path_factory) -> Path:
    """A folder that holds one wheel, and no uv."""
    folder = tmp_path_factory.mktemp("links")
    facts = "Metadata-Version: 2.1\nName: nothing-much\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / "nothing_much-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nothing_much.py", "")
        wheel.writestr("nothing_much-1.0.dist-info/METADATA", facts)
        wheel.writestr("nothing_much-1.0.dist-info/WHEEL", kind)
        wheel.writestr("nothing_much-1.0.dist-info/RECORD", "")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """An environment with a pip, made once."""
    folder = tmp_path_factory.mktemp("made") / "an environment"
    venv.create(folder, with_pip=True, symlinks=True)
    return folder


@pytest.fixture
def environment(made) -> Path:
    """The environment as it was made."""
    for left in (*made.glob("bin/uv"), *made.glob("lib/python3*/site-packages/nothing_much.py")):
        left.unlink()
    for left in made.glob("lib/python3*/site-packages/nothing_much-*"):
        shutil.rmtree(left)
    return made


def pretend_uv(environment: Path, code: int) -> Path:
    """A uv that writes down how it was called, and ends with a code."""
    told = environment / "told"
    program = environment / "bin/uv"
    program.write_text(f'#!/bin/sh\nenv > "{told}"\necho "called: $*" >> "{told}"\nexit {code}\n')
    program.chmod(0o755)
    return told


def install(environment: Path, links: Path) -> subprocess.CompletedProcess:
    """Install the wheel with nothing but the folder to find it in."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}
    return subprocess.run(
        [ROOT / ".ci/install", environment, "nothing-much"],
        cwd=ROOT,
        env=kept | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def is_installed(environment: Path) -> bool:
    """Whether the wheel has come."""
    return bool(list(environment.glob("lib/python3*/site-packages/nothing_much.py")))


def test_where_uv_cannot_be_had_pip_installs_and_one_line_says_so(environment, links):
    done = install(environment, links)
    assert done.returncode == 0 and is_installed(environment), done.stderr
    assert SAID in done.stderr and done.stderr.count("\n") == 1


def test_uv_is_told_where_pip_looks(environment, links):
    told = pretend_uv(environment, 0)
    done = install(environment, links)
    assert (done.returncode, done.stderr) == (0, "")
    lines = told.read_text().splitlines()
    assert {f"UV_FIND_LINKS={links}", "UV_NO_INDEX=1"} <= set(lines)
    python = f"{environment}/bin/python"
    assert lines[-1] == f"called: pip install --python {python} nothing-much"
    assert not is_installed(environment)


def test_where_uv_gives_up_pip_tries(environment, links):
    pretend_uv(environment, 2)
    done = install(environment, links)
    assert done.returncode == 0 and is_installed(environment), done.stderr
    assert "uv has given up" in done.stderr


def test_what_neither_finds_is_an_error(environment, tmp_path):
    done = install(environment, tmp_path)
    assert done.returncode != 0 and "nothing-much" in done.stderr
