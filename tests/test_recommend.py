"""What a shop asks of a list, and what it may throw at a model: every model, every odd question, an
answer that is flagged or an error that names it.
"""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import checkout
from small_shop import drawn_lines, shelf_of

from retail_ci.core.config import MODELS, load_config
from retail_ci.core.errors import DataError
from retail_ci.core.runs import ARTEFACTS, load
from retail_ci.recommend.base import Recommender
from retail_ci.recommend.baselines import PersonalRecommender
from retail_ci.recommend.collaborative import CollaborativeRecommender
from retail_ci.recommend.content import ContentRecommender
from retail_ci.recommend.hybrid import HybridRecommender, make_model
from retail_ci.recommend.interactions import Limits, choose
from retail_ci.recommend.rules import Rules
from retail_ci.serve.bundle import LIKE, OWN, Bundle, current_bundle, recommend, write_bundle
from retail_ci.serve.promotion import as_measured

COLUMNS = ["customer_id", "product_id", "score", "rank", "method", "reason"]
every_model = pytest.mark.parametrize("name", list(MODELS))


def make_shop(seed=0, customers=80, products=60, lines=2400, days=150):
    """A small shop with tastes, repeats, returns, anonymous sales, and two products that nobody has
    bought.
    """
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, 6, customers)
    who = rng.integers(0, customers, lines)
    what = np.where(
        rng.random(lines) < 0.75,
        taste[who] * 10 + rng.geometric(0.3, lines).clip(1, 10) - 1,
        rng.integers(0, products, lines),
    )
    log = drawn_lines(rng, who, what, days, together=3)
    shelf = shelf_of(products)
    shelf.insert(2, "brand", [f"b{i % 4}" for i in range(len(shelf))])
    return log, shelf


LOG, SHELF = make_shop()
SEGMENTS = pd.DataFrame(
    {
        "customer_id": [f"C{i:03d}" for i in range(80)] + ["new1"],
        "segment": ["Champions", "Lost"] * 40 + ["Lost"],
    }
)
SENSITIVE = {"category": ["cat1"], "product_id": ["P005"]}
HIDDEN = {f"P{i:03d}" for i in range(10, 20)} | {"P005"}
_fitted = {}


def fitted(name: str) -> Recommender:
    """Each model once, with segments and with what is sensitive."""
    if name not in _fitted:
        _fitted[name] = make_model(name).fit(LOG, SHELF, segments=SEGMENTS, sensitive=SENSITIVE)
    return _fitted[name]


def plain(name: str, log: pd.DataFrame, shelf: pd.DataFrame | None) -> Recommender:
    """Each model once on each log and shelf, and nothing else told; a fit that fails is tried again
    by each who asks.
    """
    key = name, id(log), id(shelf)  # all of them live as long as this module
    if key not in _fitted:
        _fitted[key] = make_model(name).fit(log, shelf)
    return _fitted[key]


