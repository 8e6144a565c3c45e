"""A stand-in for Quarto's command line, for machines without it.

`python quarto_stand_in.py MODE render FOLDER --quiet` writes a page in Quarto's shape for each
source of a project. The shape is that of Quarto 1.11: see quarto_page.html beside this file.
"""

import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
MODES = ("good", "fails", "bad", "nothing", "unreadable")


def quarto_page(
    title: str, subtitle: str = "", body: str = "", up: str = "./", foot: str = "", head: str = ""
) -> str:
    """A page in Quarto's shape."""
    values = {
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "body": body,
        "up": up,
        "foot": foot,
        "head": head,
    }
    template = (HERE / "quarto_page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda name: values[name[1]], template)


def write_libraries(site: Path) -> None:
    """What the pages load from beside them."""
    import smalldocs

    kept = Path(smalldocs.__file__).parent / "assets/vendor"
    for name in (
        "quarto-nav/quarto-nav.js",
        "quarto-search/autocomplete.umd.js",
        "quarto-search/quarto-search.js",
    ):
        (site / "site_libs" / name).parent.mkdir(parents=True, exist_ok=True)
        (site / "site_libs" / name).write_text('"use strict";\n')
    (site / "site_libs/quarto-search/quarto-search.js").write_text(
        'window.alert("Search does not work from a folder.");\n'
    )
    shutil.copy(kept / "fuse/fuse.min.js", site / "site_libs/quarto-search")
    (site / "site_libs/bootstrap").mkdir()
    shutil.copy(kept / "bootstrap/bootstrap.min.css", site / "site_libs/bootstrap")
    (site / "site_libs/bootstrap/bootstrap-dark.min.css").write_text("")


def front_and_outputs(source: Path) -> tuple[dict, str]:
    """The front matter of a source, and the HTML of its outputs."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".qmd":
        return yaml.safe_load(text.split("---\n")[1]), ""
    cells = json.loads(text)["cells"]
    outputs = [
        output.get("data", {}).get("text/html", "")
        for cell in cells
        for output in cell.get("outputs", [])
    ]
    return yaml.safe_load("".join(cells[0]["source"]).strip("-\n")), "".join(
        "".join(part) for part in outputs
    )


def render(stage: Path) -> None:
    """Write the site of a project."""
    site = stage / "_site"
    run = yaml.safe_load((stage / "_run.yml").read_text(encoding="utf-8"))["website"]
    head = (stage / "assets/head.html").read_text(encoding="utf-8")
    index = []
    for source in sorted([*stage.rglob("*.ipynb"), *stage.rglob("*.qmd")]):
        place = source.relative_to(stage).with_suffix(".html")
        front, body = front_and_outputs(source)
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(place.parts) - 1) or "./"
        page = quarto_page(
            front["title"], front.get("subtitle") or "", body, up, run["page-footer"]["left"], head
        )
        (site / place).write_text(page, encoding="utf-8")
        index.append(
            {
                "objectID": str(place),
                "href": str(place),
                "title": front["title"],
                "section": "",
                "text": front.get("subtitle") or "",
                "crumbs": [],
            }
        )
    (site / "search.json").write_text(json.dumps(index), encoding="utf-8")
    for folder in ("assets", "figures"):
        shutil.copytree(stage / folder, site / folder, dirs_exist_ok=True)
    write_libraries(site)


def main(mode: str, command: str, folder: str = "", *options: str) -> int:
    """Do what the mode says."""
    if (command, folder) == ("--version", ""):
        print("1.11.0")
        return 0
    assert (command, options) == ("render", ("--quiet",))
    index = Path(folder) / "_site/index.html"
    if mode == "fails":
        print(
            "\x1b[31mERROR: the page 02_features.ipynb\n  cannot be rendered\x1b[39m",
            file=sys.stderr,
        )
        return 1
    if mode == "nothing":
        return 0
    render(Path(folder))
    if mode == "bad":
        index.write_text(
            index.read_text(encoding="utf-8").replace(
                "</main>", '<img src="https://cdn.example/logo.png"></main>'
            ),
            encoding="utf-8",
        )
    if mode == "unreadable":
        index.write_bytes(b"\xff\xfe" + index.read_bytes())
    return 0


def put_on_path(folder: Path, mode: str) -> str:
    """Write an executable `quarto`; the value of PATH under which it is found."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / "quarto"
    command.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {mode} "$@"\n'
    )
    command.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
