"""The model for Power BI before two readers: Microsoft's own library, and the check of each
export.
"""

import dataclasses
import re
from pathlib import Path

import pytest

from retail_ci.core.errors import DataError
from retail_ci.core.formats import LOCALES, amount, use_locale
from retail_ci.export.powerbi import MODEL, Measure, check_model, model_text, tmdl_measure
from retail_ci.export.star_schema import TABLES, Column

STAR = {table.name: table for table in TABLES}
FILES = model_text(STAR, "€")

# What is wrong, the file, the text that is there, what stands in its place, and what each of the
# two readers says of it.
REFUSED = [
    (
        "a type that is none",
        "tables/dim_date",
        "dataType: int64",
        "dataType: int65",
        "to the expected type DataType",
        "expected dataType to be boolean or .* found 'int65'",
    ),
    (
        "an aggregation that is none",
        "tables/dim_date",
        "summarizeBy: none",
        "summarizeBy: nothing",
        "expected type AggregateFunction",
        "expected summarizeBy to be none or sum, found 'nothing'",
    ),
    (
        "a mode that is none",
        "tables/dim_date",
        "mode: import",
        "mode: imports",
        "expected type ModeType",
        "expected mode to be import, found 'imports'",
    ),
    (
        "a kind of source that is none",
        "tables/dim_date",
        "dim_date = m",
        "dim_date = x",
        "expected type PartitionSourceType",
        "expected expression to be m, found 'x'",
    ),
    (
        "a flag that is neither",
        "tables/dim_date",
        "\t\tisKey\n",
        "\t\tisKey: maybe\n",
        "expected type Boolean",
        "expected isKey to be true or false, found 'maybe'",
    ),
    (
        "a version that is none",
        "model",
        "powerBI_V3",
        "powerBI_V9",
        "expected type PowerBIDataSourceVersion",
        "to be powerBI_V3, found 'powerBI_V9'",
    ),
    (
        "a level below all",
        "database",
        "1567",
        "1100",
        "below the minimal supported level of 1200",
        "to be 1567, found '1100'",
    ),
    (
        "a level below what the model needs",
        "database",
        "1567",
        "1500",
        "below the minimal compatability level of 1520",
        "to be 1567, found '1500'",
    ),
    (
        "a level in words",
        "database",
        "1567",
        "high",
        "expected type Int32",
        "to be 1567, found 'high'",
    ),
    (
        "a sort column that is not there",
        "tables/dim_date",
        "sortByColumn: month\n",
        "sortByColumn: moonth\n",
        "Property SortByColumn .* cannot be found",
        "Unknown column to sort by 'moonth'",
    ),
    (
        "a relationship's name twice",
        "relationships",
        "fact_sales_customer_key",
        "fact_sales_date",
        "both declare the same property",
        "the name 'fact_sales_date' appears twice",
    ),
    (
        "the same in capitals",
        "relationships",
        "fact_sales_customer_key",
        "FACT_SALES_DATE",
        "already exists in the collection",
        "the name 'fact_sales_date' appears twice",
    ),
    (
        "an end that is no column",
        "relationships",
        "dim_date.date",
        "dim_date.dat",
        "Property ToColumn .* cannot be found",
        "relationships .* are not those of the star",
    ),
    (
        "an end that is a table",
        "relationships",
        "dim_date.date",
        "dim_date",
        "does not match the actual path",
        "relationships .* are not those of the star",
    ),
    (
        "a word for a relationship that is none",
        "relationships",
        "dim_date.date\n",
        "dim_date.date\n\tcrossFilteringBehavior: sideways\n",
        "expected type CrossFilteringBehavior",
        "Unknown property 'crossFilteringBehavior' in relationship",
    ),
    (
        "an empty line after a description",
        "tables/dim_date",
        "/// The day.\n",
        "/// The day.\n\n",
        "Unexpected line type: Empty",
        "line 6: expected the object that the description above",
    ),
    (
        "an empty line after a table's description",
        "tables/dim_date",
        "of the last.\n",
        "of the last.\n\n",
        "Unexpected line type: Empty",
        "line 2: expected the object that the description above",
    ),
    (
        "a description of nothing",
        "tables/dim_date",
        "\t\t\t\t\tSource\n",
        "\t\t\t\t\tSource\n\n\t/// lost\n",
        "must be followed by the actual object",
        "expected the object that the description above",
    ),
    (
        "a property of its own invention",
        "tables/dim_date",
        "sourceColumn: year\n",
        "sourceColumn: year\n\t\tcolour: red\n",
        "colour is not a supported property",
        "Unknown property 'colour' in column",
    ),
    (
        "a property misspelt",
        "tables/dim_date",
        "summarizeBy: none",
        "summariseBy: none",
        "summariseBy is not a supported property",
        "column 'date' has no summarizeBy",
    ),
    (
        "a property twice",
        "tables/dim_date",
        "dataType: int64\n",
        "dataType: int64\n\t\tdataType: int64\n",
        "appears more then once",
        "dataType appears twice",
    ),
    (
        "a property of something else",
        "relationships",
        "dim_date.date\n",
        "dim_date.date\n\tisHidden\n",
        "'isHidden' is neither a property nor",
        "Unknown property 'isHidden' in relationship",
    ),
    (
        "a flag misspelt",
        "model",
        "returnErrorValuesAsNull",
        "returnErrorValuesAsNul",
        "'returnErrorValuesAsNul' is neither",
        "Unknown property 'returnErrorValuesAsNul' in dataAccessOptions",
    ),
    (
        "a property without a value",
        "model",
        "culture: en-US\n\tdefault",
        "culture:\n\tdefault",
        "culture has no value",
        "expected an object, a property or a flag, found 'culture:'",
    ),
    (
        "an object that is none",
        "tables/dim_date",
        "column year\n",
        "colum year\n",
        "colum is not a supported",
        "expected .* the description above belongs to, found 'colum year'",
    ),
    (
        "an object in the wrong place",
        "model",
        "annotation __PBI",
        "column x\n\nannotation __PBI",
        "column is not a supported",
        "column is inside a file; expected it in: table",
    ),
    (
        "a model that is called a database",
        "model",
        "model Model",
        "database Model",
        "culture is not a supported property",
        "database 'Model' has no compatibilityLevel",
    ),
    (
        "a column twice",
        "tables/dim_date",
        "column quarter",
        "column YEAR",
        "Item 'YEAR' already exists|cannot be merged",
        "the name 'year' appears twice",
    ),
    (
        "a measure twice in a table",
        "tables/fact_sales",
        "measure Baskets",
        "measure Units",
        "cannot be merged",
        "the name 'units' appears twice",
    ),
    (
        "a table twice",
        "tables/dim_segment",
        "table dim_segment",
        "table dim_date",
        "cannot be merged",
        "the name 'dim_date' appears twice",
    ),
    (
        "an annotation twice",
        "expressions",
        "\n\tannotation PBI_ResultType = Text\n",
        "\n\tannotation PBI_ResultType = Text\n\n\tannotation PBI_ResultType = Text\n",
        "both declare the same property",
        "the name 'pbi_resulttype' appears twice",
    ),
    (
        "a table that nothing joins",
        "tables/dim_segment",
        "table dim_segment",
        "table dim_segments",
        "cannot be found",
        r"The model and the star differ in \['dim_segment', 'dim_segments'\]",
    ),
    (
        "a column without a name",
        "tables/dim_date",
        "column year\n",
        "column\n",
        "do not indicates a name",
        "column '' has no name",
    ),
    (
        "a measure without a name",
        "tables/fact_sales",
        "measure Units =",
        "measure =",
        "do not indicates a name",
        "measure '' has no name",
    ),
    (
        "a name without its quotes",
        "tables/fact_sales",
        "'Net revenue' =",
        "Net revenue =",
        "Unexpected line type: Other",
        "found 'measure Net revenue =",
    ),
    (
        "a quote that does not close",
        "tables/fact_sales",
        "'Net revenue' =",
        "'Net revenue =",
        "Unexpected line type: Other",
        "found \"measure 'Net revenue =",
    ),
    (
        "a tab within a name",
        "tables/fact_sales",
        "'Net revenue' =",
        "'Net\trevenue' =",
        "InvalidName",
        "expected .* the description above belongs to",
    ),
    (
        "a colon that is missing",
        "tables/dim_date",
        "dataType: int64",
        "dataType int64",
        "dataType is not a supported",
        "found 'dataType int64'",
    ),
    (
        "a colon for an equals sign",
        "tables/fact_sales",
        "measure Units = ",
        "measure Units: ",
        "Unexpected line type: Other",
        "found 'measure Units:",
    ),
    (
        "a line too deep",
        "tables/dim_date",
        "\t\tdataType: int64",
        "\t\t\tdataType: int64",
        "Invalid indentation",
        "at most 2 tabs",
    ),
    (
        "a line too shallow",
        "tables/dim_date",
        "\t\tdataType: int64",
        "\tdataType: int64",
        "Invalid indentation",
        "at most 1 tabs",
    ),
    (
        "a blank among the tabs",
        "tables/dim_date",
        "\t\tdataType: int64",
        "\t dataType: int64",
        "Invalid indentation",
        "no spaces",
    ),
    (
        "an expression too shallow",
        "tables/fact_segment_snapshot",
        "\t\t\tRETURN",
        "\t\tRETURN",
        "Invalid indentation",
        "expected an object, a property or a flag, found 'RETURN",
    ),
]