def check(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """What holds for every answer."""
    assert (
        list(table.columns) == COLUMNS
        and table["score"].between(0, 1).all()
        and table.notna().all().all()
    )
    assert (
        not table.duplicated(["customer_id", "product_id"]).any()
        and (table["reason"].str.len() > 0).all()
    )
    lists = table.groupby("customer_id", sort=False)
    assert (table["rank"] == lists.cumcount() + 1).all(), "ranks count from 1"
    assert not (lists["score"].diff() > 0).any(), "the best stands first"
    sizes = lists.size()
    assert (sizes <= k).all()
    if (sizes < k).any():
        assert table.attrs["notes"], "a short list without a word"
    return table


@every_model
def test_rules_hold_for_every_model(name):
    model = fitted(name)
    for discovery in (False, True):
        allowed = [f"P{i:03d}" for i in range(20, 45)]
        table = check(
            model.recommend(k=10, exclude_purchased=discovery, allow=allowed, block=["P021"]), 10
        )
        assert set(table["product_id"]) <= set(allowed) - {"P021"}
        assert table.groupby("customer_id").size().eq(10).all() or discovery
        table = check(
            model.recommend(
                k=8,
                exclude_purchased=discovery,
                categories=["cat2", "cat3", "cat4"],
                without_categories={"brand": ["b1"]},
            ),
            8,
        )
        shown = table.merge(SHELF, on="product_id")
        assert set(shown["category"]) <= {"cat2", "cat3", "cat4"} and "b1" not in set(
            shown["brand"]
        )
        table = check(model.recommend(k=10, exclude_purchased=discovery, max_per_category=2), 10)
        assert (
            table.merge(SHELF, on="product_id").groupby(["customer_id", "category"]).size().max()
            <= 2
        )
        assert table.groupby("customer_id").size().eq(10).all()
        blocked = pd.DataFrame(
            {"customer_id": ["C001"] * 3 + ["new1"], "product_id": ["P020", "P021", "P022", "P030"]}
        )
        table = check(
            model.recommend(["C001", "C002", "new1"], 40, discovery, block_for=blocked), 40
        )
        assert not table.merge(blocked, on=["customer_id", "product_id"]).shape[0]
    assert not set(
        model.recommend(k=10, exclude_purchased=True).merge(
            LOG[LOG["quantity"] > 0], on=["customer_id", "product_id"]
        )["product_id"]
    )


@every_model
def test_rules_choose_and_do_not_strike_out(name):
    """The allowed products stand in the order of the unrestricted list."""
    model = fitted(name)
    allowed = [f"P{i:03d}" for i in range(25, 55)]
    free = model.recommend(["C003", "C004"], 62, include_sensitive=True)
    ruled = model.recommend(["C003", "C004"], 10, allow=allowed)
    for customer in ("C003", "C004"):

        def order(t):
            return t[
                (t["customer_id"] == customer)
                & (t["method"] != "popular")
                & t["product_id"].isin(allowed)
            ]["product_id"].tolist()

        assert order(ruled) == order(free)[: len(order(ruled))]


@every_model
def test_sensitive_products_are_nowhere_unless_asked_for(name):
    model = fitted(name)
    table = check(model.recommend(k=10), 10)
    assert not set(table["product_id"]) & HIDDEN
    assert not table["reason"].str.contains("|".join(HIDDEN)).any()
    recent = pd.DataFrame({"customer_id": ["C001", "new2"], "product_id": ["P012", "P012"]})
    table = check(model.recommend(["C001", "new2"], 10, recent=recent), 10)
    assert (
        not set(table["product_id"]) & HIDDEN
        and not table["reason"].str.contains("|".join(HIDDEN)).any()
    )
    if name != "random":
        assert set(model.recommend(k=20, include_sensitive=True)["product_id"]) & HIDDEN
    again = Recommender.from_arrays(model.to_arrays())
    assert not set(again.recommend(k=10)["product_id"]) & HIDDEN


@every_model
def test_recent_baskets_count_without_training(name):
    model = fitted(name)
    before = model.recommend(["C001", "C002"], 10)
    recent = pd.DataFrame(
        {
            "customer_id": ["C001", "new9", "new9", "elsewhere"],
            "product_id": ["P033", "P033", "P034", "P001"],
            "date": [LOG["date"].max() + pd.Timedelta(days=3)] * 4,
        }
    )
    after = check(model.recommend(["C002", "C001", "new9"], 10, recent=recent), 10)
    assert after["customer_id"].unique().tolist() == ["C002", "C001", "new9"]
    pd.testing.assert_frame_equal(
        after[after["customer_id"] == "C002"].reset_index(drop=True),
        before[before["customer_id"] == "C002"].reset_index(drop=True),
    )
    pd.testing.assert_frame_equal(
        model.recommend(["C001", "C002"], 10), before
    )  # the model itself has not changed
    fresh = model.recommend(["new9"], 40, exclude_purchased=True, recent=recent)
    assert not {"P033", "P034"} & set(fresh["product_id"])
    assert "no purchase on record" not in " ".join(after.attrs["notes"])
    strange = model.recommend(
        ["C001"], 5, recent=pd.DataFrame({"customer_id": ["C001"], "product_id": ["P999"]})
    )
    assert any("P999" in note for note in strange.attrs["notes"])
    with pytest.raises(DataError, match="Unknown column 'product_id' in recent"):
        model.recommend(["C001"], recent=recent[["customer_id"]])


ODD = {
    "customers": ["C007", "new1", "C001", "new9", "C007", "C003", "new8", "C050"],
    "k": 12,
    "block_for": pd.DataFrame({"customer_id": ["C001", "new8"], "product_id": ["P033", "P034"]}),
    "categories": ["cat2", "cat3"],
    "exclude_purchased": True,
    "recent": pd.DataFrame({"customer_id": ["C001", "new9"], "product_id": ["P033", "P020"]}),
}  # strangers, fresh baskets, rules for some, a repeated id, lists that end early


@every_model
@pytest.mark.parametrize("asked", [{}, ODD, {"customers": []}], ids=["all", "odd", "nobody"])
def test_lists_in_parts_are_the_lists(name, asked):
    model = fitted(name)
    whole = model.recommend(**asked)
    for size in (1, 3, 100):
        parts = list(model.recommend_parts(**asked, size=size))
        assert all(part["customer_id"].nunique() <= size for part in parts)
        assert [part.attrs["notes"] for part in parts[:-1]] == [[]] * (len(parts) - 1)
        assert parts[-1].attrs["notes"] == whole.attrs["notes"]
        pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)


