"""What each extra brings: nothing that is not imported, and nothing is imported that it lacks."""

import ast
import functools
import importlib.metadata
import json
import re
import sys

import pytest
from environments import ROOT, applies, closure, groups, locked, modules_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from retail_ci.core.errors import EXTRAS, missing_package

PACKAGE = ROOT / "retail_ci"
GROUPS = groups()
USED = ("base", "chain", "serve", "mlops", "spark", "sql", "excel", "fast")
HELD = {
    "sqlglot": "Ibis imports it; a later one breaks create_table",
    "fastcore": "nbdev and execnb import it; 2 breaks them",
    "ghapi": "nbdev imports it; a later one breaks it",
}  # requirements that only hold a version
STARTED = {
    "uvloop": "uvicorn takes it where it is there",
    "httptools": "uvicorn takes it where it is there",
    "psycopg": "Ibis imports it for PostgreSQL",
    "httpx2": "starlette's test client imports it",
    "itables": "the tables' JavaScript is read from its files",
}  # requirements that are used without an import
# where a module leaves what its zone has: the extras that it also uses, inside functions
ZONES = {"report": {"chain"}, "pipeline": {"chain"}}
ALSO = {
    "cli.py": {"serve"},
    "core/runs.py": {"chain"},
    "core/show.py": {"chain"},
    "customers/features.py": {"chain"},
    "customers/migration.py": {"chain"},
    "data/engines.py": {"spark"},
    "data/sources.py": {"excel", "sql"},
    "recommend/collaborative.py": {"fast"},
    "serve/api.py": {"serve"},
    "serve/connections.py": {"serve"},
    "serve/registry.py": {"mlops"},
    "serve/tracking.py": {"mlops"},
}


def third_party(names: list[ast.AST]) -> set[str]:
    """The first names of what imports bring, lazy ones too, without Python's own and ours."""
    found = set()
    for node in names:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_loader.load":
            found.add(node.args[0].value)
    return found - set(sys.stdlib_module_names) - {"retail_ci"}


@functools.cache
def imports(source: str) -> tuple[set[str], set[str]]:
    """What a module imports: anywhere, and as soon as it is imported itself."""
    tree = ast.parse(source)
    return third_party(list(ast.walk(tree))), third_party(tree.body)


SOURCES = {
    p.relative_to(PACKAGE).as_posix(): p.read_text(encoding="utf-8")
    for p in sorted(PACKAGE.rglob("*.py"))
    if "_project" not in p.parts
}


def brought_by(extra: str) -> set[str]:
    """The modules that the requirements of an extra bring themselves."""
    needed = [r for r in map(Requirement, GROUPS[extra]) if applies(r)]
    return modules_of({canonicalize_name(r.name) for r in needed})


BROUGHT = {extra: brought_by(extra) for extra in USED}


def notebook_imports() -> set[str]:
    """What the cells of the notebooks import."""
    found = set()
    for notebook in sorted((ROOT / "nbs").glob("*.ipynb")):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                code = "".join(line for line in cell["source"] if not line.startswith(("%", "!")))
                found |= imports(code)[0]
    return found


@pytest.mark.parametrize("extra", USED)
def test_no_requirement_that_nothing_imports(extra):
    imported = set().union(*(imports(source)[0] for source in SOURCES.values()))
    if extra == "chain":
        imported |= notebook_imports()
    for requirement in filter(applies, map(Requirement, GROUPS[extra])):
        name = canonicalize_name(requirement.name)
        modules = modules_of({name})
        assert modules & imported or name in HELD or name in STARTED, (
            f"{requirement} is in settings.ini ({extra}), and nothing imports {sorted(modules)}"
        )


def test_what_is_held_or_started_is_required():
    required = {canonicalize_name(Requirement(r).name) for e in USED for r in GROUPS[e]}
    assert HELD.keys() | STARTED.keys() <= required


