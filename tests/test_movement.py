"""Movement: pictures that see no future, moves that mean what they say, and logs that are too
short.
"""

import ibis
import numpy as np
import pandas as pd
import pytest

from retail_ci.core.errors import DataError
from retail_ci.customers.features import rfm_features
from retail_ci.customers.migration import (
    GONE,
    NOT_YET,
    ORDER,
    SNAPSHOT,
    chance,
    choose_window,
    day_matrix,
    directions,
    migration,
    month_ends,
    name_snapshots,
    plot_migration,
    replay,
    slipped,
    states,
    take_snapshots,
)


def shop(customers: int = 150, months: int = 12, seed: int = 0) -> pd.DataFrame:
    """Customers with rates of their own; a fifth stops half-way, a fifth begins half-way."""
    rng = np.random.default_rng(seed)
    days = 30 * months
    rows = []
    for i in range(customers):
        rate = rng.gamma(1.5, 1 / 20)
        kind = i % 5
        on = np.flatnonzero(rng.random(days) < rate)
        on = on[on < days // 2] if kind == 0 else on[on >= days // 2] if kind == 1 else on
        rows += [
            (
                f"C{i:04d}",
                pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(d)),
                round(float(rng.gamma(3, 8)), 2),
                False,
            )
            for d in on
        ]
    log = pd.DataFrame(rows, columns=["customer_id", "day", "revenue", "is_return"])
    return log.assign(
        transaction_id=[f"B{i}" for i in range(len(log))],
        product_id="P",
        quantity=1.0,
        is_weekend=log.day.dt.day_of_week > 4,
    )


@pytest.fixture(scope="module")
def played():
    log = shop()
    table = ibis.memtable(log)
    ends = month_ends(log.day.min(), log.day.max() + pd.Timedelta(days=1), 180)
    named, model = name_snapshots(take_snapshots(table, ends, 180))
    film = states(named)
    present = film.iloc[:, -2][lambda s: ~s.isin([GONE, NOT_YET])]
    luck = chance(table, present, ends[-2], (ends[-1] - ends[-2]).days, 180, model, draws=5)
    return log, ends, named, model, film, luck


@pytest.mark.parametrize(
    "begin, end, longest, days, pictures",
    [
        ("2023-01-01", "2025-01-01", 365, 365, 13),
        ("2025-01-01", "2026-01-01", 365, 180, 7),
        ("2025-01-15", "2026-01-15", 365, 180, 6),
        ("2025-01-01", "2025-07-15", 365, 90, 4),
        ("2025-01-01", "2025-06-01", 365, None, 0),
        ("2025-01-01", "2025-02-01", 365, None, 0),
        ("1997-01-01", "1998-07-01", 545, 180, 13),
        ("2025-01-01", "2025-12-01", 60, 60, 9),
    ],
)
def test_the_look_back_fits_the_log(begin, end, longest, days, pictures):
    begin = pd.Timestamp(begin)
    end = pd.Timestamp(end)
    assert choose_window(begin, end, longest) == days
    ends = month_ends(begin, end, days or 10_000)
    assert len(ends) == pictures and all(
        e.day == 1 and e <= end and (e - begin).days >= days for e in ends
    )


def test_a_picture_is_the_same_expression_as_the_features(played):
    log, ends, named, *_ = played
    wanted = (
        rfm_features(ibis.memtable(log), ends[2], 180)
        .execute()
        .query("frequency > 0")[SNAPSHOT]
        .reset_index(drop=True)
    )
    found = named[named.month_end == ends[2] - pd.Timedelta(days=1)][SNAPSHOT].reset_index(
        drop=True
    )
    assert found.equals(wanted) and (found.recency <= 180).all()


def test_no_picture_sees_the_future_and_no_month_changes_an_earlier_one(played):
    log, ends, named, *_ = played
    early, _model = name_snapshots(
        take_snapshots(ibis.memtable(log[log.day < ends[3]]), ends[:4], 180)
    )
    pd.testing.assert_frame_equal(early, named[named.month_end < ends[3]].reset_index(drop=True))


def test_customers_who_all_come_monthly_are_not_called_lost():
    """The longest absence is a month; the floors are measured against the look-back all the
    same.
    """
    months = pd.date_range("2024-01-01", periods=12, freq="MS")
    days = [(f"C{c:03d}", m + pd.Timedelta(days=c % 28)) for c in range(84) for m in months]
    log = pd.DataFrame(days, columns=["customer_id", "day"]).assign(revenue=10.0, is_return=False)
    log = log.assign(transaction_id=[f"B{i}" for i in range(len(log))], product_id="P")
    log = log.assign(quantity=1.0, is_weekend=log.day.dt.day_of_week > 4)
    ends = month_ends(log.day.min(), pd.Timestamp("2025-01-01"), 180)
    named, _model = name_snapshots(take_snapshots(ibis.memtable(log), ends, 180), window_days=180)
    overdue = named.recency * named.frequency > 180
    good = ["Champions", "Loyal Customers", "Steady Customers", "Potential Loyalists"]
    assert named[~overdue].segment.isin(good).all()
    assert not named.segment.isin(["Lost", "Hibernating"]).any()


def test_shuffled_rows_give_equal_results(played):
    log, ends, named, model, film, luck = played
    table = ibis.memtable(log.sample(frac=1, random_state=5))
    again, other = name_snapshots(take_snapshots(table, ends, 180))
    assert again.equals(named)
    present = film.iloc[:, -2][lambda s: ~s.isin([GONE, NOT_YET])]
    assert chance(table, present, ends[-2], (ends[-1] - ends[-2]).days, 180, other, draws=5).equals(
        luck
    )