def test_parts_are_refused_before_the_first():
    with pytest.raises(DataError, match="size"):
        fitted("popularity").recommend_parts(size=0)
    with pytest.raises(DataError, match="exclude all 62 products"):
        fitted("popularity").recommend_parts(allow=["P999"])


def test_a_recent_basket_moves_the_list_of_each_kind_of_model():
    recent = pd.DataFrame({"customer_id": ["zoe"] * 2, "product_id": ["P033", "P034"]})
    for name in (
        "personal",
        "personal_decayed",
        "collaborative",
        "content",
        "weighted",
        "ease",
        "repeat",
        "ranker",
    ):
        table = fitted(name).recommend(["zoe"], 5, recent=recent)
        assert table["method"].iloc[0] != "popular", name
        assert table.merge(SHELF, on="product_id")["category"].iloc[0] == "cat3", name


def test_a_folded_basket_equals_training_where_nothing_is_shared():
    """Personal frequency and content know a customer by their own purchases alone, so a
    basket and a training give the same.
    """
    recent = pd.DataFrame(
        {
            "customer_id": ["C001"] * 2,
            "product_id": ["P033", "P034"],
            "date": LOG["date"].max() + pd.Timedelta(days=2),
        }
    )
    longer = pd.concat([LOG, recent.assign(transaction_id="B-new", quantity=1.0, price=1.0)])
    for make in (lambda: PersonalRecommender(90), lambda: ContentRecommender()):
        folded = make().fit(LOG, SHELF).recommend(["C001"], 10, recent=recent)
        trained = make().fit(longer, SHELF).recommend(["C001"], 10)

        def own(t):
            return t[t["method"] != "popular"].set_index("product_id")[["score", "reason"]].round(5)

        pd.testing.assert_frame_equal(own(folded).sort_index(), own(trained).sort_index())


@every_model
def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    model = fitted(name)
    path = model.save(tmp_path / "model.npz")
    with zipfile.ZipFile(path) as archive:
        assert all(f.endswith(".npy") for f in archive.namelist())
    with np.load(path, allow_pickle=False) as arrays:
        json.loads(str(arrays["model"]))
    again = Recommender.load(path)
    assert type(again) is type(model)
    recent = pd.DataFrame({"customer_id": ["C001", "zoe"], "product_id": ["P033", "P040"]})
    for discovery in (False, True):
        pd.testing.assert_frame_equal(
            model.recommend(k=10, exclude_purchased=discovery),
            again.recommend(k=10, exclude_purchased=discovery),
        )
        pd.testing.assert_frame_equal(
            model.recommend(
                ["C001", "zoe", "new1"], 7, discovery, recent=recent, max_per_category=2
            ),
            again.recommend(
                ["C001", "zoe", "new1"], 7, discovery, recent=recent, max_per_category=2
            ),
        )
    pd.testing.assert_frame_equal(model.recommend(k=5), model.recommend(k=5))
    assert (tmp_path / "model.npz").read_bytes() == again.save(tmp_path / "again.npz").read_bytes()


