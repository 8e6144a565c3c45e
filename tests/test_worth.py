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
from scipy.optimize import minimize
from scipy.stats import beta

from retail_ci.core.errors import DataError
from retail_ci.customers.features import epoch_day
from retail_ci.customers.forecasts import ChanceCalibration, GapCurve
from retail_ci.customers.lifetime_value import (
    HiddenWindows,
    _forecast_visits,
    _visit_columns,
    _VisitCurves,
    _VisitForecast,
    customer_lifetime_value,
    fit_both,
    forecast_value,
    gain_of_leaving,
    hold_out,
    visits_between,
    with_answers,
    with_forecast,
)
from retail_ci.customers.purchase_model import (
    HORIZONS,
    PurchaseModel,
    Rows,
    SpendModel,
    bootstrap,
    customer_worth,
    expected_visits,
    histories,
    p_alive,
    p_visit,
    purchase_likelihood,
    simulate,
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


def test_the_forecast_is_the_same_in_bitcoins_and_in_rupiahs():
    """Amounts of a thousandth of the usual size, and of a billion times."""
    log = steady_shop(1_000, days=330).assign(revenue=lambda t: t["revenue"].round(1))
    whole = customer_lifetime_value(log, draws=0)
    for scale in (1e-3, 1e9):
        scaled = log.assign(revenue=(log["revenue"] * scale).round(4))
        found = customer_lifetime_value(scaled, draws=0)
        for name in ("value_90", "value_90_low", "value_90_high", "value_365"):
            total = found[name].sum() / scale
            assert total == pytest.approx(whole[name].sum(), rel=2e-3), (scale, name)
        each = found["value_90"] / scale - whole["value_90"]
        assert each.abs().mean() < 0.01 * whole["value_90"].mean(), scale


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


# ---------------------------------------------------------------- the next visit


def shop_of(made: pd.DataFrame, start: str = "2024-01-01", seed: int = 4) -> pd.DataFrame:
    """A log of simulated customers with a known rate, who leave with a known probability."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, first, rate, leave in made.itertuples(index=False):
        clock = first
        while clock < 450:
            rows.append((name, int(clock)))
            if rng.random() < leave:
                break
            clock += rng.exponential(7 / rate)
    who, when = zip(*rows)
    return pd.DataFrame(
        {
            "customer_id": who,
            "day": pd.Timestamp(start) + pd.to_timedelta(when, unit="D"),
            "revenue": 20.0,
            "is_return": False,
        }
    )


def forecast_at(log: pd.DataFrame, today: pd.Timestamp) -> tuple[pd.DataFrame, _VisitForecast]:
    """Each customer's columns, forecast from what lies before a day."""
    lines = ibis.memtable(log[log["day"] < today])
    table = histories(lines, today).execute()
    curves = _VisitCurves(HiddenWindows(lines, epoch_day(today)))
    found = _forecast_visits(table, epoch_day(today), curves, fit_both(table)[0])
    return _visit_columns(found, table, today).assign(customer_id=table["customer_id"]), found


@pytest.fixture(scope="module")
def mbg_shop() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, _VisitForecast]:
    """A population after MBG/NBD: its truth, what came in 90 days, and what was forecast."""
    rng = np.random.default_rng(8)
    people = pd.DataFrame(
        {
            "customer_id": [f"C{i:04d}" for i in range(1_500)],
            "first": rng.uniform(0, 200, 1_500),
            "rate": rng.gamma(1.2, 0.3, 1_500),
            "leave": rng.beta(1.0, 6.0, 1_500),
        }
    )
    log = shop_of(people)
    today = pd.Timestamp("2024-01-01") + pd.Timedelta(days=360)
    found, forecast = forecast_at(log, today)
    later = log[log["day"] >= today].groupby("customer_id")["day"].min()
    wait = (later.reindex(found["customer_id"]) - today).dt.days.to_numpy() + 1
    return log[log["day"] < today], found.assign(wait=wait), people, forecast