# What Microsoft's library reads, since it compares nothing and looks into no expression.
OURS_ALONE = [
    (
        "a column that a measure misspells",
        "tables/fact_sales",
        "fact_sales[quantity]",
        "fact_sales[quantty]",
        "Unknown column 'quantty' in fact_sales",
    ),
    (
        "a bracket that does not close",
        "tables/fact_sales",
        "SUM(fact_sales[quantity])",
        "SUM(fact_sales[quantity]",
        "a bracket does not close",
    ),
    (
        "a measure called like a column",
        "tables/fact_sales",
        "measure Units",
        "measure Quantity",
        "the name 'quantity' appears twice",
    ),
    (
        "a measure's name in two tables",
        "tables/dim_customer",
        "measure Customers",
        "measure Units",
        "the name 'units' appears twice",
    ),
    (
        "a measure that measures nothing",
        "tables/fact_sales",
        "Units = SUM(fact_sales[quantity])",
        "Units",
        "measure 'Units' has no expression",
    ),
    (
        "another type than the data have",
        "tables/dim_date",
        "dataType: int64",
        "dataType: double",
        "The model and the star differ in",
    ),
    (
        "a source column that is not there",
        "tables/dim_date",
        "sourceColumn: year\n",
        "sourceColumn: yaer\n",
        "The model and the star differ in",
    ),
    (
        "an end that is another column",
        "relationships",
        "dim_product.product_key",
        "dim_product.product_id",
        "relationships .* are not those of the star",
    ),
    ("one end alone", "relationships", "\ttoColumn: dim_date.date\n", "", "has no toColumn"),
    (
        "rows from nowhere",
        "tables/dim_date",
        "dim_date.parquet",
        "dim_dates.parquet",
        "dim_date does not say where its rows come from",
    ),
]

