"""Exports as those get them who have never heard of us: the files are read back with other programs
and must say what the run says.
"""

import csv
import json
import os
import re
import shutil
import signal
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from any_shop import Rooms
from conftest import Project, copy_of_small, make_project, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_ci.core.config import load_config
from retail_ci.core.errors import ConfigError, DataError
from retail_ci.core.runs import Run
from retail_ci.export.campaigns import campaign_table, hold_back, permissions
from retail_ci.export.powerbi import export_powerbi
from retail_ci.export.star_schema import TABLES, escape_formulas, sql_escaped

NEEDED = ("01", "02", "03", "04k", "08")  # the notebooks whose results an export reads
ODD = [
    '6" plaster',
    "salt, fine",
    "two\nlines",
    "carriage\rreturn",
    "hand cream 🎁",
    "نعناع مجفف",
    "<script>alert(1)</script>",
    "<b>bold</b>",
    "=cmd|' /C calc'!A0",
    "+44 20 7946",
    "-1",
    "@home",
    "- 20%",
    "tab\there",
    "it's",
    "'quoted'",
    "100% | pure",
]
RUNS_IN_A_SHEET = re.compile("^[\t\r\n]|^[ \u00a0\u200b\ufeff]*[=@+\\-＝＠＋－]")
CON = duckdb.connect(config={"threads": 1})
NUMBER = re.compile(
    r" *[+-]?\d+([.,]\d+)? *", re.A
)  # with spaces around it at most: a tab or a line break before it makes it a formula


def marked(text: str) -> str:
    """What must stand in CSV for a text: said once more, in plain Python."""
    return "'" + text if RUNS_IN_A_SHEET.match(text) and not NUMBER.fullmatch(text) else text


@pytest.fixture(scope="module")
def shop(small, tmp_path_factory) -> Project:
    """The finished run of the small config, to be exported."""
    return copy_of_small(small, tmp_path_factory.mktemp("export") / "small")


@pytest.fixture(scope="module")
def exported(shop) -> Path:
    result = shop.here("export", "--config", "small", "--bom")
    assert result.returncode == 0, result.stderr
    return shop.home("small") / "powerbi"


@pytest.fixture(scope="module")
def yen(tmp_path_factory) -> Project:
    """One month, no products table, no customers table, no returns, a currency without decimals,
    and names that are no joy.
    """
    project = make_project(tmp_path_factory.mktemp("export") / "yen")
    rng = np.random.default_rng(3)
    with (project.root / "sales.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(
            [
                "transaction_id",
                "customer_id",
                "product_id",
                "product_name",
                "category",
                "date",
                "quantity",
                "price",
            ]
        )
        for i in range(900):
            who = int(rng.integers(0, 60)) if i % 3 else int(rng.integers(0, 12))
            what = int(rng.integers(0, len(ODD)))
            out.writerow(
                [
                    f"t{i // 2}",
                    f"{who:05d}" if i % 10 else "",
                    what,
                    ODD[what],
                    ["食品", "=care"][what % 2],
                    (datetime(2025, 5, 1) + timedelta(minutes=45 * i)).isoformat(),
                    int(rng.integers(1, 4)),
                    100 + 50 * what,
                ]
            )
    project.config("data: {transactions: sales.csv}\nreport: {currency: '¥'}\n")
    run = project.home() / "20260101T000000Z-aaaa"
    Rooms(*NEEDED).run(load_config(project.root / "configs/default.yaml"), run, drawn=False)
    (project.home() / "current").symlink_to(run.name)
    result = project.here("export")
    assert result.returncode == 0, result.stderr
    project.said = result.stdout
    return project


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        return list(csv.DictReader(lines))


