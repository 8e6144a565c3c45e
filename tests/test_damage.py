"""Damage to a clean log: what is kept stays as it was, or a flag, a reason or a sentence names it.

A kind of damage changes rows, text or bytes. What must be kept is known from the rows themselves,
without a line of the package's own code. `make test` tries each kind once: two at a time where they
leave each other alone, and each of them has to be harmless or named. DAMAGES is how often each kind
is drawn alone, and how many dozens of pairs are drawn (10 in `make soak`). Where it is more than 1,
every kind that changes rows is drawn on PostgreSQL too, and some on Spark.
"""

import dataclasses
import functools
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from unittest import mock

import openpyxl
import pandas as pd
import pytest
import yaml
from hypothesis import (
    HealthCheck,
    Phase,
    given,
    settings,
)
from hypothesis import (
    strategies as st,
)

import retail_ci
from retail_ci.core.config import load_config
from retail_ci.core.errors import RetailError
from retail_ci.data import profiling

profiling_report = profiling.report  # `seen` listens to it
DAMAGES = int(os.environ.get("DAMAGES", 1))
NAMES = [
    "transaction_id",
    "customer_id",
    "product_id",
    "date",
    "quantity",
    "price",
    "revenue",
]
KEPT = ["transaction_id", "customer_id", "product_id", "day", "quantity", "revenue"]
Row = dict[str, str]


@dataclasses.dataclass
class Shop:
    """A log and the tables beside it, as text; and how the file is written."""

    rows: list[Row]
    products: list[Row]
    customers: list[Row]
    names: list[str] = dataclasses.field(default_factory=lambda: list(NAMES))
    data: dict = dataclasses.field(default_factory=dict)  # further keys of the config
    text: list[Callable[[str], str]] = dataclasses.field(default_factory=list)
    delimiter: str = ","
    quoted: bool = False
    ending: str = "csv"
    encode: Callable[[str], bytes] = str.encode

    def some(self, random: Random, most: int = 12) -> list[Row]:
        """A few of the sales."""
        sales = [row for row in self.rows if not row["quantity"].startswith("-")]
        return random.sample(sales, random.randint(1, most))


def clean_shop() -> Shop:
    """A shop that sells on every day of half a year, from eight to eight."""
    random = Random(14)
    products = [
        {
            "product_id": f"ÄP-{p:02}",
            "product_name": f"Soap {p}",
            "category": f"Kind {p % 4}",
        }
        for p in range(30)
    ]
    prices = [f"{random.randint(150, 4000) / 100:.2f}" for _ in products]
    prices[7] = "1250.50"
    customers = [
        {"customer_id": f"{1017 + 13 * c:06}", "city": ("Rome", "Oslo")[c % 2]} for c in range(60)
    ]
    rows, number, sold = [], 0, []
    for day in range(181):
        for _ in range(1 + day % 2):
            when = datetime(2025, 1, 1) + timedelta(days=day, minutes=random.randint(480, 1199))
            who = customers[(number * 7) % 60]["customer_id"]
            for p in random.sample(range(30), random.choice([1, 1, 2, 2, 3, 4, 5])):
                quantity = random.choice([1, 1, 1, 2, 3])
                sold.append((f"R{number:05}", who, p, when, quantity))
            number += 1
    for _, who, p, when, _ in random.sample(sold[:400], 6):
        sold.append((f"R{number:05}", who, p, when + timedelta(days=3), -1))
        number += 1
    for basket, who, p, when, quantity in sold:
        values = (basket, who, products[p]["product_id"], f"{when:%Y-%m-%d %H:%M}", str(quantity))
        rows.append(dict(zip(NAMES, (*values, prices[p], f"{quantity * float(prices[p]):.2f}"))))
    return Shop(rows, products, customers)


def lines_of(rows: list[Row]) -> list[tuple]:
    """The lines as they must be kept: sorted, because their order means nothing."""
    return sorted(
        (
            row["transaction_id"],
            row["customer_id"],
            row["product_id"],
            row["date"][:10],
            float(row["quantity"]),
            round(float(row["revenue"]), 2),
        )
        for row in rows
    )


# Writing


def field_of(value: str, shop: Shop) -> str:
    """A value in a delimited text."""
    special = shop.delimiter in value or any(c in value for c in '"\r\n')
    return f'"{value}"' if shop.quoted or special else value


def table_text(names: list[str], rows: list[Row], shop: Shop) -> str:
    lines = [[*names], *([row.get(name, "") for name in names] for row in rows)]
    return "".join(shop.delimiter.join(field_of(v, shop) for v in line) + "\n" for line in lines)