ACCEPTED = [
    (
        "a note on a column",
        "tables/dim_date",
        "sourceColumn: year\n",
        "sourceColumn: year\n\n\t\tannotation Note = seen\n",
    ),
    (
        "a note on a relationship",
        "relationships",
        "dim_date.date\n",
        "dim_date.date\n\n\tannotation Note = seen\n",
    ),
    ("another description", "tables/dim_date", "/// The day.", "/// Any day."),
    (
        "a description of two lines",
        "tables/dim_date",
        "/// The day.\n",
        "/// The day.\n\t/// Really.\n",
    ),
    ("no description", "tables/dim_date", "\t/// The day.\n", ""),
    ("a flag in full", "tables/dim_date", "\t\tisKey\n", "\t\tisKey: true\n"),
    ("quotes that are not needed", "tables/dim_date", "column year\n", "column 'year'\n"),
    ("a value in quotes", "tables/dim_date", "sourceColumn: year\n", 'sourceColumn: "year"\n'),
    ("another language", "model", "culture: en-US\n\tdefault", "culture: de-DE\n\tdefault"),
    (
        "an empty line between columns",
        "tables/dim_date",
        "\n\t/// The year.",
        "\n\n\t/// The year.",
    ),
    ("line ends of Windows", "tables/dim_date", "\n", "\r\n"),
]


def edited(file: str, old: str, new: str) -> dict[str, str]:
    """The model with one edit: the first place, all line ends."""
    path = f"{MODEL}/{file}.tmdl"
    assert old in FILES[path], "the edit changes nothing"
    return {**FILES, path: FILES[path].replace(old, new, -1 if old == "\n" else 1)}


