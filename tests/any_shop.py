"""Shops of any size, and the result cells of the chain run on them in one process: seconds for each
instead of minutes.
"""

import __future__

import ast
import base64
import contextlib
import csv
import dataclasses
import functools
import importlib
import json
import random
import re
from datetime import datetime, timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from types import CodeType
from typing import Any
from unittest import mock

import matplotlib.figure
import yaml

from retail_ci.core.config import Config, load_config
from retail_ci.core.errors import RetailError
from retail_ci.pipeline.chain import chain, order
from retail_ci.pipeline.kernels import lacks
from retail_ci.pipeline.manifest import input_hashes, write_manifest

ROOT = Path(__file__).parents[1]
OPTIONAL = (
    "transaction_id",
    "product_id",
    "product_name",
    "category",
    "quantity",
    "price",
    "revenue",
)
QUICK = {
    "segmentation": {"k_max": 4, "seeds": 2, "draws": 2},
    "movement": {"draws": 2},
    "worth": {"draws": 2},
}
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NOT_A_NUMBER = re.compile(r"(?<![\w/.])(nan|NaN|inf|NaT|None)(?!\w)")


@dataclasses.dataclass(frozen=True)
class Shop:
    """A shop as small and as odd as a first export may be."""

    products: int
    customers: int
    days: int
    columns: frozenset[str]  # of OPTIONAL
    tables: frozenset[str]  # of products, customers
    greedy: bool  # whether one customer buys everything
    one_price: bool  # whether all products cost the same
    once: bool  # whether each customer comes once
    returns: bool  # whether a tenth of the lines are returns
    anonymous: bool  # whether a fifth of the visits have no customer
    times: bool  # whether the log knows the time of day
    segments: int  # segmentation.k
    seed: int

    def write(self, folder: Path) -> Path:
        """Write the files and the config that reads them."""
        folder.mkdir(parents=True)
        rng = random.Random(self.seed)
        prices = [
            2.5 if self.one_price else round(rng.uniform(0.5, 40), 2) for _ in range(self.products)
        ]
        goods = [
            {
                "product_id": f"{p:04}",
                "product_name": f"Thing {p}",
                "category": f"Kind {p % 3}",
                "price": price,
            }
            for p, price in enumerate(prices)
        ]
        people = [
            {
                "customer_id": f"K{c:03}",
                "city": ("Rome", "Oslo")[c % 2],
                "consent": ("no", "yes", "yes")[c % 3],
            }
            for c in range(self.customers)
        ]
        visits = [
            (c, rng.sample(goods, min(self.products, rng.randrange(1, 4))))
            for c in range(self.customers)
            for _ in range(1 if self.once else rng.choice([1, 1, 2, 3, 6]))
        ]
        if self.greedy:
            visits.append((0, goods))
        lines = [
            line
            for number, (c, bought) in enumerate(visits)
            for line in self._lines(rng, number, people[c], bought)
        ]
        names = ["customer_id", "date", *(c for c in OPTIONAL if c in self.columns)]
        write_csv(folder / "sales.csv", names, lines)
        for name, rows in (("products", goods), ("customers", people)):
            if name in self.tables:
                write_csv(folder / f"{name}.csv", list(rows[0]), rows)
        data = {
            "transactions": "sales.csv",
            **{name: f"{name}.csv" for name in sorted(self.tables)},
        }
        config = {
            "data": data,
            **QUICK,
            "recommender": {"test_days": max(1, min(30, self.days // 3))},
        }
        config["segmentation"] = QUICK["segmentation"] | {"k": self.segments}
        (folder / "shop.yaml").write_text(yaml.safe_dump(config))
        return folder / "shop.yaml"

    def _lines(
        self, rng: random.Random, number: int, person: dict, bought: list[dict]
    ) -> list[dict]:
        """The lines of one visit."""
        minutes = rng.randrange(8 * 60, 20 * 60) if self.times else 0
        when = datetime(2024, 2, 20) + timedelta(days=rng.randrange(self.days), minutes=minutes)
        customer = "" if self.anonymous and rng.random() < 0.2 else person["customer_id"]
        lines = []
        for product in bought:
            quantity = -1 if self.returns and rng.random() < 0.1 else rng.choice([1, 1, 1, 2, 3])
            lines.append(
                product
                | {
                    "transaction_id": f"B{number:04}",
                    "customer_id": customer,
                    "quantity": quantity,
                    "date": when.strftime("%Y-%m-%d %H:%M" if self.times else "%Y-%m-%d"),
                    "revenue": round(quantity * product["price"], 2),
                }
            )
        return lines


def plain_sales(folder: Path, customers: int, products: int, lines: int = 200) -> Path:
    """Write a plain sales file, a line every seven hours, and the config that reads it."""
    rows = []
    for i in range(lines):
        day = datetime(2025, 1, 1) + timedelta(hours=7 * i)
        product = (i * i // 3) % products
        rows.append(
            {
                "transaction_id": f"t{i // 2}",
                "customer_id": f"c{(i // 2 * 7) % customers:03d}",
                "product_id": f"p{product:03d}",
                "product_name": f"Product {product}",
                "category": "ab"[product % 2],
                "date": day.isoformat(),
                "quantity": 1 + i % 3,
                "price": f"{1 + product}.50",
            }
        )
    write_csv(folder / "sales.csv", list(rows[0]), rows)
    config = {"data": {"transactions": "sales.csv"}, **QUICK}
    (folder / "shop.yaml").write_text(yaml.safe_dump(config))
    return folder / "shop.yaml"


def write_csv(path: Path, names: list[str], rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@functools.cache
def compiled(source: str, where: str) -> tuple[CodeType, CodeType | None]:
    """A cell, and the value of its last line, if it has one."""
    flags = __future__.annotations.compiler_flag
    tree = ast.parse(source)
    last = (
        ast.Expression(tree.body.pop().value)
        if tree.body and isinstance(tree.body[-1], ast.Expr)
        else None
    )
    lines = compile(tree, where, "exec", flags, True)
    return lines, compile(last, where, "eval", flags, True) if last else None


class Rooms:
    """The notebooks of the chain, imported once: of each its result cells, and the names that they
    find.
    """

    def __init__(self, *numbers: str):
        notebooks = [p for p in chain(ROOT / "nbs") if not numbers or p.name.startswith(numbers)]
        self.order = list(TopologicalSorter(order(notebooks)).static_order())
        self.rooms = {p.stem: self._room(p) for p in notebooks}
        self.shown: list[tuple[str, str]] = []  # notebook, what a reader sees

    def _room(self, notebook: Path) -> tuple[dict, list[str]]:
        cells = [
            c
            for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            if c["cell_type"] == "code"
        ]
        sources = ["".join(c["source"]) for c in cells]
        parameters = [
            "".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])
        ]
        module = re.search(r"^#\|\s*default_exp\s+([\w.]+)", "\n".join(sources), re.M)
        names = dict(vars(importlib.import_module(f"retail_ci.{module[1]}"))) if module else {}
        results = [s for s in sources if re.search(r"^#\|\s*chain\b", s, re.M)]
        for source in sources:
            body = ast.parse(source).body
            imports = body and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)
            if source in parameters or imports and "#| export" not in source:
                self._execute(source, names, notebook.stem)
        return names, results

    def _execute(self, source: str, names: dict, where: str) -> Any:
        """Execute a cell; the value of its last line, as a notebook would show it."""
        lines, last = compiled(source, where)
        exec(lines, names)
        return eval(last, names) if last else None

    def _show(self, where: str, *values: Any) -> None:
        for value in values:
            for method in ("_repr_html_", "_repr_markdown_"):
                if hasattr(value, method):
                    self.shown.append(
                        (
                            where,
                            re.sub(
                                r'data:image/png;base64,[^"]+', "", str(getattr(value, method)())
                            ),
                        )
                    )
                    break

    def run(self, config: Config, folder: Path, drawn: bool = True) -> Path:
        """What the runner does, in this process: every result cell of every notebook in order, then
        the manifest. Figures are put together, and drawn if asked to: that is half of the time.
        """
        with contextlib.nullcontext() if drawn else UNDRAWN:
            return self._run(config, folder)

    def _run(self, config: Config, folder: Path) -> Path:
        folder.mkdir(parents=True)
        self.shown.clear()
        (folder / "config.yaml").write_text(
            yaml.safe_dump(dataclasses.asdict(config), allow_unicode=True), encoding="utf-8"
        )
        for name in self.order:
            if not lacks(ROOT / "nbs" / f"{name}.ipynb", folder):
                self.take(name, config, folder)
        write_manifest(folder, config, input_hashes(config), [], 0.0)
        return folder

    def take(self, name: str, config: Config, folder: Path) -> None:
        """The result cells of one notebook."""
        known, results = self.rooms[name]
        names = known | {
            "config": config.name,
            "run_dir": str(folder),
            "display": lambda *v: self._show(name, *v),
        }
        for source in results:
            self._show(name, self._execute(source, names, name))


UNDRAWN = mock.patch.object(
    matplotlib.figure.Figure, "savefig", lambda figure, file, **_: file.write(DOT)
)


def outcome(
    rooms: Rooms, config_file: Path, folder: Path, *settings: str, drawn: bool = True
) -> tuple[Path | None, str]:
    """A finished run, or the sentence with which it was refused; anything else is raised."""
    try:
        return rooms.run(load_config(config_file, list(settings)), folder, drawn), ""
    except RetailError as error:
        words = str(error)
        assert error.exit_code in (2, 3, 4) and "fault of retail_ci" not in words, words
        assert words.endswith(".") and "\n" not in words and len(words) < 600, words
        return None, words


def odd_words(rooms: Rooms) -> list[tuple[str, str]]:
    """Where a reader would see a number that is none."""
    return [
        (where, text[max(0, found.start() - 100) : found.end() + 40])
        for where, text in rooms.shown
        for found in NOT_A_NUMBER.finditer(text)
    ]
