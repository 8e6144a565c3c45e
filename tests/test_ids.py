"""One way to read an id and one to read a day: on every engine, in tables, lists and answers."""

import datetime
import random
import unicodedata
import zoneinfo

import hypothesis
import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import retail_ci
from retail_ci.core.config import DataConfig
from retail_ci.core.errors import ConfigError
from retail_ci.core.formats import BLANKS, INVISIBLE, read_id
from retail_ci.data import engines
from retail_ci.data.cleaning import apply_contract
from retail_ci.data.contract import typed
from retail_ci.data.engines import to_pandas
from retail_ci.data.frames import as_ids
from retail_ci.data.profiling import report
from retail_ci.data.proposal import examine
from retail_ci.data.sources import open_source
from retail_ci.recommend.baselines import PersonalRecommender, repeat_reasons
from retail_ci.recommend.interactions import as_dates, days_ago, interactions
from retail_ci.serve.batch_lists import _read_ids
from retail_ci.serve.bundle import Texts, _write_texts

TYPES = {"n": "int", "date": "text"}
HEAD = "transaction_id,customer_id,product_id,date,quantity,price\n"


@pytest.fixture(scope="module")
def duckdb():
    con = engines.connect(DataConfig(threads=1))
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
    "1.2345678E7": "12345678",
    " 1,2e+01\u00a0": "12",
    "1.23457E+12": "1.23457E+12",
    "A1.2E1": "A1.2E1",
    "1.2E-1": "1.2E-1",
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
    "1.25E",
    "1,5e+",
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


@hypothesis.settings(suppress_health_check=[HealthCheck.too_slow])
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


NOTATIONS = ["5.41E+11", "5,41E+11", "5.41e+11", "5.41E11", "5E+11", "1.234567E7", "1.2345678E6"]
NOTATIONS += ["1.2345678901234567E16"]  # a program keeps fifteen digits at most


def four_lines(column: int, *ids: str) -> list[str]:
    """Lines of ids that are plain, but for the first in one column: those are given."""
    rows = [[f"T{n}", f"C{n}", f"P{n}", f"2025-0{n}-03", "1", "10.00"] for n in range(1, 5)]
    for row, id in zip(rows, ids):
        row[column] = f'"{id}"'
    return [",".join(row) + "\n" for row in rows]


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_rounded_id_is_flagged_in_any_notation_and_column(tmp_path, column):
    lines = [line for written in NOTATIONS for line in four_lines(column, *[written] * 3)]
    found = cleaned(shop(tmp_path, HEAD + "".join(lines), duplicates="keep"))
    flags = found.flagged.execute()
    rounded = flags.loc[flags["flag"] == "damaged_id", "row"]
    assert sorted(rounded) == [row for row in range(1, len(lines) + 1) if row % 4]
    assert found.facts["by_flag"]["damaged_id"] == 3 * len(NOTATIONS)
    assert found.facts["revenue_by_fate"]["damaged_id"] == 30 * len(NOTATIONS)


EXACT = {"1.2345678E7": "12345678", "1,7850e+04": "17850", "1.23E+02": "123"}
EXACT |= {"1.23456789012345E14": "123456789012345"}


@pytest.mark.parametrize("column", [0, 1, 2])
def test_scientific_notation_with_all_its_digits_is_read(tmp_path, column):
    lines = [line for pair in EXACT.items() for line in four_lines(column, *pair)]
    found = cleaned(shop(tmp_path, HEAD + "".join(lines), duplicates="keep"))
    name = ["transaction_id", "customer_id", "product_id"][column]
    assert found.facts["scientific_ids"] == {name: len(EXACT)}
    assert not found.facts["by_flag"]["damaged_id"]
    read = found.transactions.execute()[name].tolist()
    assert read[::4] == read[1::4] == list(EXACT.values())
    assert [read_id(written) for written in EXACT] == list(EXACT.values())
    assert f"The ids in {name} were written like 1.2345678E7" in report(found, 1.0)