def test_every_customer_has_a_state_and_every_move_a_name(played):
    *_, film, _luck = played
    assert film.notna().all().all() and set(film.to_numpy().ravel()) <= {*ORDER, NOT_YET}
    for a, b in zip(film.columns, film.columns[1:]):
        move = directions(film[a], film[b])
        matrix = migration(film[a], film[b])
        assert matrix.to_numpy().sum() == (film[b] != NOT_YET).sum()
        assert (
            (move == "new").sum() == matrix.loc[NOT_YET].sum()
            if NOT_YET in matrix.index
            else not (move == "new").any()
        )
        assert not (film[b][film[a] != NOT_YET] == NOT_YET).any(), (
            "nobody becomes a non-customer again"
        )
    assert (film.iloc[:, -1] == GONE).sum() > 0


def test_the_order_says_who_rose():
    for better, worse in zip(ORDER, ORDER[1:-1]):
        assert directions(pd.Series([better, worse]), pd.Series([worse, better])).tolist() == [
            "fell",
            "rose",
        ]


def test_who_goes_on_as_before_hardly_falls():
    """A customer who comes every day stays what they are in each replay; one who came once long ago
    goes in most.
    """
    baskets = np.vstack([np.ones(180), np.r_[np.ones(1), np.zeros(179)]])
    for seed in range(5):
        later = replay(baskets, 10 * baskets, 30, np.random.default_rng(seed))
        assert later.iloc[0].tolist() == [1, 180, 1800.0] and later.frequency[1] <= 1


def test_a_replay_keeps_the_number_of_purchases_on_average():
    rng = np.random.default_rng(0)
    baskets = (rng.random((2000, 180)) < 0.05).astype(float)
    later = replay(baskets, 10 * baskets, 30, rng)
    assert later.frequency.mean() == pytest.approx(
        9, rel=0.03
    ) and later.monetary.mean() == pytest.approx(90, rel=0.03)


def test_days_are_counted_like_features(played):
    log, ends, named, *_ = played
    here = named[named.month_end == named.month_end.max()]
    baskets, net = day_matrix(ibis.memtable(log), here.customer_id.tolist(), ends[-1], 180)
    assert (baskets.sum(axis=1) == here.frequency).all() and np.allclose(
        net.sum(axis=1), here.monetary
    )
    assert ((baskets[:, ::-1] > 0).argmax(axis=1) + 1 == here.recency).all()


def test_alerts_are_good_customers_who_slipped(played):
    _log, ends, named, _model, film, luck = played
    alerts = slipped(named, film, luck, 180)
    assert list(alerts.columns) == [
        "customer_id",
        "from",
        "to",
        "since",
        "value",
        "last_purchase",
        "chance",
        "why",
    ] and len(alerts)
    assert (
        alerts["from"].isin(["Champions", "Loyal Customers"]).all()
        and alerts.value.is_monotonic_decreasing
        and alerts.customer_id.is_unique
    )
    assert (
        alerts["from"].map(ORDER.index) < alerts["to"].map(ORDER.index)
    ).all() and alerts.chance.between(0, 1).all()
    for a in alerts.itertuples(index=False):
        assert (
            film.loc[a.customer_id, film.columns[-2]] == a[1]
            and film.loc[a.customer_id, a.since] == a[1]
        )
        held = film.columns[(film.columns >= a.since) & (film.columns < film.columns[-1])]
        assert (film.loc[a.customer_id, held] == a[1]).all()
        bought = _log[(_log.customer_id == a.customer_id) & (_log.day < ends[-1])].day.max()
        assert bought == a.last_purchase


def test_who_is_gone_is_on_the_list_too():
    months = pd.to_datetime(["2024-06-30", "2024-07-31"])
    named = pd.DataFrame(
        {
            "month_end": [months[0], months[0], months[1]],
            "customer_id": ["a", "b", "b"],
            "segment": ["Champions", "Lost", "Champions"],
            "recency": [170, 100, 3],
            "frequency": [4, 1, 5],
            "monetary": [90.0, 5.0, 80.0],
        }
    )
    alerts = slipped(
        named, states(named), pd.DataFrame({"slipped": [0.1, 0.0]}, index=["a", "b"]), 180
    )
    assert (
        alerts.customer_id.tolist() == ["a"]
        and alerts["to"][0] == GONE
        and alerts.last_purchase[0] == pd.Timestamp("2024-01-13")
    )
    assert (
        alerts.why[0]
        == "last purchase 201 days ago (170 a month before); no purchases in 180 days (4 before)"
    )


def test_negative_spend_and_returns_pass(played):
    log, ends, *_ = played
    back = log[log.customer_id < "C0020"].assign(
        revenue=lambda t: -3 * t.revenue, is_return=True, day=lambda t: t.day + pd.Timedelta(days=1)
    )
    both = pd.concat([log, back[back.day <= log.day.max()]])
    named, _model = name_snapshots(take_snapshots(ibis.memtable(both), ends, 180))
    assert (named.monetary < 0).any() and named.segment.notna().all()


def test_too_few_customers_are_said():
    log = shop(customers=5).query("customer_id == 'C0002'")
    ends = month_ends(pd.Timestamp("2024-01-01"), pd.Timestamp("2024-12-26"), 180)
    with pytest.raises(DataError, match="5 segments need at least 5 customers"):
        name_snapshots(take_snapshots(ibis.memtable(log), ends, 180))


def test_the_film_can_be_drawn_for_two_months_and_for_many(played):
    *_, film, _luck = played
    for months in (2, 6, 50):
        figure = plot_migration(film, months).figure
        assert (
            len(figure.axes[0].get_xticks()) == min(months, film.shape[1])
            and figure.axes[0].patches
        )
        import matplotlib.pyplot

        matplotlib.pyplot.close(figure)
