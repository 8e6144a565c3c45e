"""House rules: what holds for every notebook and every module."""

import ast
import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest

import retail_ci
from retail_ci.core.config import Config
from retail_ci.core.runs import ARTEFACTS, FIGURES
from retail_ci.pipeline.chain import chain, code, number, order, reads
from retail_ci.recommend.interactions import Interactions

ROOT = Path(__file__).parents[1]
NBS = ROOT / "nbs"
NOTEBOOKS = sorted(NBS.glob("*.ipynb"))
NUMBERED = [p for p in NOTEBOOKS if p.stem != "index"]
CHAIN = chain(NBS)


@cache
def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def flagged(cell: dict, flag: str) -> bool:
    return cell["cell_type"] == "code" and bool(re.search(rf"^#\|\s*{flag}\b", source(cell), re.M))


def module(notebook: Path) -> str | None:
    found = re.search(r"^#\|\s*default_exp\s+([\w.]+)", code(notebook), re.M)
    return found and found[1]


def python(cell: dict) -> str:
    """A cell without the lines that only IPython reads."""
    return "\n".join(
        "pass" if re.match(r"\s*[%!]", line) else line for line in source(cell).splitlines()
    )


def imported(text: str) -> set[str]:
    """The modules of this package that a piece of code imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "retail_ci":
            path = node.module.split(".")[1:]
            names |= {".".join(path)} | {".".join([*path, a.name]) for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {
                a.name.removeprefix("retail_ci.")
                for a in node.names
                if a.name.startswith("retail_ci.")
            }
    return names


MODULES = {module(p): number(p) for p in NUMBERED if module(p)}


def test_every_numbered_notebook_has_its_number_and_module_once():
    assert len({number(p) for p in NUMBERED}) == len(NUMBERED), "two notebooks share a number"
    exported = [p for p in NUMBERED if any(flagged(c, "export") for c in cells(p))]
    assert len({module(p) for p in exported}) == len(exported), (
        "two notebooks export the same module"
    )


def code_cells(*flags: str) -> Iterator[tuple[Path, dict, str]]:
    """Notebook, cell and Python of each cell of code; with flags, of those that have one of
    them.
    """
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            if cell["cell_type"] == "code" and (not flags or any(flagged(cell, f) for f in flags)):
                yield notebook, cell, python(cell)


def start(cell: dict) -> str:
    """The beginning of a cell, to find it by."""
    return repr(source(cell)[:80])


def none(offenders: list[str]) -> None:
    """A rule holds where nobody breaks it; who does is named, all at once."""
    assert not offenders, "\n".join(offenders)


def test_imports_come_from_lower_numbers():
    none(
        [
            f"{notebook.stem} imports {name}, which comes later"
            for notebook, _, text in code_cells()
            if notebook in NUMBERED
            for name in sorted(imported(text) & set(MODULES) - {module(notebook)})
            if MODULES[name] >= number(notebook)
        ]
    )


def test_no_star_imports():
    star = re.compile(r"^\s*from\s+\S+\s+import\s+\*", re.M)
    none([p.stem for p in NOTEBOOKS if star.search(code(p))])


def test_imports_stand_in_cells_of_their_own():
    mixed = []
    for notebook, cell, text in code_cells("export"):
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(text).body}
        if len(kinds) == 2:
            mixed.append(f"{notebook.stem}: a cell mixes imports with code: {start(cell)}")
    none(mixed)


def takes_parameters(notebook: Path) -> bool:
    """Whether a notebook opens the run that it is told; another spelling is an offence."""
    return any(
        "open_run(config, run_dir, settings)" in source(c)
        for c in cells(notebook)
        if flagged(c, "chain")
    )


def test_chain_notebooks_take_config_and_run():
    wrong = []
    for notebook in CHAIN:
        tagged = [
            source(c) for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])
        ]
        wanted = '#| hide\nconfig = "small"\nrun_dir = ""'
        if takes_parameters(notebook):
            # elsewhere nothing reads them, and papermill says that it does not know them
            wanted += "\nsettings = []"
        kernel = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["kernelspec"]
        if tagged != [wanted]:
            wrong.append(f"{notebook.stem}: its parameters are {tagged}")
        if (kernel["name"], kernel["language"]) != ("python3", "python"):
            wrong.append(f"{notebook.stem}: its kernel is {kernel}")
    none(wrong)


def test_no_cell_gives_a_parameter_another_value():
    wrong = [
        f"{notebook.stem}: a run is opened otherwise: {start(cell)}"
        for notebook, cell, text in code_cells("chain")
        if "open_run(" in text and "open_run(config, run_dir, settings)" not in text
    ]
    for notebook, cell, text in code_cells():
        if "parameters" in cell["metadata"].get("tags", []) or not takes_parameters(notebook):
            continue
        names = {
            n.id
            for statement in ast.parse(text).body
            if not isinstance(statement, (ast.FunctionDef, ast.ClassDef))
            for n in ast.walk(statement)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        if names & {"config", "run_dir", "settings"}:
            wrong.append(f"{notebook.stem}: a cell cannot be run twice: {start(cell)}")
    none(wrong)


def test_source_notebooks_carry_no_outputs():
    none(
        [
            f"{notebook.stem}: a cell has outputs: {start(cell)}"
            for notebook in NOTEBOOKS
            for cell in cells(notebook)
            if cell.get("outputs") or cell.get("execution_count")
        ]
    )


def test_cell_ids_are_unique():
    ids = {p.stem: [c["id"] for c in cells(p)] for p in NOTEBOOKS}
    none([name for name, found in ids.items() if len(set(found)) < len(found)])


def test_directives_have_no_colon_after_export():
    colon = re.compile(r"^#\|\s*export\s*:", re.M)
    none([p.stem for p in NOTEBOOKS if colon.search(code(p))])


def test_results_define_nothing():
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    none(
        [
            f"{notebook.stem}: a result cell defines {node.name}"
            for notebook, _, text in code_cells("chain")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, definitions)
        ]
    )


def is_sentence(node: ast.expr) -> bool:
    """Whether a text, or the end of one that is put together, ends as a sentence does."""
    last = node.values[-1] if isinstance(node, ast.JoinedStr) else node
    return isinstance(last, ast.Constant) and last.value.endswith(".")


def test_a_failed_check_of_a_result_says_what_was_found():
    """A user's shop meets the result cells: `check_result` stops it with a sentence, an assert with
    a bare AssertionError.
    """
    wrong = []
    for notebook, _, text in code_cells("chain"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assert):
                wrong.append(f"{notebook.stem} asserts; use check_result: {ast.unparse(node)}")
            checks = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_result"
            if checks and not is_sentence(node.args[1]):
                wrong.append(f"{notebook.stem}: not a sentence: {ast.unparse(node.args[1])}")
    none(wrong)


def statements(function: ast.AST) -> int:
    """The statements of a body, its docstring and those of inner functions among them."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1


