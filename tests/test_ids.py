"""One way to read an id and one to read a day: on every engine, in tables, lists and answers."""

import importlib.util
import random
import shutil
import unicodedata

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import retail_ci
from retail_ci.core.config import DataConfig
from retail_ci.core.formats import BLANKS, INVISIBLE, read_id
from retail_ci.data import engines
from retail_ci.data.cleaning import apply_contract
from retail_ci.data.frames import as_ids
from retail_ci.data.sources import open_source
from retail_ci.recommend.baselines import PersonalRecommender
from retail_ci.serve.batch_lists import _read_ids

HEAD = "transaction_id,customer_id,product_id,date,quantity,price\n"
LIGHT = {
    "master": "local[1]",
    "driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "sql.adaptive.enabled": "false",
    "sql.codegen.wholeStage": "false",
    "sql.shuffle.partitions": "2",
}


@pytest.fixture(scope="module")
def duckdb():
    con = engines.connect(DataConfig(threads=1))
    yield con
    engines.close(con)


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    if importlib.util.find_spec("pyspark") is None or not shutil.which("java"):
        pytest.skip("pyspark or Java is missing")
    spill = str(tmp_path_factory.mktemp("spark"))
    con = engines.connect(DataConfig(engine="spark", memory="1GB", spill=spill, spark=LIGHT))
    yield con
    engines.close(con)


@pytest.fixture(params=["duckdb", "spark", "postgres"])
def lay(request, tmp_path):
    """A frame as a table of each engine."""
    where = request.getfixturevalue(request.param)

    def laid(frame: pd.DataFrame, types: dict[str, str]) -> ibis.Table:
        if request.param != "postgres":
            frame.to_parquet(tmp_path / "t.parquet", index=False)
            return engines.read_parquet(where, [tmp_path / "t.parquet"])
        name = ibis.util.gen_name("laid")
        where.fill(name, frame, types)
        return open_source(
            engines.connect(), "transactions", DataConfig(transactions=where.url(name))
        ).table

    return laid


def shop(folder, lines: str, customers: str = "", products: str = "", **settings) -> dict:
    """Write a shop's files, and say where they are."""
    (folder / "t.csv").write_text(lines, encoding="utf-8")
    found = {"transactions": str(folder / "t.csv")}
    for role, text in (("customers", customers), ("products", products)):
        if text:
            (folder / f"{role}.csv").write_text(text, encoding="utf-8")
            found[role] = str(folder / f"{role}.csv")
    return found | settings


def cleaned(config: dict):
    """What the contract makes of a shop."""
    settings = DataConfig(**config)
    con = engines.connect(settings)
    roles = ("transactions", "products", "customers")
    tables = {r: open_source(con, r, settings).table for r in roles if getattr(settings, r)}
    return apply_contract(con, settings=settings, **tables)


# Ids

LOOKALIKES = {  # as written: as read, by hand
    "C7": "C7",
    " C7": "C7",
    "C7\t": "C7",
    "C7\u00a0": "C7",
    "C7\u3000": "C7",
    "\u200bC7": "C7",
    "\ufeffC7": "C7",
    "C\u00ad7": "C7",
    "c7": "c7",
    "Zoe\u0308": "Zo\u00eb",
    "Zo\u00eb": "Zo\u00eb",
    "A\u00a0B": "A B",
    "A  B": "A  B",
    "17850.0": "17850",
    "-1.0": "-1",
    "\u00a017850.0": "17850",
    "00017": "00017",
    "P1.0": "P1.0",
    "1.0.0": "1.0.0",
    "7.00": "7.00",
    ".0": ".0",
    "-.0": "-.0",
    "\u0661.0": "\u0661.0",
    "\uff11.0": "\uff11.0",
    "": "",
    "\u200b\u00a0": "",
}
PIECES = [
    *BLANKS,
    *INVISIBLE,
    *" \t\n\r\v\f\x1c.-0179eE",
    ".0",
    "e\u0301",
    "\u0301",
    "\u00e9",
    "\u212b",
]
PIECES += ["\uac00", "\u1100\u1161", "\U0001f468\u200d\U0001f469", "\u0061\u0328\u0301", "\u0958"]


