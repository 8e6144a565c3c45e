"""Flags of plausibility: each is raised where it is true, with lines and revenue counted here, and
not where it is false; what is far from the rest sets no date; months and gaps; copies.
"""

import html
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import retail_ci
from retail_ci.core.config import DataConfig, load_config
from retail_ci.core.errors import DataError
from retail_ci.customers.features import reference_date
from retail_ci.data.cleaning import by_month, customer_lines, prepare
from retail_ci.data.engines import close, connect, read_parquet, to_pandas
from retail_ci.data.plausibility import FLAGS, covered_span
from retail_ci.data.profiling import check_source
from retail_ci.data.proposal import closing, examine
from retail_ci.data.sources import open_source
from retail_ci.report.first_screen import doubts_line

ROOT = Path(__file__).parents[1]
CASES = next((p / "shared/cases" for p in ROOT.parents if (p / "shared/cases").is_dir()), None)
needs_cases = pytest.mark.skipif(CASES is None, reason="the shared cases are not beside the clone")


@pytest.fixture(scope="module")
def con():
    con = connect()
    yield con
    close(con)


def shop(days: int = 150, start: str = "2025-03-01", each: int = 6, hour: int = 10) -> pd.DataFrame:
    """A shop that sells every day: one basket of two lines for each of some customers."""
    rows = []
    for n, day in enumerate(pd.date_range(start, periods=days)):
        for i in range(each):
            when = day + pd.Timedelta(hours=hour + i, minutes=n % 60)
            who = f"C{(n * 5 + i * 7) % 40:02d}"
            for product in ((n + i) % 9, (n + i + 4) % 9):
                rows.append((f"B{n:04d}{i}", who, f"P{product}", when, 1 + i % 2, 2.5 + product))
    names = ["transaction_id", "customer_id", "product_id", "date", "quantity", "price"]
    return pd.DataFrame(rows, columns=names)


def paid(lines: pd.DataFrame) -> float:
    """Quantity × price."""
    return float((lines["quantity"] * lines["price"]).sum().round(4))


def cleaned(con, folder: Path, log: pd.DataFrame, customers=None, products=None, **settings):
    """The log through the cleaning, from a file."""
    tables = {"transactions": log, "customers": customers, "products": products}
    places = {}
    for name, table in tables.items():
        if table is not None:
            places[name] = str(folder / f"{name}.csv")
            table.to_csv(places[name], index=False)
    data = DataConfig(**places, **settings)
    opened = {name: open_source(con, name, data, folder / "staging") for name in places}
    beside = [opened[n].table if n in opened else None for n in ("products", "customers")]
    return prepare(con, opened["transactions"].table, data, *beside)


def raised(result) -> dict[str, dict]:
    """Flag: what it says."""
    return {flag["flag"]: flag for flag in result.plausible["raised"]}


def sums(flag: dict) -> tuple[int, float]:
    return flag["lines"], pytest.approx(flag["revenue"])


# The clean shop


def test_a_clean_shop_raises_no_flag(con, tmp_path):
    log = shop(days=153)  # March to July
    customers = pd.DataFrame({"customer_id": sorted(log["customer_id"].unique()), "tier": "gold"})
    products = pd.DataFrame({"product_id": sorted(log["product_id"].unique())})
    result = cleaned(con, tmp_path, log, customers, products.assign(product_name="Soap"))
    assert result.plausible["raised"] == []
    assert result.plausible["checked"] == len(FLAGS) == len({f.name for f in FLAGS})
    assert result.plausible["meeting"] == {
        "customers": {"log": 40, "listed": 40, "both": 40},
        "products": {"log": 9, "listed": 9, "both": 9},
    }
    assert result.facts["baskets"] == log["transaction_id"].nunique()


def test_the_generated_shops_raise_no_flag(small):
    found = retail_ci.open_run(run_dir=small.run).read("plausibility")
    assert found["raised"] == [] and found["checked"] == len(FLAGS)


# Time