def test_bodies_have_at_most_25_statements():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    none(
        [
            f"{notebook.stem}: {node.name} ({statements(node)})"
            for notebook, _, text in code_cells("export")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, functions) and statements(node) > 25
        ]
    )


def depth(node: ast.AST, outer: int = 0) -> int:
    """How many blocks stand within each other; an `elif` is no deeper than its `if`."""
    blocks = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.FunctionDef, ast.Match)
    deepest = outer
    for child in ast.iter_child_nodes(node):
        chained = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        inner = outer + (isinstance(child, blocks) and not chained)
        deepest = max(deepest, depth(child, inner))
    return deepest


def test_of_a_hundred_functions_95_have_at_most_two_levels_of_blocks():
    depths = {
        f"{notebook.stem}: {node.name}": depth(node)
        for notebook, _, text in code_cells("export")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    deep = [name for name, levels in depths.items() if levels > 2]
    assert len(depths) > 1000
    assert len(deep) <= 0.05 * len(depths), "\n".join(deep)


def test_no_conditional_in_a_conditional_and_no_named_lambda():
    wrong = []
    for notebook, _, text in code_cells("export"):
        for node in ast.walk(ast.parse(text)):
            nested = isinstance(node, ast.IfExp) and any(
                isinstance(part, ast.IfExp) for part in (node.body, node.orelse)
            )
            named = isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)
            if nested or named:
                wrong.append(f"{notebook.stem}: {ast.unparse(node)[:80]}")
    none(wrong)