def drawn(n: int) -> list[str]:
    """Odd texts, the same each time."""
    dice = random.Random(14)
    letters = [
        c for c in map(chr, range(0xA0, 0x3000)) if unicodedata.category(c) not in ("Cn", "Cc")
    ]
    return [
        "".join(dice.choices([*PIECES, *dice.sample(letters, 20)], k=dice.randint(1, 7)))
        for _ in range(n)
    ]


@pytest.mark.parametrize("written", LOOKALIKES)
def test_an_id_is_read_as_a_person_would_read_it(written):
    assert read_id(written) == LOOKALIKES[written]


@given(
    st.text(st.one_of(st.sampled_from("".join(PIECES)), st.characters(codec="utf-8")), max_size=8)
)
def test_an_id_that_was_read_stays_as_it_is(text):
    once = read_id(text)
    assert read_id(once) == once and unicodedata.is_normalized("NFC", once)
    assert not set(once) & set(BLANKS + INVISIBLE)


def test_every_engine_reads_ids_as_python_does(lay):
    texts = [*LOOKALIKES, *drawn(800)]
    table = lay(pd.DataFrame({"n": range(len(texts)), "id": texts}), {"n": "int", "id": "text"})
    found = table.mutate(read=engines.read_ids(table.id), odd=engines.unread(table.id))
    found = found.select("n", "read", "odd").execute().sort_values("n")
    wanted = [read_id(text) for text in texts]
    assert found["read"].fillna("").tolist() == wanted
    changed = [text != read for text, read in zip(texts, wanted)]
    assert all(odd for odd, moved in zip(found["odd"], changed) if moved)
    assert as_ids(pd.Series(texts)).fillna("").tolist() == wanted


def test_ids_as_fractions_are_whole_numbers_on_every_engine(lay):
    ids = [17850.0, 12345678.0, 123456789012.0, 0.5, np.nan]
    table = lay(pd.DataFrame({"n": range(5), "id": ids}), {"n": "int", "id": "float8"})
    found = table.select("n", read=engines.id_text(table.id)).execute().sort_values("n")["read"]
    assert found.fillna("").tolist() == ["17850", "12345678", "123456789012", "0.5", ""]


LOOKALIKE_LOG = HEAD + "".join(
    f"T{n},{who},P1,2025-01-0{n},1,10\n"
    for n, who in enumerate(
        ["Zo\u00eb", "Zoe\u0308", "C7", "C7\u00a0", "c7", "\u200bC7", "C7\u3000", "\ufeffC7"], 1
    )
)


def test_two_people_are_two_customers_and_another_case_is_another_id(tmp_path):
    found = cleaned(shop(tmp_path, LOOKALIKE_LOG))
    sold = found.transactions.execute().groupby("customer_id")["revenue"].sum()
    assert sold.to_dict() == {"Zo\u00eb": 20, "C7": 50, "c7": 10}


@pytest.mark.parametrize("how", ["frame", "path"])
def test_the_api_reads_them_too(tmp_path, how):
    (tmp_path / "t.csv").write_text(LOOKALIKE_LOG, encoding="utf-8")
    log = tmp_path / "t.csv" if how == "path" else pd.read_csv(tmp_path / "t.csv")
    found = retail_ci.clean(log).customers["customer_id"]
    assert sorted(found) == ["C7", "Zo\u00eb", "c7"]


FLOATS = HEAD + (
    "T1,17850.0,P1,2025-01-01,1,10\nT2,17851.0,P1,2025-01-02,1,10\nT3,-1.0,P1,2025-01-02,1,10\n"
)