@pytest.mark.parametrize("name", SOURCES)
def test_every_import_belongs_to_what_its_zone_needs(name):
    anywhere, at_once = imports(SOURCES[name])
    extras = ZONES.get(name.partition("/")[0], set()) | ALSO.get(name, set())
    allowed = set().union(*(BROUGHT[extra] for extra in extras | {"base"}))
    assert anywhere <= allowed, f"{name} imports {anywhere - allowed}, which {extras} do not bring"
    if name not in ("serve/api.py", "serve/connections.py"):
        late = at_once - BROUGHT["base"]
        assert not late, f"{name} imports {late} at its top; import it in the function that uses it"


def test_no_module_has_an_extra_that_it_does_not_use():
    for name, extras in ALSO.items():
        beyond = imports(SOURCES[name])[0] - BROUGHT["base"]
        for extra in extras:
            assert beyond & BROUGHT[extra], f"{name} imports nothing of {extra}"


def test_the_sentence_for_a_missing_package_knows_every_extra():
    known = {extra: set(modules) for extra, modules in EXTRAS.items()}
    assert known.keys() == set(USED) - {"base"}
    for extra, modules in known.items():
        assert modules <= BROUGHT[extra], extra
        assert not modules & BROUGHT["base"], extra
    every = set().union(*(imports(source)[0] for source in SOURCES.values()))
    beyond = every - BROUGHT["base"]
    assert beyond <= set().union(*known.values())


def test_a_module_of_our_own_that_is_missing_is_not_called_a_package():
    sentence = str(missing_package("Notebook 00e_synthetic", "retail_ci.data.sales"))
    assert "needs retail_ci.data.sales, which this copy of retail_ci lacks" in sentence
    assert "--force-reinstall" in sentence and "not installed" not in sentence


def test_every_command_that_is_advised_names_an_extra_that_exists():
    """In the package, with its broken lines joined, and in what people read."""
    joined = [re.sub(r'"\s*\n\s*f?"', "", source) for source in SOURCES.values()]
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")]
    cells = [
        "".join(cell["source"])
        for notebook in sorted((ROOT / "nbs").glob("*.ipynb"))
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    ]
    found = re.findall(r"retail[_-]ci(?:\"\))?\[([a-z,]+)\]", "\n".join(joined + texts + cells))
    assert {"chain", "serve", "mlops"} <= set(found)
    names = {name for words in found for name in words.split(",")}
    assert names <= GROUPS.keys() - {"base"} | {"all"}
    assert "retail-ci[" not in "\n".join(joined + texts)


def test_a_requirement_of_two_extras_is_the_same_in_both():
    seen = {}
    for requirement in (r for wanted in GROUPS.values() for r in map(Requirement, wanted)):
        name = canonicalize_name(requirement.name)
        assert seen.setdefault(name, requirement.specifier) == requirement.specifier, name


def test_the_service_is_locked_by_what_its_extra_needs():
    """With the versions that everything else is locked to."""
    service = locked(ROOT / "serve.txt")
    assert set(service) == closure(GROUPS["serve"])
    every = locked(ROOT / "constraints.txt")
    assert {name: every[name] for name in service} == service


def test_the_base_is_small():
    assert len(closure(GROUPS["base"])) + 1 <= 45
    notebooks = {"papermill", "ipykernel", "nbformat", "matplotlib", "plotly", "nbdev", "mlflow"}
    assert not closure(GROUPS["base"]) & notebooks


def test_all_brings_every_extra_and_old_names_still_work():
    said = importlib.metadata.metadata("retail_ci")
    offered = set(said.get_all("Provides-Extra"))
    assert offered == GROUPS.keys() - {"base"} | {"all", "report", "api"}

    def needed(extra: str) -> set[str]:
        asked = [Requirement(r) for r in said.get_all("Requires-Dist")]
        return {
            canonicalize_name(r.name)
            for r in asked
            if "extra" in str(r.marker) and applies(r, {extra})
        }

    assert needed("report") == needed("chain") >= needed("serve") == needed("api")
    assert needed("all") >= set().union(*(needed(e) for e in GROUPS if e != "base"))