def test_an_id_that_only_looks_like_it_is_not(tmp_path):
    ids = ["5E11", "1E5", "E+11", "12.5", "5.41E+", "A5.4E+11", "2E10B"]
    lines = [f"{written},C1,P1,2025-01-03,1,10\n" for written in ids]
    found = cleaned(shop(tmp_path, HEAD + "".join(lines)))
    assert found.facts["kept"] == len(ids) and found.facts["by_flag"]["damaged_id"] == 0


def test_excluded_and_listed_products_are_read_the_same_way(tmp_path):
    lines = HEAD + "T1,C1,P1\u00a0,2025-01-01,1,10\nT2,C1, P2,2025-01-01,1,20\n"
    products = "product_id,product_name\nP1,Soap\n\ufeffP2,Brush\n"
    found = cleaned(shop(tmp_path, lines, products=products, exclude={"product_id": ["\u200bP2"]}))
    assert found.transactions.execute()["product_id"].tolist() == ["P1"]
    assert found.facts["by_flag"]["unlisted_product"] == 0


TWO = HEAD + "T1,00017,P1,2025-01-01,1,10\nT2,00018,P1,2025-01-02,1,10\n"


def not_met(found, table: str) -> dict:
    """The flag of a table that most of the log's ids are not in."""
    (flag,) = [f for f in found.plausible["raised"] if f["flag"] == f"{table}_not_met"]
    return flag


def test_a_customers_table_that_meets_nobody_is_said_with_both_spellings(tmp_path):
    found = cleaned(shop(tmp_path, TWO, "customer_id,consent\n17,yes\n18,no\n"))
    flag = not_met(found, "customers")
    assert flag["change"].startswith("0 of 2 customers of the log are among the 2 in the table")
    assert list(flag["examples"]) == ["00017 beside 17", "00018 beside 18"]
    assert flag["lines"] == 2 and flag["revenue"] == 20
    assert flag["change"] in report(found, 0.2)
    assert len(found.customers.execute()) == 4, "nobody is guessed to be somebody else"


def test_a_products_table_that_meets_nothing_is_said(tmp_path):
    lines = HEAD + "T1,C1,0P1,2025-01-01,1,10\nT2,C1,0P2,2025-01-02,1,10\n"
    found = cleaned(shop(tmp_path, lines, products="product_id,product_name\nP1,Soap\n"))
    assert found.plausible["meeting"]["products"] == {"log": 2, "listed": 1, "both": 0}
    assert list(not_met(found, "products")["examples"]) == ["0P1 beside P1"]


def test_tables_that_meet_are_not_mentioned(tmp_path):
    people = "customer_id,consent\n00017,yes\n18,no\n99,no\n"
    found = cleaned(shop(tmp_path, TWO, people, "product_id,product_name\nP1,Soap\nP9,Brush\n"))
    assert not [f for f in found.plausible["raised"] if f["flag"].endswith("_not_met")]


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


def test_a_list_may_hold_the_configs_words_for_nobody(tmp_path, model):
    (tmp_path / "m.csv").write_text("customer_id\nC002\n-1.0\nNULL\n")
    who = _read_ids(tmp_path / "m.csv", ["customer_id"], "--customers", ["-1", "NULL"])
    lists = model.recommend(who, 1)
    assert lists["customer_id"].tolist() == ["C002"]
    assert lists.attrs["notes"] == ["2 customer ids are missing and got no list."]


def test_new_baskets_may_carry_a_zone(model):
    dates = pd.Series(["2025-01-03T22:30:00Z", "2025-01-04T22:30:00Z"])
    assert as_dates(dates).dt.day.tolist() == [3, 4]
    assert as_dates(dates, "Australia/Sydney").dt.day.tolist() == [4, 5]
    recent = pd.DataFrame({"customer_id": ["C001 ", "new"], "product_id": [" P01", "P02"]})
    lists = model.recommend(["C001", "new"], 3, recent=recent.assign(date=dates))
    said = lists.set_index(["customer_id", "product_id"])["reason"]
    assert said["C001", "P01"] == "bought once, 2 days ago"
    assert said["new", "P02"] == "bought once, yesterday"