def test_both_formats_hold_the_same_rows_and_three_readers_agree(exported):
    for table in TABLES:
        file = exported / "csv" / f"{table.name}.csv"
        typed = pd.read_parquet(exported / "parquet" / f"{table.name}.parquet")
        assert file.read_bytes().startswith(b"\xef\xbb\xbf")
        plain = read_csv(file)
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        duck = (
            duckdb.sql(
                f"SELECT * FROM read_csv('{file}', header=true, all_varchar=true, quote='\"', "
                "escape='\"', delim=',')"
            )
            .df()
            .fillna("")
        )
        assert len(plain) == len(frame) == len(duck) == len(typed) and list(frame.columns) == list(
            typed.columns
        ) == list(duck.columns) == list(plain[0])
        assert frame.to_dict("records") == plain == duck.astype(str).to_dict("records")
        for column in typed.columns:
            if pd.api.types.is_float_dtype(typed[column]):
                assert np.allclose(
                    pd.to_numeric(frame[column]), typed[column], rtol=0, atol=0, equal_nan=True
                )
            elif pd.api.types.is_string_dtype(typed[column]):
                assert frame[column].tolist() == typed[column].fillna("").map(marked).tolist()


def test_days_are_iso_and_numbers_have_points(exported):
    kinds = {(t.name, c.name): c.kind for t in TABLES for c in t.columns}
    shapes = {
        "date": r"\d{4}-\d\d-\d\d",
        "key": r"\d+",
        "count": r"-?\d+",
        "number": r"-?\d+(\.\d+)?(e-?\d+)?",
        "money": r"-?\d+(\.\d+)?(e-?\d+)?",
        "flag": "true|false",
    }
    for table in TABLES:
        for row in read_csv(exported / "csv" / f"{table.name}.csv")[:500]:
            for name, value in row.items():
                kind = kinds.get((table.name, name))
                if value and kind in shapes:
                    assert re.fullmatch(shapes[kind], value), (table.name, name, value)


def test_every_key_joins_and_the_sums_are_those_of_the_run(shop, exported):
    tables = {
        t.name: pd.read_csv(exported / "csv" / f"{t.name}.csv", encoding="utf-8-sig")
        for t in TABLES
    }
    for table in TABLES:
        for column in table.columns:
            if column.joins:
                assert set(tables[table.name][column.name]) <= set(
                    tables[column.joins].iloc[:, 0]
                ), (table.name, column.name)
        if table.name.startswith("dim"):
            assert tables[table.name].iloc[:, 0].is_unique
    current = shop.home("small") / "current"
    facts = json.loads((current / "metrics/data.json").read_text())
    sales = tables["fact_sales"]
    assert (
        len(sales) == facts["kept"]
        and abs(sales.revenue.sum() - facts["revenue"]) < 0.01
        and sales.is_return.sum() == facts["returns"]
        and (sales.customer_key == 0).sum() == facts["anonymous"]
    )
    assert sales.customer_key[sales.customer_key != 0].nunique() == facts["customers"]
    known = tables["dim_customer"].set_index("customer_key")
    source = pd.read_parquet(current / "data/transactions.parquet")
    assert (
        sales.customer_key.map(known.customer_id).to_numpy()
        == source.customer_id.fillna("(unknown)").to_numpy()
    ).all(), "in the order of the log"
    assert (
        sales.product_key.map(tables["dim_product"].set_index("product_key").product_id).to_numpy()
        == source.product_id.to_numpy()
    ).all()
    worth = pd.read_parquet(current / "data/worth.parquet").set_index("customer_id")
    ours = known[known.is_known].set_index("customer_id")
    theirs = worth.reindex(ours.index)
    for name in ("next_visit", "overdue_since"):
        assert pd.to_datetime(ours[name]).tolist() == theirs[name].tolist()
    assert theirs["next_visit"].notna().any() and theirs["overdue_since"].notna().any()
    for name, source in (("chance_in_30", "comes_30"), ("chance_lost", "lost_90")):
        assert ours[name].to_numpy() == pytest.approx(theirs[source], nan_ok=True)
    pictures = pd.read_parquet(current / "data/snapshots.parquet")
    seen = (
        tables["fact_segment_snapshot"]
        .merge(tables["dim_segment"], on="segment_key")
        .groupby(["month_end", "segment"])
        .size()
    )
    assert seen.to_dict() == {
        (str(day.date()), name): n
        for (day, name), n in pictures.groupby(["month_end", "segment"]).size().items()
    }
    assert not tables["fact_segment_snapshot"].duplicated(["month_end", "customer_key"]).any()