def log_bytes(shop: Shop) -> bytes:
    """The log as a delimited text."""
    text = table_text(shop.names, shop.rows, shop)
    for change in shop.text:
        text = change(text)
    return shop.encode(text)


def typed(name: str, value: str) -> object:
    """A value as a program would store it; text where it is no number or date."""
    if name == "date":
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    if name in ("quantity", "price", "revenue"):
        try:
            return float(value)
        except ValueError:
            return value
    return value or None


def write_log(shop: Shop, file: Path) -> None:
    if shop.ending == "csv":
        file.write_bytes(log_bytes(shop))
        return
    lines = [[typed(name, row.get(name, "")) for name in shop.names] for row in shop.rows]
    if shop.ending == "parquet":
        frame = pd.DataFrame(lines, columns=shop.names)
        for name in shop.names:
            kinds = {type(v) for v in frame[name] if v is not None}
            if len(kinds) > 1:
                frame[name] = frame[name].astype(str)
        frame.to_parquet(file)
        return
    book = openpyxl.Workbook()
    for line in [shop.names, *lines]:
        book.active.append(line)
    book.save(file)


def write(shop: Shop, folder: Path) -> Path:
    """Write the files and the config that reads them."""
    plain = Shop([], [], [])
    data = {"transactions": f"sales.{shop.ending}"}
    write_log(shop, folder / data["transactions"])
    for name in ("products", "customers"):
        rows = getattr(shop, name)
        (folder / f"{name}.csv").write_text(table_text(list(rows[0]), rows, plain), "utf-8")
        data[name] = f"{name}.csv"
    places = {key: str(folder / file) for key, file in data.items()}
    data = places | {"threads": 1} | shop.data
    (folder / "shop.yaml").write_text(yaml.safe_dump({"data": data}), "utf-8")
    return folder / "shop.yaml"


# What a user sees


@dataclasses.dataclass(frozen=True)
class Seen:
    """What `check` says, and what is kept."""

    told: str
    kept: tuple | None = None  # lines, customers' attributes, products' names; None if refused


def seen(config: Path) -> Seen:
    """What `check` prints, and the lines that it counts as kept; a refusal is one sentence."""
    found: list[Seen] = []

    def report(result, *limits: float) -> str:
        told = profiling_report(result, *limits)
        found.append(Seen(told, outcome(result)))
        names = [flag["flag"] for flag in result.plausible["raised"]]
        reasons = [name for name, lines in result.facts["by_reason"].items() if lines]
        assert all(f"({name})" in told for name in names + reasons), told
        return told

    with mock.patch.object(profiling, "report", report):
        try:
            told, accepted = profiling.check_source(load_config(str(config)))
        except RetailError as error:
            return Seen(one_sentence(error))
    return Seen(told, found[0].kept if accepted else None)


def outcome(result) -> tuple:
    """What is kept, as `expected` gives it."""
    lines = result.transactions.execute()
    add_up(result.facts, lines)
    if not len(lines):
        return ()
    lines["day"] = lines["date"].dt.strftime("%Y-%m-%d")
    lines["revenue"] = lines["revenue"].round(2)
    return lines_and_tables(lines, result.customers, result.products)


def lines_and_tables(lines: pd.DataFrame, customers, products) -> tuple:
    """Sorted lines, customers with their city, products with their names."""
    people, goods = (
        table.execute() if hasattr(table, "execute") else table for table in (customers, products)
    )
    people = people[["customer_id", "city"]] if people is not None else pd.DataFrame()
    goods = goods[["product_id", "product_name", "category"]]
    tables = (lines[KEPT], people, goods)
    return tuple(sorted(t.fillna("").itertuples(index=False, name=None)) for t in tables)


def one_sentence(error: RetailError) -> str:
    text = str(error)
    assert "\n" not in text and "Traceback" not in text and text.rstrip().endswith("."), text
    return text


def add_up(facts: dict, lines: pd.DataFrame) -> None:
    """Lines in are lines out, and so is the revenue."""
    out = facts["kept"] + facts["rejected"] + facts["collapsed"] + facts.get("set_aside", 0)
    assert facts["rows_in"] == out and facts["kept"] == len(lines)
    assert sum(facts["by_reason"].values()) == facts["rejected"] + facts.get("set_aside", 0)
    if len(lines):
        assert facts["revenue"] == pytest.approx(lines["revenue"].sum())


@functools.cache
def expected() -> tuple:
    """What must be kept, from the rows themselves."""
    shop = clean_shop()
    people = sorted(tuple(row.values()) for row in shop.customers)
    goods = sorted(tuple(row.values()) for row in shop.products)
    return lines_of(shop.rows), people, goods