@pytest.mark.parametrize("away", [60, -60, 4000, -4000])
def test_lines_far_away_set_no_date(con, tmp_path, away):
    log = shop(days=153)
    edge = log["date"].max() if away > 0 else log["date"].min()
    far = log.tail(1).assign(transaction_id="X", date=edge + pd.Timedelta(days=away))
    result = cleaned(con, tmp_path, pd.concat([log, far]))
    flag = raised(result)["misdated"]
    assert sums(flag) == (1, paid(far)) and flag["matters"]
    told = f"{away} days later" if away > 0 else f"begin on {far['date'].iloc[0]:%Y-%m-%d}"
    assert told in flag["change"]
    assert reference_date(result.transactions) == pd.Timestamp("2025-08-01")
    assert result.facts["first_date"] == log["date"].min()
    assert result.facts["by_reason"]["future" if away > 0 else "too_old"] == 1
    table = open_source(con, "transactions", DataConfig(str(tmp_path / "transactions.csv"))).table
    lines, reference = customer_lines(table, DataConfig())
    assert reference == pd.Timestamp("2025-08-01")
    assert lines.count().execute() == len(log)


def test_what_is_near_or_a_shop_that_opens_again_is_believed(con, tmp_path):
    log = shop(days=153)
    near = log.tail(1).assign(transaction_id="X", date=log["date"].max() + pd.Timedelta(days=6))
    assert "misdated" not in raised(cleaned(con, tmp_path, pd.concat([log, near])))
    again = shop(days=1, start="2025-10-15").assign(transaction_id=lambda t: t.transaction_id + "x")
    result = cleaned(con, tmp_path, pd.concat([log, again]))
    assert "misdated" not in raised(result) and result.facts["kept"] == len(log) + len(again)


def test_a_declared_day_decides_in_place_of_the_guess(con, tmp_path):
    log = shop(days=153)
    far = log.tail(1).assign(transaction_id="X", date=pd.Timestamp("2025-12-24 12:00"))
    result = cleaned(con, tmp_path, pd.concat([log, far]), last_date="2025-12-31")
    assert "misdated" not in raised(result) and result.facts["kept"] == len(log) + 1
    far = far.assign(date=pd.Timestamp("2024-12-24 12:00"))
    result = cleaned(con, tmp_path, pd.concat([log, far]), earliest="2024-01-01")
    assert "misdated" not in raised(result) and result.facts["kept"] == len(log) + 1


@needs_cases
def test_a_clock_that_is_ahead_moves_nobody(con):
    log = pd.read_csv(CASES / "clock_ahead_shop/sales.csv", parse_dates=["date"])
    ahead = log[log["date"] == log["date"].max()]
    rest = log.drop(ahead.index)
    assert len(ahead) == 1 and (ahead["date"].iloc[0] - rest["date"].max()).days > 50
    settings = DataConfig(str(CASES / "clock_ahead_shop/sales.csv"))
    result = prepare(con, open_source(con, "transactions", settings).table, settings)
    assert sums(raised(result)["misdated"]) == (1, paid(ahead))
    whole = rest["date"].max().normalize() + pd.Timedelta(days=1)
    assert reference_date(result.transactions) == whole


def test_a_silence_is_told_with_what_it_would_hold(con, tmp_path):
    log = shop(days=153)
    day = log["date"].dt.normalize()
    closed = day.between("2025-05-10", "2025-05-24")
    result = cleaned(con, tmp_path, log[~closed])
    flag = raised(result)["silence"]
    assert flag["examples"] == ["2025-05-10 to 2025-05-24"]
    expected = len(log[~closed]) / (153 - 15) * 15
    assert f"about {round(expected):,} lines" in flag["change"] and not flag["matters"]
    short = day.between("2025-05-10", "2025-05-12")
    assert "silence" not in raised(cleaned(con, tmp_path, log[~short]))