BUILD = ("Makefile", "Containerfile", "setup.py", "pytest.ini", "_quarto.yml", ".ci", ".github")


def lines_of_code() -> Iterator[tuple[str, str]]:
    """Where, and a line: notebooks, tests, benchmarks, pages, configs, and what builds it all."""
    for notebook, cell, _ in code_cells():
        yield from ((notebook.stem, line) for line in source(cell).splitlines())
    for path in files_of_code():
        text = path.read_text(encoding="utf-8")
        yield from ((path.name, line) for line in text.splitlines())


def files_of_code() -> list[Path]:
    """The files beside the notebooks that a person writes."""
    patterns = ("tests/*.py", "benchmarks/*.py", "assets/*.js", "assets/*.css", "configs/*.yaml")
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    for name in BUILD:
        place = ROOT / name
        found += place.rglob("*") if place.is_dir() else [place]
    return sorted(path for path in found if path.is_file())


# An address, a picture in letters, and the markup of a page as another program writes it.
DATA = re.compile(r"https?://|[\w+/=]{60,}|^(</?\w[^>]*>)+")


def test_lines_have_at_most_100_signs():
    """But for data and addresses, which have no place to be broken at."""
    none(
        [
            f"{name}: {line.strip()[:80]}"
            for name, line in lines_of_code()
            if len(line) > 100 and not DATA.search(line)
        ]
    )


def test_no_cell_is_commented_out():
    wrong = []
    for notebook, cell, _ in code_cells():
        lines = [line.lstrip() for line in source(cell).splitlines() if line.strip()]
        if lines and all(re.match(r"#(?!\|)", line) for line in lines):
            wrong.append(f"{notebook.stem}: {lines[0]!r}")
    none(wrong)


STATEMENTS = "#| export\ndef long():\n" + "    x = 1\n" * 26
OFFENCES = [  # a rule, and a cell that breaks it
    (test_imports_come_from_lower_numbers, "from retail_ci.cli import app"),
    (test_no_star_imports, "from os import *"),
    (test_imports_stand_in_cells_of_their_own, "#| export\nimport os\nx = 1"),
    (test_chain_notebooks_take_config_and_run, 'config = "small"'),
    (test_no_cell_gives_a_parameter_another_value, "#| chain\nrun = open_run(config, run_dir)"),
    (test_cell_ids_are_unique, "the id of both"),
    (test_directives_have_no_colon_after_export, "#| export: x\nx = 1"),
    (test_results_define_nothing, "#| chain\nif True:\n    def f(): ..."),
    (test_a_failed_check_of_a_result_says_what_was_found, "#| chain\nassert run"),
    (test_a_failed_check_of_a_result_says_what_was_found, '#| chain\ncheck_result(run, "no")'),
    (test_bodies_have_at_most_25_statements, STATEMENTS),
    (test_lines_have_at_most_100_signs, "words = '" + "word " * 20 + "'"),
    (test_no_cell_is_commented_out, "# x = 1"),
]


@pytest.fixture
def offender(tmp_path, monkeypatch) -> Callable[..., None]:
    """A way to let the rules look at one notebook alone, made of these cells."""

    def write(*sources: str, **more: object) -> None:
        cell = {"cell_type": "code", "id": "same", "metadata": {}, "outputs": []} | more
        kernel = {"kernelspec": {"name": "python3", "language": "python"}}
        path = tmp_path / "00_offender.ipynb"
        made = {"cells": [cell | {"source": [text]} for text in sources], "metadata": kernel}
        path.write_text(json.dumps(made), encoding="utf-8")
        for name in ("NOTEBOOKS", "NUMBERED", "CHAIN"):
            monkeypatch.setitem(globals(), name, [path])

    return write


