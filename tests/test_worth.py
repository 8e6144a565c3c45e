"""Worth: the published fit, recovery on simulated customers, intervals, and logs on which nothing
can be said.
"""

from importlib.util import find_spec
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from retail_ci.core.errors import DataError
from retail_ci.customers.features import epoch_day
from retail_ci.customers.lifetime_value import (
    HORIZONS,
    HiddenWindows,
    PurchaseModel,
    Rows,
    SpendModel,
    bootstrap,
    customer_lifetime_value,
    customer_worth,
    expected_visits,
    fit_both,
    forecast_value,
    gain_of_leaving,
    histories,
    hold_out,
    p_alive,
    p_visit,
    purchase_likelihood,
    simulate,
    visits_between,
    with_answers,
    with_forecast,
)

lifetimes = pytest.mark.skipif(
    not find_spec("lifetimes"),
    reason="the CDNOW data comes with the package Lifetimes, which is not installed",
)


def cdnow_sample() -> pd.DataFrame:
    folder = Path(find_spec("lifetimes").submodule_search_locations[0]) / "datasets"
    table = pd.read_csv(folder / "cdnow_customers_summary_with_transactions.csv")
    return table.rename(columns={"x": "repeats", "t_x": "recency", "T": "age", "zbar": "value"})


def with_value(made: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    visits = made.repeats + 1
    return made.assign(
        visits=visits,
        value=rng.gamma(6.0 * visits) / (visits * rng.gamma(4.0, 1 / 60.0, len(made))),
    )


@lifetimes
def test_cdnow_gives_the_published_parameters():
    rows, _ = Rows.of(cdnow_sample())
    assert rows.weight.sum() == 2357
    model = PurchaseModel(first=False).fit(rows)
    assert [round(v, 2) for v in model.params_.values()] == [
        0.24,
        4.41,
        0.79,
        2.43,
    ]  # Fader, Hardie, Lee 2005: .243, 4.414, .793, 2.426
    assert np.allclose(list(model.params_.values()), [0.243, 4.414, 0.793, 2.426], atol=6e-4)
    assert (
        model.loglik_ == pytest.approx(-9582.4, abs=0.05)
        and model.agreeing_ == 3
        and not model.at_limit_
    )


@lifetimes
def test_cdnow_gives_the_published_gamma_gamma():
    buyers = cdnow_sample().query("repeats > 0")
    spend = SpendModel().fit(buyers.repeats.to_numpy(), buyers.value.to_numpy())
    assert len(buyers) == 946
    assert np.allclose(
        list(spend.params_.values()), [6.25, 3.74, 15.44], atol=0.01
    )  # Fader and Hardie 2013
    assert abs(buyers.repeats.corr(buyers.value)) < 0.12  # they report .11


@lifetimes
def test_cdnow_expected_visits_of_a_customer():
    """Fader, Hardie and Lee's worked example: customer 1 with x=2, t_x=30.43, T=38.86 is expected
    to come 1.23 times in 39 weeks.
    """
    theta = np.log([0.243, 4.414, 0.793, 2.426])
    one, _ = Rows.of(pd.DataFrame({"repeats": [2], "recency": [30.43], "age": [38.86]}))
    assert expected_visits(theta, one, 39, first=False)[0] == pytest.approx(1.226, abs=0.001)


@lifetimes
def test_the_sample_file_gives_the_same_histories():
    folder = Path(find_spec("lifetimes").submodule_search_locations[0]) / "datasets"
    raw = pd.read_csv(
        folder / "CDNOW_sample.txt",
        sep=r"\s+",
        header=None,
        usecols=[1, 2, 4],
        names=["m", "customer_id", "date", "n", "revenue"],
        dtype={"customer_id": str},
    )
    log = pd.DataFrame(
        {
            "customer_id": raw.customer_id,
            "day": pd.to_datetime(raw.date.astype(str), format="%Y%m%d"),
            "revenue": raw.revenue,
            "is_return": False,
        }
    )
    mine = histories(ibis.memtable(log), pd.Timestamp("1997-10-01")).execute()
    theirs = cdnow_sample().sort_values("ID").reset_index(drop=True)
    assert (
        len(mine) == len(theirs) == 2357
        and (mine.repeats.to_numpy() == theirs.repeats.to_numpy()).all()
    )
    assert np.allclose(mine.recency, theirs.recency, atol=0.006) and np.allclose(
        mine.age - 1 / 7, theirs.age, atol=0.006
    )


@pytest.mark.parametrize("first", [True, False])
def test_parameters_are_found_again(first):
    truth = [0.8, 5.0, 1.2, 3.0]
    model = PurchaseModel(first).fit(
        Rows.of(simulate(30_000, *truth, weeks=78, first=first, seed=5))[0]
    )
    assert np.allclose(list(model.params_.values()), truth, rtol=0.12), model.params_


@pytest.mark.parametrize("first", [True, False])
def test_the_answers_are_true_on_average(first):
    made = simulate(30_000, first=first, seed=8)
    rows, place = Rows.of(made)
    theta = np.log([0.5, 6.0, 0.9, 1.6])
    for some in (made.repeats == 0, made.repeats == 1, made.repeats > 3, made.recency < 10):
        assert p_alive(theta, rows, first)[place][some].mean() == pytest.approx(
            made.alive[some].mean(), abs=0.02
        )
        assert p_visit(theta, rows, 13, first)[place][some].mean() == pytest.approx(
            (made.future[some] > 0).mean(), abs=0.015
        )
        assert expected_visits(theta, rows, 13, first)[place][some].mean() == pytest.approx(
            made.future[some].mean(), rel=0.08
        )


@pytest.mark.parametrize(
    "r, alpha, a, b",
    [
        (0.3, 4, 0.8, 2.4),
        (2, 10, 0.15, 4),
        (1.4, 1.5, 0.6, 837),
        (0.5, 6, 1.0, 2),
        (0.5, 6, 1.000001, 2),
        (1, 2, 30, 400),
        (3, 5, 0.01, 0.5),
    ],
)
def test_expected_visits_equal_the_integral(r, alpha, a, b):
    """E[(1 - (1 + pt/alpha')^-r') / p] over the beta posterior of p, by quadrature."""
    table = pd.DataFrame(
        {"repeats": [0, 3, 40, 150], "recency": [0.0, 20, 39, 51], "age": [30.0, 40, 40, 52]}
    )
    rows, _ = Rows.of(table)
    theta = np.log([r, alpha, a, b])
    for weeks in HORIZONS.values():
        wanted = []
        for x, age in zip(rows.x, rows.age):
            shape = r + x
            past = alpha + age
            left = beta(a, b + x + 1)

            def inner(u):
                p = max(left.ppf(u), 1e-300)
                return -np.expm1(-shape * np.log1p(p * weeks / past)) / p

            wanted.append(quad(inner, 0, 1, epsabs=0, epsrel=1e-8, limit=300)[0])
        assert np.allclose(
            expected_visits(theta, rows, weeks) / p_alive(theta, rows), wanted, rtol=1e-4
        )


def test_the_likelihood_holds_for_very_frequent_and_very_old_customers():
    rows, _ = Rows.of(
        pd.DataFrame(
            {"repeats": [0, 900, 3000], "recency": [0.0, 500.0, 3.0], "age": [1 / 7, 520.0, 900.0]}
        )
    )
    for theta in np.log([[0.5, 6, 0.9, 1.6], [1e-3, 1e-3, 1e-3, 1e3], [1e3, 1e5, 1e3, 1e-3]]):
        value, gradient = purchase_likelihood(theta, rows)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert ((p_alive(theta, rows) >= 0) & (p_alive(theta, rows) <= 1)).all() and np.isfinite(
            expected_visits(theta, rows, 13)
        ).all()
    assert p_alive(np.log([0.5, 6, 0.9, 1.6]), rows).tolist()[2] < 1e-100


def test_intervals_cover():
    """The expectation for all customers together, known from the true parameters, lies in the 95%
    interval in at least 16 of 20 samples.
    """
    truth = np.log([0.8, 5.0, 0.8, 3.0])
    weeks = HORIZONS["90"]
    hits = 0
    for seed in range(20):
        table = with_value(simulate(700, *np.exp(truth), seed=100 + seed), seed)
        model, spend = fit_both(table)
        rows, place = Rows.of(table)
        totals = [
            expected_visits(d.visits, rows, weeks)[place].sum()
            for d in bootstrap(table, model, spend, draws=30, seed=seed)
        ]
        low, high = np.quantile(totals, [0.025, 0.975])
        hits += low <= expected_visits(truth, rows, weeks)[place].sum() <= high
    assert hits >= 16, hits


def test_who_came_once_is_not_certainly_alive():
    made = simulate(2000, seed=4)
    rows, place = Rows.of(made)
    model = PurchaseModel().fit(rows)
    once = (made.repeats == 0).to_numpy()
    assert p_alive(model.theta_, rows)[place][once].max() < 1
    old = once & (made.age > 45).to_numpy()
    new = once & (made.age < 30).to_numpy()
    assert (
        p_alive(model.theta_, rows)[place][old].mean()
        < p_alive(model.theta_, rows)[place][new].mean()
    )
    assert (
        p_alive(PurchaseModel(first=False).fit(rows).theta_, rows, first=False)[place][once] == 1
    ).all()


def test_where_nobody_leaves_it_is_said():
    rows, place = Rows.of(simulate(2000, r=2.0, alpha=4.0, a=1e-6, b=50.0, seed=6))
    model = PurchaseModel().fit(rows)
    assert gain_of_leaving(model, rows) < 3
    assert p_alive(model.theta_, rows)[place].mean() > 0.98


def sales(customers: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """A transaction log with the visits of simulated customers, days after 2024-01-01."""
    rng = np.random.default_rng(seed)
    rows = []
    for c in customers.itertuples():
        start = int(7 * (52 - c.age))
        days = sorted(
            {
                start,
                start + int(7 * c.recency),
                *(start + rng.integers(0, int(7 * c.recency) + 1, max(c.repeats - 1, 0))),
            }
            if c.repeats
            else {start}
        )
        rows += [
            (
                c.customer_id,
                pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(d)),
                float(rng.gamma(4, 8)),
                False,
            )
            for d in days
        ]
    return pd.DataFrame(rows, columns=["customer_id", "day", "revenue", "is_return"])


def test_shuffled_rows_give_equal_results():
    log = sales(simulate(300, seed=2))
    results = []
    for frame in (log, log.sample(frac=1, random_state=1)):
        table = histories(ibis.memtable(frame), pd.Timestamp("2025-01-01")).execute()
        model, spend = fit_both(table)
        results.append(
            customer_worth(table, model, spend, bootstrap(table, model, spend, draws=4))[0]
        )
    assert results[0].equals(results[1])


def test_shuffled_customers_give_equal_parameters():
    made = with_value(simulate(500, seed=2))
    assert (
        PurchaseModel().fit(Rows.of(made)[0]).theta_
        == PurchaseModel().fit(Rows.of(made.sample(frac=1, random_state=3))[0]).theta_
    ).all()


def test_hold_out_sees_nothing_of_the_hidden_weeks():
    log = sales(simulate(400, seed=9))
    reference = pd.Timestamp("2025-01-01")
    held, weeks = hold_out(ibis.memtable(log), reference, 90)
    later = log.day >= reference - pd.Timedelta(days=90)
    doubled = pd.concat([log, log[later].assign(day=log.day[later] + pd.Timedelta(days=1))])
    again, _ = hold_out(ibis.memtable(doubled[doubled.day < reference]), reference, 90)
    assert (held.expected == again.expected).all() and held.actual.sum() < again.actual.sum()
    assert weeks.actual.sum() == held.actual.sum() and weeks.expected.sum() == pytest.approx(
        held.expected.sum()
    )


def test_returns_never_make_a_value_negative():
    log = sales(simulate(200, seed=3))
    bad = log.customer_id.isin(log.customer_id.unique()[:20])
    log = pd.concat(
        [
            log,
            log[bad].assign(revenue=-2 * log.revenue[bad], is_return=True),
            log.tail(30).assign(revenue=0.0),
        ]
    )
    table = histories(ibis.memtable(log), pd.Timestamp("2025-01-01")).execute()
    assert (table.value >= 0).all() and (table.value == 0).sum() >= 20
    model, spend = fit_both(table)
    worth = customer_worth(table, model, spend, [])[0]
    assert (worth.value_90 >= 0).all() and np.isfinite(
        worth.drop(columns="customer_id")
    ).all().all()


def test_all_purchases_on_one_day_are_one_visit():
    log = pd.DataFrame(
        {
            "customer_id": "A",
            "day": pd.Timestamp("2024-05-01"),
            "revenue": [5.0, 6.0, 7.0],
            "is_return": False,
        }
    )
    one = histories(ibis.memtable(log), pd.Timestamp("2024-06-05")).execute().iloc[0]
    assert (one.repeats, one.recency, one.age, one.visits, one.value) == (0, 0.0, 5.0, 1, 18.0)
    assert visits_between(
        ibis.memtable(log), pd.Timestamp("2024-05-01"), pd.Timestamp("2024-05-02")
    ).execute().visits.tolist() == [1]


@pytest.mark.parametrize(
    "customers, message",
    [(1, "at least 20 customers to learn from, found 1"), (40, "found 0 of 40")],
)
def test_too_little_to_learn_from_is_said(customers, message):
    log = pd.DataFrame(
        {
            "customer_id": [f"C{i}" for i in range(customers)],
            "day": pd.Timestamp("2024-05-01"),
            "revenue": 5.0,
            "is_return": False,
        }
    )
    table = histories(ibis.memtable(log), pd.Timestamp("2024-08-01")).execute()
    with pytest.raises(DataError, match=message):
        fit_both(table)


def test_nothing_but_returned_goods_has_no_value():
    made = with_value(simulate(300, seed=1)).assign(value=0.0)
    with pytest.raises(DataError, match="at least 10 customers with a positive net spend, found 0"):
        fit_both(made)


def test_equal_spend_of_everybody_is_its_own_expectation():
    made = with_value(simulate(300, seed=1)).assign(value=25.0)
    spend = SpendModel().fit(made.visits.to_numpy(), made.value.to_numpy())
    assert np.allclose(
        spend.expected(made.visits.to_numpy(), made.value.to_numpy()), 25.0, rtol=0.01
    )


def steady_shop(customers: int = 2000, days: int = 420, seed: int = 5) -> pd.DataFrame:
    """Customers who come at random at a rate of their own, and never leave."""
    rng = np.random.default_rng(seed)
    daily = np.minimum(rng.gamma(0.8, 0.03, customers), 0.9)
    who, when = np.nonzero(rng.random((customers, days)) < daily[:, None])
    typical = rng.gamma(5.0, 6.0, customers)
    return pd.DataFrame(
        {
            "customer_id": [f"C{w:04d}" for w in who],
            "date": pd.Timestamp("2024-01-01") + pd.to_timedelta(when, unit="D"),
            "revenue": (typical[who] * rng.gamma(4.0, 0.25, len(who))).round(2),
        }
    )


def test_the_value_forecast_is_right_in_total_and_its_intervals_cover():
    """In a shop without season or trend; what came is added up by itself, from the hidden days."""
    log = steady_shop()
    cut = log["date"].max() + pd.Timedelta(days=1 - 90)
    worth = customer_lifetime_value(log[log["date"] < cut], as_of=cut, draws=0)
    hidden = log[log["date"] >= cut].groupby("customer_id")["revenue"].sum()
    came = hidden.reindex(worth["customer_id"]).fillna(0.0).to_numpy()
    assert worth["value_90"].sum() == pytest.approx(came.sum(), rel=0.05)
    inside = (worth["value_90_low"] <= came + 1e-9) & (came <= worth["value_90_high"] + 1e-9)
    assert 0.87 < inside.mean() < 0.93
    by_visits = inside.groupby(pd.qcut(worth["visits"].rank(method="first"), 4).to_numpy()).mean()
    assert by_visits.between(0.84, 0.96).all(), by_visits


def test_a_log_too_short_to_hide_weeks_has_no_interval_of_a_customer():
    worth = customer_lifetime_value(steady_shop(300, days=120), draws=2)
    assert worth["value_90"].gt(0).all() and worth["value_90_low"].isna().all()
    assert (worth["value_365_low"] <= worth["value_365"]).all()


def test_the_forecast_of_ninety_days_moves_the_year_by_as_much():
    log = steady_shop(600, days=300).assign(is_return=False).rename(columns={"date": "day"})
    lines = ibis.memtable(log)
    end = log["day"].max() + pd.Timedelta(days=1)
    windows = HiddenWindows(lines, epoch_day(end))
    start = epoch_day(end) - 90
    window = windows.at(start)
    assert windows.at(start) is window and windows.at(windows.begin + 59) is None
    model, spend = fit_both(window)
    forecast = forecast_value(with_answers(window, model, spend), start, windows)
    plain = customer_worth(window, model, spend, [])[0]
    moved = with_forecast(plain, forecast, margin=0.5)
    assert np.allclose(moved["value_90"], forecast.value / 2)
    assert np.allclose(
        moved["value_365"] - moved["value_90"],
        forecast.level * (plain["value_365"] - plain["value_90"]),
    )
    kept = ["p_alive", "buys_90", "purchases_90", "purchases_365"]
    assert moved[kept].equals(plain[kept])