CLOSED_TWO_MONTHS = """transaction_id,customer_id,product_id,date,quantity,price
T10,C0,P1,2025-01-10,1,100
T11,C1,P1,2025-01-11,1,100
T20,C0,P1,2025-02-10,1,100
T21,C1,P1,2025-02-11,1,100
T50,C0,P1,2025-05-10,1,100
T51,C1,P1,2025-05-11,1,100
T60,C0,P1,2025-06-10,1,100
T61,C1,P1,2025-06-11,1,100
T99,C1,P1,2025-06-30,1,100
T98,C1,P1,2025-01-01,1,100
"""


def test_empty_months_are_a_gap_and_per_day_is_per_calendar_day(con, tmp_path):
    (tmp_path / "t.csv").write_text(CLOSED_TWO_MONTHS)
    settings = DataConfig(str(tmp_path / "t.csv"))
    result = prepare(con, open_source(con, "transactions", settings).table, settings)
    months = by_month(result.transactions)
    assert months["month"].dt.month.tolist() == [1, 2, 3, 4, 5, 6]
    assert months["revenue"].tolist() == [300, 200, 0, 0, 200, 300]
    assert months["days"].tolist() == [31, 28, 31, 30, 31, 30]
    assert months["whole"].tolist() == [True, True, False, False, True, True]
    flag = raised(result)["silence"]
    assert "2025-02-12 to 2025-05-09" in flag["examples"] and flag["matters"]


def test_a_month_with_more_returns_than_sales_is_told(con, tmp_path):
    log = shop(days=122)  # March to June
    back = log[log["date"] < "2025-05-01"].assign(quantity=lambda lines: -lines["quantity"])
    back["date"] += pd.Timedelta(days=61)
    back["transaction_id"] = "R" + back["transaction_id"]
    kept = log[(log["date"] < "2025-05-01") | (log["date"] >= "2025-06-01")]
    result = cleaned(con, tmp_path, pd.concat([kept, back[back["date"] < "2025-06-01"]]))
    flag = raised(result)["returns_beyond_sales"]
    may = back[back["date"] < "2025-06-01"]
    assert sums(flag) == (len(may), paid(may)) and paid(may) < 0
    assert flag["examples"] == [f"2025-05: −{-paid(may):,.0f}"] and flag["matters"]
    assert "no growth is told to it or from it" in flag["change"]
    assert "A month with more returns than sales: 2025-05" in html.unescape(
        str(doubts_line({"raised": [flag | {"lines": 0}]}))
    )
    even = back.assign(quantity=-back["quantity"])
    result = cleaned(con, tmp_path, pd.concat([kept, even, back[::2]]))
    assert "returns_beyond_sales" not in raised(result), "half of the sales came back"


def test_a_month_is_whole_by_the_shops_own_opening_days(con, tmp_path):
    log = shop(days=153)
    monday_to_saturday = log[log["date"].dt.day_of_week < 6]
    until = monday_to_saturday[monday_to_saturday["date"] < "2025-06-01"]  # May 31 is a Saturday
    until = until[until["date"] < "2025-05-31"]
    result = cleaned(con, tmp_path, until)
    assert raised(result)["part_month"]["examples"] == ["2025-05-30"]
    may = until[until["date"] >= "2025-05-01"]
    assert sums(raised(result)["part_month"]) == (len(may), paid(may))
    assert by_month(result.transactions)["whole"].tolist() == [True, True, False]
    august = shop(days=200)
    august = august[(august["date"].dt.day_of_week < 6) & (august["date"] < "2025-08-31")]
    result = cleaned(con, tmp_path, august)  # August 31 is a Sunday
    assert "part_month" not in raised(result)
    assert by_month(result.transactions)["whole"].all()


@needs_cases
def test_closed_on_sundays(con):
    log = pd.read_csv(CASES / "closed_sunday.csv", parse_dates=["date"])
    assert covered_span(log["date"])[1] == pd.Timestamp("2025-08-31")
    settings = load_config(str(CASES / "closed_sunday.yaml")).data
    result = prepare(con, open_source(con, "transactions", settings).table, settings)
    assert by_month(result.transactions)["whole"].tolist() == [True, True, True]


