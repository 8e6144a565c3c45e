"""A project in a temporary folder, with notebooks that do almost nothing, and a way to call the
command line there.
"""

import ast
import contextlib
import fcntl
import functools
import gc
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers

from retail_ci.cli import app
from retail_ci.pipeline import kernels

# A grammar of web addresses, which takes a second to build in every process of pytest and which no
# notebook needs; nbformat does without.
sys.modules["rfc3987_syntax"] = None
import nbformat

del sys.modules["rfc3987_syntax"]

if TYPE_CHECKING:
    import pandas as pd

# Two workers share the cores, and their tables are small: threads of the libraries below would only
# wait for each other. What a user's machine does, test_kernels.py tries with its own numbers.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# Expressions are trees of many small objects that live long enough: a search for cycles among each
# seven hundred of them finds none.
gc.set_threshold(50_000, 20, 20)
os.environ.setdefault(
    "RETAIL_CI_TRACKING", "off"
)  # MLflow has tests of its own; the others do not wait for it
# Spark's Java lives for a minute here: to compile its code thoroughly, to verify what is in Spark's
# own files, or to clear a small memory again and again would take more than it saves.
_JAVA = (
    "-XX:+IgnoreUnrecognizedVMOptions -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m "
    "-XX:MetaspaceSize=256m -XX:+UseSerialGC -Xms400m -Xmn250m -XX:+UnlockDiagnosticVMOptions "
    "-XX:-BytecodeVerificationRemote"
)
if os.environ.get("SPARK") != "own":
    os.environ.setdefault("SPARK_SUBMIT_OPTS", _JAVA)
hypothesis.settings.register_profile(
    "everywhere",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)  # by itself it does so only where CI is set
hypothesis.settings.load_profile("everywhere")
# Hypothesis also draws the constants of every module that happens to be loaded, so that its
# examples would depend on which tests ran before in the same process.
providers._get_local_constants = providers.Constants
ROOT = Path(__file__).parents[1]
RETAIL_CI = Path(sys.executable).parent / "retail-ci"
ODD_FOLDER = 'we {x} \'n "q" ünï'  # means something to papermill, SQL and a shell
OPEN = "from retail_ci.core.runs import open_run\nrun = open_run(config, run_dir)"
# Quarto is no Python package; the workflow's job `quarto` installs it and runs this file.
collect_ignore = [] if shutil.which("quarto") else ["test_quarto.py"]
# Seconds after which what was started is taken to hang; a slow or busy machine needs many.
PATIENCE = 1200
KERNEL = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}


# Files whose tests share one Java process: to start Spark and to run its code for the first time
# takes as long as most of them. They stay with one worker.
ON_SPARK = [
    *("test_three_engines", "test_oracle", "test_flags", "test_col", "test_store", "test_ids"),
    "test_spark_neighbours",
]
# Little data: no code is written and compiled for it, and no page or block is larger than what it
# holds. `SPARK=own` tries all with Spark's own settings (`make soak`).
SPARK_FOR_LITTLE = {
    "sql.shuffle.partitions": "2",
    "sql.adaptive.enabled": "false",
    "sql.codegen.wholeStage": "false",
    "sql.codegen.factoryMode": "NO_CODEGEN",
    "buffer.pageSize": "1m",
    "broadcast.blockSize": "64k",
}
LIGHT = {} if os.environ.get("SPARK") == "own" else SPARK_FOR_LITTLE


