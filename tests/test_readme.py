"Every snippet of the README, run as a reader would: on the example's data, in a folder of its own."
import ast, json, os, re, shutil, socket, subprocess, sys
from contextlib import closing
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import Project, no_traceback, wait_for

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.M | re.S)
OURS = {"C00001": "00142", "P0012": "000012"}  # ids of the default run: ids of the example, on whose run the snippets are tried


def blocks(language: str, word: str = "") -> list[str]:
    "The README's snippets of a language, with the example's ids."
    found = [text for name, text in BLOCKS if name == language and word in text]
    for theirs, ours in OURS.items(): found = [text.replace(theirs, ours) for text in found]
    assert found, f"the README has no {language} snippet with {word!r}"
    return found


def without_examples(notebook: Path) -> None:
    "Take the worked examples out of a notebook, which nbdev_test runs: the text, what is exported, and the results stay."
    nb = nbformat.read(notebook, as_version=4)
    def stays(cell) -> bool:
        if cell.cell_type != "code" or re.search(r"^#\|\s*(export|chain)\b", cell.source, re.M) or "parameters" in cell.metadata.get("tags", []): return True
        return all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(cell.source).body)
    nb.cells = [cell for cell in nb.cells if stays(cell)]
    nbformat.write(nb, notebook)


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Project:
    "A checkout with its environment in .venv, as `make` leaves it."
    root = tmp_path_factory.mktemp("readme") / "a checkout"
    root.mkdir()
    for name in ("nbs", "configs", "assets", "examples"): shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for name in ("_quarto.yml", "Makefile"): shutil.copy(ROOT / name, root)
    for notebook in (root / "nbs").glob("0[0-8]*.ipynb"): without_examples(notebook)
    (root / ".venv").mkdir()
    (root / ".venv/bin").symlink_to(Path(sys.executable).parent)
    return Project(root)


def bash(project: Project, text: str, **more: object) -> str:
    "Run a snippet; what it printed."
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=project.root, capture_output=True, text=True, timeout=1800, **more)
    assert done.returncode == 0 and no_traceback(done.stdout + done.stderr), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(reader) -> Project:
    "The run and the report of the example, made by the README's words; the name default leads to it too."
    for text in blocks("bash", "examples/drogerie.yaml"): bash(reader, text)
    (reader.root / "runs/default").symlink_to("drogerie")
    return reader


def test_every_snippet_is_of_a_kind_that_is_run():
    assert {name for name, _ in BLOCKS} == {"bash", "python", "yaml"}
    tried = ("make ", "pip install ", "retail-ci ", "curl ")
    lines = [line.removeprefix(".venv/bin/") for name, text in BLOCKS if name == "bash" for line in text.splitlines()]
    assert not [line for line in lines if not line.startswith(tried)]