def test_a_few_lines_at_night(con, tmp_path):
    log = shop(days=153)
    log.loc[[40, 41], "date"] = pd.Timestamp("2025-03-04 03:20")
    flag = raised(cleaned(con, tmp_path, log))["odd_hours"]
    assert sums(flag) == (2, paid(log.loc[[40, 41]]))
    assert flag["examples"] == ["2025-03-04 03 h"] and not flag["matters"]
    log["date"] = log["date"].dt.normalize()  # without a time, midnight is no hour
    assert not {"odd_hours", "shifted_hours"} & set(raised(cleaned(con, tmp_path, log)))


def test_the_hours_of_another_zone(con, tmp_path):
    log = shop(days=153, hour=20)
    log["date"] += pd.Timedelta(hours=3)
    night = log[(log["date"].dt.hour < 5) & (log["date"] != log["date"].dt.normalize())]
    flag = raised(cleaned(con, tmp_path, log))["shifted_hours"]
    assert sums(flag) == (len(night), paid(night)) and "data.timezone" in flag["advice"]
    online = shop(days=153)
    some = online.index % 20 == 0
    online.loc[some, "date"] = online.loc[some, "date"].dt.normalize() + pd.Timedelta(hours=2)
    found = raised(cleaned(con, tmp_path, online))
    assert not {"odd_hours", "shifted_hours"} & set(found)


# Baskets


def test_receipt_numbers_that_start_anew(con, tmp_path):
    log = shop(days=153)
    log["transaction_id"] = log["transaction_id"].str[-1]
    log["customer_id"] = "C" + log["transaction_id"]
    flag = raised(cleaned(con, tmp_path, log))["long_basket"]
    assert sums(flag) == (len(log), paid(log)) and flag["matters"]
    assert f"6 baskets would be {153 * 6}" in flag["change"] and "data.basket" in flag["advice"]


def test_a_return_or_a_visit_over_midnight_is_no_long_basket(con, tmp_path):
    log = shop(days=153)
    back = log.tail(1).assign(quantity=-1, date=log["date"].max() - pd.Timedelta(days=9))
    late = log.head(2).assign(transaction_id="N")
    late["date"] = pd.to_datetime(["2025-03-02 23:58", "2025-03-03 00:04"])
    found = raised(cleaned(con, tmp_path, pd.concat([log, back, late])))
    assert "long_basket" not in found


def test_one_basket_for_many_customers(con, tmp_path):
    log = shop(days=153)
    ours = log["date"].dt.normalize() == pd.Timestamp("2025-04-01")
    log.loc[ours, "transaction_id"] = "0"
    flag = raised(cleaned(con, tmp_path, log))["shared_basket"]
    assert log.loc[ours, "customer_id"].nunique() > 1
    assert sums(flag) == (ours.sum(), paid(log[ours])) and flag["examples"] == ["0"]
    result = cleaned(con, tmp_path, log)
    assert result.facts["by_flag"]["shared_basket"] == ours.sum()
    assert (to_pandas(result.flagged)["flag"] == "shared_basket").sum() == ours.sum()


def test_a_basket_of_a_thousand_lines(con, tmp_path):
    log = shop(days=153)
    many = log.head(1).assign(transaction_id="DAY").loc[np.repeat(0, 1000)]
    many["price"] = np.arange(1000) / 100
    flag = raised(cleaned(con, tmp_path, pd.concat([log, many])))["huge_basket"]
    assert sums(flag) == (1000, paid(many)) and flag["examples"] == ["DAY"]
    assert "huge_basket" not in raised(cleaned(con, tmp_path, pd.concat([log, many.head(999)])))


# Amounts