def test_the_calendar_has_full_years_and_no_gap(exported):
    days = pd.to_datetime(pd.read_csv(exported / "csv/dim_date.csv", encoding="utf-8-sig").date)
    assert (days.diff()[1:] == pd.Timedelta(days=1)).all() and (
        days.iloc[0].month,
        days.iloc[0].day,
        days.iloc[-1].month,
        days.iloc[-1].day,
    ) == (1, 1, 12, 31)
    row = (
        duckdb.sql(
            f"SELECT * FROM '{exported}/parquet/dim_date.parquet' WHERE date = DATE '2025-01-01'"
        )
        .df()
        .iloc[0]
    )
    assert (
        row.quarter,
        row.year_month,
        row.month_name,
        row.iso_week,
        row.weekday,
        row.weekday_name,
        row.is_weekend,
    ) == ("2025 Q1", "2025-01", "January", "2025-W01", 3, "Wednesday", False)


def test_the_model_names_what_is_there(exported):
    """Read with a few patterns of our own, not with the reader that the export uses."""
    definition = exported / "model/retail_ci.SemanticModel/definition"
    types = {
        "int64": "INT",
        "double": "DOUBLE",
        "string": "VARCHAR",
        "boolean": "BOOLEAN",
        "dateTime": "DATE",
    }
    tables = {}
    for file in sorted((definition / "tables").iterdir()):
        text = file.read_text("utf-8")
        assert (
            not re.search(r"^ ", text, re.M)
            and "\r" not in text
            and text.splitlines()[1] == f"table {file.stem}"
        )
        columns = re.findall(
            (
                r"^\tcolumn (?:'((?:[^']|'')*)'|(\w+))\n\t\tdataType: "
                r"(\w+)\n(?:\t\t.*\n)*?\t\tsourceColumn: (.+)$"
            ),
            text,
            re.M,
        )
        tables[file.stem] = {a or b: kind for a, b, kind, _ in columns}
        there = {
            name: kind
            for name, kind, *_ in duckdb.sql(
                f"DESCRIBE SELECT * FROM '{exported}/parquet/{file.stem}.parquet'"
            ).fetchall()
        }
        assert list(there) == [source for *_, source in columns] and all(
            there[n].endswith(types[k]) or k == "int64" and "INT" in there[n]
            for n, k in tables[file.stem].items()
        )
    relations = re.findall(
        r"relationship \w+\n\tfromColumn: (\w+)\.(\w+)\n\ttoColumn: (\w+)\.(\w+)\n",
        (definition / "relationships.tmdl").read_text(),
    )
    assert len(relations) == 11 and set(tables) == {t.name for t in TABLES}
    for a, b, c, d in relations:
        assert b in tables[a] and d in tables[c] and tables[a][b] == tables[c][d]
        lost = duckdb.sql(
            f"SELECT count(*) FROM '{exported}/parquet/{a}.parquet' AS f ANTI JOIN "
            f"'{exported}/parquet/{c}.parquet' AS d ON f.{b} = d.{d}"
        ).fetchall()[0][0]
        assert lost == 0, (a, b)
    paths = [(a, c) for a, _, c, _ in relations]
    assert len(set(paths)) == len(paths) and all(
        a.startswith("fact") and c.startswith("dim") for a, c in paths
    ), "one path from a fact to a dimension"
    for file in (exported / "model").rglob("*"):
        if file.suffix in (".json", ".pbip", ".pbir", ".pbism"):
            json.loads(file.read_text())
    pbip = json.loads((exported / "model/retail_ci.pbip").read_text())
    assert (
        exported / "model" / pbip["artifacts"][0]["report"]["path"] / "definition.pbir"
    ).is_file()
    assert set(
        re.findall(r"^ref table (\w+)$", (definition / "model.tmdl").read_text(), re.M)
    ) == set(tables)