# The kinds of damage


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of damage."""

    name: str
    change: Callable[[Shop, Random], None]
    words: str  # a regular expression that names it; "" where nothing may change


KINDS: list[Kind] = []


def kind(words: str = ""):
    """Register a kind of damage, with the words that name it."""

    def register(change: Callable[[Shop, Random], None]):
        KINDS.append(Kind(change.__name__, change, words))
        return change

    return register


# ... of the text


@kind()
def byte_order_mark(shop, random):
    shop.encode = lambda text: text.encode("utf-8-sig")


@kind()
def windows_line_ends(shop, random):
    shop.text.append(lambda text: text.replace("\n", "\r\n"))


@kind()
def old_macintosh_line_ends(shop, random):
    shop.text.append(lambda text: text.replace("\n", "\r"))


@kind()
def semicolons(shop, random):
    shop.delimiter = ";"


@kind()
def tabs(shop, random):
    shop.delimiter = "\t"


@kind("looks like UTF-16 without a byte order mark")
def utf_16(shop, random):
    codec = random.choice(["utf-16", "utf-16-le", "utf-16-be"])
    shop.encode = lambda text: text.encode(codec)


@kind("is not utf-8: byte 0x")
def another_encoding(shop, random):
    codec = random.choice(["cp1252", "latin-1", "mac_roman", "cp850"])
    shop.encode = lambda text: text.encode(codec, "replace")


@kind("damaged_line")
def another_encoding_in_some_lines(shop, random):
    some = random.randrange(100, 500)

    def encode(text: str) -> bytes:
        lines = text.splitlines(keepends=True)
        odd = "".join(lines[some : some + 2]).encode("cp1252", "replace")
        return "".join(lines[:some]).encode() + odd + "".join(lines[some + 2 :]).encode()

    shop.encode = encode


def between_lines(shop: Shop, random: Random, line: Callable[[str], str]) -> None:
    """Put a line, made of the header, somewhere below it."""
    place = random.random()

    def change(text: str) -> str:
        lines = text.splitlines(keepends=True)
        end = re.search(r"[\r\n]*$", lines[0])[0]
        at = 1 + int(place * (len(lines) - 1))
        return "".join([*lines[:at], line(lines[0].rstrip("\r\n")) + end, *lines[at:]])

    shop.text.append(change)


def on_lines(shop: Shop, random: Random, edit: Callable[[str], str], most: int = 8) -> None:
    """Edit some lines below the header, without their ends."""
    places = [random.random() for _ in range(random.randint(1, most))]

    def change(text: str) -> str:
        lines = text.splitlines(keepends=True)
        for place in places:
            at = 1 + int(place * (len(lines) - 1))
            bare = lines[at].rstrip("\r\n")
            lines[at] = edit(bare) + lines[at][len(bare) :]
        return "".join(lines)

    shop.text.append(change)


@kind()
def blank_lines(shop, random):
    for _ in range(random.randint(1, 5)):
        between_lines(shop, random, lambda header: "")


@kind()
def blank_lines_at_the_ends(shop, random):
    shop.text.append(lambda text: "\n\n" + text + "\n\n\n")


@kind()
def everything_quoted(shop, random):
    shop.quoted = True


@kind()
def every_line_whole_in_quotes(shop, random):
    def change(text: str) -> str:
        lines = re.split(r"(\r\n|\r|\n)", text)
        whole = ['"' + line.replace('"', '""') + '"' if line else "" for line in lines[::2]]
        return "".join(map("".join, zip(whole, [*lines[1::2], ""])))

    shop.text.append(change)


@kind()
def line_breaks_in_quotes(shop, random):
    shop.names.append("note")
    for row in shop.some(random):
        row["note"] = "left at the\ndoor, twice"


@kind("damaged_line")
def a_trailing_delimiter(shop, random):
    header_too = random.random() < 0.5

    def change(text: str) -> str:
        head, _, rest = text.partition("\n")
        ended = re.sub(r"(?<=[^\r\n])(?=\r?\n|$)", shop.delimiter, rest)
        return head + shop.delimiter * header_too + "\n" + ended

    shop.text.append(change)


@kind("damaged_line")
def an_open_quotation_mark(shop, random):
    on_lines(shop, random, lambda line: line.replace(shop.delimiter, shop.delimiter + '"', 1), 1)


@kind("damaged_line")
def too_few_fields(shop, random):
    on_lines(shop, random, lambda line: line.rpartition(shop.delimiter)[0])


@kind("damaged_line")
def too_many_fields(shop, random):
    on_lines(shop, random, lambda line: line + shop.delimiter + "7")


@kind("damaged_line")
def zero_bytes(shop, random):
    on_lines(shop, random, lambda line: line.replace(shop.delimiter, "\0" + shop.delimiter, 1))


@kind(r"damaged_line|\(contradiction\)|\(bad_\w+\)")
def a_truncated_last_line(shop, random):
    part = random.random()

    def change(text: str) -> str:
        head, end, last = text.rstrip("\r\n").rpartition("\n")
        return head + end + last[: 1 + int(part * (len(last) - 1))]

    shop.text.append(change)


@kind("repeated_header")
def the_header_in_the_middle(shop, random):
    between_lines(shop, random, lambda header: header)


@kind(r"\(total_row\)|damaged_line")
def a_row_of_totals(shop, random):
    total = sum(float(row["revenue"]) for row in shop.rows)
    first = random.choice(["Total", "", "Gesamtsumme", "Suma:", "итого", "合计"])
    row = dict.fromkeys(NAMES, "") | {"transaction_id": first, "revenue": f"{total:.2f}"}
    if first and random.random() < 0.5:
        row["date"] = "2025-06-30 20:00"
    shop.rows.append(row)


@kind(r"Column 'date' \(our date\) is not in|appears twice in the header")
def a_title_above_the_header(shop, random):
    title = random.choice(["Sales of 2025", "Sales,of,2025,,,,", "Export 2025-07-01 08:00"])
    shop.text.append(lambda text: title + "\n" + text)


@kind()
def columns_in_another_order(shop, random):
    random.shuffle(shop.names)


@kind("sounds like|is not in the transactions")
def a_header_in_another_case(shop, random):
    name = random.choice([n for n in NAMES if n != "revenue"])
    written = random.choice([name.upper(), name.title(), f" {name} ", f"{name.capitalize()} "])
    shop.text.append(lambda text: re.sub(rf"(?<![\w]){name}(?!\w)", written, text, count=1))


# ... of amounts


def amounts(shop: Shop, rows: list[Row], edit: Callable[[str], str], *names: str) -> None:
    for row in rows:
        for name in names or ("price", "revenue"):
            row[name] = edit(row[name])


@kind("bad_price")
def decimal_commas(shop, random):
    rows = random.choice([shop.rows, shop.some(random)])
    amounts(shop, rows, lambda value: value.replace(".", ","))


@kind("bad_price")
def thousands(shop, random):
    mark = random.choice([",", " ", "'", "\u00a0"])
    amounts(shop, shop.rows, lambda value: f"{float(value):,.2f}".replace(",", mark))


@kind("bad_price")
def currency_signs(shop, random):
    sign = random.choice(["€", "$", "EUR ", "£"])
    rows = random.choice([shop.rows, shop.some(random)])
    amounts(shop, rows, lambda value: sign + value)


@kind("bad_quantity|bad_price")
def a_minus_behind(shop, random):
    names = random.choice([("quantity",), ("quantity", "revenue"), ("revenue",)])
    back = [row for row in shop.rows if row["quantity"].startswith("-")]
    amounts(shop, back, lambda value: value.lstrip("-") + "-", *names)


@kind("bad_quantity|bad_price")
def negative_in_brackets(shop, random):
    names = random.choice([("quantity",), ("quantity", "revenue"), ("revenue",)])
    back = [row for row in shop.rows if row["quantity"].startswith("-")]
    amounts(shop, back, lambda value: f"({value.lstrip('-')})", *names)


@kind("missing_word|bad_price|bad_date|bad_quantity|unlisted_product")
def words_for_nothing(shop, random):
    word = random.choice(["NULL", "nan", "N/A", "None", "-", "unknown"])
    name = random.choice([n for n in NAMES if n != "transaction_id"])
    amounts(shop, shop.some(random), lambda value: word, name)


@kind("negative_price")
def negative_prices(shop, random):
    amounts(shop, shop.some(random), lambda value: "-" + value)


@kind("zero_quantity")
def no_quantity(shop, random):
    amounts(shop, shop.some(random), lambda value: "0", "quantity")


@kind(r"too_large|\(contradiction\)")
def a_barcode_as_quantity(shop, random):
    amounts(shop, shop.some(random, 3), lambda value: "4006381333931", "quantity")


@kind(r"odd_amount")
def a_huge_quantity(shop, random):
    for row in shop.some(random, 2):
        row["quantity"] = str(random.choice([5_000, 99_999, 1_000_000]))
        row["revenue"] = f"{int(row['quantity']) * float(row['price']):.2f}"


@kind(r"\(contradiction\)")
def prices_in_cents(shop, random):
    amounts(shop, shop.some(random), lambda value: value.replace(".", ""), "price")


@kind(r"\(contradiction\)")
def revenues_in_cents(shop, random):
    amounts(shop, shop.some(random), lambda value: value.replace(".", ""), "revenue")


@kind(r"odd_amount")
def amounts_in_cents(shop, random):
    amounts(shop, shop.some(random), lambda value: value.replace(".", ""))


# ... of ids

IDS = ("transaction_id", "customer_id", "product_id")


@kind()
def blanks_around_ids(shop, random):
    amounts(shop, shop.some(random), lambda value: f" {value}  ", random.choice(IDS))


@kind("lookalike_id|unlisted_product|shared_basket")
def zero_width_signs_in_ids(shop, random):
    sign = random.choice(["\u200b", "\ufeff", "\u200e", "\u00ad", "\u2060"])
    at = random.choice([0, 2, 9])
    column = random.choice(IDS)
    amounts(shop, shop.some(random), lambda v: v[:at] + sign + v[at:], column)


@kind()
def no_break_spaces_around_ids(shop, random):
    sign = random.choice(["\u00a0", "\u202f", "\u3000"])
    amounts(shop, shop.some(random), lambda value: value + sign, random.choice(IDS))


@kind()
def decomposed_letters(shop, random):
    amounts(shop, shop.some(random), lambda v: unicodedata.normalize("NFD", v), "product_id")


@kind("lookalike_id")
def ids_in_another_case(shop, random):
    amounts(shop, shop.some(random), str.lower, random.choice(["product_id", "transaction_id"]))


@kind("ended in .0|id_with_point")
def a_point_and_zero_behind_ids(shop, random):
    rows = random.choice([shop.rows, shop.some(random)])
    amounts(shop, rows, lambda value: value + ".0", "customer_id")


@kind("damaged_id")
def scientific_notation(shop, random):
    amounts(shop, shop.some(random), lambda value: f"{float(value):.2E}", "customer_id")


@kind("were written like 1.2345678E7")
def scientific_notation_with_all_digits(shop, random):
    def written(value: str) -> str:
        return f"{value[0]}.{value[1:]}E{len(value) - 1}"

    amounts(shop, shop.rows, lambda value: "1" + value, "customer_id")
    for row in shop.customers:
        row["customer_id"] = "1" + row["customer_id"]
    amounts(shop, shop.some(random), written, "customer_id")


@kind("customers_not_met")
def leading_zeros_lost_in_the_log(shop, random):
    amounts(shop, shop.rows, lambda value: value.lstrip("0"), "customer_id")


@kind("customers_not_met")
def leading_zeros_lost_in_the_table(shop, random):
    amounts(shop, shop.customers, lambda value: value.lstrip("0"), "customer_id")


# ... of what is missing


@kind(r"\(anonymous\)")
def no_customer(shop, random):
    amounts(shop, shop.some(random), lambda value: "", "customer_id")


@kind(r"\(no_product\)")
def no_product(shop, random):
    amounts(shop, shop.some(random), lambda value: "", "product_id")


@kind(r"\(missing_basket\)")
def no_basket(shop, random):
    amounts(shop, shop.some(random), lambda value: "", "transaction_id")


@kind(r"\(bad_date\)")
def no_date(shop, random):
    amounts(shop, shop.some(random), lambda value: random.choice(["", "0000-00-00"]), "date")


# ... of days


@kind(r"\(bad_date\)")
def impossible_dates(shop, random):
    day = random.choice(["2025-02-30 10:00", "2025-13-01 10:00", "2025-04-31", "2025-06-10 25:10"])
    amounts(shop, shop.some(random), lambda value: day, "date")


@kind(r"\(bad_date\)")
def two_date_formats(shop, random):
    format = random.choice(["%d.%m.%Y %H:%M", "%m/%d/%Y", "%d %b %Y"])
    rows = shop.some(random)
    amounts(shop, rows, lambda v: datetime.fromisoformat(v).strftime(format), "date")


@kind(r"\(misdated\)")
def a_line_far_ahead(shop, random):
    ahead = datetime(2025, 6, 30, 12) + timedelta(days=random.choice([60, 365, 9000]))
    amounts(shop, shop.some(random, 1), lambda value: f"{ahead:%Y-%m-%d %H:%M}", "date")


@kind(r"\(misdated\)|\(too_old\)")
def lines_far_back(shop, random):
    day = random.choice(["1900-01-01", "1970-01-01", "2000-01-01", "2015-03-03 11:00"])
    amounts(shop, shop.some(random, 5), lambda value: day, "date")


@kind(r"\(silence\)")
def an_empty_month(shop, random):
    month = f"2025-0{random.randint(2, 5)}"
    shop.rows = [row for row in shop.rows if not row["date"].startswith(month)]


@kind(r"\(part_month\)")
def the_end_is_missing(shop, random):
    shop.rows = [row for row in shop.rows if row["date"] < f"2025-06-{random.randint(5, 20):02}"]


@kind(r"\(odd_hours\)|\(shifted_hours\)")
def sales_at_night(shop, random):
    rows = random.choice([shop.rows[::2], shop.some(random, 2)])
    amounts(shop, rows, lambda value: f"{value[:10]} 03:{value[-2:]}", "date")


@kind()
def points_in_time_with_a_zone(shop, random):
    zone = random.choice(["+01:00", "Z", "+0100"])
    amounts(shop, shop.rows, lambda value: value.replace(" ", "T") + ":00" + zone, "date")


# ... of lines and baskets


@kind(r"collapsed +[\d,]+  Exact copies")
def copies_of_lines(shop, random):
    shop.rows += [dict(row) for row in shop.some(random, 60)]


@kind(r"\(near_copies\)")
def an_overlapping_export(shop, random):
    shop.names.append("exported_at")
    month = f"2025-0{random.randint(2, 5)}"
    again = [dict(row) for row in shop.rows if row["date"].startswith(month)]
    for row in shop.rows:
        row["exported_at"] = "2025-07-01 06:00"
    shop.rows += [row | {"exported_at": "2025-07-02 06:00"} for row in again]


@kind(r"\(long_basket\)")
def receipts_that_start_anew(shop, random):
    numbers: dict[str, dict[str, int]] = {}
    for row in shop.rows:
        day = numbers.setdefault(row["date"][:10], {})
        row["transaction_id"] = str(day.setdefault(row["transaction_id"], len(day) + 1))


@kind(r"\(shared_basket\)")
def a_basket_of_many_customers(shop, random):
    day = random.choice([row["date"][:10] for row in shop.rows if row["date"][9] in "2468"])
    for row in shop.rows:
        if row["date"].startswith(day):
            row["transaction_id"] = "R00000"


@kind(r"\(dominant_basket\)")
def a_receipt_that_holds_most_lines(shop, random):
    first = random.choice(shop.rows)["transaction_id"]
    for row in random.sample(shop.rows, int(len(shop.rows) * random.uniform(0.5, 0.9))):
        row["transaction_id"] = first


@kind(r"\(contradiction\)|\(bad_\w+\)")
def totals_on_the_first_lines_alone(shop, random):
    total: dict[str, float] = {}
    for row in shop.rows:
        total[row["transaction_id"]] = total.get(row["transaction_id"], 0) + float(row["revenue"])
    for row in shop.rows:  # the first line of a basket takes its total, and leaves none
        left = total.pop(row["transaction_id"], None)
        row["revenue"] = "" if left is None else f"{left:.2f}"


@kind(r"\(huge_basket\)")
def a_basket_of_thousands_of_lines(shop, random):
    sale = shop.some(random, 1)[0]
    for n in range(random.randint(1000, 2500)):
        price = f"{1 + n / 100:.2f}"
        shop.rows.append(sale | {"quantity": "1", "price": price, "revenue": price})


@kind()
def lines_in_another_order(shop, random):
    random.shuffle(shop.rows)


# ... of columns


@kind(r"\(looks_undone\)")
def a_status_with_cancelled_orders(shop, random):
    shop.names.append("status")
    for row in shop.rows:
        row["status"] = "completed"
    for row in shop.some(random):
        row["status"] = random.choice(["cancelled", "Canceled", "storniert"])


@kind("several currencies|currenc(y|ies)")
def two_currencies(shop, random):
    shop.names.append("currency")
    for row in shop.rows:
        row["currency"] = "EUR"
    for row in shop.some(random):
        row["currency"] = "USD"


@kind()
def a_cost_column(shop, random):
    shop.names.insert(5, "cost")
    for row in shop.rows:
        row["cost"] = f"{float(row['price']) * 0.6:.2f}"


@kind()
def a_cumulative_column(shop, random):
    shop.names.append("running_total")
    total = 0.0
    for row in shop.rows:
        total += float(row["revenue"])
        row["running_total"] = f"{total:.2f}"


# ... of the tables beside the log


@kind(r"\(contradictory_product\)")
def contradictory_products(shop, random):
    again = random.choice(shop.products)
    shop.products.append(again | {"product_name": "Something else"})


@kind(r"\(blank_row\)")
def blank_rows_of_products(shop, random):
    blank = dict.fromkeys(shop.products[0], "")
    only_id = blank | {"product_id": "ÄP-99"}
    shop.products.insert(random.randrange(30), random.choice([blank | {"category": "x"}, only_id]))


@kind(r"\(contradictory_customer\)")
def contradictory_customers(shop, random):
    again = random.choice(shop.customers)
    shop.customers.append(again | {"city": "Bergen"})


@kind(r"\(customers_not_met\)")
def a_table_of_other_customers(shop, random):
    for row in shop.customers:
        row["customer_id"] = "X-" + row["customer_id"]


@kind(r"\(products_not_met\)")
def a_table_of_other_products(shop, random):
    for row in shop.products:
        row["product_id"] = "Q" + row["product_id"]


# ... of the kind of file


@kind()
def a_spreadsheet(shop, random):
    shop.ending = "xlsx"


@kind()
def a_parquet_file(shop, random):
    shop.ending = "parquet"


# The tests

DRAWN = dict(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**32)
BY_NAME = {kind.name: kind for kind in KINDS}


def damaged(seed: int, *kinds: Kind) -> Shop:
    """A clean shop with damage; the same for the same seed."""
    shop = clean_shop()
    for kind in kinds:
        kind.change(shop, Random(seed))
    return shop


def fingerprint(shop: Shop) -> tuple:
    """What the files hold."""
    return log_bytes(shop), repr(shop.products), repr(shop.customers), shop.ending


@functools.cache
def clean_report() -> str:
    with tempfile.TemporaryDirectory() as folder:
        found = seen(write(clean_shop(), Path(folder)))
    assert found.kept == expected()
    return found.told


def judge(seed: int, folder: Path, *kinds: Kind, place: Callable[..., Path] = write) -> None:
    """What is kept is unchanged, or the damage is named."""
    found = seen(place(damaged(seed, *kinds), folder))
    if found.kept == expected():
        return
    loud = [kind for kind in kinds if kind.words]
    silent = [kind for kind in loud if not re.search(kind.words, found.told)]
    assert loud, f"{[k.name for k in kinds]} should change nothing:\n{found.told}"
    if found.kept is None and len(silent) < len(loud):
        return  # one fault that refuses the file hides the others
    unexcused = [kind.name for kind in silent if not excused(kind, kinds, seed, folder)]
    assert not unexcused, f"{unexcused} of {[k.name for k in kinds]} not named in:\n{found.told}"


def excused(kind: Kind, kinds: Sequence[Kind], seed: int, folder: Path) -> bool:
    """Whether a kind that is not named does no harm by itself, or the others have undone it."""
    others = [other for other in kinds if other is not kind]
    if others and fingerprint(damaged(seed, *kinds)) == fingerprint(damaged(seed, *others)):
        return True
    alone = folder / f"{kind.name} alone"
    alone.mkdir()
    return bool(others) and seen(write(damaged(seed, kind), alone)).kept == expected()


def test_a_clean_shop_is_kept_as_it_is():
    assert 550 < len(clean_shop().rows) < 750
    assert "odd  " not in clean_report() and "rejected  " not in clean_report()


def test_there_are_kinds_enough_and_each_has_a_name_of_its_own():
    assert len(KINDS) == len(BY_NAME) > 60


@pytest.mark.parametrize("name", BY_NAME)
def test_each_kind_changes_the_files_and_is_no_word_of_a_clean_report(name):
    clean = fingerprint(clean_shop())
    for seed in range(5):
        assert fingerprint(damaged(seed, BY_NAME[name])) != clean
    words = BY_NAME[name].words
    assert not words or not re.search(words, clean_report())


# What rewrites the whole file, or is refused as a whole and hides what else there is.
BY_ITSELF = [
    *("a_spreadsheet", "a_parquet_file", "utf_16", "another_encoding", "a_trailing_delimiter"),
    *("a_title_above_the_header", "a_header_in_another_case", "two_currencies"),
]
# What hides another price, and what may be harmless though it has a name.
BY_ITSELF += ["prices_in_cents", "amounts_in_cents", "zero_width_signs_in_ids"]
# What other kinds are named by as well.
BY_ITSELF += ["a_truncated_last_line", "a_barcode_as_quantity"]


def twos(kinds: list[Kind]) -> list[tuple[str, ...]]:
    """Names of kinds, each beside one far from it in the list: of another sort."""
    names = [kind.name for kind in kinds if kind.name not in BY_ITSELF]
    half = (len(names) + 1) // 2
    return list(zip(names[:half], names[half:] + names[: len(names) % 2]))


TWOS = [*twos([k for k in KINDS if not k.words]), *twos([k for k in KINDS if k.words])]


def test_each_kind_is_tried_once():
    assert {*BY_ITSELF}.union(*TWOS) == {*BY_NAME}


@pytest.mark.parametrize("names", TWOS, ids=" and ".join)
def test_two_kinds_that_leave_each_other_alone_are_both_harmless_or_both_named(names, tmp_path):
    kinds = [BY_NAME[name] for name in names]
    found = seen(write(damaged(0, *kinds), tmp_path))
    if not kinds[0].words:
        assert found.kept == expected()
        return
    silent = [kind.name for kind in kinds if not re.search(kind.words, found.told)]
    assert found.kept is not None and not silent, f"{silent} not named in:\n{found.told}"


@pytest.mark.parametrize("name", BY_NAME if DAMAGES > 1 else BY_ITSELF)
def test_damage_is_harmless_or_named(name, tmp_path_factory):
    @settings(max_examples=DAMAGES, **DRAWN)
    @given(seeds)
    def drawn(seed: int) -> None:
        kind = BY_NAME[name]
        judge(seed, tmp_path_factory.mktemp("damage"), kind)

    drawn()


@pytest.mark.parametrize(
    "name", ["no_customer", "a_spreadsheet", "too_few_fields", "decimal_commas", "another_encoding"]
)
def test_clean_keeps_and_says_the_same(name, tmp_path):
    config = write(damaged(1, BY_NAME[name]), tmp_path)
    told = seen(config)
    data = yaml.safe_load(config.read_text("utf-8"))["data"]
    tables = [data.pop(role) for role in ("transactions", "products", "customers")]
    if told.kept is None:
        with pytest.raises(RetailError) as refused:
            retail_ci.clean(*tables, **data)
        assert re.search(BY_NAME[name].words, one_sentence(refused.value))
        return
    log = retail_ci.clean(*tables, **data)
    reasons = log.books.loc[log.books["fate"] == "rejected", "reason"]
    assert [*log.flags["flag"]] == [n for n in log.flags["flag"] if f"({n})" in told.told]
    assert all(f"({reason})" in told.told for reason in reasons)
    assert outcome(log) == told.kept


pairs = st.lists(st.sampled_from(KINDS), min_size=2, max_size=2, unique_by=lambda k: k.name)


@settings(max_examples=12 * DAMAGES if DAMAGES > 1 else 2, **DRAWN)
@given(pairs, seeds)
def test_two_kinds_of_damage_are_harmless_or_named(tmp_path_factory, kinds, seed):
    judge(seed, tmp_path_factory.mktemp("damage"), *kinds)


# Elsewhere than on DuckDB


def plain(shop: Shop) -> bool:
    """Whether only rows are damaged, so that the log may lie in a database."""
    return not shop.text and shop.encode is str.encode and shop.ending == "csv"


ROWS = [name for name, kind in BY_NAME.items() if plain(damaged(0, kind))]
IN_A_DATABASE = ROWS if DAMAGES > 1 else ["a_receipt_that_holds_most_lines", "decimal_commas"]
ON_SPARK = [
    *("a_receipt_that_holds_most_lines", "totals_on_the_first_lines_alone", "two_date_formats"),
    *("decimal_commas", "copies_of_lines", "an_empty_month", "contradictory_products"),
    *("another_encoding_in_some_lines", "scientific_notation", "a_status_with_cancelled_orders"),
]


def in_postgres(server) -> Callable[[Shop, Path], Path]:
    """Put the log and its tables into a database, and write the config that reads them there."""

    def put(shop: Shop, folder: Path) -> Path:
        places = {}
        for role, rows in (
            ("transactions", shop.rows),
            ("products", shop.products),
            ("customers", shop.customers),
        ):
            names = shop.names if role == "transactions" else list(rows[0])
            table = pd.DataFrame([[row.get(n) or None for n in names] for row in rows])
            name = f"damaged_{role}"
            server.sql(f"DROP TABLE IF EXISTS {name}")
            server.fill(name, table.set_axis(names, axis=1), dict.fromkeys(names, "text"))
            places[role] = server.url(name)
        config = folder / "shop.yaml"
        config.write_text(yaml.safe_dump({"data": places | {"threads": 1} | shop.data}), "utf-8")
        return config

    return put


def on_spark(shop: Shop, folder: Path) -> Path:
    """Write the files and a config that reads them with Spark."""
    # Spark keeps its session, and with it the folder where it spills: one that outlives this test
    spill = str(folder.parent)
    data = {"engine": "spark", "memory": "2GB", "spill": spill, "threads": 2}
    data["spark"] = {"sql.shuffle.partitions": "2", "sql.adaptive.enabled": "false"}
    return write(dataclasses.replace(shop, data=shop.data | data), folder)


@pytest.mark.parametrize("name", IN_A_DATABASE)
def test_damage_in_a_database_is_harmless_or_named(name, tmp_path, postgres):
    judge(len(name), tmp_path, BY_NAME[name], place=in_postgres(postgres))


if DAMAGES > 1:  # half a minute each

    @pytest.mark.parametrize("name", ON_SPARK)
    def test_damage_on_spark_is_harmless_or_named(name, tmp_path):
        judge(len(name), tmp_path, BY_NAME[name], place=on_spark)