@pytest.mark.parametrize("column, times", [("price", 100), ("price", 0.01), ("quantity", 2000)])
def test_an_amount_far_from_the_usual(con, tmp_path, column, times):
    log = shop(days=153).astype({"quantity": "float"})
    log.loc[[40, 41], column] *= times
    flag = raised(cleaned(con, tmp_path, log))["odd_amount"]
    assert sums(flag) == (2, paid(log.loc[[40, 41]])) and len(flag["examples"]) == 2
    log.loc[[40, 41], "quantity"] *= -1  # a return is no sale
    assert "odd_amount" not in raised(cleaned(con, tmp_path, log))


def test_another_price_and_a_large_order_are_usual(con, tmp_path):
    log = shop(days=153)
    log.loc[40, "price"] *= 40
    log.loc[41, "quantity"] = 999
    assert "odd_amount" not in raised(cleaned(con, tmp_path, log))


# Ids


@pytest.mark.parametrize("column", ["transaction_id", "customer_id", "product_id"])
def test_a_rounded_id(con, tmp_path, column):
    log = shop(days=153)
    rounded = {10: "5.41E+11", 20: "5,41E+11", 30: "1.2e10", 40: "1E+12"}
    rows = [row for first in rounded for row in (first, first + 1)]
    for first, id in rounded.items():
        log.loc[[first, first + 1], column] = id
    result = cleaned(con, tmp_path, log)
    flag = raised(result)["damaged_id"]
    assert sums(flag) == (8, paid(log.loc[rows])) and flag["matters"]
    assert len(flag["examples"]) == 2
    assert set(flag["examples"]) < {f"{column} {id}" for id in rounded.values()}
    marked = to_pandas(result.flagged)
    assert [row - 1 for row in marked.loc[marked["flag"] == "damaged_id", "row"]] == rows


def test_codes_with_an_e_are_no_rounded_ids(con, tmp_path):
    log = shop(days=153)
    for n, code in enumerate(["5E10", "E12", "12E", "1.2", "3e4f", "A1.2E+3"]):
        log.loc[n, "product_id"] = code
    assert "damaged_id" not in raised(cleaned(con, tmp_path, log))


def test_the_line_of_a_rounded_basket_is_listed(con, tmp_path):
    log = shop(days=30)
    log.loc[[2, 3], "transaction_id"] = "5.41E+11"
    result = cleaned(con, tmp_path, log)
    assert result.facts["by_flag"]["damaged_id"] == 2
    assert to_pandas(result.flagged)["row"].tolist() == [3, 4]


def test_ids_that_differ_in_case(con, tmp_path):
    log = shop(days=153)
    log.loc[[10, 11], "customer_id"] = log.loc[10, "customer_id"].lower()
    same = log["customer_id"].str.upper() == log.loc[10, "customer_id"].upper()
    flag = raised(cleaned(con, tmp_path, log))["lookalike_id"]
    assert sums(flag) == (same.sum(), paid(log[same]))
    assert "these 2 ids would be 1." in flag["change"]
    log["customer_id"] = log["customer_id"].str.lower()
    assert "lookalike_id" not in raised(cleaned(con, tmp_path, log))


# Joins and tables


def test_a_customers_table_that_spells_ids_otherwise(con, tmp_path):
    log = shop(days=153)
    log["customer_id"] = "000" + log["customer_id"].str[1:]
    numbers = sorted({int(c) for c in log["customer_id"]})
    people = pd.DataFrame({"customer_id": numbers, "consent": "yes"})
    flag = raised(cleaned(con, tmp_path, log, people))["customers_not_met"]
    assert sums(flag) == (len(log), paid(log)) and flag["matters"]
    assert "0 of 40 customers of the log are among the 40" in flag["change"]
    assert flag["examples"][0] == "00000 beside 0"
    people["customer_id"] = [f"{n:05d}" for n in numbers]
    assert "customers_not_met" not in raised(cleaned(con, tmp_path, log, people.head(20)))
    missed = log[log["customer_id"].astype(int).isin(numbers[10:])]
    flag = raised(cleaned(con, tmp_path, log, people.head(10)))["customers_not_met"]
    assert sums(flag) == (len(missed), paid(missed))


