"""The example of a retailer's messy export: what it holds, that it is made as it says, and what
becomes of every line.
"""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from retail_ci.core.config import load_config
from retail_ci.data.profiling import check_source

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_drogerie", EXAMPLES / "make_drogerie.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def books() -> tuple[str, bool]:
    return check_source(load_config(EXAMPLES / "drogerie.yaml"))


def test_the_file_is_what_its_program_makes(maker):
    text = maker.spoil(maker.export(maker.sales())).to_csv(
        sep=";", index=False, lineterminator="\r\n"
    )
    assert (EXAMPLES / "drogerie.csv").read_bytes() == text.encode("cp1252")


def test_it_is_messy():
    raw = (EXAMPLES / "drogerie.csv").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    text = raw.decode("cp1252")
    for mark in (
        ";00001;",
        "Stückpreis",
        "unbekannt",
        ";-1;",
        "\r\nST0",
        ",99 €",
        "1.249,00 €",
        "VERSAND",
        "30.02.2025",
        "??.??.2025",
        '""Größe XL""',
        "\r\nSumme;",
    ):
        assert mark in text, mark
    assert len(raw) < 400_000


def test_every_line_has_its_fate(books):
    text, fine = books
    assert (
        fine
        and "4,122 lines came in: 3,982 kept, 80 rejected, 60 collapsed as exact copies." in text
    )
    found = {
        rule: int(n.replace(",", ""))
        for n, rule in re.findall(r"^\w+ +([\d,]+)  .*\((\w+)\)", text, re.M)
    }
    assert {
        rule: found[rule]
        for rule in (
            "not_a_product",
            "bad_date",
            "total_row",
            "bad_price",
            "return",
            "anonymous",
        )
    } == {
        "not_a_product": 50,
        "bad_date": 10,
        "total_row": 1,  # the sum below the lines
        "bad_price": 10,
        "return": 60,
        "anonymous": 609,
    }


def test_what_the_shop_knows_makes_a_difference(tmp_path):
    shutil.copy(EXAMPLES / "drogerie.csv", tmp_path)
    config = (EXAMPLES / "drogerie.yaml").read_text(encoding="utf-8")
    (tmp_path / "plain.yaml").write_text(
        re.sub(r"^  (missing|cancelled_prefix|non_product):.*\n", "", config, flags=re.M),
        encoding="utf-8",
    )
    text, fine = check_source(load_config(tmp_path / "plain.yaml"))
    assert fine and "VERSAND" not in text and "(anonymous)" not in text


def test_paths_are_meant_from_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(EXAMPLES / "drogerie.yaml").data.transactions == str(
        EXAMPLES / "drogerie.csv"
    )


def test_no_word_of_a_brand(maker):
    import csv
    import tempfile

    from retail_ci.core.config import Config, SyntheticConfig
    from retail_ci.data.synthetic import generate

    with tempfile.TemporaryDirectory() as folder:
        generate(
            Config(seed=7, synthetic=SyntheticConfig(lines=200, customers=30, products=80)),
            Path(folder),
        )
        with open(Path(folder) / "products.csv", newline="") as file:
            brands = {row["brand"] for row in csv.DictReader(file)}
    text = (EXAMPLES / "drogerie.csv").read_text(encoding="cp1252")
    assert brands and not [brand for brand in brands if brand in text]
