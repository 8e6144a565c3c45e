"""Files as shops export them: damaged lines, quotation marks, line breaks, titles above the header,
columns that differ only in case, workbooks and databases with several tables.
"""

import contextlib
import re
import sqlite3
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import yaml

import retail_ci
from retail_ci.cli import check
from retail_ci.core.config import DataConfig, load_config
from retail_ci.core.errors import DataError
from retail_ci.data.cleaning import apply_contract, examples
from retail_ci.data.engines import connect
from retail_ci.data.profiling import guess_encoding
from retail_ci.data.proposal import examine
from retail_ci.data.sources import open_source

ROOT = Path(__file__).parents[1]
CASES = next((p / "shared/cases" for p in ROOT.parents if (p / "shared/cases").is_dir()), None)
HEAD = "transaction_id,date,customer_id,product_id,price,quantity,notes\n"


@pytest.fixture(scope="module")
def con():
    return connect()


def case(name: str) -> Path:
    if CASES is None:
        pytest.skip("the shared cases are not beside the checkout")
    return CASES / name


def cleaned(con, path: Path, **settings):
    """What a file gives, however much of it is rejected."""
    data = DataConfig(transactions=str(path), **settings)
    source = open_source(con, "transactions", data)
    return apply_contract(source.backend, source.table, data, parts=source.parts)


def damaged(result) -> list[tuple[int, str]]:
    """Row and text of the lines that were set aside."""
    lines = result.rejected.execute()
    lines = lines[lines["reason"] == "damaged_line"].sort_values("source_row")
    return list(zip(lines["source_row"], lines["source_line"]))


def log(rows: int = 30, **columns) -> list[str]:
    """Plain lines, without their header."""
    return [
        f"{n},2025-07-{1 + n % 28:02},U{n % 5},A{n % 4},10.50,{1 + n % 3}," for n in range(rows)
    ]


def revenue(lines: list[str]) -> float:
    return sum(10.5 * int(line.split(",")[5]) for line in lines)