def test_chances_of_a_known_population_are_calibrated(mbg_shop):
    _log, found, _people, forecast = mbg_shop
    assert (forecast.note, forecast.way) == ("", "model")
    for chance, happened in (
        (found["comes_30"], found["wait"] <= 30),
        (found["lost_90"], ~(found["wait"] <= 90)),
    ):
        groups = pd.qcut(chance.rank(method="first"), 10, labels=False)
        both = pd.DataFrame({"given": chance, "came": happened}).groupby(groups).mean()
        error = np.sqrt(both["given"] * (1 - both["given"]) / (len(found) / 10))
        assert ((both["given"] - both["came"]).abs() < 3 * error + 0.02).all(), both
        rate = happened.mean()
        assert ((chance - happened) ** 2).mean() < 0.9 * rate * (1 - rate)
    assert found["lost_90"].mean() == pytest.approx((~(found["wait"] <= 90)).mean(), abs=0.03)


def test_half_of_the_visits_come_by_the_median_and_lie_in_the_half_interval(mbg_shop):
    log, found, _people, _forecast = mbg_shop
    today = pd.Timestamp("2024-01-01") + pd.Timedelta(days=360)
    assert log["day"].max() < today
    visit = today + pd.to_timedelta(found["wait"] - 1, unit="D")
    due = found["next_visit"].notna()
    assert 0.2 < due.mean() < 1
    assert (visit <= found["next_visit"])[due].mean() == pytest.approx(0.5, abs=0.06)
    for ends, share in (("50", 0.5), ("90", 0.9)):
        low, high = found[f"next_visit_low_{ends}"], found[f"next_visit_high_{ends}"]
        whole = high.notna()
        assert (low <= high)[whole].all() and (low >= today)[whole].all()
        inside = ((low <= visit) & (visit <= high))[whole]
        assert share - 0.06 < inside.mean() < share + 0.12  # days are whole: a bit more


def test_overdue_is_counted_by_hand(mbg_shop):
    """Own usual gap: the mean of own gaps and one typical gap; long: nine in ten of all gaps."""
    log, found, _people, _forecast = mbg_shop
    days = log.drop_duplicates(["customer_id", "day"]).sort_values(["customer_id", "day"])
    gap = days.groupby("customer_id")["day"].diff().dt.days
    own = days.assign(gap=gap).groupby("customer_id")["gap"].agg(["sum", "count"])
    usual = (own["sum"] + gap.mean()) / (own["count"] + 1)
    long = (gap / days["customer_id"].map(usual)).dropna().round(2).quantile(0.9)
    last = days.groupby("customer_id")["day"].max()
    since = last + pd.to_timedelta(np.floor((usual * long).round(6)) + 1, unit="D")
    today = pd.Timestamp("2024-01-01") + pd.Timedelta(days=360)
    since = since.where((since <= today) & (own["count"] >= 2))
    ours = found.set_index("customer_id")["overdue_since"]
    assert 50 < ours.notna().sum() < len(ours) / 2
    assert ours.equals(since.reindex(ours.index).astype(ours.dtype).rename("overdue_since"))


def test_the_calibration_is_the_most_likely_line():
    """Found once more with an optimiser that knows nothing of slopes."""
    rng = np.random.default_rng(12)
    chance = rng.uniform(0.02, 0.98, 600).round(4)
    happened = rng.random(600) < chance**2
    odds = np.log(chance / (1 - chance))

    def loss(line):
        given = 1 / (1 + np.exp(-(line[0] + line[1] * odds)))
        likelihood = np.log(np.where(happened, given, 1 - given)).sum()
        return -likelihood + line[0] ** 2 / 2 + (line[1] - 1) ** 2 / 2

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    ours = ChanceCalibration().fit(chance, happened)
    assert ours.line_ == pytest.approx(best.x, abs=1e-4)
    assert ours.predict(np.array([0.5]))[0] == pytest.approx(1 / (1 + np.exp(-best.x[0])), abs=1e-4)