def test_a_bad_file_is_one_sentence(tmp_path):
    bad = {
        "text.npz": b"hello",
        "empty.npz": b"",
        "cut.npz": fitted("personal").save(tmp_path / "m.npz").read_bytes()[:3000],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is not a saved recommender") as e:
            Recommender.load(tmp_path / name)
        assert "\n" not in str(e.value)
    np.savez(tmp_path / "foreign.npz", x=np.eye(2))
    with pytest.raises(DataError, match="describes no model"):
        Recommender.load(tmp_path / "foreign.npz")
    np.savez(tmp_path / "pickle.npz", model=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        Recommender.load(tmp_path / "pickle.npz")
    with pytest.raises(DataError, match="does not exist"):
        Recommender.load(tmp_path / "none.npz")
    arrays = fitted("personal").to_arrays()
    with pytest.raises(DataError, match="Unknown model class 'os.system'"):
        Recommender.from_arrays(
            arrays
            | {"model": np.array(str(arrays["model"]).replace("PersonalRecommender", "os.system"))}
        )
    with pytest.raises(DataError, match="damaged"):
        Recommender.from_arrays({k: v for k, v in arrays.items() if k != "shared.columns"})
    with pytest.raises(DataError, match="has not been fitted, so there is nothing to save"):
        PersonalRecommender().save(tmp_path / "x.npz")


one = LOG[(LOG["customer_id"] == "C001") & (LOG["quantity"] > 0)]
ties = pd.DataFrame(
    [(f"C{c}", f"P{p:03d}") for c in range(12) for p in range(8)],
    columns=["customer_id", "product_id"],
).assign(date=pd.Timestamp("2025-03-01"), quantity=1.0)
numeric = LOG.assign(
    customer_id=LOG["customer_id"].str[1:].astype(float),
    product_id=LOG["product_id"].str[1:].astype(int),
)
numbered = SHELF.assign(product_id=SHELF["product_id"].str[1:].astype(int))
holes = LOG.assign(product_id=LOG["product_id"].where(np.arange(len(LOG)) % 5 > 0))
# What is odd: log, products, question, words of the error, or words of a note, or nothing at all.
# The first table is answered before a model matters, the second reaches the code of each model.
AT_THE_DOOR = {
    "an empty question": (LOG, SHELF, {"customers": []}, None, "No customer was asked for"),
    "missing ids": (
        LOG,
        SHELF,
        {"customers": ["C001", None, np.nan]},
        None,
        "2 customer ids are missing",
    ),
    "duplicated ids": (
        LOG,
        SHELF,
        {"customers": ["C001", "C001"]},
        None,
        "1 repeated customer ids",
    ),
    "a table without ids": (
        LOG,
        SHELF,
        {"customers": pd.DataFrame({"customer": ["C001"]})},
        "Unknown column 'customer_id' in customers",
        None,
    ),
    "unknown products allowed": (
        LOG,
        SHELF,
        {"allow": ["P001", "gold"]},
        None,
        "allow names products that the model does not know: gold",
    ),
    "unknown products blocked": (
        LOG,
        SHELF,
        {"block": ["gold"]},
        None,
        "block names products that the model does not know: gold",
    ),
    "unknown category": (
        LOG,
        SHELF,
        {"categories": ["cat22"]},
        "Unknown category 'cat22' in categories; did you mean",
        None,
    ),
    "unknown rule": (
        LOG,
        SHELF,
        {"blocks": ["P001"]},
        "Unknown rule 'blocks' in recommend; did you mean 'block'",
        None,
    ),
    "everything blocked": (
        LOG,
        SHELF,
        {"block": SHELF["product_id"].tolist()},
        "The rules exclude all 62 products",
        None,
    ),
    "nothing allowed": (LOG, SHELF, {"allow": []}, "The rules exclude all", None),
    "blocked for one": (
        LOG,
        SHELF,
        {
            "customers": ["C001", "C002"],
            "block_for": pd.DataFrame({"customer_id": "C001", "product_id": SHELF["product_id"]}),
        },
        None,
        "1 customer receives no line: C001",
    ),
    "k of zero": (LOG, SHELF, {"k": 0}, "k must be a whole number of at least 1, got 0", None),
    "k in words": (
        LOG,
        SHELF,
        {"k": "ten"},
        "k must be a whole number of at least 1, got 'ten'",
        None,
    ),
    "a small allow list": (
        LOG,
        SHELF,
        {"allow": ["P001", "P002"]},
        None,
        "the rules leave 2 of 62 products",
    ),
    "a tight cap": (LOG, SHELF, {"max_per_category": 1}, None, "a category may take 1 line"),
    "an empty history": (LOG[:0], SHELF, {}, "no purchase", None),
    "only returns": (LOG[LOG["quantity"] < 0], SHELF, {}, "no purchase", None),
    "no table": ("transactions.csv", None, {}, "fit needs a table of transactions", None),
    "no product column": (
        LOG.drop(columns="product_id"),
        SHELF,
        {},
        "Unknown column 'product_id' in transactions",
        None,
    ),
    "dates that are none": (
        LOG.assign(date="soon"),
        SHELF,
        {},
        "contains a value that is not a date",
        None,
    ),
    "dates as text": (LOG.assign(date=LOG["date"].astype("str")), SHELF, {}, None, None),
    "no quantity": (LOG.drop(columns="quantity"), SHELF, {}, None, None),
    "only three columns": (LOG[["customer_id", "product_id", "date"]], SHELF, {}, None, None),
    "a cap without categories": (
        LOG,
        SHELF.drop(columns="category"),
        {"max_per_category": 2},
        "max_per_category needs the products' categories",
        None,
    ),
    "repeated products": (
        LOG,
        pd.concat([SHELF, SHELF[:1]]),
        {},
        "holds 'P000' more than once",
        None,
    ),
    "products without ids": (
        LOG,
        SHELF.drop(columns="product_id"),
        {},
        "Unknown column 'product_id' in products",
        None,
    ),
    "products without an id": (holes, SHELF, {}, None, None),
}
IN_THE_MODEL = {
    "unknown customers": (
        LOG,
        SHELF,
        {"customers": ["C001", "nobody"]},
        None,
        "1 of 2 customers has no purchase on record",
    ),
    "k too large": (
        LOG,
        SHELF,
        {"customers": ["C001"], "k": 1000},
        None,
        "k is 1000, and the catalogue ends after 62 products",
    ),
    "only anonymous sales": (
        LOG[LOG["customer_id"].isna()],
        SHELF,
        {"customers": ["C001"]},
        None,
        "no purchase on record",
    ),
    "no category": (LOG, SHELF.drop(columns=["category", "brand"]), {}, None, None),
    "no price": (LOG, SHELF.drop(columns="price"), {}, None, None),
    "one customer": (one, SHELF, {}, None, None),
    "one product": (
        LOG[LOG["product_id"] == "P020"],
        SHELF[SHELF["product_id"] == "P020"],
        {"k": 3},
        None,
        "the catalogue ends after 1 product",
    ),
    "one line": (one.head(1), SHELF, {}, None, None),
    "ties everywhere": (
        ties,
        SHELF.assign(category="same", brand="same", price=1.0),
        {},
        None,
        None,
    ),
    "numeric ids": (numeric, numbered, {"customers": [1, 2.0, "3"]}, None, None),
}


# The models that share `fit` and `recommend` share their checks: one of each such kind.
DOORS = {(type(m).fit, type(m).recommend): name for name in MODELS for m in [make_model(name)]}


def ask_oddly(name: str, odd: tuple) -> pd.DataFrame | None:
    """Ask a model; what it answers to what is no error."""
    log, shelf, question, error, note = odd
    if error:
        with pytest.raises(DataError, match=error) as e:
            plain(name, log, shelf).recommend(**question)
        assert "\n" not in str(e.value)
        return None
    model = (
        fitted(name)
        if log is LOG and shelf is SHELF and "block_for" not in question and "allow" not in question
        else plain(name, log, shelf)
    )
    if model.sensitive_ is not None:
        question = question | {"include_sensitive": True}
    table = check(model.recommend(**question), question.get("k", 10))
    if note:
        assert any(note in n for n in table.attrs["notes"]), table.attrs["notes"]
    return table


@pytest.mark.parametrize("odd", AT_THE_DOOR)
def test_odd_input_is_flagged_or_named(odd, subtests):
    for name in DOORS.values():
        with subtests.test(model=name):
            ask_oddly(name, AT_THE_DOOR[odd])


@pytest.mark.parametrize("odd", IN_THE_MODEL)
def test_every_model_takes_odd_data(odd, subtests):
    for name in MODELS:
        with subtests.test(model=name):
            table = ask_oddly(name, IN_THE_MODEL[odd])
            if odd == "numeric ids":
                assert table["customer_id"].unique().tolist() == ["1", "2", "3"]
                best_sellers = name in ("popularity", "recent_popularity", "first_buyers")
                assert (table["method"].iloc[0] == "popular") == best_sellers
            if odd == "ties everywhere" and name in ("popularity", "personal"):
                first = table.groupby("customer_id")["product_id"].agg(list).iloc[0]
                assert first[:8] == [f"P{i:03d}" for i in range(8)]


def test_no_products_table_is_needed_but_for_content():
    for name in MODELS:
        if name == "content":
            continue
        table = check(
            make_model(name)
            .fit(LOG[["customer_id", "product_id", "date", "quantity"]])
            .recommend(k=10),
            10,
        )
        assert table.groupby("customer_id").size().eq(10).all(), name
    with pytest.raises(DataError, match="needs a products table"):
        make_model("content").fit(LOG)
    with pytest.raises(
        DataError, match="names the column 'category', which the products table does not have"
    ):
        make_model("personal").fit(LOG, sensitive={"category": ["cat1"]})


def test_strangers_get_what_is_popular_in_their_segment():
    model = fitted("personal")
    table = model.recommend(["new1", "stranger"], 5)
    assert set(table["method"]) == {"popular"}
    assert set(table.query("customer_id == 'new1'")["reason"]) == {
        "popular in your segment"
    } and set(table.query("customer_id == 'stranger'")["reason"]) == {"popular now"}
    recent = (
        LOG[(LOG["date"] > LOG["date"].max() - pd.Timedelta(days=56)) & (LOG["quantity"] > 0)]
        .merge(SEGMENTS, on="customer_id")
        .query("segment == 'Lost'")
    )
    best = (
        recent[~recent["product_id"].isin(HIDDEN)]
        .groupby("product_id")["customer_id"]
        .nunique()
        .max()
    )
    first = table.query("customer_id == 'new1'")["product_id"].iloc[0]
    assert recent[recent["product_id"] == first]["customer_id"].nunique() == best


def test_a_new_product_comes_by_its_likeness_and_says_so():
    table = fitted("content").recommend(["C007"], 62, exclude_purchased=True, allow=["P060"])
    assert table["method"].item() == "content" and table["reason"].item().startswith("new, like ")


def test_the_cap_equals_a_walk_down_the_catalogue():
    rng = np.random.default_rng(5)
    for _ in range(30):
        scores = rng.integers(0, 6, (9, 50)).astype(float)
        groups = rng.integers(-1, 5, 50)
        cap = int(rng.integers(1, 4))
        k = int(rng.integers(1, 15))
        best, _ = choose(scores, k, None, Limits(None, cap, groups))
        for row, line in zip(scores, best):
            expected = []
            used = {}
            for j in sorted(range(50), key=lambda j: (-row[j], j)):
                if row[j] <= 0 or len(expected) == k:
                    break
                if groups[j] >= 0 and used.get(groups[j], 0) == cap:
                    continue
                expected.append(j)
                used[groups[j]] = used.get(groups[j], 0) + 1
            assert line.tolist() == expected + [-1] * (k - len(expected))


def test_reasons_say_what_the_log_says():
    model = PersonalRecommender().fit(LOG, SHELF)
    sales = LOG[(LOG["quantity"] > 0) & LOG["customer_id"].notna()].drop_duplicates(
        ["transaction_id", "customer_id", "product_id"]
    )
    table = model.recommend(["C001", "C005"], 10)
    for line in table[table["method"] == "personal"].itertuples():
        own = sales[
            (sales["customer_id"] == line.customer_id) & (sales["product_id"] == line.product_id)
        ]["date"].sort_values()
        age = (LOG["date"].max().date() - own.max().date()).days + 1
        assert line.reason.startswith(
            "bought once" if len(own) == 1 else f"bought {len(own)} times"
        )
        assert line.reason.endswith("yesterday" if age == 1 else f"{age} days ago")
    model = CollaborativeRecommender(10).fit(LOG, SHELF)
    line = model.recommend(["C001"], 1).iloc[0]
    near = model.base_.customer_ids[
        model.neighbours_[model.base_.customer_ids.get_loc("C001")].indices
    ]
    buyers = sales[sales["customer_id"].isin(near) & (sales["product_id"] == line["product_id"])][
        "customer_id"
    ].nunique()
    assert line["reason"] == f"{buyers} of your 10 nearest customers bought it"


def test_rules_can_be_made_once_and_used_often():
    rules = Rules(block=["P001"], max_per_category=3)
    a = fitted("personal").recommend(["C001"], 10, rules=rules)
    b = fitted("personal").recommend(["C001"], 10, block=["P001"], max_per_category=3)
    pd.testing.assert_frame_equal(a, b)


def mixed_by_hand(
    own: list, near: list, popular: list, last: str, n: int
) -> list[tuple[str, float]]:
    """The whole of both lists, mixed and sorted, and what is popular behind: what the service
    answers from the heads of both.
    """
    alike = dict(near)
    share = OWN / (max([s for _, s in own], default=0) or 1)
    lines = [(p, share * s + LIKE * alike.get(p, 0)) for p, s in own] + [
        (p, (LIKE if own else 1) * s) for p, s in near if p not in dict(own)
    ]
    out = {}
    ceiling = 1.0
    for p, s in [*sorted(lines, key=lambda line: -line[1]), *popular]:
        if p != last and p not in out:
            out[p] = ceiling = min(ceiling, s)
    return [(p, round(s, 6)) for p, s in out.items()][:n]


@pytest.mark.parametrize("seed", range(4))
def test_the_heads_of_two_lists_answer_like_the_whole(seed, tmp_path):
    rng = np.random.default_rng(seed)
    shelf = np.array([f"P{i}" for i in range(24)])
    depth = 12

    def draw(most):
        return (
            rng.permutation(shelf)[: (size := rng.integers(0, most + 1))],
            np.sort(rng.integers(0, [2, 4, 9][seed % 3], size) / 8)[::-1],
        )  # few values, so that many are equal; all exact in 32 bits

    own = {f"C{i}": draw(depth) for i in range(15)}
    near = {p: draw(20) for p in shelf}

    def long(lists, key, item):
        return pd.DataFrame(
            [
                (k, p, s, r)
                for k, (ps, ss) in lists.items()
                for r, (p, s) in enumerate(zip(ps, ss), 1)
            ],
            columns=[key, item, "score", "rank"],
        )

    lists = long(own, "customer_id", "product_id").assign(method="hybrid", reason="why")
    popular = pd.DataFrame(
        {
            "product_id": rng.permutation(shelf),
            "score": np.sort(rng.integers(0, 9, 24) / 8)[::-1],
            "method": "popular",
            "reason": "popular now",
        }
    )
    people = pd.DataFrame(
        {
            "customer_id": list(own),
            "segment": "Lost",
            "r_score": 1,
            "f_score": 1,
            "m_score": 1,
            "rfm_score": "111",
            "action": "wait",
        }
    )
    write_bundle(
        tmp_path / "v",
        {"any": [lists], "discovery": [lists]},
        popular,
        lists[["customer_id", "product_id"]],
        people,
        pd.DataFrame({"product_id": shelf}),
        long(near, "product_id", "similar_id"),
        [],
        {},
        "v",
        depth,
    )
    bundle = Bundle(tmp_path / "v")
    best = list(zip(popular["product_id"], popular["score"]))
    for who in [*own, "somebody new"]:
        for last in shelf:
            n = int(rng.integers(1, 26))
            answer = [
                (line["product_id"], line["score"])
                for line in recommend(bundle, who, n, last=last)["recommendations"]
            ]
            assert answer == mixed_by_hand(
                list(zip(*own.get(who, ((), ())))), list(zip(*near[last])), best, last, n
            ), (who, last, n)
            assert answer == [
                (line["product_id"], line["score"])
                for line in recommend(bundle, who, n, last=last, exclude=["nothing"])[
                    "recommendations"
                ]
            ], "a condition that excludes nothing"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A project with a finished run of the small shop, and the command line in it."""
    import typer.testing

    from retail_ci.cli import app
    from retail_ci.core.config import Config
    from retail_ci.core.runs import Run

    (tmp_path / "configs").mkdir()
    (tmp_path / "nbs").mkdir()
    (tmp_path / "configs" / "default.yaml").write_text("data: {transactions: sales.csv}\n")
    run = tmp_path / "runs" / "default" / "current"
    Run(Config(), run).write(
        "recommender", make_model("weighted").fit(LOG, SHELF, sensitive=SENSITIVE).to_arrays()
    )
    monkeypatch.chdir(tmp_path)

    def ask(*words):
        answer = typer.testing.CliRunner().invoke(app(), ["recommend", *words])
        assert (
            "Traceback" not in answer.output + answer.stderr
            and len(answer.stderr.strip().splitlines()) <= 11
        )
        return answer

    ask.folder = tmp_path
    return ask


def test_the_command_writes_the_lists_of_the_run(shop):
    (shop.folder / "who.csv").write_text("customer_id,name\nC001,Ann\nnobody,Bob\nC002,Cid\n")
    (shop.folder / "block.txt").write_text("P020\nP021\n")
    answer = shop(
        "--customers",
        "who.csv",
        "--out",
        "lists.csv",
        "-k",
        "4",
        "--block",
        "block.txt",
        "--categories",
        "cat2,cat3",
        "--exclude-purchased",
        "--max-per-category",
        "3",
    )
    assert answer.exit_code == 0, answer.stderr
    assert (
        "1 of 3 customers has no purchase on record" in answer.stdout
        and "3 customers, " in answer.stdout
    )
    lists = pd.read_csv("lists.csv", dtype={"customer_id": str})
    assert list(lists.columns) == COLUMNS and set(lists["product_id"]) <= {
        f"P{i:03d}" for i in range(22, 40)
    }
    assert lists["customer_id"].unique().tolist() == ["C001", "nobody", "C002"]
    answer = shop("--all", "--out", "out/lists.parquet")
    assert answer.exit_code == 0 and "10/10" in answer.stderr
    whole = pd.read_parquet("out/lists.parquet")
    pd.testing.assert_frame_equal(
        whole,
        make_model("weighted").fit(LOG, SHELF, sensitive=SENSITIVE).recommend(k=10),
        check_dtype=False,
    )
    assert not set(whole["product_id"]) & HIDDEN


@pytest.mark.parametrize(
    "words, exit_code, sentence",
    [
        (["--all"], 2, "--out FILE"),
        (["--out", "x.csv"], 2, "either --customers FILE or --all"),
        (["--all", "--out", "x.xlsx"], 2, "must name a .csv or .parquet"),
        (["--all", "--out", "."], 2, "must name a .csv or .parquet"),
        (["--all", "--out", "x.csv", "-k", "-2"], 2, "-k must be between 1 and 1000, found -2"),
        (["--customers", "none.csv", "--out", "x.csv"], 3, "does not exist"),
        (["--customers", "bytes.csv", "--out", "x.csv"], 3, "not a readable table"),
        (["--customers", "empty.csv", "--out", "x.csv"], 3, "not a readable table"),
        (
            ["--customers", "wrong.csv", "--out", "x.csv"],
            3,
            "Unknown column 'customer_id' in wrong.csv",
        ),
        (["--all", "--out", "x.csv", "--categories", "cat22"], 3, "Unknown category 'cat22'"),
        (["--all", "--out", "x.csv", "--allow", "gold.txt"], 3, "The rules exclude all"),
        (
            ["--all", "--out", "x.csv", "--recent", "wrong.csv"],
            3,
            "--recent: Unknown column 'customer_id'",
        ),
        (["--all", "--out", "x.csv", "--config", "other"], 4, "no finished run"),
    ],
)
def test_nonsense_is_one_sentence_and_an_exit_code(shop, words, exit_code, sentence):
    (shop.folder / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81customer_id")
    (shop.folder / "empty.csv").write_text("")
    (shop.folder / "wrong.csv").write_text("name,town\nAnn,Rome\n")
    (shop.folder / "gold.txt").write_text("gold\n")
    (shop.folder / "configs" / "other.yaml").write_text("{}")
    answer = shop(*words)
    assert (
        answer.exit_code == exit_code
        and sentence in answer.stderr
        and len(answer.stderr.strip().splitlines()) == 1
    ), answer.stderr
    assert not list(shop.folder.glob("x.csv"))


def test_what_is_tuned_is_measured_published_and_served(tmp_path):
    """The small config through the pages that matter, to the bundle; then a run whose evaluation
    was made under other settings.
    """
    pages = ("00c", "00e", "01_", "02_", "03c", "04k", "05_")
    project = checkout(tmp_path / "project", *pages)
    config = project.root / "configs/small.yaml"
    config.write_text(
        config.read_text()
        .replace("lines: 8000", "lines: 5000")
        .replace("k_max: 7", "k_max: 5\n  draws: 2")
        + "recommender: {cuts: 1, parameters: {ranker: {neighbours: 60, items: 40}}}\n"
        + "serving: {promote_first: false}\n"
    )
    ran = project.here("run", "--config", "small")
    assert ran.returncode == 0, ran.stderr
    run = project.home("small") / "current"
    ranker = HybridRecommender.from_arrays(load(run / ARTEFACTS["recommender"].path))
    measured = json.loads((run / "metrics/ranking.json").read_text())["protocol"]["settings"][
        "ranker"
    ]
    assert (
        (ranker.neighbours, ranker.items) == (60, 40) == (measured["neighbours"], measured["items"])
    )
    said = project.here("models", "promote", "--config", "small")
    assert said.returncode == 0, said.stderr
    bundle = Bundle(current_bundle(project.home("small") / "serving"))
    assert bundle.card["settings"]["parameters"] == {"ranker": {"neighbours": 60, "items": 40}}
    who = ranker.data_.customer_ids[:5].tolist()
    for customer, lines in ranker.recommend(who, 10).groupby("customer_id"):
        assert [
            line["product_id"] for line in recommend(bundle, customer)["recommendations"]
        ] == lines["product_id"].tolist()
    settings = load_config(config).recommender
    assert (
        as_measured(load(run / "metrics/ranking.json"), settings).passed
        and not as_measured(
            load(run / "metrics/ranking.json"), replace(settings, parameters={})
        ).passed
    )