def test_microsofts_own_library_reads_the_models_and_would_write_the_same(
    exported, yen, model_reader
):
    homes = [exported, yen.home() / "powerbi"]
    answers = model_reader(*(home / "model/retail_ci.SemanticModel/definition" for home in homes))
    for home, answer in zip(homes, answers):
        assert answer["complaint"] is None and answer["changed"] == []
        told = json.loads((home / "dictionary.json").read_text())
        assert answer["tables"] == {
            t["table"]: [c["column"] for c in t["columns"]] for t in told["tables"]
        }
        assert set(answer["measures"]) == {m["measure"] for m in told["measures"]}
        assert (
            answer["relationships"]
            == sum("joins" in c for t in told["tables"] for c in t["columns"])
            == 11
        )
    assert [answer["measures"]["Net revenue"][1] for answer in answers] == [
        "-€1,234,567.50",
        "-¥1,234,568",
    ]


def test_microsofts_own_library_reads_attributes_called_anything(people, model_reader, tmp_path):
    """Quotes, brackets, controls, other scripts, words of TMDL: under the names of the parquet
    file.
    """
    names = [
        *ODD,
        "it's [new]\n=1",
        " lead",
        "a.b:c=d",
        '"dq"',
        "column",
        "ref table",
        "true",
        "größe",
        "e\u0301",
        "a\u00a0b",
        "\x01\x85",
        "x" * 600,
        "1st",
        "///",
        "formatString: 0",
    ]
    people.write("customers", people.read("customers").assign(**dict.fromkeys(names, "x")))
    export_powerbi(people, tmp_path / "out")
    [answer] = model_reader(tmp_path / "out/model/retail_ci.SemanticModel/definition")
    columns = list(pd.read_parquet(tmp_path / "out/parquet/dim_customer.parquet").columns)
    assert answer["complaint"] is None and answer["changed"] == []
    own = next(table for table in TABLES if table.name == "dim_customer").columns
    assert answer["tables"]["dim_customer"] == columns and len(columns) >= len(own) + len(names)


def test_the_dictionary_tells_of_every_column(exported):
    told = json.loads((exported / "dictionary.json").read_text())
    for table in told["tables"]:
        typed = pd.read_parquet(exported / "parquet" / f"{table['table']}.parquet")
        assert [c["column"] for c in table["columns"]] == list(typed.columns) and table[
            "rows"
        ] == len(typed)
    assert len(read_csv(exported / "dictionary.csv")) == sum(
        len(t["columns"]) for t in told["tables"]
    )
    text = (exported / "README.md").read_text()
    assert (
        all(f"### {t['table']}" in text for t in told["tables"])
        and "not opened in Power BI Desktop" in text
    )


def test_the_classic_tables_in_the_run_are_those_of_the_star(shop, exported):
    for name in ("customers", "segment_summary", "rfm_distribution", "recommendations"):
        assert (exported / "views" / f"{name}.csv").read_bytes() == b"\xef\xbb\xbf" + (
            shop.home("small") / f"current/powerbi/{name}.csv"
        ).read_bytes()


def test_the_same_bytes_with_one_thread_in_another_folder(shop, exported, tmp_path):
    result = shop.call(
        "export",
        "--config",
        "small",
        "--bom",
        "--out",
        str(tmp_path / "again"),
        "--set",
        "data.threads=1",
        PYTHONHASHSEED="7",
    )
    assert result.returncode == 0, result.stderr

    def files(folder):
        return {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file()
        }

    assert files(tmp_path / "again") == files(exported)


def test_names_that_are_no_joy_come_out_as_they_went_in(yen):
    folder = yen.home() / "powerbi"
    typed = (
        pd.read_parquet(folder / "parquet/dim_product.parquet").set_index("product_id").product_name
    )
    assert [typed[str(i)] for i in range(len(ODD))] == ODD
    rows = {r["product_id"]: r for r in read_csv(folder / "csv/dim_product.csv")}
    assert [rows[str(i)]["product_name"] for i in range(len(ODD))] == [marked(name) for name in ODD]
    assert {r["category"] for r in rows.values()} == {"食品", "'=care", "Uncategorised"} and rows[
        "10"
    ]["product_name"] == "-1"
    frame = pd.read_csv(folder / "csv/dim_product.csv", keep_default_na=False)
    assert sorted(frame.product_name) == sorted(r["product_name"] for r in rows.values())
    for file in [
        *(folder / "csv").iterdir(),
        *(folder / "views").iterdir(),
        *(yen.home() / "current/powerbi").glob("*.csv"),
    ]:
        for row in read_csv(file):
            for value in row.values():
                assert not RUNS_IN_A_SHEET.match(value) or NUMBER.fullmatch(value), (
                    file.name,
                    value,
                )