@pytest.mark.parametrize("happened", [True, False])
def test_a_calibration_on_one_outcome_stays_a_chance(happened):
    ours = ChanceCalibration().fit(np.linspace(0, 1, 300), np.full(300, happened))
    given = ours.predict(np.array([0.0, 0.5, 1.0]))
    assert (np.diff(given) >= 0).all() and (given >= 0).all() and (given <= 1).all()
    assert (given[1] > 0.9) == happened


def test_a_gap_curve_with_open_gaps_is_kaplan_and_meiers():
    gaps = np.array([0.5, 1.0, 1.0, 2.5])
    silences = np.array([0.7, 1.0, 4.0])
    curve = GapCurve().fit(gaps, silences)
    lasting = 1.0
    for at in (0.5, 1.0, 2.5):
        open_then = (gaps >= at).sum() + (silences >= at).sum()
        lasting *= 1 - (gaps == at).sum() / open_then
        assert curve.lasts(np.array([at]))[0] == pytest.approx(lasting)
    assert GapCurve().fit(gaps[:0], silences).ends(silences, silences).tolist() == [0, 0, 0]


def clockwork(customers: int = 300, days: int = 330, seed: int = 6) -> pd.DataFrame:
    """Customers who come by the clock, each at a gap of their own; some stop."""
    rng = np.random.default_rng(seed)
    gap = rng.integers(10, 60, customers)
    stop = np.where(rng.random(customers) < 0.4, rng.integers(60, days, customers), days)
    rows = [
        (f"C{c:03d}", day)
        for c in range(customers)
        for day in range(int(rng.integers(0, gap[c])), int(stop[c]), int(gap[c]))
    ]
    who, when = zip(*rows)
    return pd.DataFrame(
        {
            "customer_id": who,
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(when, unit="D"),
            "revenue": 20.0,
            "is_return": False,
        }
    )


def test_the_own_rhythm_is_taken_where_customers_come_by_the_clock():
    found, forecast = forecast_at(clockwork(), pd.Timestamp("2024-01-01") + pd.Timedelta(days=330))
    assert (forecast.note, forecast.way) == ("", "rhythm")
    assert (forecast.tried["rhythm"] < forecast.tried["model"]).all()
    assert (forecast.tried["skill_30"] > 0.2).all()
    late = found["overdue_since"].notna()
    assert found["lost_90"][late].median() > 0.9 > found["lost_90"][~late].median()


def test_no_visit_is_forecast_where_chances_beat_no_constant():
    """Everybody comes at the same rate, whatever was before: nobody can be told from another."""
    rng = np.random.default_rng(2)
    who, when = np.nonzero(rng.random((400, 280)) < 1 / 60)
    log = pd.DataFrame(
        {
            "customer_id": [f"C{w:03d}" for w in who],
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(when, unit="D"),
            "revenue": 20.0,
            "is_return": False,
        }
    )
    found, forecast = forecast_at(log, pd.Timestamp("2024-10-07"))
    assert "no closer than the same chance for everybody" in forecast.note
    assert found.drop(columns="customer_id").isna().all().all()


def test_no_visit_is_forecast_from_a_short_log():
    log = clockwork(200)
    found, forecast = forecast_at(log, pd.Timestamp("2024-01-01") + pd.Timedelta(days=200))
    assert forecast.note.startswith("No next visit is forecast: the log has no two hidden windows")
    assert len(forecast.tried) <= 1 and found["next_visit"].isna().all()


def test_the_forecast_of_visits_sees_nothing_of_the_days_it_forecasts():
    log = clockwork(days=300)
    today = pd.Timestamp("2024-01-01") + pd.Timedelta(days=260)
    lines = ibis.memtable(log)
    windows = HiddenWindows(lines, epoch_day(log["day"].max()) + 1)
    table = histories(lines, today).execute()
    model = fit_both(table)[0]
    whole = _forecast_visits(table, epoch_day(today), _VisitCurves(windows), model)
    cut, _forecast = forecast_at(log, today)
    again = _visit_columns(whole, table, today).assign(customer_id=table["customer_id"])
    pd.testing.assert_frame_equal(again, cut)