def test_the_two_commands_are_targets_of_make():
    for line in blocks("bash", "make report")[0].splitlines():
        target = line.split("#")[0].split()[1]
        assert f"make {target}" in subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        plan = subprocess.run(["make", "-n", target, "READY="], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {"report": "retail-ci run --publish", "test": "pytest"}[target] in plan


def test_the_checks_call_the_two_commands_in_a_newcomers_shell():
    "A shell that has set nothing: what is missing there is missing in the checks."
    ci = (ROOT / ".ci/run").read_text()
    for line in blocks("bash", "make report")[0].splitlines():
        assert f"bare {line.split('#')[0].strip()}" in ci
    (bare,) = re.findall(r"^bare\(\) .*$", ci, re.M)
    full = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PIP_INDEX_URL": "https://example.org/simple", "LANG": "C.UTF-8"}
    shown = subprocess.run(["bash", "-c", f"{bare}\nbare env"], env=full, capture_output=True, text=True, check=True).stdout
    assert {line.split("=")[0] for line in shown.splitlines()} == {"PATH", "HOME", "LANG"}


def test_the_wheel_is_tried_in_the_readmes_words():
    ci = (ROOT / ".ci/run").read_text()
    assert blocks("bash", "pip install")[0].split("\n")[1:3] == ["retail-ci run", "retail-ci site"]
    assert "retail-ci\" run --config small" in ci and "retail-ci\" site --config small" in ci


def test_what_is_in_the_example(reader):
    shown = bash(reader, blocks("bash", "retail-ci check examples/drogerie.csv")[0])
    proposed = yaml.safe_load(shown)["data"]
    assert (proposed["encoding"], proposed["delimiter"], proposed["decimal"], proposed["columns"]["customer_id"]) == ("cp1252", ";", ",", "Kunden-Nr")


def test_five_lines_of_yaml_describe_a_shop(reader):
    text = blocks("yaml")[0]
    assert len(text.splitlines()) == 5
    (reader.root / "configs/mine.yaml").write_text(text)
    (reader.root / "data/mine").mkdir(parents=True)
    for month in (1, 2):
        lines = [f"B{month}{i},c{i % 9},p{i % 7},{1 + i % 28:02d}/{month:02d}/2025 10:{i % 60:02d},{1 + i % 3},2.50" for i in range(60)]
        (reader.root / f"data/mine/{month}.csv").write_text("InvoiceNo,CustomerID,StockCode,InvoiceDate,Quantity,UnitPrice\n" + "\n".join(lines) + "\n")
    shown = reader.here("check", "--config", "mine")
    assert shown.returncode == 0 and "120 lines came in: 120 kept" in shown.stdout


def test_the_example_becomes_a_report(report):
    page = (report.root / "_site/index.html").read_text(encoding="utf-8")
    facts = json.loads((report.home("drogerie") / "current/metrics/data.json").read_text())
    assert facts["kept"] > 3900 and f"{facts['customers']:,}" in page and "€" in page


@pytest.mark.parametrize("place", re.findall(r"`runs/<config>/current/([^`]*)`", README))
def test_results_are_where_the_table_says(report, place):
    assert list((report.home("drogerie") / "current").glob(place.rstrip("/")))


def test_the_python_snippets(report):
    code = "\n".join(blocks("python")) + "\nprint(len(segments), len(offers), len(model.recommend(['00142'], k=10)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=report.root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    segments, offers, listed = map(int, done.stdout.split())
    assert segments > 200 and offers > segments and listed == 10


def test_the_api_answers_the_readmes_questions(report):
    with closing(socket.socket()) as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    promote, serve = blocks("bash", "models promote")[0].splitlines()
    bash(report, f"{promote} --force 'too few customers for the gate to be sure'")
    process = subprocess.Popen(["bash", "-c", f"exec {serve} --port {port}"], cwd=report.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert "Answering at" in process.stdout.readline()
        questions = [line.replace(":8000", f":{port}") for line in blocks("bash", "curl")[0].splitlines()]
        wait_for(lambda: subprocess.run(["bash", "-c", questions[0]], capture_output=True).returncode == 0)
        health, segment, offers = (json.loads(bash(report, line)) for line in questions)
    finally:
        process.terminate()
        process.wait(30)
    assert health["status"] == "ok" and segment["customer_id"] == "00142" and segment["segment"]
    assert len(offers["recommendations"]) == 10 and all(0 <= r["score"] <= 1 for r in offers["recommendations"])


def test_the_export_for_power_bi(report):
    bash(report, blocks("bash", "retail-ci export")[0])
    folder = report.home("drogerie") / "powerbi"
    assert (folder / "README.md").is_file() and list(folder.rglob("fact_sales.csv")) and list(folder.rglob("*.tmdl"))


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README): assert (ROOT / target).exists(), target


def test_the_one_places_of_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pairs = [(name, notebook) for names, notebook in re.findall(r"((?:`\w+`(?:, | and | or )?)+) in `(\w+\.ipynb)`", text) for name in re.findall(r"`(\w+)`", names)]
    assert len(pairs) >= 15
    for name, notebook in pairs:
        source = "\n".join("".join(c["source"]) for c in json.loads((ROOT / "nbs" / notebook).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
        assert re.search(rf"^(?:def |class )?{name}\b", source, re.M), f"{notebook} defines no {name}"


def test_the_workflows_do_what_the_papers_say():
    ci, release = (yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text()) for name in ("ci", "release"))
    assert ".ci/run" in [step.get("run") for step in ci["jobs"]["all"]["steps"]]
    steps = release["jobs"]["publish"]["steps"]
    assert release[True] == {"push": {"tags": ["v*"]}} and release["jobs"]["publish"]["permissions"] == {"id-token": "write"} and release["jobs"]["publish"]["needs"] == "build"
    assert any(step.get("uses", "").startswith("pypa/gh-action-pypi-publish@") for step in steps) and "password" not in str(steps)
    check = next(step["run"] for step in release["jobs"]["build"]["steps"] if "tag" in step.get("name", ""))
    version = re.search(r"^version = (\S+)$", (ROOT / "settings.ini").read_text(), re.M)[1]
    for tag, fits in ((f"v{version}", True), ("v999.0", False)):
        assert (subprocess.run(["bash", "-c", check], cwd=ROOT, env=os.environ | {"GITHUB_REF_NAME": tag}).returncode == 0) == fits