# What takes long, in seconds of a core: it is begun first, so that at the end no worker is left
# alone with a long one. All else is short.
LONG = {
    "test_browser": 155,
    "test_readme": 135,
    "test_check": 62,
    "test_forget": 60,
    "test_any_shop": 58,
    "test_oracle": 45,
    "test_engines": 40,
    "test_tracking": 37,
    "test_crash": 35,
    "test_api": 27,
    "test_ids": 27,
    "test_cases": 24,
    "test_wheel": 23,
    "test_damage": 21,
    "test_flags": 21,
    "test_col": 21,
    "test_site": 21,
    "test_chain": 20,
    "test_campaigns": 20,
    "test_store": 19,
    "test_recommend": 19,
    "test_public": 18,
    "test_read": 17,
    "test_three_engines": 17,
    "test_kernels": 17,
    "test_models": 16,
    "test_pipeline": 14,
    "test_bad_inputs": 11,
    "test_house": 10,
    "test_spark_neighbours": 9,
    "test_drift": 9,
    "test_export": 8,
    "test_sealed": 8,
    "test_content": 8,
    "test_lab": 7,
    "test_worth": 7,
    "test_connections": 7,
    "test_formats": 5,
    "test_registries": 5,
    "test_disks": 5,
    "test_segmentation": 5,
    "test_install": 5,
    "test_ranking": 5,
    "test_synthetic": 5,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; a file stays with one worker (`--dist loadfile`)."""
    items.sort(key=lambda item: (_scope(item.path.stem) != "spark", -LONG.get(item.path.stem, 0)))


def _scope(stem: str) -> str:
    """What stays with one worker: a file, or all that share a Java process."""
    return "spark" if stem in ON_SPARK else stem


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadfile`, with the files of `ON_SPARK` as one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FilesTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope(Path(super()._split_scope(nodeid)).stem)

    return FilesTogether(config, log)


@pytest.fixture(scope="module")
def spark(request, tmp_path_factory) -> Iterator:
    """Spark as `connect` opens it, for a file; the Java process below it is the worker's."""
    assert request.path.stem in ON_SPARK, "Add the file to ON_SPARK, or it starts Java once more."
    if importlib.util.find_spec("pyspark") is None or not shutil.which("java"):
        pytest.skip("pyspark or Java is not installed")
    from retail_ci.core.config import DataConfig
    from retail_ci.data.engines import close, connect

    spill = str(tmp_path_factory.mktemp("spark"))
    con = connect(DataConfig(engine="spark", threads=2, memory="1GB", spill=spill, spark=LIGHT))
    yield con
    close(con)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder for all workers of this call of pytest."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="module", autouse=True)
def settled_memory() -> None:
    """What is imported and made up to here stays: no search for cycles walks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def one_worker(request, shared_folder) -> None:
    """A file that two workers share makes all that it needs twice; that is an error."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "this one")
    claim = shared_folder / f"{request.path.stem}.worker"
    with one_at_a_time(shared_folder / "workers.lock"):
        if not claim.exists():
            claim.write_text(worker)
    assert claim.read_text() == worker, (
        "Another worker had this file: it has crashed, or pytest was not called as the Makefile "
        "does, with `--dist loadfile`."
    )


@pytest.fixture(autouse=True)
def the_search_path_stays() -> Iterator[None]:
    """Each test begins with the same search path, and none leaves another copy of the package on
    it: everything that is started later would import that one.
    """
    before = list(sys.path)
    yield
    left = [folder for folder in sys.path if folder not in before]
    sys.path[:] = before
    copies = [folder for folder in left if (Path(folder) / "retail_ci").exists()]
    assert not copies, f"left on the search path: {copies}"


def no_traceback(text: str) -> bool:
    return "Traceback" not in text and "  File " not in text


def wait_for(what: Callable[[], object], seconds: float = PATIENCE):
    """Wait until something is true; what it was."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} seconds")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@functools.cache
def server_for_all() -> kernels.Server:
    """The server of this process: what the first run needs would be all that it has ready."""
    return kernels.Server(kernels._ALWAYS + kernels._HEAVY + kernels._FITTED)


@dataclass
class Project:
    """A folder with configs/ and nbs/."""

    root: Path

    def notebook(self, name: str, *sources: str) -> Path:
        """Write a notebook; the run is opened in its first cell."""
        cells = [
            nbformat.v4.new_code_cell(
                'config = "small"\nrun_dir = ""', metadata={"tags": ["parameters"]}
            ),
            nbformat.v4.new_code_cell(OPEN),
        ]
        cells += [nbformat.v4.new_code_cell(source) for source in sources]
        path = self.root / "nbs" / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
        return path

    def config(self, text: str, name: str = "default") -> None:
        (self.root / "configs" / f"{name}.yaml").write_text(text)

    def start(self, *words: str, **env: str) -> subprocess.Popen:
        """Start the command line as a terminal does: in a process group of its own."""
        return subprocess.Popen(
            [RETAIL_CI, *words],
            cwd=self.root,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | env,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # also where the tests run in the background

    def call(self, *words: str, **env: str) -> subprocess.CompletedProcess:
        """Call the command line and wait; whatever happens, nobody sees a traceback."""
        process = self.start(*words, **env)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert no_traceback(out) and no_traceback(err), err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def here(self, *words: str) -> subprocess.CompletedProcess:
        """Call the command line within this process: its server of forked processes is used again,
        which is quicker.
        """
        if "run" in words[:1]:
            server_for_all()
        out = io.StringIO()
        err = io.StringIO()
        before = os.getcwd()
        os.chdir(self.root)
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as ended,
            ):
                app()(list(words))
        finally:
            os.chdir(before)
        assert no_traceback(out.getvalue()) and no_traceback(err.getvalue()), err.getvalue()
        return subprocess.CompletedProcess(
            words, ended.value.code or 0, out.getvalue(), err.getvalue()
        )

    def home(self, name: str = "default") -> Path:
        return self.root / "runs" / name

    def current(self, name: str = "default") -> str | None:
        link = self.home(name) / "current"
        return os.readlink(link) if link.is_symlink() else None

    def leftovers(self, name: str = "default") -> list[str]:
        return (
            [p.name for p in self.home(name).glob(".*") if p.name != ".lock"]
            if self.home(name).exists()
            else []
        )

    def only(self, name: str, *sources: str) -> None:
        """Leave one notebook, with these sources."""
        for path in (self.root / "nbs").iterdir():
            path.unlink()
        self.notebook(name, *sources)


def make_project(root: Path) -> Project:
    """Four notebooks: 01, then 02 and 03 beside each other, then the index."""
    made = Project(root)
    for folder in ("nbs", "configs"):
        (root / folder).mkdir(parents=True)
    made.config("seed: 42\n")
    made.notebook("01_cleaning", "run.write('data_metrics', {'kept': 3})")
    made.notebook(
        "02_features", "run.write('cut_points', {'kept': run.read('data_metrics')['kept']})"
    )
    made.notebook(
        "03c_segment_profiles",
        "run.write('segment_metrics', {'k': run.read('data_metrics')['kept']})",
    )
    made.notebook("index", "run.read('segment_metrics'), run.read('cut_points')")
    return made


def checkout(root: Path, *numbers: str) -> Project:
    """The project in another folder: all of it, or of some notebooks what a run needs: those with
    results, without their examples, which are run elsewhere.
    """
    shutil.copytree(
        ROOT,
        root,
        ignore=shutil.ignore_patterns(
            ".venv",
            ".git",
            ".model-reader",
            "runs",
            "_site*",
            "__pycache__",
            "*.egg-info",
            ".*_cache",
            ".hypothesis",
            "build",
            "dist",
        ),
    )
    for path in (root / "nbs").iterdir() if numbers else ():
        if path.name.startswith(numbers) and has_results(path):
            leave_examples_out(path)
        else:
            path.unlink()
    return Project(root)


def has_results(notebook: Path) -> bool:
    """Whether a notebook does anything for a run."""
    cells = nbformat.read(notebook, as_version=4).cells
    return any(
        c.cell_type == "code" and re.search(r"^#\|\s*chain\b", c.source, re.M) for c in cells
    )


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


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Hold a file's lock: the workers of pytest are processes."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_down(said: Path, *done: subprocess.CompletedProcess) -> None:
    """Keep for the other workers what commands said."""
    said.write_text(json.dumps([[d.args, d.returncode, d.stdout, d.stderr] for d in done]))


def read_again(said: Path) -> list[subprocess.CompletedProcess]:
    """What commands said to the worker that called them."""
    return [subprocess.CompletedProcess(*told) for told in json.loads(said.read_text())]


@dataclass(frozen=True)
class Small:
    """The finished run of the small config with the whole notebooks, its site, and what the two
    commands said.
    """

    project: Project
    ran: subprocess.CompletedProcess
    built: subprocess.CompletedProcess

    @property
    def run(self) -> Path:
        return self.project.home("small") / "current"


@pytest.fixture(scope="session")
def small(shared_folder) -> Small:
    """The small config, run once for all tests of all workers. They read it; who changes it takes a
    copy (`copy_of_small`).
    """
    project = Project(shared_folder / ODD_FOLDER)
    said = shared_folder / "small.json"
    with one_at_a_time(shared_folder / "small.lock"):
        if not said.exists():
            checkout(project.root)
            write_down(said, *(project.call(n, "--config", "small") for n in ("run", "site")))
    return Small(project, *read_again(said))


def copy_of_small(small: Small, root: Path) -> Project:
    """The same project with the same run at another place, to be changed."""
    assert small.ran.returncode == 0, small.ran.stderr
    shutil.copytree(small.project.root, root, symlinks=True, ignore=lambda *_: ["_site"])
    return Project(root)


@pytest.fixture
def fresh(tmp_path) -> Project:
    """A project that has not run yet."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def ran(shared_folder) -> tuple[Project, subprocess.CompletedProcess]:
    """One run of the project of four notebooks, for all workers, and what it said; not to be
    changed.
    """
    project = Project(shared_folder / "ran/project")
    said = shared_folder / "ran.json"
    with one_at_a_time(shared_folder / "ran.lock"):
        if not said.exists():
            write_down(said, make_project(project.root).call("run"))
    return project, *read_again(said)


@pytest.fixture
def project(ran, tmp_path) -> Project:
    """A project with a finished run, to be changed."""
    assert ran[1].returncode == 0, ran[1].stderr
    shutil.copytree(ran[0].root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@dataclass
class Server:
    """A PostgreSQL server of our own."""

    port: int
    folder: Path

    def url(self, table: str = "") -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres" + (
            f"#{table}" if table else ""
        )

    def sql(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.url()) as con:
            for statement in statements:
                con.execute(statement)

    def fill(self, table: str, rows: "pd.DataFrame", types: dict[str, str]) -> None:
        """Make a table of a frame."""
        import psycopg

        with psycopg.connect(self.url()) as con:
            con.execute(
                f"CREATE TABLE {table} ({', '.join(f'{c} {types[c]}' for c in rows.columns)})"
            )
            with con.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for row in rows.itertuples(index=False):
                    copy.write_row([None if v is None or v != v else v for v in row])


@pytest.fixture(scope="session")
def postgres():
    """PostgreSQL from Debian's package, on a free port of this machine only; stopped and removed
    afterwards.
    """
    import pwd
    import tempfile

    from small_service import free_port

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
    tools = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    who = {}
    if os.getuid() == 0:  # the server refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL will not run as root, and there is no user postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    port = free_port()

    def call(*words):
        return subprocess.run(
            words,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            **who,
        )

    try:
        call(
            tools / "initdb",
            "-D",
            folder / "data",
            "-U",
            "tester",
            "-A",
            "trust",
            "--no-sync",
            "--locale",
            "C",
            "-E",
            "UTF8",
        )
        call(
            tools / "pg_ctl",
            "-D",
            folder / "data",
            "-w",
            "-l",
            folder / "log",
            "-o",
            f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off",
            "start",
        )
        yield Server(port, folder)
    finally:
        if (folder / "data/postmaster.pid").exists():
            call(tools / "pg_ctl", "-D", folder / "data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


MODEL_READER = ROOT / ".model-reader/bin/python"


@pytest.fixture(scope="session")
def model_reader() -> Callable[..., list[dict]]:
    """What Microsoft's library says of models in folders: an answer for each, see
    model_reader.py.
    """
    if not (MODEL_READER.parents[1] / ".ready").exists():
        pytest.skip("Microsoft's library for Power BI models is not installed (make model-reader)")
    program = Path(__file__).with_name("model_reader.py")

    def read(*folders: Path) -> list[dict]:
        words = [MODEL_READER, program, *folders]
        result = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert result.returncode in (0, 1), result.stderr
        answers = json.loads(result.stdout)
        return [answers[str(folder)] for folder in folders]

    return read