@pytest.mark.parametrize("missing, customers", [([], 3), (["-1"], 2), (["-1.0"], 2)])
def test_one_placeholder_does_not_keep_every_point(tmp_path, missing, customers):
    people = "customer_id,tier\n17850,gold\n17851,silver\n"
    found = cleaned(shop(tmp_path, FLOATS, people, missing=missing))
    tiers = found.customers.execute().set_index("customer_id")["tier"]
    assert tiers[["17850", "17851"]].tolist() == ["gold", "silver"]
    assert found.facts["customers"] == customers == len(tiers)
    assert found.facts["float_ids"] == {"customer_id": 3}


NOTATIONS = ["5.41E+11", "5,41E+11", "5.41e+11", "5.41E11", "5E+11", "1.2345678E7"]


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("written", NOTATIONS)
def test_a_rounded_id_is_flagged_in_any_notation_and_column(tmp_path, column, written):
    rows = [[f"T{n}", f"C{n}", f"P{n}", f"2025-0{n}-03", "1", "10.00"] for n in range(1, 5)]
    for row in rows[:3]:
        row[column] = f'"{written}"'
    found = cleaned(shop(tmp_path, HEAD + "".join(",".join(row) + "\n" for row in rows)))
    assert found.facts["by_flag"]["damaged_id"] == 3
    assert found.facts["revenue_by_fate"]["damaged_id"] == 30


@pytest.mark.parametrize("written", ["5E11", "1E5", "E+11", "12.5", "5.41E+", "A5.4E+11", "2E10B"])
def test_an_id_that_only_looks_like_it_is_not(tmp_path, written):
    found = cleaned(shop(tmp_path, HEAD + f"{written},C1,P1,2025-01-03,1,10\n"))
    assert found.facts["by_flag"]["damaged_id"] == 0


def test_excluded_and_listed_products_are_read_the_same_way(tmp_path):
    lines = HEAD + "T1,C1,P1\u00a0,2025-01-01,1,10\nT2,C1, P2,2025-01-01,1,20\n"
    products = "product_id,product_name\nP1,Soap\n\ufeffP2,Brush\n"
    found = cleaned(shop(tmp_path, lines, products=products, exclude={"product_id": ["\u200bP2"]}))
    assert found.transactions.execute()["product_id"].tolist() == ["P1"]
    assert found.facts["by_flag"]["unlisted_product"] == 0


# Lists that are handed over


@pytest.fixture(scope="module")
def model():
    lines = [
        (f"T{n}", f"C00{c}", p) for n, (c, p) in enumerate([(1, "P00"), (2, "P01"), (3, "P02")])
    ]
    log = pd.DataFrame(lines, columns=["transaction_id", "customer_id", "product_id"])
    return PersonalRecommender().fit(log.assign(date=pd.Timestamp("2025-01-01"), quantity=1))


def test_a_mailing_list_names_whom_it_means(tmp_path, model):
    (tmp_path / "m.csv").write_text("customer_id\n C002\nC002 \nC003\n")
    lists = model.recommend(_read_ids(tmp_path / "m.csv", ["customer_id"], "--customers"), 3)
    assert lists["customer_id"].unique().tolist() == ["C002", "C003"]
    assert lists.attrs["notes"] == ["1 repeated customer ids were answered once."]
    assert lists[lists["rank"] == 1]["product_id"].tolist() == ["P01", "P02"]


def test_a_block_list_blocks_what_it_means_and_says_what_it_cannot_find(tmp_path, model):
    (tmp_path / "b.csv").write_text("product_id\n P00\nP01 \np02\nNOPE\n")
    block = _read_ids(tmp_path / "b.csv", ["product_id"], "--block")["product_id"].tolist()
    for rules in ({"block": block}, {"block": [" P00", "P01 ", "p02", "NOPE"]}):
        lists = model.recommend(None, 3, **rules)
        assert set(lists["product_id"]) == {"P02"}
        assert (
            "block names products that the model does not know: p02, NOPE." in lists.attrs["notes"]
        )