@needs_cases
@pytest.mark.parametrize("name, met", [("customers_no_match", 0), ("float_ids_placeholder", None)])
def test_a_join_that_meets_nobody_is_said(con, name, met):
    settings = load_config(str(CASES / name / "case.yaml")).data
    tables = [open_source(con, role, settings).table for role in ("transactions", "customers")]
    result = prepare(con, tables[0], settings, None, tables[1])
    sides = result.plausible["meeting"]["customers"]
    assert sides["listed"] == 2
    flag = raised(result).get("customers_not_met")
    assert (flag is not None) == (sides["both"] < sides["log"] / 2)
    if met == 0:
        assert sides == {"log": 2, "listed": 2, "both": 0}
        assert flag["examples"] == ["00017 beside 17", "00018 beside 18"]


def test_a_products_table_that_spells_ids_otherwise(con, tmp_path):
    log = shop(days=153)
    products = pd.DataFrame({"product_id": [f"p-{n}" for n in range(9)], "product_name": "Soap"})
    flag = raised(cleaned(con, tmp_path, log, products=products))["products_not_met"]
    assert sums(flag) == (len(log), paid(log))
    assert flag["examples"][0] == "P0 beside p-0"


def test_rows_that_contradict_each_other_or_say_nothing(con, tmp_path):
    log = shop(days=153)
    customers = pd.DataFrame(
        {
            "customer_id": ["C01", "C01", "C02", None, "C03"],
            "consent": ["yes", "no", "yes", "yes", None],
        }
    )
    products = pd.DataFrame(
        {
            "product_id": ["P1", "P1", "P2", "P2", None],
            "product_name": [None, "Soap", "Rope", "Dope", "x"],
        }
    )
    result = cleaned(con, tmp_path, log, customers, products)
    found = raised(result)
    c01, p2 = (log[log[c] == v] for c, v in (("customer_id", "C01"), ("product_id", "P2")))
    assert sums(found["contradictory_customer"]) == (len(c01), paid(c01))
    assert sums(found["contradictory_product"]) == (len(p2), paid(p2))
    assert found["blank_row"]["examples"] == [
        "products: 1 row without an id",
        "products: 1 row with nothing but an id",
        "customers: 1 row without an id",
        "customers: 1 row with nothing but an id",
    ]
    named = to_pandas(result.products).set_index("product_id")["product_name"]
    assert (named["P1"], named["P2"]) == ("Soap", "Rope")
    whole = cleaned(con, tmp_path, log, customers[2:3], products[2:3])
    assert not {"contradictory_customer", "contradictory_product", "blank_row"} & set(raised(whole))


@needs_cases
def test_a_blank_name_in_the_first_row(con):
    settings = load_config(str(CASES / "blank_name_first/case.yaml")).data
    result = prepare(con, open_source(con, "transactions", settings).table, settings)
    products = to_pandas(result.products)
    assert products[["product_id", "product_name", "category"]].values.tolist() == [
        ["P1", "Soap", "Hygiene"],
        ["P2", "Comb", "Hair"],
    ]
    assert "contradictory_product" not in raised(result)


# Copies


def no_receipts(lines: int = 30) -> pd.DataFrame:
    """Equal sales of a day, without a receipt number, and another one."""
    same = {"customer_id": None, "product_id": "P1", "date": "2025-01-02", "price": 2.5}
    rows = [same] * lines + [same | {"customer_id": "C1", "price": 7.5}]
    return pd.DataFrame(rows).assign(quantity=1)


