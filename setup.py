"""Packaging: every fact comes from settings.ini.

The extras are its `<name>_requirements` lines. The wheel carries the notebooks.
"""

import shutil
import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

extras = {
    key.removesuffix("_requirements"): value.split()
    for key, value in cfg.items()
    if key.endswith("_requirements")
}
extras["chain"] += extras["serve"]  # the page on the API starts it
extras["all"] = sorted({requirement for group in extras.values() for requirement in group})
extras["report"] = extras["chain"]  # the names of version 0.1, until 0.3
extras["api"] = extras["serve"]

NOT_HERE = (
    "docs",
    "preview",
    "proc_nbs",
    "readme",
    "contributing",
    "prepare",
    "install",
    "install_quarto",
    "install_hooks",
)  # commands of nbdev that call sudo, install packages or leave files behind
scripts = cfg["console_scripts"].split()
if "editable_wheel" in sys.argv:
    scripts += [
        f"nbdev_{name}=retail_ci.cli:instead_of_nbdev" for name in NOT_HERE
    ]  # in a checkout only

PROJECT = (
    "nbs/*.ipynb",
    "configs/*.yaml",
    "assets/**/*",
    "_quarto.yml",
    "benchmarks/results/sizes.json",
)  # what `retail-ci run` and `retail-ci site` need beside the package


class WithProject(build_py):
    """Copy the notebooks, the configs and the look of the site into the package that is built; the
    checkout holds them once.
    """

    def project_files(self) -> dict[Path, Path]:
        """Each file, and where it goes."""
        target = Path(self.build_lib) / cfg["lib_path"] / "_project"
        return {
            target / file.relative_to(here): file
            for pattern in PROJECT
            for file in sorted(here.glob(pattern))
            if file.is_file()
        }

    def run(self) -> None:
        """Build the package; an editable install needs no copies."""
        super().run()
        if self.editable_mode:
            return
        for target, file in self.project_files().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What was built, for the record of installed files."""
        return super().get_outputs(include_bytecode) + (
            [] if self.editable_mode else list(map(str, self.project_files()))
        )


setup(
    cmdclass={"build_py": WithProject},
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="MIT",
    license_files=["LICENSE"],
    keywords=cfg["keywords"],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["retail_ci", "retail_ci.*"]),
    package_data={"retail_ci": ["py.typed"]},
    include_package_data=True,
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": scripts,
        "nbdev": ["retail_ci=retail_ci._modidx:d"],
        "papermill.io": ["local=retail_ci.core.runs:_papermill.files"],
    },
    zip_safe=False,
    classifiers=[
        "Programming Language :: Python :: 3",
        "Operating System :: POSIX",
        "Intended Audience :: Developers",
    ],
)