def test_the_service_finds_whom_a_caller_means(tmp_path):
    ids = ["C7", "Zo\u00eb", "17850", "p2"]
    _write_texts(tmp_path, "customers", ids)
    texts = Texts(tmp_path, "customers")
    for written, wanted in (("C7\u200b", "C7"), ("Zoe\u0308 ", "Zo\u00eb"), ("17850.0", "17850")):
        assert texts[texts.find(written)] == wanted
    assert [texts.find(unknown) for unknown in ("c7", "P2", "", "17850.00")] == [-1] * 4
    assert sorted(texts.find(i) for i in ids) == [0, 1, 2, 3]


def test_a_block_list_blocks_what_it_means_and_says_what_it_cannot_find(tmp_path, model):
    (tmp_path / "b.csv").write_text("product_id\n P00\nP01 \np02\nNOPE\n")
    block = _read_ids(tmp_path / "b.csv", ["product_id"], "--block")["product_id"].tolist()
    for rules in ({"block": block}, {"block": [" P00", "P01 ", "p02", "NOPE"]}):
        lists = model.recommend(None, 3, **rules)
        assert set(lists["product_id"]) == {"P02"}
        assert (
            "block names products that the model does not know: p02, NOPE." in lists.attrs["notes"]
        )


# Days: zoneinfo, a table of zones that no engine uses, says what is right