def test_a_part_without_data_says_so_in_one_line(yen):
    assert (
        "The log is too short for month ends: fact_segment_snapshot holds no row."
        in yen.said.splitlines()
        and "The source has no returns." in yen.said.splitlines()
    )
    folder = yen.home() / "powerbi"
    assert (
        read_csv(folder / "csv/fact_segment_snapshot.csv") == []
        and len((folder / "csv/fact_segment_snapshot.csv").read_text().splitlines()) == 1
    )
    model = (folder / "model/retail_ci.SemanticModel/definition/tables/fact_sales.tmdl").read_text()
    assert "formatString: \\¥#,0\n" in model and "#,0.00" not in model
    sales = read_csv(folder / "csv/fact_sales.csv")
    assert len(sales) == 900 and sum(r["customer_key"] == "0" for r in sales) == 90
    assert [r["customer_id"] for r in read_csv(folder / "csv/dim_customer.csv")][:3] == [
        "(unknown)",
        "00000",
        "00001",
    ], "ids keep their zeros"
    result = yen.here("campaigns")
    assert (
        result.returncode == 0
        and "No column of a customers table says who agreed" in result.stdout
        and "how many buy anyway is not known" in result.stdout
    )
    for file in (yen.home() / "campaigns").iterdir():
        for row in read_csv(file):
            assert not any(
                RUNS_IN_A_SHEET.match(v) and not NUMBER.fullmatch(v) for v in row.values()
            )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(alphabet=st.sampled_from(list("=+-@\t\r\n 1a.,'\"＝－\u00a0\ufeff٣")), max_size=6),
        min_size=1,
        max_size=20,
    )
)
def test_three_ways_to_mark_a_formula_agree(texts):
    plain = [marked(t) for t in texts]
    assert escape_formulas(pd.DataFrame({"a": texts})).a.tolist() == plain
    CON.execute("CREATE OR REPLACE TABLE t (i INTEGER, a VARCHAR)")
    CON.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(texts)))
    assert [
        r[0] for r in CON.execute(f"SELECT {sql_escaped('a')} FROM t ORDER BY i").fetchall()
    ] == plain


def test_orphans_stop_the_export_and_leave_the_last_one(shop, exported, tmp_path):
    home = tmp_path / "run"
    shutil.copytree(shop.home("small") / "current", home)
    (home / "manifest.json").unlink()  # or it would be a finished run, which is never changed
    run = Run(load_config(home / "config.yaml"), home)
    export_powerbi(run, tmp_path / "out")
    before = (tmp_path / "out/dictionary.json").read_bytes()
    for artefact, key in (
        ("products", "product_id"),
        ("customers", "customer_id"),
        ("segments", "customer_id"),
    ):
        whole = run.read(artefact)
        gone = run.read("recommendations").iloc[0][key]
        run.write(artefact, whole[whole[key] != gone])
        with pytest.raises(
            DataError, match=f"have a {key} that '{artefact}' does not know, '{gone}' the first"
        ):
            export_powerbi(run, tmp_path / "out")
        run.write(artefact, whole)
    run.write("segments", pd.concat([run.read("segments")] * 2))
    with pytest.raises(DataError, match="lists .* more than once"):
        export_powerbi(run, tmp_path / "out")
    assert (tmp_path / "out/dictionary.json").read_bytes() == before and [
        p.name for p in tmp_path.glob(".out*")
    ] == []