def test_without_a_basket_id_nothing_is_collapsed(con, tmp_path):
    log = no_receipts()
    result = cleaned(con, tmp_path, log)
    assert (result.facts["collapsed"], result.facts["revenue"]) == (0, 30 * 2.5 + 7.5)
    flag = raised(result)["equal_lines"]
    assert sums(flag) == (29, 29 * 2.5) and flag["matters"]
    assert "equal_lines" not in raised(cleaned(con, tmp_path, log, duplicates="keep"))
    assert "equal_lines" not in raised(cleaned(con, tmp_path, log.drop_duplicates()))
    table = open_source(con, "transactions", DataConfig(str(tmp_path / "transactions.csv"))).table
    assert retail_ci.clean(log, duplicates="collapse").facts["collapsed"] == 0
    assert table.count().execute() == 2  # the file of the last line above


def test_lines_that_differ_in_any_column_are_not_equal(con, tmp_path):
    log = no_receipts()
    numbered = log.assign(no=range(10, 10 + len(log)))
    assert sums(raised(cleaned(con, tmp_path, numbered))["equal_lines"]) == (29, 29 * 2.5)
    told_apart = {"invoice": [f"F{37 * n % 1000}" for n in range(len(log))]}
    assert "equal_lines" not in raised(cleaned(con, tmp_path, log.assign(**told_apart)))
    stores = pd.concat([log.assign(store_id=store) for store in "NS"])
    assert sums(raised(cleaned(con, tmp_path, stores))["equal_lines"]) == (58, 58 * 2.5)


@needs_cases
def test_sales_without_receipts(con):
    settings = load_config(str(CASES / "no_receipt_copies/case.yaml")).data
    raw = pd.read_csv(CASES / "no_receipt_copies/t.csv")
    result = prepare(con, open_source(con, "transactions", settings).table, settings)
    assert result.facts["revenue"] == paid(raw) == 82.5
    again = raw[raw.duplicated()]
    assert sums(raised(result)["equal_lines"]) == (len(again), paid(again))


def test_many_copies_stop_a_run_and_few_do_not(con, tmp_path):
    log = shop(days=153)
    week = log[log["date"] < "2025-03-08"]
    result = cleaned(con, tmp_path, pd.concat([log, week]))
    assert sums(raised(result)["copies"]) == (len(week), paid(week))
    assert result.facts["collapsed"] == len(week)
    assert "copies" not in raised(cleaned(con, tmp_path, pd.concat([log, week.head(5)])))
    twice = pd.concat([log, log])
    sentence = f"{len(log):,} of {2 * len(log):,} lines equal another in every column"
    with pytest.raises(DataError, match=sentence) as refused:
        cleaned(con, tmp_path, twice)
    assert "\n" not in str(refused.value) and "data.max_collapsed" in str(refused.value)
    assert cleaned(con, tmp_path, twice, max_collapsed=0.5).facts["kept"] == len(log)
    assert cleaned(con, tmp_path, twice, duplicates="keep").facts["kept"] == 2 * len(log)


def test_baskets_that_are_there_twice_but_for_a_stamp(con, tmp_path):
    log = shop(days=153).assign(exported="2025-08-01")
    march = log[log["date"] < "2025-04-01"].assign(exported="2025-04-01")
    flag = raised(cleaned(con, tmp_path, pd.concat([log, march])))["near_copies"]
    assert sums(flag) == (len(march), paid(march)) and flag["matters"]
    assert flag["examples"][0] == "2025-03-01: 12"


def test_two_equal_articles_on_a_receipt_are_no_near_copies(con, tmp_path):
    log = shop(days=153)
    again = log.iloc[::40]
    both = pd.concat([log, again]).assign(line=lambda t: range(len(t)))
    assert "near_copies" not in raised(cleaned(con, tmp_path, both))


# Where a flag is said