@pytest.mark.parametrize("rule, text", OFFENCES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_rule_names_who_breaks_it(rule, text, offender):
    offender(text, "1")
    with pytest.raises(AssertionError, match="00_offender"):
        rule()


def test_an_output_is_named(offender):
    offender("1", execution_count=1)
    with pytest.raises(AssertionError, match="00_offender: a cell has outputs"):
        test_source_notebooks_carry_no_outputs()


def public_functions():
    for notebook in NUMBERED:
        for cell in cells(notebook):
            if not flagged(cell, "export"):
                continue
            for node in ast.parse(python(cell)).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith(
                    "_"
                ):
                    yield notebook, node


def test_public_functions_have_types_and_a_docstring():
    missing = []
    for notebook, node in public_functions():
        if not ast.get_docstring(node):
            missing.append(f"{notebook.stem}: {node.name} has no docstring")
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            missing += [
                f"{notebook.stem}: {node.name}({a.arg}) has no type"
                for a in arguments
                if not a.annotation and a.arg not in ("self", "cls")
            ]
            if not node.returns:
                missing.append(f"{notebook.stem}: {node.name} has no return type")
    assert not missing, "\n".join(missing)


def annotated(thing: object) -> Iterator[object]:
    """A public function; or a class, with what it defines under public names and `__init__`."""
    yield thing
    if not isinstance(thing, type):
        return
    for name, part in vars(thing).items():
        part = getattr(part, "fget", None) or getattr(part, "func", part)
        part = getattr(part, "__func__", part)
        if inspect.isfunction(part) and (name == "__init__" or not name.startswith("_")):
            yield part


def test_the_hints_of_every_public_name_resolve():
    resolved = {}
    broken = []
    for notebook, node in public_functions():
        found = importlib.import_module(f"retail_ci.{module(notebook)}")
        for part in annotated(getattr(found, node.name)):
            name = f"{found.__name__}.{part.__qualname__}"
            try:
                resolved[name] = typing.get_type_hints(part)
            except (NameError, AttributeError, TypeError, SyntaxError) as e:
                broken.append(f"{name}: {e}")
    assert not broken, "\n".join(broken)
    assert resolved["retail_ci.core.config.load_config"]["return"] is Config
    assert resolved["retail_ci.recommend.base.Recommender"]["data_"] is Interactions
    assert resolved["retail_ci.recommend.base.Recommender.recommend"]["k"] is int
    assert resolved["retail_ci.recommend.interactions.Interactions.popular"]["return"] is np.ndarray


def test_every_artefact_that_is_read_has_an_earlier_maker():
    needs = order(CHAIN)
    names = [p.stem for p in CHAIN]
    for name, before in needs.items():
        assert all(names.index(b) < names.index(name) for b in before), (
            f"{name} reads what a later notebook makes"
        )
    makers = {number(p) for p in CHAIN}
    for notebook in CHAIN:
        unmade = {a for a in reads(notebook) if ARTEFACTS[a].maker not in makers}
        assert not unmade, f"{notebook.stem} reads {unmade}, which no notebook makes"


def test_every_artefact_is_written_by_its_maker_and_nobody_else():
    wrote = {}
    for notebook in CHAIN:
        text = "\n".join(source(c) for c in cells(notebook) if flagged(c, "chain"))
        for name in re.findall(r"""\brun\.(?:write|target)\(\s*["'](\w+)["']""", text):
            wrote.setdefault(name, set()).add(number(notebook))
    assert not set(wrote) - set(ARTEFACTS), f"unknown artefacts: {set(wrote) - set(ARTEFACTS)}"
    for name, makers in wrote.items():
        assert makers == {ARTEFACTS[name].maker}, (
            f"{name} is written by {makers}, and the table says {ARTEFACTS[name].maker}"
        )


def figures_of(text: str) -> list[str]:
    """The names under which a piece of code saves figures."""
    calls = [
        n
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "save_figure"
    ]
    return [ast.literal_eval(call.args[1]) for call in calls]


def test_every_figure_is_drawn_by_its_maker_and_nobody_else():
    drawn = []
    for notebook in CHAIN:
        for cell in cells(notebook):
            if flagged(cell, "chain"):
                drawn += [(name, number(notebook)) for name in figures_of(python(cell))]
    assert sorted(drawn) == sorted(FIGURES.items())


def test_the_runner_is_no_part_of_what_it_runs():
    later = [p for p in NUMBERED if number(p)[:2] >= "09"]
    assert later and not set(later) & set(CHAIN) and CHAIN[-1].stem == "index"
    assert not any(flagged(c, "chain") for p in later for c in cells(p))


def test_the_package_shows_its_public_names_and_nothing_else():
    version = re.search(r"^version = (\S+)$", (ROOT / "settings.ini").read_text(), re.M)[1]
    assert retail_ci.__version__ == version
    assert len(dir(retail_ci)) <= 25
    zones = [m.name for m in pkgutil.iter_modules(retail_ci.__path__) if m.ispkg]
    for zone in zones:
        package = importlib.import_module(f"retail_ci.{zone}")
        assert 3 <= len(dir(package)) <= 12, zone
        assert all(getattr(package, name) is not None for name in dir(package)), zone
    assert all(getattr(retail_ci, name) is not None for name in dir(retail_ci))


def test_the_package_is_what_the_notebooks_export(tmp_path):
    for name in ("nbs", "retail_ci"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for name in ("settings.ini", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(
        [Path(sys.executable).parent / "nbdev_export"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    fresh, committed = (
        {p.relative_to(top).as_posix(): p.read_text(encoding="utf-8") for p in top.rglob("*.py")}
        for top in (tmp_path / "retail_ci", ROOT / "retail_ci")
    )
    assert committed == fresh


def test_the_command_line_imports_nothing_heavy():
    out = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-c",
            "import retail_ci.core.config, retail_ci.core.runs, retail_ci.core.show, retail_ci.cli",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    loaded = {
        line.rsplit("|", 1)[1].strip().split(".")[0] for line in out.splitlines() if "|" in line
    }
    allowed = (
        set(sys.stdlib_module_names)
        | {
            "yaml",
            "_yaml",
            "lazy_loader",
            "retail_ci",
            "imported package",
            "sitecustomize",
            "usercustomize",
        }
        | {"org"}
    )  # `pickle` asks for Jython's org.python
    assert {"retail_ci", "yaml"} <= loaded
    heavy = loaded - allowed - before_anything()
    assert not heavy, f"imported at start: {heavy}"


def test_importing_the_package_takes_no_time():
    """The median of five, in milliseconds, of what `python -X importtime` says of it."""
    took = []
    for _ in range(5):
        said = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import retail_ci"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        (line,) = [row for row in said.splitlines() if row.endswith("| retail_ci")]
        took.append(int(line.split("|")[1]) / 1000)
    assert sorted(took)[2] < 50, took


def before_anything() -> set[str]:
    """What this environment loads before any program: .pth files of editable installs and
    the like.
    """
    out = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "pass"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    return {
        line.rsplit("|", 1)[1].strip().split(".")[0] for line in out.splitlines() if "|" in line
    }


def test_the_help_answers():
    out = subprocess.run(
        [Path(sys.executable).parent / "retail-ci", "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert out.returncode == 0 and not out.stderr
    for words in ("generate", "run", "site", "Examples:", "Exit codes:"):
        assert words in out.stdout


# Warnings

# of the kind that is passed over in silence where nobody asks for more
NEW = "import warnings\nwarnings.warn('this is new', DeprecationWarning)\n"
NAMED = (
    "import warnings\nwarnings.warn_explicit('PySpark does not yet fully support pandas >= "
    "3.0.0.', FutureWarning, 'conversion.py', 1, module='pyspark.sql.pandas.conversion')\n"
)
CASES = [(NEW, 1), (NAMED, 0)]


@pytest.mark.parametrize("body, status", CASES)
def test_a_warning_that_nobody_named_fails_its_test(body, status, tmp_path):
    lines = body.splitlines()
    (tmp_path / "test_one.py").write_text(f"{lines[0]}\ndef test_one():\n    {lines[1]}\n")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        ROOT / "pytest.ini",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status, done.stdout
    assert ("this is new" in done.stdout) == bool(status)


@pytest.mark.parametrize("body, status", CASES)
def test_a_warning_that_nobody_named_fails_its_notebook(body, status, tmp_path):
    shutil.copy(ROOT / "settings.ini", tmp_path)
    (tmp_path / "retail_ci").mkdir()
    (tmp_path / "nbs").mkdir()
    for name in ("00_one", "01_two"):  # two, so that they run in workers
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(body)],
            metadata={
                "kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}
            },
        )
        nbformat.write(notebook, tmp_path / f"nbs/{name}.ipynb")
    words = [sys.executable, ROOT / "tests/notebooks.py", "--n_workers", "2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ("this is new" in done.stderr) == bool(status)
