"""Shops that are not of our size: a finished run or one sentence, never a traceback."""

import itertools
import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from any_shop import NOT_A_NUMBER, OPTIONAL, QUICK, Rooms, Shop, odd_words, outcome, plain_sales
from conftest import ODD_FOLDER, make_project
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from retail_ci.core.config import load_config
from retail_ci.core.runs import Run
from retail_ci.export.campaigns import write_campaigns
from retail_ci.export.powerbi import MEASURES, export_powerbi
from retail_ci.report.page_parts import facts_of
from retail_ci.report.pages import PAGES, segment_pages

SETTINGS = dict(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SHOPS = int(
    os.environ.get("SHOPS", 1)
)  # how many are drawn beside those of the list: 200 in `soak`
DRAWN = 6  # of each so many shops one has its figures drawn; those of the others are put together
LEVELS = {  # what a shop of the list may be like: any two of these meet in one of them
    "products": (2, 6, 20),
    "customers": (7, 12, 50),
    "days": (1, 20, 92),
    "segments": (2, 3, 5),
    "amounts": ({"price"}, {"revenue"}, {"price", "revenue"}),
    **dict.fromkeys([c for c in OPTIONAL if c not in ("price", "revenue")], (True, False)),
    **dict.fromkeys(["products.csv", "customers.csv"], (True, False)),
    **dict.fromkeys(
        ["greedy", "one_price", "once", "returns", "anonymous", "times"], (True, False)
    ),
}


def meetings(row: dict[str, int]) -> set[tuple]:
    """The pairs of a row's levels, by their numbers."""
    return set(itertools.combinations(row.items(), 2))


def all_meetings() -> list[tuple]:
    """Every pair of levels."""
    return [
        ((one, i), (other, j))
        for one, other in itertools.combinations(LEVELS, 2)
        for i in range(len(LEVELS[one]))
        for j in range(len(LEVELS[other]))
    ]


def shop_of(row: dict[str, int], seed: int) -> Shop:
    """The shop of a row of levels."""
    is_like = {name: LEVELS[name][level] for name, level in row.items()}
    columns = frozenset(c for c in OPTIONAL if is_like.pop(c, False)) | is_like.pop("amounts")
    tables = frozenset(t for t in ("products", "customers") if is_like.pop(f"{t}.csv"))
    return Shop(columns=columns, tables=tables, seed=seed, **is_like)


# A shop a line, its levels in the order of LEVELS: few lines in which every pair of levels meets.
# They were found by moving single levels about until no pair was missing; eleven lines did not do.
LINES = """
101011101110010011
201200100100101100
112220111010010111
220021110011100111
122011010101101010
012000001011101101
021211101011011000
202101111001011010
210110000101011101
011121011010100000
120100011000000000
000221000100111111
"""
ROWS = [dict(zip(LEVELS, map(int, line))) for line in LINES.split()]
# A shop that knows neither price nor revenue is refused at once, so most know one of them.
columns = st.builds(
    frozenset.union,
    st.frozensets(st.sampled_from(OPTIONAL)),
    st.sampled_from([{"price"}, {"revenue"}, {"price"}, {"revenue"}, set()]),
)
shops = st.builds(
    Shop,
    products=st.integers(1, 20),
    customers=st.integers(3, 50),
    days=st.one_of(st.just(1), st.integers(2, 92)),
    columns=columns,
    tables=st.frozensets(st.sampled_from(["products", "customers"])),
    greedy=st.booleans(),
    one_price=st.booleans(),
    once=st.booleans(),
    returns=st.booleans(),
    anonymous=st.booleans(),
    times=st.booleans(),
    segments=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
)


@pytest.fixture(scope="module")
def rooms():
    return Rooms()


def test_any_two_properties_meet_in_a_shop_of_the_list():
    assert set(all_meetings()) == set().union(*map(meetings, ROWS))


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_a_shop_of_the_list_runs_to_the_end(rooms, tmp_path, number):
    shop = shop_of(ROWS[number], number)
    assert ends(shop, rooms, tmp_path, drawn=number % DRAWN == 0) == ""


def test_a_drawn_shop_runs_to_the_end_or_is_refused_with_a_sentence(rooms, tmp_path_factory):
    refused = []

    @settings(max_examples=SHOPS, **SETTINGS)
    @given(shops)
    def one(shop: Shop) -> None:
        folder = tmp_path_factory.mktemp("shop")
        refused.append(ends(shop, rooms, folder, drawn=len(refused) % DRAWN == 0))
        shutil.rmtree(folder)

    one()
    # one shop alone may be refused; of many a third runs
    assert len(refused) >= SHOPS and refused.count("") >= SHOPS // 3, refused


def ends(shop: Shop, rooms: Rooms, folder: Path, drawn: bool) -> str:
    """The sentence with which a shop is refused; where it is none, all that is made of its run is
    looked at.
    """
    config = shop.write(folder / "in")
    run, refusal = outcome(rooms, config, folder / "run", drawn=drawn)
    if run:
        assert not odd_words(rooms), shop
        check_exports(Run(load_config(config), run), folder)
        check_pages(run)
        check_lists(Run(load_config(config), run))
        check_names(run)
    return refusal


def check_exports(run: Run, folder: Path) -> None:
    """The tables for Power BI and the campaign lists can be written."""
    export_powerbi(run, folder / "powerbi")
    write_campaigns(run, folder / "lists")


def check_pages(run: Path) -> None:
    """Each page for readers has its title and something to say, and no number that is none."""
    facts = facts_of(run)
    for name, page in (PAGES | segment_pages(facts)).items():
        title, _, body = page.text(facts).partition("\n---\n\n")
        assert title.startswith("---\ntitle: ") and len(body.split()) > 10, name
        assert not NOT_A_NUMBER.search(re.sub(r"data:image/png;base64,[^\")]+", "", body)), name


def check_lists(run: Run) -> None:
    """Each known buyer is in a segment; a list is as long as k or as the catalogue, and no line is
    there twice.
    """
    kept = run.read("transactions")
    buyers = kept.loc[~kept["is_return"], "customer_id"].dropna().nunique()
    assert len(run.read("segments")) == buyers
    lists = run.read("recommendations")
    sold = kept["product_id"].nunique() if "product_id" in kept else 0
    if sold:
        assert set(lists.groupby("customer_id").size()) == {
            min(run.config.recommender.k, max(sold, len(run.read("products"))))
        }
    else:
        assert lists.empty


CAME_TWICE = ["Champions", "Loyal Customers", "Steady Customers", "At Risk", "Cannot Lose"]
CAME_ONCE = ["Promising", "New Customers", "One-time Buyers"]
STAYED_AWAY = ["Lost", "Hibernating", "One-time Buyers", "Lapsed Big Spenders"]


def check_names(run: Path) -> None:
    """No customer has a name that is false of them in any shop, today and at each month end."""
    today = pd.read_parquet(run / "data/features.parquet", columns=["customer_id", *RFM])
    names = pd.read_parquet(run / "data/segments.parquet", columns=["customer_id", "segment"])
    ends = pd.read_parquet(run / "data/snapshots.parquet")
    for seen in (today.merge(names), ends):
        of = {name: seen[seen["segment"].isin(n)] for name, n in NAMED.items() if len(seen)}
        if of:
            assert (of["twice"]["frequency"] >= 2).all() and (of["once"]["frequency"] <= 1).all()
            bought = of["away"][of["away"]["frequency"] > 0]
            often = bought["recency"] * bought["frequency"] > 2 * 28
            assert ((bought["recency"] > 28) | often).all(), bought
        assert not seen["segment"].str.startswith("Unnamed").any()


RFM = ["recency", "frequency", "monetary"]
NAMED = {"twice": CAME_TWICE, "once": CAME_ONCE, "away": STAYED_AWAY}


@settings(max_examples=4 + SHOPS // 4, **SETTINGS)
@given(
    lines=st.integers(1, 8_000),
    customers=st.integers(1, 2_000),
    products=st.integers(1, 400),
    days=st.integers(1, 500),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_generator_makes_a_shop_of_any_size(generator, lines, customers, products, days, seed):
    size = {"lines": lines, "customers": customers, "products": products, "days": days}
    folder = generator.folder()
    (folder / "other.yaml").write_text(json.dumps({"seed": seed, "synthetic": size}))
    run, refusal = outcome(generator.rooms, folder / "other.yaml", folder / "run")
    assert run and not refusal and not odd_words(generator.rooms), refusal
    raw = pd.read_csv(run / "data/raw/transactions.csv", dtype=str)
    assert (
        raw.drop_duplicates()["product_id"].nunique() <= products
        and raw["customer_id"].str.strip().nunique() <= customers
    )
    assert (
        len(pd.read_csv(run / "data/raw/customers.csv")) == customers
        and len(pd.read_csv(run / "data/raw/products.csv")) == products
    )
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    class Generator:
        rooms = Rooms("00e")

        def folder(self) -> Path:
            return tmp_path_factory.mktemp("generated")

    return Generator()


FEW_PRODUCTS = """transaction_id,date,customer_id,product_id,quantity,price
1,2023-01-01,K001,Clothing,2,300.0
5,2023-01-25,K005,Beauty,1,300.0
9,2023-02-18,K009,Electronics,1,300.0
13,2023-03-14,K013,Electronics,3,30.0
17,2023-04-07,K017,Electronics,4,50.25
21,2023-05-01,K021,Electronics,3,300.0
25,2023-05-25,K025,Clothing,2,300.0
29,2023-06-18,K029,Electronics,4,25.5
33,2023-07-12,K033,Clothing,4,50.25
37,2023-08-05,K037,Beauty,2,300.0
41,2023-08-29,K041,Clothing,3,300.0
45,2023-09-22,K045,Beauty,4,30.0
49,2023-10-16,K049,Electronics,1,300.0
53,2023-11-09,K053,Beauty,1,30.0
57,2023-12-03,K057,Clothing,1,25.5
"""


def test_a_shop_of_three_products_runs_to_the_end(rooms, tmp_path):
    """15 lines of 15 customers and three products; a list holds all three and says why it is no
    longer.
    """
    (tmp_path / "few.csv").write_text(FEW_PRODUCTS)
    (tmp_path / "few.yaml").write_text(
        yaml.safe_dump({"data": {"transactions": "few.csv"}, **QUICK})
    )
    run, refusal = outcome(rooms, tmp_path / "few.yaml", tmp_path / "run")
    assert not refusal
    lists = pd.read_parquet(run / "data/recommendations.parquet")
    assert sorted(set(lists["product_id"])) == ["Beauty", "Clothing", "Electronics"]
    assert (lists.groupby("customer_id").size() == 3).all()
    assert lists["customer_id"].nunique() == 15
    said = "".join(text for where, text in rooms.shown if where == "04k_hybrid")
    assert "k is 10, and the catalogue ends after 3 products." in said
    check_exports(Run(load_config(tmp_path / "few.yaml"), run), tmp_path)
    check_pages(run)


def test_a_plain_sales_file_runs(rooms, tmp_path):
    run, refusal = outcome(rooms, plain_sales(tmp_path, 50, 20), tmp_path / "run", drawn=False)
    assert not refusal
    assert json.loads((run / "manifest.json").read_text())["counts"]["customers"] == 50


# What is changed in the file, customers, products, settings, and words of the sentence
UNUSABLE = {
    "a column is missing": (("date,", "datum,"), 50, 20, [], ["'date'", "datum"]),
    "the config names another column": (
        None,
        50,
        20,
        ["data.columns={customer_id: Customer}"],
        ["'Customer'", "found: transaction_id"],
    ),
    "text stands where dates should be": (("2025-", "twenty-"), 50, 20, [], ["date"]),
    "there are more segments than customers": (
        None,
        8,
        20,
        ["segmentation.k=12"],
        ["12 segments need at least 12 customers", "found 8"],
    ),
    "there is one customer": (None, 1, 20, [], ["customers", "found 1"]),
    "there is one product": (None, 50, 1, [], ["product"]),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_file_that_cannot_be_used_is_refused_with_a_sentence(rooms, what, tmp_path):
    change, customers, products, settings, words = UNUSABLE[what]
    config = plain_sales(tmp_path, customers, products)
    if change:
        sales = tmp_path / "sales.csv"
        sales.write_text(sales.read_text().replace(*change))
    run, refusal = outcome(rooms, config, tmp_path / "run", *settings, drawn=False)
    assert run is None and all(word in refusal for word in words), refusal


def test_a_file_with_a_header_only_is_refused(rooms, tmp_path):
    config = plain_sales(tmp_path, 50, 20, lines=1)
    header = (tmp_path / "sales.csv").read_text().split("\n")[0]
    (tmp_path / "sales.csv").write_text(header + "\n")
    run, refusal = outcome(rooms, config, tmp_path / "run")
    assert run is None and "header" in refusal and "no rows" in refusal


NAMES = {  # a column of the customers table: what Power BI calls it
    "Customers": "customer_Customers",
    "revenue AT risk": "customer_revenue AT risk",
    "Offers": "customer_Offers",
    "Segment": "customer_Segment",
    "it's": "it_s",
    'say "x"': "say _x_",
    "back\\slash": "back_slash",
    "tab\tbed": "tab_bed",
    "no\u00a0break": "no_break",
    "{x}": "_x_",
    "CON": "customer_CON",
    "select": "select",
    "Größe": "Größe",
}


ODD_CONFIG = "shops of Bob's/my {shop} 'n.yaml"  # it means something to papermill, SQL and a shell


def test_a_customers_column_may_be_called_like_a_measure(rooms, tmp_path):
    """What the source calls a column never stops a run, and its values arrive under the nearest
    name that is free; the folders mean something to SQL and a shell.
    """
    folder = tmp_path / ODD_FOLDER
    config = folder / ODD_CONFIG
    shop = Shop(
        products=12,
        customers=40,
        days=90,
        columns=frozenset(OPTIONAL),
        tables=frozenset({"products"}),
        greedy=True,
        one_price=False,
        once=False,
        returns=True,
        anonymous=False,
        times=True,
        segments=3,
        seed=7,
    )
    written = shop.write(config.parent)
    people = pd.DataFrame(
        {"customer_id": [f"K{c:03}" for c in range(40)]}
        | {name: [f"{i}{'ab'[c % 2]}" for c in range(40)] for i, name in enumerate(NAMES)}
    )
    people.to_csv(config.parent / "customers.csv", index=False)
    tables = "products: products.csv"
    text = written.read_text().replace(tables, f"{tables}\n  customers: customers.csv")
    config.write_text(text)
    run, refusal = outcome(rooms, config, folder / "run", drawn=False)
    assert not refusal
    check_exports(Run(load_config(config), run), folder)
    check_pages(run)
    file = folder / "powerbi/parquet/dim_customer.parquet"
    table = pd.read_parquet(file).set_index("customer_id")
    for i, (name, shown) in enumerate(NAMES.items()):
        assert (table.loc["K000", shown], table.loc["K001", shown]) == (f"{i}a", f"{i}b"), name
    names = [name.casefold() for name in table.columns]
    assert len(set(names)) == len(names) and not {m.name.casefold() for m in MEASURES} & set(names)


def test_a_config_and_its_folders_may_have_odd_names(tmp_path):
    """The run of an odd config is found again, and papermill finds its notebooks."""
    project = make_project(tmp_path / ODD_FOLDER)
    config = project.root / ODD_CONFIG
    config.parent.mkdir()
    plain_sales(config.parent, 50, 20).rename(config)
    result = project.here("run", "--config", ODD_CONFIG)
    assert result.returncode == 0 and "retail-ci:" not in result.stderr, result.stderr
    assert (project.home("my__shop___n") / "current/metrics/segments.json").is_file()
    for command in (["run", "--from", "02"], ["check"]):
        result = project.here(*command, "--config", ODD_CONFIG)
        assert result.returncode == 0 and "retail-ci:" not in result.stderr, result.stderr