def test_a_flag_is_said_by_check_and_on_the_front_page(tmp_path):
    log = shop(days=153)
    log.loc[[10, 11], "customer_id"] = "5.41E+11"
    log.to_csv(tmp_path / "sales.csv", index=False)
    (tmp_path / "shop.yaml").write_text("data: {transactions: sales.csv}\n")
    text, fine = check_source(load_config(str(tmp_path / "shop.yaml")))
    worth = paid(log.loc[[10, 11]])
    assert fine and f"(damaged_id), revenue {worth:,.2f} (customer_id 5.41E+11)" in text
    said = [
        t for t in closing(examine(str(tmp_path / "sales.csv"))) if t.startswith("It looks odd")
    ]
    assert len(said) == 1 and f"2 lines, revenue {worth:,.2f}" in said[0]
    done = retail_ci.clean(log)
    assert done.flags["flag"].tolist() == ["damaged_id"] and done.flags["lines"].tolist() == [2]
    page = doubts_line({"raised": done.flags.to_dict("records")})
    assert "Look at the data first" in page and "2 lines" in page and "quality.qmd" in page
    assert doubts_line({"raised": []}) == ""


# Engines


def odd_shop() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A log, customers and products with something of most kinds."""
    log = shop(days=153).assign(exported="2025-08-01")
    march = log[log["date"] < "2025-03-03"].assign(exported="2025-04-01")
    far = log.tail(2).assign(transaction_id="X")
    far["date"] = pd.to_datetime(["2026-02-01 10:00", "2024-02-01 10:00"])
    log.loc[[10, 11], "customer_id"] = "5.41E+11"
    log.loc[[20, 21], "customer_id"] = log.loc[20, "customer_id"].lower()
    log.loc[[30, 31, 300, 301], "transaction_id"] = "0001"
    log.loc[[40], "date"] = pd.Timestamp("2025-03-04 03:20")
    log.loc[[50], "quantity"] = 4_000  # more than a quarter of the revenue
    people = pd.DataFrame({"customer_id": ["C01", "C01", None], "consent": ["yes", "no", "x"]})
    products = pd.DataFrame(
        {"product_id": ["P1", "P1", "P2", "P2"], "product_name": [None, "Soap", "Rope", "Dope"]}
    )
    return pd.concat([log, march, far], ignore_index=True), people, products


def on_engine(con, folder: Path) -> dict:
    """What the flags say of the odd shop, from parquet files."""
    tables = []
    for name, table in zip(("log", "people", "products"), odd_shop()):
        path = folder / f"{name}.parquet"
        texts = table.astype({c: "string" for c in table if c != "date"})
        if "date" in texts:
            texts["date"] = texts["date"].astype("datetime64[us]")
        texts.to_parquet(path, index=False)
        tables.append(read_parquet(con, [path]))
    log, people, products = tables
    return prepare(con, log, DataConfig(products="the products"), products, people).plausible


@pytest.fixture(scope="module")
def on_duckdb(con, tmp_path_factory):
    return on_engine(con, tmp_path_factory.mktemp("duckdb"))


def test_the_odd_shop_raises_a_dozen_flags(on_duckdb):
    names = {flag["flag"] for flag in on_duckdb["raised"]}
    assert names >= {
        "misdated",
        "odd_hours",
        "long_basket",
        "shared_basket",
        "dominant_basket",
        "damaged_id",
        "lookalike_id",
        "customers_not_met",
        "products_not_met",
        "contradictory_customer",
        "contradictory_product",
        "blank_row",
        "near_copies",
    }


def test_spark_says_the_same(spark, on_duckdb, tmp_path):
    assert on_engine(spark, tmp_path) == on_duckdb


def test_postgres_says_the_same(postgres, on_duckdb):
    log, people, products = odd_shop()
    log = log.assign(date=log["date"].dt.strftime("%Y-%m-%d %H:%M:%S"))
    for name, table in (("odd_log", log), ("odd_people", people), ("odd_products", products)):
        types = {c: "timestamp" if c == "date" else "text" for c in table}
        postgres.fill(name, table.astype(object).where(table.notna(), None), types)
    data = DataConfig(*(postgres.url(f"odd_{name}") for name in ("log", "products", "people")))
    con = connect()
    opened = [open_source(con, role, data) for role in ("transactions", "products", "customers")]
    result = prepare(opened[0].backend, opened[0].table, data, *(s.table for s in opened[1:]))
    assert result.plausible == on_duckdb