def test_a_killed_export_leaves_the_last_one_and_the_next_cleans_up(shop, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    before = (out / "dictionary.json").stat().st_mtime_ns
    process = shop.start("export", "--config", "small", "--out", str(out))
    try:
        wait_for(lambda: list(tmp_path.glob(".out-*.part/out/parquet")))
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.wait(60)
    assert (out / "dictionary.json").stat().st_mtime_ns == before and list(
        tmp_path.glob(".out-*.part")
    )
    assert shop.here("export", "--config", "small", "--out", str(out)).returncode == 0
    assert (
        not list(tmp_path.glob(".out-*.part"))
        and (out / "dictionary.json").stat().st_mtime_ns > before
    )


def test_refusals_are_one_sentence(shop, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("years")
    for command in ("export", "campaigns"):
        for words, code, told in (
            (
                [command, "--config", "default"],
                4,
                "no finished run of 'default' yet; run `retail-ci run",
            ),
            ([command, "--config", "small", "--out", str(tmp_path / "file")], 2, "is a file"),
            (
                [command, "--config", "small", "--out", str(tmp_path / "theirs")],
                2,
                "contains files that retail_ci did not export",
            ),
            (
                [command, "--config", "small", "--out", str(tmp_path / "file/deeper")],
                4,
                "Cannot use ",
            ),
            ([command, "--config", "small", "--out", "/proc/none/here"], 4, "Cannot use "),
        ):
            result = shop.here(*words)
            error = result.stderr.splitlines()[-1]
            assert (
                result.returncode == code and error.startswith("retail-ci: ") and told in error
            ), (words, result.stderr)
    result = shop.here("export", "--config", "small", "--format", "tableau")
    assert result.returncode == 2 and "Unknown format 'tableau'" in result.stderr
    assert (tmp_path / "theirs/thesis.txt").read_text() == "years"


@pytest.fixture
def people(shop, tmp_path) -> Run:
    """The small run with a customers table that says who may be contacted."""
    shutil.copytree(shop.home("small") / "current", tmp_path / "run")
    (
        tmp_path / "run/manifest.json"
    ).unlink()  # or it would be a finished run, which is never changed
    run = Run(load_config(tmp_path / "run/config.yaml"), tmp_path / "run")
    customers = run.read("customers").drop(columns="consent")
    run.write(
        "customers",
        customers.assign(
            marketing_ok=np.resize(
                ["yes", "Yes", "no", "perhaps", None, "2024-01-01"], len(customers)
            ),
            do_not_contact=np.resize([None, "", "no", "complained", "true"], len(customers)),
        ),
    )
    return run


def test_nobody_is_listed_who_has_not_agreed(people, tmp_path):
    from retail_ci.export.campaigns import write_campaigns

    summary, _ = write_campaigns(people, tmp_path / "lists")
    customers = people.read("customers").set_index("customer_id")
    listed = [
        r["customer_id"]
        for p in (tmp_path / "lists").iterdir()
        if p.name != "summary.csv"
        for r in read_csv(p)
    ]
    assert (
        listed
        and len(set(listed)) == len(listed)
        and set(customers.marketing_ok[listed]) == {"yes", "Yes"}
        and set(customers.do_not_contact[listed].fillna("")) <= {"", "no"}
    )
    assert set(people.read("segments").customer_id) - set(listed) == set(
        campaign_table(people)[0].query("group not in ['send', 'control']").customer_id
    )
    whole = summary.iloc[-1]
    assert (
        whole.customers == whole.suppressed + whole.no_consent + whole.control + whole.send
        and whole.send + whole.control == len(listed)
    )
    held = {r["customer_id"] for r in read_csv(tmp_path / "lists/control.csv")}
    for row in summary.iloc[:-1].itertuples():
        assert row.control == int(0.1 * (row.control + row.send) + 0.5)
    assert len(held) == whole.control and not held & {
        r["customer_id"]
        for p in (tmp_path / "lists").iterdir()
        if p.name not in ("summary.csv", "control.csv")
        for r in read_csv(p)
    }


def test_columns_of_consent_may_be_named_and_must_exist(people):
    people.config.campaigns.consent, people.config.campaigns.suppressed = "region", []
    assert set(campaign_table(people)[0].group) == {"no consent"}, "a region is no yes"
    people.config.campaigns.consent = "marketing_okay"
    with pytest.raises(
        ConfigError,
        match=(
            "campaigns.consent: Unknown column 'marketing_okay' in the customers table; did "
            "you mean 'marketing_ok'"
        ),
    ):
        campaign_table(people)


def test_sensitive_products_are_in_no_list(people):
    offered = campaign_table(people)[0]
    products = people.read("products").set_index("product_id")
    category = products.category[offered.product_1.dropna().iloc[0]]
    people.config.data.sensitive = {"category": [category]}
    text = (people.path / "config.yaml").read_text()
    (people.path / "config.yaml").write_text(
        text.replace("sensitive: {}", f"sensitive: {{category: [{json.dumps(category)}]}}")
    )
    table, _ = campaign_table(people)
    assert load_config(people.path / "config.yaml").data.sensitive == people.config.data.sensitive
    shown = pd.concat([table[c].dropna() for c in table if c.startswith("product_")])
    assert (
        len(shown)
        and category not in set(products.category[shown])
        and len(campaign_table(people)[0]) == len(table)
    )


def test_the_control_group_is_a_matter_of_chance_and_of_nothing_else():
    segments = pd.Series(np.resize(["A", "B", "C"], 3000), index=[f"c{i:04d}" for i in range(3000)])
    held = hold_back(segments, 0.1, 42)
    assert held.sum() == 300 and held.equals(
        hold_back(segments.iloc[::-1], 0.1, 42)[segments.index]
    )
    assert abs(np.flatnonzero(held).mean() - 1500) < 150, "not by the order of ids"
    grown = pd.concat([segments, pd.Series(["A"] * 100, index=[f"d{i:04d}" for i in range(100)])])
    assert (hold_back(grown, 0.1, 42)[held.index[held]]).mean() > 0.9, (
        "new customers change little for the old"
    )
    assert (hold_back(segments, 0.1, 42, "spring") & held).sum() < 60 and (
        hold_back(segments, 0.1, 43) & held
    ).sum() < 60


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.text(max_size=5),
            st.booleans(),
            st.integers(-2, 2),
            st.dates().map(date.isoformat),
            st.sampled_from(["yes", " YES", "no", "True", "false", "0", "1.0"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_stands_in_the_columns_only_a_plain_yes_allows(values):
    table = pd.DataFrame(
        {
            "customer_id": [f"c{i}" for i in range(len(values))],
            "ok": pd.Series(values, dtype=object),
            "stop": pd.Series(values, dtype=object),
        }
    )
    yes = {
        "true",
        "t",
        "yes",
        "y",
        "1",
        "1.0",
        "on",
        "ja",
        "j",
        "oui",
        "o",
        "si",
        "sí",
        "s",
        "sim",
        "tak",
        "да",
    }
    no = {"false", "f", "no", "n", "0", "0.0", "off", "nein", "non", "não", "nie", "нет", ""}
    plain = ["" if v is None else str(v).strip().lower() for v in values]
    assert permissions(table, ["ok"], []).tolist() == [
        "yes" if p in yes else "no consent" for p in plain
    ]
    assert permissions(table, [], ["stop"]).tolist() == [
        "yes" if p in no else "suppressed" for p in plain
    ]


def test_an_attribute_may_be_called_anything(people, tmp_path):
    customers = people.read("customers")
    people.write(
        "customers",
        customers.assign(
            **{
                "Recency": "r",
                "it's [new]\n=1": "x",
                "RECENCY ": "again",
                "größe": 1.5,
                "born": pd.Timestamp("1990-05-01"),
            }
        ),
    )
    export_powerbi(people, tmp_path / "out")
    names = list(pd.read_parquet(tmp_path / "out/parquet/dim_customer.parquet").columns)
    assert (
        names[-5:-3] == ["customer_Recency", "it_s _new___1"]
        and names[-3].startswith("customer_RECENCY")
        and names[-2:] == ["größe", "born"]
        and len({n.lower() for n in names}) == len(names)
    )
    assert "email" not in names and "region" in names
