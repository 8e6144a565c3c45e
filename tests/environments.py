"""Environments that hold named packages and nothing else, made from the files of this one."""

import functools
import importlib.metadata
import venv
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def groups() -> dict[str, list[str]]:
    """The requirements of settings.ini: those of the library under "base", and each extra's."""
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    found = {"base": parser["DEFAULT"]["requirements"].split()}
    for key, value in parser["DEFAULT"].items():
        if key.endswith("_requirements"):
            found[key.removesuffix("_requirements")] = value.split()
    return found


def applies(requirement: Requirement, extras: set[str] = frozenset()) -> bool:
    """Whether a requirement counts here, on this Python and with these extras."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})


def closure(requirements: list[str]) -> set[str]:
    """The names of all that pip would install for requirements."""
    found = {}
    waiting = [r for r in map(Requirement, requirements) if applies(r)]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        known = found.get(name)
        if known is not None and requirement.extras <= known:
            continue
        found[name] = (known or set()) | requirement.extras
        inner = importlib.metadata.requires(name) or []
        waiting += [r for r in map(Requirement, inner) if applies(r, found[name])]
    return set(found)


def locked(file: Path) -> dict[str, str]:
    """Name and version of each line of a lock that counts here."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    kept = [r for r in map(Requirement, lines) if applies(r)]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in kept}


def make_environment(folder: Path, names: set[str], package: Path) -> Path:
    """Make a virtual environment of links to packages; its Python.

    `package`: a folder that holds retail_ci as a wheel brings it.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    for name in sorted(names):
        distribution = importlib.metadata.distribution(name)
        for file in places_of(distribution, name):
            link(Path(distribution.locate_file(file)), site / file)
    for file in package.iterdir():
        link(file, site / file.name)
    return folder / "bin/python"


def places_of(distribution: importlib.metadata.Distribution, name: str) -> set[Path]:
    """The folders that a package has for itself, and its files in folders that it shares."""
    found = set()
    for file in distribution.files:
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        top = file.parts[0]
        own = top.endswith(".dist-info") or modules_here().get(top) == {name}
        found.add(Path(top) if own else Path(file))
    return found


def link(file: Path, target: Path) -> None:
    """Let a name lead to a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(file)


@functools.cache
def modules_here() -> dict[str, set[str]]:
    """Each module of this environment, by its first name, and the packages that bring it."""
    brought = importlib.metadata.packages_distributions()
    return {module: set(map(canonicalize_name, owners)) for module, owners in brought.items()}


def modules_of(names: set[str]) -> set[str]:
    """The modules that packages bring, by their first names."""
    return {module for module, owners in modules_here().items() if names & owners}
