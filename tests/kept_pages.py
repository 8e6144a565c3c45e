"""The pages of a run, made by the process that asks for them first: the others get copies."""

import shutil
from pathlib import Path

from retail_ci.report import site

make_pages = site._make_pages


def keep_pages(folder: Path):
    """What takes the place of `site._make_pages`."""

    def pages_of(run: Path, root: Path, stage: Path, tools: list[str]) -> Path:
        kept = folder / " ".join([run.parent.name, run.resolve().name, *tools])
        if not kept.exists():
            shutil.copytree(make_pages(run, root, stage, tools), kept)
        return shutil.copytree(kept, stage / "pages")

    return pages_of