ZONES = ("Australia/Sydney", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Tokyo")


def instants(zone: str) -> list[datetime.datetime]:
    """Instants of UTC: around the changes of the clock in 2025, and over the years."""
    hours = [
        datetime.datetime(2025, 1, 1, 0, 30) + datetime.timedelta(hours=n) for n in range(8760)
    ]
    here = zoneinfo.ZoneInfo(zone)
    offsets = [t.replace(tzinfo=datetime.UTC).astimezone(here).utcoffset() for t in hours]
    turns = [n for n in range(1, len(hours)) if offsets[n] != offsets[n - 1]]
    near = [t for n in turns for t in hours[max(0, n - 4) : n + 4]]
    far = [
        datetime.datetime(year, month, 28, 15, 59, 59)
        for year in (1971, 1999, 2037)
        for month in (1, 7)
    ]
    return [*near, *far, hours[0], hours[-1]]


def on_the_wall(utc: datetime.datetime, zone: str) -> datetime.datetime:
    return utc.replace(tzinfo=datetime.UTC).astimezone(zoneinfo.ZoneInfo(zone)).replace(tzinfo=None)


def read(table: ibis.Table, settings: DataConfig) -> list:
    """The days that the contract reads."""
    log = table.mutate(customer_id=ibis.literal("C1"), price=ibis.literal(1.0))
    return to_pandas(typed(log, settings).select("row", "date")).sort_values("row")["date"].tolist()


AWAY = datetime.timedelta(hours=5, minutes=30)


def with_offsets(times: list[datetime.datetime]) -> pd.DataFrame:
    """Instants as UTC, as a clock five and a half hours ahead has them, and without an offset."""
    away = datetime.timezone(AWAY)
    texts = [t.isoformat() + "Z" for t in times]
    texts += [t.replace(tzinfo=datetime.UTC).astimezone(away).isoformat(" ") for t in times]
    texts += [t.isoformat() for t in times]  # without an offset it is the shop's already
    return pd.DataFrame({"n": range(len(texts)), "date": texts})


@pytest.mark.parametrize("zone", ZONES)
def test_text_with_an_offset_is_the_shops_own_time(lay, zone):
    times = instants(zone)
    wanted = [on_the_wall(t, zone) for t in times] * 2 + times
    assert read(lay(with_offsets(times), TYPES), DataConfig(timezone=zone)) == wanted


def test_without_a_zone_text_with_an_offset_is_what_the_clock_showed(lay):
    times = instants(ZONES[0])
    table = lay(with_offsets(times), TYPES)
    assert read(table, DataConfig()) == [*times, *(t + AWAY for t in times), *times]


@pytest.mark.parametrize(
    "format", ["%d/%m/%Y %H:%M:%S%z", "%z %d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%SZ"]
)
def test_a_declared_format_may_hold_an_offset(lay, format):
    zone = "Australia/Sydney"
    times = instants(zone)
    texts = [t.replace(tzinfo=datetime.UTC).strftime(format) for t in times]
    table = lay(pd.DataFrame({"n": range(len(texts)), "date": texts}), TYPES)
    assert read(table, DataConfig(date_format=format, timezone=zone)) == [
        on_the_wall(t, zone) for t in times
    ]
    assert read(table, DataConfig(date_format=format)) == times
    odd = ["", "31/02/2025 10:00:00Z", "03/04/2025 10:00:00", "+99:00 03/04/2025 10:00:00"]
    table = lay(pd.DataFrame({"n": range(4), "date": odd}), TYPES)
    assert all(day is pd.NaT for day in read(table, DataConfig(date_format=format, timezone=zone)))


@pytest.mark.parametrize("kind", ["text", "number"])
@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_numbers_that_count_are_days(lay, kind, zone):
    times = instants("America/New_York")
    serials = [(t - datetime.datetime(1899, 12, 30)) / datetime.timedelta(days=1) for t in times]
    epochs = [(t - datetime.datetime(1970, 1, 1)) / datetime.timedelta(seconds=1) for t in times]
    local = [on_the_wall(t, zone) if zone else t for t in times]
    for format, numbers, wanted in (
        ("epoch_s", epochs, local),
        (
            "epoch_ms",
            [1000 * n + 7 for n in epochs],
            [t + datetime.timedelta(milliseconds=7) for t in local],
        ),
        ("excel", serials, times),
    ):
        column = pd.Series(numbers)
        if format != "excel":
            column = column.astype("int64")
        if kind == "text":
            column = column.astype("str")
        types = {"n": "int", "date": "text" if kind == "text" else "float8"}
        table = lay(pd.DataFrame({"n": range(len(column)), "date": column}), types)
        assert read(table, DataConfig(date_format=format, timezone=zone)) == wanted, format


def test_odd_numbers_are_no_days(lay):
    odd = ["", "x", "1e300", "-1e18", "nan", "12-3", "1735689600"]
    table = lay(pd.DataFrame({"n": range(len(odd)), "date": odd}), TYPES)
    for format in ("epoch_s", ["epoch_s", "%d/%m/%Y"]):
        found = read(table, DataConfig(date_format=format))
        assert all(day is pd.NaT for day in found[:-1]) and str(found[-1]) == "2025-01-01 00:00:00"


def test_an_offset_that_no_place_has_is_no_day(lay):
    texts = [f"2025-01-03 10:00:00{offset}" for offset in ("+99:00", "+05:99", "-24:00", "+05", "")]
    table = lay(pd.DataFrame({"n": range(5), "date": texts}), TYPES)
    found = read(table, DataConfig(timezone="Asia/Kolkata"))
    assert [str(day) for day in found[:3]] == ["NaT"] * 3
    assert [str(day) for day in found[3:]] == ["2025-01-03 10:30:00", "2025-01-03 10:00:00"]


def test_formats_and_counts_together(lay):
    table = lay(pd.DataFrame({"n": range(3), "date": ["45658", "02/01/2025", "45660.5"]}), TYPES)
    found = read(table, DataConfig(date_format=["excel", "%d/%m/%Y"]))
    assert [str(t) for t in found] == [
        "2025-01-01 00:00:00",
        "2025-01-02 00:00:00",
        "2025-01-03 12:00:00",
    ]


@pytest.mark.parametrize("unit", ["us", "ns"])
@pytest.mark.parametrize("engine", ["duckdb", "spark"])
def test_parquet_with_a_zone_is_the_shops_day(request, tmp_path, engine, unit):
    con = request.getfixturevalue(engine)
    times = instants("Australia/Sydney")[:20]
    moments = pd.Series(times).dt.tz_localize("UTC").dt.as_unit(unit)
    for name, zone in (("file", "Australia/Sydney"), ("utc", "UTC")):
        frame = pd.DataFrame(
            {"date": moments.dt.tz_convert(zone), "customer_id": "C1", "price": 1.0}
        )
        frame.to_parquet(tmp_path / f"{name}.parquet")
        for asked in (None, "Europe/Berlin"):
            settings = DataConfig(transactions=str(tmp_path / f"{name}.parquet"), timezone=asked)
            found = read(open_source(con, "transactions", settings).table, settings)
            assert found == [on_the_wall(t, asked or zone) for t in times], (name, asked)
            if engine == "duckdb":  # a frame is cleaned there, whatever reads the file
                named = {"timezone": asked} if asked else {}
                log = retail_ci.clean(frame, duplicates="keep", **named)
                assert log.transactions["date"].tolist() == found


def test_postgres_instants_are_the_shops_day(postgres):
    times = instants("Australia/Sydney")[:20]
    rows = pd.DataFrame({"customer_id": "C1", "price": 1.0, "at": [f"{t}+00" for t in times]})
    rows["mark"] = range(len(rows))
    types = {"customer_id": "text", "price": "float8", "at": "timestamptz", "mark": "int"}
    postgres.fill("zoned", rows, types)
    for zone in (None, "Australia/Sydney"):
        settings = DataConfig(
            transactions=postgres.url("zoned"), columns={"date": "at"}, timezone=zone
        )
        source = open_source(engines.connect(), "transactions", settings)
        assert sorted(read(source.table, settings)) == sorted(
            on_the_wall(t, zone or "UTC") for t in times
        )


def test_a_frame_of_the_house_with_a_zone(tmp_path):
    log = pd.DataFrame({"customer_id": ["C1"], "price": [10.0], "date": ["2025-03-02T21:30:00Z"]})
    sold = retail_ci.clean(log, timezone="Australia/Sydney").transactions
    assert (str(sold["day"][0]), sold["weekday"][0], sold["hour"][0]) == (
        "2025-03-03 00:00:00",
        1,
        8,
    )
    with pytest.raises(ConfigError, match="did you mean 'Australia/Sydney'"):
        retail_ci.clean(log, timezone="Sydney")
    numbers = log.assign(date=1735689600000)
    found = retail_ci.clean(
        numbers, date_format="epoch_ms", timezone="America/New_York"
    ).transactions
    assert str(found["date"][0]) == "2024-12-31 19:00:00"


OFFSET = HEAD + "T1,C1,P1,2025-03-03T08:30:00+1100,1,10\n"


def test_a_day_with_an_offset_is_monday_in_the_shop(tmp_path):
    for zone in ({}, {"timezone": "Australia/Sydney"}):
        config = shop(tmp_path, OFFSET, date_format="%Y-%m-%dT%H:%M:%S%z", **zone)
        sold = cleaned(config).transactions.execute()
        assert (str(sold["date"][0]), sold["weekday"][0]) == ("2025-03-03 08:30:00", 1)


@pytest.mark.parametrize(
    "format, first, step, days",
    [
        ("epoch_ms", 1735689600000, 86_400_000, 10),
        ("epoch_s", 1735689600, 86_400, 10),
        ("excel", 45658, 1, 10),
    ],
)
def test_check_proposes_what_a_run_can_read(tmp_path, format, first, step, days):
    lines = [f"T{n},C{n % 3},P1,{first + step * n},1,10\n" for n in range(days)]
    config = shop(tmp_path, HEAD + "".join(lines))
    found = examine(config["transactions"])
    assert found.settings().date_format == format
    sold = cleaned(config | {"date_format": found.settings().date_format}).transactions.execute()
    assert sold["day"].astype("str").tolist() == [f"2025-01-{n + 1:02d}" for n in range(days)]
    pd.read_csv(config["transactions"]).to_parquet(tmp_path / "t.parquet")
    assert examine(str(tmp_path / "t.parquet")).settings().date_format == format
    zone = [g for g in found.guesses if g.key == "timezone"]
    assert [g.value for g in zone] == [None] * (format != "excel")


@pytest.mark.parametrize("written, words", [("Z", "those of UTC"), ("+11:00", "that are written")])
def test_check_asks_for_the_zone_of_instants(tmp_path, written, words):
    lines = [
        f"T{n},C{n % 3},P{n % 2},2025-03-{n + 1:02d}T08:30:00{written},1,1{n}.50\n"
        for n in range(20)
    ]
    found = examine(shop(tmp_path, HEAD + "".join(lines))["transactions"])
    (zone,) = [g for g in found.guesses if g.key == "timezone"]
    assert zone.value is None and words in zone.why


# Days ago

VISITS = [  # the last line of the log is of the 31st, so its reference date is the 1st
    ("a", "A", "P1", "2025-01-29 19:00"),
    ("b", "A", "P2", "2025-01-30 19:00"),
    ("c", "B", "P1", "2025-01-31 09:00"),
    ("d", "C", "P1", "2025-01-28 00:00"),
    ("e", "C", "P2", "2025-01-28 23:59:59.999999"),
    ("f", "D", "P1", "2025-01-10 23:00"),
    ("g", "D", "P1", "2025-01-12 01:00"),
    ("h", "D", "P1", "2025-01-14 23:30"),
]


def test_days_ago_are_those_of_recency():
    names = ["transaction_id", "customer_id", "product_id", "date"]
    log = pd.DataFrame(VISITS, columns=names).assign(quantity=1, price=10.0)
    log["date"] = pd.to_datetime(log["date"], format="ISO8601")
    data = interactions(log)
    rows = np.repeat(np.arange(4), 2)
    columns = np.tile(data.product_ids.get_indexer(["P1", "P2"]), 4)
    said = repeat_reasons(data, rows[::2], columns.reshape(4, 2))
    assert data.customer_ids.tolist() == ["A", "B", "C", "D"]
    assert said[0].tolist() == ["bought once, 3 days ago", "bought once, 2 days ago"]
    assert said[1].tolist() == ["bought once, yesterday", ""]
    assert said[2].tolist() == ["bought once, 4 days ago"] * 2
    # two days and two days lie between, however late in the day it was
    assert said[3][0] == "bought 3 times, usually every 2 days, last 18 days ago"
    recency = retail_ci.customer_features(log).set_index("customer_id")["recency"]
    assert recency.to_dict() == {"A": 2, "B": 1, "C": 4, "D": 18}


@hypothesis.settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
@given(st.lists(st.integers(0, 90 * 86_400_000_000), min_size=1, max_size=30))
def test_every_purchase_has_one_number_of_days(micros):
    start = datetime.datetime(2024, 12, 1)
    moments = [start + datetime.timedelta(microseconds=n) for n in micros]
    log = pd.DataFrame({"date": moments, "product_id": "P1"}).assign(quantity=1)
    log["transaction_id"] = log["customer_id"] = [f"C{n:03d}" for n in range(len(log))]
    log["date"] = log["date"].astype("datetime64[us]")
    data = interactions(log)
    end = max(moments).date() + datetime.timedelta(days=1)
    wanted = [(end - moment.date()).days for moment in moments]
    assert days_ago(data, np.arange(len(moments)))[np.argsort(data.rows)].tolist() == wanted


def test_a_database_may_have_a_column_called_row(postgres):
    rows = pd.DataFrame({"row": [7, 8], "customer_id": ["C1", " C1"], "date": "2025-01-03"})
    types = {"row": "int", "customer_id": "text", "date": "text"}
    postgres.fill("numbered", rows, types)
    settings = DataConfig(transactions=postgres.url("numbered"))
    table = open_source(engines.connect(), "transactions", settings).table
    assert table.order_by("row").execute()[["row", "row (source)"]].values.tolist() == [
        [1, 7],
        [2, 8],
    ]