def test_an_open_quotation_mark_costs_its_own_line_only(con):
    names = {"transaction_id": "id", "quantity": "qty"}
    result = cleaned(con, case("unclosed_quote.csv"), columns=names)
    lines = pd.read_csv(
        case("unclosed_quote.csv"), quoting=3, usecols=range(7), on_bad_lines="skip"
    )
    assert damaged(result) == [(2, '2,2025-07-02,U2,A2,20.25,2,"bad line')]
    text = case("unclosed_quote.csv").read_text().splitlines()[1:]
    rest = [line.split(",") for line in text if "bad line" not in line]
    assert result.facts["kept"] == len(rest) == 14 and len(lines)
    assert result.facts["revenue"] == sum(float(r[4]) * int(r[5]) for r in rest)
    assert examples(result)["lines"].tolist() == [1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_damage_costs_its_own_lines_only(con, tmp_path, end):
    lines = log()
    good = [line for n, line in enumerate(lines) if n not in (3, 9, 12, 17, 21, 29)]
    lines[3] += '"never closed'  # and no mark behind it for a while
    lines[9] += ",one value more"
    lines[12] = lines[12].replace("U2", "U\0")
    lines[14] += '"two' + end + 'lines, and, commas, and, more, of, them"'
    lines[17] += '"open, again'
    lines[18] += '"closed, though"'
    lines[21] = "21,2025"
    lines[29] = '29,2025-07-02,U4,A1,10.50,1,"cut'
    (tmp_path / "t.csv").write_text(HEAD.strip() + end + end.join(lines), newline="")
    result = cleaned(con, tmp_path / "t.csv")
    assert [row for row, _ in damaged(result)] == [4, 10, 13, 18, 22, 30]
    assert damaged(result)[0][1] == lines[3] and damaged(result)[-1][1] == lines[29]
    assert result.facts["kept"] == len(good) and result.facts["rejected"] == 6
    assert result.facts["revenue"] == revenue(good)


def test_an_open_mark_beyond_the_first_block_loses_nothing(con, tmp_path):
    lines = log(300_000)
    lines[250_000] += '"never closed'
    lines[250_007] += '"quoted, and closed"'
    (tmp_path / "t.csv").write_text(HEAD + "\n".join(lines) + "\n")
    result = cleaned(con, tmp_path / "t.csv", duplicates="keep")
    assert damaged(result) == [(250_001, lines[250_000])]
    assert result.facts["kept"] == 299_999
    assert result.facts["revenue"] == revenue(lines) - 10.5 * int(lines[250_000].split(",")[5])


def test_lines_of_another_encoding_are_set_aside(con, tmp_path):
    lines = [line + "Zürich, née"[:6] for line in log()]
    content = (HEAD + "\n".join(lines) + "\n").encode().splitlines(keepends=True)
    content[5] = content[5].decode().encode("cp1252")
    (tmp_path / "t.csv").write_bytes(b"".join(content))
    result = cleaned(con, tmp_path / "t.csv")
    assert [row for row, _ in damaged(result)] == [5] and "Z\\xfcrich" in damaged(result)[0][1]
    assert result.facts["kept"] == 29


def test_a_line_break_inside_quotation_marks_is_read(con):
    folder = case("multiline_name")
    data = DataConfig(transactions=str(folder / "t.csv"), products=str(folder / "p.csv"))
    main, products = (open_source(con, role, data).table for role in ("transactions", "products"))
    result = apply_contract(con, main, data, products)
    names = result.products.execute().set_index("product_id")["product_name"].to_dict()
    assert names == {"P1": "Gift set:\r\nsoap, candle", "P2": "Comb"}  # its lines end in CR LF
    assert result.facts["revenue"] == 20.0


@pytest.mark.parametrize("name", ["case_columns/t.csv", "case_columns_pq/t.parquet"])
def test_columns_that_differ_in_case_are_told_apart(con, name):
    assert cleaned(con, case(name)).facts["revenue"] == 1 * 10 + 2 * 10
    assert cleaned(con, case(name), columns={"price": "Price"}).facts["revenue"] == 1 * 99 + 2 * 99
    with pytest.raises(DataError, match="'Price' and 'price' of t.* differ only in case"):
        cleaned(con, case(name), columns={"price": "Price", "revenue": "price"})


def test_attributes_that_differ_in_case_are_both_kept(con):
    data = DataConfig(
        transactions=str(case("case_attr/t.csv")), customers=str(case("case_attr/c.csv"))
    )
    main, people = (open_source(con, role, data).table for role in ("transactions", "customers"))
    customers = apply_contract(con, main, data, None, people).customers.execute()
    assert customers["Tier"].tolist() == ["gold", "silver"]
    assert customers["tier (3)"].tolist() == ["1", "2"]


def test_a_column_called_row_is_read(con, tmp_path):
    lines = pd.DataFrame({"Row": [7, 8], "Damaged": ["no", "no"], "PRICE": [3.0, 4.0]})
    lines = lines.assign(transaction_id=["a", "b"], customer_id="c", product_id="p", price=[1, 2])
    lines["date"] = "2025-01-03"
    lines.to_csv(tmp_path / "t.csv", index=False)
    lines.to_parquet(tmp_path / "t.parquet", index=False)
    for name in ("t.csv", "t.parquet"):
        result = cleaned(con, tmp_path / name)
        assert result.facts["kept"] == 2 and result.facts["revenue"] == 3.0


def shop(lines: int = 240) -> pd.DataFrame:
    """A plain log: baskets of three lines, forty customers, twelve products."""
    n = pd.Series(range(lines))
    return pd.DataFrame(
        {
            "order_id": "B" + (1000 + n // 3).astype(str),
            "customer_id": "C" + (n // 3 * 11 % 40).astype(str),
            "order_date": (pd.Timestamp("2025-01-01") + pd.to_timedelta(n // 3, "D")).astype(str),
            "product_id": "P" + ((n * 7 + n // 5) % 12).astype(str),
            "quantity": (1 + n % 4).astype(str),
            "unit_price": (2.5 + (n * 7 + n // 5) % 12 * 1.25).map("{:.2f}".format),
        }
    )


def worth(log: pd.DataFrame) -> float:
    return (log["quantity"].astype(int) * log["unit_price"].astype(float)).sum()


def proposed(source: Path, con) -> tuple[dict, dict]:
    """The config that the command writes, and the books of a run with it, unedited."""
    config = source.parent / f"{source.name}.yaml"
    config.unlink(missing_ok=True)
    check(str(source), out=str(config))
    data = load_config(config).data
    main = open_source(con, "transactions", data)
    tables = {
        role: open_source(con, role, data).table
        for role in ("products", "customers")
        if getattr(data, role)
    }
    result = apply_contract(
        main.backend, main.table, data, tables.get("products"), tables.get("customers"), main.parts
    )
    return yaml.safe_load(config.read_text())["data"], result.facts


@pytest.mark.parametrize("above", ["Sales of May\n", "Sales,,,,,\n\nfrom the till;,,,,,\n"])
def test_a_title_and_a_total_are_no_sales(con, tmp_path, above):
    log = shop()
    text = above + log.to_csv(index=False) + f"Total,,,,{log['quantity'].astype(int).sum()},\n"
    (tmp_path / "t.csv").write_text(text)
    data, facts = proposed(tmp_path / "t.csv", con)
    assert data["skip_rows"] == len(above.split("\n")) - 1 - above.count("\n\n")
    assert facts["kept"] == len(log) and facts["rejected"] == 1
    assert facts["revenue"] == pytest.approx(worth(log))


def test_a_workbook_with_titles_names_its_tables(con, tmp_path):
    log = shop()
    people = pd.DataFrame({"customer_id": [f"C{n}" for n in range(60)], "city": ["Bern"] * 60})
    items = pd.DataFrame(
        {"product_id": [f"P{n}" for n in range(12)], "product_name": list("abcdefghijkl")}
    )
    with pd.ExcelWriter(tmp_path / "shop.xlsx") as book:
        pd.DataFrame([["About this file"]]).to_excel(
            book, sheet_name="About", index=False, header=False
        )
        for name, table in (("People", people), ("Sold", log), ("Items", items)):
            pd.DataFrame([["A title above"]]).to_excel(
                book, sheet_name=name, index=False, header=False
            )
            table.to_excel(book, sheet_name=name, index=False, startrow=2)
    data, facts = proposed(tmp_path / "shop.xlsx", con)
    assert data["transactions"].endswith("#Sold") and data["skip_rows"] == 1
    assert data["products"].endswith("#Items") and data["customers"].endswith("#People")
    assert facts["kept"] == len(log) and facts["revenue"] == pytest.approx(worth(log))


def heads_and_lines() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A log as a shop's database keeps it: receipts in one table, what was in them in another."""
    log = shop()
    heads = log.drop_duplicates("order_id")[["order_id", "customer_id", "order_date"]]
    return heads, log[["order_id", "product_id", "quantity", "unit_price"]]


@pytest.mark.parametrize("ending", ["sqlite", "duckdb"])
def test_two_tables_of_a_database_that_belong_together_are_joined(con, tmp_path, ending):
    heads, lines = heads_and_lines()
    items = pd.DataFrame({"product_id": [f"P{n}" for n in range(12)], "product_name": "x"})
    path = tmp_path / f"shop.{ending}"
    if ending == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as file:
            for name, table in (("order", heads), ("order details", lines), ("items", items)):
                table.to_sql(name, file, index=False)
    else:
        with duckdb.connect(str(path)) as file:
            file.execute('CREATE TABLE "order" AS SELECT * FROM heads')
            file.execute('CREATE TABLE "order details" AS SELECT * FROM lines')
            file.execute("CREATE TABLE items AS SELECT * FROM items")
    data, facts = proposed(path, con)
    assert "JOIN" in data["query"]["transactions"] and data["products"].endswith("#items")
    assert (facts["kept"], facts["baskets"]) == (len(lines), len(heads))
    assert facts["revenue"] == pytest.approx(worth(lines))


def test_two_files_that_belong_together_are_named(con, tmp_path, capsys):
    heads, lines = heads_and_lines()
    heads.to_csv(tmp_path / "orders.csv", index=False)
    lines.to_csv(tmp_path / "order_details.csv", index=False)
    check(str(tmp_path / "order_details.csv"))
    said = capsys.readouterr().out
    assert "'order_details.csv' and 'orders.csv' belong together: each line's 'order_id'" in said
    query = re.search(r"COPY \((.*)\) TO", said)[1]
    joined = duckdb.sql(query).df()
    assert len(joined) == len(lines) and worth(joined) == pytest.approx(worth(lines))


def test_the_tables_of_postgres_are_listed(con, tmp_path, postgres, capsys):
    heads, lines = heads_and_lines()
    postgres.fill("read_orders", heads, dict.fromkeys(heads, "text"))
    postgres.fill("read_lines", lines, dict.fromkeys(lines, "text"))
    check(postgres.url(), out=str(tmp_path / "shop.yaml"))
    said = capsys.readouterr().out
    assert "'read_lines' and 'read_orders' belong together" in said
    data = load_config(tmp_path / "shop.yaml").data
    main = open_source(con, "transactions", data)
    facts = apply_contract(main.backend, main.table, data).facts
    assert facts["kept"] == len(lines) and facts["revenue"] == pytest.approx(worth(lines))


def test_products_and_customers_beside_a_file_are_proposed(con, tmp_path):
    log = shop()
    log.to_csv(tmp_path / "sales.csv", index=False)
    pd.DataFrame({"product_id": [f"P{n}" for n in range(12)], "title": "x"}).to_csv(
        tmp_path / "what.csv", index=False
    )
    pd.DataFrame({"customer_id": [f"C{n}" for n in range(60)], "city": "x"}).to_csv(
        tmp_path / "who.csv", index=False
    )
    pd.DataFrame({"customer_id": ["X1", "X2"], "city": "x"}).to_csv(
        tmp_path / "others.csv", index=False
    )
    data, facts = proposed(tmp_path / "sales.csv", con)
    assert Path(data["products"]).name == "what.csv" and Path(data["customers"]).name == "who.csv"
    assert facts["kept"] == len(log)


@pytest.mark.parametrize(
    "codec, text",
    [
        ("cp1252", "Müller, Café"),
        ("cp1250", "Świeży żółty ser"),
        ("cp1251", "Хлеб белый"),
        ("gb18030", "纯棉衬衫"),
        ("shift_jis", "コーヒー"),
        ("mac_roman", "René, Nîmes"),
    ],
)
def test_the_encoding_of_names_is_proposed(con, tmp_path, codec, text):
    log = shop().assign(product_name=text)
    (tmp_path / "t.csv").write_bytes(log.to_csv(index=False).encode(codec))
    data, _ = proposed(tmp_path / "t.csv", con)
    assert data["encoding"] == codec
    settings = DataConfig(transactions=str(tmp_path / "t.csv"), encoding=data["encoding"])
    read = open_source(con, "transactions", settings).table.execute()
    assert set(read["product_name"]) == {text}


def test_the_files_of_a_folder_are_told_apart(con, tmp_path):
    log = shop()
    folder = tmp_path / "export"
    folder.mkdir()
    for month, part in log.groupby(log["order_date"].str[:7]):
        part.to_csv(folder / f"sales_{month}.csv", index=False)
    pd.DataFrame({"product_id": [f"P{n}" for n in range(12)], "title": "x"}).to_csv(
        folder / "items.csv", index=False
    )
    data, facts = proposed(folder, con)
    assert Path(data["transactions"]).name == "sales_2025-0*.csv"
    assert Path(data["products"]).name == "items.csv"
    assert facts["kept"] == len(log) and facts["revenue"] == pytest.approx(worth(log))


def test_a_second_table_below_is_said(con, tmp_path, capsys):
    log = shop()
    below = ",,,,,\nCustomer,City,Since date,,,\nC1,Bern,,,,\nC2,Basel,,,,\n"
    (tmp_path / "t.csv").write_text(log.to_csv(index=False) + below)
    _, facts = proposed(tmp_path / "t.csv", con)
    assert "header of a second table (Customer, City, Since date)" in capsys.readouterr().out
    assert facts["kept"] == len(log) and facts["rejected"] == 4


TOTAL_WORDS = ["Total", "Grand total:", "SUM", "B17 Total", "Gesamtsumme", "Zwischensumme", "Итого"]
TOTAL_WORDS += ["Total général", "Suma", "合计", "الإجمالي"]
# as spreadsheets call the grand total
TOTAL_WORDS += ["Totale complessivo", "Eindtotaal", "Suma końcowa", "Общий итог", "الإجمالي الكلي"]
TOTAL_WORDS += [
    "Gesamtergebnis",
    "Totalsumma",
    "Hovedtotal",
    "Celkový součet",
    "Végösszeg",
    "총합계",
]


PLACES_OF_TOTALS = ("order_id", "customer_id", "product_id", "order_date")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_row_of_totals_is_named_wherever_its_word_stands(con, tmp_path, ending):
    log = shop().astype(str)
    totals = []
    for place in PLACES_OF_TOTALS:
        rows = pd.DataFrame({c: [None] * len(TOTAL_WORDS) for c in log.columns}, dtype="str")
        rows[place] = TOTAL_WORDS
        rows["quantity"], rows["unit_price"] = "9", "1000.00"
        if place in ("order_id", "customer_id"):
            rows["order_date"] = log["order_date"].iloc[-1]  # else it would count as a sale
        totals.append(rows)
    file = tmp_path / f"t.{ending}"
    both = pd.concat([log, *totals])
    both.to_csv(file, index=False) if ending == "csv" else both.to_parquet(file, index=False)
    names = {"transaction_id": "order_id", "date": "order_date", "price": "unit_price"}
    done = retail_ci.clean(str(file), columns=names, duplicates="keep", max_rejected=0.5)
    rejected = done.rejected.execute()
    assert set(rejected["reason"]) == {"total_row"}
    assert rejected["row"].tolist() == list(range(len(log) + 1, len(both) + 1))
    assert done.facts["rejected"] == len(PLACES_OF_TOTALS) * len(TOTAL_WORDS)
    assert done.facts["revenue"] == pytest.approx(worth(shop()))


def test_a_product_or_a_dish_called_total_is_sold(con, tmp_path):
    log = shop()
    log.loc[:9, "product_id"] = "Total"
    log.loc[10:19, "product_id"] = "Dim sum"
    log.loc[::2, "customer_id"] = None
    names = {"transaction_id": "order_id", "date": "order_date", "price": "unit_price"}
    for columns in (names, {k: v for k, v in names.items() if k != "transaction_id"}):
        done = retail_ci.clean(log, columns=columns, duplicates="keep")
        assert done.facts["kept"] == len(log) and "total_row" not in done.facts["by_reason"]


@pytest.mark.parametrize(
    "key, name, word",
    [("customer_id", "station", "Total"), ("product_id", "product_name", "Dim sum")],
)
def test_a_line_of_nobody_that_has_a_day_is_sold(con, tmp_path, key, name, word):
    """In logs without receipts: fuel at a station of TotalEnergies, a dish without a number."""
    log = shop().rename(columns={"order_date": "date"})
    log["revenue"] = log["quantity"].astype(int) * log["unit_price"].astype(float)
    log[name] = "x"
    log = log[[key, "date", "revenue", name]]
    log.loc[:9, [key, name]] = [None, word]
    done = retail_ci.clean(log, duplicates="keep")
    assert done.facts["kept"] == len(log) and "total_row" not in done.facts["by_reason"]
    assert done.facts["revenue"] == pytest.approx(log["revenue"].sum())
    log.loc[:9, "date"] = None  # a sum has no day
    done = retail_ci.clean(log, duplicates="keep")
    assert done.facts["by_reason"]["total_row"] == 10


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
@pytest.mark.parametrize("foot", ["none", "a total"])
def test_a_blank_column_does_not_halve_a_log(con, tmp_path, capsys, ending, foot):
    log = shop()
    assert len(log) >= 200
    stock = pd.DataFrame({f"Stock {n}": [f"P{n}"] * 12 for n in range(5)})
    blank = pd.DataFrame({"": [None] * len(log)})
    parts = [log.iloc[:, :3], blank, log.iloc[:, 3:], blank, stock]
    sheet = pd.concat(parts, axis=1)
    if foot == "a total":
        columns = ["" if not isinstance(c, str) else c for c in sheet]
        last = [9999.0 if c == "unit_price" else None for c in columns]
        sheet = pd.DataFrame([*sheet.astype(object).to_numpy().tolist(), last], columns=columns)
    file = tmp_path / f"t.{ending}"
    sheet.to_csv(file, index=False) if ending == "csv" else sheet.to_excel(file, index=False)
    _, facts = proposed(file, con)
    said = capsys.readouterr().out
    assert "'Stock 0', 'Stock 1', 'Stock 2', 'Stock 3' stand apart behind an empty" in said
    assert said.count("apart behind an empty column") == 1
    assert facts["kept"] == len(log) and facts["revenue"] == pytest.approx(worth(log))


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_second_table_beside_is_said(con, tmp_path, capsys, ending, side):
    log = shop()
    stock = pd.DataFrame({"Product": [f"P{n}" for n in range(12)], "Price": [9.5] * 12})
    both = [log, pd.DataFrame({"": [None] * len(log)}), stock]
    beside = pd.concat(both if side == "right" else both[::-1], axis=1)
    file = tmp_path / f"t.{ending}"
    beside.to_csv(file, index=False) if ending == "csv" else beside.to_excel(file, index=False)
    data, facts = proposed(file, con)
    assert "'Product', 'Price' stand apart behind an empty" in capsys.readouterr().out
    assert set(data["columns"].values()) <= set(log.columns)
    assert facts["kept"] == len(log) and facts["revenue"] == pytest.approx(worth(log))


def test_dates_that_a_spreadsheet_has_turned_are_not_sure(tmp_path):
    log = shop()
    day = pd.to_datetime(log["order_date"])
    turned = day.dt.day <= 12
    log["order_date"] = day.dt.strftime("%d-%m-%Y").where(~turned, day.dt.strftime("%d/%m/%Y"))
    log.to_csv(tmp_path / "t.csv", index=False)
    (date,) = [g for g in examine(str(tmp_path / "t.csv")).guesses if g.key == "date_format"]
    assert sorted(date.value) == ["%d-%m-%Y", "%d/%m/%Y"] and date.sure == "likely"
    assert "%d/%m/%Y would do with day and month exchanged" in date.why


@pytest.mark.parametrize(
    "codec, word",
    [
        ("cp1252", "BEBÉ"),
        ("cp1252", "ITAGÜÍ"),
        ("cp1252", "Women’s tee"),
        ("cp1252", "ÑANDU"),
        ("cp1252", "Größe"),
        ("cp1252", "sœur"),
        ("cp1252", "Nº 5"),
        ("cp1254", "şeker"),
        ("cp1254", "İstanbul"),
        ("cp1254", "Kağıt"),
        ("cp1250", "książka"),
        ("cp1250", "żółty"),
    ],
)
def test_a_single_word_beyond_ascii_tells_the_code_page(tmp_path, codec, word):
    rows = [f"{n},2025-01-{n % 27 + 1:02d},Milk {n},1.50" for n in range(50)]
    text = "\n".join(["order_id,date,product,price", *rows, f"51,2025-01-03,{word},2.50", ""])
    (tmp_path / "t.csv").write_bytes(text.encode(codec))
    told = guess_encoding(tmp_path / "t.csv")
    assert (told.value, told.sure) == (codec, "unsure")
    assert "100% of the letters" in told.why
