"""Packages and megabytes of what pip installs: the library, the chain, the service, everything.

    make sizes

builds the wheel, installs it into four new environments with the versions of constraints.txt and
serve.txt, and writes benchmarks/results/sizes.json, from which the first page and README.md print
their table. It asks a package index and takes a few minutes. A megabyte is a million bytes; the
bytecode that pip adds to each Python file is counted by itself, since `pip install --no-compile`
leaves it out.

    python benchmarks/sizes.py --of FOLDER --most-packages 45 --most-mb 550

measures an environment that exists, and ends with 1 if it is larger than that.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ("--constraint", ROOT / "constraints.txt")


def measure(environment: Path) -> dict[str, int]:
    """Count the packages of an environment that has no pip, and their megabytes.

    Parameters
    ----------
    environment : Path
        The folder of a virtual environment.

    Returns
    -------
    dict[str, int]
        packages; mb without bytecode; bytecode_mb.
    """
    base = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("purelib", "venv", base))
    sizes = [
        (file.suffix == ".pyc", file.stat().st_size) for file in site.rglob("*") if file.is_file()
    ]
    return {
        "packages": len(list(site.glob("*.dist-info"))),
        "mb": round(sum(size for compiled, size in sizes if not compiled) / 1e6),
        "bytecode_mb": round(sum(size for compiled, size in sizes if compiled) / 1e6),
    }


def install(environment: Path, *words: str | Path) -> None:
    """Install into an environment, with the pip of this one.

    Parameters
    ----------
    environment : Path
        The folder of a virtual environment without pip.
    *words : str | Path
        As after `pip install`.
    """
    quiet = ("-qq", "--disable-pip-version-check", "--no-input")
    python = ("--python", environment / "bin/python")
    subprocess.run([sys.executable, "-m", "pip", *python, "install", *quiet, *words], check=True)


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the checkout, which stays as it is.

    Parameters
    ----------
    folder : Path
        An empty folder.

    Returns
    -------
    Path
        The wheel.
    """
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", source]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return next((folder / "dist").glob("*.whl"))


def measure_all(folder: Path) -> list[dict]:
    """Install the wheel in four ways, and measure each.

    Parameters
    ----------
    folder : Path
        An empty folder.

    Returns
    -------
    list[dict]
        For each way its name and what `measure` says.
    """
    wheel = build_wheel(folder)
    ways = {
        "base": [[*LOCK, wheel]],
        "chain": [[*LOCK, f"{wheel}[chain]"]],
        "serve": [["--requirement", ROOT / "serve.txt"], ["--no-deps", wheel]],
        "all": [[*LOCK, f"{wheel}[all]"]],
    }
    rows = []
    for name, steps in ways.items():
        environment = folder / name
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        for words in steps:
            install(environment, *words)
        rows.append({"name": name} | measure(environment))
        print(rows[-1], flush=True)
        shutil.rmtree(environment)
    return rows


def check(environment: Path, most_packages: int, most_mb: int) -> None:
    """Measure one environment; exit with a sentence if it is too large.

    Parameters
    ----------
    environment : Path
        The folder of a virtual environment without pip.
    most_packages, most_mb : int
        What it may have; megabytes without bytecode.
    """
    found = measure(environment)
    print(f"{found['packages']} packages, {found['mb']} MB, and {found['bytecode_mb']} MB bytecode")
    if found["packages"] > most_packages or found["mb"] > most_mb:
        sys.exit(
            f"{environment.name} may have at most {most_packages} packages and {most_mb} MB. "
            "Move what it has gained to the extra in settings.ini that needs it."
        )


def main() -> None:
    """Read the options, and measure."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--of", type=Path, help="an environment without pip to measure")
    options.add_argument("--most-packages", type=int, default=sys.maxsize)
    options.add_argument("--most-mb", type=int, default=sys.maxsize)
    given = options.parse_args()
    if given.of:
        return check(given.of, given.most_packages, given.most_mb)
    with tempfile.TemporaryDirectory(prefix="sizes-") as folder:
        rows = measure_all(Path(folder))
    version = ".".join(platform.python_version_tuple()[:2])
    facts = {"python": version, "system": f"{platform.system()} {platform.machine()}", "rows": rows}
    out = ROOT / "benchmarks/results/sizes.json"
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