def write(files: dict[str, str], folder: Path) -> Path:
    """Write a model; the folder that Microsoft's library reads."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8", newline="")
    return folder / MODEL


def named(rows: list[tuple]) -> pytest.MarkDecorator:
    """A case for each row, called by its first field."""
    return pytest.mark.parametrize("row", rows, ids=[row[0].replace(" ", "-") for row in rows])


@named([row[:4] + row[5:] for row in REFUSED] + OURS_ALONE)
def test_our_check_refuses(row):
    _, file, old, new, words = row
    with pytest.raises(DataError, match=words):
        check_model(edited(file, old, new), STAR)


@named(ACCEPTED)
def test_our_check_accepts(row):
    counts = {
        "tables": 7,
        "columns": sum(len(t.columns) for t in TABLES),
        "measures": 19,
        "relationships": 11,
    }
    assert check_model(edited(*row[1:]), STAR) == counts


def test_microsofts_library_refuses_the_same_and_accepts_the_same(model_reader, tmp_path):
    rows = REFUSED + OURS_ALONE + ACCEPTED
    folders = [write(edited(*row[1:4]), tmp_path / str(i)) for i, row in enumerate(rows)]
    complaints = {row[0]: answer["complaint"] for row, answer in zip(rows, model_reader(*folders))}
    for name, *_, theirs, _ in REFUSED:
        assert re.search(theirs, complaints[name] or "accepted", re.S), (name, complaints[name])
    accepted = {row[0]: complaints[row[0]] for row in OURS_ALONE + ACCEPTED}
    assert accepted == dict.fromkeys(accepted), "each without a complaint"


CURRENCIES = (
    "",
    "€",
    "$",
    "£",
    "¥",
    "CHF",
    "kr",
    "kr.",
    "zł",
    "Kč",
    "R$",
    "Ft",
    "JPY",
    "A B",
    'd"q',
    "kr ",  # a blank that TMDL would lose
)


@pytest.fixture(autouse=True)
def english():
    """Leave the locale as the other tests expect it."""
    yield
    use_locale("en")


def test_every_currency_stands_in_power_bi_as_in_the_report(model_reader, tmp_path):
    """Each locale with each currency: .NET writes the number, `amount` is what the report
    writes.
    """
    texts = []
    reported = {}
    for locale in LOCALES:
        use_locale(locale)
        for number, currency in enumerate(CURRENCIES):
            name = f"{locale} {number} {currency.strip()}".strip()
            reported[name] = amount(5, currency)
            texts.append(tmdl_measure(Measure("money", name, "1", "money", "Five."), currency, 0))
    model = {
        f"{MODEL}/database.tmdl": FILES[f"{MODEL}/database.tmdl"],
        f"{MODEL}/model.tmdl": "model Model\n\nref table money\n",
        f"{MODEL}/tables/money.tmdl": "table money\n\n" + "\n".join(texts),
    }
    [answer] = model_reader(write(model, tmp_path))
    assert answer["complaint"] is None and answer["changed"] == []
    assert {name: five for name, (five, _) in answer["measures"].items()} == reported
    assert len(reported) == len(LOCALES) * len(CURRENCIES)


MONEY = [  # locale, currency, decimals, and a loss of 1,234,567.5
    ("en", "€", 2, "-€1,234,567.50"),
    ("en", "CHF", 2, "-CHF\u00a01,234,567.50"),
    ("en", "¥", 0, "-¥1,234,568"),
    ("en", "kr", 2, "-kr\u00a01,234,567.50"),
    ("sv", "kr", 2, "-1,234,567.50\u00a0kr"),
    ("pl", "zł", 2, "-1,234,567.50\u00a0zł"),
    ("de", "€", 2, "-1,234,567.50\u00a0€"),
    ("de-CH", "CHF", 2, "-CHF\u00a01,234,567.50"),
    ("en", "JPY", 0, "-JPY\u00a01,234,568"),
    ("en", "", 3, "-1,234,567.500"),
]


def test_money_in_the_whole_model(model_reader, tmp_path):
    folders = []
    for locale, currency, decimals, _ in MONEY:
        use_locale(locale)
        files = model_text(STAR, currency, decimals)
        check_model(files, STAR)
        folders.append(write(files, tmp_path / f"{locale} {currency}"))
    money = {"Net revenue", "Revenue per basket", "Revenue at risk", "Forecast revenue in 90 days"}
    for (*_, shown), answer in zip(MONEY, model_reader(*folders)):
        assert answer["complaint"] is None and answer["changed"] == []
        assert {answer["measures"][name][1] for name in money} == {shown}
        assert answer["measures"]["Return share"][0] == "500.0%"
        assert answer["measures"]["Baskets"][0] == "5"


def test_names_that_tmdl_wants_in_quotes(model_reader, tmp_path):
    names = [
        " lead",
        "trail ",
        '"dq"',
        "it's",
        "'q'",
        "a.b",
        "a=b",
        "no\u00a0break",
        "größe",
        "食品",
    ]
    table = STAR["dim_customer"]
    more = tuple(Column(name, "text", "Called so.") for name in names)
    star = {**STAR, table.name: dataclasses.replace(table, columns=table.columns + more)}
    files = model_text(star, "€")
    check_model(files, star)
    [answer] = model_reader(write(files, tmp_path))
    assert answer["complaint"] is None and answer["changed"] == []
    assert answer["tables"][table.name][-len(names) :] == names
